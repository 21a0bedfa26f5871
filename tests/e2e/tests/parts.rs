//! A deletion of more keys than one request takes, in parts.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use e2e::{Pair, eventually};
use serde_json::{Value, json};
use xtask::stack::{Counts, Deletion};

const PARTS: usize = 10;
const PART_KEYS: usize = 100_000;

/// One object in so many keys is there.
const OBJECT_EVERY: usize = 1_000;

/// How long the million may take on a machine that does other things too.
const PATIENCE: Duration = Duration::from_mins(15);

fn keys(part: usize) -> impl Iterator<Item = String> {
    (0..PART_KEYS).map(move |n| format!("proj_42/{part:02}/{n:06}"))
}

fn begin(pair: &Pair) -> Result<String> {
    let body = json!({"in_parts": true}).to_string();
    let begun: Deletion = pair
        .api()
        .send("POST", "/v1/deletions", &[("content-type", "application/json")], &body)?
        .expect(202)?;
    ensure!(begun.state == "accepting", "{begun:?}");
    Ok(begun.id)
}

/// Puts a part, as often as it is told to send it again.
fn put(pair: &Pair, id: &str, number: usize, keys: impl Iterator<Item = String>) -> Result<()> {
    let lines: Vec<String> = keys.map(|key| format!("\"{key}\"")).collect();
    let (path, body) = (format!("/v1/deletions/{id}/parts/{number}"), lines.join("\n"));
    eventually("the part is accepted", || {
        let answer = pair.api().send("PUT", &path, &[("content-type", "application/x-ndjson")], &body)?;
        match answer.status {
            202 => Ok(Some(())),
            409 | 429 | 503 => Ok(None),
            _ => bail!("part {number}: {answer:?}"),
        }
    })
}

fn seal(pair: &Pair, id: &str, parts: usize, total_keys: usize) -> Result<(u16, Value)> {
    let body = json!({"parts": parts, "total_keys": total_keys}).to_string();
    let path = format!("/v1/deletions/{id}/seal");
    let answer = pair.api().send("POST", &path, &[("content-type", "application/json")], &body)?;
    Ok((answer.status, serde_json::from_str(&answer.body)?))
}

/// 1. One key in a thousand of a million has an object, and there are some others.
/// 2. The million is put in ten parts as NDJSON, one of them twice. Sealing it before the last is there is refused.
/// 3. It ends as one deletion with exact counts; of the bucket only the others are left.
#[test]
fn a_million_keys_in_parts_are_one_deletion_with_exact_counts() -> Result<()> {
    let pair = Pair::start()?;
    let bystanders = ["proj_421/a", "proj_42", "proj_42/00/100000"].map(str::to_owned);
    pair.gateway().put(&bystanders, 1)?;
    let objects: Vec<String> = (0..PARTS).flat_map(|part| keys(part).step_by(OBJECT_EVERY)).collect();
    pair.gateway().put(&objects, 1)?;

    let id = begin(&pair)?;
    let total = PARTS * PART_KEYS;
    for part in 0..PARTS {
        if part == PARTS - 1 {
            let (status, problem) = seal(&pair, &id, PARTS, total)?;
            let missing = problem.pointer("/errors/0/detail").and_then(Value::as_str);
            assert_eq!((status, missing), (409, Some("part 10 is missing")), "{problem}");
        }
        put(&pair, &id, part + 1, keys(part))?;
    }
    put(&pair, &id, 1, keys(0))?;
    assert_ne!(pair.api().deletion(&id)?.state, "succeeded", "more could come");
    let (status, sealed) = seal(&pair, &id, PARTS, total)?;
    assert_eq!(status, 202, "{sealed}");

    let ended = pair.settle_within(PATIENCE, &id)?;
    let total = total as u64;
    let all_deleted = Counts { total, pending: 0, deleted: total, skipped: 0, failed: 0, cancelled: 0 };
    assert_eq!((ended.state.as_str(), ended.counts, ended.messages), ("succeeded", all_deleted, 1_000));
    assert_eq!(pair.keys()?.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(bystanders));
    Ok(())
}

/// What a client that broke off has put is deleted, as it was told, but the deletion never looks whole.
#[test]
fn an_upload_that_breaks_off_is_never_taken_for_a_whole_one() -> Result<()> {
    let pair = Pair::start()?;
    let id = begin(&pair)?;
    put(&pair, &id, 1, keys(0).take(2_000))?;
    let decided = eventually("the part is decided", || {
        let deletion = pair.api().deletion(&id)?;
        Ok((deletion.counts.deleted == 2_000).then_some(deletion))
    })?;
    assert_eq!((decided.state.as_str(), decided.finished_at), ("accepting", None));
    let (status, problem) = seal(&pair, &id, 2, 4_000)?;
    assert_eq!((status, problem.get("code")), (409, Some(&json!("parts_incomplete"))));
    assert_eq!(pair.api().deletion(&id)?.state, "accepting");

    let cancelled: Deletion =
        pair.api().send("POST", &format!("/v1/deletions/{id}/cancel"), &[], "")?.expect(200)?;
    assert_eq!((cancelled.state.as_str(), cancelled.counts.deleted), ("cancelled", 2_000));
    Ok(())
}

/// 1. A deletion is begun with the fence `always`. 2. An object is uploaded, and then named by a part: it is deleted. 3. Another
///    is uploaded after its part was put, within an undo window: it is kept.
#[test]
fn what_is_uploaded_before_its_part_is_put_is_deleted_and_what_comes_after_is_kept() -> Result<()> {
    let pair = Pair::start()?;
    for (delay_seconds, skipped) in [(0, 0), (3, 1)] {
        let body = json!({"in_parts": true, "fence": "always", "delay_seconds": delay_seconds}).to_string();
        let json = [("content-type", "application/json")];
        let begun: Deletion = pair.api().send("POST", "/v1/deletions", &json, &body)?.expect(202)?;
        let names: Vec<String> = keys(0).take(20).collect();
        pair.gateway().put(&names, 1)?;
        put(&pair, &begun.id, 1, names.iter().cloned())?;
        if delay_seconds > 0 {
            pair.gateway().put(&names[..1], 2)?;
        }
        assert_eq!(seal(&pair, &begun.id, 1, 20)?.0, 202);
        let ended = pair.settle_within(PATIENCE, &begun.id)?;
        assert_eq!((ended.counts.deleted, ended.counts.skipped), (20 - skipped, skipped));
        assert_eq!(pair.keys()?.len() as u64, skipped);
    }
    Ok(())
}
