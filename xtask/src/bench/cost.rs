//! `cargo xtask bench cost`: what deletions cost at Cloudflare's published prices, by operations that are counted.
//!
//! The pair runs as it is deployed, its shipped wasm between bindings that count (`tests/bench/counted.js`). A row of the
//! ledger is counted by the database itself, its index writes included; an operation of the Queue by the rule of its price.
//! What is not counted here is time on the processor.

mod counts;
mod prices;
mod report;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use toml::Table;

use self::{
    counts::Counts,
    report::{Measured, Report},
};
use super::{Setting, report::Comparison};
use crate::{
    clock::wait_for,
    output,
    project::{Project, Worker},
    stack::{Stack, StackOptions},
    workers,
};

/// What `cargo xtask bench cost` takes.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// How many keys are deleted, of which a million's cost is derived
    #[arg(long, default_value_t = Options::USUAL.keys, value_parser = clap::value_parser!(u32).range(1000..=100_000))]
    keys: u32,
    /// The length of each key in bytes
    #[arg(long, default_value_t = Options::USUAL.key_bytes, value_parser = clap::value_parser!(u32).range(32..=1024))]
    key_bytes: u32,
}

impl Options {
    /// What the targets are for.
    pub(super) const USUAL: Self = Self { keys: 100_000, key_bytes: 60 };
}

/// What is deleted, and how it is asked for.
struct Workload {
    name: &'static str,
    /// Deletions, one after the other.
    deletions: u32,
    /// Keys of each.
    keys: u32,
    /// Whether they are found by prefix rather than named.
    by_prefix: bool,
    fence: &'static str,
    /// Whether there are objects to be found; else to delete them is the same to all that is counted.
    stored: bool,
    /// Where its keys are, within each deletion's prefix. A name that is not ASCII is in no listing that is a look.
    folder: &'static str,
}

/// How long all deletions of a workload may take.
const PATIENCE: Duration = Duration::from_mins(10);

/// Where `tests/bench/counted.js` has upkeep go round.
const UPKEEP: &str = "/__bench/upkeep";

/// Counts each workload, and prints what it costs.
pub(super) fn run(setting: &Setting<'_>, options: Options) -> Result<Vec<Comparison>> {
    let toolbox = setting.toolbox;
    workers::build(toolbox, &Worker::ALL)?;
    let state = std::env::temp_dir().join(format!("r2-deletion-queue-bench-cost-{}", std::process::id()));
    let report = measure(&toolbox.project, &state, options);
    // OK because what is left there is small, and the next run takes another folder.
    let _ = fs::remove_dir_all(&state);
    let report = report?;
    output::say(report.to_string());
    Ok(report.comparisons())
}

fn measure(project: &Project, state: &Path, options: Options) -> Result<Report> {
    let mut set_up = StackOptions::new(state.join("stack"))?;
    for worker in Worker::ALL {
        let config = match worker {
            Worker::Producer => &mut set_up.configs.producer,
            Worker::Consumer => &mut set_up.configs.consumer,
        };
        count(project, worker, &state.join(worker.name()), config)?;
    }
    let consumer = set_up.configs.consumer.get("name").context("the consumer has no name")?.clone();
    let service =
        Table::from_iter([("binding".to_owned(), "CONSUMER".into()), ("service".to_owned(), consumer)]);
    set_up.configs.producer.insert("services".to_owned(), vec![service].into());

    let stack = Stack::start(set_up)?;
    let few = options.keys / 10;
    let workloads = [
        Workload { deletions: 1, keys: options.keys, ..Workload::named("named in one request") },
        Workload { keys: few, by_prefix: true, stored: true, ..Workload::named("found by prefix") },
        Workload { keys: few, fence: "always", stored: true, ..Workload::named("named, looked at by page") },
        Workload {
            keys: few,
            fence: "always",
            stored: true,
            folder: "phötos",
            ..Workload::named("named, looked at one by one")
        },
        Workload { deletions: 100, keys: 10, ..Workload::named("named, ten to a request") },
    ];
    let measured = workloads.iter().map(|workload| {
        output::note(format!("{}: {} keys", workload.name, workload.deletions * workload.keys));
        workload.measure(&stack, options.key_bytes).with_context(|| workload.name)
    });
    let measured = measured.collect::<Result<Vec<_>>>()?;
    stack.stop();
    Ok(Report { key_bytes: options.key_bytes, measured })
}

