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

#[test]
fn the_bucket_keeps_productions_limits() -> Result<()> {
    let probe = Probe::start()?;
    let keys =
        |count: usize| json!([(0..count).map(|at| format!("limits/{count}/{at}")).collect::<Vec<_>>()]);
    let refused = |args: Value| probe.call("BUCKET.delete", args).unwrap_err();

    assert_eq!(refused(keys(0)), "Error: delete: made by the test (10027)");
    assert_eq!(refused(keys(1001)), "Error: delete: made by the test (10027)");
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
