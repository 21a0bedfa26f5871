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

/// Where the character after what all remaining keys have in common changes.
async fn by_character(
    lister: &mut Lister<'_, impl Bucket, impl Host>,
    last: &str,
    most: usize,
) -> Vec<String> {
    let (mut cuts, mut at, mut known) = (Vec::new(), lister.range.prefix.len(), last.to_owned());
    while cuts.len() < most {
        let Some(character) = known.get(at..).and_then(|rest| rest.chars().next()) else { break };
        let Some(cut) = known.get(..at + character.len_utf8()).map(|head| format!("{head}{LAST_CHARACTER}"))
        else {
            break;
        };
        let Some(listing) = lister.list(&lister.range.prefix.clone(), &cut, 1, None).await else { break };
        match listing.objects.into_iter().next().filter(|object| lister.is_ahead(&object.key, &cut)) {
            Some(object) => {
                cuts.push(cut);
                known = object.key;
            }
            // All that remain have this character: the next may differ.
            None if cuts.is_empty() => at += character.len_utf8(),
            None => break,
        }
    }
    cuts
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

    /// Whether a key is after the last one listed, and in the range.
    fn is_ahead(&self, key: &str, last: &str) -> bool {
        key > last && key.starts_with(&self.range.prefix) && !self.range.ends_before(key)
    }
}
