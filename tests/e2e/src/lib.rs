//! What the end-to-end tests share: a stack of its own for each test, and waiting with a deadline.
//!
//! | test file | what it shows |
//! |---|---|
//! | `bad_input.rs` | whatever comes as a body: 4xx within a second that says what is wrong and where, and nothing is accepted |
//! | `configuration.rs` | the wrangler files say what the code relies on |
//! | `deletions.rs` | exactly the requested objects go, from 1 key to 25,000, whatever their names, by either call |
//! | `description.rs` | every answer to made-up requests is as the API's description says |
//! | `docs.rs` | every line of `docs/api.md` runs and answers as it is shown there, and the calls and statements of the other pages |
//! | `fence.rs` | what was uploaded since the request is kept where the fence looks |
//! | `messages.rs` | messages that cannot be read, that come twice, and dead letters |
//! | `notices.rs` | each end of a deletion is told to the operator's endpoint, once and signed |
//! | `pages.rs` | what the pages name is there: links, commands, settings, codes, events, limits |
//! | `parts.rs` | a million keys in parts are one deletion with exact counts, and half an upload is never a whole one |
//! | `python_client.rs` | the Python client does against the pair what its tests say |
//! | `quickstarts.rs` | whoever follows a quickstart to the letter sees what it shows |
//! | `reading.rs` | labels, listing, failures as NDJSON, and the totals |
//! | `requests.rs` | every wrong request is refused with an answer that says what is right |
//! | `sweeps.rs` | what a prefix or a project names goes, its neighbours stay; dry runs, plans, brakes, refusals |
//! | `tokens.rs` | each token may do what it was given and sees what is its own, as often as the limit allows |

#![expect(clippy::disallowed_methods, reason = "this is no Worker: it waits by the clock")]

pub mod pages;

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::slice;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rusqlite::Connection;
use tempfile::TempDir;
use xtask::stack::{Deletion, Stack, StackOptions};

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_mins(2);

/// A stack on a port and a state of its own, which ends with the test.
#[derive(Debug)]
pub struct Pair {
    stack: Stack,
    state: TempDir,
}

impl Pair {
    /// Starts it, its bucket and its ledger empty.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start() -> Result<Self> {
        Self::start_with(|_| {})
    }

    /// The same, set up in another way.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_with(set_up: impl FnOnce(&mut StackOptions)) -> Result<Self> {
        let state = tempfile::tempdir()?;
        // A token that nothing else spells, so that a test can look for it.
        let mut options =
            StackOptions { token: "e2e-canary-token".to_owned(), ..StackOptions::new(state.path())? };
        set_up(&mut options);
        let stack = Stack::start(options)?;
        Ok(Self { stack, state })
    }

    /// Waits until a deletion is final. Its counts must add up at every look.
    ///
    /// # Errors
    /// When it does not end in time, or when its counts do not add up.
    pub fn settle(&self, id: &str) -> Result<Deletion> {
        self.settle_within(PATIENCE, id)
    }

    /// The same for one that may take so long.
    ///
    /// # Errors
    /// When it does not end in time, or when its counts do not add up.
    pub fn settle_within(&self, patience: Duration, id: &str) -> Result<Deletion> {
        let api = self.api();
        eventually_within(patience, "the deletion is final", || {
            let deletion = api.deletion(id)?;
            let counts = deletion.counts;
            let sum = counts.pending + counts.deleted + counts.skipped + counts.failed + counts.cancelled;
            if sum != counts.total {
                bail!("the counts do not add up: {counts:?}");
            }
            Ok(deletion.is_final().then_some(deletion))
        })
    }

    /// Puts an object of a byte under each key, many at once: past the runtime, which takes a millisecond for each.
    ///
    /// # Errors
    /// When the runtime keeps its objects in another way than it did.
    pub fn fill(&self, keys: &[String]) -> Result<()> {
        // The runtime makes the database, and one object that the others are like.
        let model = keys.first().context("no keys")?;
        self.gateway().put(slice::from_ref(model), 1)?;
        let folder = self.state.path().join("v3/r2/miniflare-R2BucketObject");
        let files = fs::read_dir(&folder)?.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
        let is_bucket = |file: &&PathBuf| {
            file.extension().is_some_and(|extension| extension == "sqlite")
                && file.file_stem().is_some_and(|stem| stem != "metadata")
        };
        let file = files.iter().find(is_bucket).context("no database of the bucket")?;
        let bucket = Connection::open(file)?;
        bucket.busy_timeout(Duration::from_secs(10))?;
        // An object that was uploaded in parts, of which there is none: nothing but the body's file is missing.
        let copied = bucket.execute(
            "INSERT INTO _mf_objects (key, version, size, etag, uploaded, checksums, http_metadata, custom_metadata)
             SELECT value, version, size, etag, uploaded, checksums, http_metadata, custom_metadata
             FROM _mf_objects, json_each(?2) WHERE _mf_objects.key = ?1 AND value <> ?1",
            (model, serde_json::to_string(keys)?),
        )?;
        ensure!(copied + 1 == keys.len(), "{copied} of {} objects", keys.len() - 1);
        Ok(())
    }

    /// The keys of all objects in the bucket.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn keys(&self) -> Result<Vec<String>> {
        Ok(self.gateway().list("")?.into_iter().map(|object| object.key).collect())
    }

    /// Writes a deletion of `count` keys of 1,000 bytes into the ledger that have all failed.
    ///
    /// # Errors
    /// When the ledger refuses it.
    pub fn insert_failed(&self, id: &str, count: u64) -> Result<()> {
        let deletion =
            "INSERT INTO deletions (id, requested_by, requested_at, not_before, sealed_at, finished_at)
                        VALUES (?1, 'api_token', 0, 0, 0, 1)";
        self.gateway().sql(deletion, &[serde_json::json!(id)])?;
        let part = "INSERT INTO parts
                      (deletion, generation, part, chunk_keys, keys, duplicates_removed, upload, sending_until, enqueued_at)
                    VALUES (?1, 0, 0, json_array(?2), ?2, 0, ?1, 0, 0)";
        self.gateway().sql(part, &[serde_json::json!(id), serde_json::json!(count)])?;
        let chunk =
            "INSERT INTO chunks (deletion, generation, chunk, keys, claimed_until, begun_at, failed, finished_at)
                     VALUES (?1, 0, 0, ?2, 0, 0, ?2, 1)";
        self.gateway().sql(chunk, &[serde_json::json!(id), serde_json::json!(count)])?;
        let failures = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2)
                        INSERT INTO failures
                        SELECT ?1, 0, 0, i, '\"' || printf('%01000d', i) || '\"', 'object_locked', 10069, 20, 0 FROM n";
        self.gateway().sql(failures, &[serde_json::json!(id), serde_json::json!(count)])?;
        Ok(())
    }
}

impl Deref for Pair {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        &self.stack
    }
}

/// Asks until there is an answer.
///
/// # Errors
/// When asking fails, or when there is no answer in time.
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    eventually_within(PATIENCE, what, ask)
}

/// The same for what may take so long.
///
/// # Errors
/// When asking fails, or when there is no answer in time.
pub fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    while started.elapsed() < patience {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        thread::sleep(Duration::from_millis(50));
    }
    bail!("not within {} s: {what}", patience.as_secs())
}
