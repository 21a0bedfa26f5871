use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use futures::executor::block_on;
use ledger::{
    DeletionRecord, FailureFilter, NewDeletion, NewPart, NewSweep, ProducerLedger, SqlLedger, SqliteDatabase,
};
use proptest::prelude::*;
use protocol::{Counts, DeletionId, KeyDigest, RETRIES_MAX, RequestId, State, pack_keys};

use super::*;
use crate::testing::{FailingLedger, FakeBucket, FakeHost, WayOut};
use crate::{Body, Delivery, Settlement, Settlements, handle, upkeep};

mod batches;
mod listings;
mod steps;

const QUEUE: &str = "r2-deletions";
const DEAD_LETTERS: &str = "r2-deletions-dlq";
const MINUTE_MS: u64 = 60_000;

/// A message on its way.
#[derive(Clone, Debug)]
struct Sent {
    body: String,
    attempts: u32,
    is_dead: bool,
    due_at: Timestamp,
}

/// What may be asked for.
#[derive(Clone, Debug)]
struct Asked {
    keys: Vec<String>,
    prefixes: Vec<String>,
    fence: Fence,
    max_objects: Option<u64>,
    verify: bool,
    dry_run: bool,
}

impl Asked {
    fn prefixes<const N: usize>(prefixes: [&str; N]) -> Self {
        Self {
            keys: Vec::new(),
            prefixes: prefixes.map(str::to_owned).to_vec(),
            fence: Fence::Auto,
            max_objects: None,
            verify: false,
            dry_run: false,
        }
    }
}

/// A ledger, a bucket, and a queue that loses nothing.
struct World<'a> {
    host: &'a FakeHost,
    ledger: SqlLedger<SqliteDatabase>,
    bucket: FakeBucket<'a>,
    out: WayOut,
    queue: RefCell<Vec<Sent>>,
    /// Whether the coming calls to the ledger fail, and take effect all the same.
    faults: RefCell<Vec<Option<bool>>>,
}

impl<'a> World<'a> {
    fn new(host: &'a FakeHost, objects: impl IntoIterator<Item = String>) -> Self {
        Self {
            host,
            ledger: SqlLedger::new(SqliteDatabase::in_memory().unwrap()),
            bucket: FakeBucket::new(host, objects),
            out: WayOut::default(),
            queue: RefCell::default(),
            faults: RefCell::default(),
        }
    }

    /// Accepts a deletion, as the producer does.
    fn accept(&self, asked: &Asked) -> DeletionId {
        let now = self.host.now();
        let number = self.queue.borrow().len() as u128 + 1;
        let id = DeletionId::new(now, number);
        let keys: Vec<_> = asked.keys.iter().map(|key| ObjectKey::parse(key.as_str()).unwrap()).collect();
        let packed = pack_keys(&id, 0, now, asked.fence, &keys);
        let (chunk_keys, mut bodies): (Vec<_>, Vec<_>) =
            packed.into_iter().map(|message| (message.keys, message.body)).unzip();
        let ranges: Vec<_> = asked.prefixes.iter().map(SweepRange::of).collect();
        if chunk_keys.is_empty() {
            bodies = (0..).zip(&ranges).map(|(sweep, _)| SweepRef::first(&id, sweep).to_message()).collect();
        }
        let deletion = NewDeletion {
            id: id.clone(),
            requested_by: "backend".to_owned(),
            requested_at: now,
            not_before: now,
            fence: asked.fence,
            part: Some(NewPart {
                upload: RequestId::new(now, number),
                chunk_keys,
                duplicates_removed: 0,
                sending_until: now,
            }),
            sweep: Some(NewSweep { ranges, max_objects: asked.max_objects }),
            verify: asked.verify,
            planned_keys: asked.dry_run.then_some(0),
            labels: protocol::Labels::default(),
            idempotency: None,
        };
        assert!(block_on(self.ledger.admit_deletion(&deletion)).unwrap());
        let part = ledger::PartRef::request(&id);
        block_on(self.ledger.mark_enqueued(&part, now)).unwrap();
        self.send(bodies);
        id
    }

