//! Whatever a listing says: nothing is deleted that was not asked for, and nothing comes twice.

use std::collections::VecDeque;

use super::*;
use crate::{DeleteCall, Listing};
use ledger::ListedObject;

/// The keys of a listing, and whether it says that there is more.
type Told = (&'static [&'static str], bool);

/// A bucket that lists what it is told to list, and only says that it deletes.
#[derive(Default)]
struct Scripted {
    listings: RefCell<VecDeque<Listing>>,
    deleted: RefCell<Vec<String>>,
}

impl Scripted {
    /// With these listings, each of these keys, and whether there is more; then with empty ones.
    fn new(listings: &[Told]) -> Self {
        let object = |key: &&str| ListedObject {
            key: (*key).to_owned(),
            size: 1,
            uploaded_at: Timestamp::from_millis(0),
        };
        let listings = listings.iter().map(|&(keys, truncated)| Listing {
            objects: keys.iter().map(object).collect(),
            truncated,
            ..Listing::default()
        });
        Self { listings: RefCell::new(listings.collect()), ..Self::default() }
    }
}

impl Bucket for Scripted {
    async fn delete(&self, call: DeleteCall<'_>) -> Result<(), R2Error> {
        self.deleted.borrow_mut().extend(call.keys().map(str::to_owned));
        Ok(())
    }

    async fn uploaded_at(&self, _: &ObjectKey<'_>) -> Result<Option<Timestamp>, R2Error> {
        Ok(Some(Timestamp::from_millis(0)))
    }

    async fn list(&self, _: &ListCall<'_>) -> Result<Listing, R2Error> {
        Ok(self.listings.borrow_mut().pop_front().unwrap_or_default())
    }
}

/// Delivers the message of each sweep of a deletion once; whether the last of them is to be delivered again.
fn sweep_once(world: &World<'_>, bucket: &Scripted) -> bool {
    let (mut comes_back, messages) = (false, world.queue.borrow().len());
    for _ in 0..messages {
        comes_back = matches!(world.handle_first(bucket).of(0), Settlement::Retry { .. });
    }
    comes_back
}

#[test]
fn a_listing_that_cannot_be_deletes_nothing_of_its_page_and_is_asked_for_again() {
    let cases: &[(&str, &[Told], &[&str])] = &[
        ("another prefix", &[(&["a/1", "b/2"], false)], &[]),
        ("no prefix", &[(&["a"], false)], &[]),
        ("out of order", &[(&["a/2", "a/1"], false)], &[]),
        ("twice", &[(&["a/1", "a/1"], false)], &[]),
        ("the last one again", &[(&["a/1", "a/2"], true), (&["a/2", "a/3"], false)], &["a/1", "a/2"]),
        ("from the beginning", &[(&["a/1", "a/2"], true), (&["a/1"], false)], &["a/1", "a/2"]),
        ("more, and nothing", &[(&[], true)], &[]),
        ("more, and nothing behind a page", &[(&["a/1"], true), (&[], true)], &["a/1"]),
    ];
    for (name, listings, deleted) in cases {
        let host = FakeHost::default();
        let (world, bucket) = (World::new(&host, []), Scripted::new(listings));
        world.accept(&Asked::prefixes(["a/"]));
        assert!(sweep_once(&world, &bucket), "{name}");
        assert_eq!(*bucket.deleted.borrow(), *deleted, "{name}");
    }
}

#[test]
fn a_listing_in_order_is_deleted_page_by_page() {
    let host = FakeHost::default();
    let world = World::new(&host, []);
    let bucket = Scripted::new(&[(&["a/1", "a/2"], true), (&["a/3"], false)]);
    let id = world.accept(&Asked::prefixes(["a/"]));
    assert!(!sweep_once(&world, &bucket));
    assert_eq!(*bucket.deleted.borrow(), ["a/1", "a/2", "a/3"]);
    assert_eq!(world.find(&id).counts, counts(3, 3, 0, 0));
}

#[test]
fn what_does_not_stay_deleted_is_given_up_after_ten_passes() {
    let host = FakeHost::default();
    let world = World::new(&host, []);
    let listings: Vec<Told> = vec![(&["a/1"], false); 30];
    let bucket = Scripted::new(&listings);
    let id = world.accept(&Asked::prefixes(["a/"]));
    for _ in 0..5 {
        sweep_once(&world, &bucket);
        world.send(world.out.sent.take().into_iter().map(|(body, _)| body).collect());
    }
    assert_eq!(bucket.listings.borrow().len(), 20);
    assert_eq!(bucket.deleted.borrow().len(), 10);
    assert_eq!(world.find(&id).state, State::Failed);
    assert_eq!(world.failures(&id), [("a/".to_owned(), protocol::FailureCode::SweepIncomplete)]);
}

