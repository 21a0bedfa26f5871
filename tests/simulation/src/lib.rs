//! A deterministic simulation of both Workers' cores.
//!
//! It runs the code that is deployed, `producer::answer`, `consumer::handle` and `consumer::upkeep`, over the ledger's real SQL,
//! on a bucket, a queue, a database and a clock of its own. One thread, one seed: what a seed does, it does again. Invocations
//! overlap because every call of a service takes a simulated time, and each of them may fail before or after its effect, hang,
//! or be the last thing that its invocation does.
//!
//! An oracle that sees only what anybody outside could see judges every schedule; and bugs that are planted around the code show
//! that it would notice.
//!
//! # In scope
//!
//! What the cores do in any order of events that the platform's documentation allows, and in some that it does not.
//!
//! # Out of scope
//!
//! The Workers runtime, `shell.rs` and wasm, which `tests/crash` and `tests/e2e` run; and what D1, R2 and Queues do beyond their
//! documentation.

mod bucket;
mod client;
mod counts;
mod fault;
mod oracle;
mod plant;
mod queue;
mod services;
mod sim;
mod sim_ledger;
mod without;
mod workload;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use counts::{Count, Outcome, Totals};
pub use fault::Fault;
pub use plant::Plant;
pub use without::Without;

/// What the platform may do, and who puts it right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Mode {
    /// No message is lost, and there is no upkeep, which would hide it if the queue's own path lost something: all that was
    /// accepted ends by the queue alone.
    QueueOnly,
    /// Messages may be lost, and upkeep goes round: all that was written down ends.
    SelfHealing,
}

impl Mode {
    /// Both.
    pub const ALL: [Self; 2] = [Self::QueueOnly, Self::SelfHealing];
}

/// What the ledger of a schedule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum LedgerKind {
    /// The SQL that is deployed, on a SQLite.
    Sql,
    /// One in memory that a test of the ledger's own holds equal to it: for many schedules.
    Memory,
}

/// How schedules are run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What may go wrong.
    pub mode: Mode,
    /// On which ledger.
    pub ledger: LedgerKind,
    /// With which bug.
    pub plant: Option<Plant>,
    /// Whether it is told, step by step.
    pub is_traced: bool,
    /// What is taken out of it.
    pub without: Without,
}

impl Settings {
    /// Nothing planted, nothing told.
    pub fn new(mode: Mode, ledger: LedgerKind) -> Self {
        Self { mode, ledger, plant: None, is_traced: false, without: Without::default() }
    }

    /// With a bug planted: on the SQL if that is where the bug is.
    pub fn planted(plant: Plant) -> Self {
        Self { plant: Some(plant), ..Self::new(plant.mode(), plant.ledger()) }
    }

    /// The command that runs a schedule again, step by step.
    pub fn replay_command(&self, seed: u64) -> String {
        let Self { mode, ledger, plant, without, .. } = self;
        let plant = plant.map(|plant| format!(" --plant {}", name_of(&plant))).unwrap_or_default();
        let without =
            if *without == Without::default() { String::new() } else { format!(" --without {without}") };
        format!(
            "cargo run -p simulation -- --seed {seed} --mode {mode} --ledger {}{plant}{without}",
            name_of(ledger)
        )
    }
}

/// Runs one schedule. A panic of the code is a violation.
pub fn run(seed: u64, settings: Settings) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| world::run(seed, settings))).unwrap_or_else(|_| Outcome {
        violation: Some("a panic".to_owned()),
        hash: 0,
        totals: Totals::default(),
    })
}

/// A value as the command line has it.
pub fn name_of(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// A failing schedule without all that it fails without too.
pub fn shrink(seed: u64, settings: Settings) -> Settings {
    let fails = |without| run(seed, Settings { without, ..settings }).violation.is_some();
    Settings { without: settings.without.shrink(fails), ..settings }
}

/// The first of these seeds whose schedule catches a planted bug, and what it shows.
pub fn first_to_catch(plant: Plant, seeds: std::ops::Range<u64>) -> Option<(u64, String)> {
    seeds.into_iter().find_map(|seed| Some((seed, run(seed, Settings::planted(plant)).violation?)))
}