    fn send(&self, bodies: Vec<String>) {
        let sent = |body| Sent { body, attempts: 0, is_dead: false, due_at: self.host.now() };
        self.queue.borrow_mut().extend(bodies.into_iter().map(sent));
    }

    /// A message as it is delivered for the first time.
    fn delivery(&self, body: String) -> Delivery {
        let body = Body::Text(body);
        Delivery { message_id: "m".to_owned(), attempts: 1, sent_at: self.host.now(), body }
    }

    /// Has the queue's first message handled over this bucket. What comes of it is not carried out.
    fn handle_first(&self, bucket: &impl Bucket) -> Settlements {
        let sent = self.queue.borrow_mut().remove(0);
        let delivery = self.delivery(sent.body);
        block_on(handle(QUEUE, &[delivery], bucket, &self.ledger, &self.out.unused(), self.host))
    }

    /// Delivers a message of the queue, the one at `index` of those there are; it is gone if it is acknowledged, or, with
    /// `dies`, the invocation is killed before that. What the consumer sends is queued.
    fn deliver(&self, index: usize, dies: bool) {
        let mut sent = self.queue.borrow_mut().remove(index);
        self.host.advance(sent.due_at.millis_since(self.host.now()));
        sent.attempts += 1;
        self.bucket.attempt.set(sent.attempts);
        let delivery = Delivery { attempts: sent.attempts, ..self.delivery(sent.body.clone()) };
        let faults = std::mem::take(&mut *self.faults.borrow_mut());
        let ledger = FailingLedger { ledger: &self.ledger, faults: RefCell::new(faults) };
        let queue = if sent.is_dead { DEAD_LETTERS } else { QUEUE };
        let settlements =
            block_on(handle(queue, &[delivery], &self.bucket, &ledger, &self.out.unused(), self.host));
        let new: Vec<String> = self.out.sent.borrow_mut().drain(..).map(|(body, _)| body).collect();
        self.send(new);
        match settlements.of(0) {
            Settlement::Acknowledge(_) if !dies => {}
            Settlement::Acknowledge(_) => self.queue.borrow_mut().push(sent),
            Settlement::Retry { delay_seconds } => {
                sent.due_at = self.host.now().plus_millis(u64::from(*delay_seconds) * 1_000);
                if sent.attempts > RETRIES_MAX {
                    (sent.attempts, sent.is_dead) = (0, true);
                }
                self.queue.borrow_mut().push(sent);
            }
        }
    }

    /// Delivers everything, and has upkeep look after what is left over.
    fn settle(&self) {
        for _ in 0..50 {
            while !self.queue.borrow().is_empty() {
                self.deliver(0, false);
            }
            self.host.advance(11 * MINUTE_MS);
            block_on(upkeep(&self.ledger, &self.out, self.host));
            let woken: Vec<String> = self.out.sent.borrow_mut().drain(..).map(|(body, _)| body).collect();
            if woken.is_empty() {
                return;
            }
            self.send(woken);
        }
        panic!("it never ends: {}", self.host.log.borrow().join("\n"));
    }

    fn find(&self, id: &DeletionId) -> DeletionRecord {
        block_on(self.ledger.find_deletion(id, self.host.now())).unwrap().unwrap()
    }

    fn failures(&self, id: &DeletionId) -> Vec<(String, protocol::FailureCode)> {
        let failures =
            block_on(self.ledger.list_failures(id, FailureFilter::default(), None, 10_000)).unwrap();
        let read = |failure: ledger::FailureRecord| {
            (serde_json::from_str(&failure.key_json).unwrap(), failure.code.unwrap())
        };
        failures.into_iter().map(read).collect()
    }

    fn skips(&self, id: &DeletionId) -> Vec<String> {
        let skips = block_on(self.ledger.list_skips(id, None, 10_000)).unwrap();
        skips.into_iter().map(|skip| serde_json::from_str(&skip.key_json).unwrap()).collect()
    }

    fn objects(&self) -> Vec<String> {
        self.bucket.objects.borrow().keys().cloned().collect()
    }
}

