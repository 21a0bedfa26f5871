//! What was uploaded after the request is kept, wherever the fence looks.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;

use protocol::limits::CONNECTIONS_MAX;
use protocol::{Event, Log};

use super::*;
use crate::allowance::R2_CALLS_MAX;
use crate::bucket::{DeleteCall, ListCall, Listing};

const MINUTE_MS: u64 = 60_000;

/// How old a look may be when its call is begun, as README says.
const LOOK_MS_MAX: u64 = 6_000;

impl World<'_> {
    /// Uploads these keys again, a while after the request.
    fn upload_again(&self, positions: impl IntoIterator<Item = usize>) {
        self.host.advance(5);
        for position in positions {
            self.bucket.upload(&self.keys[position]);
        }
    }

    /// The keys that were left alone, as the ledger lists them.
    fn skipped_keys(&self) -> Vec<String> {
        let skips = block_on(self.ledger.list_skips(&self.id, None, usize::MAX >> 12)).unwrap();
        assert!(skips.iter().all(|skip| skip.uploaded_at > self.requested_at));
        skips.iter().map(|skip| serde_json::from_str(&skip.key_json).unwrap()).collect()
    }
}

#[test]
fn a_late_delivery_keeps_what_was_uploaded_since_and_deletes_the_rest() {
    let host = FakeHost::default();
    let world = World::fenced(&host, 1_000, Fence::Auto);
    world.bucket.objects.borrow_mut().remove(&world.keys[1]);
    world.upload_again([3, 998]);
    host.advance(MINUTE_MS);
    assert_eq!(world.deliver_until_settled(), 1);
    let expected = Counts { total: 1_000, deleted: 998, skipped: 2, ..Counts::default() };
    assert_eq!(world.counts(), (expected, State::Succeeded));
    let kept = [world.keys[3].clone(), world.keys[998].clone()];
    assert_eq!(world.skipped_keys(), kept);
    assert_eq!(world.left(), BTreeSet::from(kept));
    assert_eq!(world.bystanders(), 3);
    assert_eq!((world.bucket.looks.get(), world.bucket.lists.get()), (0, 1), "a page shows all of them");
    // What was not there needs no call.
    assert_eq!(*world.bucket.calls.borrow(), [997]);
    let log = host.log.borrow().concat();
    assert!(log.contains("\"keys_skipped\":2") && log.contains("\"r2_lists\":1"), "{log}");
}

#[test]
fn where_a_listing_shows_nothing_each_key_is_looked_at_once() {
    let host = FakeHost::default();
    let world = World::fenced(&host, 1_000, Fence::Auto);
    world.bucket.cannot_list.set(true);
    world.upload_again([3, 998]);
    host.advance(MINUTE_MS);
    // The allowance does not reach to the last keys.
    assert_eq!(world.deliver_until_settled(), 2);
    let expected = Counts { total: 1_000, deleted: 998, skipped: 2, ..Counts::default() };
    assert_eq!(world.counts(), (expected, State::Succeeded));
    assert_eq!(world.skipped_keys(), [world.keys[3].clone(), world.keys[998].clone()]);
    assert_eq!((world.bucket.looks.get(), world.bucket.lists.get()), (1_000, 2));
}

#[test]
fn always_looks_at_once_and_off_never_does() {
    for (fence, skipped) in [(Fence::Always, 1), (Fence::Auto, 0), (Fence::Off, 0)] {
        let host = FakeHost::default();
        let world = World::fenced(&host, 10, fence);
        world.upload_again([4]);
        assert_eq!(world.deliver(1).acknowledged(), 1);
        let expected = Counts { total: 10, deleted: 10 - skipped, skipped, ..Counts::default() };
        assert_eq!(world.counts(), (expected, State::Succeeded), "{fence}");
        assert_eq!(world.left().len() as u64, skipped, "{fence}");
    }
    let host = FakeHost::default();
    let world = World::fenced(&host, 10, Fence::Off);
    world.upload_again([4]);
    host.advance(10 * MINUTE_MS);
    world.deliver(2);
    assert_eq!((world.left().len(), world.bucket.looks.get()), (0, 0));
}

