use std::cell::RefCell;
use std::collections::BTreeSet;

use futures::executor::block_on;
use futures::future::join;
use ledger::{
    ConsumerLedger, FailureFilter, NewDeletion, NewPart, ProducerLedger, SqlLedger, SqliteDatabase,
};
use proptest::prelude::*;
use protocol::{
    Counts, DeletionId, FailureCode, Fence, NoticeRef, ObjectKey, R2Error, RETRIES_MAX, RequestId, State,
    pack_keys,
};

use super::*;
use crate::delivery::Body;
use crate::settlement::Settlement;
use crate::testing::{Effect, FailingLedger, FakeBucket, FakeHost, WayOut};

/// [`super::handle`] where nobody wants notices.
async fn handle(
    queue: &str,
    deliveries: &[Delivery],
    bucket: &impl Bucket,
    ledger: &impl ConsumerLedger,
    host: &impl Host,
) -> Settlements {
    let way_out = WayOut::default();
    super::handle(queue, deliveries, bucket, ledger, &way_out.unused(), host).await
}

mod fence;
mod said;

const QUEUE: &str = "r2-deletions";
const DEAD_LETTERS: &str = "r2-deletions-dlq";

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("proj_42/{n:05}")).collect()
}

/// One accepted deletion, its messages as the Queue would deliver them, and a bucket that holds its objects and others.
struct World<'a> {
    host: &'a FakeHost,
    id: DeletionId,
    requested_at: Timestamp,
    keys: Vec<String>,
    messages: Vec<String>,
    ledger: SqlLedger<SqliteDatabase>,
    bucket: FakeBucket<'a>,
}

impl<'a> World<'a> {
    fn new(host: &'a FakeHost, count: usize) -> Self {
        Self::fenced(host, count, Fence::Auto)
    }

    fn fenced(host: &'a FakeHost, count: usize, fence: Fence) -> Self {
        let (id, keys, requested_at) = (DeletionId::new(host.now(), 42), keys(count), host.now());
        let parsed: Vec<ObjectKey<'_>> =
            keys.iter().map(|key| ObjectKey::parse(key.as_str()).unwrap()).collect();
        let packed = pack_keys(&id, 0, host.now(), fence, &parsed);
        let ledger = SqlLedger::new(SqliteDatabase::in_memory().unwrap());
        let deletion = NewDeletion {
            id: id.clone(),
            requested_by: "backend".to_owned(),
            requested_at: host.now(),
            not_before: host.now(),
            fence,
            part: Some(NewPart {
                upload: RequestId::new(host.now(), 42),
                chunk_keys: packed.iter().map(|message| message.keys).collect(),
                duplicates_removed: 0,
                sending_until: host.now(),
            }),
            idempotency: None,
            sweep: None,
            verify: false,
            planned_keys: None,
            labels: protocol::Labels::default(),
        };
        block_on(ledger.admit_deletion(&deletion)).unwrap();
        let bystanders = ["proj_421/a", "proj_4", "proj_42"].map(str::to_owned);
        let bucket = FakeBucket::new(host, keys.iter().cloned().chain(bystanders));
        let messages = packed.into_iter().map(|message| message.body).collect();
        Self { host, id, requested_at, keys, messages, ledger, bucket }
    }

    fn delivery(&self, message: usize, attempts: u32) -> Delivery {
        let body = Body::Text(self.messages[message].clone());
        Delivery { message_id: format!("m{message}"), attempts, sent_at: self.host.now(), body }
    }

    fn deliver(&self, attempts: u32) -> Settlements {
        let batch: Vec<Delivery> =
            (0..self.messages.len()).map(|message| self.delivery(message, attempts)).collect();
        block_on(handle(QUEUE, &batch, &self.bucket, &self.ledger, self.host))
    }