fn counts(total: u64, deleted: u64, skipped: u64, failed: u64) -> Counts {
    Counts { total, deleted, skipped, failed, ..Counts::default() }
}

fn numbered(prefix: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("{prefix}{n:05}"))
}

#[test]
fn a_sweep_deletes_what_begins_so_and_its_neighbours_stay() {
    let host = FakeHost::default();
    let neighbours =
        ["exports/4", "exports/420/a", "exports/42", "export", "exports/43/a"].map(str::to_owned);
    let world = World::new(&host, numbered("exports/42/", 2_500).chain(neighbours.clone()));
    let id = world.accept(&Asked::prefixes(["exports/42/"]));
    assert_eq!(world.find(&id).state, State::Queued);
    world.settle();
    let found = world.find(&id);
    assert_eq!(
        (found.state, found.counts, found.found),
        (State::Succeeded, counts(2_500, 2_500, 0, 0), 2_500)
    );
    let mut left = world.objects();
    left.sort_unstable_by_key(|key| neighbours.iter().position(|neighbour| neighbour == key));
    assert_eq!(left, neighbours);
    // Three pages and the pass that finds nothing.
    assert_eq!(
        (world.bucket.lists.get(), world.bucket.calls.borrow().as_slice()),
        (4, &[1_000, 1_000, 500][..])
    );
    assert_eq!(world.bucket.looks.get(), 0, "the listing is the look");
}

#[test]
fn a_prefix_without_objects_succeeds_with_one_listing() {
    let host = FakeHost::default();
    let world = World::new(&host, ["b/".to_owned()]);
    let id = world.accept(&Asked::prefixes(["a/"]));
    world.settle();
    assert_eq!((world.find(&id).state, world.find(&id).counts), (State::Succeeded, Counts::default()));
    assert_eq!((world.bucket.lists.get(), world.objects().len()), (1, 1));
}

#[test]
fn what_was_uploaded_since_stays_and_is_told_once() {
    let host = FakeHost::default();
    let world = World::new(&host, numbered("a/", 30));
    let id = world.accept(&Asked::prefixes(["a/"]));
    host.advance(1);
    world.bucket.upload("a/00007");
    world.bucket.upload("a/new");
    world.settle();
    let found = world.find(&id);
    assert_eq!((found.state, found.counts), (State::Succeeded, counts(31, 29, 2, 0)));
    assert_eq!(
        (world.objects(), world.skips(&id)),
        (vec!["a/00007".to_owned(), "a/new".to_owned()], world.objects())
    );
}

#[test]
fn a_sweep_finds_what_the_keys_have_missed_and_counts_none_twice() {
    let host = FakeHost::default();
    let mut world = World::new(&host, numbered("p/", 20));
    world.bucket.culprits.insert("p/00003".to_owned(), R2Error::ObjectLocked);
    let mut asked = Asked::prefixes(["p/"]);
    asked.keys = numbered("p/", 12).chain(["elsewhere".to_owned()]).collect();
    asked.fence = Fence::Always;
    let id = world.accept(&asked);
    host.advance(1);
    world.bucket.upload("p/00005");
    world.settle();
    let found = world.find(&id);
    // Of the thirteen keys one is locked and one is newer; the sweep finds neither of them again.
    assert_eq!((found.state, found.counts, found.found), (State::Failed, counts(21, 19, 1, 1), 8));
    assert_eq!(world.objects(), ["p/00003", "p/00005"]);
}

#[test]
fn a_dry_run_counts_and_deletes_nothing() {
    let host = FakeHost::default();
    let world = World::new(&host, numbered("a/", 1_234).chain(numbered("b/", 3)).chain(["c/".to_owned()]));
    let id = world.accept(&Asked { dry_run: true, ..Asked::prefixes(["a/", "b/"]) });
    host.advance(1);
    world.bucket.upload("b/new");
    world.settle();
    let found = world.find(&id);
    assert_eq!((found.state, found.counts), (State::Planned, Counts::default()));
    let plan = found.plan.unwrap();
    assert_eq!((plan.objects, plan.bytes, plan.uploaded_since), (1_237, 1_237 * 7, 1));
    assert!(plan.oldest_uploaded_at < plan.newest_uploaded_at);
    let sample: Vec<String> = serde_json::from_str(&plan.sample).unwrap();
    assert_eq!((sample.len(), sample.last().unwrap().as_str()), (13, "b/00002"));
    assert_eq!((world.objects().len(), world.bucket.calls.borrow().len()), (1_239, 0));
}

