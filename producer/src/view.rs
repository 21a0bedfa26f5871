pub(crate) use ledger::DeletionView;
use ledger::{
    ErrorView, FailureRecord, LedgerStats, NoticeStats, SkipRecord, UnfinishedDeletion, UnreadableRecord,
    code_text,
};
use protocol::{Counts, DeletionId, FailureCode, State, Timestamp, rfc3339};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// A page of deletions.
#[derive(Debug, Serialize)]
pub(crate) struct DeletionsView<'a> {
    pub(crate) deletions: Vec<DeletionView<'a>>,
    pub(crate) next_page_token: Option<String>,
}

/// A key that ended undeleted.
#[derive(Debug, Serialize)]
pub(crate) struct FailureView<'a> {
    /// The key's own JSON, passed through, so that every byte of it survives.
    key: &'a RawValue,
    code: &'static str,
    message: &'static str,
    attempts: u32,
    #[serde(serialize_with = "rfc3339::serialize")]
    failed_at: Timestamp,
}

impl<'a> FailureView<'a> {
    /// `None` when the ledger has no JSON for the key, which only this project writes there.
    pub(crate) fn new(record: &'a FailureRecord) -> Option<Self> {
        Some(Self {
            key: serde_json::from_str(&record.key_json).ok()?,
            code: code_text(record.code),
            message: failure_message(record.code),
            attempts: record.attempts,
            failed_at: record.failed_at,
        })
    }
}

/// A key that was left alone.
#[derive(Debug, Serialize)]
pub(crate) struct SkipView<'a> {
    /// The key's own JSON, passed through.
    key: &'a RawValue,
    code: &'static str,
    #[serde(serialize_with = "rfc3339::serialize")]
    uploaded_at: Timestamp,
    #[serde(serialize_with = "rfc3339::serialize")]
    skipped_at: Timestamp,
}

impl<'a> SkipView<'a> {
    /// `None` when the ledger has no JSON for the key, which only this project writes there.
    pub(crate) fn new(record: &'a SkipRecord) -> Option<Self> {
        Some(Self {
            key: serde_json::from_str(&record.key_json).ok()?,
            code: "uploaded_since",
            uploaded_at: record.uploaded_at,
            skipped_at: record.skipped_at,
        })
    }
}

/// Why a key ended undeleted, for a person.
pub(crate) fn failure_message(code: Option<FailureCode>) -> &'static str {
    code.map_or("A later version of the consumer gave this key up.", FailureCode::message)
}

/// A page of messages that could not be read.
#[derive(Debug, Serialize)]
pub(crate) struct UnreadableView {
    pub(crate) unreadable_messages: Vec<UnreadableRecord>,
    pub(crate) next_page_token: Option<String>,
}

/// A part of a deletion.
#[derive(Debug, Serialize)]
pub(crate) struct PartView {
    pub(crate) part: u32,
    pub(crate) keys: u64,
    pub(crate) duplicates_removed: u64,
    pub(crate) messages: u64,
}

/// What a redrive over several deletions does, or would do.
#[derive(Debug, Serialize)]
pub(crate) struct RedrivesView {
    pub(crate) dry_run: bool,
    pub(crate) redrives: Vec<RedriveView>,
    /// The failures of all of them.
    pub(crate) keys: u64,
    /// Whether there are more than one call takes, or some that another request is sending.
    pub(crate) more: bool,
}

/// What a redrive does to one deletion.
#[derive(Debug, Serialize)]
pub(crate) struct RedriveView {
    pub(crate) deletion: DeletionId,
    pub(crate) keys: u64,
}

/// What the ledger holds as a whole.
#[derive(Debug, Serialize)]
pub(crate) struct StatsView<'a> {
    /// How many deletions, by state.
    #[serde(serialize_with = "serialize_states")]
    pub(crate) deletions: &'a [(State, u64)],
    pub(crate) keys: Counts,
    pub(crate) oldest_unfinished: Option<UnfinishedView<'a>>,
    pub(crate) failures: Vec<ErrorView>,
    pub(crate) unreadable_messages: u64,
    pub(crate) notices: NoticeStats,
}

/// The deletion that has waited longest for its end.
#[derive(Debug, Serialize)]
pub(crate) struct UnfinishedView<'a> {
    id: &'a DeletionId,
    #[serde(serialize_with = "rfc3339::serialize")]
    requested_at: Timestamp,
}

impl<'a> From<&'a LedgerStats> for StatsView<'a> {
    fn from(stats: &'a LedgerStats) -> Self {
        let LedgerStats { states, keys, oldest_unfinished, failures, unreadable_messages, notices } = stats;
        let unfinished = |UnfinishedDeletion { id, requested_at }: &'a UnfinishedDeletion| UnfinishedView {
            id,
            requested_at: *requested_at,
        };
        Self {
            deletions: states,
            keys: *keys,
            oldest_unfinished: oldest_unfinished.as_ref().map(unfinished),
            failures: failures.iter().map(ErrorView::from).collect(),
            unreadable_messages: *unreadable_messages,
            notices: *notices,
        }
    }
}

fn serialize_states<S: Serializer>(states: &[(State, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(states.iter().map(|(state, count)| (state.as_str(), count)))
}
