//! What the consumer does when the ledger fails: nothing is acknowledged before it is recorded, nothing is counted
//! twice, and it ends as if nothing had happened.

#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use anyhow::Result;
use crash::{Counts, D1Error, Decision, Fault, Pair, QUEUE, When};

/// What is in the statements of a claim and of a record, and of nothing else.
const CLAIM: &str = "INSERT INTO chunks";
const RECORD: &str = "UPDATE chunks";

/// Lets the consumer's write that contains `sql` fail often enough for one delivery to give up, then heals.
fn fail_one_delivery(sql: &str, fault: Fault<D1Error>) -> Result<(Pair, String)> {
    let pair = Pair::start()?;
    pair.bucket.upload(["a", "b", "bystander"]);
    let id = pair.accept(&["a", "b"])?;
    pair.database.fail("consumer", sql, 0, usize::MAX, fault);
    let (batch, delivered) = pair.deliver_once(QUEUE)?;
    let decision = delivered.decision(&batch[0].id);
    assert!(matches!(decision, Decision::Retried { delay: Some(1..) }), "{sql}: {decision:?}");
    pair.progress(&id)?;
    pair.database.heal();
    Ok((pair, id))
}

fn assert_converges(pair: &Pair, id: &str) -> Result<()> {
    pair.settle()?;
    assert_eq!(pair.progress(id)?, ("succeeded".to_owned(), Counts::all_deleted(2)));
    assert_eq!(pair.bucket.keys(), ["bystander"]);
    Ok(())
}

#[test]
fn a_claim_that_fails_deletes_nothing() -> Result<()> {
    for fault in [Fault::refused(D1Error::reset()), Fault::dropped(When::Before)] {
        let (pair, id) = fail_one_delivery(CLAIM, fault)?;
        assert_eq!(pair.bucket.deletes().len(), 0);
        assert_converges(&pair, &id)?;
    }
    Ok(())
}

#[test]
fn a_claim_whose_answer_is_lost_deletes_nothing_until_it_ends() -> Result<()> {
    for fault in [Fault::done_but_refused(D1Error::reset()), Fault::dropped(When::After)] {
        let (pair, id) = fail_one_delivery(CLAIM, fault)?;
        assert_eq!(pair.bucket.deletes().len(), 0);
        assert_converges(&pair, &id)?;
    }
    Ok(())
}

#[test]
fn what_is_not_recorded_is_not_acknowledged() -> Result<()> {
    for fault in [Fault::refused(D1Error::reset()), Fault::dropped(When::Before)] {
        let (pair, id) = fail_one_delivery(RECORD, fault)?;
        assert_eq!(pair.bucket.keys(), ["bystander"], "deleted, and not recorded");
        assert_eq!(pair.progress(&id)?.1.pending, 2);
        assert_converges(&pair, &id)?;
    }
    Ok(())
}

#[test]
fn what_is_recorded_and_not_answered_is_not_done_again() -> Result<()> {
    for fault in [Fault::done_but_refused(D1Error::reset()), Fault::dropped(When::After)] {
        let (pair, id) = fail_one_delivery(RECORD, fault)?;
        assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(2)));
        pair.bucket.upload(["a"]);
        pair.settle()?;
        assert_eq!(pair.bucket.keys(), ["a", "bystander"], "what was uploaded after the end is deleted");
        assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(2)));
    }
    Ok(())
}

#[test]
fn a_ledger_that_fails_now_and_then_costs_nothing_but_time() -> Result<()> {
    let pair = Pair::start()?;
    let keys: Vec<_> = (0..2_500).map(|at| format!("now and then/{at}")).collect();
    pair.bucket.upload(keys.clone());
    let id = pair.accept(&keys)?;
    for spare in [0, 2, 4] {
        pair.database.fail("consumer", "", spare, 1, Fault::refused(D1Error::reset()));
        pair.database.fail("consumer", RECORD, spare, 1, Fault::done_but_refused(D1Error::reset()));
    }
    pair.settle()?;
    assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(2_500)));
    assert_eq!(pair.bucket.keys(), Vec::<String>::new());
    Ok(())
}

#[test]
fn while_the_ledger_does_not_answer_the_producer_is_not_ready_and_still_describes_itself() -> Result<()> {
    let pair = Pair::start()?;
    pair.database.fail("producer", "", 0, usize::MAX, Fault::refused(D1Error::reset()));
    let ready = pair.call("GET", "/readyz", None)?;
    assert_eq!((ready.status, ready.body["code"].as_str()), (503, Some("not_ready")));
    let description = pair.call("GET", "/openapi.json", None)?;
    assert_eq!(
        (description.status, description.body["info"]["title"].as_str()),
        (200, Some("r2-deletion-queue"))
    );
    pair.database.heal();
    assert_eq!(pair.call("GET", "/readyz", None)?.status, 200);
    Ok(())
}