#[test]
fn the_brake_stops_a_sweep_before_anything_is_deleted() {
    for (max_objects, outcome) in [
        (1_237, (State::Succeeded, counts(1_237, 1_237, 0, 0))),
        (1_236, (State::Failed, counts(1, 0, 0, 1))),
        (1, (State::Failed, counts(1, 0, 0, 1))),
    ] {
        let host = FakeHost::default();
        let world = World::new(&host, numbered("a/", 1_234).chain(numbered("b/", 3)));
        let id = world.accept(&Asked { max_objects: Some(max_objects), ..Asked::prefixes(["a/", "b/"]) });
        world.settle();
        let found = world.find(&id);
        assert_eq!((found.state, found.counts), outcome, "{max_objects}");
        let left = if outcome.0 == State::Failed { 1_237 } else { 0 };
        assert_eq!(world.objects().len(), left);
        let failures = world.failures(&id);
        assert!(failures.iter().all(|(_, code)| *code == protocol::FailureCode::MaxObjectsExceeded));
        assert_eq!(failures.len(), usize::from(left > 0));
    }
}

#[test]
fn a_verified_deletion_says_what_is_left() {
    let host = FakeHost::default();
    let mut world = World::new(&host, numbered("a/", 10).chain(numbered("b/", 10)));
    world.bucket.culprits.insert("b/00003".to_owned(), R2Error::ObjectLocked);
    let id = world.accept(&Asked { verify: true, ..Asked::prefixes(["a/", "b/"]) });
    host.advance(1);
    world.bucket.upload("a/new");
    world.settle();
    let found = world.find(&id);
    assert_eq!((found.state, found.counts), (State::Failed, counts(21, 19, 1, 1)));
    let verification = found.verification.unwrap();
    assert_eq!((verification.objects_left, verification.uploaded_since), (1, 1));
    assert_eq!(found.finished_at, Some(verification.verified_at));
}

#[test]
fn a_cancelled_sweep_gets_no_further_page_and_says_so() {
    let host = FakeHost::default();
    let mut world = World::new(&host, numbered("a/", 1_000));
    world.bucket.list_max = 10;
    let id = world.accept(&Asked::prefixes(["a/"]));
    world.deliver(0, false);
    assert!(block_on(world.ledger.cancel_deletion(&id, host.now())).unwrap());
    let left = world.objects().len();
    assert!((1..1_000).contains(&left), "{left}");
    world.settle();
    let found = world.find(&id);
    assert_eq!((found.state, world.objects().len()), (State::Cancelled, left));
    assert_eq!(found.counts.total, found.counts.deleted);
}

#[test]
fn a_bucket_that_cannot_be_listed_fails_the_prefix_and_what_is_undecided() {
    let host = FakeHost::default();
    let world = World::new(&host, numbered("a/", 5));
    let id = world.accept(&Asked::prefixes(["a/"]));
    *world.bucket.next_list_errors.borrow_mut() = vec![R2Error::Internal; 30];
    world.settle();
    let found = world.find(&id);
    assert_eq!((found.state, found.counts), (State::Failed, counts(1, 0, 0, 1)));
    assert_eq!(world.failures(&id), [("a/".to_owned(), protocol::FailureCode::SweepIncomplete)]);
    assert_eq!(world.objects().len(), 5);
}

