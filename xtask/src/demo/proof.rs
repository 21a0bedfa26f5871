//! The proof: what a listing must show.

use std::collections::HashSet;

use anyhow::{Result, ensure};

use super::Objects;
use crate::stack::Object;

/// Before the request, everything is there: else it proves nothing that something is gone.
pub(super) fn before(objects: &Objects, listing: &[Object]) -> Result<()> {
    let found = Found::compare(objects, listing);
    ensure!(
        found
            == Found { requested: objects.requested.len(), bystanders: objects.bystanders.len(), others: 0 },
        "The bucket was not filled as it should be: {found:?}"
    );
    Ok(())
}

/// Afterwards, the bystanders are there and nothing else. Returns the proof as a line.
pub(super) fn after(objects: &Objects, listing: &[Object]) -> Result<String> {
    let found = Found::compare(objects, listing);
    let (requested, bystanders) = (objects.requested.len(), objects.bystanders.len());
    ensure!(found.requested == 0, "{} of {requested} requested objects are still there.", found.requested);
    ensure!(
        found.bystanders == bystanders,
        "{} of {bystanders} objects are gone that nobody asked to delete.",
        bystanders - found.bystanders
    );
    ensure!(found.others == 0, "{} objects are there that nobody put there.", found.others);
    Ok(format!(
        "Proof by listing: all {requested} requested objects are gone, all {bystanders} others are there, nothing else is"
    ))
}

/// How many objects of each kind are in the bucket.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    requested: usize,
    bystanders: usize,
    others: usize,
}

impl Found {
    fn compare(objects: &Objects, listing: &[Object]) -> Self {
        let there: HashSet<&str> = listing.iter().map(|object| object.key.as_str()).collect();
        let count = |keys: &[String]| keys.iter().filter(|key| there.contains(key.as_str())).count();
        let (requested, bystanders) = (count(&objects.requested), count(&objects.bystanders));
        Self { requested, bystanders, others: there.len() - requested - bystanders }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing<'a>(keys: impl IntoIterator<Item = &'a String>) -> Vec<Object> {
        let object = |key: &String| Object { key: key.clone(), size: 1, uploaded: String::new() };
        keys.into_iter().map(object).collect()
    }

    #[test]
    fn a_full_bucket_passes_only_before() {
        let objects = Objects::new(100);
        let all = listing(objects.requested.iter().chain(&objects.bystanders));
        assert!(before(&objects, &all).is_ok());
        assert!(after(&objects, &all).unwrap_err().to_string().contains("100 of 100 requested"));
    }

    #[test]
    fn the_bystanders_alone_pass_only_afterwards() {
        let objects = Objects::new(100);
        let left = listing(&objects.bystanders);
        assert!(after(&objects, &left).is_ok());
        assert!(before(&objects, &left).is_err());
    }

    #[test]
    fn a_missing_bystander_fails_the_proof() {
        let objects = Objects::new(100);
        let left = listing(objects.bystanders.iter().skip(1));
        assert!(after(&objects, &left).unwrap_err().to_string().starts_with("1 of "));
    }

    #[test]
    fn an_object_from_nowhere_fails_the_proof() {
        let objects = Objects::new(100);
        let stranger = "stranger".to_owned();
        let left = listing(objects.bystanders.iter().chain([&stranger]));
        assert!(after(&objects, &left).is_err());
    }
}
