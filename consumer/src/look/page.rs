//! What a listing says of a chunk's keys.
//!
//! R2 takes keys for the same that Unicode does, and lists an object by the name it was last uploaded under (docs:
//! r2/reference/unicode-interoperability). So a name that is not ASCII may be shown as another than is asked for, and has an
//! order that nobody else knows: it is looked at by itself. ASCII has one form and one order, whoever compares it.

use std::collections::BinaryHeap;

use protocol::{ObjectKey, Timestamp};

use crate::bucket::Listing;

/// Fewest keys for which a page of a listing is asked: it is a class A operation, which costs as much as a dozen heads, and takes
/// longer than one.
pub(super) const PAGE_KEYS_MIN: usize = 16;

/// How many keys are looked at one by one when a page has shown too few: for so many a page more costs little.
const STRETCH: usize = 256;

/// A key that is to be looked at. Those that a listing may show come first, in its order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted<'k> {
    is_alone: bool,
    pub(super) key: &'k ObjectKey<'k>,
    pub(super) position: usize,
}

/// The keys at these positions in order. A position that the message does not have is left out: there is no such key.
pub(super) fn in_order<'k>(keys: &'k [ObjectKey<'k>], positions: &[usize]) -> Vec<Wanted<'k>> {
    let wanted = positions.iter().filter_map(|&position| {
        let key = keys.get(position)?;
        Some(Wanted { is_alone: !key.as_str().is_ascii(), key, position })
    });
    // OK to sort by a heap because there are a thousand at most: any other way is a hundredth of the Worker's wasm.
    wanted.collect::<BinaryHeap<_>>().into_sorted_vec()
}

/// Whether a chunk's keys are asked about in pages, which depends on how many the last pages have shown.
#[derive(Debug)]
pub(crate) struct Pages {
    /// So many are looked at one by one first.
    alone: usize,
    stretch: usize,
}

impl Pages {
    pub(crate) fn new() -> Self {
        Self { alone: 0, stretch: STRETCH }
    }

    /// How many of these keys are to be looked at one by one; none when a page is to be asked for.
    pub(super) fn alone(&self, wanted: &[Wanted<'_>]) -> usize {
        let are_enough = wanted.get(PAGE_KEYS_MIN - 1).is_some_and(|last| !last.is_alone);
        if are_enough { self.alone.min(wanted.len()) } else { wanted.len() }
    }

    /// So many were looked at one by one.
    pub(super) fn looked_at(&mut self, keys: usize) {
        self.alone = self.alone.saturating_sub(keys);
    }

    /// A page has told of so many; `None` when there was none, and then none is asked for again.
    pub(super) fn told(&mut self, keys: Option<usize>) {
        match keys {
            Some(PAGE_KEYS_MIN..) => self.stretch = STRETCH,
            Some(_) => (self.alone, self.stretch) = (self.stretch, self.stretch.saturating_mul(2)),
            None => self.alone = usize::MAX,
        }
    }
}

/// What a page is listed after that is to show `key`, which is ASCII, and little that comes before it.
pub(super) fn just_before(key: &str) -> Option<String> {
    let (last, rest) = key.as_bytes().split_last()?;
    let mut before = String::from_utf8(rest.to_vec()).ok()?;
    before.extend(last.checked_sub(1).map(char::from));
    Some(before).filter(|before| !before.is_empty())
}

/// What a page that was listed from before the first of `wanted` on says of how many of them, in their order: when the object was
/// uploaded, or that there is none, because the page shows what comes before and after its place.
///
/// `None` when the page is not in order.
pub(super) fn read(
    wanted: &[Wanted<'_>],
    after: Option<&str>,
    page: &Listing,
) -> Option<Vec<Option<Timestamp>>> {
    // One that is not ASCII may be in the place of one that is, as the Kelvin sign is in that of K.
    let known = page.objects.iter().take_while(|object| object.key.is_ascii());
    let known = page.objects.get(..known.count())?;
    let is_in_order = known.is_sorted_by(|a, b| a.key < b.key)
        && known.first().is_none_or(|first| after.is_none_or(|after| first.key.as_str() > after));
    if !is_in_order {
        return None;
    }
    let is_whole = !page.truncated && known.len() == page.objects.len();
    let (mut known, mut told) = (known.iter().peekable(), Vec::new());
    for wanted in wanted.iter().take_while(|wanted| !wanted.is_alone) {
        while known.next_if(|object| object.key.as_str() < wanted.key.as_str()).is_some() {}
        match known.peek() {
            Some(object) => told.push((object.key == wanted.key.as_str()).then_some(object.uploaded_at)),
            None if is_whole => told.push(None),
            None => break,
        }
    }
    Some(told)
}
