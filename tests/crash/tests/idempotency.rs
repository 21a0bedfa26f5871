//! A request that died half-way is finished by the same request with the same key; what the platform lost is sent again;
//! what nobody asks for again is cancelled.

#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::thread;

use anyhow::{Result, bail};
use crash::{Counts, Fault, Gate, Pair, QUEUE, When};
use serde_json::{Value, json};

const DAY_MS: i64 = 86_400_000;

fn filled(count: usize) -> Result<(Pair, Value)> {
    let pair = Pair::start()?;
    // Long names, so that the request is several sends.
    let keys: Vec<_> = (0..count).map(|at| format!("{}/{at}", "long".repeat(60))).collect();
    pair.bucket.upload(keys.clone());
    pair.bucket.upload(["bystander"]);
    Ok((pair, json!({ "objectKeys": keys, "labels": {"reason": "test", "project": "42"} })))
}

fn post(pair: &Pair, body: &Value) -> Result<crash::Reply> {
    pair.call_with_key("POST", "/v1/deletions", Some("k"), Some(body))
}

fn assert_whole(pair: &Pair, id: &str, total: u64) -> Result<()> {
    pair.settle()?;
    assert_eq!(pair.progress(id)?, ("succeeded".to_owned(), Counts::all_deleted(total)));
    assert_eq!(pair.deletions()?, [id], "one deletion, whatever was sent how often");
    assert_eq!(pair.bucket.keys(), ["bystander"]);
    let left: i64 = pair.database.query("SELECT COUNT(*) FROM outbox", [], |row| row.get(0))?[0];
    assert_eq!(left, 0, "the outbox of what is over");
    Ok(())
}

/// 1. The runtime is killed between two sends of a request. 2. What had been sent is carried out. 3. The same request again:
///    409 while the dead one still holds the sending, then 202. 4. One deletion, exact counts.
#[test]
fn killing_the_runtime_between_two_sends_and_replaying_finishes_with_exact_counts() -> Result<()> {
    let (mut pair, body) = filled(5_000)?;
    let gate = Gate::new();
    pair.queue.fail_sends(1, 1, Fault::stalled(When::Before, &gate));
    let answer = pair.kill_call_at(&gate, ("POST", "/v1/deletions"), Some("k"), Some(&body))?;
    assert!(matches!(answer, (true, None)), "{answer:?}");
    pair.settle()?;

    let busy = post(&pair, &body)?;
    assert_eq!((busy.status, &busy.body["code"]), (409, &json!("request_in_progress")));
    pair.database.execute("UPDATE parts SET sending_until = 0", [])?;
    let finished = post(&pair, &body)?;
    assert_eq!((finished.status, finished.headers["idempotent-replayed"].as_str()), (202, "true"));
    let Some(id) = finished.body["id"].as_str() else { bail!("no id: {finished:?}") };
    assert_whole(&pair, id, 5_000)
}

#[test]
fn a_request_that_the_queue_refused_is_finished_by_its_replay() -> Result<()> {
    for when in [When::Before, When::Halfway, When::After] {
        let (pair, body) = filled(3_000)?;
        pair.queue.fail_sends(1, 1, Fault { when, ..Fault::refused(10250) });
        assert_eq!(post(&pair, &body)?.status, 429);
        pair.settle()?;
        let finished = post(&pair, &body)?;
        assert_eq!(finished.status, 202, "{finished:?}");
        let Some(id) = finished.body["id"].as_str() else { bail!("no id: {finished:?}") };
        assert_whole(&pair, id, 3_000)?;
    }
    Ok(())
}

#[test]
fn fifty_requests_at_once_with_one_key_make_one_deletion() -> Result<()> {
    let (pair, body) = filled(1_500)?;
    let statuses: Vec<u16> = thread::scope(|scope| {
        let requests: Vec<_> = (0..50).map(|_| scope.spawn(|| post(&pair, &body))).collect();
        requests
            .into_iter()
            .map(|request| match request.join() {
                Ok(reply) => Ok(reply?.status),
                Err(_) => bail!("a request panicked"),
            })
            .collect::<Result<_>>()
    })?;
    assert!(statuses.iter().all(|status| [202, 409].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&202));
    let replayed = post(&pair, &body)?;
    let Some(id) = replayed.body["id"].as_str() else { bail!("no id: {replayed:?}") };
    assert_whole(&pair, id, 1_500)
}

