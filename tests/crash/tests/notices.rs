//! Completion notices: each end of a deletion is told, whatever the endpoint, the queue and the ledger do, and however the
//! consumer dies. The endpoint verifies every signature, with the receivers' own library.

#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use crash::{
    D1Error, DEAD_LETTERS, Endpoint, Fault, Gate, NOTICE_SECRETS, NOTICE_URL_CANARY, Pair, QUEUE, Setup,
    When, until,
};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);
const KEY: &str = "proj_42/a.jpg";

/// A pair with notices, and a deletion of one key that it has accepted.
fn accepted() -> Result<(Pair, Endpoint, String)> {
    let endpoint = Endpoint::start()?;
    let pair = Pair::start_with_notices(&endpoint)?;
    pair.bucket.upload([KEY]);
    let id = pair.accept(&[KEY])?;
    Ok((pair, endpoint, id))
}

fn owed_and_failed(pair: &Pair) -> Result<(i64, i64)> {
    let sql = "SELECT COUNT(*) - COUNT(failed_at), COUNT(failed_at) FROM notices";
    Ok(pair.database.query(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?[0])
}

/// Delivers all there is, and asserts that the endpoint has got the one notice `times` times.
fn assert_told(pair: &Pair, endpoint: &Endpoint, id: &str, times: usize) -> Result<()> {
    pair.settle()?;
    let received = endpoint.received()?;
    assert_eq!(received.len(), times, "{received:?}\nworkerd said:\n{}", pair.log());
    let deletion = pair.status(id)?;
    let body = json!({"type": "deletion.finished", "timestamp": deletion["finished_at"], "data": deletion});
    for notice in &received {
        assert_eq!((notice.id.as_str(), &notice.body), (format!("{id}_0").as_str(), &body));
    }
    assert_eq!(owed_and_failed(pair)?, (0, 0));
    Ok(())
}

#[test]
fn an_endpoint_that_fails_is_asked_again_until_it_takes_the_notice() -> Result<()> {
    let (pair, endpoint, id) = accepted()?;
    endpoint.fail(0, 2, Fault::refused(500_u16));
    endpoint.fail(2, 1, Fault::dropped(When::After));
    endpoint.fail(3, 1, Fault::refused(301_u16));
    assert_told(&pair, &endpoint, &id, 5)?;
    assert_eq!(pair.log().matches("notice.retried").count(), 4);
    assert_eq!(pair.log().matches("notice.delivered").count(), 1);
    Ok(())
}

#[test]
fn an_endpoint_that_never_takes_it_is_given_up_and_the_operator_can_have_it_sent_again() -> Result<()> {
    let (pair, endpoint, id) = accepted()?;
    endpoint.fail(0, 12, Fault::refused(503_u16));
    pair.settle()?;
    assert_eq!((endpoint.received()?.len(), owed_and_failed(&pair)?), (12, (0, 1)));
    let stats = pair.call("GET", "/v1/stats", None)?;
    assert_eq!(stats.body["notices"], json!({"owed": 0, "failed": 1}));
    assert!(pair.log().contains("notice.failed"));

    // As README says.
    let again = "UPDATE notices SET failed_at = NULL, attempts = 0, due_at = 0 WHERE failed_at IS NOT NULL";
    pair.database.execute(again, [])?;
    pair.dispatcher()?.cron()?;
    assert_told(&pair, &endpoint, &id, 13)
}

/// 1. The endpoint does not answer. 2. In the same batch a chunk is deleted and recorded while it hangs. 3. After 15 s the
///    notice is put off, and both messages are settled.
#[test]
fn an_endpoint_that_hangs_holds_up_no_delete_and_no_record() -> Result<()> {
    let (pair, endpoint, first) = accepted()?;
    pair.deliver_once(QUEUE)?;
    let second = pair.accept(&["other"])?;
    let gate = Gate::new();
    endpoint.fail(0, 1, Fault::stalled(When::Before, &gate));
    let started = pair.clock.now();
    let settled = thread::scope(|scope| {
        let delivery = scope.spawn(|| pair.deliver_once(QUEUE));
        gate.arrived(1, PATIENCE)?;
        until("the chunk to be recorded", Duration::from_secs(10), || {
            Ok((pair.status(&second)?["state"] == "succeeded").then_some(()))
        })?;
        assert!(!delivery.is_finished(), "the endpoint has been given up before its time");
        let Ok(delivered) = delivery.join() else { bail!("the delivery panicked") };
        let (batch, delivered) = delivered?;
        Ok((batch.len(), batch.iter().filter(|message| delivered.decided(&message.id)).count()))
    })?;
    assert_eq!(settled, (2, 2));
    let took = pair.clock.now().saturating_sub(started);
    assert!((14..30).contains(&took.as_secs()), "{took:?}");
    assert!(pair.log().contains("timed_out"));
    gate.open();
    pair.settle()?;
    let mut ids: Vec<_> = endpoint.received()?.into_iter().map(|notice| notice.id).collect();
    ids.sort();
    let mut expected = vec![format!("{first}_0"), format!("{first}_0"), format!("{second}_0")];
    expected.sort();
    assert_eq!(ids, expected);
    Ok(())
}

/// The deletion is recorded as finished, and nobody is left to send the message: upkeep does.
#[test]
fn a_consumer_that_dies_between_the_record_and_the_message_leaves_it_to_upkeep() -> Result<()> {
    let (mut pair, endpoint, id) = accepted()?;
    let gate = Gate::new();
    pair.database.fail("consumer", "UPDATE chunks", 0, 1, Fault::stalled(When::After, &gate));
    assert!(pair.kill_at(&gate, QUEUE)?);
    pair.settle()?;
    assert_eq!((pair.status(&id)?["state"].as_str(), endpoint.received()?.len()), (Some("succeeded"), 0));
    assert_eq!(owed_and_failed(&pair)?, (1, 0));
    pair.dispatcher()?.cron()?;
    assert!(pair.queue.messages(QUEUE).is_empty(), "it may still come");
    pair.clock.skip(Duration::from_mins(11));
    pair.dispatcher()?.cron()?;
    assert_told(&pair, &endpoint, &id, 1)
}

/// It may have been delivered, so that it is sent again, under the same id.
#[test]
fn a_consumer_that_dies_between_the_endpoints_answer_and_its_record_may_tell_it_twice() -> Result<()> {
    for (when, times) in [(When::Before, 2), (When::After, 1)] {
        let (mut pair, endpoint, id) = accepted()?;
        pair.deliver_once(QUEUE)?;
        let gate = Gate::new();
        pair.database.fail("consumer", "DELETE FROM notices", 0, 1, Fault::stalled(when, &gate));
        assert!(pair.kill_at(&gate, QUEUE)?);
        // The service finishes what the dead had asked for: undo it, where it was to die before.
        if when == When::Before {
            let owe =
                "INSERT INTO notices (deletion, generation, due_at) VALUES (?1, 0, 0) ON CONFLICT DO NOTHING";
            pair.database.execute(owe, [&id])?;
        }
        assert_told(&pair, &endpoint, &id, times)?;
    }
    Ok(())
}

#[test]
fn a_message_in_the_dead_letter_queue_still_has_its_notice_looked_at() -> Result<()> {
    let (pair, endpoint, id) = accepted()?;
    pair.deliver_once(QUEUE)?;
    pair.database.fail("consumer", "FROM notices", 0, usize::MAX, Fault::refused(D1Error::reset()));
    for _ in 0..=pair.queue.settings(QUEUE).max_retries {
        pair.clock.skip(pair.queue.idle_for().unwrap_or_default());
        pair.deliver_once(QUEUE)?;
    }
    assert_eq!((pair.queue.messages(QUEUE).len(), pair.queue.messages(DEAD_LETTERS).len()), (0, 1));
    assert_eq!(endpoint.received()?.len(), 0);
    pair.database.heal();
    assert_told(&pair, &endpoint, &id, 1)
}

/// 1. A deletion is cancelled while its chunk is being deleted: nobody is told yet. 2. It ends: one notice, of how it ended.
/// 3. One that was cancelled in time: one notice at once.
#[test]
fn a_cancelled_deletion_is_told_once_and_not_before_it_is_over() -> Result<()> {
    let (pair, endpoint, id) = accepted()?;
    let gate = Gate::new();
    pair.bucket.fail_deletes(1, Fault::stalled(When::Before, &gate));
    let cancel = |id: &str| pair.call("POST", &format!("/v1/deletions/{id}/cancel"), None);
    thread::scope(|scope| -> Result<()> {
        let delivery = scope.spawn(|| pair.deliver_once(QUEUE));
        gate.arrived(1, PATIENCE)?;
        assert_eq!(cancel(&id)?.body["state"], "cancelling");
        pair.deliver_once(QUEUE)?;
        assert_eq!(endpoint.received()?.len(), 0, "told before the end");
        gate.open();
        let Ok(delivered) = delivery.join() else { bail!("the delivery panicked") };
        delivered.map(drop)
    })?;
    assert_told(&pair, &endpoint, &id, 1)?;
    assert_eq!(endpoint.received()?[0].body["data"]["state"], "succeeded");

    let late = pair.accept(&["late"])?;
    assert_eq!(cancel(&late)?.body["state"], "cancelled");
    cancel(&late)?;
    pair.settle()?;
    let received = endpoint.received()?;
    assert_eq!((received.len(), received[1].id.as_str()), (2, format!("{late}_0").as_str()));
    assert_eq!(received[1].body["data"], pair.status(&late)?);
    assert_eq!(owed_and_failed(&pair)?, (0, 0));
    Ok(())
}

/// The deletion is carried out all the same, and its notice is owed; without any setting it would not be.
#[test]
fn a_wrong_configuration_is_told_the_operator_and_stops_no_deletion() -> Result<()> {
    let url = format!("http://example.com/{NOTICE_URL_CANARY}");
    let settings = vec![("NOTICE_URL", url), ("NOTICE_SECRETS", NOTICE_SECRETS[0].to_owned())];
    let pair = Pair::set_up(Setup { settings, ..Setup::default() })?;
    let id = pair.accept(&["a"])?;
    pair.deliver_once(QUEUE)?;
    pair.deliver_once(QUEUE)?;
    assert_eq!(pair.status(&id)?["state"], "succeeded");
    assert!(pair.log().contains("config.invalid") && pair.log().contains("NOTICE_URL: expected https"));
    assert!(!pair.log().contains(NOTICE_URL_CANARY) && !pair.log().contains(NOTICE_SECRETS[0]));
    assert_eq!(owed_and_failed(&pair)?, (1, 0));

    let pair = Pair::start()?;
    let id = pair.accept(&["a"])?;
    let cancelled = pair.accept(&["b"])?;
    pair.call("POST", &format!("/v1/deletions/{cancelled}/cancel"), None)?;
    pair.settle()?;
    assert_eq!(pair.status(&id)?["state"], "succeeded");
    assert_eq!(owed_and_failed(&pair)?, (0, 0));
    Ok(())
}
