//! The proof: what a listing must show.

use std::collections::HashSet;

use anyhow::{Result, ensure};

use super::objects::{Objects, PROJECT};
use crate::stack::Object;

/// Before the request, everything is there: else it proves nothing that something is gone.
pub(super) fn before(objects: &Objects, listing: &[Object]) -> Result<()> {
    let found = Found::compare(objects, listing);
    let all = Found { files: objects.files(), neighbours: objects.neighbours.len(), others: 0 };
    ensure!(found == all, "The bucket is not as it was filled: {found:?}");
    Ok(())
}

/// Afterwards, of the project only what was uploaded after the request is there, and every neighbour, and nothing else.
/// Returns the proof as a line.
pub(super) fn after(objects: &Objects, requested_at: &str, listing: &[Object]) -> Result<String> {
    let found = Found::compare(objects, listing);
    let (files, neighbours) = (objects.files(), objects.neighbours.len());
    // Times of one form and one zone are in the order of their texts.
    let is_kept =
        |object: &&Object| object.key == objects.uploaded_again && object.uploaded.as_str() > requested_at;
    let kept = listing.iter().filter(is_kept).count();
    ensure!(kept == 1, "The file that was uploaded again is gone: {}", objects.uploaded_again);
    ensure!(found.files == kept, "{} of {files} files are left.", found.files - kept);
    ensure!(
        found.neighbours == neighbours,
        "{} of {neighbours} neighbours are gone, which nobody asked to delete.",
        neighbours - found.neighbours
    );
    ensure!(found.others == 0, "{} objects are there that nobody put there.", found.others);
    Ok(format!(
        "Proof by listing: of project {PROJECT} that file alone is there, all {neighbours} neighbours are, \
         and nothing else is"
    ))
}

/// How many objects of each kind are in the bucket.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    files: usize,
    neighbours: usize,
    others: usize,
}

impl Found {
    fn compare(objects: &Objects, listing: &[Object]) -> Self {
        let there: HashSet<&str> = listing.iter().map(|object| object.key.as_str()).collect();
        let count = |keys: &[String]| keys.iter().filter(|key| there.contains(key.as_str())).count();
        let (files, neighbours) =
            (count(&objects.tracked) + count(&objects.untracked), count(&objects.neighbours));
        Self { files, neighbours, others: listing.len() - files - neighbours }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "2026-11-24T08:00:00.000Z";
    const REQUEST: &str = "2026-11-24T08:00:01.000Z";
    const SINCE: &str = "2026-11-24T08:00:01.001Z";

    fn object(key: &str, uploaded: &str) -> Object {
        Object { key: key.to_owned(), size: 1, uploaded: uploaded.to_owned() }
    }

    fn full(objects: &Objects) -> Vec<Object> {
        let all = [&objects.tracked, &objects.untracked, &objects.neighbours];
        all.into_iter().flatten().map(|key| object(key, BEFORE)).collect()
    }

    /// What is there when everything is right.
    fn left(objects: &Objects) -> Vec<Object> {
        let neighbours = objects.neighbours.iter().map(|key| object(key, BEFORE));
        neighbours.chain([object(&objects.uploaded_again, SINCE)]).collect()
    }

    fn wrong(objects: &Objects, listing: &[Object]) -> String {
        after(objects, REQUEST, listing).unwrap_err().to_string()
    }

    #[test]
    fn a_full_bucket_passes_only_before() {
        let objects = Objects::new(100);
        assert!(before(&objects, &full(&objects)).is_ok());
        assert!(wrong(&objects, &full(&objects)).contains("uploaded again is gone"));
    }

    #[test]
    fn the_neighbours_and_what_was_uploaded_again_pass_only_afterwards() {
        let objects = Objects::new(100);
        assert!(after(&objects, REQUEST, &left(&objects)).is_ok());
        assert!(before(&objects, &left(&objects)).is_err());
    }

    #[test]
    fn whatever_is_missing_or_left_fails_the_proof() {
        let objects = Objects::new(100);
        let all = left(&objects);
        assert!(wrong(&objects, &all[1..]).starts_with("1 of 80 neighbours"));
        assert!(wrong(&objects, &all[..all.len() - 1]).contains("uploaded again is gone"));
        for (key, says) in [
            (&objects.tracked[0], "1 of 100 files"),
            (&objects.untracked[0], "1 of 100 files"),
            (&"stranger".to_owned(), "1 objects"),
        ] {
            let more = [all.as_slice(), &[object(key, BEFORE)]].concat();
            assert!(wrong(&objects, &more).starts_with(says), "{key}");
        }
    }
}
