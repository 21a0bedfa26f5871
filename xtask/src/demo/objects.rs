//! What is in the bucket.

use std::{
    fmt, slice,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Result, anyhow};

use super::progress::Progress;
use crate::{
    interrupt::Interrupt,
    stack::{Gateway, PROJECT_TEMPLATES},
};

/// The project that is deleted.
pub(crate) const PROJECT: &str = "42";

/// Projects whose ids begin as its does, or the other way round, in the same places.
const NEIGHBOURS: [&str; 2] = ["4", "421"];

/// Places that look like its own.
const LOOKALIKES: [&str; 5] = ["proj_42x/", "proj_42x_", "proj_42-", "PROJ_42/", "exports/proj_42/"];

/// Of so many files of the project the backend has lost track of one, and of one at least.
const FILES_FOR_EACH_UNTRACKED: usize = 10;

/// A neighbour for so many files, and so many of them at least and at most.
const FILES_FOR_EACH_NEIGHBOUR: u32 = 8;
const NEIGHBOURS_MIN: u32 = 80;
const NEIGHBOURS_MAX: u32 = 2000;

/// The local bucket copies every byte several times, and the demo is about how many, not how much.
const OBJECT_BYTES: usize = 16;

/// One request to the gateway; several are under way at once, since the local bucket waits more than it computes.
const PUTS_PER_REQUEST: usize = 250;
const REQUESTS_AT_ONCE: usize = 4;

/// The objects of the demo, by their keys.
#[derive(Debug)]
pub(crate) struct Objects {
    /// Files of the project that its backend knows of.
    pub(crate) tracked: Vec<String>,
    /// Files of the project that it knows nothing of.
    pub(crate) untracked: Vec<String>,
    /// Those that must still be there.
    pub(crate) neighbours: Vec<String>,
    /// One of the untracked, which is uploaded again after the request.
    pub(crate) uploaded_again: String,
}

impl Objects {
    /// `files` of the project, two at least, and as many neighbours as go with them.
    pub(crate) fn new(files: u32) -> Self {
        let tracked = spread(&places_of(PROJECT), files);
        let (mut untracked, mut tracked): (Vec<_>, Vec<_>) =
            tracked.into_iter().enumerate().partition(|(at, _)| {
                // By rounds, so that some are missing in each place.
                (at / PROJECT_TEMPLATES.len()) % FILES_FOR_EACH_UNTRACKED == FILES_FOR_EACH_UNTRACKED - 1
            });
        if untracked.is_empty() {
            untracked.extend(tracked.pop());
        }
        let keys =
            |list: Vec<(usize, String)>| -> Vec<String> { list.into_iter().map(|(_, key)| key).collect() };
        let (tracked, untracked) = (keys(tracked), keys(untracked));

        let count = (files / FILES_FOR_EACH_NEIGHBOUR).clamp(NEIGHBOURS_MIN, NEIGHBOURS_MAX);
        let mut places: Vec<String> = NEIGHBOURS.into_iter().flat_map(places_of).collect();
        places.extend(LOOKALIKES.map(str::to_owned));
        Self {
            uploaded_again: untracked.last().cloned().unwrap_or_default(),
            tracked,
            untracked,
            neighbours: spread(&places, count),
        }
    }

    /// How many files the project has.
    pub(crate) fn files(&self) -> usize {
        self.tracked.len() + self.untracked.len()
    }

    /// How many bytes they have.
    pub(crate) fn bytes(&self) -> usize {
        self.files() * OBJECT_BYTES
    }

    /// Puts them into the bucket.
    pub(crate) fn put(&self, gateway: &Gateway, interrupt: &Interrupt) -> Result<()> {
        let all = [&self.tracked, &self.untracked, &self.neighbours];
        let keys: Vec<String> = all.into_iter().flatten().cloned().collect();
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

    /// Uploads one file again.
    pub(crate) fn upload_again(&self, gateway: &Gateway) -> Result<()> {
        gateway.put(slice::from_ref(&self.uploaded_again), OBJECT_BYTES)
    }
}

impl fmt::Display for Objects {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} files of project {PROJECT} are in the bucket, under {}\n\
             {} neighbours too: projects {} in the same places, and {}",
            self.files(),
            places_of(PROJECT).join(" "),
            self.neighbours.len(),
            NEIGHBOURS.join(" and "),
            LOOKALIKES.join(" "),
        )
    }
}

/// The places where the files of a project have been over the years.
fn places_of(project: &str) -> Vec<String> {
    PROJECT_TEMPLATES.iter().map(|template| template.replace("{id}", project)).collect()
}

/// `count` keys, in turn under each of `places`.
fn spread(places: &[String], count: u32) -> Vec<String> {
    let places = places.iter().cycle();
    (0..count).zip(places).map(|(number, place)| format!("{place}file-{number:06}.jpg")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn all_files_are_in_a_place_of_the_project_and_no_neighbour_is() {
        let objects = Objects::new(KEYS);
        let places = places_of(PROJECT);
        let is_in_a_place = |key: &&String| places.iter().any(|place| key.starts_with(place.as_str()));
        let files = || objects.tracked.iter().chain(&objects.untracked);
        assert_eq!(files().filter(is_in_a_place).count(), KEYS as usize);
        assert_eq!(objects.neighbours.iter().filter(is_in_a_place).count(), 0);
        let is_untracked_in =
            |place: &String| objects.untracked.iter().any(|key| key.starts_with(place.as_str()));
        assert!(places.iter().all(is_untracked_in));
    }

    #[test]
    fn every_key_is_another() {
        for files in [2, 49, KEYS] {
            let objects = Objects::new(files);
            let all = [&objects.tracked, &objects.untracked, &objects.neighbours];
            let different: HashSet<_> = all.into_iter().flatten().collect();
            assert_eq!(different.len(), objects.files() + objects.neighbours.len());
            assert_eq!(objects.files(), files as usize);
            assert!(!objects.tracked.is_empty() && objects.untracked.contains(&objects.uploaded_again));
        }
    }

    const KEYS: u32 = 10_000;
}
