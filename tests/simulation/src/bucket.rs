//! R2: its limits, and all that it may do instead of what it was asked.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use consumer::{Bucket, DeleteCall, Group, ListCall, Listing};
use ledger::ListedObject;
use protocol::limits::{DELETE_KEYS_MAX, LIST_OBJECTS_MAX};
use protocol::{ObjectKey, R2Error, Timestamp};

use crate::counts::{Call, Count};
use crate::fault::Fault;
use crate::plant::Plant;
use crate::sim::Sim;
use crate::world::World;

/// How long R2 wants between two writes to one key, in milliseconds.
const SPACING_MS: u64 = 1_000;

/// When an object was uploaded, by the Workers' clock and by R2's.
#[derive(Clone, Copy)]
pub(crate) struct Object {
    pub(crate) uploaded_at: u64,
    pub(crate) shown_at: u64,
}

impl Object {
    /// Whether it is, by either clock.
    pub(crate) fn is_older_than(&self, at: u64) -> bool {
        self.uploaded_at <= at && self.shown_at <= at
    }
}

/// What the bucket holds, and since when.
#[derive(Default)]
pub(crate) struct BucketState {
    pub(crate) objects: RefCell<BTreeMap<String, Object>>,
    pub(crate) written_at: RefCell<BTreeMap<String, u64>>,
    pub(crate) locked: BTreeSet<String>,
    /// From when on nothing is locked any more.
    pub(crate) unlocked_at: u64,
    /// Larger calls fail with 10001.
    pub(crate) call_max: usize,
    /// A listing shows no more.
    pub(crate) list_max: usize,
    /// How much R2's clock is ahead of the Workers', in milliseconds.
    pub(crate) ahead_ms: i64,
}

impl BucketState {
    pub(crate) fn upload(&self, key: &str, sim: &Sim) {
        sim.note(|| format!("upload: {key:?}"));
        let (uploaded_at, ahead) = (sim.now(), self.ahead_ms);
        let object = Object { uploaded_at, shown_at: uploaded_at.saturating_add_signed(ahead) };
        self.objects.borrow_mut().insert(key.to_owned(), object);
        self.written_at.borrow_mut().insert(key.to_owned(), sim.now());
    }

    pub(crate) fn is_locked(&self, key: &str, now: u64) -> bool {
        now < self.unlocked_at && self.locked.contains(key)
    }
}

/// What the oracle knows of an invocation of the consumer.
pub(crate) struct Invocation {
    pub(crate) id: u64,
    pub(crate) started_at: u64,
    /// The chunks that it was given, and how often each was.
    pub(crate) chunks: Vec<(Rc<GivenChunk>, u32)>,
    /// When it looked at a key, and when the object was uploaded that it saw: each time, since the chunks of a batch look for
    /// themselves.
    pub(crate) looked: RefCell<BTreeMap<String, Vec<Look>>>,
}

/// When a look was begun, and when the object was uploaded that it saw.
pub(crate) type Look = (u64, Option<u64>);

pub(crate) struct GivenChunk {
    pub(crate) deletion: String,
    pub(crate) generation: u32,
    pub(crate) keys: BTreeSet<String>,
}

impl Invocation {
    pub(crate) fn new(sim: &Sim, chunks: impl Iterator<Item = (Rc<GivenChunk>, u32)>) -> Self {
        Self {
            id: sim.next_number(),
            started_at: sim.now(),
            chunks: chunks.collect(),
            looked: RefCell::default(),
        }
    }
}

/// The bucket as one invocation has it.
pub(crate) struct SimBucket {
    world: Rc<World>,
    invocation: Rc<Invocation>,
}

/// What a call does.
#[derive(Clone, Copy)]
enum Effect {
    None,
    Some,
    All,
}

impl SimBucket {
    pub(crate) fn new(world: &Rc<World>, invocation: &Rc<Invocation>) -> Self {
        Self { world: Rc::clone(world), invocation: Rc::clone(invocation) }
    }

    fn latency(&self) -> u64 {
        let sim = &self.world.sim;
        let slow = if sim.fails(Fault::R2Slow) { sim.between(500, 70_000) } else { 0 };
        slow + sim.between(1, 120)
    }

