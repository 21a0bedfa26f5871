//! Both Workers, as they are shipped, with everything around them.

use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::canary::{Canary, leaks};
use crate::clock::Clock;
use crate::config::{Binding, Config, WorkerConfig};
use crate::database::Database;
use crate::delivery::Dispatcher;
use crate::endpoint::{Endpoint, NOTICE_SECRETS};
use crate::faults::Met;
use crate::queue::Queue;
use crate::trap::{TRAPPED, Trap};
use crate::workerd::Workerd;
use crate::wrangler::Wrangler;

/// The producer and the consumer on one `workerd`, between services that fail on demand.
///
/// Dropping it ends the runtime and searches all that it has printed, in its whole life, for what the pair was given to keep to
/// itself: a test whose pair has told something panics.
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
    /// What must not get out.
    pub canary: Canary,
    config: Config,
    endpoint: Option<Endpoint>,
}

/// The queue between the two, as the wrangler files name it.
pub const QUEUE: &str = "r2-deletions";
/// The queue that takes the messages which that one gave up.
pub const DEAD_LETTERS: &str = "r2-deletions-dlq";

/// How a pair differs from what its wrangler files say.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Further settings of the consumer.
    pub settings: Vec<(&'static str, String)>,
    /// Where completion notices go, if anywhere.
    pub endpoint: Option<Endpoint>,
    /// Where the wasm runs into traps.
    pub traps: Vec<Trap>,
    /// Whether the ledger's schema is there: without, [`Database::migrate`] makes it.
    pub unmigrated: bool,
}

impl Pair {
    /// Starts both Workers from their builds, set up by their own wrangler files, on free ports and empty state.
    ///
    /// # Errors
    /// When a build or the runtime is missing, or does not start.
    pub fn start() -> Result<Self> {
        Self::set_up(Setup::default())
    }

    /// The same, with completion notices for this endpoint.
    ///
    /// # Errors
    /// As [`Pair::start`].
    pub fn start_with_notices(endpoint: &Endpoint) -> Result<Self> {
        Self::set_up(Setup { endpoint: Some(endpoint.clone()), ..Setup::default() })
    }

    /// The same, set up otherwise.
    ///
    /// # Errors
    /// As [`Pair::start`].
    pub fn set_up(setup: Setup) -> Result<Self> {
        let Setup { mut settings, endpoint, traps, unmigrated } = setup;
        if let Some(endpoint) = &endpoint {
            settings.push(("NOTICE_URL", endpoint.url()));
            settings.push(("NOTICE_SECRETS", NOTICE_SECRETS.join(" ")));
        }
        let root = root()?;
        let consumer = Wrangler::read(&root.join("wrangler.consumer.toml"))?;
        let producer = Wrangler::read(&root.join("wrangler.producer.toml"))?;
        let (clock, canary) = (Clock::default(), Canary::new());
        let bucket = Bucket::start(&clock)?.with_canary(&canary);
        let database = Database::start(&root.join("ledger/migrations"))?;
        if !unmigrated {
            database.migrate()?;
        }
        // A claim ends by the Workers' clock, which stands still while the broker's is moved on.
        database.move_with(&clock, "UPDATE chunks SET claimed_until = max(claimed_until - ?1, 0)");
        // And so does the time of a notice and of a sweep.
        database.move_with(&clock, "UPDATE notices SET due_at = max(due_at - ?1, 0)");
        database.move_with(&clock, "UPDATE sweeps SET due_at = max(due_at - ?1, 0)");
        let queue = Queue::start(&clock, consumer.consumed())?;
        let token = Binding::Text(canary.token());
        let worker = |name: &str, wrangler: &Wrangler| {
            let mut worker = shipped(&root, name, wrangler, &bucket, &database, &queue)?;
            worker.bindings.push(("API_TOKEN".to_owned(), token.clone()));
            let traps: Vec<_> = traps.iter().filter(|trap| trap.is_of(name)).map(Trap::encode).collect();
            if !traps.is_empty() {
                let modules =
                    ["trap.js", "capture.js"].map(|name| root.join("tests/crash/src/trap").join(name));
                worker.modules.splice(0..0, modules);
                worker.bindings.push(("TRAPS".to_owned(), Binding::Json(json!(traps).to_string())));
            }
            Ok::<_, anyhow::Error>(worker)
        };
        let mut config = Config {
            workers: vec![
                worker("producer", &producer)?,
                worker("consumer", &consumer)?,
                Dispatcher::worker("consumer")?,
            ],
        };
        for (name, value) in &settings {
            config.set("consumer", name, value);
        }
        let workerd = Workerd::start(&config)?;
        Ok(Self { bucket, database, queue, workerd, clock, canary, config, endpoint })
    }

