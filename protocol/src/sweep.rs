use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{PART_CHUNKS_MAX, PARTS_MAX};
use crate::message::VERSION;
use crate::{ChunkRef, DeletionId};

/// The chunks of sweeps are numbered from here: sweep `n` counts what it finds as chunk `SWEEP_CHUNKS_FROM + n` of the
/// deletion's generation 0.
pub const SWEEP_CHUNKS_FROM: u32 = 2_000_000;

// No part has a chunk of that number.
const _: () = assert!(SWEEP_CHUNKS_FROM >= (PARTS_MAX + 1) * PART_CHUNKS_MAX);

/// Names one step of one sweep, which a message of the Queue asks for. What the sweep is of and how far it is, the ledger
/// knows; a message of a step that is over asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SweepRef {
    /// The deletion.
    pub deletion: DeletionId,
    /// The sweep's number in its deletion, from 0.
    pub sweep: u32,
    /// How often it has been handed on.
    pub step: u32,
}

impl SweepRef {
    /// The first step of a sweep.
    pub fn first(deletion: &DeletionId, sweep: u32) -> Self {
        Self { deletion: deletion.clone(), sweep, step: 0 }
    }

    /// The chunk that what it finds is counted as.
    pub fn chunk(&self) -> ChunkRef {
        let chunk = SWEEP_CHUNKS_FROM.saturating_add(self.sweep);
        ChunkRef { deletion: self.deletion.clone(), generation: 0, chunk }
    }

    /// The body of the message that asks for it.
    pub fn to_message(&self) -> String {
        let Self { deletion, sweep, step } = self;
        // OK to write by hand because an id holds no character that JSON escapes.
        format!(r#"{{"v":{VERSION},"sweep":{{"deletion":"{deletion}","sweep":{sweep},"step":{step}}}}}"#)
    }

    /// Only in the form that we write, to the byte; so there is no need for a reader of JSON.
    pub(crate) fn from_message(body: &str) -> Option<Self> {
        let fields = body.split_once(r#"{"deletion":""#)?.1.strip_suffix("}}")?;
        let (deletion, fields) = fields.split_once(r#"","sweep":"#)?;
        let (sweep, step) = fields.split_once(r#","step":"#)?;
        let sweep =
            Self { deletion: deletion.parse().ok()?, sweep: sweep.parse().ok()?, step: step.parse().ok()? };
        (sweep.to_message() == body).then_some(sweep)
    }
}

/// What a sweep does with what it lists. All sweeps of a deletion are in the same phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepPhase {
    /// Counts it, for a plan or before a brake.
    Count,
    /// Deletes what is older than the request.
    Delete,
    /// Counts what is left.
    Verify,
}

impl SweepPhase {
    /// Every phase there is, in their order.
    pub const ALL: [Self; 3] = [Self::Count, Self::Delete, Self::Verify];

    /// The phase as the ledger says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Delete => "delete",
            Self::Verify => "verify",
        }
    }

    /// The phase that [`SweepPhase::as_str`] spells so.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == text)
    }
}

/// The keys that one sweep is for: those with a prefix, after one key and up to another, in the order of their bytes.
///
/// The ranges of a deletion have no key in common. Keys are personal data, so `Debug` shows none.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepRange {
    /// How its keys begin.
    pub prefix: String,
    /// The key that the range comes after; `None` when it has no beginning but the prefix'.
    pub after: Option<String>,
    /// The last key that is in it, whether there is one or not; `None` when it has no end but the prefix'.
    pub until: Option<String>,
}

impl SweepRange {
    /// All keys that begin so.
    pub fn of(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), after: None, until: None }
    }

    /// Whether a key is in it.
    pub fn contains(&self, key: &str) -> bool {
        let after = self.after.as_deref().is_none_or(|after| key > after);
        key.starts_with(&self.prefix) && after && !self.ends_before(key)
    }

    /// Whether a key comes after all that are in it.
    pub fn ends_before(&self, key: &str) -> bool {
        self.until.as_deref().is_some_and(|until| key > until)
    }

    /// Cuts it at these keys: what comes up to the first of them remains, the rest is answered. Keys that are not in order, or
    /// not within, cut nothing off.
    pub fn split(&mut self, at: impl IntoIterator<Item = String>) -> Vec<Self> {
        let mut rest: Vec<Self> = Vec::new();
        for key in at {
            let last = rest.last_mut().unwrap_or(self);
            let is_within = last.after.as_ref().is_none_or(|after| key > *after)
                && last.until.as_ref().is_none_or(|until| key < *until);
            if is_within {
                let until = last.until.replace(key.clone());
                rest.push(Self { prefix: self.prefix.clone(), after: Some(key), until });
            }
        }
        rest
    }
}

