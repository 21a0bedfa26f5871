use protocol::{DeletionId, FailureCode, Timestamp};

use crate::cursor::{KeyCursor, list_after};
use crate::database::{LedgerError, Row, Statement};

/// A key that ended undeleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRecord {
    /// The key, as a JSON string.
    pub key_json: String,
    /// Why; `None` for a code of a later version.
    pub code: Option<FailureCode>,
    /// How often its message had been delivered.
    pub attempts: u32,
    /// When it was given up.
    pub failed_at: Timestamp,
    /// Its place in the list, to go on from.
    pub cursor: KeyCursor,
}

const LIST: &str = "\
SELECT generation, chunk, position, key_json, code, attempts, failed_at
FROM failures
WHERE deletion = ?1 AND (?2 IS NULL OR (generation, chunk, position) > (?2, ?3, ?4))
ORDER BY generation, chunk, position LIMIT ?5";

/// At most `limit` failures of a deletion that come after `after`.
pub(crate) fn list(deletion: &DeletionId, after: Option<KeyCursor>, limit: usize) -> Statement {
    list_after(LIST, deletion, after, limit)
}

pub(crate) fn read_record(row: &Row) -> Result<FailureRecord, LedgerError> {
    Ok(FailureRecord {
        key_json: row.text("key_json")?.to_owned(),
        code: FailureCode::from_text(row.text("code")?),
        attempts: row.number("attempts")?,
        failed_at: row.time("failed_at")?,
        cursor: KeyCursor::of(row)?,
    })
}
