//! `cargo xtask prove`: the long way round to every promise, in one table: simulation, planted bugs, model, kills, fuzzing,
//! mutants, dependencies. What each figure means, and what it does not, is in docs/reliability.md.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    clock::Stopwatch,
    output,
    project::{Project, Worker},
    run,
    setup::{self, Toolbox},
    workers,
};

/// How long it may take.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A few minutes (this is what happens anyway)
    #[arg(long, conflicts_with = "long")]
    quick: bool,
    /// Hours: as many schedules as there is time for, hundreds of kills, every mutant. It goes on where it was stopped
    #[arg(long)]
    long: bool,
    /// How long the simulation explores, in minutes
    #[arg(long)]
    minutes: Option<u64>,
}

/// How much of each part.
struct Amount {
    /// Minutes of simulation on the ledger in memory; a fifth of it on the SQL.
    minutes: u64,
    /// Runs of the storm against the shipped wasm.
    storms: u64,
    /// Seconds of fuzzing for each target.
    fuzz_seconds: u64,
    /// Whether the large scopes of the model are explored, and every mutant is tried.
    everything: bool,
}

const QUICK: Amount = Amount { minutes: 2, storms: 6, fuzz_seconds: 0, everything: false };
const LONG: Amount = Amount { minutes: 240, storms: 400, fuzz_seconds: 600, everything: true };

/// As many seeds in each mode as nobody gets through: time ends a run.
const SEEDS: &str = "0..100000000";

/// What a part has found: names and figures, in order.
type Figures = Vec<(String, String)>;

/// Runs every part, and prints one table.
///
/// # Errors
/// When a part finds what must not be, or cannot be run.
pub(crate) fn run(toolbox: &Toolbox, options: &Options) -> Result<()> {
    let mut amount = if options.long { LONG } else { QUICK };
    amount.minutes = options.minutes.unwrap_or(amount.minutes);
    workers::build(toolbox, &Worker::ALL)?;
    let (mut table, mut wrong) = (Vec::new(), Vec::new());
    for (name, part) in PARTS {
        output::say(format!("\n== {name}"));
        let watch = Stopwatch::start();
        match part(toolbox, &amount) {
            Ok(None) => {
                table.push((name, vec![("only with --long".to_owned(), String::new())], String::new()));
            }
            Ok(Some(figures)) => table.push((name, figures, output::seconds(watch.elapsed()))),
            Err(error) => {
                output::failure(&error);
                table.push((
                    name,
                    vec![("WRONG".to_owned(), String::new())],
                    output::seconds(watch.elapsed()),
                ));
                wrong.push(name);
            }
        }
    }
    output::say(format!("\nCommit {}\n\n| part | | | time |\n|---|---|--:|--:|", commit(&toolbox.project)?));
    for (name, figures, time) in table {
        for (number, (what, figure)) in figures.iter().enumerate() {
            let (name, time) = if number == 0 { (name, time.as_str()) } else { ("", "") };
            output::say(format!("| {name} | {what} | {figure} | {time} |"));
        }
    }
    ensure!(wrong.is_empty(), "Something is wrong: {}.", wrong.join(", "));
    Ok(())
}

type Part = fn(&Toolbox, &Amount) -> Result<Option<Figures>>;

const PARTS: [(&str, Part); 9] = [
    ("dependencies", dependencies),
    ("model", model),
    ("planted bugs", planted_bugs),
    ("schedules, ledger in memory", |toolbox, amount| simulation(toolbox, "memory", amount.minutes)),
    ("schedules, ledger in SQL", |toolbox, amount| simulation(toolbox, "sql", amount.minutes.div_ceil(5))),
    ("kills of the runtime", storms),
    ("fuzzing", fuzzing),
    ("mutants", mutants),
    ("npm", npm),
];

/// The commit that the figures are of; it ends in `-dirty` where something was changed since.
fn commit(project: &Project) -> Result<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=12"]).current_dir(project.root());
    Ok(run::output_of(&mut git)?.trim().to_owned())
}

/// Licences, sources and bans of every crate; advisories where the database can be had.
fn dependencies(toolbox: &Toolbox, _: &Amount) -> Result<Option<Figures>> {
    let program = setup::ensure_cargo_deny(&toolbox.project)?;
    let deny = |what: &[&str]| {
        let mut deny = Command::new(&program);
        deny.arg("check").args(what).current_dir(toolbox.project.root());
        deny
    };
    run::output_of(&mut deny(&["bans", "licenses", "sources"]))?;
    let advisories = match run::output_of(&mut deny(&["advisories"])) {
        Ok(_) => "none is open",
        Err(error) if format!("{error:#}").contains("failed to fetch advisory database") => {
            "NOT LOOKED AT: github.com/RustSec/advisory-db cannot be reached"
        }
        Err(error) => return Err(error),
    };
    let figures = [("licences, sources, bans", "right"), ("advisories", advisories)];
    Ok(Some(figures.map(|(what, found)| (what.to_owned(), found.to_owned())).into()))
}

/// That nothing of npm is shipped: the Workers' code has no dependency there.
fn npm(toolbox: &Toolbox, _: &Amount) -> Result<Option<Figures>> {
    let text = fs::read_to_string(toolbox.project.root().join("package.json"))?;
    let package: Value = serde_json::from_str(&text)?;
    let shipped = package.get("dependencies").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    ensure!(shipped == 0, "package.json has dependencies that would be shipped: audit them");
    Ok(Some(vec![("packages that are shipped".to_owned(), "0".to_owned())]))
}

