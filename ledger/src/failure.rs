use std::fmt;
use std::str::FromStr;

use protocol::{DeletionId, FailureCode, Timestamp};

use crate::database::{Database, LedgerError, Row, Statement, Value};
use crate::row::{self, number};

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
    pub cursor: FailureCursor,
}

/// A place in the list of a deletion's failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureCursor {
    generation: u64,
    chunk: u64,
    position: u64,
}

impl fmt::Display for FailureCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.generation, self.chunk, self.position)
    }
}

impl FromStr for FailureCursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let numbers: Vec<u64> = text.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| ())?;
        // 2^53 is as far as an integer crosses JavaScript exactly.
        match numbers.as_slice() {
            &[generation, chunk, position] if numbers.iter().all(|&number| number < 1 << 53) => {
                Ok(Self { generation, chunk, position })
            }
            _ => Err(()),
        }
    }
}

const LIST: &str = "\
SELECT generation, chunk, position, key_json, code, attempts, failed_at
FROM failures
WHERE deletion = ?1 AND (?2 IS NULL OR (generation, chunk, position) > (?2, ?3, ?4))
ORDER BY generation, chunk, position LIMIT ?5";

/// At most `limit` failures of a deletion that come after `after`.
pub(crate) async fn list(
    database: &impl Database,
    deletion: &DeletionId,
    after: Option<FailureCursor>,
    limit: usize,
) -> Result<Vec<FailureRecord>, LedgerError> {
    let after: [Value; 3] = match after {
        Some(FailureCursor { generation, chunk, position }) => {
            [generation.into(), chunk.into(), position.into()]
        }
        None => [Value::Null, Value::Null, Value::Null],
    };
    let mut parameters = vec![deletion.as_str().into()];
    parameters.extend(after);
    parameters.push(limit.into());
    let answer = database.batch(vec![Statement::new(LIST, parameters)]).await?;
    row::next(&mut answer.into_iter())?.iter().map(FailureRecord::read).collect()
}

impl FailureRecord {
    fn read(row: &Row) -> Result<Self, LedgerError> {
        Ok(Self {
            key_json: row::text(row, "key_json")?,
            code: FailureCode::from_text(&row::text(row, "code")?),
            attempts: row::small(row, "attempts")?,
            failed_at: row::time(row, "failed_at")?,
            cursor: FailureCursor {
                generation: number(row, "generation")?,
                chunk: number(row, "chunk")?,
                position: number(row, "position")?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_nothing_else_is_one() {
        let cursor = FailureCursor { generation: 0, chunk: 7, position: 999 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "0.7", "0.7.9.9", "0.7.-1", "0.7.x", "0.7.9007199254740992"] {
            assert_eq!(text.parse::<FailureCursor>(), Err(()), "{text}");
        }
    }
}
