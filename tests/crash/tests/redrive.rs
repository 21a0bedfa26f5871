//! What failed is sent again once the reason is gone: nothing twice, nothing lost, whoever asks how often and whatever dies.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use crash::{Counts, Fault, Gate, Neighbours, Pair, QUEUE, Reply, When};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
const KEYS: usize = 60;

/// A pair with a deletion of 60 keys of which `locked` have failed, and a bystander.
fn failed(locked: usize) -> Result<(Pair, String)> {
    let pair = Pair::start()?;
    let keys: Vec<_> = (0..KEYS).map(|at| format!("proj_42/{at}.jpg")).collect();
    pair.bucket.upload(keys.clone());
    pair.bucket.upload(["proj_421/bystander.jpg"]);
    pair.bucket.lock(keys.iter().step_by(KEYS / locked).cloned(), Neighbours::Kept);
    let id = pair.accept(&keys)?;
    pair.settle()?;
    let (total, failed) = (KEYS as u64, locked as u64);
    let counts = Counts { total, failed, deleted: total - failed, ..Counts::default() };
    assert_eq!(pair.progress(&id)?, ("failed".to_owned(), counts));
    Ok((pair, id))
}

fn redrive(pair: &Pair, id: &str) -> Result<Reply> {
    pair.call("POST", &format!("/v1/deletions/{id}/redrive"), None)
}

fn assert_succeeded(pair: &Pair, id: &str) -> Result<()> {
    pair.settle()?;
    assert_eq!(pair.progress(id)?, ("succeeded".to_owned(), Counts::all_deleted(KEYS as u64)));
    assert_eq!(pair.failures(id)?, Vec::<Value>::new());
    assert_eq!(pair.bucket.keys(), ["proj_421/bystander.jpg"]);
    assert_eq!(pair.unreadable_messages()?, Vec::<Value>::new());
    let left: Vec<i64> = pair.database.query("SELECT COUNT(*) FROM outbox", [], |row| row.get(0))?;
    assert_eq!(left, [0], "the outbox of what is over");
    Ok(())
}

#[test]
fn a_redrive_after_the_fault_is_gone_succeeds_with_the_same_total() -> Result<()> {
    let (pair, id) = failed(10)?;
    // The fault is still there: they fail once more.
    assert_eq!(redrive(&pair, &id)?.status, 202);
    pair.settle()?;
    assert_eq!(pair.failures(&id)?.len(), 10);
    pair.bucket.unlock();
    let redriven = redrive(&pair, &id)?;
    assert_eq!((redriven.status, redriven.body.get("generation")), (202, Some(&json!(2))));
    assert_succeeded(&pair, &id)
}

#[test]
fn what_was_uploaded_since_the_request_is_kept_by_a_redrive() -> Result<()> {
    let (pair, id) = failed(10)?;
    pair.bucket.unlock();
    // Two of the ten that failed, by somebody who uses their names again.
    let again = ["proj_42/0.jpg", "proj_42/30.jpg"];
    pair.bucket.upload(again);
    assert_eq!(redrive(&pair, &id)?.status, 202);
    pair.settle()?;
    let counts = Counts { total: KEYS as u64, deleted: KEYS as u64 - 2, skipped: 2, ..Counts::default() };
    assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), counts));
    let skipped = pair.skipped(&id)?;
    assert_eq!(skipped.iter().filter_map(|key| key.get("key")?.as_str()).collect::<Vec<_>>(), again);
    assert_eq!(pair.bucket.keys(), [&again[..], &["proj_421/bystander.jpg"]].concat());
    Ok(())
}

