//! What clients do in one schedule.

use std::cell::RefCell;
use std::collections::BTreeSet;

use fastrand::Rng;
use protocol::Fence;
use serde_json::{Value, json};

use crate::Mode;
use crate::sim::BEGINS_AT;
use crate::without::{Extra, Without};

/// A key that nobody ever asks for.
pub(crate) const BYSTANDER: &str = "safe/bystander";

/// Whose token a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// May do everything.
    Whole,
    /// May delete what begins with `a/`, and see its own deletions.
    Narrow,
    /// May only read.
    Reader,
}

/// How a deletion is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// `POST /v1/deletions`, a JSON body.
    Json,
    /// The same with a key a line.
    Lines,
    /// `POST /`, which waits for the end.
    Wait,
}

/// Something that a client wants deleted, and what has become of that as far as the client knows.
pub(crate) struct Case {
    pub(crate) number: usize,
    /// The keys that are named, of all parts.
    pub(crate) keys: BTreeSet<String>,
    /// The parts that they come in; none: they come as a whole.
    pub(crate) parts: Vec<Vec<String>>,
    pub(crate) prefixes: Vec<String>,
    pub(crate) fence: Fence,
    pub(crate) delay_seconds: u32,
    pub(crate) dry_run: bool,
    pub(crate) verify: bool,
    pub(crate) max_objects: Option<u64>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) token: Token,
    pub(crate) how: How,
    /// The dry run whose plan it carries out.
    pub(crate) plan_of: Option<usize>,
    pub(crate) starts_at: u64,
    /// How often the client asks before it gives up.
    pub(crate) tries: u32,
    /// How long after the request it changes its mind.
    pub(crate) cancels_after: Option<u64>,
    /// When it has failures sent again.
    pub(crate) redrives_after: Vec<u64>,
    pub(crate) progress: RefCell<Progress>,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Default)]
pub(crate) struct Progress {
    /// How many requests for a deletion were sent.
    pub(crate) requests: u32,
    pub(crate) is_in_flight: bool,
    pub(crate) last_answered_at: u64,
    /// The deletion, once the client knows it, and when it says that it was requested.
    pub(crate) id: Option<String>,
    pub(crate) requested_at: Option<u64>,
    /// When each of its parts was put for the last time, in order.
    pub(crate) parts_put: Vec<u64>,
    /// It has its 202, and all parts are sealed.
    pub(crate) is_accepted: bool,
    /// The client sends nothing more.
    pub(crate) is_sent: bool,
    pub(crate) cancelled_at: Option<u64>,
    pub(crate) may_be_cancelled: bool,
    /// How many redrives are under way that may open it again.
    pub(crate) redriving: u32,
    /// Nobody knows whether a redrive was begun.
    pub(crate) is_redrive_unsure: bool,
    pub(crate) closed_at: Option<u64>,
}

impl Case {
    /// Whether it is about this key at all.
    pub(crate) fn asks_for(&self, key: &str) -> bool {
        !self.dry_run
            && (self.keys.contains(key) || self.prefixes.iter().any(|prefix| key.starts_with(prefix)))
    }

    /// Whether an invocation that has begun then may delete this key for it.
    pub(crate) fn covers(&self, key: &str, invoked_at: u64) -> bool {
        let Progress { requests, cancelled_at, closed_at, .. } = *self.progress.borrow();
        self.asks_for(key)
            && requests > 0
            // What was asked for twice is cancelled once.
            && (!self.is_one_deletion() || cancelled_at.is_none_or(|at| invoked_at <= at))
            && closed_at.is_none_or(|at| invoked_at <= at)
    }

    /// The latest time that this key of it can have been requested at: a part's is requested by whoever puts the part.
    pub(crate) fn requested_by(&self, key: &str, now: u64) -> u64 {
        let progress = self.progress.borrow();
        if let Some(part) = self.parts.iter().position(|part| part.iter().any(|of_part| of_part == key)) {
            return progress.parts_put.get(part).copied().unwrap_or(now);
        }
        match progress.requested_at {
            Some(at) => at,
            None if progress.is_in_flight => now,
            None => progress.last_answered_at,
        }
    }