#[test]
fn a_retry_keeps_what_was_uploaded_between_the_attempts() {
    for effect in [Effect::None, Effect::Half, Effect::All] {
        let host = FakeHost::default();
        let mut world = World::fenced(&host, 10, Fence::Auto);
        world.bucket.effect = effect;
        world.bucket.next_errors.borrow_mut().push(R2Error::TooManyRequests);
        assert_eq!(world.deliver(1).acknowledged(), 0, "{effect:?}");
        // Whether our own failed call has removed the first one or not: this one is somebody's new object.
        world.upload_again([0, 1]);
        host.advance(2_000);
        assert_eq!(world.deliver(2).acknowledged(), 1, "{effect:?}");
        let expected = Counts { total: 10, deleted: 8, skipped: 2, ..Counts::default() };
        assert_eq!(world.counts(), (expected, State::Succeeded), "{effect:?}");
        assert_eq!(world.left(), world.keys[..2].iter().cloned().collect(), "{effect:?}");
    }
}

#[test]
fn a_half_is_looked_at_again_because_an_upload_may_have_come_while_it_waited() {
    // So few that they are looked at one by one, and so many that a page shows them.
    for (keys, by_page) in [(4, false), (40, true)] {
        let host = FakeHost::default();
        let mut world = World::fenced(&host, keys, Fence::Always);
        world.bucket.culprits.insert(world.keys[0].clone(), R2Error::ObjectLocked);
        let last = world.keys[keys - 1].clone();
        // Not sooner: what comes between its look and its call is deleted, as README says.
        world.bucket.uploads_after.borrow_mut().insert(1, last.clone());
        assert_eq!(world.deliver(1).acknowledged(), 1);
        let total = keys as u64;
        let expected = Counts { total, deleted: total - 2, skipped: 1, failed: 1, ..Counts::default() };
        assert_eq!(world.counts().0, expected, "{keys} keys");
        assert_eq!(world.left(), BTreeSet::from([world.keys[0].clone(), last]), "{keys} keys");
        assert_eq!(world.bucket.lists.get() > 0, by_page);
    }
}

#[test]
fn an_upload_of_the_moment_of_the_request_is_what_was_asked_for() {
    let host = FakeHost::default();
    let world = World::fenced(&host, 2, Fence::Always);
    world.bucket.upload(&world.keys[0]);
    host.advance(1);
    world.bucket.upload(&world.keys[1]);
    world.deliver(1);
    assert_eq!(world.skipped_keys(), [world.keys[1].clone()]);
}

#[test]
fn a_look_that_fails_leaves_its_key_undecided_and_no_other() {
    for (error, code) in [
        (R2Error::Internal, FailureCode::StorageUnavailable),
        (R2Error::TooManyRequests, FailureCode::Throttled),
        (R2Error::Other(0), FailureCode::StorageUnavailable),
    ] {
        let host = FakeHost::default();
        let mut world = World::fenced(&host, 100, Fence::Always);
        world.bucket.cannot_list.set(true);
        world.bucket.blind.insert(world.keys[40].clone(), error);
        assert_eq!(world.deliver(1).acknowledged(), 0, "{error:?}");
        assert_eq!(world.counts().0, Counts { total: 100, pending: 1, deleted: 99, ..Counts::default() });
        assert_eq!(world.deliver_until_settled(), RETRIES_MAX + 2, "{error:?}");
        assert_eq!(world.failed_keys(), [world.keys[40].clone()], "{error:?}");
        assert_eq!(world.left().len(), 1, "what nobody knows the age of is not deleted: {error:?}");
        let failure =
            &block_on(world.ledger.list_failures(&world.id, FailureFilter::default(), None, 1)).unwrap()[0];
        assert_eq!(failure.code, Some(code), "{error:?}");
    }
}

#[test]
fn a_key_that_r2_refuses_to_look_at_fails_alone_at_once() {
    let host = FakeHost::default();
    let mut world = World::fenced(&host, 100, Fence::Always);
    world.bucket.cannot_list.set(true);
    world.bucket.look_ms.set(1);
    world.bucket.blind.insert(world.keys[40].clone(), R2Error::InvalidObjectName);
    assert_eq!(world.deliver(1).acknowledged(), 1);
    assert_eq!(world.counts().0, Counts { total: 100, deleted: 99, failed: 1, ..Counts::default() });
    assert_eq!(*world.bucket.calls.borrow(), [99]);
}