    /// Delivers every message until each is acknowledged, as the Queue would; answers with the attempts that it took.
    fn deliver_until_settled(&self) -> u32 {
        let mut open: BTreeSet<usize> = (0..self.messages.len()).collect();
        for attempt in 1..=RETRIES_MAX + 1 {
            for message in open.clone() {
                let batch = [self.delivery(message, attempt)];
                let settlements = block_on(handle(QUEUE, &batch, &self.bucket, &self.ledger, self.host));
                self.check_counts();
                match settlements.of(0) {
                    Settlement::Acknowledge(_) => drop(open.remove(&message)),
                    Settlement::Retry { delay_seconds } => {
                        self.host.advance(u64::from(*delay_seconds) * 1_000);
                    }
                }
            }
            if open.is_empty() {
                return attempt;
            }
        }
        let dead: Vec<Delivery> = open.into_iter().map(|message| self.delivery(message, 1)).collect();
        let settlements = block_on(handle(DEAD_LETTERS, &dead, &self.bucket, &self.ledger, self.host));
        assert_eq!(settlements.acknowledged(), dead.len());
        self.check_counts();
        RETRIES_MAX + 2
    }

    fn counts(&self) -> (Counts, State) {
        let found = block_on(self.ledger.find_deletion(&self.id, self.host.now())).unwrap().unwrap();
        (found.counts, found.state)
    }

    fn check_counts(&self) {
        let Counts { total, pending, deleted, skipped, failed, cancelled } = self.counts().0;
        assert_eq!(total, pending + deleted + skipped + failed + cancelled);
        assert_eq!(total, self.keys.len() as u64);
    }

    fn failed_keys(&self) -> Vec<String> {
        let failures =
            block_on(self.ledger.list_failures(&self.id, FailureFilter::default(), None, usize::MAX >> 12))
                .unwrap();
        failures.iter().map(|failure| serde_json::from_str(&failure.key_json).unwrap()).collect()
    }

    fn left(&self) -> BTreeSet<String> {
        self.bucket.objects.borrow().keys().filter(|key| key.starts_with("proj_42/")).cloned().collect()
    }

    fn bystanders(&self) -> usize {
        self.bucket.objects.borrow().keys().filter(|key| !key.starts_with("proj_42/")).count()
    }
}

fn is_acknowledged(settlement: &Settlement) -> bool {
    matches!(settlement, Settlement::Acknowledge(_))
}

#[test]
fn a_thousand_keys_are_one_call_and_all_is_recorded_before_the_acknowledgement() {
    let host = FakeHost::default();
    let world = World::new(&host, 2_500);
    assert_eq!(world.deliver(1).acknowledged(), 3);
    assert_eq!(*world.bucket.calls.borrow(), [1_000, 1_000, 500]);
    assert_eq!(
        world.counts(),
        (Counts { total: 2_500, deleted: 2_500, ..Counts::default() }, State::Succeeded)
    );
    assert!(world.left().is_empty());
    assert_eq!(world.bystanders(), 3);
    assert_eq!(host.events("deletion.finished"), 1);
    assert_eq!(host.events("batch.processed"), 1);
}

#[test]
fn missing_objects_count_as_deleted() {
    let host = FakeHost::default();
    let world = World::new(&host, 10);
    world.bucket.objects.borrow_mut().clear();
    assert_eq!(world.deliver(1).acknowledged(), 1);
    assert_eq!(world.counts().0.deleted, 10);
}

#[test]
fn a_locked_key_fails_alone_at_once_and_its_neighbours_are_deleted() {
    for effect in [Effect::None, Effect::Half, Effect::All] {
        let host = FakeHost::default();
        let mut world = World::new(&host, 1_000);
        world.bucket.effect = effect;
        world.bucket.culprits.insert(world.keys[613].clone(), R2Error::ObjectLocked);
        assert_eq!(world.deliver_until_settled(), 1, "{effect:?}");
        let expected = Counts { total: 1_000, deleted: 999, failed: 1, ..Counts::default() };
        assert_eq!(world.counts(), (expected, State::Failed), "{effect:?}");
        assert_eq!(world.failed_keys(), [world.keys[613].clone()]);
        assert!(world.bucket.calls.borrow().len() <= 21, "{:?}", world.bucket.calls);
        // Only the first call is for all of the message; the halves must not be taken for it.
        let deliveries = world.bucket.deliveries.borrow();
        assert!(deliveries[0] == Some(0) && deliveries[1..].iter().all(Option::is_none), "{deliveries:?}");
        assert_eq!(host.events("chunk.split"), 1);
        let failure =
            &block_on(world.ledger.list_failures(&world.id, FailureFilter::default(), None, 1)).unwrap()[0];
        assert_eq!((failure.code, failure.attempts), (Some(FailureCode::ObjectLocked), 1));
    }
}