    /// Whether a deletion of this id can be its own. What the client does not know can be.
    pub(crate) fn has_id(&self, id: &str) -> bool {
        let progress = self.progress.borrow();
        !self.is_one_deletion() || progress.id.as_deref().is_none_or(|own| own == id)
    }

    /// Whether there can be no more than one deletion of it.
    pub(crate) fn is_one_deletion(&self) -> bool {
        self.idempotency_key.is_some() || self.progress.borrow().requests <= 1
    }

    /// The parameters of its request, where its keys come as lines.
    pub(crate) fn query(&self) -> String {
        let delay = if self.delay_seconds > 0 {
            format!("&delay_seconds={}", self.delay_seconds)
        } else {
            String::new()
        };
        format!("?fence={}&label.case={}{delay}", self.fence.as_str(), self.number)
    }

    /// The body of its request; `plan` is the dry run that it carries out.
    pub(crate) fn body(&self, plan: Option<&str>) -> Value {
        let mut body = json!({ "labels": { "case": self.number.to_string() }, "fence": self.fence.as_str() });
        let mut set = |name: &str, value: Value| {
            if let Some(body) = body.as_object_mut() {
                body.insert(name.to_owned(), value);
            }
        };
        if !self.parts.is_empty() {
            set("in_parts", true.into());
        } else if !self.keys.is_empty() {
            set("objectKeys", self.keys.iter().cloned().collect());
        }
        if let Some(plan) = plan {
            set("plan", plan.into());
        } else if !self.prefixes.is_empty() {
            set("prefixes", self.prefixes.iter().cloned().collect());
        }
        if self.delay_seconds > 0 {
            set("delay_seconds", self.delay_seconds.into());
        }
        if self.dry_run {
            set("dry_run", true.into());
        }
        if self.verify {
            set("verify", true.into());
        }
        if let Some(max_objects) = self.max_objects.filter(|_| plan.is_none()) {
            set("max_objects", max_objects.into());
        }
        body
    }
}

/// A whole schedule's work.
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub(crate) struct Workload {
    pub(crate) cases: Vec<Case>,
    /// What is there at the beginning.
    pub(crate) objects: Vec<String>,
    /// What somebody else uploads, and when.
    pub(crate) uploads: Vec<(u64, String)>,
    pub(crate) locked: BTreeSet<String>,
    pub(crate) are_locks_lifted: bool,
    pub(crate) call_max: usize,
    pub(crate) list_max: usize,
    pub(crate) wants_notices: bool,
    pub(crate) has_sweeps: bool,
    /// How much R2's clock is ahead, in milliseconds.
    pub(crate) ahead_ms: i64,
    /// When somebody has all failures sent again.
    pub(crate) redrives_all_at: Option<u64>,
    /// When somebody tries what no token of theirs allows.
    pub(crate) trespasses_at: Vec<u64>,
    /// Whether it goes on until everything has been removed.
    pub(crate) outlives_retention: bool,
}

