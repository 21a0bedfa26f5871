//! What the consumer does when R2 fails: nothing is lost, nobody is blamed for what another key did, and what can be
//! deleted is deleted.

#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use anyhow::Result;
use crash::{Counts, Decision, Fault, Gate, Neighbours, Pair, QUEUE, R2Error, When};
use serde_json::{Value, json};

/// A pair whose bucket holds `count` objects to delete, and a bystander.
fn filled(count: usize) -> Result<(Pair, Vec<String>)> {
    let pair = Pair::start()?;
    let keys: Vec<_> = (0..count).map(|at| format!("proj_42/{at}.jpg")).collect();
    pair.bucket.upload(keys.clone());
    pair.bucket.upload(["proj_421/bystander.jpg"]);
    Ok((pair, keys))
}

/// All keys are gone, the bystander is not, and nothing failed.
fn assert_all_deleted(pair: &Pair, id: &str, keys: &[String]) -> Result<()> {
    assert_eq!(pair.progress(id)?, ("succeeded".to_owned(), Counts::all_deleted(keys.len() as u64)));
    assert_eq!(pair.failures(id)?, Vec::<Value>::new());
    assert_eq!(pair.bucket.keys(), ["proj_421/bystander.jpg"]);
    Ok(())
}

/// Exactly `locked` failed, as locked, and are still there; the other keys are gone.
fn assert_locked_failed(pair: &Pair, id: &str, keys: &[String], locked: &[String]) -> Result<()> {
    let (total, failed) = (keys.len() as u64, locked.len() as u64);
    let counts = Counts { total, failed, deleted: total - failed, ..Counts::default() };
    assert_eq!(pair.progress(id)?, ("failed".to_owned(), counts));
    let failures = pair.failures(id)?;
    let mut failed: Vec<_> =
        failures.iter().map(|failure| failure["key"].as_str().unwrap_or_default()).collect();
    failed.sort_unstable();
    assert_eq!(failed, locked);
    assert!(failures.iter().all(|failure| failure["code"] == "object_locked"), "{failures:?}");
    let errors = json!([{"code": "object_locked", "r2_code": 10069, "count": locked.len()}]);
    assert_eq!(pair.status(id)?["errors"], errors);
    assert_eq!(pair.bucket.keys().len(), locked.len() + 1);
    Ok(())
}

/// No call came too soon after another that wrote one of its keys.
fn assert_never_throttled(pair: &Pair) {
    let throttled: Vec<_> =
        pair.bucket.deletes().into_iter().filter(|call| call.error == Some(10058)).collect();
    assert!(
        throttled.is_empty(),
        "{} calls came too soon, one of {} keys",
        throttled.len(),
        throttled[0].keys.len()
    );
}

#[test]
fn calls_that_are_too_large_for_r2_are_halved() -> Result<()> {
    let (pair, keys) = filled(1_000)?;
    pair.bucket.refuse_deletes_above(Some(130));
    let id = pair.accept(&keys)?;
    pair.settle()?;
    assert_all_deleted(&pair, &id, &keys)?;
    let sizes: Vec<_> = pair.bucket.deletes().iter().map(|call| call.keys.len()).collect();
    assert!(sizes.contains(&1_000) && sizes.contains(&500) && sizes.contains(&250), "{sizes:?}");
    assert_never_throttled(&pair);
    Ok(())
}

#[test]
fn a_bucket_that_is_unavailable_is_asked_again() -> Result<()> {
    for code in [10043, 10001, 10054] {
        let (pair, keys) = filled(50)?;
        pair.bucket.fail_deletes(3, Fault::refused(code));
        let id = pair.accept(&keys)?;
        pair.settle()?;
        assert_all_deleted(&pair, &id, &keys)?;
    }
    Ok(())
}

#[test]
fn what_failed_after_it_was_done_or_half_done_is_counted_once() -> Result<()> {
    for fault in [
        Fault::done_but_refused(10001),
        Fault::half_done(10043),
        Fault::dropped(When::After),
        Fault::dropped(When::Halfway),
    ] {
        let (pair, keys) = filled(50)?;
        pair.bucket.fail_deletes(1, fault);
        let id = pair.accept(&keys)?;
        pair.settle()?;
        assert_all_deleted(&pair, &id, &keys)?;
    }
    Ok(())
}

/// Takes as long as the consumer waits for one call, half a minute.
#[test]
fn a_call_that_is_not_answered_in_time_is_given_up_and_repeated() -> Result<()> {
    let (pair, keys) = filled(20)?;
    let gate = Gate::new();
    pair.bucket.fail_deletes(1, Fault::stalled(When::Before, &gate));
    let id = pair.accept(&keys)?;
    let (batch, delivered) = pair.deliver_once(QUEUE)?;
    assert!(
        matches!(delivered.decision(&batch[0].id), Decision::Retried { delay: Some(1..) }),
        "{delivered:?}"
    );
    gate.open();
    pair.settle()?;
    assert_all_deleted(&pair, &id, &keys)
}

