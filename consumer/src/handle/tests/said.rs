//! What a batch writes to the log, which alerts and dashboards are built on, and how it settles when the ledger fails.

use serde_json::Value;

use super::*;

/// The events of this name.
fn events(host: &FakeHost, name: &str) -> Vec<Value> {
    let log = host.log.borrow();
    let events = log.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == name).collect()
}

#[test]
fn a_chunk_that_goes_through_says_nothing_of_its_own() {
    let host = FakeHost::default();
    let world = World::new(&host, 10);
    world.deliver(1);
    let names: Vec<Value> =
        host.log.borrow().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = names.iter().map(|event: &Value| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["deletion.finished", "batch.processed"]);
    let batch = events(&host, "batch.processed").remove(0);
    assert!(batch.get("fence_gap_ms").is_none(), "nobody has looked: {batch}");
    assert_eq!((&batch["acked"], &batch["retried"]), (&Value::from(1), &Value::from(0)));
}

#[test]
fn a_call_that_was_divided_is_told_with_its_parts() {
    let host = FakeHost::default();
    let mut world = World::new(&host, 8);
    world.bucket.culprits.insert(world.keys[0].clone(), R2Error::ObjectLocked);
    world.deliver(1);
    let [split] = events(&host, "chunk.split").try_into().unwrap();
    // The whole, its halves, the halves of the first of them, and those of the first of these.
    assert_eq!((&split["splits"], &split["r2_calls"]), (&Value::from(3), &Value::from(7)));
    assert_eq!(split["keys_failed"], 1);
}

#[test]
fn a_chunk_that_comes_back_says_why_and_only_a_wrong_configuration_calls_for_a_person() {
    for (error, calls) in [(R2Error::Internal, 0), (R2Error::TooManyRequests, 0), (R2Error::NoSuchBucket, 1)]
    {
        let host = FakeHost::default();
        let world = World::new(&host, 1);
        world.bucket.next_errors.borrow_mut().push(error);
        assert_eq!(world.deliver(1).acknowledged(), 0);
        let [retried] = events(&host, "chunk.retried").try_into().unwrap();
        assert_eq!(retried["r2_code"], error.code(), "{error:?}");
        assert_eq!((&retried["attempt"], &retried["keys_undecided"]), (&Value::from(1), &Value::from(1)));
        assert!(retried["delay_seconds"].as_u64().unwrap() >= 1, "{retried}");
        assert_eq!(events(&host, "config.invalid").len(), calls, "{error:?}");
        let [batch] = events(&host, "batch.processed").try_into().unwrap();
        assert_eq!((&batch["acked"], &batch["retried"]), (&Value::from(0), &Value::from(1)));
    }
}

#[test]
fn what_the_ledger_has_settled_stays_settled_when_it_takes_no_record() {
    let host = FakeHost::default();
    let world = World::new(&host, 1_500);
    let done = world.delivery(0, 1);
    block_on(handle(QUEUE, std::slice::from_ref(&done), &world.bucket, &world.ledger, &host));
    let faults = RefCell::new(vec![Some(false), Some(false), Some(false), None]);
    let failing = FailingLedger { ledger: &world.ledger, faults };
    let batch = [done, world.delivery(1, 5)];
    let settlements = block_on(handle(QUEUE, &batch, &world.bucket, &failing, &host));
    assert!(is_acknowledged(settlements.of(0)), "it was over before");
    match settlements.of(1) {
        Settlement::Retry { delay_seconds } => {
            assert!(*delay_seconds > 1, "no longer than a first attempt waits");
        }
        Settlement::Acknowledge(_) => panic!("acknowledged"),
    }
}

#[test]
fn a_message_that_the_batch_does_not_have_is_not_acknowledged() {
    let host = FakeHost::default();
    let world = World::new(&host, 1);
    let settlements = world.deliver(1);
    assert!(matches!(settlements.of(1), Settlement::Retry { delay_seconds: 1 }));
}

#[test]
fn a_call_names_its_keys_as_a_json_array() {
    let keys = ["a", "b\"\\\n", "é"].map(|key| ObjectKey::parse(key).unwrap());
    let json = crate::DeleteCall::new(&keys, &[0, 1, 2]).unwrap().keys_json();
    assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), ["a", "b\"\\\n", "é"]);
}

#[test]
fn of_several_errors_of_r2_the_last_is_the_one_that_is_told() {
    let host = FakeHost::default();
    let world = World::new(&host, 1_000);
    world.bucket.next_errors.borrow_mut().push(R2Error::TooManyRequests);
    world.deliver(1);
    host.advance(5_000);
    // The second attempt begins with two halves, which fail in this order.
    world.bucket.next_errors.borrow_mut().extend([R2Error::Other(4_711), R2Error::TooManyRequests]);
    world.deliver(2);
    let retried = events(&host, "chunk.retried");
    let codes: Vec<u64> = retried.iter().map(|event| event["r2_code"].as_u64().unwrap()).collect();
    assert_eq!(codes, [R2Error::TooManyRequests.code().into(), 4_711]);
}

#[test]
fn calls_that_are_too_large_are_halved_down_to_an_eighth_and_no_further() {
    let host = FakeHost::default();
    let mut world = World::new(&host, 1_000);
    world.bucket.largest_call = 0;
    world.deliver(1);
    let calls = world.bucket.calls.borrow();
    assert_eq!((calls.iter().max(), calls.iter().min()), (Some(&1_000), Some(&125)), "{calls:?}");
}
