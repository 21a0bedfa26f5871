//! What schedules come to.

use std::fmt;

use protocol::State;

use crate::Mode;
use crate::fault::Fault;

macro_rules! listed {
    ($(#[$about:meta])* $vis:vis enum $name:ident { $($(#[$what:meta])* $variant:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $($(#[$what])* $variant,)* }

        impl $name {
            /// All there are, in their order.
            $vis const ALL: &[Self] = &[$(Self::$variant),*];
        }
    };
}

listed! {
    /// What is counted.
    pub enum Count {
        /// Schedules.
        Schedules,
        /// Schedules that were run a second time, to see whether they do the same.
        RunTwice,
        /// Steps of everybody.
        Events,
        /// Deletions asked for.
        DeletionsAskedFor,
        /// Of them accepted.
        Accepted,
        /// Those by a plan.
        PlansCarriedOut,
        /// Those whose caller waited for the end, and was told it.
        WaitedFor,
        /// Those whose keys came as lines.
        AskedForInLines,
        /// Those of more keys than fit into a call.
        AskedForMoreThanACall,
        /// Redrives of a deletion that were accepted.
        Redrives,
        /// Redrives of all failures that were accepted.
        RedrivesOfAll,
        /// Redrives while a message of the same deletion was at work.
        RedrivesDuringDelivery,
        /// Requests that a token's scope does not cover, refused.
        Trespasses,
        /// Messages delivered.
        MessagesDelivered,
        /// Messages of a deletion that was over.
        DeliveriesAfterTheEnd,
        /// Messages that became dead letters.
        DeadLetters,
        /// Messages lost.
        MessagesLost,
        /// Invocations that died.
        Kills,
        /// Claims that another invocation had.
        ClaimConflicts,
        /// Rounds of upkeep.
        UpkeepRounds,
        /// Notices that the endpoint was told.
        Notices,
        /// Deletions that were removed after their retention.
        Expired,
        /// Delete calls.
        DeleteCalls,
        /// Looks at single objects.
        Looks,
        /// Listings.
        Listings,
        /// Objects removed.
        ObjectsRemoved,
        /// Objects that came between a look and the effect of its call.
        UploadsBetweenLookAndEffect,
        /// Of them those whose call R2 has carried out when nobody waited for it any more.
        UploadsBeforeALateEffect,
        /// Objects that R2's clock, being slow, has made older than the request.
        RemovedBySlowClock,
    }
}

listed! {
    /// A call that an invocation can die in.
    pub(crate) enum Call {
        /// Of the ledger: `ProducerLedger`.
        FillOutbox, DiscardOutbox, AdmitDeletion, AdmitPart, FindPart, SealDeletion, FindIdempotencyKey, HoldSending,
        /// Its sending.
        ReleaseSending, MarkEnqueued, ReadOutbox, CancelDeletion, FindDeletion, ListFailures, AdmitRedrive,
        /// Its lists.
        ListRedrivable, ListSkips, ListDeletions, Stats, SumDigests, ListUnreadable, Ping,
        /// Of the ledger: `ConsumerLedger`.
        Claim, Record, ClaimSweep, KnownKeys, TurnSweep, FindNotice, RecordNotice,
        /// Of the ledger: `UpkeepLedger`.
        CancelAbandoned, ListLost, ReadLost, MarkResent, WakeSweeps, WakeNotices, RemoveExpired,
        /// Of the Queue.
        Send,
        /// Of R2.
        Delete, Look, List,
        /// Of the endpoint.
        Post,
    }
}

const FAULTS: usize = Fault::ALL.len();
const COUNTS: usize = Count::ALL.len();
const CALLS: usize = Call::ALL.len();
const STATES: usize = State::ALL.len();

/// What one schedule has come to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What does not hold that must.
    pub violation: Option<String>,
    /// What two runs of one seed have in common.
    pub hash: u64,
    /// What happened.
    pub totals: Totals,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    counts: [u64; COUNTS],
    faults: [u64; FAULTS],
    /// Deaths within a call, before and after its effect.
    deaths: [[u64; 2]; CALLS],
    /// From which state to which; what was first seen so, from none, which is the last row.
    changes: [[u64; STATES]; STATES + 1],
    /// The longest time between a look and the effect of its call, while the invocation waited for it, in milliseconds.
    pub window_ms: u64,
    /// The same where R2 has carried the call out later.
    pub late_window_ms: u64,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            counts: [0; COUNTS],
            faults: [0; FAULTS],
            deaths: [[0; 2]; CALLS],
            changes: [[0; STATES]; STATES + 1],
            window_ms: 0,
            late_window_ms: 0,
        }
    }
}