impl Workload {
    pub(crate) fn draw(rng: &mut Rng, mode: Mode, without: Without) -> Self {
        let has_sweeps = rng.f64() < if mode == Mode::QueueOnly { 0.3 } else { 0.5 };
        let universe = universe(rng);
        let mut cases = Vec::new();
        let count = *rng.choice(&[1, 1, 1, 2, 2, 3]).unwrap_or(&1);
        for number in 0..count {
            cases.push(draw_case(rng, number, &universe, has_sweeps));
        }
        if let Some(plan) = draw_plan(rng, &cases) {
            cases.push(plan);
        }
        let objects = universe.iter().filter(|_| rng.f64() < 0.8).cloned().collect();
        let mut uploads = Vec::new();
        for _ in 0..rng.usize(0..6) {
            let Some(case) = cases.get(rng.usize(..cases.len())) else { continue };
            let key = universe.get(rng.usize(..universe.len())).cloned().unwrap_or_default();
            let key = if rng.bool() { case.keys.first().cloned().unwrap_or(key) } else { key };
            let wait = if rng.bool() { rng.u64(0..8_000) } else { rng.u64(0..3_600_000) };
            uploads.push((case.starts_at + wait, key));
        }
        let locks = rng.f64() < 0.25;
        let locked = universe.iter().filter(|_| locks && rng.f64() < 0.2).cloned().collect();
        Self {
            cases,
            objects,
            uploads,
            locked,
            are_locks_lifted: rng.bool(),
            call_max: if rng.f64() < 0.1 { rng.usize(1..5) } else { usize::MAX },
            list_max: if rng.bool() { rng.usize(1..8) } else { 1_000 },
            wants_notices: rng.f64() < 0.3,
            has_sweeps,
            ahead_ms: if rng.f64() < 0.2 { rng.i64(-2_000..=2_000) } else { 0 },
            redrives_all_at: (rng.f64() < 0.15).then(|| BEGINS_AT + rng.u64(0..8 * 3_600_000)),
            trespasses_at: (0..if rng.f64() < 0.15 { 3 } else { 0 })
                .map(|_| BEGINS_AT + either(rng, 5_000, 3_600_000))
                .collect(),
            outlives_retention: rng.f64() < 0.1,
        }
        .without(without)
    }

    fn without(mut self, without: Without) -> Self {
        let is_out = |extra| without.extra(extra);
        if is_out(Extra::Uploads) {
            self.uploads.clear();
        }
        if is_out(Extra::Locks) {
            self.locked.clear();
        }
        if is_out(Extra::RedrivesOfAll) {
            self.redrives_all_at = None;
        }
        if is_out(Extra::Trespasses) {
            self.trespasses_at.clear();
        }
        self.wants_notices &= !is_out(Extra::Notices);
        if is_out(Extra::SmallCalls) {
            self.call_max = usize::MAX;
        }
        if is_out(Extra::SmallPages) {
            self.list_max = 1_000;
        }
        if is_out(Extra::Skew) {
            self.ahead_ms = 0;
        }
        for case in &mut self.cases {
            if is_out(Extra::Cancellations) {
                case.cancels_after = None;
            }
            if is_out(Extra::Redrives) {
                case.redrives_after.clear();
            }
            if is_out(Extra::Windows) {
                case.delay_seconds = 0;
            }
            // One that nobody asks for.
            if without.case(case.number) {
                case.tries = 0;
            }
        }
        self
    }
}

/// Few keys, so that they meet; now and then long ones, of which a message holds twenty.
fn universe(rng: &mut Rng) -> Vec<String> {
    let long = if rng.f64() < 0.005 { "\u{1}".repeat(1_000) } else { String::new() };
    let is_small = rng.bool();
    let names = ["", "0", "1", "2/x", "2/y", "é", "3", "4"];
    let mut universe = Vec::new();
    for folder in ["a/", "ab/", "b/", "c"] {
        let most = rng.usize(1..=if is_small { 3 } else { names.len() });
        universe.extend(names.iter().take(most).map(|name| format!("{folder}{name}{long}")));
        if !long.is_empty() {
            universe.extend((0..6).map(|n| format!("{folder}{n}{n}{long}")));
        }
    }
    // Now and then more than fit into one call.
    if rng.f64() < 0.000_5 {
        universe.extend((0..1_100).map(|n| format!("b/w{n:04}")));
    }
    universe
}

