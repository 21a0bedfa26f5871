//! What the Queue may bring: messages that cannot be read, that come twice, and dead letters.
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use anyhow::{Context, Result};
use e2e::{Pair, eventually};
use protocol::{Fence, ObjectKey, Timestamp, pack_keys};
use serde_json::json;
use xtask::stack::{Counts, Deletion, Message};

/// The messages of a deletion, as the producer has sent them.
fn messages_of(pair: &Pair, deletion: &Deletion, keys: &[String]) -> Result<Vec<String>> {
    let rows =
        pair.gateway().sql("SELECT requested_at FROM deletions WHERE id = ?", &[json!(deletion.id)])?;
    let requested_at = rows[0]["requested_at"].as_u64().context("a time")?;
    let keys: Vec<ObjectKey<'_>> =
        keys.iter().map(|key| ObjectKey::parse(key.as_str())).collect::<Result<_, _>>()?;
    let packed =
        pack_keys(&deletion.id.parse()?, 0, Timestamp::from_millis(requested_at), Fence::Auto, &keys);
    Ok(packed.into_iter().map(|message| message.body).collect())
}

/// 1. Four messages that nobody can carry out, and a deletion behind them.
/// 2. The deletion succeeds; each of the four is kept, with its reason and its body.
#[test]
fn a_message_that_cannot_be_read_is_kept_and_hurts_nobody_else() -> Result<()> {
    let pair = Pair::start()?;
    let keys: Vec<String> = (0..10).map(|n| format!("proj_42/{n}")).collect();
    pair.gateway().put(&keys, 1)?;
    let foreign = r#"{"v":1,"deletion":"del_01kaszq5m00000000000000000","chunk":0,"generation":0,"requested_at":0,"fence":"auto","keys":["proj_42/0"]}"#;
    let poison = [
        (Message::text("half a mess"), "not_json", "half a mess".to_owned()),
        (Message::text(r#"{"v":2,"keys":[]}"#), "unsupported_version", r#"{"v":2,"keys":[]}"#.to_owned()),
        (Message::text(foreign), "unknown_deletion", foreign.to_owned()),
        (
            Message { body: json!({"keys": ["proj_42/0"]}), content_type: "json", ..Message::text("") },
            "not_text",
            r#"{"keys":["proj_42/0"]}"#.to_owned(),
        ),
    ];
    for (message, _, _) in &poison {
        pair.gateway().send(message)?;
    }
    let kept = eventually("all four are kept", || {
        let kept = pair.api().unreadable_messages()?.unreadable_messages;
        Ok((kept.len() == poison.len()).then_some(kept))
    })?;
    for (_, reason, body) in &poison {
        assert!(kept.iter().any(|kept| kept.reason == *reason && kept.body == *body), "{reason}: {kept:?}");
    }
    assert_eq!(pair.keys()?.len(), keys.len(), "an unreadable message deleted something");

    let accepted = pair.api().delete(&keys)?;
    assert_eq!(pair.settle(&accepted.id)?.state, "succeeded");
    Ok(())
}

/// 1. A deletion succeeds. 2. One of its objects is uploaded again. 3. Its message comes a second time, and then a
///    deletion of something else, which shows that the message has been dealt with. 4. The object is still there, and the
///    counts are what they were.
#[test]
fn a_message_that_comes_again_deletes_nothing_and_counts_nothing() -> Result<()> {
    let pair = Pair::start()?;
    let keys: Vec<String> = (0..1_500).map(|n| format!("proj_42/{n:04}")).collect();
    pair.gateway().put(&keys, 1)?;
    let accepted = pair.api().delete(&keys)?;
    let settled = pair.settle(&accepted.id)?;
    pair.gateway().put(&keys[..1], 1)?;

    let log_before = pair.log()?.matches("batch.processed").count();
    for message in messages_of(&pair, &accepted, &keys)? {
        pair.gateway().send(&Message::text(message))?;
    }
    eventually("the second delivery is over", || {
        let acked = pair.log()?.matches("batch.processed").count() - log_before;
        Ok((acked > 0).then_some(()))
    })?;
    let other = pair.api().delete(&["proj_7/a".to_owned()])?;
    pair.settle(&other.id)?;
    assert_eq!(pair.keys()?, keys[..1]);
    assert_eq!(pair.api().deletion(&accepted.id)?, settled);
    Ok(())
}

/// A dead letter never deletes: its keys become failures, and the deletion ends.
#[test]
fn a_dead_letter_becomes_failures_that_can_be_read() -> Result<()> {
    let pair = Pair::start()?;
    let keys: Vec<String> = (0..3).map(|n| format!("proj_42/{n}")).collect();
    pair.gateway().put(&keys, 1)?;
    // Written into the ledger by hand, so that its message is in no queue but the one it is put into here.
    let id = "del_01kaszq5m00000000000000000";
    let deletion = "INSERT INTO deletions (id, requested_by, requested_at, not_before, sealed_at)
                    VALUES (?, 'test', 0, 0, 0)";
    pair.gateway().sql(deletion, &[json!(id)])?;
    let part = "INSERT INTO parts
                  (deletion, generation, part, chunk_keys, keys, duplicates_removed, upload, sending_until, enqueued_at)
                VALUES (?1, 0, 0, '[3]', 3, 0, ?1, 0, 0)";
    pair.gateway().sql(part, &[json!(id)])?;
    let deletion = pair.api().deletion(id)?;
    for message in messages_of(&pair, &deletion, &keys)? {
        pair.gateway().send(&Message { queue: "deadLetters", ..Message::text(message) })?;
    }

    let settled = pair.settle(id)?;
    let failed = Counts { total: 3, pending: 0, deleted: 0, skipped: 0, failed: 3, cancelled: 0 };
    assert_eq!((settled.state.as_str(), settled.counts), ("failed", failed));
    let failures = pair.api().failures(id)?.failures;
    assert_eq!(failures.iter().map(|failure| failure.key.clone()).collect::<Vec<_>>(), keys);
    assert!(failures.iter().all(|failure| failure.code == "attempts_exhausted"));
    assert_eq!(pair.keys()?, keys);
    Ok(())
}