#[test]
fn a_chunk_of_nothing_but_locked_keys_fails_whole() {
    let host = FakeHost::default();
    let mut world = World::new(&host, 60);
    world.bucket.culprits = world.keys.iter().map(|key| (key.clone(), R2Error::ObjectLocked)).collect();
    assert_eq!(world.deliver_until_settled(), 1);
    assert_eq!(world.counts(), (Counts { total: 60, failed: 60, ..Counts::default() }, State::Failed));
    assert_eq!(world.failed_keys(), world.keys);
}

#[test]
fn a_bisection_that_runs_out_of_time_keeps_what_it_has_found_and_goes_on_in_the_next_attempt() {
    let host = FakeHost::default();
    let mut world = World::new(&host, 1_000);
    world.bucket.culprits = world.keys.iter().map(|key| (key.clone(), R2Error::ObjectLocked)).collect();
    world.deliver(1);
    let pending = world.counts().0.pending;
    assert!(pending > 0 && pending < 1_000, "{pending}");
    world.deliver_until_settled();
    assert_eq!(world.counts().0, Counts { total: 1_000, failed: 1_000, ..Counts::default() });
    assert_eq!(world.left().len(), 1_000);
}

#[test]
fn calls_that_are_too_large_are_halved_until_they_succeed() {
    for largest_call in [999, 700, 300, 130] {
        let host = FakeHost::default();
        let mut world = World::new(&host, 3_000);
        world.bucket.largest_call = largest_call;
        assert_eq!(world.deliver_until_settled(), 1, "{largest_call}");
        assert_eq!(world.counts().0.deleted, 3_000, "{largest_call}");
    }
}

#[test]
fn an_outage_is_not_hammered_and_fails_no_key_while_attempts_are_left() {
    let host = FakeHost::default();
    let world = World::new(&host, 1_000);
    world.bucket.next_errors.borrow_mut().extend([R2Error::ServiceUnavailable; 60]);
    let settlements = world.deliver(1);
    assert!(matches!(settlements.of(0), Settlement::Retry { delay_seconds: 1..=10 }));
    assert!(world.bucket.calls.borrow().len() <= 8, "{:?}", world.bucket.calls);
    assert_eq!(world.counts().0.pending, 1_000);
    world.deliver_until_settled();
    assert_eq!(world.counts().0.deleted, 1_000);
}

#[test]
fn throttling_never_makes_a_key_a_failure_and_waits_two_seconds_at_least() {
    let host = FakeHost::default();
    let world = World::new(&host, 1_000);
    world.bucket.next_errors.borrow_mut().extend([R2Error::TooManyRequests; 2]);
    let settlements = world.deliver(1);
    assert!(matches!(settlements.of(0), Settlement::Retry { delay_seconds: 2.. }));
    assert_eq!(world.counts().0, Counts { total: 1_000, pending: 1_000, ..Counts::default() });
    world.deliver_until_settled();
    assert_eq!(
        world.counts(),
        (Counts { total: 1_000, deleted: 1_000, ..Counts::default() }, State::Succeeded)
    );
}

#[test]
fn a_key_that_fails_its_call_without_being_named_ends_alone_when_the_attempts_are_used_up() {
    for error in [R2Error::Other(0), R2Error::Internal, R2Error::TooManyRequests] {
        let host = FakeHost::default();
        let mut world = World::new(&host, 1_000);
        world.bucket.culprits.insert(world.keys[400].clone(), error);
        assert_eq!(world.deliver_until_settled(), RETRIES_MAX + 2, "{error:?}");
        assert_eq!(world.failed_keys(), [world.keys[400].clone()], "{error:?}");
        assert_eq!(world.counts().0, Counts { total: 1_000, deleted: 999, failed: 1, ..Counts::default() });
        assert_eq!(host.events("chunk.dead_lettered"), 1);
        let failure =
            &block_on(world.ledger.list_failures(&world.id, FailureFilter::default(), None, 1)).unwrap()[0];
        assert_eq!((failure.code, failure.attempts), (Some(error.failure_code()), RETRIES_MAX + 1));
    }
}

