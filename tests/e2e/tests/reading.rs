//! Labels, listing, failures as an NDJSON stream, and the totals, as a backend reads them.
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use anyhow::{Context, Result};
use e2e::Pair;
use serde_json::{Value, json};
use xtask::stack::Failure;

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const NDJSON: &[(&str, &str)] = &[("accept", "application/x-ndjson")];

fn create(pair: &Pair, keys: &[&str], labels: &Value) -> Result<String> {
    let body = json!({ "objectKeys": keys, "labels": labels }).to_string();
    let accepted: Value = pair.api().send("POST", "/v1/deletions", JSON, &body)?.expect(202)?;
    assert_eq!(&accepted["labels"], labels);
    Ok(accepted["id"].as_str().context("an id")?.to_owned())
}

/// The ids of every page of a list.
fn list(pair: &Pair, query: &str) -> Result<Vec<String>> {
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/deletions?page_size=2&{query}{token}");
        let page: Value = pair.api().get(&path)?.expect(200)?;
        let deletions = page["deletions"].as_array().context("a list")?;
        ids.extend(deletions.iter().filter_map(|deletion| Some(deletion["id"].as_str()?.to_owned())));
        match page["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => return Ok(ids),
        }
    }
}

/// 1. Three deletions, two of one project. 2. Lists by label, by state and by both give them newest first, whatever has to
///    be escaped in a label's value. 3. Totals say the same.
#[test]
fn deletions_are_found_by_label_and_state_and_counted() -> Result<()> {
    let pair = Pair::start()?;
    let label = json!({"project": "42 & 43/é+", "reason": "erasure"});
    let first = create(&pair, &["a", "b"], &label)?;
    let second = create(&pair, &["c"], &json!({}))?;
    let third = create(&pair, &["d"], &label)?;
    for id in [&first, &second, &third] {
        pair.settle(id)?;
    }
    let failed = "del_00000000000000000000000000";
    pair.insert_failed(failed, 3)?;

    let (project, ids) = ("label.project=42%20%26+43%2F%C3%A9%2B", |ids: &[&str]| -> Vec<String> {
        ids.iter().map(|&id| id.to_owned()).collect()
    });
    assert_eq!(list(&pair, "")?, ids(&[&third, &second, &first, failed]));
    assert_eq!(list(&pair, project)?, ids(&[&third, &first]));
    assert_eq!(
        list(&pair, &format!("{project}&label.reason=erasure&state=succeeded"))?,
        ids(&[&third, &first])
    );
    assert_eq!(list(&pair, &format!("{project}&label.reason=x"))?, ids(&[]));
    assert_eq!(list(&pair, "state=failed")?, ids(&[failed]));
    assert_eq!(list(&pair, "state=succeeded")?, ids(&[&third, &second, &first]));
    for state in ["queued", "running", "cancelling", "cancelled"] {
        assert_eq!(list(&pair, &format!("state={state}"))?, ids(&[]), "{state}");
    }
    assert_eq!(pair.api().get("/v1/deletions?state=done")?.status, 422);

    let stats: Value = pair.api().get("/v1/stats")?.expect(200)?;
    assert_eq!((&stats["deletions"]["succeeded"], &stats["deletions"]["failed"]), (&json!(3), &json!(1)));
    assert_eq!((&stats["keys"]["deleted"], &stats["keys"]["failed"]), (&json!(4), &json!(3)));
    assert_eq!(stats["failures"], json!([{"code": "object_locked", "r2_code": 10069, "count": 3}]));
    assert_eq!((&stats["oldest_unfinished"], &stats["unreadable_messages"]), (&Value::Null, &json!(0)));
    Ok(())
}

/// 1. A deletion of 20,000 failures of 1 KB, which is eight pages of the ledger. 2. Its stream has each once, in order.
/// 3. One in the middle cannot be read any more: the transfer breaks, so that no client takes the part for the whole.
#[test]
fn all_failures_are_streamed_and_a_stream_that_fails_is_broken_off() -> Result<()> {
    const COUNT: u64 = 20_000;
    let pair = Pair::start()?;
    let id = "del_00000000000000000000000000";
    pair.insert_failed(id, COUNT)?;
    let path = format!("/v1/deletions/{id}/failures");
    let streamed = pair.api().send("GET", &path, NDJSON, "")?;
    assert_eq!((streamed.status, streamed.header("content-type")), (200, Some("application/x-ndjson")));
    assert_eq!(streamed.header("content-length"), None);
    let failures: Vec<Failure> = streamed.body.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(failures.len() as u64, COUNT);
    for (n, failure) in failures.iter().enumerate() {
        assert_eq!(failure.key, format!("{n:01000}"));
    }
    let csv = pair.api().send("GET", &path, &[("accept", "text/csv")], "")?;
    assert_eq!((csv.status, csv.body.contains("not_acceptable")), (406, true));

    pair.gateway().sql("UPDATE failures SET attempts = 'no number' WHERE position = 12345", &[])?;
    let broken = pair.api().send("GET", &path, NDJSON, "");
    assert!(broken.is_err(), "{} bytes were taken for whole", broken.map_or(0, |answer| answer.body.len()));
    Ok(())
}
