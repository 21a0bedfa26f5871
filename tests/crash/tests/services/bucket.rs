use std::time::Duration;

use anyhow::Result;
use crash::{Fault, Gate, Neighbours, R2Error, When};
use serde_json::{Value, json};

use crate::Probe;

#[test]
fn the_bucket_deletes_heads_and_lists() -> Result<()> {
    let probe = Probe::start()?;
    probe.bucket.upload(["a", "b/1", "b/2", "c", "d"]);

    let head = probe.call("BUCKET.head", json!(["c"])).unwrap();
    assert_eq!(head["key"], "c");
    assert!(head["uploaded"].as_str().unwrap().starts_with("20"), "{head}");
    assert_eq!(probe.call("BUCKET.head", json!(["missing"])).unwrap(), Value::Null);

    let page = probe.call("BUCKET.list", json!([{"limit": 2, "delimiter": "/"}])).unwrap();
    assert_eq!((&page["truncated"], &page["delimitedPrefixes"]), (&json!(true), &json!(["b/"])), "{page}");
    let rest = probe.call("BUCKET.list", json!([{"cursor": page["cursor"]}])).unwrap();
    let keys: Vec<_> =
        rest["objects"].as_array().unwrap().iter().map(|object| object["key"].clone()).collect();
    assert_eq!((keys, &rest["truncated"]), (vec![json!("c"), json!("d")], &json!(false)));

    assert_eq!(probe.call("BUCKET.delete", json!([["a", "b/1", "missing"]])).unwrap(), Value::Null);
    assert_eq!(probe.call("BUCKET.delete", json!(["d"])).unwrap(), Value::Null);
    assert_eq!(probe.bucket.keys(), ["b/2", "c"]);
    let deletes: Vec<_> = probe.bucket.deletes().iter().map(|call| (call.keys.len(), call.error)).collect();
    assert_eq!(deletes, [(3, None), (1, None)]);
    Ok(())
}

/// The order is that of the bytes of UTF-8, in which the last two are the other way round in UTF-16.
#[test]
fn the_bucket_lists_as_r2_does() -> Result<()> {
    let probe = Probe::start()?;
    let keys =
        ["P/1", "a", "p", "p/", "p/a", "p/a/1", "p/a/2", "p/b/1", "p/é", "p/\u{ffff}", "p/\u{10000}", "p0"];
    probe.bucket.upload(keys.iter().rev().copied());
    let list = |options: Value| probe.call("BUCKET.list", json!([options])).unwrap();
    let names = |page: &Value| -> Vec<String> {
        let objects = page["objects"].as_array().into_iter().flatten();
        objects.map(|object| object["key"].as_str().unwrap_or_default().to_owned()).collect()
    };

    assert_eq!(names(&list(json!({}))), keys);
    assert_eq!(names(&list(json!({"prefix": "p/"}))), keys[3..11]);
    assert_eq!(names(&list(json!({"prefix": "p/", "startAfter": "p/a"}))), keys[5..11]);
    assert_eq!(names(&list(json!({"prefix": "p/", "startAfter": "p/a/\u{10ffff}"}))), keys[7..11]);
    assert_eq!(names(&list(json!({"prefix": "p/", "startAfter": "z"}))), Vec::<String>::new());
    let first = list(json!({"prefix": "p/", "startAfter": "a", "limit": 3}));
    assert_eq!(
        (names(&first), &first["truncated"]),
        (keys[3..6].iter().map(|key| (*key).to_owned()).collect(), &json!(true))
    );
    let whole = list(json!({"prefix": "p/", "limit": 8}));
    assert_eq!((names(&whole).len(), &whole["truncated"]), (8, &json!(false)));

    let level = list(json!({"prefix": "p/", "delimiter": "/"}));
    assert_eq!(level["delimitedPrefixes"], json!(["p/a/", "p/b/"]));
    assert_eq!(names(&level), ["p/", "p/a", "p/é", "p/\u{ffff}", "p/\u{10000}"]);
    let within = list(json!({"prefix": "p/", "delimiter": "/", "startAfter": "p/a/1"}));
    assert_eq!(within["delimitedPrefixes"], json!(["p/a/", "p/b/"]), "a folder of which a key is left");
    let behind = list(json!({"prefix": "p/", "delimiter": "/", "startAfter": "p/a/2"}));
    assert_eq!(behind["delimitedPrefixes"], json!(["p/b/"]));

    probe.bucket.upload((0..1_000).map(|at| format!("q/{at:04}")));
    for limit in [1_000, 5_000] {
        let page = list(json!({"prefix": "q/", "limit": limit}));
        assert_eq!((names(&page).len(), &page["truncated"]), (1_000, &json!(false)));
    }
    probe.bucket.upload(["q/1000"]);
    let page = list(json!({"prefix": "q/"}));
    assert_eq!((names(&page).len(), &page["truncated"]), (1_000, &json!(true)));
    Ok(())
}

