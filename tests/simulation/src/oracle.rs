//! What must hold, judged by what can be seen from outside: requests and answers, deliveries, calls of the bucket and what
//! they remove, and events. It never asks the code what it thinks.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ledger::DeletionRecord;
use protocol::{Fence, State, rfc3339};
use serde_json::Value;

use crate::Mode;
use crate::bucket::{Invocation, Object};
use crate::counts::Count;
use crate::sim::Sim;
use crate::workload::Case;
use crate::world::World;

/// How old a look may be when the call begins that relies on it: a second of looks, and five for the last of them to answer.
const LOOK_AGE_MAX_MS: u64 = 6_000;

/// How long an invocation waits for a call of the bucket; what that does later, it does when nobody waits for it any more.
const CALL_MAX_MS: u64 = 30_000;

/// How old a request may be for `auto` not to look.
const PROMPT_MS: u64 = 60_000;

#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) cases: RefCell<Vec<Rc<Case>>>,
    seen: RefCell<BTreeMap<String, Seen>>,
    /// The calls under way: a key, and the invocation that has called for it.
    calls: Rc<RefCell<BTreeMap<String, u64>>>,
    finished: RefCell<BTreeMap<(String, u32), u32>>,
    noticed: RefCell<BTreeSet<String>>,
}

/// What was last seen of a deletion.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) case: usize,
    pub(crate) state: State,
    generation: u64,
    counts: Counts,
    pub(crate) requested_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    total: u64,
    pending: u64,
    deleted: u64,
    skipped: u64,
    failed: u64,
    cancelled: u64,
}

impl Counts {
    fn of(view: &Value) -> Option<Self> {
        let counts = view.get("counts")?;
        let count = |name: &str| counts.get(name)?.as_u64();
        Some(Self {
            total: count("total")?,
            pending: count("pending")?,
            deleted: count("deleted")?,
            skipped: count("skipped")?,
            failed: count("failed")?,
            cancelled: count("cancelled")?,
        })
    }
}

fn is_final(state: State) -> bool {
    [State::Succeeded, State::Failed, State::Cancelled, State::Planned].contains(&state)
}

/// A state by its name in the API.
fn state_of(name: &str) -> Option<State> {
    State::ALL.into_iter().find(|state| state.as_str() == name)
}

/// A call of the bucket that is under way.
pub(crate) struct CallUnderWay {
    calls: Rc<RefCell<BTreeMap<String, u64>>>,
    keys: Vec<String>,
    invocation: u64,
}

impl Drop for CallUnderWay {
    fn drop(&mut self) {
        let mut calls = self.calls.borrow_mut();
        for key in &self.keys {
            if calls.get(key) == Some(&self.invocation) {
                calls.remove(key);
            }
        }
    }
}

impl Oracle {
    /// A delete call begins: each of its keys was asked for, is not over, and was looked at where the fence looks.
    pub(crate) fn call_begins(&self, invocation: &Invocation, keys: &[String], sim: &Sim) -> CallUnderWay {
        let cases = self.cases.borrow();
        for key in keys {
            let covering: Vec<_> =
                cases.iter().filter(|case| case.covers(key, invocation.started_at)).collect();
            if covering.is_empty() {
                sim.violate(|| {
                    format!("stray: a call for {key:?}, which nobody has asked for, or has any more")
                });
            }
            if !covering.iter().any(|case| is_excused(case, key, invocation, Some(sim.now()))) {
                Self::check_look(&covering, key, invocation, sim);
            }
            let holder = self.calls.borrow_mut().insert(key.clone(), invocation.id);
            let others = cases.iter().filter(|case| case.asks_for(key)).collect::<Vec<_>>();
            if let (Some(holder), [only]) = (holder, others.as_slice())
                && holder != invocation.id
                && only.is_one_deletion()
            {
                sim.violate(|| {
                    format!("two at once: invocations {holder} and {} call for {key:?}", invocation.id)
                });
            }
        }
        CallUnderWay { calls: Rc::clone(&self.calls), keys: keys.to_vec(), invocation: invocation.id }
    }

