//! The objects of the bucket and the limits that production puts on calls.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::R2Error;
use crate::clock::unix_ms;

/// Keys that cannot be deleted.
#[derive(Debug, Default)]
pub struct Locked {
    pub(super) keys: HashSet<String>,
    pub(super) neighbours: Neighbours,
}

/// What a call that names a locked key does with its other keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Neighbours {
    /// They stay: the call did nothing.
    #[default]
    Kept,
    /// They are deleted although the call failed.
    Deleted,
}

/// One stored object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) uploaded_ms: u64,
    pub(super) version: u64,
}

/// All objects, and what limits writing them.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) stored: BTreeMap<String, Object>,
    pub(super) locked: Locked,
    pub(super) call_keys_max: Option<usize>,
    pub(super) write_interval: Option<Duration>,
    written: HashMap<String, Duration>,
    pub(super) uploads: u64,
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            stored: BTreeMap::new(),
            locked: Locked::default(),
            call_keys_max: None,
            write_interval: Some(Duration::from_secs(1)),
            written: HashMap::new(),
            uploads: 0,
        }
    }
}

/// Keys in one delete call, by R2's own error message for 10027.
const DELETE_KEYS: std::ops::RangeInclusive<usize> = 1..=1_000;
/// Bytes of a key, by R2's documented limits.
const KEY_BYTES_MAX: usize = 1_024;

impl Objects {
    pub(super) fn contains(&self, key: &str) -> bool {
        self.stored.contains_key(key)
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.stored.keys().cloned().collect()
    }

    pub(super) fn put(&mut self, key: String) {
        self.put_at(key, unix_ms());
    }

    pub(super) fn put_at(&mut self, key: String, uploaded_ms: u64) {
        self.uploads += 1;
        self.stored.insert(key, Object { uploaded_ms, version: self.uploads });
    }

    /// What a delete call at the time `now` would remove, and the error that it ends with.
    ///
    /// A call that was let through counts as a write of each key that it names, also when a lock or its size then
    /// fails it: what R2 counts is not documented, and this is the stricter reading.
    pub(super) fn admit(&mut self, keys: &[String], now: Duration) -> Admitted {
        if let Err(error) = self.check(keys, now) {
            return Admitted { removed: Vec::new(), error: Some(error) };
        }
        let locked = |key: &&String| self.locked.keys.contains(*key);
        let error = keys.iter().any(|key| locked(&key)).then_some(R2Error::LOCKED);
        let nothing = error.is_some() && self.locked.neighbours == Neighbours::Kept;
        let removed = keys.iter().filter(|key| !nothing && !locked(key)).cloned().collect();
        Admitted { removed, error }
    }

    /// The limits on a whole call, in the order in which R2 can know of them.
    fn check(&mut self, keys: &[String], now: Duration) -> Result<(), R2Error> {
        if !DELETE_KEYS.contains(&keys.len()) {
            return Err(R2Error::KEYS_OUT_OF_BOUNDS);
        }
        if keys.iter().any(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
            return Err(R2Error::INVALID_NAME);
        }
        if self.written_too_soon(keys, now) {
            return Err(R2Error::TOO_MANY_REQUESTS);
        }
        self.written.extend(keys.iter().map(|key| (key.clone(), now)));
        if self.call_keys_max.is_some_and(|max| keys.len() > max) {
            return Err(R2Error::INTERNAL);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, keys: &[String]) {
        for key in keys {
            self.stored.remove(key);
        }
    }

    fn written_too_soon(&self, keys: &[String], now: Duration) -> bool {
        self.write_interval.is_some_and(|interval| {
            keys.iter().filter_map(|key| self.written.get(key)).any(|at| now.saturating_sub(*at) < interval)
        })
    }
}

/// The effect of one delete call.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) removed: Vec<String>,
    pub(super) error: Option<R2Error>,
}
