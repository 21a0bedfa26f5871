//! Exactly the requested objects go.

use std::collections::BTreeSet;

use anyhow::Result;
use e2e::Pair;
use serde_json::{Value, json};
use xtask::stack::Counts;

fn deleted(total: usize) -> Counts {
    let total = total as u64;
    Counts { total, pending: 0, deleted: total, skipped: 0, failed: 0, cancelled: 0 }
}

/// 1. The bucket holds the objects of one project and of its near-namesakes.
/// 2. Deletions of 1, 1,000, 1,001 and 25,000 of the project's keys, one after another.
/// 3. After each, what is left is what was there without what was asked for.
#[test]
fn exactly_the_requested_objects_go_from_1_key_to_25_000() -> Result<()> {
    let pair = Pair::start()?;
    let bystanders = ["proj_4/a", "proj_42", "proj_421/a", "proj_42/", "PROJ_42/0/00000"].map(str::to_owned);
    pair.gateway().put(&bystanders, 1)?;
    for (count, messages) in [(1, 1), (1_000, 1), (1_001, 2), (25_000, 25)] {
        let keys: Vec<String> = (0..count).map(|n| format!("proj_42/{count}/{n:05}")).collect();
        for some in keys.chunks(1_000) {
            pair.gateway().put(some, 1)?;
        }
        assert_eq!(pair.keys()?.len(), count + bystanders.len());

        let accepted = pair.api().delete(&keys)?;
        assert_eq!(accepted.messages, messages);
        let settled = pair.settle(&accepted.id)?;
        assert_eq!((settled.state.as_str(), settled.counts), ("succeeded", deleted(count)));
        assert!(settled.started_at.is_some() && settled.finished_at >= settled.started_at);

        let left: BTreeSet<String> = pair.keys()?.into_iter().collect();
        assert_eq!(left, BTreeSet::from(bystanders.clone()), "{count}");
    }
    Ok(())
}

/// Names that some layer between HTTP and R2 could change, each with a neighbour that it would then be taken for.
#[test]
fn keys_are_taken_byte_for_byte() -> Result<()> {
    let pair = Pair::start()?;
    let longest = "é".repeat(512);
    let asked = [
        "quote\"s and 'apostrophes'",
        "back\\slash",
        "control\u{1}\t\n\r\u{7f}",
        "emoji 😀 👩‍👩‍👧",
        "__proto__",
        "constructor",
        "a/../b",
        "./a",
        "/leading",
        "trailing/",
        "double//slash",
        "%2F",
        "a%20b+c",
        "null",
        "0",
        " space ",
        "\u{2028}\u{feff}",
        "e\u{301}",
        longest.as_str(),
    ]
    .map(str::to_owned);
    let neighbours = [
        "quote",
        "backslash",
        "control",
        "b",
        "a",
        "leading",
        "trailing",
        "double/slash",
        "/",
        "a b c",
        "space",
        "\u{e9}",
    ]
    .map(str::to_owned);
    pair.gateway().put(&asked, 1)?;
    pair.gateway().put(&neighbours, 1)?;
    assert_eq!(pair.keys()?.len(), asked.len() + neighbours.len());

    let accepted = pair.api().delete(&asked)?;
    assert_eq!(pair.settle(&accepted.id)?.counts, deleted(asked.len()));
    let left: BTreeSet<String> = pair.keys()?.into_iter().collect();
    assert_eq!(left, BTreeSet::from(neighbours));
    Ok(())
}

#[test]
fn duplicates_count_once_and_missing_objects_count_as_deleted() -> Result<()> {
    let pair = Pair::start()?;
    let there = ["proj_42/a", "proj_42/b"].map(str::to_owned);
    pair.gateway().put(&there, 1)?;
    let asked = ["proj_42/a", "proj_42/missing", "proj_42/a", "proj_42/b", "proj_42/a"].map(str::to_owned);
    let accepted = pair.api().delete(&asked)?;
    assert_eq!((accepted.counts.total, accepted.duplicates_removed), (3, 2));
    assert_eq!(pair.settle(&accepted.id)?.counts, deleted(3));
    assert!(pair.keys()?.is_empty());
    Ok(())
}

#[test]
fn the_first_clients_call_waits_and_tells_what_became_of_each_key() -> Result<()> {
    let pair = Pair::start()?;
    pair.gateway().put(&["proj_42/a", "proj_42/\u{e9}\"", "proj_421/bystander"].map(str::to_owned), 1)?;
    let keys = ["proj_42/a", "proj_42/missing", "proj_42/\u{e9}\"", "proj_42/a"];
    let body = json!({ "objectKeys": keys }).to_string();
    let answer = pair.api().send("POST", "/", &[("content-type", "application/json")], &body)?;
    let results = keys.map(|key| json!({"key": key, "success": true}));
    assert_eq!(answer.expect::<Value>(200)?, json!({ "results": results }));
    assert_eq!(pair.keys()?, ["proj_421/bystander"]);
    Ok(())
}

/// The log is one object for each event, and has no key in it.
#[test]
fn the_log_tells_what_happened_and_shows_no_key_and_no_token() -> Result<()> {
    let pair = Pair::start()?;
    let canary = "users/canary-4711.jpg".to_owned();
    pair.gateway().put(std::slice::from_ref(&canary), 1)?;
    let accepted = pair.api().delete(&[canary])?;
    pair.settle(&accepted.id)?;
    pair.api().send(
        "POST",
        "/v1/deletions",
        &[("content-type", "application/json")],
        "{\"canary-4711\":1}",
    )?;
    let log = e2e::eventually("the log has every event", || {
        let log = pair.log()?;
        let events = ["request.finished", "deletion.accepted", "batch.processed", "deletion.finished"];
        Ok(events.iter().all(|event| log.contains(event)).then_some(log))
    })?;
    assert!(log.contains(&accepted.id));
    assert!(!log.contains("canary-4711"), "a key in the log");
    assert!(!log.contains(pair.token()), "the token in the log");
    Ok(())
}