#[test]
fn a_wrong_configuration_waits_five_minutes_and_calls_for_a_person() {
    let host = FakeHost::default();
    let world = World::new(&host, 2_000);
    world.bucket.next_errors.borrow_mut().extend([R2Error::NotEntitled; 2]);
    let settlements = world.deliver(1);
    assert!(matches!(settlements.of(1), Settlement::Retry { delay_seconds: 300 }));
    assert_eq!(world.bucket.calls.borrow().len(), 2);
    assert_eq!(host.events("config.invalid"), 1);
    world.deliver_until_settled();
    assert_eq!(world.counts().0.deleted, 2_000);
}

#[test]
fn a_call_that_never_answers_is_given_up_after_half_a_minute() {
    let host = FakeHost::default();
    let world = World::new(&host, 10);
    world.bucket.stalled.set(true);
    assert!(matches!(world.deliver(1).of(0), Settlement::Retry { .. }));
    assert_eq!(world.counts().0.pending, 10);
    world.bucket.stalled.set(false);
    world.deliver_until_settled();
    assert_eq!(world.counts().0.deleted, 10);
}

#[test]
fn a_message_that_cannot_be_read_is_kept_and_hurts_no_neighbour() {
    let host = FakeHost::default();
    let world = World::new(&host, 10);
    let foreign = world.messages[0].replace(world.id.as_str(), DeletionId::new(host.now(), 43).as_str());
    let extra = world.messages[0].replace("\"chunk\":0", "\"chunk\":1");
    let poison = [
        (Body::Text("half a mess".to_owned()), "not_json"),
        (Body::Text(world.messages[0].replace("\"v\":1", "\"v\":2")), "unsupported_version"),
        (Body::Other("{\"keys\":[1]}".to_owned()), "not_text"),
        (Body::Text(foreign), "unknown_deletion"),
        (Body::Text(extra), "not_in_deletion"),
    ];
    let mut batch = vec![world.delivery(0, 1)];
    for (number, (body, _)) in poison.iter().enumerate() {
        batch.push(Delivery {
            message_id: format!("p{number}"),
            attempts: 1,
            sent_at: host.now(),
            body: body.clone(),
        });
    }
    let settlements = block_on(handle(QUEUE, &batch, &world.bucket, &world.ledger, &host));
    assert_eq!(settlements.acknowledged(), batch.len());
    assert_eq!(world.counts().1, State::Succeeded);
    assert_eq!(*world.bucket.calls.borrow(), [10]);
    let kept = block_on(world.ledger.list_unreadable(None, 10)).unwrap();
    assert_eq!(kept.len(), poison.len());
    for (kept, (body, reason)) in kept.iter().zip(&poison) {
        let (Body::Text(body) | Body::Other(body)) = body;
        assert_eq!((kept.reason.as_str(), &kept.body), (*reason, body));
    }
    assert_eq!(host.events("message.unreadable"), poison.len());
}

#[test]
fn a_late_duplicate_deletes_nothing_so_that_an_object_uploaded_since_survives() {
    let host = FakeHost::default();
    let world = World::new(&host, 10);
    world.deliver(1);
    world.bucket.upload(&world.keys[3]);
    assert_eq!(world.deliver(1).acknowledged(), 1);
    assert_eq!(world.left(), BTreeSet::from([world.keys[3].clone()]));
    assert_eq!(world.counts().0, Counts { total: 10, deleted: 10, ..Counts::default() });
    assert_eq!(host.events("deletion.finished"), 1);
}

