//! Has libFuzzer look for inputs that a target does not stand.

mod engine;

use std::process::ExitCode;

use clap::Parser;
use fuzz::{Target, read_corpus, write_corpus};
use serde_json::json;

/// Runs the targets under libFuzzer, led by coverage, from the committed corpus on.
#[derive(Parser)]
struct Arguments {
    /// Which; all when left out.
    #[arg(value_enum)]
    targets: Vec<Target>,
    /// How long each, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Replaces the corpus by as few and short inputs as cover the same and what was found besides.
    #[arg(long)]
    minimise: bool,
    /// One line of JSON instead of the table.
    #[arg(long)]
    json: bool,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool for a terminal")]
fn main() -> ExitCode {
    match run(&Arguments::parse(), |line| println!("{line}")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, say: impl Fn(String)) -> anyhow::Result<bool> {
    let tell = |line: String| {
        if !arguments.json {
            say(line);
        }
    };
    let targets = if arguments.targets.is_empty() { Target::ALL.to_vec() } else { arguments.targets.clone() };
    let engine = engine::build()?;
    tell(format!(
        "{:<14} {:>12} {:>10} {:>8} {:>8}  found",
        "target", "executions", "a second", "edges", "corpus"
    ));
    let (mut executions, mut crashes) = (0, Vec::new());
    for &target in &targets {
        let seeds = read_corpus(target)?;
        let ran = engine.run(target, &seeds, arguments.seconds)?;
        let found =
            ran.crash.as_ref().map_or_else(|| "nothing".to_owned(), |path| path.display().to_string());
        let corpus = if arguments.minimise && ran.crash.is_none() {
            write_corpus(target, engine.minimise(target)?)?
        } else {
            seeds.len()
        };
        let a_second = ran.executions / u64::from(arguments.seconds.max(1));
        tell(format!(
            "{:<14} {:>12} {a_second:>10} {:>8} {corpus:>8}  {found}",
            target.name(),
            ran.executions,
            ran.edges
        ));
        executions += ran.executions;
        crashes.extend(ran.crash.map(|_| target.name()));
    }
    let is_right = crashes.is_empty();
    if arguments.json {
        say(json!({
            "check": "fuzz", "ok": is_right, "targets": targets.len(), "seconds_each": arguments.seconds,
            "executions": executions, "failing": crashes,
        })
        .to_string());
    } else {
        say(format!("{executions} executions of {} targets; {} failed", targets.len(), crashes.len()));
    }
    Ok(is_right)
}
