//! What schedules come to.

use std::fmt;

use crate::Mode;
use crate::fault::Fault;
use crate::sim::Sim;
use crate::world::World;

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
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Schedules.
    pub schedules: u64,
    /// Steps of everybody.
    pub steps: u64,
    /// Faults, by kind.
    pub faults: [u64; Fault::ALL.len()],
    /// Deletions asked for, and those that were accepted.
    pub cases: u64,
    /// Of them accepted.
    pub accepted: u64,
    /// Messages delivered.
    pub deliveries: u64,
    /// Messages that became dead letters.
    pub dead_letters: u64,
    /// Messages lost.
    pub lost_messages: u64,
    /// Delete calls.
    pub calls: u64,
    /// Looks at single objects.
    pub looks: u64,
    /// Listings.
    pub lists: u64,
    /// Objects removed.
    pub removals: u64,
    /// Objects that came between a look and its call.
    pub races: u64,
    /// The longest time between a look and the effect of its call, in milliseconds.
    pub window_ms: u64,
}

impl Outcome {
    pub(crate) fn of(sim: &Sim, world: Option<&World>) -> Self {
        let mut totals =
            Totals { schedules: 1, steps: sim.steps.get(), faults: sim.faults(), ..Totals::default() };
        if let Some(world) = world {
            let cases = world.oracle.cases.borrow();
            totals.cases = cases.len() as u64;
            totals.accepted = cases.iter().filter(|case| case.progress.borrow().is_accepted).count() as u64;
            totals.deliveries = world.queue.deliveries.get();
            totals.dead_letters = world.queue.dead_letters.get();
            totals.lost_messages = world.queue.lost.get();
            totals.calls = world.bucket.calls.get();
            totals.looks = world.bucket.looks.get();
            totals.lists = world.bucket.lists.get();
            totals.removals = world.oracle.removals.get();
            totals.races = world.oracle.races.get();
            totals.window_ms = world.oracle.window_ms.get();
        }
        Self { violation: sim.violation(), hash: sim.hash(), totals }
    }
}

impl Totals {
    /// Adds what has happened elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (own, others) in self.faults.iter_mut().zip(other.faults) {
            *own += others;
        }
        self.schedules += other.schedules;
        self.steps += other.steps;
        self.cases += other.cases;
        self.accepted += other.accepted;
        self.deliveries += other.deliveries;
        self.dead_letters += other.dead_letters;
        self.lost_messages += other.lost_messages;
        self.calls += other.calls;
        self.looks += other.looks;
        self.lists += other.lists;
        self.removals += other.removals;
        self.races += other.races;
        self.window_ms = self.window_ms.max(other.window_ms);
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("schedules", self.schedules),
            ("events", self.steps),
            ("deletions asked for", self.cases),
            ("accepted", self.accepted),
            ("messages delivered", self.deliveries),
            ("dead letters", self.dead_letters),
            ("messages lost", self.lost_messages),
            ("delete calls", self.calls),
            ("looks", self.looks),
            ("listings", self.lists),
            ("objects removed", self.removals),
            ("uploads between look and call", self.races),
            ("longest look to effect, ms", self.window_ms),
        ];
        for (name, value) in rows {
            writeln!(f, "  {name:<32}{value:>14}")?;
        }
        writeln!(f, "  faults")?;
        for (fault, count) in Fault::ALL.iter().zip(self.faults) {
            writeln!(f, "    {:<30}{count:>14}", format!("{fault:?}"))?;
        }
        Ok(())
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