/// Carries out the plan of one of these, if there is one.
fn draw_plan(rng: &mut Rng, cases: &[Case]) -> Option<Case> {
    let is_plan = |case: &&Case| case.dry_run && !case.prefixes.is_empty();
    let dry_run = cases.iter().find(is_plan).filter(|_| rng.f64() < 0.8)?;
    let number = cases.len();
    Some(Case {
        number,
        keys: BTreeSet::new(),
        parts: Vec::new(),
        prefixes: dry_run.prefixes.clone(),
        fence: Fence::Auto,
        delay_seconds: 0,
        dry_run: false,
        verify: rng.bool(),
        // Whatever the plan says.
        max_objects: Some(0),
        idempotency_key: Some(format!("case-{number}")),
        token: Token::Whole,
        how: How::Json,
        plan_of: Some(dry_run.number),
        starts_at: dry_run.starts_at + rng.u64(1_000..3_600_000),
        tries: rng.u32(1..12),
        cancels_after: None,
        redrives_after: Vec::new(),
        progress: RefCell::default(),
    })
}

fn draw_case(rng: &mut Rng, number: usize, universe: &[String], has_sweeps: bool) -> Case {
    let kind = rng.f64();
    let is_sweep = has_sweeps && kind < 0.5;
    let in_parts = !is_sweep && kind > 0.75;
    let share = rng.f64();
    let mut keys: BTreeSet<String> = universe.iter().filter(|_| rng.f64() < share).cloned().collect();
    if is_sweep && rng.bool() {
        keys.clear();
    }
    if !is_sweep && keys.is_empty() {
        keys.extend(universe.first().cloned());
    }
    let max_objects = (is_sweep && rng.f64() < 0.3).then(|| rng.u64(1..30));
    // A prefix that matches its neighbours too is taken with a brake only.
    let prefixes = ["a/", "b/", "ab/", "zz/", "a", "c"];
    let prefixes = prefixes.iter().take(if max_objects.is_some() { 6 } else { 4 });
    let prefixes: Vec<String> =
        prefixes.filter(|_| is_sweep && rng.f64() < 0.35).map(|&prefix| prefix.to_owned()).collect();
    let prefixes = if is_sweep && prefixes.is_empty() { vec!["a/".to_owned()] } else { prefixes };
    let mut parts = Vec::new();
    if in_parts {
        let all: Vec<String> = keys.iter().cloned().collect();
        parts = all.chunks(rng.usize(1..=all.len().max(1))).map(<[String]>::to_vec).collect();
    }
    let fence = *rng.choice(&Fence::ALL).unwrap_or(&Fence::Auto);
    let is_plain = !is_sweep && !in_parts;
    let is_narrow = is_plain && rng.f64() < 0.1;
    if is_narrow {
        keys.retain(|key| key.starts_with("a/"));
        keys.insert("a/".to_owned());
    }
    let how = match rng.u8(..100) {
        0..8 if is_plain => How::Wait,
        8..20 if !is_sweep => How::Lines,
        _ => How::Json,
    };
    Case {
        number,
        keys,
        parts,
        prefixes,
        fence: if rng.f64() < 0.5 { Fence::Auto } else { fence },
        delay_seconds: if rng.f64() < 0.1 { rng.u32(1..120) } else { 0 },
        dry_run: !in_parts && how == How::Json && rng.f64() < if is_sweep { 0.15 } else { 0.06 },
        verify: is_sweep && rng.bool(),
        max_objects,
        idempotency_key: (rng.f64() < 0.7).then(|| format!("case-{number}")),
        token: if is_narrow { Token::Narrow } else { Token::Whole },
        how,
        plan_of: None,
        starts_at: BEGINS_AT + either(rng, 2_000, 1_200_000),
        tries: rng.u32(1..12),
        cancels_after: (rng.f64() < 0.25).then(|| either(rng, 3_000, 900_000)),
        redrives_after: (0..rng.usize(0..3)).map(|_| rng.u64(1_000..8 * 3_600_000)).collect(),
        progress: RefCell::default(),
    }
}

/// Soon or later, up to one or the other.
fn either(rng: &mut Rng, soon: u64, late: u64) -> u64 {
    let most = if rng.bool() { soon } else { late };
    rng.u64(0..most)
}