#[test]
fn an_outage_of_looks_is_not_hammered_and_a_wrong_configuration_waits_for_a_person() {
    for (error, looks) in [(R2Error::ServiceUnavailable, 12), (R2Error::NoSuchBucket, 1)] {
        let host = FakeHost::default();
        let mut world = World::fenced(&host, 500, Fence::Always);
        world.bucket.blind = world.keys.iter().map(|key| (key.clone(), error)).collect();
        world.bucket.cannot_list.set(true);
        assert_eq!(world.deliver(1).acknowledged(), 0);
        assert_eq!((world.bucket.looks.get(), world.bucket.calls.borrow().len()), (looks, 0), "{error:?}");
        assert_eq!(world.counts().0.pending, 500);
        world.bucket.blind.clear();
        world.deliver_until_settled();
        assert_eq!(world.counts().0.deleted, 500);
    }
}

#[test]
fn looks_that_never_answer_are_given_up() {
    let host = FakeHost::default();
    let world = World::fenced(&host, 100, Fence::Always);
    world.bucket.stalled.set(true);
    let began_at = host.now();
    assert!(matches!(world.deliver(1).of(0), Settlement::Retry { .. }));
    assert!(host.now() < began_at.plus_millis(WORK_MS + LOOK_MS_MAX));
    world.bucket.stalled.set(false);
    world.deliver_until_settled();
    assert_eq!(world.counts().0.deleted, 100);
}

#[test]
fn an_invocation_that_runs_out_of_time_or_calls_keeps_what_it_has_done_and_comes_back_soon() {
    // A slow R2 meets the time limit, a quick one that of the platform on calls.
    for (look_ms, cause) in [(150, "out_of_time"), (1, "out_of_calls")] {
        let host = FakeHost::default();
        let world = World::fenced(&host, 6_000, Fence::Always);
        world.bucket.look_ms.set(look_ms);
        world.bucket.cannot_list.set(true);
        world.upload_again([0, 5_999]);
        let (mut open, mut deliveries) = ((0..6).collect::<BTreeSet<usize>>(), 0);
        while !open.is_empty() {
            deliveries += 1;
            let began_at = host.now();
            let asked =
                || world.bucket.looks.get() + world.bucket.lists.get() + world.bucket.calls.borrow().len();
            let before = asked();
            let pending = world.counts().0.pending;
            let indices: Vec<usize> = open.iter().copied().collect();
            let batch: Vec<Delivery> =
                indices.iter().map(|&index| world.delivery(index, deliveries)).collect();
            let settlements = block_on(handle(QUEUE, &batch, &world.bucket, &world.ledger, &host));
            assert!(world.bucket.last_begun_at.get() < began_at.plus_millis(WORK_MS));
            assert!(asked() - before <= R2_CALLS_MAX);
            assert!(pending - world.counts().0.pending >= pending.min(250), "of {pending}");
            for (at, index) in indices.iter().enumerate() {
                match settlements.of(at) {
                    Settlement::Acknowledge(_) => drop(open.remove(index)),
                    Settlement::Retry { delay_seconds } => assert_eq!(*delay_seconds, 1),
                }
            }
        }
        assert!(deliveries <= RETRIES_MAX + 1, "{deliveries}");
        assert!(host.log.borrow().concat().contains(cause), "{cause}");
        let expected = Counts { total: 6_000, deleted: 5_998, skipped: 2, ..Counts::default() };
        assert_eq!(world.counts(), (expected, State::Succeeded));
    }
}

/// A bucket whose calls take a few turns, and which counts how many wait at once.
#[derive(Default)]
struct Crowd {
    waiting: Cell<usize>,
    most: Cell<usize>,
}

impl Crowd {
    async fn wait(&self) {
        self.waiting.set(self.waiting.get() + 1);
        self.most.set(self.most.get().max(self.waiting.get()));
        let mut turns = 3;
        poll_fn(|context| {
            turns -= 1;
            context.waker().wake_by_ref();
            if turns == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.waiting.set(self.waiting.get() - 1);
    }
}

impl Bucket for Crowd {
    async fn delete(&self, _: DeleteCall<'_>) -> Result<(), R2Error> {
        self.wait().await;
        Ok(())
    }

    async fn uploaded_at(&self, _: &ObjectKey<'_>) -> Result<Option<Timestamp>, R2Error> {
        self.wait().await;
        Ok(Some(Timestamp::from_millis(0)))
    }

    async fn list(&self, _: &ListCall<'_>) -> Result<Listing, R2Error> {
        self.wait().await;
        Err(R2Error::Internal)
    }
}

/// A host whose time stands still: nothing times out.
struct Still<'a>(&'a FakeHost);

impl Log for Still<'_> {
    fn emit(&self, event: &Event<'_>) {
        self.0.emit(event);
    }
}

