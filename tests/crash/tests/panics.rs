//! The shipped wasm runs into a trap in the middle of its work, as at a panic: the invocation fails and decides nothing, the
//! script makes another instance, and the next delivery or request finishes with exact counts.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use crash::{Counts, DEAD_LETTERS, Decision, Endpoint, Fault, Gate, Pair, QUEUE, Setup, Trap, When};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);
const DAY_MS: i64 = 86_400_000;

fn start(traps: Vec<Trap>) -> Result<Pair> {
    let pair = Pair::set_up(Setup { traps, ..Setup::default() })?;
    pair.bucket.upload(["a", "b", "bystander"]);
    Ok(pair)
}

/// The consumer at a trap, and what is known by then: calls that have deleted, and keys that are recorded as deleted.
fn traps_of_the_consumer() -> [(&'static str, Trap, usize, u64); 6] {
    let at = |method| Trap::at("consumer", method);
    [
        ("before the claim", at("batch"), 0, 0),
        ("before the delete", at("delete"), 0, 0),
        // What refuses a timer is the platform; that the crate `worker` takes it for impossible makes it a panic.
        ("by a panic, with its hook", at("setTimeout"), 1, 0),
        ("between the delete and the record", at("batch").after("delete"), 1, 0),
        ("between the record and the acknowledgement", at("ack"), 1, 2),
        ("at the acknowledgement of what has failed", at("retry"), 1, 0),
    ]
}

#[test]
fn a_consumer_that_panics_anywhere_decides_nothing_and_the_next_delivery_finishes() -> Result<()> {
    for (when, trap, deletes, recorded) in traps_of_the_consumer() {
        let pair = start(vec![trap])?;
        if when.ends_with("failed") {
            pair.bucket.fail_deletes(1, Fault::done_but_refused(10_001));
        }
        let id = pair.accept(&["a", "b"])?;
        let (batch, delivered) = pair.deliver_once(QUEUE)?;
        assert_eq!(delivered.outcome, "exception", "{when}");
        assert!(!delivered.decided(&batch[0].id), "{when}: {delivered:?}");
        assert_eq!(delivered.decision(&batch[0].id), Decision::Retried { delay: None }, "{when}");
        assert_eq!((pair.bucket.deletes().len(), pair.trapped()), (deletes, 1), "{when}");
        assert_eq!(pair.progress(&id)?.1.deleted, recorded, "{when}");
        assert!(pair.log().contains("RuntimeError: unreachable"), "{when}: not of the wasm");
        assert_eq!(pair.log().contains("Rust panic: panicked at"), when.starts_with("by a panic"), "{when}");

        pair.settle()?;
        assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(2)), "{when}");
        assert_eq!((pair.bucket.keys(), pair.trapped()), (vec!["bystander".to_owned()], 1), "{when}");
        // The same process goes on, with another instance.
        assert!(pair.log().contains("Reinitializing Wasm application"), "{when}");
        let next = pair.accept(&["bystander"])?;
        let (_, delivered) = pair.deliver_once(QUEUE)?;
        assert_eq!(delivered.outcome, "ok", "{when}");
        assert_eq!(pair.progress(&next)?, ("succeeded".to_owned(), Counts::all_deleted(1)), "{when}");
    }
    Ok(())
}

/// All invocations of an isolate share the instance: whoever is in flight in it goes down with it.
///
/// 1. A delivery waits for R2. 2. Another panics. 3. Neither decides anything, though R2 answers the first: the runtime sees that
///    it is stuck when the timer ends that the call had, after half a minute. 4. Whoever comes next finishes both.
#[test]
fn a_panic_takes_the_invocations_beside_it_along_and_loses_nothing_of_theirs() -> Result<()> {
    let pair = start(vec![Trap::at("consumer", "batch").after("delete").sparing(1)])?;
    let ids = [pair.accept(&["a"])?, pair.accept(&["b"])?];
    let batches = [pair.queue.take(QUEUE, 1), pair.queue.take(QUEUE, 1)];
    let gate = Gate::new();
    pair.bucket.fail_deletes(1, Fault::stalled(When::After, &gate));
    let dispatcher = pair.dispatcher()?;
    let delivered = thread::scope(|scope| {
        let waiting = scope.spawn(|| dispatcher.deliver(QUEUE, &batches[0]));
        gate.arrived(1, PATIENCE)?;
        let panicked = dispatcher.deliver(QUEUE, &batches[1])?;
        gate.open();
        let Ok(waiting) = waiting.join() else { bail!("the delivery panicked") };
        Ok([waiting?, panicked])
    })?;
    for (batch, delivered) in batches.iter().zip(&delivered) {
        assert_eq!((delivered.outcome.as_str(), delivered.decided(&batch[0].id)), ("exception", false));
        pair.queue.settle(QUEUE, batch, delivered);
    }
    assert_eq!(pair.trapped(), 1);
    pair.settle()?;
    for id in ids {
        assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(1)));
    }
    assert_eq!(pair.bucket.keys(), ["bystander"]);
    Ok(())
}