/// 1. Half of a deletion's messages vanish. 2. A day later the cron trigger sends those once more, and only those.
#[test]
fn messages_that_the_platform_has_lost_are_sent_once_more() -> Result<()> {
    let (pair, body) = filled(3_000)?;
    let accepted = post(&pair, &body)?;
    let Some(id) = accepted.body["id"].as_str() else { bail!("not accepted: {accepted:?}") };
    // A queue that takes messages for acknowledged which nobody has seen.
    let lost = pair.queue.take(QUEUE, 3);
    let vanished = json!({"outcome": "ok", "ackAll": true, "retryBatch": {"retry": false}, "explicitAcks": [], "retryMessages": []});
    pair.queue.settle(QUEUE, &lost, &serde_json::from_value(vanished)?);
    pair.settle()?;
    assert_eq!(pair.status(id)?["state"], "running");

    pair.dispatcher()?.cron()?;
    assert!(pair.queue.messages(QUEUE).is_empty(), "they may still come");
    pair.database.execute("UPDATE parts SET enqueued_at = enqueued_at - ?1", [DAY_MS])?;
    pair.database.execute("UPDATE deletions SET not_before = not_before - ?1", [DAY_MS])?;
    pair.dispatcher()?.cron()?;
    assert_eq!(pair.queue.messages(QUEUE).len(), lost.len());
    assert_whole(&pair, id, 3_000)?;
    assert!(pair.log().contains("deletion.resent"));
    Ok(())
}

#[test]
fn what_was_never_accepted_is_cancelled_a_day_later_and_what_is_over_is_forgotten() -> Result<()> {
    let (pair, body) = filled(10)?;
    pair.queue.fail_sends(0, 1, Fault::refused(10250));
    assert_eq!(post(&pair, &body)?.status, 429);
    let id = pair.deletions()?.remove(0);
    pair.dispatcher()?.cron()?;
    assert_eq!(pair.status(&id)?["state"], "queued");
    pair.database.execute("UPDATE deletions SET requested_at = requested_at - ?1", [DAY_MS])?;
    pair.dispatcher()?.cron()?;
    assert_eq!(pair.status(&id)?["state"], "cancelled");

    pair.database.execute("UPDATE deletions SET cancelled_at = cancelled_at - 7 * ?1", [DAY_MS])?;
    pair.dispatcher()?.cron()?;
    assert!(pair.deletions()?.is_empty());
    let left = "SELECT (SELECT COUNT(*) FROM labels) + (SELECT COUNT(*) FROM outbox)
                     + (SELECT COUNT(*) FROM idempotency_keys) + (SELECT COUNT(*) FROM parts)
                     + (SELECT COUNT(*) FROM chunks) + (SELECT COUNT(*) FROM notices)";
    assert_eq!(pair.database.query(left, [], |row| row.get::<_, i64>(0))?, [0], "nothing else is kept of it");
    assert_eq!(pair.bucket.keys().len(), 11);
    Ok(())
}

/// 1. The ledger refuses the deletion after it has taken its messages. 2. They stay for a day, and are removed then.
#[test]
fn messages_whose_deletion_was_never_written_down_are_swept_up() -> Result<()> {
    let (pair, body) = filled(10)?;
    pair.database.fail("producer", "INSERT INTO deletions", 0, 1, Fault::refused("refused"));
    assert_eq!(post(&pair, &body)?.status, 503);
    let kept =
        |pair: &Pair| pair.database.query("SELECT COUNT(*) FROM outbox", [], |row| row.get::<_, i64>(0));
    pair.dispatcher()?.cron()?;
    assert_eq!((pair.deletions()?.len(), kept(&pair)?), (0, vec![1]));
    // An id begins with its time: this one is of 1970.
    pair.database.execute("UPDATE outbox SET upload = 'req_00000000000000000000000000'", [])?;
    pair.dispatcher()?.cron()?;
    assert_eq!(kept(&pair)?, [0]);

    let accepted = post(&pair, &body)?;
    assert_eq!(accepted.status, 202);
    let Some(id) = accepted.body["id"].as_str() else { bail!("no id: {accepted:?}") };
    assert_whole(&pair, id, 10)
}
