use std::collections::{BTreeMap, BTreeSet};

use futures::executor::block_on;
use ledger::ListedObject;
use proptest::prelude::*;
use protocol::ObjectKey;

use super::*;
use crate::bucket::{DeleteCall, Listing};
use crate::delete::Looks;
use crate::testing::FakeHost;

/// A bucket as R2 describes it: names that Unicode takes for the same are, and an object is shown by the one it was last uploaded
/// under. It can list in more than one order, and others upload while it is asked.
struct Bucket<'a> {
    host: &'a FakeHost,
    /// By what Unicode takes a name for: as it is shown, and since when it is there.
    objects: RefCell<BTreeMap<String, (String, Timestamp)>>,
    by_utf_16: bool,
    list_max: usize,
    answer_ms: u64,
    /// Whether its listings are answers.
    lists: bool,
    /// What is uploaded when so many questions were asked, before and after R2 has looked.
    uploads: RefCell<BTreeMap<(usize, bool), String>>,
    asked: Cell<usize>,
    /// Every object that was under a name, and when it was uploaded.
    history: RefCell<BTreeSet<(String, Option<Timestamp>)>>,
}

/// What the names of these tests are to Unicode (its form NFC).
fn canonical(name: &str) -> String {
    name.replace("e\u{301}", "é").replace('\u{212a}', "K")
}

impl Bucket<'_> {
    fn upload(&self, name: &str) {
        let at = self.host.now();
        self.objects.borrow_mut().insert(canonical(name), (name.to_owned(), at));
        self.history.borrow_mut().insert((canonical(name), Some(at)));
    }

    /// A question is asked: others upload before and after it is looked into.
    fn ask<T>(&self, look_into: impl FnOnce(&BTreeMap<String, (String, Timestamp)>) -> T) -> T {
        let upload = |after| {
            if let Some(name) = self.uploads.borrow_mut().remove(&(self.asked.get(), after)) {
                self.host.advance(1);
                self.upload(&name);
            }
        };
        upload(false);
        let found = look_into(&self.objects.borrow());
        upload(true);
        self.asked.set(self.asked.get() + 1);
        self.host.advance(self.answer_ms);
        found
    }
}

impl crate::Bucket for Bucket<'_> {
    async fn delete(&self, _: DeleteCall<'_>) -> Result<(), R2Error> {
        Err(R2Error::Internal)
    }

    async fn uploaded_at(&self, key: &ObjectKey<'_>) -> Result<Option<Timestamp>, R2Error> {
        Ok(self.ask(|objects| objects.get(&canonical(key.as_str())).map(|&(_, at)| at)))
    }

    async fn list(&self, call: &ListCall<'_>) -> Result<Listing, R2Error> {
        let order = |name: &str| -> Vec<u32> {
            let utf_16 = name.encode_utf16().map(u32::from);
            if self.by_utf_16 { utf_16.collect() } else { name.chars().map(u32::from).collect() }
        };
        assert_eq!(call.prefix, "");
        let mut ahead: Vec<_> = self.ask(|objects| {
            let after = call.start_after.map(|after| order(&canonical(after)));
            objects
                .iter()
                .map(|(name, object)| (order(name), object.clone()))
                .filter(|(place, _)| after.as_ref().is_none_or(|after| place > after))
                .collect()
        });
        if !self.lists {
            return Err(R2Error::Internal);
        }
        ahead.sort();
        let most = call.limit.min(self.list_max);
        let truncated = ahead.len() > most;
        let objects = ahead.into_iter().take(most);
        let objects = objects.map(|(_, (key, uploaded_at))| ListedObject { key, size: 0, uploaded_at });
        Ok(Listing { objects: objects.collect(), groups: Vec::new(), truncated })
    }
}

impl<'a> Bucket<'a> {
    fn new(host: &'a FakeHost) -> Self {
        Bucket {
            host,
            objects: RefCell::default(),
            by_utf_16: false,
            list_max: LIST_OBJECTS_MAX,
            answer_ms: 1,
            lists: true,
            uploads: RefCell::default(),
            asked: Cell::default(),
            history: RefCell::default(),
        }
    }

    /// Looks at all of these, for as long as it takes.
    fn look_at(&self, names: &[String], requested_at: Timestamp) -> Look {
        let keys: Vec<_> = names.iter().map(|name| ObjectKey::parse(name.as_str()).unwrap()).collect();
        let (mut sum, mut pages) = (Look::default(), Pages::new());
        sum.rest = (0..keys.len()).collect();
        while !sum.rest.is_empty() {
            let attempt = Attempt {
                keys: &keys,
                delivery: None,
                undecided: Vec::new(),
                requested_at,
                looks: Looks::Never,
                number: 1,
                last_error: None,
                deadline: self.host.now().plus_millis(60_000),
            };
            let began_at = self.host.now();
            let allowance = Allowance::of(1, 0);
            let look = block_on(look(&attempt, &sum.rest, &mut pages, &allowance, self, self.host));
            assert!(self.host.now() <= began_at.plus_millis(LOOK_MS_MAX), "older than it may be");
            assert!(look.rest.len() < sum.rest.len() || look.lists == 1, "it goes on for ever");
            sum.old.extend(look.old);
            sum.absent.extend(look.absent);
            sum.newer.extend(look.newer);
            sum.heads += look.heads;
            sum.lists += look.lists;
            sum.rest = look.rest;
        }
        sum
    }
}

/// A chunk and a bucket.
#[derive(Clone, Debug)]
struct Scene {
    wanted: BTreeSet<String>,
    /// What is there, and whether it is older than the request.
    objects: BTreeMap<String, bool>,
    uploads: BTreeMap<(usize, bool), String>,
    by_utf_16: bool,
    list_max: usize,
    answer_ms: u64,
}

