//! What is in the bucket.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Result, anyhow};

use super::progress::Progress;
use crate::{interrupt::Interrupt, stack::Gateway};

/// The places where the files of project 42 have been over the years.
const PATTERNS: [&str; 4] = ["proj_42/", "proj_42_", "proj_proj_42_", "projects/42/"];

/// Places beside them, most of them close: another project's, or another thing's.
const BESIDE: [&str; 8] = [
    "proj_4/",
    "proj_421/",
    "proj_42",
    "proj_proj_421_",
    "projects/421/",
    "projects/4/",
    "PROJ_42/",
    "exports/proj_42/",
];

/// A bystander for so many objects, and so many of them at least and at most.
const REQUESTED_FOR_EACH_BYSTANDER: u32 = 8;
const BYSTANDERS_MIN: u32 = 80;
const BYSTANDERS_MAX: u32 = 2000;

/// The local bucket copies every byte several times, and the demo is about how many, not how much.
const OBJECT_BYTES: usize = 16;

/// One request to the gateway; several are under way at once, since the local bucket waits more than it computes.
const PUTS_PER_REQUEST: usize = 250;
const REQUESTS_AT_ONCE: usize = 4;

/// The objects of the demo, by their keys.
#[derive(Debug)]
pub(super) struct Objects {
    /// Those whose deletion is asked for.
    pub(super) requested: Vec<String>,
    /// Those that must still be there.
    pub(super) bystanders: Vec<String>,
}

impl Objects {
    /// `requested` objects to delete, and as many bystanders as go with them.
    pub(super) fn new(requested: u32) -> Self {
        let bystanders = (requested / REQUESTED_FOR_EACH_BYSTANDER).clamp(BYSTANDERS_MIN, BYSTANDERS_MAX);
        Self { requested: spread(&PATTERNS, requested), bystanders: spread(&BESIDE, bystanders) }
    }

    /// Puts them into the bucket.
    pub(super) fn put(&self, gateway: &Gateway, interrupt: &Interrupt) -> Result<()> {
        let keys: Vec<String> = self.requested.iter().chain(&self.bystanders).cloned().collect();
        let requests: Vec<_> = keys.chunks(PUTS_PER_REQUEST).collect();
        let progress = Progress::start("filling the bucket", keys.len() as u64);
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || -> Result<()> {
            while let Some(keys) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                interrupt.check()?;
                gateway.put(keys, OBJECT_BYTES)?;
                progress.add(keys.len() as u64);
            }
            Ok(())
        };
        thread::scope(|scope| {
            for _ in 0..REQUESTS_AT_ONCE {
                scope.spawn(|| {
                    if let Err(error) = work() {
                        next.store(requests.len(), Ordering::Relaxed);
                        failed.lock().map(|mut failed| failed.get_or_insert(error).to_string()).ok();
                    }
                });
            }
        });
        progress.end();
        failed.into_inner().map_err(|_| anyhow!("a thread panicked"))?.map_or(Ok(()), Err)
    }
}

impl fmt::Display for Objects {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} objects of project 42 are in the bucket, under {}, and {} that are not its: {} and so on",
            self.requested.len(),
            PATTERNS.join(" "),
            self.bystanders.len(),
            BESIDE.get(..2).unwrap_or_default().join(" ")
        )
    }
}

/// `count` keys, in turn under each of `places`.
fn spread(places: &[&str], count: u32) -> Vec<String> {
    let places = places.iter().cycle();
    (0..count).zip(places).map(|(number, place)| format!("{place}file-{number:06}.jpg")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_bystander_is_under_a_place_of_the_project() {
        let objects = Objects::new(KEYS);
        let under = |key: &&String| PATTERNS.iter().any(|pattern| key.starts_with(pattern));
        assert_eq!(objects.requested.iter().filter(under).count(), KEYS as usize);
        assert_eq!(objects.bystanders.iter().filter(under).count(), 0);
    }

    #[test]
    fn every_key_is_another() {
        let objects = Objects::new(KEYS);
        let all: HashSet<_> = objects.requested.iter().chain(&objects.bystanders).collect();
        assert_eq!(all.len(), objects.requested.len() + objects.bystanders.len());
    }

    const KEYS: u32 = 10_000;
}