impl Host for Still<'_> {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn random(&self) -> f64 {
        self.0.random()
    }

    fn token(&self) -> String {
        self.0.token()
    }

    async fn sleep(&self, _: u64) {
        std::future::pending::<()>().await;
    }
}

#[test]
fn chunks_share_the_connections_that_notices_leave_and_use_no_more() {
    for (chunks, notices, most) in
        [(1, 0, 6), (2, 0, 6), (3, 0, 6), (4, 0, 4), (5, 0, 5), (6, 0, 6), (1, 2, 4), (2, 1, 4), (1, 5, 1)]
    {
        let host = FakeHost::default();
        let world = World::fenced(&host, chunks * 1_000, Fence::Always);
        let (crowd, still) = (Crowd::default(), Still(&host));
        let mut batch: Vec<Delivery> = (0..chunks).map(|message| world.delivery(message, 1)).collect();
        batch.extend((0..notices).map(|generation| {
            let body = NoticeRef { deletion: world.id.clone(), generation }.to_message();
            Delivery { body: Body::Text(body), ..world.delivery(0, 1) }
        }));
        block_on(handle(QUEUE, &batch, &crowd, &world.ledger, &still));
        assert_eq!(crowd.most.get(), most, "{chunks} chunks, {notices} notices");
        assert!(most <= CONNECTIONS_MAX);
        assert_eq!(crowd.waiting.get(), 0);
    }
}

/// What may happen to a fenced deletion.
#[derive(Clone, Debug)]
struct Schedule {
    fence: Fence,
    keys: usize,
    /// Keys without an object.
    missing: BTreeSet<usize>,
    locked: BTreeSet<usize>,
    /// Keys whose looks fail.
    blind: BTreeSet<usize>,
    /// After how many calls and looks which key is uploaded anew.
    uploads: Vec<(usize, usize)>,
    effect: Effect,
    largest_call: usize,
    errors: Vec<R2Error>,
    look_errors: Vec<R2Error>,
    list_errors: Vec<R2Error>,
    list_max: usize,
    look_ms: u64,
    ledger: Vec<Option<bool>>,
    /// How long the first delivery takes, in milliseconds.
    delay_ms: u64,
}

fn schedules() -> impl Strategy<Value = Schedule> {
    let error = || {
        let errors =
            [R2Error::Internal, R2Error::TooManyRequests, R2Error::NotEntitled, R2Error::ObjectLocked];
        prop::collection::vec(prop::sample::select(errors.to_vec()), 0..8)
    };
    let some = |most| prop::collection::btree_set(0_usize..300, 0..most);
    let ledger_fault = prop_oneof![8 => Just(None), 1 => Just(Some(false)), 1 => Just(Some(true))];
    let world = (prop::sample::select(Fence::ALL.to_vec()), 1_usize..300, some(20), some(3), some(3));
    let faults = (
        prop::sample::select(vec![Effect::None, Effect::Half, Effect::All]),
        prop_oneof![Just(usize::MAX), 1_usize..300],
        error(),
        error(),
        (error(), prop_oneof![Just(1_000_usize), 10_usize..200]),
        prop::sample::select(vec![1_u64, 10, 400, 2_000]),
        prop::collection::vec(ledger_fault, 0..12),
        prop::sample::select(vec![0, 59_990, 2 * MINUTE_MS]),
    );
    (world, prop::collection::vec((0_usize..700, 0_usize..300), 0..40), faults).prop_map(
        |((fence, keys, missing, locked, blind), uploads, faults)| {
            let (
                effect,
                largest_call,
                errors,
                look_errors,
                (list_errors, list_max),
                look_ms,
                ledger,
                delay_ms,
            ) = faults;
            Schedule {
                fence,
                keys,
                missing,
                locked,
                blind,
                uploads,
                effect,
                largest_call,
                errors,
                look_errors,
                list_errors,
                list_max,
                look_ms,
                ledger,
                delay_ms,
            }
        },
    )
}

