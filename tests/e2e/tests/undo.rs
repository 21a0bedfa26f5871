//! The undo window: a deletion that waits can be cancelled, and then deletes nothing.

use anyhow::{Context, Result};
use e2e::{Pair, eventually};
use serde_json::{Value, json};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// 1. A deletion with an undo window of two seconds, cancelled within it. 2. A deletion without one, and one of two seconds
///    that is not cancelled: both are carried out, the second not before its time. 3. What was cancelled is all there.
#[test]
fn a_deletion_that_is_cancelled_within_its_undo_window_deletes_nothing() -> Result<()> {
    let pair = Pair::start()?;
    let keys: Vec<String> = ["kept", "waits", "goes"].map(|name| format!("proj_42/{name}")).into();
    pair.gateway().put(&keys, 1)?;
    let post = |key: &str, delay_seconds: u32| -> Result<Value> {
        let body = json!({"objectKeys": [key], "delay_seconds": delay_seconds}).to_string();
        pair.api().send("POST", "/v1/deletions", JSON, &body)?.expect(202)
    };
    let kept = post(&keys[0], 2)?;
    let waits = post(&keys[1], 2)?;
    let id = kept["id"].as_str().context("an id")?;
    let cancelled: Value =
        pair.api().send("POST", &format!("/v1/deletions/{id}/cancel"), &[], "")?.expect(200)?;
    assert_eq!((&cancelled["state"], &cancelled["counts"]["cancelled"]), (&json!("cancelled"), &json!(1)));

    let goes = post(&keys[2], 0)?;
    pair.settle(goes["id"].as_str().context("an id")?)?;
    let settled = pair.settle(waits["id"].as_str().context("an id")?)?;
    assert!(settled.started_at.as_deref() >= waits["not_before"].as_str(), "{settled:?} before its time");
    // The cancelled one's message was due before the other's: it has been delivered by now, or will be in a moment.
    eventually("the cancelled message has been settled", || {
        let batches = pair.log()?.matches("batch.processed").count();
        Ok((batches >= 2).then_some(()))
    })?;
    assert_eq!(pair.keys()?, [keys[0].as_str()]);
    let after: Value = pair.api().get(&format!("/v1/deletions/{id}"))?.expect(200)?;
    assert_eq!(after, cancelled);
    Ok(())
}
