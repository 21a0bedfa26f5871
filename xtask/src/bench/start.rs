//! `cargo xtask bench start`: what a Worker that has not run yet costs: its size, its instance, its first request.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use toml::{Table, Value};

use super::{
    Setting,
    arena::Arena,
    javascript,
    report::{Comparison, Row, median},
};
use crate::{
    clock::Stopwatch,
    output,
    project::{Project, Worker},
    run,
    stack::StackOptions,
    workers::{self, Size},
};

/// So many instances of each wasm are made.
const INSTANCES: usize = 30;

/// So many requests follow the first one.
const LATER_REQUESTS: usize = 50;

const OURS: &str = "this pair";
const JAVASCRIPT: &str = "the pair in JavaScript";

/// A producer that nobody has called yet, and the binding that reaches it.
const COLD: [(&str, &str); 2] =
    [("COLD", "cold-producer"), ("COLD_JAVASCRIPT", "cold-producer-in-javascript")];

/// Measures all of it.
pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Comparison>> {
    workers::build(setting.toolbox, &Worker::ALL)?;
    let project = &setting.toolbox.project;
    let mut comparisons = Vec::new();
    for worker in Worker::ALL {
        comparisons.extend(sizes(project, worker)?);
        comparisons.extend(instances(project, worker, setting.rounds(INSTANCES))?);
    }
    comparisons.extend(first_requests(project, setting.rounds(3))?);
    Ok(comparisons)
}

#[expect(clippy::cast_precision_loss, reason = "no Worker has 2^53 bytes")]
fn sizes(project: &Project, worker: Worker) -> Result<[Comparison; 2]> {
    let wasm = fs::read(workers::wasm(project, worker)).context("the wasm cannot be read")?;
    let glue = fs::read(project.worker_crate(worker).join("build/index.js"))?;
    let ours = Size::of_bytes(&[wasm, glue].concat())?;
    let files: Vec<Vec<u8>> = javascript(project, worker).iter().map(fs::read).collect::<Result<_, _>>()?;
    let theirs = Size::of_bytes(&files.concat())?;
    Ok([("raw", ours.raw, theirs.raw), ("gzipped", ours.gzipped, theirs.gzipped)].map(
        |(what, ours, theirs)| {
            let rows = vec![Row::new(OURS, [ours as f64 / 1e3]), Row::new(JAVASCRIPT, [theirs as f64 / 1e3])];
            Comparison::of_portable("start", format!("{}, {what}", worker.name()), "KB", rows)
        },
    ))
}

fn instances(project: &Project, worker: Worker, rounds: usize) -> Result<[Comparison; 2]> {
    #[derive(Deserialize)]
    struct Found {
        instantiate: Vec<f64>,
        compile: Vec<f64>,
    }
    let mut node = std::process::Command::new(project.npm_command("node"));
    node.arg(project.root().join("tests/bench/instantiate.mjs"))
        .arg(workers::wasm(project, worker))
        .arg(rounds.to_string());
    let found: Found = serde_json::from_str(&run::output_of(&mut node)?)?;
    Ok([("an instance of its wasm", found.instantiate), ("its wasm compiled", found.compile)].map(
        |(what, milliseconds)| {
            let rows = vec![Row::new(OURS, milliseconds)];
            Comparison::of_milliseconds("start", format!("{}, {what}", worker.name()), rows)
        },
    ))
}

/// On a runtime of its own for each round.
fn first_requests(project: &Project, rounds: usize) -> Result<[Comparison; 2]> {
    let (mut first, mut later) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 1..=rounds {
        output::note(format!("  first requests, round {round}"));
        Arena::with_options(
            |options| with_cold_producers(project, options),
            |arena| {
                // What stands before them is warm then.
                arena.has_left("nothing")?;
                for (number, (binding, _)) in COLD.into_iter().enumerate() {
                    let mut times = Vec::new();
                    for _ in 0..=LATER_REQUESTS {
                        times.push(refused(arena, binding)?);
                    }
                    let (one, rest) = times.split_first().context("no time")?;
                    if let (Some(first), Some(later)) = (first.get_mut(number), later.get_mut(number)) {
                        first.push(*one);
                        later.push(median(rest));
                    }
                }
                Ok(())
            },
        )?;
    }
    Ok([("the first request of a runtime", first), ("a later request", later)].map(
        |(case, [ours, theirs])| {
            let rows = vec![Row::new(OURS, ours), Row::new(JAVASCRIPT, theirs)];
            Comparison::of_milliseconds("start", format!("producer, {case}"), rows)
        },
    ))
}

/// How many milliseconds a producer takes for a request that it has nothing to do for, because it has no such address.
fn refused(arena: &Arena, binding: &str) -> Result<f64> {
    let watch = Stopwatch::start();
    let answer = arena.api().send_bare("GET", &format!("/__peers/{binding}"), &[], "")?;
    let time = watch.elapsed();
    ensure!(answer.status == 404, "status {}: {}", answer.status, answer.body);
    Ok(time.as_secs_f64() * 1e3)
}

fn with_cold_producers(project: &Project, options: &mut StackOptions) -> Result<()> {
    let ours = options.configs.producer.clone();
    let mut theirs = ours.clone();
    let [script, _] = javascript(project, Worker::Producer);
    theirs.insert("main".to_owned(), script.to_string_lossy().into_owned().into());
    theirs.remove("assets");
    let services = options.configs.gateway.get_mut("services").and_then(Value::as_array_mut);
    let services = services.context("the gateway has no services")?;
    for (mut config, (binding, name)) in [ours, theirs].into_iter().zip(COLD) {
        config.insert("name".to_owned(), name.into());
        let service = [("binding", binding), ("service", name)];
        services.push(Table::from_iter(service.map(|(key, value)| (key.to_owned(), value.into()))).into());
        options.configs.further.push(config);
    }
    Ok(())
}