#[test]
fn throttling_is_never_blamed_on_a_key() -> Result<()> {
    // A key that stands alone is the one that could be blamed.
    for count in [1, 20] {
        let (pair, keys) = filled(count)?;
        pair.bucket.fail_deletes(8, Fault::refused(10058));
        let id = pair.accept(&keys)?;
        pair.settle()?;
        assert_all_deleted(&pair, &id, &keys)?;
    }
    Ok(())
}

#[test]
fn an_error_without_a_code_is_tried_again() -> Result<()> {
    let (pair, keys) = filled(20)?;
    pair.bucket.fail_deletes(2, Fault::refused(R2Error::BARE));
    let id = pair.accept(&keys)?;
    pair.settle()?;
    assert_all_deleted(&pair, &id, &keys)
}

#[test]
fn one_locked_key_of_a_thousand_is_found_and_the_others_are_deleted() -> Result<()> {
    let (pair, keys) = filled(1_000)?;
    pair.bucket.lock([keys[617].clone()], Neighbours::Kept);
    let id = pair.accept(&keys)?;
    pair.settle()?;
    assert_locked_failed(&pair, &id, &keys, &keys[617..618])?;
    assert_never_throttled(&pair);
    let attempts = pair.failures(&id)?[0]["attempts"].as_u64().unwrap_or_default();
    assert!(attempts <= 3, "a locked key took {attempts} deliveries to give up");
    Ok(())
}

#[test]
fn a_locked_key_is_found_when_the_failing_call_deleted_the_others() -> Result<()> {
    let (pair, keys) = filled(100)?;
    pair.bucket.lock([keys[99].clone()], Neighbours::Deleted);
    let id = pair.accept(&keys)?;
    pair.settle()?;
    assert_locked_failed(&pair, &id, &keys, &keys[99..])?;
    assert_never_throttled(&pair);
    Ok(())
}

#[test]
fn two_locked_keys_are_both_found() -> Result<()> {
    let (pair, keys) = filled(200)?;
    // In the order of their names, which is how they are compared.
    let locked = [keys[0].clone(), keys[150].clone()];
    pair.bucket.lock(locked.clone(), Neighbours::Kept);
    let id = pair.accept(&keys)?;
    pair.settle()?;
    assert_locked_failed(&pair, &id, &keys, &locked)?;
    assert_never_throttled(&pair);
    Ok(())
}

#[test]
fn a_chunk_of_nothing_but_locked_keys_fails_key_by_key() -> Result<()> {
    let (pair, keys) = filled(5)?;
    pair.bucket.lock(keys.clone(), Neighbours::Kept);
    let id = pair.accept(&keys)?;
    pair.settle()?;
    assert_locked_failed(&pair, &id, &keys, &keys)
}

#[test]
fn a_locked_key_does_not_delay_other_deletions_of_its_batch() -> Result<()> {
    let (pair, keys) = filled(60)?;
    pair.bucket.lock([keys[0].clone()], Neighbours::Kept);
    let (locked, free) = keys.split_at(30);
    let held = pair.accept(locked)?;
    let other = pair.accept(free)?;
    let (batch, delivered) = pair.deliver_once(QUEUE)?;
    assert_eq!((batch.len(), delivered.decision(&batch[1].id)), (2, Decision::Acked));
    assert_eq!(pair.progress(&other)?, ("succeeded".to_owned(), Counts::all_deleted(30)));
    pair.settle()?;
    assert_eq!(pair.progress(&held)?.1, Counts { total: 30, deleted: 29, failed: 1, ..Counts::default() });
    Ok(())
}

#[test]
fn a_configuration_error_waits_long_and_costs_no_key() -> Result<()> {
    for code in [10042, 10003, 10002, 10006] {
        let (pair, keys) = filled(10)?;
        pair.bucket.fail_deletes(usize::MAX, Fault::refused(code));
        let id = pair.accept(&keys)?;
        let (batch, delivered) = pair.deliver_once(QUEUE)?;
        let decision = delivered.decision(&batch[0].id);
        assert!(matches!(decision, Decision::Retried { delay: Some(300..) }), "{code}: {decision:?}");
        assert_eq!(pair.progress(&id)?.1.pending, 10);
        pair.bucket.heal();
        pair.settle()?;
        assert_all_deleted(&pair, &id, &keys)?;
    }
    Ok(())
}
