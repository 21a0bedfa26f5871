use serde::Serialize;

/// What became of a deletion's keys. Always `total = pending + deleted + skipped + failed + cancelled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Keys accepted, duplicates not counted.
    pub total: u64,
    /// Keys that nothing is decided about yet.
    pub pending: u64,
    /// Keys confirmed absent. R2 does not say whether there was an object.
    pub deleted: u64,
    /// Keys kept because their object was uploaded after the request.
    pub skipped: u64,
    /// Keys that ended undeleted, each with a failure.
    pub failed: u64,
    /// Keys that a cancellation came in time for.
    pub cancelled: u64,
}

impl Counts {
    /// The counts of a deletion of `total` keys, from what the ledger has recorded of its chunks.
    ///
    /// Keys that are not recorded are pending, or cancelled once the deletion is `closed`: cancelled, and no chunk of it
    /// in anybody's hands.
    pub fn derive(total: u64, deleted: u64, skipped: u64, failed: u64, closed: bool) -> Self {
        let undecided = total.saturating_sub(deleted + skipped + failed);
        let (pending, cancelled) = if closed { (0, undecided) } else { (undecided, 0) };
        Self { total, pending, deleted, skipped, failed, cancelled }
    }

    /// These counts and `other`'s together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            pending: self.pending + other.pending,
            deleted: self.deleted + other.deleted,
            skipped: self.skipped + other.skipped,
            failed: self.failed + other.failed,
            cancelled: self.cancelled + other.cancelled,
        }
    }
}

/// How long the ledger keeps a deletion none of whose keys failed, in milliseconds: 7 days.
pub const RETENTION_MS: u64 = 7 * 86_400_000;

/// How long the ledger keeps a deletion with failures, in milliseconds: 30 days.
pub const RETENTION_FAILED_MS: u64 = 30 * 86_400_000;

/// What is known of a deletion besides its counts.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own; what follows from them is a State"
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Parts of it may still come.
    pub accepting: bool,
    /// Objects of it may still be found.
    pub sweeping: bool,
    /// It is a dry run.
    pub dry_run: bool,
    /// A chunk of it has been begun.
    pub begun: bool,
    /// It was asked to be cancelled.
    pub cancelled: bool,
    /// Something of it is in somebody's hands.
    pub in_flight: bool,
}

/// The state of a deletion. Clients must expect more to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Its parts are still coming.
    Accepting,
    /// Nothing has begun.
    Queued,
    /// Some chunk has been begun, and some key is pending.
    Running,
    /// Cancelled, with chunks still in flight.
    Cancelling,
    /// Final: every key is deleted or skipped.
    Succeeded,
    /// Final: some key failed.
    Failed,
    /// Final: some key was cancelled.
    Cancelled,
    /// Final: it was a dry run. Nothing was deleted.
    Planned,
}

impl State {
    /// Every state there is.
    pub const ALL: [Self; 8] = [
        Self::Accepting,
        Self::Queued,
        Self::Running,
        Self::Cancelling,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Planned,
    ];