    fn check_look(covering: &[&Rc<Case>], key: &str, invocation: &Invocation, sim: &Sim) {
        let bound = covering.iter().map(|case| case.requested_by(key, sim.now())).max().unwrap_or_default();
        let looked = invocation.looked.borrow();
        let looks = looked.get(key).map(Vec::as_slice).unwrap_or_default();
        let recent: Vec<_> = looks.iter().filter(|(at, _)| sim.now() - at <= LOOK_AGE_MAX_MS).collect();
        if recent.is_empty() {
            let times = looks.len();
            sim.violate(|| {
                format!("the fence: a call for {key:?}, looked at {times} times, and not just before")
            });
        } else if recent.iter().all(|(_, saw)| saw.is_some_and(|saw| saw > bound)) {
            sim.violate(|| format!("the fence: a call for {key:?}, which was seen to be newer"));
        }
    }

    /// An object is gone, by a call that its invocation waits for, or has waited for.
    pub(crate) fn removed(
        &self,
        invocation: &Invocation,
        is_waited_for: bool,
        key: &str,
        object: Object,
        sim: &Sim,
    ) {
        let Object { uploaded_at, shown_at } = object;
        sim.count(Count::ObjectsRemoved);
        let cases = self.cases.borrow();
        let covering: Vec<_> = cases.iter().filter(|case| case.covers(key, invocation.started_at)).collect();
        if covering.is_empty() {
            return sim.violate(|| format!("stray: {key:?} is gone, which nobody has asked for"));
        }
        let is_old = |at: u64| covering.iter().any(|case| at <= case.requested_by(key, sim.now()));
        if !is_old(uploaded_at) && is_old(shown_at) {
            sim.count(Count::RemovedBySlowClock);
        }
        if is_old(shown_at) || covering.iter().any(|case| is_excused(case, key, invocation, None)) {
            return;
        }
        let looked = invocation.looked.borrow();
        match looked.get(key).and_then(|looks| looks.iter().rev().find(|(at, _)| *at <= uploaded_at)) {
            Some((at, _)) => {
                let window = sim.now() - at;
                sim.count(Count::UploadsBetweenLookAndEffect);
                sim.see_window(window, is_waited_for);
                if !is_waited_for {
                    sim.count(Count::UploadsBeforeALateEffect);
                } else if window > LOOK_AGE_MAX_MS + CALL_MAX_MS {
                    sim.violate(|| format!("the fence: {key:?} is gone {window} ms after its look"));
                }
            }
            None => {
                sim.violate(|| format!("the fence: {key:?} is gone, uploaded after every request for it"));
            }
        }
    }

    /// How many deletions were seen.
    pub(crate) fn deletions(&self) -> usize {
        self.seen.borrow().len()
    }

    /// Whose a deletion is, as far as its client knows.
    pub(crate) fn case_of(&self, id: &str) -> Option<Rc<Case>> {
        let cases = self.cases.borrow();
        cases.iter().find(|case| case.progress.borrow().id.as_deref() == Some(id)).cloned()
    }

    /// Whether a deletion was seen to be over.
    pub(crate) fn is_over(&self, id: &str) -> bool {
        self.seen.borrow().get(id).is_some_and(|seen| is_final(seen.state))
    }

    /// A deletion was told to be over.
    pub(crate) fn finished_event(&self, id: &str, generation: u32, sim: &Sim) {
        let mut finished = self.finished.borrow_mut();
        let count = finished.entry((id.to_owned(), generation)).or_default();
        *count += 1;
        if *count > 1 {
            sim.violate(|| format!("{id} was told to be over {count} times"));
        }
    }

    /// The endpoint was told that a deletion is over.
    pub(crate) fn noticed(&self, id: &str) {
        self.noticed.borrow_mut().insert(id.to_owned());
    }

    /// A deletion as an answer of the API shows it, which may have been overtaken on its way.
    pub(crate) fn see_answer(&self, view: &Value, world: &World) {
        if let Some((case, id, seen)) = self.understand(view, world)
            && let Some(wrong) = check_counts(&case, &seen, world)
        {
            wrong_view(&case, &id, &seen, wrong, &world.sim);
        }
    }

