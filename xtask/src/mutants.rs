//! `cargo xtask mutants`: changes the code, one place at a time, and asks whether a test notices.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::json;

use crate::{output, project::Project, run, setup};

/// Where decisions are made; `.cargo/mutants.toml` leaves out what only hands over.
const CRATES: [&str; 4] = ["protocol", "ledger", "consumer", "producer"];

/// What may be missed, and why.
const EXCEPTIONS: &str = "tests/mutants/exceptions.toml";

/// What the property tests draw their cases from.
const PROPTEST_SEED: &str = "1";

/// cargo-mutants ends so when a mutant was missed, or one did not end in time: no failure of its own.
const ENDS: [i32; 3] = [0, 2, 3];

/// What to mutate.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only these crates; protocol, ledger, consumer and producer when left out
    #[arg(long = "crate", value_name = "CRATE")]
    crates: Vec<String>,
    /// Only these files, as globs: `consumer/src/sweep/**`
    #[arg(long = "file", value_name = "GLOB")]
    files: Vec<String>,
    /// Only code that differs from this commit
    #[arg(long, value_name = "BASE")]
    in_diff: Option<String>,
    /// Goes on where the last run was stopped, and asks again about what was missed
    #[arg(long)]
    iterate: bool,
    /// How many mutants are tested side by side
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Says one line of JSON at the end instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exceptions {
    #[serde(default)]
    exception: Vec<Exception>,
}

/// A mutant that may be missed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    /// As cargo-mutants names it, without line and column, which change.
    mutant: String,
    reason: String,
}

/// How many mutants there were, and what became of them.
#[derive(Debug, Default, Deserialize)]
struct Tally {
    total_mutants: usize,
    caught: usize,
    missed: usize,
    timeout: usize,
    unviable: usize,
}