impl fmt::Debug for SweepRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SweepRange({} bytes)", self.prefix.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{QueueMessage, UnreadableReason};

    const PINNED: &str =
        r#"{"v":1,"sweep":{"deletion":"del_01kaszq5m00000000000000000","sweep":3,"step":7}}"#;

    /// Messages of this form lie in queues for up to 14 days: whoever changes it must read both.
    #[test]
    fn the_form_of_a_message_is_pinned_and_nothing_else_is_read() {
        let Ok(QueueMessage::Sweep(sweep)) = QueueMessage::from_json(PINNED) else { panic!("not read") };
        assert_eq!((sweep.sweep, sweep.step, sweep.to_message().as_str()), (3, 7, PINNED));
        assert_eq!(sweep.chunk().chunk, 2_000_003);

        let reason = |from: &str, to: &str| QueueMessage::from_json(&PINNED.replace(from, to)).unwrap_err();
        assert_eq!(reason("\"v\":1", "\"v\":2"), UnreadableReason::UnsupportedVersion);
        for (from, to) in [
            ("\"sweep\":{", "\"brush\":{"),
            ("\"step\":7", "\"step\":7,\"prefix\":\"\""),
            ("\"step\":7", "\"step\":-7"),
            ("\"sweep\":3", "\"sweep\":03"),
            ("del_", "job_"),
        ] {
            assert_eq!(reason(from, to), UnreadableReason::InvalidMessage, "{to}");
        }
    }

    #[test]
    fn every_phase_reads_back() {
        for phase in SweepPhase::ALL {
            assert_eq!(SweepPhase::from_text(phase.as_str()), Some(phase));
        }
    }

    #[test]
    fn a_range_is_cut_at_keys_that_are_within_and_in_order_and_shows_none() {
        let texts = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect::<Vec<_>>();
        let mut range =
            SweepRange { after: Some("p/b".into()), until: Some("p/x".into()), ..SweepRange::of("p/") };
        let rest = range.split(texts(&["p/a", "p/b", "p/d", "p/d", "p/c", "p/m", "p/x", "p/z"]));
        let ends = |range: &SweepRange| (range.after.clone().unwrap(), range.until.clone().unwrap());
        assert_eq!(ends(&range), ("p/b".to_owned(), "p/d".to_owned()));
        let rest: Vec<_> = rest.iter().map(ends).collect();
        assert_eq!(rest, [("p/d", "p/m"), ("p/m", "p/x")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(format!("{range:?}"), "SweepRange(2 bytes)");
    }

    proptest! {
        /// However a range is cut, each of its keys is in exactly one of the pieces, and no other key is in any.
        #[test]
        fn a_range_that_is_cut_loses_no_key_and_has_none_twice(
            keys in proptest::collection::vec("p?/[a-cé]{0,3}", 0..40),
            first_cuts in proptest::collection::vec("p/[a-cé\u{10ffff}]{0,3}", 0..6),
            second_cuts in proptest::collection::vec("p/[a-cé\u{10ffff}]{0,3}", 0..6),
        ) {
            let mut whole = SweepRange::of("p/");
            let mut pieces = whole.split(first_cuts);
            pieces.push(whole);
            let more: Vec<_> = pieces.iter_mut().flat_map(|piece| piece.split(second_cuts.clone())).collect();
            pieces.extend(more);
            for key in &keys {
                let times = pieces.iter().filter(|piece| piece.contains(key)).count();
                prop_assert_eq!(times, usize::from(key.starts_with("p/")));
            }
        }
    }
}