    /// A deletion as the API shows it at this moment.
    pub(crate) fn see(&self, view: &Value, world: &World) {
        if let Some((case, id, seen)) = self.understand(view, world) {
            self.see_now(&case, &id, &seen, world);
        }
    }

    /// A deletion as the ledger has it at this moment.
    pub(crate) fn see_record(&self, record: &DeletionRecord, world: &World) {
        let number = record.labels.get("case").and_then(|case| case.parse().ok());
        let case = number.and_then(|number: usize| self.cases.borrow().get(number).cloned());
        let Some(case) = case else {
            return world.sim.violate(|| format!("stray: {} is nobody's", record.id));
        };
        let protocol::Counts { total, pending, deleted, skipped, failed, cancelled } = record.counts;
        let seen = Seen {
            case: case.number,
            state: record.state,
            generation: record.generation.into(),
            counts: Counts { total, pending, deleted, skipped, failed, cancelled },
            requested_at: record.requested_at.as_millis(),
        };
        self.see_now(&case, record.id.as_str(), &seen, world);
    }

    fn see_now(&self, case: &Case, id: &str, seen: &Seen, world: &World) {
        let before = self.seen.borrow_mut().insert(id.to_owned(), seen.clone());
        let from = before.as_ref().map(|before| before.state);
        if from != Some(seen.state) {
            world.sim.count_change(from, seen.state);
        }
        if let Some(wrong) = check_counts(case, seen, world).or_else(|| check_course(case, &before?, seen)) {
            wrong_view(case, id, seen, wrong, &world.sim);
        }
    }

    fn understand(&self, view: &Value, world: &World) -> Option<(Rc<Case>, String, Seen)> {
        let text = |name: &str| view.get(name).and_then(Value::as_str).unwrap_or_default();
        let (id, state) = (text("id").to_owned(), state_of(text("state")));
        let number = view.get("labels").and_then(|labels| labels.get("case")?.as_str()?.parse().ok());
        let counts = Counts::of(view);
        let requested_at = rfc3339::parse(text("requested_at"));
        let cases = self.cases.borrow();
        let case = number.and_then(|number: usize| cases.get(number));
        let (Some(case), Some(state), Some(counts), Some(requested_at)) = (case, state, counts, requested_at)
        else {
            world.sim.violate(|| format!("a deletion that nobody can read: {view}"));
            return None;
        };
        let seen = Seen {
            case: case.number,
            state,
            generation: view.get("generation").and_then(Value::as_u64).unwrap_or_default(),
            counts,
            requested_at: requested_at.as_millis(),
        };
        Some((Rc::clone(case), id, seen))
    }

    /// After a look at every deletion: which cases are over.
    pub(crate) fn close(&self, sim: &Sim) {
        let seen = self.seen.borrow();
        for case in &*self.cases.borrow() {
            let mut of_case = seen.values().filter(|seen| seen.case == case.number).peekable();
            let is_over = of_case.peek().is_some() && of_case.all(|seen| is_final(seen.state));
            let progress = &mut *case.progress.borrow_mut();
            let may_close = progress.is_sent && progress.redriving == 0;
            progress.closed_at =
                (may_close && is_over).then_some(progress.closed_at.unwrap_or_else(|| sim.now()));
        }
    }

    /// Whether every deletion that there is is over.
    pub(crate) fn is_all_over(&self) -> bool {
        self.seen.borrow().values().all(|seen| is_final(seen.state))
            && self.cases.borrow().iter().all(|case| case.progress.borrow().is_sent)
    }

