//! Where a large range is cut, so that several consumers work side by side.

use protocol::limits::LIST_OBJECTS_MAX;
use protocol::{SweepRange, Timestamp};

use crate::allowance::Allowance;
use crate::bucket::{Bucket, Group, ListCall, Listing};
use crate::delete::CALL_MS_MAX;
use crate::host::Host;
use crate::time_limit::in_time;

/// Most pieces that are cut off at once; those that are still large are divided again.
const CUTS_MAX: usize = 8;

/// Most listings that it takes.
const LISTS_MAX: usize = 24;

/// What groups keys into folders.
const DELIMITER: &str = "/";

/// Greater than every character that comes after the same beginning, but itself.
const LAST_CHARACTER: char = char::MAX;

/// Finds keys to cut a range at, after the last one listed: where folders begin, or, where there are none, where the next
/// character changes. Answers with at most `most` of them, in order, and with how many listings it took. What it does not find
/// out costs time only: the range is swept whole then.
pub(super) async fn divide(
    range: &SweepRange,
    last: &str,
    most: usize,
    deadline: Timestamp,
    allowance: &Allowance,
    bucket: &impl Bucket,
    host: &impl Host,
) -> (Vec<String>, usize) {
    let most = most.min(CUTS_MAX);
    let mut lister = Lister { range, lists: 0, deadline, allowance, bucket, host };
    // By folders: those of the range's own level first, then those within the one at hand.
    let mut base = range.prefix.len();
    while let Some(prefix) = last.get(..base) {
        let Some(listing) = lister.list(prefix, last, LIST_OBJECTS_MAX, Some(DELIMITER)).await else { break };
        let folders: Vec<String> = listing
            .groups
            .into_iter()
            .map(|Group(folder)| folder)
            .filter(|folder| lister.is_ahead(folder, last))
            .collect();
        if !folders.is_empty() {
            return (spread(folders, most), lister.lists);
        }
        match last.get(base..).and_then(|rest| rest.find(DELIMITER)) {
            Some(at) => base += at + DELIMITER.len(),
            None => break,
        }
    }
    let cuts = by_character(&mut lister, last, most).await;
    (cuts, lister.lists)
}

/// Where the first character changes that the keys ahead do not have in common.
async fn by_character(
    lister: &mut Lister<'_, impl Bucket, impl Host>,
    last: &str,
    most: usize,
) -> Vec<String> {
    let from = lister.range.prefix.len();
    let places: Vec<usize> = last.char_indices().map(|(at, _)| at).filter(|&at| at >= from).collect();
    // The shorter a beginning, the fewer keys come after all that have it: the shortest with any is found by halving.
    let (mut low, mut high, mut first) = (0, places.len(), None);
    while low < high {
        let middle = usize::midpoint(low, high);
        let Some(&at) = places.get(middle) else { break };
        match lister.first_beyond(last, at).await {
            Some(Some(found)) => (high, first) = (middle, Some((at, found))),
            Some(None) => low = middle + 1,
            None => break,
        }
    }
    let mut cuts = Vec::new();
    let Some((at, mut found)) = first else { return cuts };
    loop {
        let Beyond { cut, key } = found;
        cuts.push(cut);
        if cuts.len() >= most {
            return cuts;
        }
        match lister.first_beyond(&key, at).await {
            Some(Some(next)) => found = next,
            Some(None) | None => return cuts,
        }
    }
}

/// A key, and what comes just before it: the last of all keys that could have the beginning of another.
struct Beyond {
    cut: String,
    key: String,
}

/// At most so many of them, evenly.
fn spread(found: Vec<String>, most: usize) -> Vec<String> {
    let every = found.len().div_ceil(most.max(1)).max(1);
    found.into_iter().step_by(every).collect()
}

struct Lister<'a, B, H> {
    range: &'a SweepRange,
    lists: usize,
    deadline: Timestamp,
    allowance: &'a Allowance,
    bucket: &'a B,
    host: &'a H,
}

impl<B: Bucket, H: Host> Lister<'_, B, H> {
    async fn list(
        &mut self,
        prefix: &str,
        after: &str,
        limit: usize,
        delimiter: Option<&str>,
    ) -> Option<Listing> {
        let has_time = self.host.now() < self.deadline;
        if self.lists >= LISTS_MAX || !has_time || !self.allowance.take_head() {
            return None;
        }
        self.lists += 1;
        let call = ListCall { prefix, start_after: Some(after), limit, delimiter };
        in_time(self.bucket.list(&call), CALL_MS_MAX, self.host).await?.ok()
    }

    /// The first key of the range beyond all that have as much of `key` as ends with the character at `at`; `None` within when
    /// there is none, and without when nobody says.
    async fn first_beyond(&mut self, key: &str, at: usize) -> Option<Option<Beyond>> {
        let end = at + key.get(at..)?.chars().next()?.len_utf8();
        let cut = format!("{}{LAST_CHARACTER}", key.get(..end)?);
        let listing = self.list(&self.range.prefix, &cut, 1, None).await?;
        let ahead = listing.objects.into_iter().next().filter(|object| self.is_ahead(&object.key, &cut));
        Some(ahead.map(|object| Beyond { cut, key: object.key }))
    }

    /// Whether a key is after the last one listed, and in the range.
    fn is_ahead(&self, key: &str, last: &str) -> bool {
        key > last && key.starts_with(&self.range.prefix) && !self.range.ends_before(key)
    }
}

#[cfg(test)]
mod tests;
