//! Deliveries that come more than once, as Queues may make them: counted once, and never deleting what came after.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use crash::{Counts, Decision, Delivered, Fault, Gate, Neighbours, Pair, QUEUE, When};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_second_delivery_is_acknowledged_without_deleting_again() -> Result<()> {
    let pair = Pair::start()?;
    pair.bucket.upload(["a", "b"]);
    let id = pair.accept(&["a", "b"])?;
    let (batch, delivered) = pair.deliver_once(QUEUE)?;
    assert_eq!(delivered.decision(&batch[0].id), Decision::Acked);
    let first = pair.status(&id)?;

    pair.bucket.upload(["a"]);
    let again = pair.dispatcher()?.deliver(QUEUE, &batch)?;
    assert_eq!(again.decision(&batch[0].id), Decision::Acked);
    assert!(again.decided(&batch[0].id));
    assert_eq!(pair.bucket.keys(), ["a"], "the second delivery deleted what was uploaded after the first");
    assert_eq!(pair.status(&id)?, first, "the second delivery changed what was final");
    Ok(())
}

#[test]
fn a_second_delivery_during_the_first_waits_and_deletes_nothing() -> Result<()> {
    let pair = Pair::start()?;
    pair.bucket.upload(["a", "b"]);
    let id = pair.accept(&["a", "b"])?;
    let batch = pair.queue.take(QUEUE, 1);
    let gate = Gate::new();
    pair.bucket.fail_deletes(1, Fault::stalled(When::Before, &gate));

    let dispatcher = pair.dispatcher()?;
    let second = thread::scope(|scope| -> Result<Delivered> {
        let first = scope.spawn(|| dispatcher.deliver(QUEUE, &batch));
        let second = gate.arrived(1, PATIENCE).and_then(|()| dispatcher.deliver(QUEUE, &batch));
        gate.open();
        let Ok(first) = first.join() else { bail!("the first delivery panicked") };
        let first = first?;
        assert_eq!(first.decision(&batch[0].id), Decision::Acked);
        pair.queue.settle(QUEUE, &batch, &first);
        second
    })?;
    let decision = second.decision(&batch[0].id);
    assert!(matches!(decision, Decision::Retried { delay: Some(1..) }), "{decision:?}");
    assert_eq!(pair.bucket.deletes().len(), 1);

    pair.bucket.upload(["b"]);
    let third = dispatcher.deliver(QUEUE, &batch)?;
    assert_eq!(third.decision(&batch[0].id), Decision::Acked);
    assert_eq!(pair.bucket.keys(), ["b"]);
    assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(2)));
    Ok(())
}

/// The first delivery is so slow that its claim ends; the second finishes the work; then the first one comes back with
/// worse news.
#[test]
fn a_delivery_that_lost_its_claim_changes_nothing_that_another_recorded() -> Result<()> {
    let pair = Pair::start()?;
    pair.bucket.upload(["a", "b"]);
    let id = pair.accept(&["a", "b"])?;
    let batch = pair.queue.take(QUEUE, 1);
    let gate = Gate::new();
    pair.bucket.fail_deletes(1, Fault::stalled(When::Before, &gate));

    let dispatcher = pair.dispatcher()?;
    let (first, end) = thread::scope(|scope| {
        let first = scope.spawn(|| dispatcher.deliver(QUEUE, &batch));
        let second = gate.arrived(1, PATIENCE).and_then(|()| {
            pair.clock.skip(Duration::from_mins(10));
            let second = dispatcher.deliver(QUEUE, &batch)?;
            pair.clock.skip(Duration::from_secs(2));
            pair.bucket.lock(["a", "b"], Neighbours::Kept);
            Ok((second, pair.status(&id)?))
        });
        gate.open();
        let Ok(first) = first.join() else { bail!("the first delivery panicked") };
        let (second, end) = second?;
        assert_eq!(second.decision(&batch[0].id), Decision::Acked);
        Ok((first?, end))
    })?;
    assert_eq!(end["state"], "succeeded");
    assert!(matches!(first.decision(&batch[0].id), Decision::Retried { .. }), "{first:?}");
    assert_eq!(pair.status(&id)?, end);
    assert_eq!(pair.failures(&id)?.len(), 0);
    Ok(())
}

#[test]
fn many_deliveries_of_everything_at_once_count_every_key_once() -> Result<()> {
    let pair = Pair::start()?;
    let keys: Vec<_> = (0..3_500).map(|at| format!("many/{at}")).collect();
    pair.bucket.upload(keys.clone());
    pair.bucket.upload(["bystander"]);
    let id = pair.accept(&keys)?;
    let batch = pair.queue.take(QUEUE, 10);
    assert!(batch.len() >= 4, "3,500 keys in {} messages", batch.len());
    let dispatcher = pair.dispatcher()?;
    let deliveries = thread::scope(|scope| {
        let started: Vec<_> = (0..4).map(|_| scope.spawn(|| dispatcher.deliver(QUEUE, &batch))).collect();
        started.into_iter().filter_map(|delivery| delivery.join().ok()).collect::<Result<Vec<_>>>()
    })?;
    assert_eq!(deliveries.len(), 4);
    pair.queue.settle(QUEUE, &batch, &deliveries[0]);
    pair.settle()?;
    assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(3_500)));
    assert_eq!(pair.bucket.keys(), ["bystander"]);
    Ok(())
}

#[test]
fn the_same_message_twice_in_one_batch_is_counted_once() -> Result<()> {
    let pair = Pair::start()?;
    pair.bucket.upload(["a"]);
    let id = pair.accept(&["a"])?;
    let message = pair.queue.take(QUEUE, 1).remove(0);
    let copy = crash::Message { id: "another id".to_owned(), ..message.clone() };
    let delivered = pair.dispatcher()?.deliver(QUEUE, &[message.clone(), copy.clone()])?;
    assert!(delivered.outcome == "ok" && delivered.decided(&message.id) && delivered.decided(&copy.id));
    pair.queue.settle(QUEUE, &[message], &delivered);
    pair.settle()?;
    assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(1)));
    Ok(())
}