const WINDOW: &str = "longest from look to effect, ms";
const LATE_WINDOW: &str = "longest to an effect nobody waited for, ms";

fn bump(count: Option<&mut u64>, by: u64) {
    if let Some(count) = count {
        *count += by;
    }
}

impl Totals {
    /// How often this was counted.
    pub fn of(&self, count: Count) -> u64 {
        self.counts.get(count as usize).copied().unwrap_or_default()
    }

    /// How often this fault has happened.
    pub fn of_fault(&self, fault: Fault) -> u64 {
        self.faults.get(fault as usize).copied().unwrap_or_default()
    }

    pub(crate) fn count(&mut self, count: Count, by: u64) {
        bump(self.counts.get_mut(count as usize), by);
    }

    pub(crate) fn count_fault(&mut self, fault: Fault) {
        bump(self.faults.get_mut(fault as usize), 1);
    }

    pub(crate) fn count_death(&mut self, call: Call, has_taken_effect: bool) {
        let deaths = self.deaths.get_mut(call as usize);
        bump(deaths.and_then(|deaths| deaths.get_mut(usize::from(has_taken_effect))), 1);
    }

    pub(crate) fn count_change(&mut self, from: Option<State>, to: State) {
        let index = |of: State| State::ALL.iter().position(|state| *state == of);
        let (from, to) = (from.and_then(index).unwrap_or(STATES), index(to).unwrap_or_default());
        if let Some(row) = self.changes.get_mut(from) {
            bump(row.get_mut(to), 1);
        }
    }

    /// One of the schedules was run twice.
    pub fn add_run_twice(&mut self) {
        self.count(Count::RunTwice, 1);
    }

    /// Adds what has happened elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.all_mut().zip(other.all()) {
            *own += other;
        }
        self.window_ms = self.window_ms.max(other.window_ms);
        self.late_window_ms = self.late_window_ms.max(other.late_window_ms);
    }

    fn all(&self) -> impl Iterator<Item = u64> {
        let deaths = self.deaths.iter().flatten();
        self.counts.iter().chain(&self.faults).chain(deaths).chain(self.changes.iter().flatten()).copied()
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        let deaths = self.deaths.iter_mut().flatten();
        let all = self.counts.iter_mut().chain(&mut self.faults).chain(deaths);
        all.chain(self.changes.iter_mut().flatten())
    }

    /// What all of it is called, in the same order.
    fn names() -> Vec<String> {
        let counts = Count::ALL.iter().map(|count| words(&format!("{count:?}")));
        let faults = Fault::ALL.iter().map(|fault| format!("fault: {}", words(&format!("{fault:?}"))));
        let deaths = Call::ALL.iter().flat_map(|call| {
            ["before", "after"].map(|when| format!("died {when}: {}", words(&format!("{call:?}"))))
        });
        let states = || State::ALL.iter().map(|state| state.as_str());
        let changes = states()
            .chain(["nothing"])
            .flat_map(|from| states().map(move |to| format!("state: {from} to {to}")).collect::<Vec<_>>());
        counts.chain(faults).chain(deaths).chain(changes).collect()
    }

    /// As lines of a name and a number, which [`Totals::from_lines`] reads.
    pub fn to_lines(&self) -> String {
        let lines = Self::names().into_iter().zip(self.all()).filter(|(_, count)| *count > 0);
        let lines: Vec<String> = lines.map(|(name, count)| format!("{name} = {count}\n")).collect();
        let Self { window_ms, late_window_ms, .. } = self;
        format!("{}{WINDOW} = {window_ms}\n{LATE_WINDOW} = {late_window_ms}\n", lines.concat())
    }

    /// Reads lines of names and numbers; what it does not know, it leaves out.
    pub fn from_lines(text: &str) -> Self {
        let mut totals = Self::default();
        let number = |name: &str| {
            let line =
                text.lines().filter_map(|line| line.split_once(" = ")).find(|(found, _)| *found == name);
            line.and_then(|(_, number)| number.parse().ok()).unwrap_or_default()
        };
        for (name, count) in Self::names().into_iter().zip(totals.all_mut()) {
            *count = number(&name);
        }
        (totals.window_ms, totals.late_window_ms) = (number(WINDOW), number(LATE_WINDOW));
        totals
    }

    /// What has not happened in these schedules although it has to, so that they do not show anything of it.
    pub fn missing(&self, mode: Mode) -> Vec<String> {
        let never = never(mode);
        let all = Self::names().into_iter().zip(self.all());
        let is_needed = |name: &str| {
            let by_mode = !never.contains(&name);
            match name.split_once(": ") {
                Some(("state", change)) => CHANGES.contains(&change),
                Some((_, call)) => by_mode && !RARE.contains(&call),
                None => by_mode,
            }
        };
        all.filter(|(name, count)| *count == 0 && is_needed(name)).map(|(name, _)| name).collect()
    }
}

