//! Columns of a row by hand: where a query answers with one or two, a type of its own for serde would be some kilobytes of
//! wasm each.

use protocol::{DeletionId, Timestamp};

use crate::database::{LedgerError, Row};

/// A count or a flag.
pub(crate) fn number(row: &Row, column: &'static str) -> Result<u64, LedgerError> {
    row.get(column).and_then(serde_json::Value::as_u64).ok_or_else(|| unexpected(column))
}

/// A time.
pub(crate) fn time(row: &Row, column: &'static str) -> Result<Timestamp, LedgerError> {
    number(row, column).map(Timestamp::from_millis)
}

/// A deletion's id.
pub(crate) fn id(row: &Row, column: &'static str) -> Result<DeletionId, LedgerError> {
    let text = row.get(column).and_then(serde_json::Value::as_str);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| unexpected(column))
}

/// The rows of the next statement of an answer.
pub(crate) fn next(answer: &mut impl Iterator<Item = Vec<Row>>) -> Result<Vec<Row>, LedgerError> {
    answer.next().ok_or_else(|| LedgerError::new("the answer has fewer results than statements"))
}

fn unexpected(column: &str) -> LedgerError {
    LedgerError::new(format!("the column {column} is not of the expected form"))
}