/// A bucket that lists pages only, so that no range is divided.
struct Undivided<'a>(&'a FakeBucket<'a>);

impl Bucket for Undivided<'_> {
    async fn delete(&self, call: DeleteCall<'_>) -> Result<(), R2Error> {
        self.0.delete(call).await
    }

    async fn uploaded_at(&self, key: &ObjectKey<'_>) -> Result<Option<Timestamp>, R2Error> {
        self.0.uploaded_at(key).await
    }

    async fn list(&self, call: &ListCall<'_>) -> Result<Listing, R2Error> {
        let is_page = call.delimiter.is_none() && call.limit > 1;
        if is_page { self.0.list(call).await } else { Err(R2Error::Internal) }
    }
}

/// Has the first step of a sweep carried out over this bucket, and answers with what the log says of it.
fn step(world: &World<'_>, bucket: &impl Bucket) -> [String; 2] {
    assert_eq!(world.handle_first(bucket).acknowledged(), 1);
    let log = world.host.log.borrow();
    ["sweep.progressed", "batch.processed"]
        .map(|name| log.iter().rev().find(|line| line.contains(name)).unwrap().clone())
}

#[test]
fn a_step_lists_ten_pages_and_hands_on() {
    let host = FakeHost::default();
    let mut world = World::new(&host, numbered("a/", 30));
    world.bucket.list_max = 1;
    world.accept(&Asked::prefixes(["a/"]));
    let [swept, _] = step(&world, &Undivided(&world.bucket));
    assert!(swept.contains("\"pages\":10,"), "{swept}");
    assert_eq!((world.objects().len(), world.out.sent.borrow().len()), (20, 1));
}

#[test]
fn the_listings_that_a_division_takes_are_told_too() {
    let host = FakeHost::default();
    let mut world = World::new(&host, numbered("a/", 30));
    world.bucket.list_max = 1;
    world.accept(&Asked::prefixes(["a/"]));
    let [_, batch] = step(&world, &world.bucket);
    let lists = world.bucket.lists.get();
    assert!(lists > 10 && batch.contains(&format!("\"r2_lists\":{lists},")), "{lists}: {batch}");
}

/// A bucket of which something happens just before its second listing.
pub(super) struct BeforeSecondListing<'a, F> {
    pub(super) bucket: &'a FakeBucket<'a>,
    pub(super) happens: F,
}

impl<F: AsyncFn()> Bucket for BeforeSecondListing<'_, F> {
    async fn delete(&self, call: DeleteCall<'_>) -> Result<(), R2Error> {
        self.bucket.delete(call).await
    }

    async fn uploaded_at(&self, key: &ObjectKey<'_>) -> Result<Option<Timestamp>, R2Error> {
        self.bucket.uploaded_at(key).await
    }

    async fn list(&self, call: &ListCall<'_>) -> Result<Listing, R2Error> {
        if self.bucket.lists.get() == 1 {
            (self.happens)().await;
        }
        self.bucket.list(call).await
    }
}

#[test]
fn a_deletion_that_is_cancelled_within_a_step_loses_no_further_page() {
    let host = FakeHost::default();
    let mut world = World::new(&host, numbered("a/", 30));
    world.bucket.list_max = 10;
    let id = world.accept(&Asked::prefixes(["a/"]));
    let happens = async || assert!(world.ledger.cancel_deletion(&id, world.host.now()).await.unwrap());
    let settlements = world.handle_first(&BeforeSecondListing { bucket: &world.bucket, happens });
    assert_eq!(settlements.acknowledged(), 1);
    assert_eq!((world.objects().len(), world.find(&id).counts.deleted), (20, 10));
}

#[test]
fn a_page_may_have_a_megabyte_to_the_byte() {
    let host = FakeHost::default();
    // Each is a thousand bytes with its quotes.
    let world = World::new(&host, (0..1_000).map(|n| format!("a/{n:0996}")));
    world.accept(&Asked::prefixes(["a/"]));
    world.settle();
    assert_eq!(*world.bucket.calls.borrow(), [1_000]);
}

/// Keys that are a megabyte and a half as JSON: what JSON escapes takes six bytes for one.
#[test]
fn a_page_has_no_more_bytes_of_keys_than_the_ledger_can_keep() {
    let host = FakeHost::default();
    let keys: Vec<String> = (0..250).map(|n| format!("a/{n:03}{}", "\u{1}".repeat(1_000))).collect();
    let world = World::new(&host, keys);
    let id = world.accept(&Asked::prefixes(["a/"]));
    world.settle();
    assert_eq!(world.find(&id).counts, counts(250, 250, 0, 0));
    // As many as a megabyte holds, each 6,007 bytes with its quotes.
    assert_eq!(*world.bucket.calls.borrow(), [166, 84]);
}
