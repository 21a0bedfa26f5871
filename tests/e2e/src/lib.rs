//! What the end-to-end tests share: a stack of its own for each test, and waiting with a deadline.
//!
//! | test file | what it shows |
//! |---|---|
//! | `bad_input.rs` | whatever comes as a body: 4xx within a second that says what is wrong and where, and nothing is accepted |
//! | `configuration.rs` | the wrangler files say what the code relies on |
//! | `deletions.rs` | exactly the requested objects go, from 1 key to 25,000, whatever their names, by either call |
//! | `description.rs` | every answer to made-up requests is as the API's description says |
//! | `docs.rs` | every line of `docs/api.md` runs and answers as it is shown there |
//! | `fence.rs` | what was uploaded since the request is kept where the fence looks |
//! | `messages.rs` | messages that cannot be read, that come twice, and dead letters |
//! | `notices.rs` | each end of a deletion is told to the operator's endpoint, once and signed |
//! | `parts.rs` | a million keys in parts are one deletion with exact counts, and half an upload is never a whole one |
//! | `python_client.rs` | the Python client does against the pair what its tests say |
//! | `reading.rs` | labels, listing, failures as NDJSON, and the totals |
//! | `requests.rs` | every wrong request is refused with an answer that says what is right |
//! | `tokens.rs` | each token may do what it was given and sees what is its own, as often as the limit allows |

#![expect(clippy::disallowed_methods, reason = "this is no Worker: it waits by the clock")]

use std::ops::Deref;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tempfile::TempDir;
use xtask::stack::{Deletion, Stack, StackOptions};

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_mins(2);

/// A stack on a port and a state of its own, which ends with the test.
#[derive(Debug)]
pub struct Pair {
    stack: Stack,
    _state: TempDir,
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
        Ok(Self { stack, _state: state })
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