fn model(toolbox: &Toolbox, amount: &Amount) -> Result<Option<Figures>> {
    let mut cargo = toolbox.project.cargo();
    cargo.args(["run", "--quiet", "--package", "model", "--", "--json"]);
    if amount.everything {
        cargo.arg("--large");
    }
    figures_of(&mut cargo, &["scopes", "states", "planted", "caught"]).map(Some)
}

fn fuzzing(toolbox: &Toolbox, amount: &Amount) -> Result<Option<Figures>> {
    if amount.fuzz_seconds == 0 {
        return Ok(None);
    }
    let mut cargo = toolbox.project.cargo();
    cargo.args(["run", "--quiet", "--package", "fuzz", "--", "--json", "--seconds"]);
    cargo.arg(amount.fuzz_seconds.to_string());
    figures_of(&mut cargo, &["targets", "executions", "failing"]).map(Some)
}

fn mutants(toolbox: &Toolbox, amount: &Amount) -> Result<Option<Figures>> {
    if !amount.everything {
        return Ok(None);
    }
    let mut cargo = toolbox.project.cargo();
    cargo.args(["xtask", "mutants", "--iterate", "--json"]);
    figures_of(&mut cargo, &["mutants", "caught", "unviable", "missed"]).map(Some)
}

/// Some figures of the line of JSON that a command ends with, if it says that all is right.
fn figures_of(command: &mut Command, names: &[&str]) -> Result<Figures> {
    let said = run::output_of(command)?;
    let line = said.lines().last().unwrap_or_default();
    let summary: Value = serde_json::from_str(line).with_context(|| format!("not a summary: {line}"))?;
    ensure!(summary.get("ok") == Some(&Value::Bool(true)), "{line}");
    Ok(names.iter().filter_map(|&name| Some((name.to_owned(), summary.get(name)?.to_string()))).collect())
}

fn simulate(toolbox: &Toolbox) -> Command {
    let mut cargo = toolbox.project.cargo();
    cargo.args(["run", "--quiet", "--profile", "simulation", "--package", "simulation", "--"]);
    cargo
}

fn planted_bugs(toolbox: &Toolbox, _: &Amount) -> Result<Option<Figures>> {
    let said = run::output_of(simulate(toolbox).args(["--seeds", "0..0"]))?;
    let caught = said.lines().filter_map(|line| line.trim().strip_prefix("caught ")).next_back();
    let caught = caught.context("the planted bugs were not told")?;
    Ok(Some(vec![("caught".to_owned(), caught.to_owned())]))
}

/// Schedules until the time is over, from where the last run of the same code has stopped.
fn simulation(toolbox: &Toolbox, ledger: &str, minutes: u64) -> Result<Option<Figures>> {
    let folder = progress(&toolbox.project)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut explore = simulate(toolbox);
    explore.args(["--no-plants", "--seeds", SEEDS, "--ledger", ledger, "--minutes", &minutes.to_string()]);
    explore.args(["--jobs", &cores.to_string(), "--progress"]).arg(&folder);
    run::shown(&mut explore)?;
    let mut figures = Vec::new();
    for mode in ["queue-only", "self-healing"] {
        let path = folder.join(format!("{mode}-{ledger}.txt"));
        let text = fs::read_to_string(&path).with_context(|| format!("{} is missing", path.display()))?;
        for (name, what) in
            [("schedules", "schedules"), ("events", "events"), ("kills", "deaths at an await")]
        {
            let mut values = text.lines().filter_map(|line| line.split_once(" = "));
            let value = values.find(|(found, _)| *found == name).map_or("none", |(_, value)| value);
            figures.push((format!("{mode}: {what}"), value.to_owned()));
        }
        let violations = text.lines().filter(|line| line.starts_with("violation ")).count();
        figures.push((format!("{mode}: violations"), violations.to_string()));
    }
    Ok(Some(figures))
}

/// Where it is written down how far the simulation is: for each state of the code anew, because with other code a seed is
/// another schedule.
fn progress(project: &Project) -> Result<PathBuf> {
    let commit = commit(project)?;
    let folder = project.target().join("prove").join(&commit);
    if commit.ends_with("-dirty") && folder.exists() {
        // What was changed may have changed again.
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Runs of the storm, each with kills, faults of every service, duplicates, and bystanders that must survive.
fn storms(toolbox: &Toolbox, amount: &Amount) -> Result<Option<Figures>> {
    let report = toolbox.project.target().join("prove").join("storms.jsonl");
    fs::create_dir_all(report.parent().context("a path without a folder")?)?;
    fs::write(&report, "")?;
    let mut cargo = toolbox.project.cargo();
    cargo
        .args(["test", "--quiet", "--package", "crash", "--test", "storm"])
        .env("CRASH_RUNS", amount.storms.to_string())
        .env("CRASH_REPORT", &report);
    run::shown(&mut cargo)?;
    let mut sums: Vec<(String, u64)> = Vec::new();
    for line in fs::read_to_string(&report)?.lines() {
        let Value::Object(run) = serde_json::from_str(line)? else { bail!("not a report: {line}") };
        for (name, value) in run {
            let value = value.as_u64().with_context(|| format!("{name} is no number"))?;
            match sums.iter_mut().find(|(found, _)| *found == name) {
                Some((_, sum)) => *sum += value,
                None => sums.push((name, value)),
            }
        }
    }
    ensure!(
        sums.iter().any(|(name, sum)| name == "runs" && *sum == amount.storms),
        "runs are missing: {sums:?}"
    );
    Ok(Some(sums.into_iter().map(|(name, sum)| (name, sum.to_string())).collect()))
}