/// Runs it.
///
/// # Errors
/// When a mutant is missed that is no exception, or an exception is caught, or cargo-mutants fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    let project = Project::locate()?;
    let text = fs::read_to_string(project.root().join(EXCEPTIONS))?;
    let exceptions: Exceptions =
        toml::from_str(&text).with_context(|| format!("{EXCEPTIONS} cannot be read"))?;
    for Exception { mutant, reason } in &exceptions.exception {
        ensure!(!reason.trim().is_empty(), "{EXCEPTIONS}: no reason why {mutant} may be missed");
    }
    let program = setup::ensure_cargo_mutants(&project)?;
    let diff = options.in_diff.as_deref().map(|base| write_diff(&project, base)).transpose()?;
    let chosen =
        if options.crates.is_empty() { CRATES.map(str::to_owned).to_vec() } else { options.crates.clone() };

    let (mut all, mut wrong) = (Tally::default(), Vec::new());
    for name in &chosen {
        let (tally, missed) = mutate(&project, &program, name, options, diff.as_deref())?;
        if !options.json {
            output::say(format!("{name}: {}", tally.sentence()));
        }
        let is_whole = diff.is_none() && options.files.is_empty();
        wrong.extend(judge(name, &missed, &exceptions.exception, is_whole));
        all.add(&tally);
    }
    if options.json {
        let Tally { total_mutants, caught, missed, timeout, unviable } = all;
        let summary = json!({
            "check": "mutants", "ok": wrong.is_empty(), "crates": chosen, "mutants": total_mutants,
            "caught": caught, "timeout": timeout, "unviable": unviable, "missed": missed, "wrong": wrong.len(),
        });
        output::say(summary.to_string());
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// Has one crate mutated: what became of the mutants, and the names of those that were missed.
fn mutate(
    project: &Project,
    program: &Path,
    name: &str,
    options: &Options,
    diff: Option<&Path>,
) -> Result<(Tally, BTreeSet<String>)> {
    let folder = project.target().join("mutants").join(name);
    fs::create_dir_all(&folder)?;
    let outcomes = folder.join("mutants.out");
    if !options.iterate && outcomes.exists() {
        // What an earlier run left would be taken for this one's.
        fs::remove_dir_all(&outcomes)?;
    }
    let mut command = Command::new(program);
    command
        .current_dir(project.root())
        .args(["mutants", "--package", name, "--no-shuffle", "--colors", "never", "--output"])
        .arg(&folder)
        .args(["--jobs", &options.jobs.to_string()])
        .args(options.files.iter().flat_map(|file| ["--file", file]))
        // What chance decides is decided the same way in every run, so that a mutant is not noticed by luck.
        .env("PROPTEST_RNG_SEED", PROPTEST_SEED)
        // That a case fails is all that counts: nobody reads how small it can be made.
        .env("PROPTEST_MAX_SHRINK_ITERS", "0");
    if options.jobs == 1 {
        // Each run tests a copy of the project in a new place, and would build every dependency anew.
        command.env("CARGO_TARGET_DIR", project.target().join("mutants").join("build"));
    }
    if options.iterate {
        command.arg("--iterate");
    }
    if let Some(diff) = diff {
        command.arg("--in-diff").arg(diff);
    }
    if options.json {
        command.stdout(std::process::Stdio::null());
    }
    let status = command.status().context("cargo-mutants cannot be started")?;
    let ended = status.code().is_some_and(|code| ENDS.contains(&code));
    ensure!(ended, "cargo-mutants failed with {name}: {status}. More is in {}", outcomes.display());
    // Where there is nothing to mutate there are no outcomes.
    let Ok(text) = fs::read_to_string(outcomes.join("outcomes.json")) else { return Ok(Default::default()) };
    let missed = fs::read_to_string(outcomes.join("missed.txt")).unwrap_or_default();
    Ok((serde_json::from_str(&text)?, missed.lines().map(without_place).collect()))
}

fn write_diff(project: &Project, base: &str) -> Result<PathBuf> {
    let mut git = Command::new("git");
    git.current_dir(project.root()).args(["diff", base, "--", "*.rs"]);
    let folder = project.target().join("mutants");
    fs::create_dir_all(&folder)?;
    let path = folder.join("diff.patch");
    fs::write(&path, run::output_of(&mut git)?)?;
    Ok(path)
}

/// `a/b.rs:7:9: replace …` without the place in the file.
fn without_place(mutant: &str) -> String {
    let mut parts = mutant.splitn(4, ':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(file), Some(_), Some(_), Some(what)) => format!("{file}:{what}"),
        _ => mutant.to_owned(),
    }
}

/// What is wrong with what a crate's tests have missed.
fn judge(name: &str, missed: &BTreeSet<String>, exceptions: &[Exception], is_whole: bool) -> Vec<String> {
    let excepted: BTreeSet<&str> = exceptions.iter().map(|exception| exception.mutant.as_str()).collect();
    let of_crate = format!("{name}/");
    let new = missed.iter().filter(|mutant| !excepted.contains(mutant.as_str()));
    let old = excepted
        .iter()
        .filter(|mutant| is_whole && mutant.starts_with(&of_crate) && !missed.contains(**mutant));
    new.map(|mutant| format!("No test notices: {mutant}"))
        .chain(old.map(|mutant| format!("Noticed, and no exception any more: {mutant}")))
        .collect()
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.total_mutants += other.total_mutants;
        self.caught += other.caught;
        self.missed += other.missed;
        self.timeout += other.timeout;
        self.unviable += other.unviable;
    }

    fn sentence(&self) -> String {
        let Self { total_mutants, caught, missed, timeout, unviable } = self;
        format!(
            "{total_mutants} mutants: {caught} caught, {timeout} did not end, {unviable} did not compile, \
            {missed} missed"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exception(mutant: &str) -> Exception {
        Exception { mutant: mutant.to_owned(), reason: "it is so".to_owned() }
    }

    #[test]
    fn a_mutant_is_wrong_that_is_missed_without_a_reason_or_noticed_with_one() {
        let missed = ["a/src/x.rs:7:9: replace + with -", "a/src/x.rs:8:9: replace f -> u8 with 0"];
        let missed: BTreeSet<String> = missed.iter().map(|mutant| without_place(mutant)).collect();
        let exceptions =
            [exception("a/src/x.rs: replace + with -"), exception("a/src/x.rs: replace == with !=")];
        let whole = judge("a", &missed, &exceptions, true);
        assert_eq!(
            whole,
            [
                "No test notices: a/src/x.rs: replace f -> u8 with 0",
                "Noticed, and no exception any more: a/src/x.rs: replace == with !=",
            ]
        );
        assert_eq!(judge("a", &missed, &exceptions, false), whole[..1]);
        assert!(judge("b", &BTreeSet::new(), &exceptions, true).is_empty());
    }

    #[test]
    fn every_exception_of_the_project_has_a_reason() {
        let project = Project::locate().unwrap();
        let text = fs::read_to_string(project.root().join(EXCEPTIONS)).unwrap();
        let exceptions: Exceptions = toml::from_str(&text).unwrap();
        for Exception { mutant, reason } in exceptions.exception {
            assert!(reason.len() > 10, "{mutant}");
            let file = mutant.split(':').next().unwrap_or_default();
            assert!(project.root().join(file).exists(), "{mutant}");
        }
    }
}