#[test]
fn of_many_redrives_at_once_one_is_sent() -> Result<()> {
    let (pair, id) = failed(10)?;
    pair.bucket.unlock();
    let answers = thread::scope(|scope| {
        let redrives: Vec<_> = (0..20).map(|_| scope.spawn(|| redrive(&pair, &id))).collect();
        redrives.into_iter().map(|redrive| redrive.join().unwrap_or_else(|_| bail!("it panicked"))).collect()
    });
    let answers: Vec<Reply> = Result::<_>::from_iter::<Vec<Result<Reply>>>(answers)?;
    // Those that come while another sends are told to ask again: nothing may be stored yet.
    let is_in_time = |answer: &Reply| match answer.status {
        202 => true,
        status => status == 409 && answer.body.get("retryable") == Some(&json!(true)),
    };
    assert!(answers.iter().all(is_in_time), "{answers:?}");
    assert!(answers.iter().any(|answer| answer.status == 202), "{answers:?}");
    assert_eq!(redrive(&pair, &id)?.status, 202);
    assert_eq!(pair.queue.messages(QUEUE).len(), 1, "one message for ten keys");
    assert_succeeded(&pair, &id)
}

/// 1. What failed is redriven while it is still locked. 2. A redrive during its delivery changes nothing. 3. It fails once more,
///    and is redriven by its code when it is unlocked.
#[test]
fn a_redrive_during_delivery_loses_nothing() -> Result<()> {
    let (pair, id) = failed(10)?;
    assert_eq!(redrive(&pair, &id)?.status, 202);
    let gate = Gate::new();
    pair.bucket.fail_deletes(1, Fault::stalled(When::Before, &gate));
    thread::scope(|scope| -> Result<()> {
        let delivery = scope.spawn(|| pair.settle());
        gate.arrived(1, PATIENCE)?;
        let during = redrive(&pair, &id)?;
        assert_eq!((during.status, during.body.get("generation")), (202, Some(&json!(1))));
        gate.open();
        delivery.join().unwrap_or_else(|_| bail!("the delivery panicked"))
    })?;
    assert_eq!(pair.failures(&id)?.len(), 10, "they are still locked");
    pair.bucket.unlock();
    assert_eq!(pair.call("POST", "/v1/redrives", Some(&json!({"code": "object_locked"})))?.status, 202);
    assert_succeeded(&pair, &id)
}

/// Who carries a redrive through that another has begun.
#[derive(Clone, Copy, Debug)]
enum Finisher {
    SameCall,
    RedriveOfAll,
    Upkeep,
}

/// The runtime is killed at each step of a redrive; the same call again, one about all deletions, or upkeep carries it through.
#[test]
fn a_redrive_that_dies_anywhere_is_finished_by_the_next() -> Result<()> {
    for (statement, when, finisher) in [
        ("INSERT INTO outbox", When::After, Finisher::SameCall),
        ("INSERT INTO parts", When::Before, Finisher::SameCall),
        ("INSERT INTO parts", When::After, Finisher::SameCall),
        ("INSERT INTO parts", When::After, Finisher::RedriveOfAll),
        ("UPDATE parts SET enqueued_at", When::Before, Finisher::Upkeep),
    ] {
        let (mut pair, id) = failed(10)?;
        pair.bucket.unlock();
        let gate = Gate::new();
        pair.database.fail("producer", statement, 0, 1, Fault::stalled(when, &gate));
        let path = format!("/v1/deletions/{id}/redrive");
        let answer = pair.kill_call_at(&gate, ("POST", &path), None, None)?;
        assert!(matches!(answer, (true, None)), "{answer:?}");
        // As it is when the dead one's hold has ended.
        pair.database.execute("UPDATE parts SET sending_until = 0", [])?;
        match finisher {
            Finisher::SameCall => {
                assert!([200, 202].contains(&redrive(&pair, &id)?.status), "{statement} {when:?}");
            }
            Finisher::RedriveOfAll => {
                let answer = pair.call("POST", "/v1/redrives", None)?;
                let keys = answer.body.get("keys");
                assert_eq!((answer.status, keys), (202, Some(&json!(10))), "{statement} {when:?}");
            }
            Finisher::Upkeep => pair.dispatcher()?.cron()?,
        }
        pair.settle()?;
        // What the dead one wrote for nothing is upkeep's, a day later; here only what belongs to the deletion is looked at.
        pair.database.execute(
            "DELETE FROM outbox WHERE NOT EXISTS (SELECT 1 FROM parts AS p WHERE p.upload = outbox.upload)",
            [],
        )?;
        assert_succeeded(&pair, &id)?;
    }
    Ok(())
}
