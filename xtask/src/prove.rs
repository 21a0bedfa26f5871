//! `cargo xtask prove`: the long way round to every promise, in one table: simulation, planted bugs, model, kills, fuzzing,
//! mutants, dependencies. What each figure means, and what it does not, is in docs/reliability.md.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
};

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
    /// A million schedules, a few minutes (this is what happens anyway)
    #[arg(long, conflicts_with = "long")]
    quick: bool,
    /// A hundred million schedules, hundreds of kills, every mutant: hours. It goes on where it was stopped
    #[arg(long)]
    long: bool,
    /// Ends each of the two simulations after so many minutes; `--long` goes on there the next time
    #[arg(long)]
    minutes: Option<u64>,
    /// Does one part in so many of everything, the model's small scopes and no mutants: to try the parts themselves
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..), hide_default_value = true)]
    fraction: u64,
}

/// How much of each part.
struct Amount {
    /// Seeds of each mode on the ledger in memory. `cargo test` has those before them.
    seeds: Range<u64>,
    /// Seeds of each mode on the SQL: others, because on the same ones it does the same.
    sql_seeds: Range<u64>,
    /// Runs of the storm against the shipped wasm.
    storms: u64,
    /// Seconds of fuzzing for each target.
    fuzz_seconds: u64,
    /// Whether the large scopes of the model are explored.
    is_large: bool,
    /// Whether every mutant is tried.
    mutants: bool,
    /// Whether the simulation goes on where it was stopped.
    resumes: bool,
    /// After how many minutes a simulation is stopped.
    minutes: Option<u64>,
}

impl Amount {
    fn quick() -> Self {
        Self {
            seeds: 1_000_000..1_500_000,
            sql_seeds: 2_000_000..2_005_000,
            storms: 6,
            fuzz_seconds: 0,
            is_large: false,
            mutants: false,
            resumes: false,
            minutes: None,
        }
    }

    fn long() -> Self {
        Self {
            seeds: 1_000_000..51_000_000,
            sql_seeds: 100_000_000..100_500_000,
            storms: 400,
            fuzz_seconds: 600,
            is_large: true,
            mutants: true,
            resumes: true,
            minutes: None,
        }
    }

    fn of(options: &Options) -> Self {
        let whole = if options.long { Self::long() } else { Self::quick() };
        let some = |amount: u64| amount.div_ceil(options.fraction);
        let seeds = |seeds: &Range<u64>| seeds.start..seeds.start + some(seeds.end - seeds.start);
        Self {
            seeds: seeds(&whole.seeds),
            sql_seeds: seeds(&whole.sql_seeds),
            storms: some(whole.storms),
            fuzz_seconds: some(whole.fuzz_seconds),
            // Those two can be no part of what they are.
            is_large: whole.is_large && options.fraction == 1,
            mutants: whole.mutants && options.fraction == 1,
            minutes: options.minutes,
            ..whole
        }
    }
}

/// What a part has found: names and figures, in order.
type Figures = Vec<(String, String)>;

/// What is explored, by what, and whether another step of `cargo xtask test` does as much of it.
struct Part {
    name: &'static str,
    explore: fn(&Toolbox, &Amount) -> Result<Option<Figures>>,
    is_tested_anyway: bool,
}

const PARTS: [Part; 9] = [
    Part { name: "dependencies", explore: dependencies, is_tested_anyway: false },
    Part { name: "npm", explore: npm, is_tested_anyway: false },
    Part { name: "model", explore: model, is_tested_anyway: true },
    Part { name: "planted bugs", explore: planted_bugs, is_tested_anyway: true },
    Part {
        name: "schedules, ledger in memory",
        explore: |toolbox, amount| simulation(toolbox, "memory", &amount.seeds, amount),
        is_tested_anyway: false,
    },
    Part {
        name: "schedules, ledger in SQL",
        explore: |toolbox, amount| simulation(toolbox, "sql", &amount.sql_seeds, amount),
        is_tested_anyway: false,
    },
    Part { name: "kills of the runtime", explore: storms, is_tested_anyway: true },
    Part { name: "fuzzing", explore: fuzzing, is_tested_anyway: true },
    Part { name: "mutants", explore: mutants, is_tested_anyway: true },
];

/// Runs every part, and prints one table.
///
/// # Errors
/// When a part finds what must not be, or cannot be run.
pub(crate) fn run(toolbox: &Toolbox, options: &Options) -> Result<()> {
    workers::build(toolbox, &Worker::ALL)?;
    explore(toolbox, &Amount::of(options), |_| true)
}

/// Runs what is in the quick way round and in no other step of `cargo xtask test`: a million schedules, and what comes with a
/// dependency.
///
/// # Errors
/// As [`run`].
pub(crate) fn rest(toolbox: &Toolbox) -> Result<()> {
    explore(toolbox, &Amount::quick(), |part| !part.is_tested_anyway)
}

