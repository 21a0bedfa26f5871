//! Where the pair and its peers meet: one runtime, one bucket.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use toml::{Table, Value};

use crate::{
    clock::{Stopwatch, poll_for},
    project::Project,
    run,
    stack::{Answer, Api, Deletion, Stack, StackOptions},
};

/// The binding of each peer that is a Worker.
pub(super) const DELETE_PER_KEY: &str = "DELETE_PER_KEY";
pub(super) const FLOOR: &str = "FLOOR";
pub(super) const ONE_KEY_PER_MESSAGE: &str = "ONE_KEY_PER_MESSAGE";

/// What one request takes at most.
const REQUEST_KEYS_MAX: usize = 100_000;

/// How often it is looked whether all is gone: often enough to tell, and not so often that looking takes much of the machine.
const LOOK: Duration = Duration::from_millis(10);

/// How long one turn may take.
const PATIENCE: Duration = Duration::from_mins(30);

/// What the bucket's S3 endpoint accepts.
pub(super) const S3_ACCESS_KEY_ID: &str = "bench";
pub(super) const S3_SECRET_ACCESS_KEY: &str = "bench-secret";

/// A running stack with the peers beside the pair.
#[derive(Debug)]
pub(super) struct Arena {
    stack: Stack,
    project: Project,
    state: PathBuf,
    bucket: String,
}

impl Arena {
    /// Starts one, does `work` in it, ends it and removes what it leaves.
    ///
    /// # Errors
    /// When it does not come up, and those of `work`.
    pub(super) fn within<T>(work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        Self::with_options(|_| Ok(()), work)
    }

    /// The same, with Workers that can be looked into.
    ///
    /// # Errors
    /// The same.
    pub(super) fn within_inspected<T>(work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let inspected = |options: &mut StackOptions| {
            options.inspect = true;
            Ok(())
        };
        Self::with_options(inspected, work)
    }

    /// The same, with anything about it changed.
    ///
    /// # Errors
    /// The same, and those of `change`.
    pub(super) fn with_options<T>(
        change: impl FnOnce(&mut StackOptions) -> Result<()>,
        work: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        let state = std::env::temp_dir().join(format!("r2-deletion-queue-bench-{}", std::process::id()));
        let project = Project::locate()?;
        let mut options = with_peers(&project, StackOptions::new(&state)?)?;
        change(&mut options)?;
        let bucket = bucket_name(&options.configs.consumer)?;
        let arena = Self { stack: Stack::start(options)?, project, state, bucket };
        let done = work(&arena);
        let Self { stack, state, .. } = arena;
        stack.stop();
        // OK because the next run of this process finds an empty bucket or none, and that of another takes another folder.
        let _ = fs::remove_dir_all(state);
        done
    }

    /// Where V8's inspector of a Worker is, by its name.
    ///
    /// # Errors
    /// When the Workers cannot be looked into.
    pub(super) fn inspector(&self, worker: &str) -> Result<String> {
        self.stack.inspector(worker)
    }

    /// A client of the pair.
    pub(super) fn api(&self) -> Api {
        self.stack.api()
    }

    /// The bucket's name.
    pub(super) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Where the bucket answers S3's protocol.
    pub(super) fn s3_endpoint(&self) -> String {
        format!("{}/cdn-cgi/local/r2/s3", self.stack.url())
    }

    /// Puts an object under each key. Nobody may use the bucket meanwhile.
    ///
    /// # Errors
    /// When the bucket is not where the runtime keeps it, or cannot be written to.
    pub(super) fn fill(&self, keys: &[String]) -> Result<()> {
        // It is made by its first use.
        self.has_left("nothing")?;
        let mut node = Command::new(self.project.npm_command("node"));
        node.arg("--no-warnings")
            .arg(self.project.root().join("tests/bench/fill.mjs"))
            .arg(self.database()?)
            .arg(self.blobs());
        run::fed(&mut node, &keys.join("\n")).context("the bucket cannot be filled").map(drop)
    }