#[test]
fn a_large_range_is_divided_and_swept_side_by_side() {
    for (name, objects) in [
        (
            "folders",
            (0..40).flat_map(|n| numbered(&format!("p/{n:02}/"), 30).collect::<Vec<_>>()).collect::<Vec<_>>(),
        ),
        ("flat", numbered("p/", 1_200).collect()),
        ("flat, with a long beginning", numbered(&format!("p/{}", "é".repeat(300)), 1_200).collect()),
    ] {
        let host = FakeHost::default();
        let count = objects.len() as u64;
        let mut world = World::new(&host, objects);
        world.bucket.list_max = 20;
        let id = world.accept(&Asked::prefixes(["p/"]));
        let mut most = 0;
        while !world.queue.borrow().is_empty() {
            most = most.max(world.queue.borrow().len());
            world.deliver(0, false);
        }
        assert!(most >= 8, "{name}: {most}");
        let found = world.find(&id);
        assert_eq!((found.state, found.counts), (State::Succeeded, counts(count, count, 0, 0)), "{name}");
        assert_eq!(world.objects(), Vec::<String>::new());
    }
}

#[test]
fn a_message_of_a_sweep_that_the_ledger_does_not_know_deletes_nothing_and_is_kept() {
    let host = FakeHost::default();
    let world = World::new(&host, numbered("a/", 5));
    let id = world.accept(&Asked::prefixes(["b/"]));
    let other = DeletionId::new(host.now(), 77);
    world.queue.borrow_mut().clear();
    world.send(vec![
        SweepRef::first(&other, 0).to_message(),
        SweepRef { sweep: 1, ..SweepRef::first(&id, 0) }.to_message(),
        SweepRef { step: 1, ..SweepRef::first(&id, 0) }.to_message(),
    ]);
    (0..3).for_each(|_| world.deliver(0, false));
    assert_eq!((world.objects().len(), world.bucket.lists.get(), world.queue.borrow().len()), (5, 0, 0));
    assert_eq!(block_on(world.ledger.list_unreadable(None, 10)).unwrap().len(), 1, "both under one id");
    assert_eq!(world.find(&id).state, State::Queued);
}

/// Deletes four keys that a listing has shown so long ago, one of them locked or not, while somebody uploads one of them once the
/// first call was begun. Answers with the number of looks, and whether the upload is still there.
fn delete_listed(listed_ms_ago: u64, is_locked: bool) -> (usize, bool) {
    let host = FakeHost::default();
    host.advance(60_000);
    let texts: Vec<String> = numbered("k", 4).collect();
    let mut bucket = FakeBucket::new(&host, texts.clone());
    if is_locked {
        bucket.culprits.insert("k00003".to_owned(), R2Error::ObjectLocked);
        bucket.uploads.borrow_mut().insert(1, "k00001".to_owned());
    }
    let keys: Vec<_> = texts.iter().map(|key| ObjectKey::parse(key.as_str()).unwrap()).collect();
    let attempt = Attempt {
        keys: &keys,
        delivery: None,
        undecided: (0..4).collect(),
        requested_at: host.now(),
        looks: Looks::Listed(Some(host.now().minus_millis(listed_ms_ago))),
        number: 1,
        last_error: None,
        deadline: host.now().plus_millis(60_000),
    };
    block_on(delete_keys(&attempt, &Allowance::of(1, 0), &bucket, &host));
    (bucket.looks.get(), bucket.objects.borrow().contains_key("k00001"))
}

#[test]
fn a_listing_is_a_look_for_six_seconds_and_not_for_the_halves_of_a_call() {
    assert_eq!(delete_listed(6_000, false), (0, false));
    assert_eq!(delete_listed(6_001, false).0, 4);
    let (looks, is_kept) = delete_listed(0, true);
    assert!(looks >= 4 && is_kept, "{looks}");
}

/// What happens while a deletion is at work.
#[derive(Clone, Debug)]
enum Happening {
    /// A message is delivered; with `true` its invocation is killed before it acknowledges.
    Deliver(prop::sample::Index, bool),
    /// A message is delivered while the ledger fails so.
    LedgerFails(prop::sample::Index, Vec<Option<bool>>),
    /// The next calls of the bucket fail.
    DeleteFails(R2Error),
    ListFails(R2Error),
    /// An object is uploaded, now.
    Upload(String),
    /// An object is uploaded while so many calls of the bucket were begun from here.
    UploadWithin(usize, String),
    /// Another deletion of the same prefixes is accepted.
    Another,
    /// Time passes.
    Wait(u64),
}