    /// What must hold when nothing is left to happen.
    pub(crate) fn finish(&self, world: &World) {
        let sim = &world.sim;
        for (id, seen) in &*self.seen.borrow() {
            let cases = self.cases.borrow();
            let Some(case) = cases.get(seen.case) else { continue };
            let progress = case.progress.borrow();
            let is_accepted = progress.is_accepted && progress.id.as_deref() == Some(id);
            let owes_end = match world.mode {
                Mode::QueueOnly => is_accepted && !progress.is_redrive_unsure,
                Mode::SelfHealing => true,
            };
            if owes_end && !is_final(seen.state) {
                sim.violate(|| {
                    format!(
                        "lost: {id} of case {} is {} for ever: {:?}",
                        case.number,
                        seen.state.as_str(),
                        seen.counts
                    )
                });
            }
            if is_accepted && !progress.may_be_cancelled && seen.counts.cancelled > 0 {
                sim.violate(|| format!("{id}: accepted, and cancelled by nobody"));
            }
            // A dry run of keys alone is over when it is answered.
            let is_told = !case.dry_run || !case.prefixes.is_empty();
            if is_accepted
                && is_told
                && world.mode == Mode::SelfHealing
                && world.notices.is_some()
                && !self.noticed.borrow().contains(id)
            {
                sim.violate(|| format!("{id}: over, and the endpoint was never told"));
            }
            if is_final(seen.state) {
                check_lists(case, id, seen, world);
            }
        }
        for case in &*self.cases.borrow() {
            let ids = self.seen.borrow().values().filter(|seen| seen.case == case.number).count();
            if ids > 1 && case.idempotency_key.is_some() {
                sim.violate(|| format!("case {}: {ids} deletions for one Idempotency-Key", case.number));
            }
            if ids == 0 && case.progress.borrow().is_accepted {
                sim.violate(|| format!("case {}: accepted, and forgotten", case.number));
            }
        }
    }
}

/// Whether nobody need look at a key for this case: the fence is off, or it is `auto` and this is the prompt first attempt.
fn is_excused(case: &Case, key: &str, invocation: &Invocation, now: Option<u64>) -> bool {
    match case.fence {
        Fence::Off => true,
        Fence::Always => false,
        Fence::Auto => {
            let first = |(chunk, attempts): &(Rc<crate::bucket::GivenChunk>, u32)| {
                *attempts == 1
                    && chunk.generation == 0
                    && chunk.keys.contains(key)
                    && case.has_id(&chunk.deletion)
            };
            let is_prompt = now.is_none_or(|now| now - case.requested_by(key, now).min(now) <= PROMPT_MS);
            case.keys.contains(key)
                && case.delay_seconds == 0
                && is_prompt
                && invocation.chunks.iter().any(first)
        }
    }
}

fn wrong_view(case: &Case, id: &str, seen: &Seen, wrong: &str, sim: &Sim) {
    sim.violate(|| {
        format!("{id} of case {}: {wrong}: {:?} {:?}", case.number, seen.state.as_str(), seen.counts)
    });
}

/// What is wrong with a deletion's counts, whatever came before.
fn check_counts(case: &Case, seen: &Seen, world: &World) -> Option<&'static str> {
    let Counts { total, pending, deleted, skipped, failed, cancelled } = seen.counts;
    if total != pending + deleted + skipped + failed + cancelled {
        return Some("the counts do not add up");
    }
    if is_final(seen.state) && pending > 0 {
        return Some("over, with keys pending");
    }
    if case.dry_run {
        // What fails of it is a prefix that could not be counted.
        return (deleted + skipped > 0).then_some("a dry run has done something");
    }
    if !case.prefixes.is_empty() {
        return None;
    }
    let keys = case.keys.len() as u64;
    if total > keys || (case.parts.is_empty() && total != keys) {
        return Some("not the number of keys that was asked for");
    }
    let objects = world.bucket.objects.borrow();
    let is_there =
        |key: &&String| objects.get(*key).is_some_and(|object| object.is_older_than(seen.requested_at));
    let there = case.keys.iter().filter(is_there).count() as u64;
    (deleted > keys - there).then_some("more is said to be deleted than is gone")
}

