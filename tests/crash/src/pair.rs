//! Both Workers, as they are shipped, with everything around them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::bucket::Bucket;
use crate::clock::Clock;
use crate::config::{Binding, Config, WorkerConfig};
use crate::database::Database;
use crate::delivery::Dispatcher;
use crate::endpoint::{Endpoint, NOTICE_SECRETS};
use crate::queue::Queue;
use crate::workerd::Workerd;
use crate::wrangler::Wrangler;

/// The producer and the consumer on one `workerd`, between services that fail on demand.
#[derive(Debug)]
pub struct Pair {
    /// The bucket that the consumer deletes from.
    pub bucket: Bucket,
    /// The ledger's database.
    pub database: Database,
    /// The broker between the two.
    pub queue: Queue,
    /// The process that runs them.
    pub workerd: Workerd,
    /// The time that the services live by.
    pub clock: Clock,
}

/// The queue between the two, as the wrangler files name it.
pub const QUEUE: &str = "r2-deletions";
/// The queue that takes the messages which that one gave up.
pub const DEAD_LETTERS: &str = "r2-deletions-dlq";
/// The bearer token that the pair accepts.
pub(crate) const TOKEN: &str = "crash-test-token";
impl Pair {
    /// Starts both Workers from their builds, set up by their own wrangler files, on free ports and empty state.
    ///
    /// # Errors
    /// When a build or the runtime is missing, or does not start.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// The same, with completion notices for this endpoint.
    ///
    /// # Errors
    /// As [`Pair::start`].
    pub fn start_with_notices(endpoint: &Endpoint) -> Result<Self> {
        Self::start_with(&[("NOTICE_URL", endpoint.url()), ("NOTICE_SECRETS", NOTICE_SECRETS.join(" "))])
    }

    /// The same, with further settings of the consumer.
    ///
    /// # Errors
    /// As [`Pair::start`].
    pub fn start_with(settings: &[(&str, String)]) -> Result<Self> {
        let root = root()?;
        let consumer = Wrangler::read(&root.join("wrangler.consumer.toml"))?;
        let producer = Wrangler::read(&root.join("wrangler.producer.toml"))?;
        let clock = Clock::default();
        let bucket = Bucket::start(&clock)?;
        let database = Database::start(&root.join("ledger/migrations"))?;
        // A claim ends by the Workers' clock, which stands still while the broker's is moved on.
        database.move_with(&clock, "UPDATE chunks SET claimed_until = max(claimed_until - ?1, 0)");
        // And so does the time of a notice and of a sweep.
        database.move_with(&clock, "UPDATE notices SET due_at = max(due_at - ?1, 0)");
        database.move_with(&clock, "UPDATE sweeps SET due_at = max(due_at - ?1, 0)");
        let queue = Queue::start(&clock, consumer.consumed())?;
        let worker =
            |name: &str, wrangler: &Wrangler| shipped(&root, name, wrangler, &bucket, &database, &queue);
        let mut consumer = worker("consumer", &consumer)?;
        for (name, value) in settings {
            consumer.bindings.retain(|(bound, _)| bound != name);
            consumer.bindings.push(((*name).to_owned(), Binding::Text(value.clone())));
        }
        let config = Config {
            workers: vec![worker("producer", &producer)?, consumer, Dispatcher::worker("consumer")?],
        };
        let workerd = Workerd::start(&config)?;
        Ok(Self { bucket, database, queue, workerd, clock })
    }

    /// The way to the consumer, for deliveries by hand.
    ///
    /// # Errors
    /// When the process is not running.
    pub fn dispatcher(&self) -> Result<Dispatcher> {
        Ok(Dispatcher::new(self.workerd.address("dispatcher")?))
    }

    /// What the runtime and the Workers have printed.
    pub fn log(&self) -> String {
        self.workerd.output().join("\n")
    }
}

/// A Worker from its build, with the bindings of its wrangler file.
fn shipped(
    root: &Path,
    name: &str,
    wrangler: &Wrangler,
    bucket: &Bucket,
    database: &Database,
    queue: &Queue,
) -> Result<WorkerConfig> {
    let main = root.join(&wrangler.main);
    let build = main.parent().context("a main module without a folder")?;
    let mut bindings = vec![("API_TOKEN".to_owned(), Binding::Text(TOKEN.to_owned()))];
    bindings.extend(wrangler.vars.iter().map(|(name, value)| {
        let value = match value {
            toml::Value::String(text) => Binding::Text(text.clone()),
            other => Binding::Json(json!(other).to_string()),
        };
        (name.clone(), value)
    }));
    bindings.extend(wrangler.buckets().map(|name| (name.to_owned(), bucket.binding())));
    bindings.extend(wrangler.databases().map(|name| (name.to_owned(), database.binding())));
    bindings.extend(wrangler.queues().map(|(name, sent_to)| (name.to_owned(), queue.binding(sent_to))));
    let files = |(name, folder): (&str, &Path)| (name.to_owned(), Binding::Files(root.join(folder)));
    bindings.extend(wrangler.assets().map(files));
    Ok(WorkerConfig {
        name: name.to_owned(),
        modules: vec![main.clone(), build.join("index_bg.wasm")],
        compatibility_date: wrangler.compatibility_date.clone(),
        compatibility_flags: wrangler.compatibility_flags.clone(),
        bindings,
    })
}

/// The root of the repository.
pub(crate) fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.ancestors().nth(2).context("the crate is not in the repository")?.to_owned())
}
