use protocol::{Counts, DeletionId, FailureCode, Fence, Labels, State, Timestamp, rfc3339};
use serde::Serialize;

use crate::deletion::{DeletionRecord, ErrorCount};

/// A deletion as the API and a completion notice show it: in JSON, and alike in both.
#[derive(Debug, Serialize)]
pub struct DeletionView<'a> {
    /// Its id.
    pub id: &'a DeletionId,
    /// Its state.
    pub state: State,
    /// How often it has been redriven.
    pub generation: u32,
    /// When the consumer looks at an object before it deletes it.
    pub fence: Fence,
    /// What became of its keys.
    pub counts: Counts,
    /// Duplicates that were left out of it.
    pub duplicates_removed: u64,
    /// Messages it was sent as.
    pub messages: u64,
    /// When it was requested.
    #[serde(serialize_with = "rfc3339::serialize")]
    pub requested_at: Timestamp,
    /// The end of the undo window, where there is one.
    #[serde(serialize_with = "rfc3339::serialize_option")]
    pub not_before: Option<Timestamp>,
    /// When its first chunk was begun.
    #[serde(serialize_with = "rfc3339::serialize_option")]
    pub started_at: Option<Timestamp>,
    /// When its last key was decided.
    #[serde(serialize_with = "rfc3339::serialize_option")]
    pub finished_at: Option<Timestamp>,
    /// When the ledger forgets it.
    #[serde(serialize_with = "rfc3339::serialize_option")]
    pub expires_at: Option<Timestamp>,
    /// Its failures, most first.
    pub errors: Vec<ErrorView>,
    /// The caller's names and values.
    pub labels: &'a Labels,
    /// The name of the token that requested it.
    pub requested_by: &'a str,
}

impl<'a> From<&'a DeletionRecord> for DeletionView<'a> {
    fn from(record: &'a DeletionRecord) -> Self {
        Self {
            id: &record.id,
            state: record.state,
            generation: record.generation,
            fence: record.fence,
            counts: record.counts,
            duplicates_removed: record.duplicates_removed,
            messages: record.messages,
            requested_at: record.requested_at,
            not_before: Some(record.not_before).filter(|&end| end > record.requested_at),
            started_at: record.started_at,
            finished_at: record.finished_at,
            expires_at: record.finished_at.map(|end| end.plus_millis(record.state.retention_millis())),
            errors: record.errors.iter().map(ErrorView::from).collect(),
            labels: &record.labels,
            requested_by: &record.requested_by,
        }
    }
}

/// How many keys failed in one way.
#[derive(Debug, Serialize)]
pub struct ErrorView {
    code: &'static str,
    r2_code: Option<u32>,
    count: u64,
}

impl From<&ErrorCount> for ErrorView {
    fn from(&ErrorCount { code, r2_code, count }: &ErrorCount) -> Self {
        Self { code: code_text(code), r2_code, count }
    }
}

/// A failure's code as the API shows it, also one of a later version.
pub fn code_text(code: Option<FailureCode>) -> &'static str {
    code.map_or("unknown", FailureCode::as_str)
}