    /// The way to the consumer, for deliveries by hand.
    ///
    /// # Errors
    /// When the process is not running.
    pub fn dispatcher(&self) -> Result<Dispatcher> {
        Ok(Dispatcher::new(self.workerd.address("dispatcher")?))
    }

    /// Starts a second process of both Workers, as a deployment does, beside the first: on the same bucket, ledger and queue, with
    /// this changed of what `worker` finds in its environment.
    ///
    /// # Errors
    /// As [`Pair::start`].
    pub fn start_beside(&self, changes: &[(&str, &str, &str)]) -> Result<Workerd> {
        let mut config = self.config.clone();
        for (worker, name, value) in changes {
            config.set(worker, name, value);
        }
        self.workerd.start_another(&config)
    }

    /// Has the process go that has been running, its last words kept, and `successor` take its place.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn succeed(&mut self, successor: Workerd) -> Result<()> {
        std::mem::replace(&mut self.workerd, successor).hand_over(&mut self.workerd)
    }

    /// What the runtime and the Workers have printed, without their tail events, which say it a second time.
    pub fn log(&self) -> String {
        let lines = self.workerd.output();
        lines.into_iter().filter(|line| !line.starts_with(TAIL)).collect::<Vec<_>>().join("\n")
    }

    /// What the API or a notice says, in the test's own names, without the canary.
    pub fn in_own_names(&self, told: &Value) -> Value {
        serde_json::from_str(&self.canary.undress(&told.to_string())).unwrap_or_default()
    }

    /// How often the wasm has run into a trap.
    pub fn trapped(&self) -> usize {
        self.workerd.output().iter().filter(|line| line.starts_with(TRAPPED)).count()
    }

    /// Calls that have failed, by kind: of all services together.
    pub fn faults_met(&self) -> Met {
        let endpoint = self.endpoint.as_ref().map(Endpoint::met).unwrap_or_default();
        self.bucket.met() + self.database.met() + self.queue.met() + endpoint
    }

    /// Whether the wasm may run into traps, so that an invocation of it may fail.
    pub(crate) fn has_traps(&self) -> bool {
        self.config.workers.iter().any(|worker| worker.bindings.iter().any(|(name, _)| name == "TRAPS"))
    }

    /// Ends the runtime and looks for what it has told of what it must keep to itself.
    fn check_kept(&mut self) -> Result<()> {
        let lines = self.workerd.last_words()?;
        let mut secrets = self.canary.secrets();
        if let Some(endpoint) = &self.endpoint {
            secrets.extend(endpoint.secrets());
            for notice in endpoint.received()? {
                self.canary.check_told("a notice", &notice.body.to_string())?;
            }
        }
        let leaks = leaks(&lines, &secrets);
        ensure!(leaks.is_empty(), "told: {leaks:#?}");
        Ok(())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let kept = self.check_kept();
        // A second panic would end all tests, and hide the first.
        assert!(thread::panicking() || kept.is_ok(), "the output of the runtime: {kept:?}");
    }
}

/// What the lines begin with that are tail events: see `dispatcher.js`.
const TAIL: &str = "tail: ";

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
    let variable = |(name, value): (&String, &toml::Value)| {
        let value = match value {
            toml::Value::String(text) => Binding::Text(text.clone()),
            other => Binding::Json(json!(other).to_string()),
        };
        (name.clone(), value)
    };
    let mut bindings: Vec<_> = wrangler.vars.iter().map(variable).collect();
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
        tail: Some("dispatcher".to_owned()),
    })
}

/// The root of the repository.
pub(crate) fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.ancestors().nth(2).context("the crate is not in the repository")?.to_owned())
}