fn names() -> impl Strategy<Value = String> {
    let ascii = || prop::sample::select(vec!["a", "b", "c", "K", "/", "\0", "~", "L"]);
    let other = prop::sample::select(vec!["é", "e\u{301}", "\u{212a}", "～", "😀"]);
    let plain = || prop::collection::vec(ascii(), 1..4).prop_map(|parts| parts.concat());
    let mixed =
        (plain(), other, plain()).prop_map(|(before, other, after)| format!("{before}{other}{after}"));
    prop_oneof![12 => plain(), 1 => mixed, 1 => Just("\u{212a}".to_owned())]
}

fn scenes() -> impl Strategy<Value = Scene> {
    (
        prop::collection::btree_set(names(), 1..120),
        prop::collection::btree_map(names(), any::<bool>(), 0..200),
        prop::collection::btree_map((0_usize..60, any::<bool>()), names(), 0..20),
        any::<bool>(),
        prop_oneof![Just(LIST_OBJECTS_MAX), 1_usize..60],
        prop::sample::select(vec![1_u64, 100, 1_500]),
    )
        .prop_map(|(wanted, mut objects, uploads, by_utf_16, list_max, answer_ms)| {
            // Most of what is wanted is there.
            objects.extend(
                wanted
                    .iter()
                    .enumerate()
                    .filter(|(n, _)| n % 5 > 0)
                    .map(|(n, name)| (name.clone(), n % 7 > 0)),
            );
            Scene { wanted, objects, uploads, by_utf_16, list_max, answer_ms }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whatever is in the bucket and whatever comes meanwhile: a look finds what one head for each key could have found in its
    /// time, of every key, and asks no more often, but for the first page.
    #[test]
    fn a_look_by_pages_finds_what_a_look_at_each_key_finds(scene in scenes()) {
        let host = FakeHost::default();
        let requested_at = host.now();
        let bucket = Bucket {
            by_utf_16: scene.by_utf_16,
            list_max: scene.list_max,
            answer_ms: scene.answer_ms,
            uploads: RefCell::new(scene.uploads),
            ..Bucket::new(&host)
        };
        host.advance(1_000);
        for (name, is_old) in scene.objects {
            bucket.upload(&name);
            if is_old {
                bucket.objects.borrow_mut().insert(canonical(&name), (name, requested_at));
            }
        }
        let names: Vec<String> = scene.wanted.into_iter().collect();
        // Two names of one object are looked at one after the other.
        let mut history: BTreeMap<String, BTreeSet<Option<Timestamp>>> = BTreeMap::new();
        for name in names.iter().map(|name| canonical(name)) {
            let there = bucket.objects.borrow().get(&name).map(|&(_, at)| at);
            history.entry(name).or_default().insert(there);
        }
        bucket.history.borrow_mut().clear();

        let look = bucket.look_at(&names, requested_at);

        for (name, at) in bucket.history.take() {
            history.entry(name).or_default().insert(at);
        }
        let could_be = |position: usize, found: &dyn Fn(Option<Timestamp>) -> bool| {
            history[&canonical(&names[position])].iter().any(|&at| found(at))
        };
        for &at in &look.old {
            prop_assert!(could_be(at, &|found| found.is_some_and(|found| found <= requested_at)), "{:?}", names[at]);
        }
        for &at in &look.absent {
            prop_assert!(could_be(at, &|found| found.is_none()), "{:?} is there", names[at]);
        }
        for &(at, uploaded_at) in &look.newer {
            prop_assert!(uploaded_at > requested_at && could_be(at, &|found| found == Some(uploaded_at)));
        }
        let newer = look.newer.iter().map(|&(at, _)| at);
        let mut told: Vec<usize> = look.old.iter().chain(&look.absent).copied().chain(newer).collect();
        told.sort_unstable();
        prop_assert_eq!(told, (0..names.len()).collect::<Vec<_>>(), "each once");
        prop_assert_eq!(look.heads + look.lists, bucket.asked.get());
        prop_assert!(look.heads + look.lists <= names.len() + 1, "{} and {}", look.heads, look.lists);
    }
}

/// What a thousand keys cost: heads, and pages.
fn cost(others_between: usize, there: impl Fn(usize) -> bool, lists: bool) -> (usize, usize) {
    let host = FakeHost::default();
    let bucket = Bucket { lists, ..Bucket::new(&host) };
    let names: Vec<String> = (0..1_000).map(|n| format!("proj_42/{n:04}")).collect();
    for (_, name) in names.iter().enumerate().filter(|&(n, _)| there(n)) {
        bucket.upload(name);
        for other in 0..others_between {
            bucket.upload(&format!("{name}.{other:03}"));
        }
    }
    let shuffled: Vec<String> = (0..1_000).map(|n| names[n * 613 % 1_000].clone()).collect();
    let look = bucket.look_at(&shuffled, host.now());
    assert_eq!(look.old.len(), (0..1_000).filter(|&n| there(n)).count());
    (look.heads, look.lists)
}

#[test]
fn keys_side_by_side_take_a_page_or_two_and_those_far_apart_a_head_each() {
    assert_eq!(cost(0, |_| true, true), (0, 1));
    assert_eq!(cost(0, |_| false, true), (0, 1), "what is not there takes no more");
    assert_eq!(cost(1, |_| true, true), (0, 2));
    assert_eq!(cost(40, |n| n % 100 > 0, true), (0, 41));
    // A page shows nine of them at most.
    assert_eq!(cost(120, |_| true, true), (1_000 - 9 - 8 - 8, 3));
    assert_eq!(cost(0, |_| true, false), (1_000, 1), "what cannot be listed is not listed again");
}