    /// Waits until the runtime has removed the files of what was deleted, which it does afterwards: else the next one pays for it.
    ///
    /// # Errors
    /// When it takes minutes.
    pub(super) fn settle(&self) -> Result<()> {
        let blobs = self.blobs();
        let settled = poll_for(LOOK, PATIENCE, || Ok(fs::read_dir(&blobs)?.next().is_none().then_some(())))?;
        settled.context("the files of deleted objects are still there")
    }

    fn blobs(&self) -> PathBuf {
        self.r2().join(&self.bucket).join("blobs")
    }

    fn r2(&self) -> PathBuf {
        self.state.join("v3/r2")
    }

    /// The file with the rows of the bucket, the only one of the stack.
    fn database(&self) -> Result<PathBuf> {
        let files = fs::read_dir(self.r2().join("miniflare-R2BucketObject"))?;
        let files: Vec<PathBuf> = files.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        let is_database = |path: &&PathBuf| {
            path.extension().is_some_and(|extension| extension == "sqlite")
                && path.file_stem().is_some_and(|stem| stem != "metadata")
        };
        files.iter().find(is_database).cloned().context("the bucket has no database")
    }

    /// Hands keys to a peer.
    ///
    /// # Errors
    /// When it does not take them.
    pub(super) fn hand_to(&self, peer: &str, keys: &[String]) -> Result<()> {
        let body = json!({ "keys": keys }).to_string();
        let answer = self.api().send_bare("POST", &format!("/__peers/{peer}"), &[], &body)?;
        ensure!(matches!(answer.status, 200 | 202), "status {}: {}", answer.status, answer.body);
        Ok(())
    }

    /// Whether the bucket has an object whose key begins with `prefix`.
    ///
    /// # Errors
    /// When the stack does not answer.
    pub(super) fn has_left(&self, prefix: &str) -> Result<bool> {
        #[derive(serde::Deserialize)]
        struct Found {
            left: bool,
        }
        let path = format!("/__peers/left?prefix={prefix}");
        let answer: Answer = self.api().send_bare("GET", &path, &[], "")?;
        Ok(answer.expect::<Found>(200)?.left)
    }

    /// Waits until it has none.
    ///
    /// # Errors
    /// When it still has after minutes.
    pub(super) fn wait_until_empty(&self, prefix: &str) -> Result<()> {
        let empty = poll_for(LOOK, PATIENCE, || Ok((!self.has_left(prefix)?).then_some(())))?;
        empty.context("there are still objects left")
    }

    /// Has the pair delete `keys`, any number of them, and waits until it says that it has: the time from the request on.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn delete_by_pair(&self, keys: &[String]) -> Result<Duration> {
        self.delete_with_fence("auto", keys)
    }

    /// The same with another fence than there is by itself.
    ///
    /// # Errors
    /// The same.
    pub(super) fn delete_with_fence(&self, fence: &str, keys: &[String]) -> Result<Duration> {
        let api = self.api();
        let watch = Stopwatch::start();
        let accepted = request(&api, fence, keys)?;
        wait_for_end(&api, &accepted, keys.len())?;
        Ok(watch.elapsed())
    }
}

/// Asks for the deletion of any number of keys: in parts, when they are more than one request takes.
///
/// # Errors
/// When it is refused.
pub(super) fn request(api: &Api, fence: &str, keys: &[String]) -> Result<Deletion> {
    if keys.len() <= REQUEST_KEYS_MAX {
        return api.request(&json!({ "objectKeys": keys, "fence": fence }));
    }
    let accepted = api.request(&json!({ "in_parts": true, "fence": fence }))?;
    let of_json = [("content-type", "application/json")];
    let path = format!("/v1/deletions/{}", accepted.id);
    let mut parts = 0;
    for keys in keys.chunks(REQUEST_KEYS_MAX) {
        parts += 1;
        let body = json!({ "objectKeys": keys }).to_string();
        let put = api.send("PUT", &format!("{path}/parts/{parts}"), &of_json, &body)?;
        ensure!(put.status < 300, "part {parts}: status {}: {}", put.status, put.body);
    }
    let body = json!({ "parts": parts, "total_keys": keys.len() }).to_string();
    let sealed = api.send("POST", &format!("{path}/seal"), &of_json, &body)?;
    ensure!(sealed.status < 300, "status {}: {}", sealed.status, sealed.body);
    Ok(accepted)
}