#[test]
fn two_deliveries_at_once_delete_once() {
    let host = FakeHost::default();
    let world = World::new(&host, 10);
    let batch = [world.delivery(0, 1)];
    let other = handle(QUEUE, &batch, &world.bucket, &world.ledger, &host);
    let (first, second) = block_on(join(handle(QUEUE, &batch, &world.bucket, &world.ledger, &host), other));
    assert_eq!(
        first.acknowledged() + second.acknowledged(),
        2,
        "one after the other here: the ledger does not yield"
    );
    assert_eq!(*world.bucket.calls.borrow(), [10]);

    // While another invocation holds the chunk, it comes back when that claim ends, and nothing is deleted.
    let world = World::new(&host, 10);
    let requests = vec![ClaimRequest {
        chunk: protocol::ChunkRef { deletion: world.id.clone(), generation: 0, chunk: 0 },
        keys: 10,
    }];
    let claim = ClaimBatch {
        token: "elsewhere".to_owned(),
        now: host.now(),
        until: host.now().plus_millis(CLAIM_MS),
        requests,
    };
    block_on(world.ledger.claim(&claim)).unwrap();
    match world.deliver(1).of(0) {
        Settlement::Retry { delay_seconds } => assert!(u64::from(*delay_seconds) * 1_000 > CLAIM_MS),
        Settlement::Acknowledge(_) => panic!("acknowledged"),
    }
    assert!(world.bucket.calls.borrow().is_empty());
}

#[test]
fn a_chunk_that_is_twice_in_one_batch_is_deleted_once() {
    let host = FakeHost::default();
    let world = World::new(&host, 10);
    let batch = [world.delivery(0, 1), world.delivery(0, 1)];
    let settlements = block_on(handle(QUEUE, &batch, &world.bucket, &world.ledger, &host));
    assert!(is_acknowledged(settlements.of(0)) && !is_acknowledged(settlements.of(1)));
    assert_eq!(*world.bucket.calls.borrow(), [10]);
}

#[test]
fn a_cancelled_deletion_deletes_nothing_and_its_messages_are_done_with() {
    let host = FakeHost::default();
    let world = World::new(&host, 10);
    block_on(world.ledger.cancel_deletion(&world.id, host.now())).unwrap();
    assert_eq!(world.deliver(1).acknowledged(), 1);
    assert!(world.bucket.calls.borrow().is_empty());
    assert_eq!(world.counts(), (Counts { total: 10, cancelled: 10, ..Counts::default() }, State::Cancelled));
}

#[test]
fn dead_letters_fail_what_is_undecided_and_nothing_else() {
    let host = FakeHost::default();
    let world = World::new(&host, 1_500);
    world.deliver_until_settled();
    let fresh = World::new(&host, 1_500);
    let done = fresh.delivery(0, 1);
    block_on(handle(QUEUE, std::slice::from_ref(&done), &fresh.bucket, &fresh.ledger, &host));
    let dead = [done, fresh.delivery(1, 1)];
    assert_eq!(block_on(handle(DEAD_LETTERS, &dead, &fresh.bucket, &fresh.ledger, &host)).acknowledged(), 2);
    assert_eq!(fresh.counts().0, Counts { total: 1_500, deleted: 1_000, failed: 500, ..Counts::default() });
    assert_eq!(fresh.failed_keys(), fresh.keys[1_000..]);
    let failure =
        &block_on(fresh.ledger.list_failures(&fresh.id, FailureFilter::default(), None, 1)).unwrap()[0];
    assert_eq!(failure.code, Some(FailureCode::AttemptsExhausted));
}

#[test]
fn nothing_is_acknowledged_while_the_record_fails_and_nothing_is_counted_twice() {
    for takes_effect in [false, true] {
        let host = FakeHost::default();
        let world = World::new(&host, 10);
        let faults = RefCell::new(vec![Some(takes_effect), Some(takes_effect), Some(takes_effect), None]);
        let failing = FailingLedger { ledger: &world.ledger, faults };
        let batch = [world.delivery(0, 1)];
        let settlements = block_on(handle(QUEUE, &batch, &world.bucket, &failing, &host));
        assert_eq!(settlements.acknowledged(), 0);
        assert_eq!(host.events("ledger.failed"), 1);
        world.deliver_until_settled();
        assert_eq!(
            world.counts(),
            (Counts { total: 10, deleted: 10, ..Counts::default() }, State::Succeeded)
        );
    }
}

