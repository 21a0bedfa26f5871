use anyhow::Result;
use crash::{D1Error, Fault, When};
use serde_json::json;

use crate::Probe;

#[test]
fn the_database_answers_every_way_of_asking() -> Result<()> {
    let probe = Probe::start()?;
    let insert = json!(["INSERT INTO things VALUES (?1, ?2, ?3) RETURNING name", "second", 2, [1, 255]]);
    let run = probe.call("LEDGER.run", json!(["UPDATE things SET size = ?1", 7])).unwrap();
    assert_eq!((&run["success"], &run["meta"]["changes"]), (&json!(true), &json!(1)), "{run}");
    let batch = probe.call("LEDGER.batch", json!([insert, ["SELECT * FROM things ORDER BY name"]])).unwrap();
    assert_eq!(batch[0]["results"], json!([{"name": "second"}]), "{batch}");
    assert_eq!(batch[0]["meta"]["changes"], 1);
    assert_eq!(
        batch[1]["results"],
        json!([{"name": "first", "size": 7, "content": null}, {"name": "second", "size": 2, "content": [1, 255]}])
    );
    assert_eq!(batch[1]["meta"]["changes"], 0);
    let first =
        probe.call("LEDGER.first", json!(["SELECT size FROM things WHERE name = ?", "second"])).unwrap();
    assert_eq!(first, json!({"size": 2}));
    let raw =
        probe.call("LEDGER.raw", json!(["SELECT name, size FROM things WHERE size > ?1", 2.5])).unwrap();
    assert_eq!(raw, json!([["first", 7]]));
    Ok(())
}

#[test]
fn a_batch_of_the_database_is_one_transaction_and_faults_strike_around_it() -> Result<()> {
    let probe = Probe::start()?;
    let count =
        || probe.database.query("SELECT count(*) FROM things", [], |row| row.get::<_, i64>(0)).unwrap()[0];
    let insert = |name: &str| json!(["INSERT INTO things (name, size) VALUES (?1, 1)", name]);
    let batch = |names: [&str; 2]| probe.call("LEDGER.batch", json!(names.map(insert)));

    assert_eq!(
        batch(["new", "first"]).unwrap_err(),
        "Error: D1_ERROR: UNIQUE constraint failed: things.name: SQLITE_CONSTRAINT"
    );
    assert_eq!(count(), 1);
    probe.database.fail("probe", "INSERT", 0, 1, Fault::refused(D1Error::reset()));
    assert!(batch(["a", "b"]).unwrap_err().contains("object to be reset"));
    assert_eq!(count(), 1);
    probe.database.fail("probe", "INSERT", 0, 1, Fault::done_but_refused(D1Error::reset()));
    assert!(batch(["a", "b"]).unwrap_err().contains("object to be reset"));
    assert_eq!(count(), 3);
    probe.database.fail("", "", 0, 1, Fault::dropped(When::Before));
    assert!(batch(["c", "d"]).unwrap_err().contains("connection"));
    assert!(batch(["c", "d"]).is_ok());
    let many = format!("SELECT {}", vec!["?"; 101].join(","));
    let error = probe.call("LEDGER.all", json!([many])).unwrap_err();
    assert!(error.contains("too many SQL variables"), "{error}");
    Ok(())
}