/// Waits until a deletion of `keys` keys has succeeded.
///
/// # Errors
/// When it ends in another way, or not at all.
pub(super) fn wait_for_end(api: &Api, accepted: &Deletion, keys: usize) -> Result<()> {
    let ended = poll_for(LOOK, PATIENCE, || {
        let deletion = api.deletion(&accepted.id)?;
        Ok(deletion.is_final().then_some(deletion))
    })?;
    let ended = ended.context("the deletion does not end")?;
    let whole = ended.state == "succeeded" && ended.counts.deleted == keys as u64;
    ensure!(whole, "the deletion ended as {}, {:?}", ended.state, ended.counts);
    Ok(())
}

/// Keys of 60 bytes, as users have them, all under `prefix`, which no other call is given.
pub(super) fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|at| format!("{:-<56}.jpg", format!("{prefix}images/{at:07}"))).collect()
}

fn bucket_name(consumer: &Table) -> Result<String> {
    let name = consumer.get("r2_buckets").and_then(|buckets| buckets.get(0)?.get("bucket_name")?.as_str());
    Ok(name.context("the consumer has no bucket")?.to_owned())
}

/// Puts the peers beside the pair, behind the gateway, on the same bucket.
fn with_peers(project: &Project, mut options: StackOptions) -> Result<StackOptions> {
    let folder = project.root().join("tests/bench/peers");
    let file = |name: &str| Value::from(folder.join(name).to_string_lossy().into_owned());
    let bucket = bucket_name(&options.configs.consumer)?;
    let gateway = &mut options.configs.gateway;
    let date = gateway.get("compatibility_date").context("the gateway has no date")?.clone();

    gateway.insert("main".to_owned(), file("front.js"));
    let services = gateway.get_mut("services").and_then(Value::as_array_mut).context("no services")?;
    for (binding, service) in [
        (DELETE_PER_KEY, "delete-per-key"),
        (FLOOR, "floor"),
        (ONE_KEY_PER_MESSAGE, "one-key-per-message-producer"),
    ] {
        let service = Table::from_iter([("binding", binding), ("service", service)].map(text));
        services.push(service.into());
    }
    let buckets = gateway.get_mut("r2_buckets").and_then(Value::as_array_mut).context("no buckets")?;
    let credentials = [("accessKeyId", S3_ACCESS_KEY_ID), ("secretAccessKey", S3_SECRET_ACCESS_KEY)];
    let credentials: Value = Table::from_iter(credentials.map(text)).into();
    let local: Value = Table::from_iter([("experimental_s3_credentials".to_owned(), credentials)]).into();
    for bucket in buckets.iter_mut().filter_map(Value::as_table_mut) {
        bucket.insert("local_dev".to_owned(), local.clone());
    }

    let on_the_bucket = |name: &str, main: &str| {
        format!(
            "name = \"{name}\"\nmain = {}\ncompatibility_date = {date}\n\
             r2_buckets = [{{ binding = \"BUCKET\", bucket_name = \"{bucket}\" }}]\n",
            file(main)
        )
    };
    let consumer = on_the_bucket("one-key-per-message-consumer", "one-key-per-message/consumer.js")
        + "[[queues.consumers]]\nqueue = \"one-key-per-message\"\nmax_batch_size = 100\nmax_batch_timeout = 0\n";
    let producer = on_the_bucket("one-key-per-message-producer", "one-key-per-message/producer.js")
        + "[[queues.producers]]\nbinding = \"KEYS\"\nqueue = \"one-key-per-message\"\n";
    let workers = [
        on_the_bucket("delete-per-key", "delete-per-key.js"),
        on_the_bucket("floor", "floor.js"),
        producer,
        consumer,
    ];
    for worker in workers {
        options.configs.further.push(worker.parse().context("a peer's configuration is no TOML")?);
    }
    Ok(options)
}

fn text((name, value): (&str, &str)) -> (String, Value) {
    (name.to_owned(), value.into())
}