/// What is wrong with what has become of a deletion.
fn check_course(case: &Case, before: &Seen, after: &Seen) -> Option<&'static str> {
    let (old, new) = (before.counts, after.counts);
    if new.deleted < old.deleted {
        return Some("fewer are deleted than before");
    }
    // What a sweep has written down and not begun is not counted once its deletion is cancelled.
    let may_shrink =
        !case.prefixes.is_empty() && [State::Cancelling, State::Cancelled].contains(&after.state);
    if new.skipped < old.skipped || (new.total < old.total && !may_shrink) {
        return Some("a count has gone back");
    }
    if after.generation < before.generation || before.requested_at != after.requested_at {
        return Some("its request has changed");
    }
    if after.generation > before.generation {
        return None;
    }
    if new.failed < old.failed {
        return Some("fewer have failed than before");
    }
    let has_changed = before.state != after.state || old != new;
    (is_final(before.state) && has_changed).then_some("it has changed after its end")
}

/// What must hold of the keys of a deletion that is over, by the API's own lists.
fn check_lists(case: &Case, id: &str, seen: &Seen, world: &World) {
    let sim = &world.sim;
    let failures = world.read_list(id, "failures");
    let skips = world.read_list(id, "skipped");
    let key_of = |entry: &Value| entry.get("key").and_then(Value::as_str).unwrap_or_default().to_owned();
    let code_of = |entry: &Value| entry.get("code").and_then(Value::as_str).unwrap_or_default().to_owned();
    let of_prefix =
        |entry: &&Value| ["sweep_incomplete", "max_objects_exceeded"].contains(&code_of(entry).as_str());
    let failed: BTreeSet<String> = failures.iter().filter(|entry| !of_prefix(entry)).map(key_of).collect();
    let failed_prefixes: Vec<String> = failures.iter().filter(of_prefix).map(key_of).collect();
    let skipped: BTreeSet<String> = skips.iter().map(key_of).collect();
    let wrong =
        |text: &str| sim.violate(|| format!("{id} of case {}: {text}: {:?}", case.number, seen.counts));
    if (failures.len() as u64, skips.len() as u64) != (seen.counts.failed, seen.counts.skipped) {
        wrong("the lists are not as long as is counted");
    }
    if failed.len() + failed_prefixes.len() != failures.len() || skipped.len() != skips.len() {
        wrong("counted twice: a key is in a list twice");
    }
    if !failed.is_disjoint(&skipped) {
        wrong("counted twice: a key has failed and was skipped");
    }
    if failed.iter().chain(&skipped).any(|key| !case.asks_for(key)) {
        wrong("a list has a key that was not asked for");
    }
    for entry in &skips {
        let at = entry.get("uploaded_at").and_then(Value::as_str).and_then(rfc3339::parse);
        if at.is_none_or(|at| at.as_millis() <= seen.requested_at) {
            wrong("skipped, and not newer than the request");
        }
    }
    let given_up = sim.counted(Count::DeadLetters) > 0;
    for entry in &failures {
        match code_of(entry).as_str() {
            "object_locked" if world.bucket.locked.contains(&key_of(entry)) => {}
            "max_objects_exceeded" if case.max_objects.is_some() => {}
            "sweep_incomplete"
            | "storage_unavailable"
            | "throttled"
            | "not_configured"
            | "attempts_exhausted"
                if given_up => {}
            code => wrong(&format!("failed for no reason: {code}")),
        }
    }
    if case.dry_run || seen.counts.cancelled > 0 || seen.state == State::Cancelled {
        return;
    }
    // Under a brake, what could not be counted stops all of them.
    let is_stopped = case.max_objects.is_some() && !failed_prefixes.is_empty();
    let prefixes: &[String] = if is_stopped { &[] } else { &case.prefixes };
    let objects = world.bucket.objects.borrow();
    for (key, _) in objects.iter().filter(|(_, object)| object.is_older_than(seen.requested_at)) {
        let in_prefix = prefixes.iter().any(|prefix| key.starts_with(prefix));
        let is_told = failed.contains(key) || failed_prefixes.iter().any(|prefix| key.starts_with(prefix));
        if (case.keys.contains(key) || in_prefix) && !is_told {
            wrong(&format!("{key:?} is still there, and nobody says so"));
        }
    }
    if case.prefixes.is_empty()
        && seen.counts.total != case.keys.len() as u64
        && case.progress.borrow().is_accepted
    {
        wrong("over, without all keys");
    }
}
