use std::collections::BinaryHeap;
use std::ops::Range;

/// A set of positions of keys in one chunk, kept as ranges so that it stays short in the ledger.
///
/// Written as JSON, each range its first position and the one after its last: `[[0,500],[501,1000]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(Vec<Range<usize>>);

impl Positions {
    /// The positions of all the keys of a chunk that has `keys`.
    pub fn all(keys: usize) -> Self {
        std::iter::once(0..keys).collect()
    }

    /// How many positions are in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(Range::len).sum()
    }

    /// Whether no position is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every position, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().cloned().flatten()
    }

    /// The set as ranges, in order, none touching another.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.0.iter().cloned()
    }

    /// The set as it is kept in the ledger.
    pub fn to_json(&self) -> String {
        let ranges: Vec<String> =
            self.0.iter().map(|range| format!("[{},{}]", range.start, range.end)).collect();
        format!("[{}]", ranges.join(","))
    }

    /// Reads what [`Positions::to_json`] wrote, for a chunk that has `keys`.
    ///
    /// # Errors
    ///
    /// [`InvalidPositions`] when it is not that, or names a position that the chunk does not have.
    pub fn from_json(json: &str, keys: usize) -> Result<Self, InvalidPositions> {
        let ranges: Vec<(usize, usize)> = serde_json::from_str(json).map_err(|_| InvalidPositions)?;
        if ranges.iter().any(|&(start, end)| start >= end || end > keys) {
            return Err(InvalidPositions);
        }
        Ok(ranges.into_iter().map(|(start, end)| start..end).collect())
    }
}

impl FromIterator<Range<usize>> for Positions {
    /// Ranges may come in any order, overlap and touch.
    fn from_iter<I: IntoIterator<Item = Range<usize>>>(ranges: I) -> Self {
        let ranges = ranges.into_iter().filter(|range| !range.is_empty());
        // OK to sort by a heap because there are a thousand at most: any other way is a hundredth of a Worker's wasm.
        let sorted =
            ranges.map(|range| (range.start, range.end)).collect::<BinaryHeap<_>>().into_sorted_vec();
        let mut merged: Vec<Range<usize>> = Vec::new();
        for (start, end) in sorted {
            match merged.last_mut() {
                Some(last) if start <= last.end => last.end = last.end.max(end),
                _ => merged.push(start..end),
            }
        }
        Self(merged)
    }
}

impl FromIterator<usize> for Positions {
    fn from_iter<I: IntoIterator<Item = usize>>(positions: I) -> Self {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for position in positions {
            // Nearly always one follows the other.
            match ranges.last_mut() {
                Some(last) if last.end == position => last.end += 1,
                _ => ranges.push(position..position + 1),
            }
        }
        ranges.into_iter().collect()
    }
}

/// The text in the ledger is no set of positions of that chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a set of positions in the chunk")]
pub struct InvalidPositions;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn positions_behave_like_a_set_and_read_back(set in prop::collection::btree_set(0_usize..1_000, 0..200)) {
            let positions: Positions = set.iter().copied().rev().collect();
            prop_assert_eq!(positions.len(), set.len());
            prop_assert_eq!(positions.is_empty(), set.is_empty());
            prop_assert_eq!(&positions.iter().collect::<BTreeSet<_>>(), &set);
            prop_assert_eq!(Positions::from_json(&positions.to_json(), 1_000), Ok(positions));
        }
    }

    #[test]
    fn ranges_that_touch_or_overlap_are_one() {
        let positions: Positions = [4..6, 0..2, 2..3, 1..3, 9..9].into_iter().collect();
        assert_eq!(positions, [0, 1, 2, 4, 5].into_iter().collect());
        assert_eq!(positions.len(), 5);
    }

    #[test]
    fn a_whole_chunk_is_one_range() {
        assert_eq!(Positions::all(1_000).to_json(), "[[0,1000]]");
        assert_eq!(Positions::all(0).to_json(), "[]");
    }

    #[test]
    fn positions_outside_the_chunk_are_refused() {
        for json in ["[[0,11]]", "[[5,5]]", "[[6,5]]", "[[-1,5]]", "null", "[0,5]", "[[0,5]"] {
            assert_eq!(Positions::from_json(json, 10), Err(InvalidPositions), "{json}");
        }
    }
}
