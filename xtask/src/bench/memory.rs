//! `cargo xtask bench memory`: how much of an isolate's 128 MB the producer takes for large requests.
//!
//! An isolate is shared by all requests that come to it at the time, so that they are sent together. What it takes is the
//! memory of its wasm, which never shrinks, and the most that JavaScript was seen to hold, garbage included. It is looked at from
//! outside, several times a second when the isolate has time for it, and collects its garbage after each look: left to itself V8
//! lets more of it gather while it is far from its limit.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::{
    Setting,
    inspector::Inspector,
    report::{Comparison, Row, Target},
};
use crate::{
    clock::{self, Stopwatch, wait_for},
    output,
    project::Worker,
    stack::{Api, Stack, StackOptions},
    workers,
};

/// Several requests of one kind at once.
struct Load {
    media_type: &'static str,
    at_once: usize,
    key_bytes: usize,
    /// What the isolate may take.
    bytes_max: u64,
}

const KEYS: usize = 100_000;

/// 128 MB, and a margin of an eighth for the calls beside.
const ISOLATE_BYTES_MAX: u64 = 112_000_000;

/// What one request of 100,000 keys of 60 bytes may take, by itself.
const REQUEST_BYTES_MAX: u64 = 64_000_000;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

const LOADS: [Load; 8] = [
    Load { media_type: JSON, at_once: 1, key_bytes: 60, bytes_max: REQUEST_BYTES_MAX },
    Load { media_type: NDJSON, at_once: 1, key_bytes: 60, bytes_max: REQUEST_BYTES_MAX },
    Load { media_type: JSON, at_once: 1, key_bytes: 156, bytes_max: ISOLATE_BYTES_MAX },
    Load { media_type: JSON, at_once: 4, key_bytes: 156, bytes_max: ISOLATE_BYTES_MAX },
    Load { media_type: JSON, at_once: 8, key_bytes: 156, bytes_max: ISOLATE_BYTES_MAX },
    Load { media_type: NDJSON, at_once: 1, key_bytes: 156, bytes_max: ISOLATE_BYTES_MAX },
    Load { media_type: NDJSON, at_once: 4, key_bytes: 156, bytes_max: ISOLATE_BYTES_MAX },
    Load { media_type: NDJSON, at_once: 8, key_bytes: 156, bytes_max: ISOLATE_BYTES_MAX },
];

/// How long one request may wait for its turn, told to come back as often as it may be.
const PATIENCE: Duration = Duration::from_mins(3);

/// Measures and prints each load: what it may take is a promise that binds.
pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Comparison>> {
    workers::build(setting.toolbox, &Worker::ALL)?;
    output::say("| body | MB | at once | seconds | told to come back | wasm MB | JavaScript MB | together |");
    output::say("|---|---|---|---|---|---|---|---|");
    let mut comparisons = Vec::new();
    for load in &LOADS {
        let found = load.measure()?;
        let megabytes = mb(load.body(0).len() as u64);
        output::say(format!("| {} | {megabytes:.1} | {} | {found} |", load.media_type, load.at_once));
        let case = format!("{} at once, {} of {megabytes:.1} MB", load.at_once, load.media_type);
        let row = Row::new("producer", [mb(found.together())]);
        let promised = Target::value(mb(load.bytes_max)).binding();
        comparisons.push(Comparison::of_memory("memory", case, vec![row]).promising([promised]));
    }
    Ok(comparisons)
}

/// What an isolate took, in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    time: Duration,
    /// How many answers said to come back.
    refused: usize,
    wasm: u64,
    js: u64,
}

impl Found {
    fn together(&self) -> u64 {
        self.wasm + self.js
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { time, refused, wasm, js } = *self;
        let (seconds, together) = (time.as_secs_f64(), mb(self.together()));
        let (wasm, js) = (mb(wasm), mb(js));
        write!(f, "{seconds:.1} | {refused} | {wasm:.1} | {js:.1} | {together:.1}")
    }
}

impl Load {
    /// On a pair of its own, because the memory of wasm does not shrink.
    fn measure(&self) -> Result<Found> {
        let state = std::env::temp_dir().join(format!("r2-deletion-queue-bench-{}", std::process::id()));
        let stack = Stack::start(StackOptions { inspect: true, ..StackOptions::new(&state)? })?;
        let found = self.measure_on(&stack);
        stack.stop();
        // OK because what is left there is small, and the next run takes another folder.
        let _ = std::fs::remove_dir_all(state);
        found
    }

    fn measure_on(&self, stack: &Stack) -> Result<Found> {
        // There is nothing to look into before the first call.
        ensure!(stack.api().get("/v1/stats")?.status == 200, "the producer does not answer");
        let mut inspector = Inspector::connect(&stack.inspector("r2-deletion-producer")?)?;
        let (watch, over) = (Stopwatch::start(), AtomicBool::new(false));
        let mut found = Found::default();
        thread::scope(|scope| -> Result<()> {
            let api = stack.api();
            let callers: Vec<_> = (0..self.at_once)
                .map(|number| {
                    let (api, body) = (api.clone(), self.body(number));
                    scope.spawn(move || self.send(&api, &body))
                })
                .collect();
            let watcher = scope.spawn(|| watch_js(&mut inspector, &over));
            let refused: Result<Vec<usize>> = callers
                .into_iter()
                .map(|caller| caller.join().unwrap_or_else(|_| bail!("a caller panicked")))
                .collect();
            found.time = watch.elapsed();
            over.store(true, Ordering::Relaxed);
            found.js = watcher.join().unwrap_or_else(|_| bail!("the watcher panicked"))?;
            found.refused = refused?.iter().sum();
            Ok(())
        })?;
        found.wasm = inspector.wasm_bytes()?;
        Ok(found)
    }

    /// Sends a request until it is accepted, and tells how often it was told to come back.
    fn send(&self, api: &Api, body: &str) -> Result<usize> {
        let mut refused = 0;
        let accepted = wait_for(PATIENCE, || {
            let answer = api.send("POST", "/v1/deletions", &[("content-type", self.media_type)], body)?;
            match answer.status {
                202 => Ok(Some(())),
                503 if answer.body.contains("\"overloaded\"") => {
                    refused += 1;
                    let seconds = answer.header("retry-after").and_then(|text| text.parse().ok());
                    clock::wait(Duration::from_secs(seconds.context("no Retry-After")?));
                    Ok(None)
                }
                _ => bail!("status {}: {}", answer.status, answer.body),
            }
        })?;
        accepted.map(|()| refused).context("a request was told to come back for too long")
    }

    /// A body of keys that no other of these bodies has.
    fn body(&self, number: usize) -> String {
        let keys = (0..KEYS)
            .map(|at| format!("{:x<width$}", format!("proj_{number}/{at:06}/"), width = self.key_bytes));
        if self.media_type == JSON {
            json!({ "objectKeys": keys.collect::<Vec<_>>() }).to_string()
        } else {
            keys.map(|key| json!(key).to_string() + "\n").collect()
        }
    }
}

/// The most that JavaScript was seen to hold.
pub(super) fn watch_js(inspector: &mut Inspector, over: &AtomicBool) -> Result<u64> {
    let mut most = 0;
    while !over.load(Ordering::Relaxed) {
        most = most.max(inspector.js_bytes()?);
        // What is still held after a collection is more than before the last, when a request has gone on meanwhile.
        inspector.wasm_bytes()?;
        most = most.max(inspector.js_bytes()?);
        clock::pause();
    }
    Ok(most)
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(super) fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