    /// The state as the API says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepting => "accepting",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Planned => "planned",
        }
    }

    /// The state that [`State::as_str`] spells so.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// The state that follows from the counts and from what else is known of the deletion.
    pub fn derive(counts: &Counts, progress: Progress) -> Self {
        let Progress { accepting, sweeping, dry_run, begun, cancelled, in_flight } = progress;
        match counts {
            Counts { pending: 1.., .. } if cancelled => Self::Cancelling,
            // A step that is in flight can be the last, and end the deletion another way.
            _ if cancelled && sweeping && in_flight => Self::Cancelling,
            // Nobody knows what would have come.
            _ if cancelled && (accepting || sweeping) => Self::Cancelled,
            _ if accepting => Self::Accepting,
            Counts { pending, .. } if begun && (sweeping || *pending > 0) => Self::Running,
            Counts { pending, .. } if sweeping || *pending > 0 => Self::Queued,
            Counts { cancelled: 1.., .. } => Self::Cancelled,
            Counts { failed: 1.., .. } => Self::Failed,
            _ if dry_run => Self::Planned,
            _ => Self::Succeeded,
        }
    }

    /// How long the ledger keeps a deletion after its end, in milliseconds: a week, or a month when some key failed.
    pub fn retention_millis(self) -> u64 {
        match self {
            Self::Failed => RETENTION_FAILED_MS,
            Self::Accepting
            | Self::Queued
            | Self::Running
            | Self::Cancelling
            | Self::Succeeded
            | Self::Cancelled
            | Self::Planned => RETENTION_MS,
        }
    }

    /// Whether the counts can no longer change by themselves.
    pub fn is_final(self) -> bool {
        match self {
            Self::Accepting | Self::Queued | Self::Running | Self::Cancelling => false,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Planned => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_always_add_up_and_final_means_nothing_is_pending(
            (deleted, skipped, failed, rest) in (0_u64..1_000, 0_u64..1_000, 0_u64..1_000, 0_u64..1_000),
            (cancelled, in_flight, begun, accepting, sweeping, dry_run) in any::<(bool, bool, bool, bool, bool, bool)>(),
        ) {
            let total = deleted + skipped + failed + rest;
            let closed = cancelled && !in_flight;
            let counts = Counts::derive(total, deleted, skipped, failed, closed);
            prop_assert_eq!(total, counts.pending + deleted + skipped + failed + counts.cancelled);
            let progress = Progress { accepting, sweeping, dry_run, begun, cancelled, in_flight };
            let state = State::derive(&counts, progress);
            let whole = !accepting && !sweeping;
            let over = whole || closed || (cancelled && !sweeping);
            prop_assert_eq!(state.is_final(), counts.pending == 0 && over);
            let undone = counts.pending + failed + counts.cancelled;
            prop_assert_eq!(state == State::Succeeded, undone == 0 && whole && !dry_run);
        }
    }

    #[test]
    fn every_state_reads_back_and_is_spelled_alike_in_json() {
        for state in State::ALL {
            assert_eq!(State::from_text(state.as_str()), Some(state));
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{}\"", state.as_str()));
        }
        assert_eq!(State::from_text("unheard_of"), None);
    }

    #[test]
    fn counts_are_added_one_by_one() {
        let counts = Counts { total: 63, pending: 1, deleted: 2, skipped: 4, failed: 8, cancelled: 48 };
        let twice = Counts { total: 126, pending: 2, deleted: 4, skipped: 8, failed: 16, cancelled: 96 };
        assert_eq!(counts.plus(counts), twice);
        assert_eq!(counts.plus(Counts::default()), counts);
        let ones = Counts { total: 1, pending: 1, deleted: 1, skipped: 1, failed: 1, cancelled: 1 };
        let more = Counts { total: 64, pending: 2, deleted: 3, skipped: 5, failed: 9, cancelled: 49 };
        assert_eq!(counts.plus(ones), more);
    }

    #[test]
    fn failures_are_kept_for_a_month_and_everything_else_for_a_week() {
        for state in State::ALL {
            let days = if state == State::Failed { 30 } else { 7 };
            assert_eq!(state.retention_millis(), days * 24 * 60 * 60 * 1_000, "{state:?}");
        }
    }

    #[test]
    fn what_still_takes_parts_or_was_only_planned_says_so() {
        let done = Counts::derive(3, 3, 0, 0, false);
        let state = |progress| State::derive(&done, progress);
        let begun = Progress { begun: true, ..Progress::default() };
        assert_eq!(state(Progress { accepting: true, ..begun }), State::Accepting);
        assert_eq!(state(Progress { dry_run: true, ..begun }), State::Planned);
        assert_eq!(state(begun), State::Succeeded);
    }

    #[test]
    fn a_deletion_walks_from_queued_to_its_end() {
        let state = |counts: Counts, begun, cancelled| {
            State::derive(&counts, Progress { begun, cancelled, ..Progress::default() })
        };
        assert_eq!(state(Counts::derive(3, 0, 0, 0, false), false, false), State::Queued);
        assert_eq!(state(Counts::derive(3, 0, 0, 0, false), true, false), State::Running);
        assert_eq!(state(Counts::derive(3, 1, 0, 0, false), true, true), State::Cancelling);
        assert_eq!(state(Counts::derive(3, 1, 0, 0, true), true, true), State::Cancelled);
        assert_eq!(state(Counts::derive(3, 2, 0, 1, false), true, false), State::Failed);
        assert_eq!(state(Counts::derive(3, 2, 1, 0, false), true, false), State::Succeeded);
        // A step of a sweep that was begun before the cancellation came can still be the last.
        let nothing = Counts::derive(0, 0, 0, 0, false);
        let sweeping = Progress { begun: true, sweeping: true, cancelled: true, ..Progress::default() };
        assert_eq!(State::derive(&nothing, Progress { in_flight: true, ..sweeping }), State::Cancelling);
        assert_eq!(State::derive(&nothing, sweeping), State::Cancelled);
        // Everything was done before the cancellation came: it cancelled nothing.
        assert_eq!(state(Counts::derive(3, 3, 0, 0, true), true, true), State::Succeeded);
    }
}
