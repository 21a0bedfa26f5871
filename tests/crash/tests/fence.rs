//! What was uploaded since the request is kept, whatever has failed in between.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use crash::{Counts, Decision, Fault, Gate, Neighbours, Pair, QUEUE, R2Error, When};

const PATIENCE: Duration = Duration::from_secs(30);

/// A pair whose bucket holds ten objects to delete, and a bystander.
fn filled() -> Result<(Pair, Vec<String>)> {
    let pair = Pair::start()?;
    let keys: Vec<_> = (0..10).map(|at| format!("proj_42/{at}.jpg")).collect();
    pair.bucket.upload(keys.clone());
    pair.bucket.upload(["proj_421/bystander.jpg"]);
    Ok((pair, keys))
}

/// All keys are gone but those `kept`, which are listed as skipped.
fn assert_kept(pair: &Pair, id: &str, kept: &[&str]) -> Result<()> {
    let skipped = kept.len() as u64;
    let counts = Counts { total: 10, deleted: 10 - skipped, skipped, ..Counts::default() };
    assert_eq!(pair.progress(id)?, ("succeeded".to_owned(), counts));
    assert_eq!(pair.bucket.keys(), [kept, &["proj_421/bystander.jpg"]].concat());
    let listed = pair.skipped(id)?;
    assert_eq!(listed.iter().filter_map(|skipped| skipped["key"].as_str()).collect::<Vec<_>>(), kept);
    assert!(listed.iter().all(|skipped| skipped["code"] == "uploaded_since"), "{listed:?}");
    Ok(())
}

#[test]
fn what_is_uploaded_between_two_attempts_is_kept() -> Result<()> {
    for fault in [
        Fault::refused(10054),
        Fault::half_done(10043),
        Fault::done_but_refused(10001),
        Fault::dropped(When::After),
        Fault::refused(R2Error::BARE),
    ] {
        let (pair, keys) = filled()?;
        let id = pair.accept(&keys)?;
        pair.bucket.fail_deletes(1, fault);
        let (batch, delivered) = pair.deliver_once(QUEUE)?;
        assert!(matches!(delivered.decision(&batch[0].id), Decision::Retried { .. }));
        assert_eq!(pair.bucket.looks().len(), 0, "the first attempt was in time");
        // The failed call has removed the first of them or not; either way this is somebody's new object.
        pair.bucket.upload([&keys[0], &keys[9]].map(Clone::clone));
        pair.settle()?;
        assert_kept(&pair, &id, &[&keys[0], &keys[9]])?;
        assert_eq!(pair.bucket.looks().len(), 10);
    }
    Ok(())
}

#[test]
fn what_is_uploaded_after_the_consumer_was_killed_is_kept() -> Result<()> {
    for when in [When::Before, When::Halfway, When::After] {
        let (mut pair, keys) = filled()?;
        let id = pair.accept(&keys)?;
        let gate = Gate::new();
        pair.bucket.fail_deletes(1, Fault::stalled(when, &gate));
        assert!(pair.kill_at(&gate, QUEUE)?);
        pair.bucket.upload([keys[3].clone()]);
        pair.settle()?;
        assert_kept(&pair, &id, &[&keys[3]])?;
    }
    Ok(())
}

#[test]
fn a_look_that_fails_deletes_nothing_and_is_tried_again() -> Result<()> {
    for (fault, times) in [
        (Fault::refused(10001), 5),
        (Fault::refused(10043), usize::MAX),
        (Fault::refused(10058), 1),
        (Fault::refused(R2Error::BARE), 3),
        (Fault::dropped(When::Before), 2),
    ] {
        let (pair, keys) = filled()?;
        let id = pair.accept_fenced(&keys, "always")?;
        pair.bucket.upload([keys[7].clone()]);
        pair.bucket.fail("head", 0, times, fault);
        let (batch, delivered) = pair.deliver_once(QUEUE)?;
        assert!(matches!(delivered.decision(&batch[0].id), Decision::Retried { .. }));
        let pending = times.min(10) as u64;
        assert_eq!(pair.progress(&id)?.1.pending, pending, "{times} looks failed");
        pair.bucket.heal();
        pair.settle()?;
        assert_kept(&pair, &id, &[&keys[7]])?;
    }
    Ok(())
}