#[test]
fn the_bucket_keeps_productions_limits() -> Result<()> {
    let probe = Probe::start()?;
    let keys =
        |count: usize| json!([(0..count).map(|at| format!("limits/{count}/{at}")).collect::<Vec<_>>()]);
    let refused = |args: Value| probe.call("BUCKET.delete", args).unwrap_err();

    assert_eq!(refused(keys(0)), "Error: delete: made for  (10027)");
    assert_eq!(refused(keys(1001)), "Error: delete: made for limits/1001/0 (10027)");
    assert_eq!(probe.call("BUCKET.delete", keys(1000)), Ok(Value::Null));
    assert!(refused(json!([["é".repeat(513)]])).ends_with("(10020)"));
    assert_eq!(probe.call("BUCKET.delete", json!([["é".repeat(512)]])), Ok(Value::Null));

    assert_eq!(probe.call("BUCKET.delete", json!(["twice"])), Ok(Value::Null));
    assert!(refused(json!([["other", "twice"]])).ends_with("(10058)"));
    assert_eq!(
        probe.call("BUCKET.delete", json!(["other"])),
        Ok(Value::Null),
        "a refused call writes nothing"
    );
    probe.bucket.limit_writes_of_one_key(None);
    assert_eq!(probe.call("BUCKET.delete", json!(["twice"])), Ok(Value::Null));
    Ok(())
}

#[test]
fn the_bucket_fails_before_halfway_and_after() -> Result<()> {
    let probe = Probe::start()?;
    probe.bucket.limit_writes_of_one_key(None);
    let delete = || probe.call("BUCKET.delete", json!([["1", "2", "3", "4"]]));

    for (fault, left, text) in [
        (Fault::<R2Error>::refused(10043), 4, "(10043)"),
        (Fault::half_done(10001), 2, "(10001)"),
        (Fault::done_but_refused(10001), 0, "(10001)"),
        (Fault::refused(R2Error::BARE), 4, "Unspecified error (0)"),
        (Fault::dropped(When::After), 0, "Network connection lost"),
    ] {
        probe.bucket.upload(["1", "2", "3", "4"]);
        probe.bucket.fail_deletes(1, fault);
        let error = delete().unwrap_err();
        assert!(error.contains(text), "{error} lacks {text}");
        assert_eq!(probe.bucket.keys().len(), left, "after {text}");
    }
    assert_eq!(delete(), Ok(Value::Null), "the faults are used up");

    probe.bucket.upload(["1", "2", "3", "4"]);
    probe.bucket.refuse_deletes_above(Some(3));
    assert!(delete().unwrap_err().ends_with("(10001)"));
    probe.bucket.refuse_deletes_above(None);
    probe.bucket.lock(["2"], Neighbours::Kept);
    assert!(delete().unwrap_err().ends_with("(10069)"));
    assert_eq!(probe.bucket.keys().len(), 4);
    probe.bucket.lock(["2"], Neighbours::Deleted);
    assert!(delete().unwrap_err().ends_with("(10069)"));
    assert_eq!(probe.bucket.keys(), ["2"]);
    Ok(())
}

#[test]
fn a_killed_runtime_leaves_what_the_bucket_had_done() -> Result<()> {
    let mut probe = Probe::start()?;
    probe.bucket.upload(["1", "2"]);
    let gate = Gate::new();
    probe.bucket.fail_deletes(1, Fault::stalled(When::After, &gate));
    let url = format!("http://{}/", probe.workerd.address("probe")?);
    let caller = std::thread::spawn(move || {
        ureq::post(&url).send(json!({"call": "BUCKET.delete", "args": [["1"]]}).to_string()).is_err()
    });
    gate.arrived(1, Duration::from_secs(20))?;
    probe.workerd.kill()?;
    gate.open();
    assert!(caller.join().unwrap(), "the caller got an answer from the dead");
    assert_eq!(probe.bucket.keys(), ["2"]);
    probe.workerd.restart()?;
    assert_eq!(probe.call("BUCKET.delete", json!([["2"]])), Ok(Value::Null));
    Ok(())
}
