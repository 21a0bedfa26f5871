//! Explores the model, and says how much that was.

use std::process::ExitCode;

use clap::{Parser, ValueEnum as _};
use model::{Explored, SCOPES, Scope, explore, plants};
use serde_json::json;

/// Goes through every order of events of a small deletion.
#[derive(Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
struct Arguments {
    /// The large scopes too: minutes, and gigabytes of memory.
    #[arg(long)]
    large: bool,
    /// Only this scope.
    #[arg(long)]
    scope: Option<String>,
    /// Without the planted bugs.
    #[arg(long)]
    no_plants: bool,
    /// Shows the steps that lead to each counterexample.
    #[arg(long)]
    steps: bool,
    /// One line of JSON instead of the table.
    #[arg(long)]
    json: bool,
}

#[expect(clippy::print_stdout, reason = "a tool for a terminal")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let tell = |line: String| {
        if !arguments.json {
            println!("{line}");
        }
    };
    let (scopes, states, is_as_known) = explore_scopes(&arguments, tell);
    let with_plants = !arguments.no_plants && arguments.scope.is_none();
    let (planted, caught) = if with_plants { catch_plants(tell) } else { (0, 0) };
    let is_right = scopes > 0 && is_as_known && caught == planted;
    if arguments.json {
        let summary = json!({
            "check": "model", "ok": is_right, "scopes": scopes, "states": states, "planted": planted, "caught": caught,
        });
        println!("{summary}");
    } else {
        println!("{states} states explored in {scopes} scopes; {caught} of {planted} planted bugs caught");
    }
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How many scopes there were, how many states, and whether all counterexamples are known, and were found.
fn explore_scopes(arguments: &Arguments, tell: impl Fn(String)) -> (usize, usize, bool) {
    let wanted = |scope: &&Scope| match &arguments.scope {
        Some(name) => scope.name == name,
        None => arguments.large || !scope.is_large,
    };
    let (mut scopes, mut states, mut is_right) = (0, 0, true);
    tell(format!(
        "{:<18} {:>12} {:>12} {:>6} {:>8}  counterexamples",
        "scope", "states", "generated", "depth", "seconds"
    ));
    for scope in SCOPES.iter().filter(wanted) {
        let explored = explore(scope.protocol(), None);
        let found: Vec<&str> = explored.counterexamples.keys().copied().collect();
        let mut known = scope.known.to_vec();
        known.sort_unstable();
        let is_as_known = found == known && explored.is_exhausted;
        let verdict = match (found.is_empty(), is_as_known) {
            (true, true) => "none".to_owned(),
            (false, true) => format!("known: {}", found.join("; ")),
            (_, false) => format!("NOT AS KNOWN: {}", found.join("; ")),
        };
        let Explored { states: different, generated, depth, seconds, .. } = explored;
        tell(format!(
            "{:<18} {different:>12} {generated:>12} {depth:>6} {seconds:>8.1}  {verdict}",
            scope.name
        ));
        if arguments.steps || !is_as_known {
            explored.counterexamples.iter().for_each(|(name, steps)| tell(format!("  {name}: {steps:?}")));
        }
        (scopes, states, is_right) = (scopes + 1, states + different, is_right && is_as_known);
    }
    (scopes, states, is_right)
}

/// How many bugs are planted, and how many of them are caught.
fn catch_plants(tell: impl Fn(String)) -> (usize, usize) {
    let (mut planted, mut caught) = (0, 0);
    for (plant, protocol, breaks) in plants() {
        let explored = explore(protocol, Some(breaks));
        let name = plant.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let verdict = match explored.counterexamples.get(breaks) {
            Some(steps) => format!("after {} steps not so: {breaks}", steps.len()),
            None => format!("SURVIVES: {breaks}"),
        };
        tell(format!("planted {name}: {verdict}"));
        planted += 1;
        caught += usize::from(explored.counterexamples.contains_key(breaks));
    }
    (planted, caught)
}