/// Puts the module that counts before a copy of the build.
fn count(project: &Project, worker: Worker, folder: &Path, config: &mut Table) -> Result<()> {
    fs::create_dir_all(folder)?;
    for file in ["index.js", "index_bg.wasm"] {
        fs::copy(project.worker_crate(worker).join("build").join(file), folder.join(file))?;
    }
    let main = folder.join("counted.js");
    fs::copy(project.root().join("tests/bench/counted.js"), &main)?;
    config.insert("main".to_owned(), main.to_string_lossy().into_owned().into());
    let vars = config.entry("vars").or_insert_with(|| Table::new().into());
    let vars = vars.as_table_mut().context("the vars are no table")?;
    vars.insert("COUNTED".to_owned(), worker.name().into());
    Ok(())
}

impl Workload {
    fn named(name: &'static str) -> Self {
        Self { name, deletions: 1, keys: 0, by_prefix: false, fence: "auto", stored: false, folder: "photos" }
    }

    fn measure(&self, stack: &Stack, key_bytes: u32) -> Result<Measured> {
        if self.stored {
            let keys: Vec<String> = self.keys_of(0, key_bytes).collect();
            keys.chunks(250).try_for_each(|keys| stack.gateway().put(keys, 1))?;
        }
        let began = stack.log()?.len();
        for number in 0..self.deletions {
            stack.api().request(&self.body(number, key_bytes))?;
        }
        let unfinished = "SELECT COUNT(*) AS n FROM deletions WHERE finished_at IS NULL";
        wait_for(PATIENCE, || Ok((number(stack, unfinished)? == 0).then_some(())))?
            .context("not over in time")?;
        // A message is acknowledged after what it was about is over.
        let until_over = wait_for(PATIENCE, || {
            let counts = Counts::read(&stack.log()?, began)?;
            Ok(counts.is_settled().then_some(counts))
        });
        let until_over = until_over?.context("a message is left")?;
        ensure!(number(stack, "SELECT COUNT(*) AS n FROM failures")? == 0, "a key has failed");

        let kept = self.upkeep(stack)?;
        stack.gateway().sql("UPDATE deletions SET finished_at = 1", &[])?;
        let removed_from = stack.log()?.len();
        wait_for(PATIENCE, || {
            self.upkeep(stack)?;
            Ok((number(stack, "SELECT COUNT(*) AS n FROM deletions")? == 0).then_some(()))
        })?
        .context("not removed in time")?;
        let removal = Counts::read(&stack.log()?, removed_from)?;
        Ok(Measured {
            name: self.name,
            keys: (self.deletions * self.keys).into(),
            until_over,
            removal,
            upkeep_rows_read: kept.of("d1_rows_read"),
        })
    }

    /// Has upkeep go round once, and counts that.
    fn upkeep(&self, stack: &Stack) -> Result<Counts> {
        let began = stack.log()?.len();
        let answer = stack.api().send("POST", UPKEEP, &[], "")?;
        ensure!(answer.status == 200, "{} has no upkeep: {}", self.name, answer.body);
        let counts = wait_for(PATIENCE, || {
            let counts = Counts::read(&stack.log()?, began)?;
            Ok((counts.of("worker_invocations") > 0).then_some(counts))
        });
        counts?.context("upkeep was not counted")
    }

    fn body(&self, number: u32, key_bytes: u32) -> Value {
        if self.by_prefix {
            return json!({ "prefixes": [prefix(number)], "fence": self.fence });
        }
        json!({ "objectKeys": self.keys_of(number, key_bytes).collect::<Vec<_>>(), "fence": self.fence })
    }

    /// The keys of one of its deletions, each of this length.
    fn keys_of(&self, number: u32, key_bytes: u32) -> impl Iterator<Item = String> {
        let width = key_bytes as usize;
        (0..self.keys)
            .map(move |at| format!("{:x<width$}", format!("{}{}/{at:06}-", prefix(number), self.folder)))
    }
}

fn prefix(number: u32) -> String {
    format!("proj_{number}/")
}

/// The one number that a statement finds, past everything that counts.
fn number(stack: &Stack, sql: &str) -> Result<u64> {
    let rows = stack.gateway().sql(sql, &[])?;
    rows.first().and_then(|row| row.get("n")?.as_u64()).context("no number")
}