    /// Somebody else uploads one of these keys in a moment.
    fn maybe_upload<'a>(&self, mut keys: impl ExactSizeIterator<Item = &'a str>) {
        let (world, sim) = (&self.world, &self.world.sim);
        if !sim.fails(Fault::Upload) {
            return;
        }
        let at = sim.draw_fault(|rng| rng.usize(..keys.len().max(1)));
        let Some(key) = keys.nth(at).map(str::to_owned) else { return };
        let wait = sim.draw_fault(|rng| if rng.bool() { rng.u64(0..200) } else { rng.u64(0..5_000) });
        let world = Rc::clone(world);
        sim.spawn(async move {
            world.sim.sleep(wait).await;
            world.bucket.upload(&key, &world.sim);
        });
    }

    /// What a call that has just arrived does, and what is said of it.
    fn decide(world: &World, keys: &[String]) -> (Effect, Result<(), R2Error>) {
        let (sim, now) = (&world.sim, world.sim.now());
        let half = |rng: &mut fastrand::Rng| match rng.u8(0..3) {
            0 => Effect::None,
            1 => Effect::Some,
            _ => Effect::All,
        };
        let transient = || {
            let errors = [
                R2Error::Internal,
                R2Error::ServiceUnavailable,
                R2Error::ClientDisconnect,
                R2Error::Other(0),
            ];
            errors.get(sim.draw_fault(|rng| rng.usize(..errors.len()))).copied().unwrap_or(R2Error::Internal)
        };
        if keys.len() > world.bucket.call_max {
            return (Effect::None, Err(R2Error::Internal));
        }
        let written_at = world.bucket.written_at.borrow();
        if keys.iter().any(|key| written_at.get(key).is_some_and(|at| now - at < SPACING_MS)) {
            sim.happened(Fault::Throttled);
            return (Effect::None, Err(R2Error::TooManyRequests));
        }
        let objects = world.bucket.objects.borrow();
        if keys.iter().any(|key| world.bucket.is_locked(key, now) && objects.contains_key(key)) {
            sim.happened(Fault::Locked);
            return (sim.draw_fault(half), Err(R2Error::ObjectLocked));
        }
        if sim.fails(Fault::R2Forbids) {
            return (Effect::None, Err(R2Error::AccessDenied));
        }
        if sim.fails(Fault::R2Refuses) {
            return (Effect::None, Err(transient()));
        }
        if sim.fails(Fault::R2Unsure) {
            return (sim.draw_fault(half), Err(transient()));
        }
        (Effect::All, Ok(()))
    }

    fn carry_out(
        world: &World,
        invocation: &Invocation,
        is_waited_for: bool,
        keys: &[String],
    ) -> Result<(), R2Error> {
        let (effect, answer) = Self::decide(world, keys);
        let now = world.sim.now();
        for key in keys {
            let is_hit = match effect {
                Effect::None => false,
                Effect::Some => world.sim.draw_fault(fastrand::Rng::bool),
                Effect::All => true,
            };
            if !is_hit || (answer.is_err() && world.bucket.is_locked(key, now)) {
                continue;
            }
            world.bucket.written_at.borrow_mut().insert(key.clone(), now);
            let removed = world.bucket.objects.borrow_mut().remove(key);
            if let Some(object) = removed {
                world.sim.note(|| format!("gone: {key:?}, by invocation {}", invocation.id));
                world.oracle.removed(invocation, is_waited_for, key, object, &world.sim);
            }
        }
        world
            .sim
            .note(|| format!("delete of {} keys by invocation {}: {answer:?}", keys.len(), invocation.id));
        answer
    }
}

