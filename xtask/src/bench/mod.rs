//! `cargo xtask bench`: what is promised in figures, measured, beside what others do.
//!
//! Every bench returns [`report::Comparison`]s, ours first; what becomes of them is the same for all: one table at the end, JSON
//! where asked for, and a comparison with the JSON of an earlier run. A new bench is a module with
//! `fn run(setting: &Setting) -> Result<Vec<Comparison>>` and a variant of [`Bench`].
mod arena;
mod cost;
mod cpu;
mod gone;
mod inspector;
mod memory;
mod model;
mod report;
mod scale;
mod size;
mod start;

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

pub use self::cost::Options as CostOptions;
use self::report::{Comparison, Report};
use crate::{
    cli::from_here,
    output,
    project::{Project, Worker},
    run,
    setup::Toolbox,
    workers,
};

/// How `cargo xtask bench` was called.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// What to measure; everything when left out
    #[command(subcommand)]
    bench: Option<Bench>,
    /// How often everybody takes a turn; each bench has a number of its own
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// The largest sizes too, which take many minutes
    #[arg(long, global = true)]
    full: bool,
    /// Write what was found into this file, as JSON
    #[arg(long, global = true, value_name = "FILE", value_parser = from_here)]
    json: Option<PathBuf>,
    /// Fail where ours is worse than in an earlier run, given by its JSON or by the commit that has it as the baseline: ratios are
    /// compared, not times
    #[arg(long, global = true, value_name = "BASE")]
    compare: Option<String>,
    /// By how much it may be worse, as a part of what it was
    #[arg(long, global = true, default_value_t = 0.25, requires = "compare")]
    tolerance: f64,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub enum Bench {
    /// Size, instance and first request of a Worker that has not run yet
    Start,
    /// The CPU time of each Worker for 10,000 keys, beside a pair in JavaScript and one in plain Rust
    Cpu,
    /// How long it takes from the request until the last object is gone, beside peers
    Gone,
    /// Whether time grows faster than the keys, whether memory grows, and what is small beside what is large
    Scale,
    /// What limits a deletion of ten million, a billion and a trillion keys: on paper, nothing is measured (docs/scale.md)
    Model,
    /// What the wasm of each Worker is made of
    Size,
    /// The memory that the producer takes for large requests, several at once
    Memory,
    /// What deletions cost: the operations of each service that is paid for, counted, times its price
    Cost(CostOptions),
}

/// What every bench is given.
#[derive(Debug)]
struct Setting<'a> {
    toolbox: &'a Toolbox,
    rounds: Option<u32>,
    /// Whether the largest sizes are asked for.
    full: bool,
}

impl Setting<'_> {
    /// How many rounds to make, where the bench itself would make `usual`.
    fn rounds(&self, usual: usize) -> usize {
        self.rounds.and_then(|rounds| usize::try_from(rounds).ok()).unwrap_or(usual)
    }
}

/// The JavaScript of a Worker of the hand-written pair, with the module that both of them import.
fn javascript(project: &Project, worker: Worker) -> [PathBuf; 2] {
    let folder = project.root().join("tests/bench/pair");
    [folder.join(format!("{}.js", worker.name())), folder.join("limits.js")]
}

/// Where the last release's report is kept.
const BASELINE: &str = "tests/bench/baseline.json";

/// The report in the file `base`, or the baseline of the commit `base`.
fn baseline(project: &Project, base: &str) -> Result<Report> {
    let path = std::path::absolute(base)?;
    if path.exists() {
        return Report::read(&path);
    }
    let mut git = Command::new("git");
    git.arg("show").arg(format!("{base}:{BASELINE}")).current_dir(project.root());
    let text = run::output_of(&mut git)
        .with_context(|| format!("{base} is no file, and no commit with {BASELINE}"))?;
    Report::parse(&text, base)
}

impl Bench {
    /// All that are run when none is named, the quickest first.
    const ALL: [Self; 6] =
        [Self::Start, Self::Cost(CostOptions::USUAL), Self::Cpu, Self::Gone, Self::Scale, Self::Memory];

    fn run(self, setting: &Setting<'_>) -> Result<Vec<Comparison>> {
        match self {
            Self::Start => start::run(setting),
            Self::Cpu => cpu::run(setting),
            Self::Gone => gone::run(setting),
            Self::Scale => scale::run(setting),
            Self::Model => {
                for (heading, table) in model::tables(model::Assumptions::USUAL) {
                    output::say(format!("\n{heading}\n\n{table}"));
                }
                Ok(Vec::new())
            }
            Self::Size => {
                workers::build(setting.toolbox, &Worker::ALL)?;
                output::say(format!("\n{}", size::table(setting.toolbox)?));
                Ok(Vec::new())
            }
            Self::Memory => memory::run(setting),
            Self::Cost(options) => cost::run(setting, options),
        }
    }
}

/// Measures.
///
/// # Errors
/// When it cannot be measured, is over what was promised for certain, or is worse than it was.
pub fn run(toolbox: &Toolbox, options: &Options) -> Result<()> {
    let Options { bench, rounds, full, json, compare, tolerance } = options;
    let base = compare.as_deref().map(|base| baseline(&toolbox.project, base)).transpose()?;
    let setting = Setting { toolbox, rounds: *rounds, full: *full };
    let mut report = Report::default();
    for bench in bench.as_ref().map_or(&Bench::ALL[..], std::slice::from_ref) {
        report.comparisons.extend(bench.run(&setting)?);
    }
    if !report.comparisons.is_empty() {
        output::say(format!("\n{}", report.table()));
    }
    if let Some(path) = json {
        report.write(path)?;
    }
    let broken = report.broken_promises();
    ensure!(broken.is_empty(), "It is over what was promised:\n{}", broken.join("\n"));
    if let Some(base) = base {
        let worse = report.regressions(&base, *tolerance)?;
        ensure!(worse.is_empty(), "It is worse than it was:\n{}", worse.join("\n"));
        output::say("Nothing is worse than it was.");
    }
    Ok(())
}