impl Schedule {
    fn apply(&self, world: &mut World<'_>) {
        let key = |&position: &usize| world.keys.get(position).cloned();
        world.bucket.culprits =
            self.locked.iter().filter_map(key).map(|key| (key, R2Error::ObjectLocked)).collect();
        world.bucket.blind = self.blind.iter().filter_map(key).map(|key| (key, R2Error::Internal)).collect();
        world
            .bucket
            .uploads
            .borrow_mut()
            .extend(self.uploads.iter().filter_map(|(at, n)| Some((*at, key(n)?))));
        for missing in self.missing.iter().filter_map(key) {
            world.bucket.objects.borrow_mut().remove(&missing);
        }
        world.bucket.effect = self.effect;
        world.bucket.largest_call = self.largest_call;
        world.bucket.next_errors.borrow_mut().extend(self.errors.iter());
        world.bucket.next_look_errors.borrow_mut().extend(self.look_errors.iter());
        world.bucket.next_list_errors.borrow_mut().extend(self.list_errors.iter());
        world.bucket.list_max = self.list_max;
        world.bucket.look_ms.set(self.look_ms);
        world.host.advance(self.delay_ms);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is uploaded in between and whatever fails: where the fence looks, no object is deleted that was newer than
    /// the request when it was looked at, and that was moments before the call; nothing that was there at the request
    /// survives as deleted; what is reported skipped is there or was; and the counts add up.
    #[test]
    fn no_upload_that_a_look_could_see_is_deleted_and_nothing_older_survives(schedule in schedules()) {
        let host = FakeHost::default();
        let mut world = World::fenced(&host, schedule.keys, schedule.fence);
        schedule.apply(&mut world);
        let failing = FailingLedger { ledger: &world.ledger, faults: RefCell::new(schedule.ledger.clone()) };

        let (mut attempt, mut settled) = (0, false);
        while !settled {
            attempt += 1;
            prop_assert!(attempt < 60, "does not end");
            world.bucket.attempt.set(attempt);
            let queue = if attempt <= RETRIES_MAX + 1 { QUEUE } else { DEAD_LETTERS };
            let settlements = block_on(handle(queue, &[world.delivery(0, attempt)], &world.bucket, &failing, &host));
            world.check_counts();
            match settlements.of(0) {
                Settlement::Acknowledge(_) => settled = true,
                Settlement::Retry { delay_seconds } => host.advance(u64::from(*delay_seconds) * 1_000),
            }
        }

        for removal in world.bucket.removals.borrow().iter() {
            let age_ms = removal.began_at.millis_since(world.requested_at);
            let looks = match schedule.fence {
                Fence::Always => true,
                Fence::Auto => removal.attempt > 1 || age_ms > MINUTE_MS + LOOK_MS_MAX,
                Fence::Off => false,
            };
            if looks {
                let looked_at = removal.looked_at.expect("deleted without a look");
                prop_assert!(removal.began_at.millis_since(looked_at) <= LOOK_MS_MAX, "{removal:?}");
                let could_be_seen = removal.uploaded_at <= looked_at;
                prop_assert!(removal.uploaded_at <= world.requested_at || !could_be_seen, "{removal:?}");
            }
        }
        let (counts, state) = world.counts();
        prop_assert!(state.is_final());
        let failed: BTreeSet<String> = world.failed_keys().into_iter().collect();
        let skipped: BTreeSet<String> = world.skipped_keys().into_iter().collect();
        prop_assert!(failed.is_disjoint(&skipped));
        prop_assert_eq!((failed.len() as u64, skipped.len() as u64), (counts.failed, counts.skipped));
        prop_assert_eq!(counts.deleted + counts.failed + counts.skipped, counts.total);
        prop_assert!(schedule.fence != Fence::Off || skipped.is_empty());
        for (key, uploaded_at) in world.bucket.objects.borrow().iter() {
            let asked = key.starts_with("proj_42/") && !failed.contains(key);
            prop_assert!(!asked || *uploaded_at > world.requested_at, "reported deleted or skipped, and older");
        }
        prop_assert_eq!(world.bystanders(), 3);
        prop_assert!(!host.log.borrow().concat().contains("proj_42"), "a key in the log");
    }
}