fn explore(toolbox: &Toolbox, amount: &Amount, is_wanted: fn(&Part) -> bool) -> Result<()> {
    let (mut table, mut wrong) = (Vec::new(), Vec::new());
    for Part { name, explore, .. } in PARTS.iter().filter(|part| is_wanted(part)) {
        output::say(format!("\n== {name}"));
        let watch = Stopwatch::start();
        let figures = match explore(toolbox, amount) {
            Ok(figures) => figures,
            Err(error) => {
                output::failure(&error);
                wrong.push(*name);
                Some(vec![("WRONG".to_owned(), String::new())])
            }
        };
        let figures = figures.unwrap_or_else(|| vec![("not in this run".to_owned(), String::new())]);
        table.push((*name, figures, output::seconds(watch.elapsed())));
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
    if amount.is_large {
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
    if !amount.mutants {
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

/// Schedules of both modes; where it goes on, from where the last run of the same code has stopped.
fn simulation(
    toolbox: &Toolbox,
    ledger: &str,
    seeds: &Range<u64>,
    amount: &Amount,
) -> Result<Option<Figures>> {
    let progress = Progress::of(&toolbox.project, ledger, amount.resumes)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut explore = simulate(toolbox);
    explore.args(["--no-plants", "--ledger", ledger, "--jobs", &cores.to_string()]);
    explore.args(["--seeds", &format!("{}..{}", seeds.start, seeds.end), "--progress"]).arg(&progress.folder);
    if let Some(minutes) = amount.minutes {
        explore.args(["--minutes", &minutes.to_string()]);
    }
    run::shown(&mut explore)?;
    let mut figures = Vec::new();
    for mode in ["queue-only", "self-healing"] {
        let path = progress.folder.join(format!("{mode}-{ledger}.txt"));
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
    figures.push(("at commits".to_owned(), progress.commits.join(", ")));
    Ok(Some(figures))
}

/// How far the simulation is with one state of the code: with another a seed is another schedule.
struct Progress {
    folder: PathBuf,
    /// What was checked out when it was run; all of them have that code.
    commits: Vec<String>,
}

/// What is compiled into the simulation, as git names files; the profile and the dependencies with it.
const CODE: [&str; 13] = [
    "Cargo.toml",
    "Cargo.lock",
    "protocol",
    "scan",
    "ledger",
    "producer",
    "consumer",
    "tests/simulation",
    // Tests are not.
    ":(exclude,glob)*/src/**/tests.rs",
    ":(exclude,glob)*/src/**/tests/**",
    ":(exclude,glob)*/tests/**",
    ":(exclude,glob)tests/simulation/tests/**",
    ":(exclude,glob)tests/simulation/seeds/**",
];

impl Progress {
    fn of(project: &Project, ledger: &str, resumes: bool) -> Result<Self> {
        let all = project.target().join("prove");
        fs::create_dir_all(&all)?;
        let code = code(project.root(), &all.join("index"))?;
        let folder = all.join(if resumes { code } else { format!("quick-{ledger}") });
        if !resumes && folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let (path, commit) = (folder.join("commits.txt"), commit(project)?);
        let known = fs::read_to_string(&path).unwrap_or_default();
        let mut commits: Vec<String> = known.lines().map(str::to_owned).collect();
        if !commits.contains(&commit) {
            commits.push(commit);
        }
        fs::write(&path, commits.join("\n"))?;
        Ok(Self { folder, commits })
    }
}

/// Tells other code: git's name for a tree of what is compiled into the simulation, as it is on the disk. So a commit that
/// changes something else costs nothing, and a change that is in no commit is not overlooked.
fn code(root: &Path, index: &Path) -> Result<String> {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(arguments).current_dir(root).env("GIT_INDEX_FILE", index);
        run::output_of(&mut git)
    };
    git(&["read-tree", "--empty"])?;
    git(&[&["add", "--"], CODE.as_slice()].concat())?;
    Ok(git(&["write-tree"])?.trim().chars().take(12).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_of_the_project_that_the_simulation_is_compiled_of_counts() {
        let project = Project::locate().unwrap();
        let mut tree = project.cargo();
        tree.args(["tree", "--package", "simulation", "--edges", "normal", "--prefix", "none"]);
        let tree = run::output_of(&mut tree).unwrap();
        let root = format!("({}/", project.root().display());
        let folders: Vec<_> =
            tree.lines().filter_map(|line| line.split_once(&root)?.1.split(')').next()).collect();
        assert!(folders.contains(&"ledger"), "{tree}");
        for folder in folders {
            assert!(CODE.iter().any(|code| folder.starts_with(code)), "{folder}");
        }
    }

    #[test]
    fn what_is_not_compiled_into_the_simulation_is_no_other_code() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert!(run::succeeds(Command::new("git").args(["init", "--quiet"]).current_dir(root)));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let code = || code(root, &root.join("index")).unwrap();
        for path in CODE.iter().filter(|path| !path.starts_with(':')) {
            write(&if path.contains('.') { (*path).to_owned() } else { format!("{path}/src/lib.rs") }, "");
        }
        let before = code();
        for path in
            ["README.md", "consumer/src/handle/tests.rs", "ledger/tests/ledger.rs", "xtask/src/prove.rs"]
        {
            write(path, "other");
            assert_eq!(code(), before, "{path}");
        }
        for path in ["Cargo.lock", "consumer/src/handle.rs", "tests/simulation/src/lib.rs"] {
            let before = code();
            write(path, "other");
            assert_ne!(code(), before, "{path}");
        }
    }
}