/// What cannot happen in a mode.
fn never(mode: Mode) -> &'static [&'static str] {
    match mode {
        Mode::QueueOnly => &[
            "fault: message lost",
            "fault: upkeep dies",
            "messages lost",
            "upkeep rounds",
            "expired",
            "died before: cancel abandoned",
            "died after: cancel abandoned",
            "died before: list lost",
            "died after: list lost",
            "died before: read lost",
            "died after: read lost",
            "died before: mark resent",
            "died after: mark resent",
            "died before: wake sweeps",
            "died after: wake sweeps",
            "died before: wake notices",
            "died after: wake notices",
            "died before: remove expired",
            "died after: remove expired",
            // Nobody dies between a sweep's step and the message of the next.
            "died before: claim sweep",
            "died after: claim sweep",
            "died before: known keys",
            "died after: known keys",
            "died before: turn sweep",
            "died after: turn sweep",
            "died before: list",
            "died after: list",
        ],
        Mode::SelfHealing => &[],
    }
}

/// Calls that only those make who look, and one that hardly anybody makes.
const RARE: &[&str] = &["list deletions", "list skips", "stats", "sum digests", "list unreadable", "ping"];

/// The changes of state that have to be seen.
const CHANGES: &[&str] = &[
    "nothing to accepting",
    "nothing to queued",
    "nothing to running",
    "nothing to planned",
    "accepting to queued",
    "accepting to running",
    "accepting to succeeded",
    "accepting to cancelled",
    "accepting to cancelling",
    "queued to running",
    "queued to succeeded",
    "queued to failed",
    "queued to cancelled",
    "queued to planned",
    "running to succeeded",
    "running to failed",
    "running to cancelling",
    "running to cancelled",
    "running to planned",
    "cancelling to cancelled",
    "cancelling to succeeded",
    "cancelling to failed",
    "failed to running",
    "failed to succeeded",
];

/// `DeadLetters` as `dead letters`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in Self::names().into_iter().zip(self.all()) {
            let is_count = !name.contains(": ");
            if is_count || count > 0 {
                writeln!(f, "  {name:<44}{count:>16}")?;
            }
        }
        writeln!(f, "  {WINDOW:<44}{:>16}\n  {LATE_WINDOW:<44}{:>16}", self.window_ms, self.late_window_ms)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QueueOnly => "queue-only",
            Self::SelfHealing => "self-healing",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_read_back() {
        let mut totals = Totals { window_ms: 7, late_window_ms: 8, ..Totals::default() };
        for (at, count) in totals.all_mut().enumerate() {
            *count = at as u64;
        }
        assert_eq!(Totals::from_lines(&totals.to_lines()), totals);
    }
}
