use protocol::{Counts, DeletionId, FailureCode, Fence, Labels, State, Timestamp, rfc3339};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::deletion::{DeletionRecord, ErrorCount, Plan, Verification};

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
    /// Whether it only counts.
    pub dry_run: bool,
    /// What it deletes by prefix.
    pub prefixes: Option<Box<RawValue>>,
    /// How many keys its sweeps have found.
    pub found_by_prefix: u64,
    /// What a dry run has found.
    pub plan: Option<PlanView>,
    /// What is left, where that was asked for.
    pub verification: Option<VerificationView>,
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
            dry_run: record.plan.is_some(),
            prefixes: record.prefixes.as_deref().and_then(raw),
            found_by_prefix: record.found,
            plan: record.plan.as_ref().map(PlanView::from),
            verification: record.verification.map(VerificationView::from),
        }
    }
}

/// JSON as the ledger has it, which only this project writes there.
fn raw(json: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json.to_owned()).ok()
}

/// What a deletion would delete.
#[derive(Debug, Serialize)]
pub struct PlanView {
    keys: u64,
    objects: u64,
    bytes: u64,
    uploaded_since: u64,
    #[serde(serialize_with = "rfc3339::serialize_option")]
    oldest_uploaded_at: Option<Timestamp>,
    #[serde(serialize_with = "rfc3339::serialize_option")]
    newest_uploaded_at: Option<Timestamp>,
    sample: Option<Box<RawValue>>,
}

impl From<&Plan> for PlanView {
    fn from(plan: &Plan) -> Self {
        let Plan { keys, objects, bytes, uploaded_since, oldest_uploaded_at, newest_uploaded_at, sample } =
            plan;
        Self {
            keys: *keys,
            objects: *objects,
            bytes: *bytes,
            uploaded_since: *uploaded_since,
            oldest_uploaded_at: *oldest_uploaded_at,
            newest_uploaded_at: *newest_uploaded_at,
            sample: raw(sample),
        }
    }
}

/// What was left when everything was decided.
#[derive(Debug, Serialize)]
pub struct VerificationView {
    #[serde(serialize_with = "rfc3339::serialize")]
    verified_at: Timestamp,
    objects_left: u64,
    uploaded_since: u64,
}

impl From<Verification> for VerificationView {
    fn from(Verification { verified_at, objects_left, uploaded_since }: Verification) -> Self {
        Self { verified_at, objects_left, uploaded_since }
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