fn key() -> impl Strategy<Value = String> {
    "(a|a/|ab/|b/x/|c)[0-3é]{0,3}(/[xy])?"
}

fn happening() -> impl Strategy<Value = Happening> {
    let error = || {
        prop_oneof![
            Just(R2Error::Internal),
            Just(R2Error::TooManyRequests),
            Just(R2Error::TimedOut),
            Just(R2Error::Other(0))
        ]
    };
    prop_oneof![
        8 => (any::<prop::sample::Index>(), prop::bool::weighted(0.2))
            .prop_map(|(index, dies)| Happening::Deliver(index, dies)),
        2 => (any::<prop::sample::Index>(), prop::collection::vec(prop::option::weighted(0.3, any::<bool>()), 1..12))
            .prop_map(|(index, faults)| Happening::LedgerFails(index, faults)),
        1 => error().prop_map(Happening::DeleteFails),
        1 => error().prop_map(Happening::ListFails),
        2 => key().prop_map(Happening::Upload),
        2 => (0_usize..8, key()).prop_map(|(calls, key)| Happening::UploadWithin(calls, key)),
        1 => Just(Happening::Another),
        1 => (1_u64..300_000).prop_map(Happening::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Over a random bucket with uploads at any time, deliveries in any order, twice, or cut short, and a ledger and a bucket that
    /// fail: a sweep deletes exactly what was there before it was asked for, and accounts for each of those keys once.
    #[test]
    fn a_sweep_deletes_exactly_what_was_there_and_older(
        old in prop::collection::btree_set(key(), 0..80),
        new in prop::collection::btree_set(key(), 0..8),
        locked in prop::collection::btree_set(key(), 0..4),
        named in prop::collection::vec(key(), 0..4),
        prefixes in prop::sample::subsequence(vec!["a", "b/", "c0", "zz/"], 1..4),
        (fence, max_objects, verify) in (
            prop_oneof![Just(Fence::Auto), Just(Fence::Always)],
            prop::option::weighted(0.3, 20_u64..60),
            any::<bool>(),
        ),
        list_max in 1_usize..12,
        happenings in prop::collection::vec(happening(), 0..30),
    ) {
        let host = FakeHost::default();
        let mut world = World::new(&host, old.iter().cloned());
        world.bucket.list_max = list_max;
        for key in locked.iter().chain(old.iter().step_by(9).filter(|_| !locked.is_empty())) {
            world.bucket.culprits.insert(key.clone(), R2Error::ObjectLocked);
        }
        let named: BTreeSet<String> = named.into_iter().collect();
        let asked = Asked {
            keys: named.iter().cloned().collect(),
            prefixes: prefixes.iter().map(|&prefix| prefix.to_owned()).collect(),
            fence, max_objects, verify, dry_run: false,
        };
        let mut ids = vec![(world.accept(&asked), host.now())];
        host.advance(1);
        let before: BTreeMap<String, Timestamp> = world.bucket.objects.borrow().clone();
        for key in &new {
            world.bucket.upload(key);
        }

        for happening in happenings {
            let pick = |index: prop::sample::Index| {
                let queued = world.queue.borrow().len();
                (queued > 0).then(|| index.index(queued))
            };
            match happening {
                Happening::Deliver(index, dies) => {
                    if let Some(at) = pick(index) { world.deliver(at, dies); }
                }
                Happening::LedgerFails(index, faults) => {
                    if let Some(at) = pick(index) {
                        *world.faults.borrow_mut() = faults;
                        world.deliver(at, false);
                    }
                }
                Happening::DeleteFails(error) => world.bucket.next_errors.borrow_mut().push(error),
                Happening::ListFails(error) => world.bucket.next_list_errors.borrow_mut().push(error),
                Happening::Upload(key) => { host.advance(1); world.bucket.upload(&key); }
                Happening::UploadWithin(calls, key) => {
                    let begun = world.bucket.looks.get() + world.bucket.lists.get() + world.bucket.calls.borrow().len();
                    world.bucket.uploads.borrow_mut().insert(begun + calls, key);
                }
                Happening::Another => if ids.len() < 2 {
                    ids.push((world.accept(&asked), host.now()));
                    host.advance(1);
                },
                Happening::Wait(millis) => host.advance(millis),
            }
        }
        world.settle();

        let in_prefix = |key: &str| prefixes.iter().any(|prefix| key.starts_with(prefix));
        let asked_for = |key: &str| in_prefix(key) || named.contains(key);
        let last_requested_at = ids.last().unwrap().1;
        for removal in &*world.bucket.removals.borrow() {
            prop_assert!(asked_for(&removal.key), "not asked for: {}", removal.key);
            let looked_at = removal.looked_at;
            let is_of_the_window = looked_at.is_some_and(|at| removal.uploaded_at >= at);
            // A prompt first attempt at a named key does not look.
            let unlooked = fence == Fence::Auto && named.contains(&removal.key);
            prop_assert!(
                removal.uploaded_at <= last_requested_at || is_of_the_window || unlooked,
                "{removal:?}"
            );
        }
        for (id, requested_at) in &ids {
            let found = world.find(id);
            let Counts { total, pending, deleted, skipped, failed, cancelled } = found.counts;
            prop_assert!(found.state.is_final() && found.state != State::Cancelled, "{:?}", found.state);
            prop_assert_eq!(pending + cancelled, 0);
            prop_assert_eq!(total, deleted + skipped + failed);
            let failures = world.failures(id);
            let stopped = failures.iter().any(|(_, code)| code.is_of_a_prefix());
            let failed_keys: BTreeSet<&String> =
                failures.iter().filter(|(_, code)| !code.is_of_a_prefix()).map(|(key, _)| key).collect();
            let skips = world.skips(id);
            let skipped_keys: BTreeSet<&String> = skips.iter().collect();
            prop_assert_eq!((failures.len() as u64, skips.len() as u64), (failed, skipped));
            prop_assert_eq!(skipped_keys.len(), skips.len(), "skipped twice");
            let prefixes_failed = failures.iter().filter(|(_, code)| code.is_of_a_prefix()).count();
            prop_assert_eq!(failed_keys.len() + prefixes_failed, failures.len(), "failed twice");
            prop_assert!(failed_keys.is_disjoint(&skipped_keys));
            let left: Vec<String> = world.objects();
            if stopped {
                continue;
            }
            // Everything that was asked for and was there is gone, or it is told why not.
            for key in left.iter().filter(|key| asked_for(key)) {
                let uploaded_at = world.bucket.objects.borrow()[key];
                prop_assert!(uploaded_at > *requested_at || failed_keys.contains(key), "left: {key}");
            }
            if ids.len() == 1 {
                // Each key that was there is accounted for once: named, or found.
                let was_there = before.iter().filter(|(key, at)| **at <= *requested_at && in_prefix(key));
                let expected: BTreeSet<&String> = was_there.map(|(key, _)| key).chain(&named).collect();
                let skipped_of_them = skipped_keys.iter().filter(|key| expected.contains(*key)).count();
                let accounted = usize::try_from(deleted).unwrap() + skipped_of_them + failed_keys.len();
                // A key that was named and deleted can have an object again, which the sweep then leaves alone.
                let again = skipped_keys.iter().filter(|key| named.contains(**key)).count();
                prop_assert!(
                    (expected.len()..=expected.len() + again).contains(&accounted),
                    "{accounted} of {}: {:?}", expected.len(), found.counts
                );
                // The receipt's digest is of exactly those that were deleted.
                let gone = expected.iter().filter(|key| !skipped_keys.contains(**key) && !failed_keys.contains(**key));
                let digest = gone.fold(KeyDigest::default(), |digest, key| digest.with(key));
                let kept = block_on(world.ledger.sum_digests(id)).unwrap();
                if again == 0 && found.counts.total > 0 {
                    prop_assert_eq!(kept, verify.then_some(digest));
                }
            }
            if let Some(verification) = found.verification {
                prop_assert!(verification.objects_left <= failed_keys.len() as u64);
            }
            prop_assert_eq!(found.verification.is_some(), verify);
        }
    }
}
