//! Several sweeps in one batch, and what the log says of them.

use serde_json::Value;

use super::*;

impl World<'_> {
    /// Delivers everything that is queued as one batch, and answers with which messages were acknowledged.
    fn deliver_batch(&self) -> Vec<bool> {
        let sent = self.queue.take();
        let batch: Vec<Delivery> = sent
            .iter()
            .map(|sent| Delivery {
                sent_at: self.host.now().minus_millis(7_000),
                ..self.delivery(sent.body.clone())
            })
            .collect();
        let notices = self.out.unused();
        let settlements = block_on(handle(QUEUE, &batch, &self.bucket, &self.ledger, &notices, self.host));
        (0..batch.len()).map(|index| matches!(settlements.of(index), Settlement::Acknowledge(_))).collect()
    }

    /// The only event of this name.
    fn event(&self, name: &str) -> Value {
        let events = events(self.host, name);
        let [event] = events.as_slice() else { panic!("not one {name}: {events:?}") };
        event.clone()
    }
}

/// The events of this name.
fn events(host: &FakeHost, name: &str) -> Vec<Value> {
    let log = host.log.borrow();
    let events = log.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == name).collect()
}

/// These numbers of an event.
fn numbers<const N: usize>(event: &Value, names: [&str; N]) -> [Option<u64>; N] {
    names.map(|name| event[name].as_u64())
}

#[test]
fn each_sweep_of_a_batch_is_carried_out_and_its_double_comes_back() {
    let host = FakeHost::default();
    let world = World::new(&host, numbered("a/", 3).chain(numbered("b/", 4)));
    world.accept(&Asked::prefixes(["a/", "b/"]));
    let double = world.queue.borrow()[0].clone();
    world.queue.borrow_mut().push(double);
    assert_eq!(world.deliver_batch(), [true, true, false]);
    assert_eq!((world.objects().len(), events(&host, "sweep.progressed").len()), (0, 2));
}

#[test]
fn the_log_says_of_a_batch_what_became_of_its_chunks_and_of_its_sweeps_together() {
    let host = FakeHost::default();
    host.advance(60_000);
    let mut world = World::new(&host, numbered("k/", 9).chain(numbered("p/", 40)));
    world.bucket.list_max = 20;
    world.bucket.culprits.insert("k/00001".to_owned(), R2Error::ObjectLocked);
    for locked in ["p/00002", "p/00022"] {
        world.bucket.culprits.insert(locked.to_owned(), R2Error::ObjectLocked);
    }
    let by_key = Asked { keys: numbered("k/", 9).collect(), fence: Fence::Always, ..Asked::prefixes([]) };
    world.accept(&by_key);
    world.accept(&Asked::prefixes(["p/"]));
    host.advance(1);
    for newer in ["k/00000", "k/00005", "p/00001", "p/00021", "p/00031"] {
        world.bucket.upload(newer);
    }
    assert_eq!(world.deliver_batch(), [true, true]);

    let swept = world.event("sweep.progressed");
    let counted = ["pages", "keys_deleted", "keys_skipped", "keys_failed", "keys_undecided"];
    // Two pages, and one of the next pass, which finds nothing that is not known.
    assert_eq!(numbers(&swept, counted), [3, 35, 3, 2, 0].map(Some));
    assert_eq!((&swept["phase"], &swept["is_over"]), (&Value::from("delete"), &Value::from(true)));

    let batch = world.event("batch.processed");
    let counted = [
        "messaging.batch.message_count",
        "acked",
        "retried",
        "keys_deleted",
        "keys_skipped",
        "keys_failed",
        "keys_undecided",
    ];
    assert_eq!(numbers(&batch, counted), [2, 2, 0, 6 + 35, 2 + 3, 1 + 2, 0].map(Some));
    let [calls, heads, lists] = numbers(&batch, ["r2_calls", "r2_heads", "r2_lists"]).map(Option::unwrap);
    let made = [world.bucket.calls.borrow().len(), world.bucket.looks.get(), world.bucket.lists.get()];
    assert_eq!([calls, heads, lists], made.map(|calls| calls as u64));
    assert_eq!(batch["oldest_message_ms"], 7_000);
    assert!(batch["fence_gap_ms"].as_u64().unwrap() > 0, "{batch}");
    assert_eq!(batch["error.type"], Value::Null);
}

#[test]
fn where_the_fence_does_not_look_there_is_no_gap_to_tell_of() {
    let host = FakeHost::default();
    let world = World::new(&host, numbered("p/", 3));
    world.accept(&Asked { fence: Fence::Off, ..Asked::prefixes(["p/"]) });
    world.deliver_batch();
    let batch = world.event("batch.processed");
    assert!(batch.get("fence_gap_ms").is_none(), "{batch}");
    // Nothing tells what was there before: one pass is all.
    assert_eq!((world.bucket.lists.get(), world.objects().len()), (1, 0));
}

#[test]
fn a_step_that_is_to_be_tried_again_says_why_and_when() {
    let host = FakeHost::default();
    let world = World::new(&host, numbered("p/", 3));
    world.accept(&Asked::prefixes(["p/"]));
    world.bucket.next_errors.borrow_mut().push(R2Error::TooManyRequests);
    assert_eq!(world.deliver_batch(), [false]);
    let swept = world.event("sweep.progressed");
    assert_eq!(numbers(&swept, ["keys_deleted", "keys_undecided"]), [0, 3].map(Some));
    assert_eq!(swept["r2_code"], R2Error::TooManyRequests.code());
    assert!(swept["delay_seconds"].as_u64().unwrap() >= 2, "{swept}");
    assert_eq!(swept["is_over"], false);
}

#[test]
fn a_sweep_whose_attempts_are_used_up_says_how_many_keys_it_has_failed() {
    let host = FakeHost::default();
    let world = World::new(&host, numbered("p/", 3));
    world.accept(&Asked::prefixes(["p/"]));
    world.bucket.next_errors.borrow_mut().push(R2Error::TooManyRequests);
    world.deliver(0, false);
    world.queue.borrow_mut()[0].is_dead = true;
    world.deliver(0, false);
    let [_, given_up] = events(&host, "sweep.progressed").try_into().unwrap();
    // The prefix is one of them.
    assert_eq!(numbers(&given_up, ["keys_failed", "keys_undecided"]), [4, 0].map(Some), "{given_up}");
    assert_eq!((&given_up["error.type"], &given_up["is_over"]), (&"sweep_incomplete".into(), &true.into()));
}

#[test]
fn a_sweep_that_is_to_wait_is_not_overdue_before_that() {
    let host = FakeHost::default();
    let world = World::new(&host, numbered("p/", 3));
    world.accept(&Asked::prefixes(["p/"]));
    world.bucket.next_errors.borrow_mut().push(R2Error::NotEntitled);
    assert_eq!(world.deliver_batch(), [false]);
    assert_eq!(world.event("sweep.progressed")["delay_seconds"], 300);
    // Ten minutes after it was due.
    for (minutes, woken) in [(14, 0), (2, 1)] {
        host.advance(minutes * MINUTE_MS);
        block_on(upkeep(&world.ledger, &world.out, &host));
        assert_eq!(world.out.sent.take().len(), woken, "after {minutes} minutes more");
    }
}