/// What may go wrong on the way of a deletion.
#[derive(Clone, Debug)]
struct Faults {
    keys: usize,
    locked: BTreeSet<usize>,
    unnamed: BTreeSet<usize>,
    effect: Effect,
    largest_call: usize,
    errors: Vec<R2Error>,
    ledger: Vec<Option<bool>>,
}

fn faults() -> impl Strategy<Value = Faults> {
    let error = prop_oneof![
        Just(R2Error::Internal),
        Just(R2Error::ServiceUnavailable),
        Just(R2Error::TooManyRequests),
        Just(R2Error::NotEntitled),
        Just(R2Error::ObjectLocked),
        Just(R2Error::Other(0)),
    ];
    let effect = prop_oneof![Just(Effect::None), Just(Effect::Half), Just(Effect::All)];
    let ledger_fault = prop_oneof![6 => Just(None), 1 => Just(Some(false)), 1 => Just(Some(true))];
    (
        1_usize..1_200,
        prop::collection::btree_set(0_usize..1_200, 0..4),
        prop::collection::btree_set(0_usize..1_200, 0..2),
        effect,
        prop_oneof![Just(usize::MAX), 1_usize..1_000],
        prop::collection::vec(error, 0..20),
        prop::collection::vec(ledger_fault, 0..30),
    )
        .prop_map(|(keys, locked, unnamed, effect, largest_call, errors, ledger)| Faults {
            keys,
            locked,
            unnamed,
            effect,
            largest_call,
            errors,
            ledger,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever R2 and the ledger do: the promise holds. Every key ends deleted or failed, the counts add up after every
    /// delivery, what is reported deleted is gone, no key fails that could be deleted but by its attempts' end, and no
    /// other object is touched.
    #[test]
    fn every_key_ends_in_exactly_one_way_under_every_fault(faults in faults()) {
        let host = FakeHost::default();
        let mut world = World::new(&host, faults.keys);
        let named = |positions: &BTreeSet<usize>| -> Vec<String> {
            positions.iter().filter_map(|&position| world.keys.get(position)).cloned().collect()
        };
        let (locked, unnamed) = (named(&faults.locked), named(&faults.unnamed));
        world.bucket.culprits.extend(unnamed.iter().map(|key| (key.clone(), R2Error::Other(0))));
        world.bucket.culprits.extend(locked.iter().map(|key| (key.clone(), R2Error::ObjectLocked)));
        world.bucket.effect = faults.effect;
        world.bucket.largest_call = faults.largest_call;
        world.bucket.next_errors.borrow_mut().extend(faults.errors);
        let failing = FailingLedger { ledger: &world.ledger, faults: RefCell::new(faults.ledger) };

        let mut open: BTreeSet<usize> = (0..world.messages.len()).collect();
        let mut attempt = 0;
        while !open.is_empty() {
            attempt += 1;
            prop_assert!(attempt < 200, "does not end");
            let queue = if attempt <= RETRIES_MAX + 1 { QUEUE } else { DEAD_LETTERS };
            for message in open.clone() {
                let batch = [world.delivery(message, attempt)];
                let settlements = block_on(handle(queue, &batch, &world.bucket, &failing, &host));
                world.check_counts();
                match settlements.of(0) {
                    Settlement::Acknowledge(_) => { open.remove(&message); }
                    Settlement::Retry { delay_seconds } => host.advance(u64::from(*delay_seconds) * 1_000),
                }
            }
        }

        let (counts, state) = world.counts();
        prop_assert!(state.is_final());
        let failed: BTreeSet<String> = world.failed_keys().into_iter().collect();
        prop_assert_eq!(failed.len() as u64, counts.failed);
        prop_assert_eq!(counts.deleted + counts.failed, counts.total);
        prop_assert!(world.left().is_subset(&failed), "reported deleted, and there");
        prop_assert!(locked.iter().all(|key| failed.contains(key)), "locked, and reported deleted");
        prop_assert_eq!(world.bystanders(), 3);
        prop_assert!(host.events("deletion.finished") <= 1);
        let log = host.log.borrow().concat();
        prop_assert!(!log.contains("proj_42"), "a key in the log");
    }
}
