use std::fmt;

use protocol::{FailureCode, KeyDigest, R2Error, SweepRange, Timestamp};
use serde::{Deserialize, Serialize};

use crate::database::LedgerError;
use crate::record::{FailedKey, SkippedKey};

/// Most keys that a sweep keeps as a sample of what it has counted.
const SWEEP_SAMPLE_KEYS_MAX: usize = 10;

/// An object as a listing shows it. Keys are personal data, so `Debug` shows none.
#[derive(Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was uploaded, by R2's clock.
    pub uploaded_at: Timestamp,
}

/// A key that a sweep has found and that nothing is decided about.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageKey {
    /// Its place among all that the sweep has found.
    pub position: usize,
    /// The key.
    pub key: String,
}

/// How far a sweep's listing is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SweepProgress {
    /// The last key listed in this pass; `None` at its beginning.
    pub cursor: Option<Cursor>,
    /// Nothing comes after the cursor.
    pub at_end: bool,
    /// What of the page at hand is undecided.
    pub page: Vec<PageKey>,
    /// Keys found in this pass. A sweep is over when a pass finds none.
    pub found: u64,
    /// Passes that are over.
    pub passes: u32,
    /// Pages listed since the range was last divided.
    pub pages: u32,
}

/// A key that a listing goes on from.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub String);

/// What a sweep has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepTally {
    /// Objects older than the request.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were uploaded since.
    pub uploaded_since: u64,
    /// When the oldest of all was uploaded.
    pub oldest_at: Option<Timestamp>,
    /// When the newest of all was uploaded.
    pub newest_at: Option<Timestamp>,
    /// Some of the keys that are older.
    pub sample: Vec<Cursor>,
}

/// How far a sweep is, and what has become of the keys that it found. Each of them is deleted, skipped, failed, or in the page at
/// hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepState {
    pub(crate) keys: u64,
    pub(crate) deleted: u64,
    pub(crate) skipped: u64,
    pub(crate) failed: u64,
    /// The digest of the keys deleted, where one is kept.
    pub(crate) digest: Option<KeyDigest>,
    /// The error that left the page at hand undecided, where R2 was the cause.
    pub last_error: Option<R2Error>,
    /// How far the listing is.
    pub progress: SweepProgress,
    /// What was counted.
    pub tally: SweepTally,
}

/// The next page of a sweep, as it is to be written down before anything of it is deleted.
#[derive(Clone, Debug)]
pub struct Page {
    pub(crate) progress: SweepProgress,
    pub(crate) skipped: Vec<SkippedKey>,
}

impl SweepTally {
    /// Counts an object.
    pub fn count(&mut self, object: &ListedObject, is_old: bool) {
        let ListedObject { key, size, uploaded_at } = object;
        if is_old {
            self.objects += 1;
            self.bytes += size;
            if self.sample.len() < SWEEP_SAMPLE_KEYS_MAX {
                self.sample.push(Cursor(key.clone()));
            }
        } else {
            self.uploaded_since += 1;
        }
        self.oldest_at = Some(self.oldest_at.map_or(*uploaded_at, |oldest| oldest.min(*uploaded_at)));
        self.newest_at = self.newest_at.max(Some(*uploaded_at));
    }
}

impl SweepState {
    /// The page that holds these keys, and leaves those others alone; nothing of the present page may be undecided.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when a key cannot be written as JSON, which does not happen.
    pub fn plan(
        &self,
        mut progress: SweepProgress,
        old: Vec<String>,
        newer: Vec<(String, Timestamp)>,
    ) -> Result<Page, LedgerError> {
        let positions = usize::try_from(self.keys).unwrap_or(usize::MAX)..;
        let found = (old.len() + newer.len()) as u64;
        progress.page = positions.clone().zip(old).map(|(position, key)| PageKey { position, key }).collect();
        progress.found += found;
        let skipped = positions.skip(progress.page.len()).zip(newer).map(|(position, (key, uploaded_at))| {
            Ok(SkippedKey { position, key_json: key_json(&key)?, uploaded_at })
        });
        let skipped = skipped.collect::<Result<_, LedgerError>>()?;
        Ok(Page { progress, skipped })
    }

    /// Takes the page at hand, when it is written down.
    pub fn take(&mut self, page: Page) {
        self.keys += page.keys();
        self.skipped += page.skipped.len() as u64;
        self.progress = page.progress;
    }

    /// Takes in what has become of keys of the page at hand, named by their index in it, and answers with what is to be recorded
    /// of them. What is in none of the lists stays undecided; what is in two is in the first of failed, skipped and deleted.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when a key cannot be written as JSON, which does not happen.
    pub fn settle(
        &mut self,
        deleted: &[usize],
        skipped: &[(usize, Timestamp)],
        failed: &[(usize, FailureCode, Option<R2Error>)],
    ) -> Result<(Vec<SkippedKey>, Vec<FailedKey>), LedgerError> {
        let (mut skips, mut failures, mut undecided) = (Vec::new(), Vec::new(), Vec::new());
        let page = std::mem::take(&mut self.progress.page);
        let mut is_deleted = vec![false; page.len()];
        for &at in deleted {
            if let Some(is_deleted) = is_deleted.get_mut(at) {
                *is_deleted = true;
            }
        }
        for ((at, PageKey { position, key }), is_deleted) in page.into_iter().enumerate().zip(is_deleted) {
            if let Some(&(_, code, error)) = failed.iter().find(|(index, ..)| *index == at) {
                self.failed += 1;
                failures.push(FailedKey { position, key_json: key_json(&key)?, code, error });
            } else if let Some(&(_, uploaded_at)) = skipped.iter().find(|(index, _)| *index == at) {
                self.skipped += 1;
                skips.push(SkippedKey { position, key_json: key_json(&key)?, uploaded_at });
            } else if is_deleted {
                self.deleted += 1;
                self.digest = self.digest.map(|digest| digest.with(&key));
            } else {
                undecided.push(PageKey { position, key });
            }
        }
        self.progress.page = undecided;
        Ok((skips, failures))
    }

    /// Gives up: what is undecided fails, and so does the prefix, of which nobody knows what is left.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when a key cannot be written as JSON, which does not happen.
    pub fn give_up(&mut self, range: &SweepRange) -> Result<Vec<FailedKey>, LedgerError> {
        let error = self.last_error;
        let code = error.map_or(FailureCode::AttemptsExhausted, R2Error::failure_code);
        let all: Vec<_> = (0..self.progress.page.len()).map(|at| (at, code, error)).collect();
        let (_, mut failed) = self.settle(&[], &[], &all)?;
        let position = usize::try_from(self.keys).unwrap_or(usize::MAX);
        let key_json = key_json(&range.prefix)?;
        failed.push(FailedKey { position, key_json, code: FailureCode::SweepIncomplete, error });
        self.keys += 1;
        self.failed += 1;
        Ok(failed)
    }
}

impl Page {
    /// How many keys it adds to those that the sweep has found.
    pub(crate) fn keys(&self) -> u64 {
        (self.progress.page.len() + self.skipped.len()) as u64
    }

    /// How many keys it leaves alone.
    pub fn skipped(&self) -> usize {
        self.skipped.len()
    }
}

fn key_json(key: &str) -> Result<String, LedgerError> {
    serde_json::to_string(key).map_err(|error| LedgerError::new(error.to_string()))
}

impl fmt::Debug for ListedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListedObject({} bytes, {:?})", self.size, self.uploaded_at)
    }
}

impl fmt::Debug for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageKey({})", self.position)
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({} bytes)", self.0.len())
    }
}
