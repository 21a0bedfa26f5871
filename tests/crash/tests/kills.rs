//! The runtime dies at the worst moments, by SIGKILL: whoever comes next finishes with exact counts.

use anyhow::Result;
use crash::{Counts, Decision, Fault, Gate, Pair, QUEUE, When};

fn filled() -> Result<(Pair, String)> {
    let pair = Pair::start()?;
    pair.bucket.upload(["a", "b", "bystander"]);
    let id = pair.accept(&["a", "b"])?;
    Ok((pair, id))
}

fn assert_converges(pair: &Pair, id: &str) -> Result<()> {
    pair.settle()?;
    assert_eq!(pair.progress(id)?, ("succeeded".to_owned(), Counts::all_deleted(2)));
    assert_eq!(pair.bucket.keys(), ["bystander"]);
    Ok(())
}

#[test]
fn a_kill_between_the_delete_and_its_answer_is_finished_by_the_next_delivery() -> Result<()> {
    for when in [When::Before, When::Halfway, When::After] {
        let (mut pair, id) = filled()?;
        let gate = Gate::new();
        pair.bucket.fail_deletes(1, Fault::stalled(when, &gate));
        assert!(pair.kill_at(&gate, QUEUE)?);
        assert_eq!(pair.progress(&id)?.1, Counts { total: 2, pending: 2, ..Counts::default() });
        // The claim of the dead holds until it ends.
        let (batch, delivered) = pair.deliver_once(QUEUE)?;
        let decision = delivered.decision(&batch[0].id);
        assert!(matches!(decision, Decision::Retried { delay: Some(1..) }), "{decision:?}");
        assert_converges(&pair, &id)?;
    }
    Ok(())
}

#[test]
fn a_kill_between_the_record_and_the_acknowledgement_changes_nothing() -> Result<()> {
    let (mut pair, id) = filled()?;
    let gate = Gate::new();
    pair.database.fail("consumer", "UPDATE chunks", 0, 1, Fault::stalled(When::After, &gate));
    assert!(pair.kill_at(&gate, QUEUE)?);
    let end = pair.status(&id)?;
    assert_eq!(end["state"], "succeeded");
    let deletes = pair.bucket.deletes().len();
    assert_converges(&pair, &id)?;
    assert_eq!(pair.status(&id)?, end);
    assert_eq!(pair.bucket.deletes().len(), deletes, "deleted again what was recorded");
    Ok(())
}

#[test]
fn a_kill_between_the_claim_and_the_delete_costs_nothing_but_the_claims_time() -> Result<()> {
    let (mut pair, id) = filled()?;
    let gate = Gate::new();
    pair.database.fail("consumer", "INSERT INTO chunks", 0, 1, Fault::stalled(When::After, &gate));
    assert!(pair.kill_at(&gate, QUEUE)?);
    assert_eq!(pair.bucket.deletes().len(), 0);
    assert_converges(&pair, &id)
}

#[test]
fn a_kill_of_the_producer_between_two_sends_leaves_no_accepted_deletion_without_its_messages() -> Result<()> {
    let mut pair = Pair::start()?;
    let keys: Vec<_> = (0..5_000).map(|at| format!("{}/{at}", "long".repeat(60))).collect();
    pair.bucket.upload(keys.clone());
    pair.bucket.upload(["bystander"]);
    let gate = Gate::new();
    pair.queue.fail_sends(1, 1, Fault::stalled(When::Before, &gate));
    let body = serde_json::json!({ "objectKeys": keys });
    let answer = pair.kill_call_at(&gate, ("POST", "/v1/deletions"), None, Some(&body))?;
    assert!(matches!(answer, (true, None)), "{answer:?}");
    // What was sent is processed; the caller, who was told nothing, asks again.
    pair.settle()?;
    let id = pair.accept(&keys)?;
    pair.settle()?;
    assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(5_000)));
    assert_eq!(pair.bucket.keys(), ["bystander"]);
    Ok(())
}
