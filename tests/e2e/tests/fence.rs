//! The fence: what was uploaded since the request is kept, where it looks.
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use anyhow::{Context, Result};
use e2e::{Pair, eventually};
use protocol::{Fence, ObjectKey, Timestamp, pack_keys};
use serde_json::{Value, json};
use xtask::stack::{Counts, Message};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const NDJSON: &[(&str, &str)] = &[("accept", "application/x-ndjson")];

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("proj_42/{n:03} \"é\"")).collect()
}

fn post(pair: &Pair, body: &Value) -> Result<String> {
    let accepted: Value = pair.api().send("POST", "/v1/deletions", JSON, &body.to_string())?.expect(202)?;
    Ok(accepted["id"].as_str().context("an id")?.to_owned())
}

fn counts(total: u64, skipped: u64) -> Counts {
    Counts { total, pending: 0, deleted: total - skipped, skipped, failed: 0, cancelled: 0 }
}

/// The sum of a number over all batches in the log, once it has them all.
fn logged(pair: &Pair, field: &str, keys: u64) -> Result<u64> {
    let sum = |log: &str, field: &str| -> u64 {
        let name = format!("{field}: ");
        let numbers =
            log.lines().filter_map(|line| line.split_once(&name)?.1.split(',').next()?.parse::<u64>().ok());
        numbers.sum()
    };
    eventually("the log has every batch", || {
        let log = pair.log()?;
        Ok((sum(&log, "keys_deleted") + sum(&log, "keys_skipped") == keys).then(|| sum(&log, field)))
    })
}

/// 1. A deletion with an undo window of two seconds. 2. Within it three of its objects are uploaded again, and one that was
///    not there. 3. These four are kept and listed, the others go.
#[test]
fn what_is_uploaded_during_the_undo_window_is_kept_and_listed() -> Result<()> {
    let pair = Pair::start()?;
    let keys = keys(60);
    pair.gateway().put(&keys[..59], 1)?;
    let id = post(&pair, &json!({"objectKeys": keys, "delay_seconds": 2}))?;
    let again = [&keys[0], &keys[30], &keys[31], &keys[59]].map(Clone::clone);
    pair.gateway().put(&again, 2)?;

    let settled = pair.settle(&id)?;
    assert_eq!((settled.state.as_str(), settled.counts), ("succeeded", counts(60, 4)));
    let left = pair.gateway().list("")?;
    assert_eq!(left.iter().map(|object| object.key.clone()).collect::<Vec<_>>(), again);

    let list = format!("/v1/deletions/{id}/skipped");
    let first: Value = pair.api().get(&format!("{list}?page_size=3"))?.expect(200)?;
    let token = first["next_page_token"].as_str().context("a token")?;
    let rest: Value = pair.api().get(&format!("{list}?page_token={token}"))?.expect(200)?;
    assert_eq!(rest["next_page_token"], Value::Null);
    let listed = [&first, &rest].map(|page| page["skipped"].as_array().cloned().unwrap_or_default()).concat();
    assert_eq!(listed.len(), left.len());
    for (skipped, object) in listed.iter().zip(&left) {
        assert_eq!((&skipped["key"], &skipped["code"]), (&json!(object.key), &json!("uploaded_since")));
        assert_eq!(skipped["uploaded_at"], json!(object.uploaded));
        assert!(skipped["uploaded_at"].as_str() < skipped["skipped_at"].as_str(), "{skipped}");
        assert!(skipped["uploaded_at"].as_str() > Some(settled.requested_at.as_str()), "{skipped}");
    }
    let streamed = pair.api().send("GET", &list, NDJSON, "")?;
    let lines: Vec<Value> = streamed.body.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!((streamed.status, lines), (200, listed));
    assert_eq!(logged(&pair, "keys_skipped", 60)?, 4);
    Ok(())
}

/// 1. `always`, at once: it has looked at each object. 2. `off`, with an undo window: it has not, and what was uploaded within
///    the window is gone. 3. `auto`, at once: it has not looked either.
#[test]
fn always_looks_at_each_object_and_off_at_none() -> Result<()> {
    let pair = Pair::start()?;
    let keys = keys(50);
    let mut total = 0;
    for (fence, delay_seconds, looks) in [("always", 0, 50), ("off", 1, 50), ("auto", 0, 50)] {
        pair.gateway().put(&keys, 1)?;
        let body = json!({"objectKeys": keys, "fence": fence, "delay_seconds": delay_seconds});
        let id = post(&pair, &body)?;
        if delay_seconds > 0 {
            pair.gateway().put(&keys[..5], 1)?;
        }
        assert_eq!(pair.settle(&id)?.counts, counts(50, 0), "{fence}");
        assert!(pair.keys()?.is_empty(), "{fence}");
        total += 50;
        assert_eq!(logged(&pair, "r2_heads", total)?, looks, "{fence}");
    }
    Ok(())
}

/// Keys that lie side by side are looked at by listing them, in the order of the bucket: all at once, whichever comes first.
#[test]
fn a_page_of_a_listing_looks_at_a_thousand_keys() -> Result<()> {
    let pair = Pair::start()?;
    // More than a page, with somebody else's objects between, and capitals, which some sort with the others.
    let keys: Vec<String> =
        (0..1_500).map(|n| format!("proj_42/{}{n:04}.jpg", if n % 2 == 0 { "a" } else { "A" })).collect();
    let others: Vec<String> = (0..100).map(|n| format!("proj_42/a{n:04}0.jpg")).collect();
    pair.gateway().put(&keys, 1)?;
    pair.gateway().put(&others, 1)?;
    let id = post(&pair, &json!({"objectKeys": keys, "delay_seconds": 5}))?;
    let again = [&keys[0], &keys[777]].map(Clone::clone);
    pair.gateway().put(&again, 2)?;

    assert_eq!(pair.settle(&id)?.counts, counts(1_500, 2));
    let mut left = [again.as_slice(), &others].concat();
    left.sort();
    assert_eq!(pair.keys()?, left);
    assert_eq!(logged(&pair, "r2_heads", 1_500)?, 0);
    assert!((2..=5).contains(&logged(&pair, "r2_lists", 1_500)?));
    Ok(())
}

/// A message of an undo window that has not ended is sent once more, as if it had been requested long ago: by `auto` that is
/// late, so that everything in the bucket is newer than the request.
#[test]
fn a_message_that_is_late_deletes_nothing_that_is_newer() -> Result<()> {
    let pair = Pair::start()?;
    let keys = keys(3);
    pair.gateway().put(&keys[..2], 1)?;
    let id = post(&pair, &json!({"objectKeys": keys, "delay_seconds": 3600}))?;
    let parsed: Vec<ObjectKey<'_>> =
        keys.iter().map(|key| ObjectKey::parse(key.as_str())).collect::<Result<_, _>>()?;
    for message in pack_keys(&id.parse()?, 0, Timestamp::from_millis(1_000), Fence::Auto, &parsed) {
        pair.gateway().send(&Message::text(message.body))?;
    }
    assert_eq!(pair.settle(&id)?.counts, counts(3, 2));
    assert_eq!(pair.keys()?, keys[..2]);
    Ok(())
}
