//! The harness itself, tried by a Worker in JavaScript: each service speaks the protocol of its binding, keeps
//! production's limits, and fails as it was told.

#![expect(clippy::indexing_slicing, reason = "a test may panic")]

mod bucket;
mod database;
mod queue;

use std::path::Path;

use anyhow::{Context as _, Result};
use crash::{Bucket, Clock, Config, Database, Dispatcher, Queue, QueueSettings, WorkerConfig, Workerd};
use serde_json::{Value, json};

/// A Worker that calls what the test names, see `fixtures/probe.js`.
struct Probe {
    bucket: Bucket,
    database: Database,
    queue: Queue,
    workerd: Workerd,
}

impl Probe {
    fn start() -> Result<Self> {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let clock = Clock::default();
        let bucket = Bucket::start(&clock)?;
        let database = Database::start(&fixtures.join("migrations"))?;
        database.migrate()?;
        let settings =
            QueueSettings { max_retries: 2, dead_letter_queue: Some("dead".into()), ..Default::default() };
        let queue = Queue::start(&clock, [("jobs".to_owned(), settings)])?;
        let worker = WorkerConfig {
            name: "probe".to_owned(),
            modules: vec![fixtures.join("probe.js")],
            compatibility_date: "2026-11-01".to_owned(),
            compatibility_flags: Vec::new(),
            bindings: vec![
                ("BUCKET".to_owned(), bucket.binding()),
                ("LEDGER".to_owned(), database.binding()),
                ("JOBS".to_owned(), queue.binding("jobs")),
            ],
            tail: None,
        };
        let workerd = Workerd::start(&Config { workers: vec![worker, Dispatcher::worker("probe")?] })?;
        Ok(Self { bucket, database, queue, workerd })
    }

    /// The value of a call, or the text of what it threw.
    #[expect(clippy::needless_pass_by_value, reason = "it reads better where it is called")]
    fn call(&self, call: &str, args: Value) -> Result<Value, String> {
        let answer =
            self.post(&json!({"call": call, "args": args})).map_err(|error| format!("harness: {error:#}"))?;
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["value"].clone()),
        }
    }

    fn post(&self, body: &Value) -> Result<Value> {
        let url = format!("http://{}/", self.workerd.address("probe")?);
        let text = ureq::post(&url).send(body.to_string())?.body_mut().read_to_string()?;
        serde_json::from_str(&text).with_context(|| text)
    }

    fn dispatcher(&self) -> Result<Dispatcher> {
        Ok(Dispatcher::new(self.workerd.address("dispatcher")?))
    }
}