/// 1. The producer panics between two sends. 2. The caller gets an error, and what was sent is carried out. 3. The same request
///    again makes it whole, by another instance of the same process.
#[test]
fn a_producer_that_panics_between_two_sends_has_accepted_nothing_and_its_replay_does() -> Result<()> {
    let pair = start(vec![Trap::at("producer", "sendBatch").sparing(1)])?;
    let keys: Vec<_> = (0..1_500).map(|at| format!("{}/{at}", "long".repeat(60))).collect();
    pair.bucket.upload(keys.clone());
    let body = json!({ "objectKeys": keys });
    let post = || pair.call_with_key("POST", "/v1/deletions", Some("k"), Some(&body));
    assert_eq!(post()?.status, 500);
    assert_eq!(pair.trapped(), 1);
    let sent = pair.queue.messages(QUEUE).len();
    assert!(sent > 0, "it was before the first send");
    pair.settle()?;

    // As it is when the dead one's hold has ended.
    pair.database.execute("UPDATE parts SET sending_until = 0", [])?;
    let replayed = post()?;
    assert_eq!((replayed.status, replayed.headers["idempotent-replayed"].as_str()), (202, "true"));
    let id = replayed.body["id"].as_str().unwrap_or_default();
    pair.settle()?;
    assert_eq!(pair.progress(id)?, ("succeeded".to_owned(), Counts::all_deleted(1_500)));
    assert_eq!(
        (pair.deletions()?.len(), pair.bucket.keys()),
        (1, ["a", "b", "bystander"].map(str::to_owned).to_vec())
    );
    Ok(())
}

/// Nobody asks again: what was not sent is never deleted, and upkeep cancels it a day later.
#[test]
fn what_a_producer_that_panicked_has_left_behind_is_cancelled_a_day_later() -> Result<()> {
    let pair = start(vec![Trap::at("producer", "sendBatch")])?;
    assert_eq!(pair.post_deletion(&["a", "b"])?.status, 500);
    let id = pair.deletions()?.remove(0);
    pair.settle()?;
    pair.database.execute("UPDATE deletions SET requested_at = requested_at - ?1", [DAY_MS])?;
    pair.database.execute("UPDATE parts SET sending_until = 0", [])?;
    pair.dispatcher()?.cron()?;
    assert_eq!(pair.status(&id)?["state"], "cancelled");
    assert_eq!(pair.bucket.keys(), ["a", "b", "bystander"]);
    Ok(())
}

/// A message at which the consumer panics each time costs its own keys at the end, named, and nobody else's.
#[test]
fn a_panic_at_every_attempt_ends_as_failures_and_stops_nobody_else() -> Result<()> {
    let pair = start((0..21).map(|_| Trap::at("consumer", "delete")).collect())?;
    let id = pair.accept(&["a"])?;
    for _ in 0..=pair.queue.settings(QUEUE).max_retries {
        pair.clock.skip(pair.queue.idle_for().unwrap_or_default());
        // The claim of who has panicked ends.
        pair.clock.skip(Duration::from_mins(11));
        pair.deliver_once(QUEUE)?;
    }
    assert_eq!((pair.trapped(), pair.queue.messages(DEAD_LETTERS).len()), (21, 1));
    assert_eq!(pair.progress(&id)?.1.pending, 1);
    let other = pair.accept(&["b"])?;
    pair.settle()?;
    assert_eq!(pair.progress(&other)?, ("succeeded".to_owned(), Counts::all_deleted(1)));
    let failed = Counts { total: 1, failed: 1, ..Counts::default() };
    assert_eq!(pair.progress(&id)?, ("failed".to_owned(), failed));
    assert_eq!(pair.failures(&id)?[0]["key"], "a");
    assert_eq!(pair.bucket.keys(), ["a", "bystander"]);
    Ok(())
}

#[test]
fn a_panic_in_upkeep_or_beside_a_notice_is_made_up_for_by_the_next_round() -> Result<()> {
    let endpoint = Endpoint::start()?;
    // The third and the fourth: the claim, the record, the look at the notice, and what became of it.
    let traps = vec![Trap::at("consumer", "batch").sparing(2), Trap::at("consumer", "batch").sparing(4)];
    let pair = Pair::set_up(Setup { endpoint: Some(endpoint.clone()), traps, ..Setup::default() })?;
    pair.bucket.upload(["a", "bystander"]);
    let id = pair.accept(&["a"])?;
    pair.settle()?;
    for _ in 0..3 {
        pair.clock.skip(Duration::from_mins(11));
        // It may be this one that panics.
        drop(pair.dispatcher()?.cron());
        pair.settle()?;
    }
    assert_eq!(pair.trapped(), 2);
    assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(1)));
    let received = endpoint.received()?;
    assert!(!received.is_empty() && received.iter().all(|notice| notice.id == format!("{id}_0")));
    let owed = pair.database.query("SELECT COUNT(*) FROM notices", [], |row| row.get::<_, i64>(0))?;
    assert_eq!((owed, pair.bucket.keys()), (vec![0], vec!["bystander".to_owned()]));
    Ok(())
}
