use protocol::{DeletionId, FailureCode, Timestamp};

use crate::cursor::{KeyCursor, list_after};
use crate::database::{LedgerError, Row, Statement};
use crate::redrive::FailureFilter;

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
  AND (?6 IS NULL OR code = ?6) AND (?7 IS NULL OR failed_at < ?7)
ORDER BY generation, chunk, position LIMIT ?5";

/// At most `limit` failures of a deletion that come after `after` and that the filter lets through.
pub(crate) fn list(
    deletion: &DeletionId,
    filter: FailureFilter,
    after: Option<KeyCursor>,
    limit: usize,
) -> Statement {
    let mut statement = list_after(LIST, deletion, after, limit);
    statement.parameters.extend(filter.parameters());
    statement
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
