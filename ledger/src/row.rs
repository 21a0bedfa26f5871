//! Columns of a row by hand: a type of its own for serde would be three to five kilobytes of the producer's wasm for each
//! query.

use protocol::{DeletionId, Timestamp};
use serde_json::Value;

use crate::database::{LedgerError, Row};

/// A count or a flag.
pub(crate) fn number(row: &Row, column: &str) -> Result<u64, LedgerError> {
    optional_number(row, column)?.ok_or_else(|| unexpected(column))
}

/// A count that may be `NULL`.
pub(crate) fn optional_number(row: &Row, column: &str) -> Result<Option<u64>, LedgerError> {
    match row.get(column) {
        Some(Value::Null) => Ok(None),
        found => found.and_then(Value::as_u64).map(Some).ok_or_else(|| unexpected(column)),
    }
}

/// A count that is never large.
pub(crate) fn small(row: &Row, column: &str) -> Result<u32, LedgerError> {
    number(row, column)?.try_into().map_err(|_| unexpected(column))
}

/// A time.
pub(crate) fn time(row: &Row, column: &str) -> Result<Timestamp, LedgerError> {
    number(row, column).map(Timestamp::from_millis)
}

/// A time that may not have come.
pub(crate) fn optional_time(row: &Row, column: &str) -> Result<Option<Timestamp>, LedgerError> {
    Ok(optional_number(row, column)?.map(Timestamp::from_millis))
}

/// A text.
pub(crate) fn text(row: &Row, column: &str) -> Result<String, LedgerError> {
    row.get(column).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| unexpected(column))
}

/// A deletion's id.
pub(crate) fn id(row: &Row, column: &str) -> Result<DeletionId, LedgerError> {
    text(row, column)?.parse().map_err(|_| unexpected(column))
}

/// The rows of the next statement of an answer.
pub(crate) fn next(answer: &mut impl Iterator<Item = Vec<Row>>) -> Result<Vec<Row>, LedgerError> {
    answer.next().ok_or_else(|| LedgerError::new("the answer has fewer results than statements"))
}

fn unexpected(column: &str) -> LedgerError {
    LedgerError::new(format!("the column {column} is not of the expected form"))
}
