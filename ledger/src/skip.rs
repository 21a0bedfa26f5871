use protocol::{DeletionId, Timestamp};

use crate::cursor::{KeyCursor, list_after};
use crate::database::{LedgerError, Row, Statement};

/// A key that was left alone, because its object was uploaded after the deletion was requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkipRecord {
    /// The key, as a JSON string.
    pub key_json: String,
    /// When the object was uploaded that was found there.
    pub uploaded_at: Timestamp,
    /// When it was left alone.
    pub skipped_at: Timestamp,
    /// Its place in the list, to go on from.
    pub cursor: KeyCursor,
}

const LIST: &str = "\
SELECT generation, chunk, position, key_json, uploaded_at, skipped_at
FROM skips
WHERE deletion = ?1 AND (?2 IS NULL OR (generation, chunk, position) > (?2, ?3, ?4))
ORDER BY generation, chunk, position LIMIT ?5";

/// At most `limit` skipped keys of a deletion that come after `after`.
pub(crate) fn list(deletion: &DeletionId, after: Option<KeyCursor>, limit: usize) -> Statement {
    list_after(LIST, deletion, after, limit)
}

pub(crate) fn read_record(row: &Row) -> Result<SkipRecord, LedgerError> {
    Ok(SkipRecord {
        key_json: row.text("key_json")?.to_owned(),
        uploaded_at: row.time("uploaded_at")?,
        skipped_at: row.time("skipped_at")?,
        cursor: KeyCursor::of(row)?,
    })
}