/// A bucket that is not there has no object either: that must not be taken for an answer about the key.
#[test]
fn a_configuration_error_of_a_look_waits_long_and_decides_nothing() -> Result<()> {
    for code in [10006, 10042, 10003, 10002] {
        let (pair, keys) = filled()?;
        pair.bucket.fail("head", 0, usize::MAX, Fault::refused(code));
        let id = pair.accept_fenced(&keys, "always")?;
        let (batch, delivered) = pair.deliver_once(QUEUE)?;
        let decision = delivered.decision(&batch[0].id);
        assert!(matches!(decision, Decision::Retried { delay: Some(300..) }), "{code}: {decision:?}");
        assert_eq!((pair.progress(&id)?.1.pending, pair.bucket.deletes().len()), (10, 0), "{code}");
        pair.bucket.heal();
        pair.settle()?;
        assert_kept(&pair, &id, &[])?;
    }
    Ok(())
}

/// A locked key beside an upload: the halves of the call that failed are looked at again.
#[test]
fn what_is_uploaded_while_a_locked_key_is_searched_for_is_kept() -> Result<()> {
    let (pair, keys) = filled()?;
    pair.bucket.lock([keys[0].clone()], Neighbours::Kept);
    let id = pair.accept_fenced(&keys, "always")?;
    let gate = Gate::new();
    // Ten looks and the first call; the half that comes next waits at its first look.
    pair.bucket.fail("head", 10, 1, Fault::stalled(When::Before, &gate));
    let dispatcher = pair.dispatcher()?;
    let batch = pair.queue.take(QUEUE, 1);
    let delivered = thread::scope(|scope| {
        let delivery = scope.spawn(|| dispatcher.deliver(QUEUE, &batch));
        gate.arrived(1, PATIENCE)?;
        pair.bucket.upload([keys[9].clone()]);
        gate.open();
        let Ok(delivered) = delivery.join() else { bail!("the delivery panicked") };
        delivered
    })?;
    pair.queue.settle(QUEUE, &batch, &delivered);
    pair.settle()?;
    let counts = Counts { total: 10, deleted: 8, skipped: 1, failed: 1, ..Counts::default() };
    assert_eq!(pair.progress(&id)?.1, counts);
    assert_eq!(pair.bucket.keys(), ["proj_42/0.jpg", "proj_42/9.jpg", "proj_421/bystander.jpg"]);
    Ok(())
}

/// The gap that remains, as README says it: R2 deletes what is under the key when the call arrives.
#[test]
fn what_is_uploaded_between_the_look_and_the_call_is_deleted_and_the_log_says_how_long_that_was() -> Result<()>
{
    let (pair, keys) = filled()?;
    let id = pair.accept_fenced(&keys, "always")?;
    let gate = Gate::new();
    pair.bucket.fail_deletes(1, Fault::stalled(When::Before, &gate));
    let dispatcher = pair.dispatcher()?;
    let batch = pair.queue.take(QUEUE, 1);
    let delivered = thread::scope(|scope| {
        let delivery = scope.spawn(|| dispatcher.deliver(QUEUE, &batch));
        gate.arrived(1, PATIENCE)?;
        pair.bucket.upload([keys[2].clone()]);
        gate.open();
        let Ok(delivered) = delivery.join() else { bail!("the delivery panicked") };
        delivered
    })?;
    pair.queue.settle(QUEUE, &batch, &delivered);
    assert_kept(&pair, &id, &[])?;
    assert!(pair.log().contains("fence_gap_ms"), "{}", pair.log());
    Ok(())
}