impl Bucket for SimBucket {
    async fn delete(&self, call: DeleteCall<'_>) -> Result<(), R2Error> {
        let (world, sim) = (&self.world, &self.world.sim);
        let keys: Vec<String> = call.keys().map(str::to_owned).collect();
        if !(1..=DELETE_KEYS_MAX).contains(&keys.len()) {
            sim.violate(|| format!("a delete of {} keys", keys.len()));
        }
        sim.count(Count::DeleteCalls);
        let within = sim.enter(Call::Delete);
        let _call = world.oracle.call_begins(&self.invocation, &keys, sim);
        self.maybe_upload(call.keys());
        let (there, back) = (self.latency(), self.latency());
        let answer = if sim.fails(Fault::R2Zombie) {
            let done = Rc::new(Cell::new(None));
            let (world, invocation, told) =
                (Rc::clone(world), Rc::clone(&self.invocation), Rc::downgrade(&done));
            sim.spawn(async move {
                world.sim.sleep(there).await;
                let answer = Self::carry_out(&world, &invocation, told.strong_count() > 0, &keys);
                // Who still waits has it.
                if let Some(told) = told.upgrade() {
                    told.set(Some(answer));
                }
            });
            sim.sleep(there + back).await;
            done.take().unwrap_or(Err(R2Error::Internal))
        } else {
            sim.sleep(there).await;
            let answer = Self::carry_out(world, &self.invocation, true, &keys);
            within.take_effect();
            sim.sleep(back).await;
            answer
        };
        if world.plant == Some(Plant::TakesErrorsForSuccess) { Ok(()) } else { answer }
    }

    async fn uploaded_at(&self, key: &ObjectKey<'_>) -> Result<Option<Timestamp>, R2Error> {
        let (world, sim) = (&self.world, &self.world.sim);
        let (key, began_at) = (key.as_str(), sim.now());
        sim.count(Count::Looks);
        let within = sim.enter(Call::Look);
        self.maybe_upload(std::iter::once(key));
        sim.sleep(self.latency()).await;
        let found = world.bucket.objects.borrow().get(key).map(|object| object.shown_at);
        within.take_effect();
        let blind = sim.fails(Fault::R2Blind);
        sim.sleep(self.latency()).await;
        if blind {
            return Err(R2Error::ServiceUnavailable);
        }
        self.invocation.looked.borrow_mut().entry(key.to_owned()).or_default().push((began_at, found));
        Ok(found.map(|at| {
            Timestamp::from_millis(match world.plant {
                Some(Plant::FenceIsBlind) => 0,
                Some(Plant::FenceIsLax) => at - 3_000,
                _ => at,
            })
        }))
    }

    async fn list(&self, call: &ListCall<'_>) -> Result<Listing, R2Error> {
        let (world, sim, began_at) = (&self.world, &self.world.sim, self.world.sim.now());
        let ListCall { prefix, start_after, limit, delimiter } = *call;
        if !(1..=LIST_OBJECTS_MAX).contains(&limit) {
            sim.violate(|| format!("a listing of {limit} objects"));
        }
        sim.count(Count::Listings);
        let within = sim.enter(Call::List);
        sim.sleep(self.latency()).await;
        let (mut listing, mut seen) = (Listing::default(), Vec::new());
        for (key, &Object { shown_at: uploaded_at, .. }) in &*world.bucket.objects.borrow() {
            if !key.starts_with(prefix) || start_after.is_some_and(|after| key.as_str() <= after) {
                continue;
            }
            let group = delimiter.and_then(|delimiter| {
                let at = key.get(prefix.len()..)?.find(delimiter)?;
                key.get(..prefix.len() + at + delimiter.len())
            });
            if group.is_some() && listing.groups.last().map(|Group(last)| last.as_str()) == group {
                continue;
            }
            if listing.objects.len() + listing.groups.len() == limit.min(world.bucket.list_max) {
                listing.truncated = true;
                break;
            }
            if let Some(group) = group {
                listing.groups.push(Group(group.to_owned()));
                continue;
            }
            seen.push((key.clone(), uploaded_at));
            let shown = if world.plant == Some(Plant::ListingsShowOldTimes) { 0 } else { uploaded_at };
            let uploaded_at = Timestamp::from_millis(shown);
            listing.objects.push(ListedObject { key: key.clone(), size: key.len() as u64, uploaded_at });
        }
        within.take_effect();
        self.maybe_upload(seen.iter().map(|(key, _)| key.as_str()));
        let blind = sim.fails(Fault::R2Blind);
        sim.sleep(self.latency()).await;
        if blind {
            return Err(R2Error::Internal);
        }
        for (key, uploaded_at) in seen {
            self.invocation.looked.borrow_mut().entry(key).or_default().push((began_at, Some(uploaded_at)));
        }
        Ok(listing)
    }
}
