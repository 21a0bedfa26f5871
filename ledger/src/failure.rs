use std::fmt;
use std::str::FromStr;

use protocol::{DeletionId, FailureCode, Timestamp};

use crate::database::{Database, LedgerError, Row, Statement, Value, run};
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
    pub cursor: FailureCursor,
}

/// A place in the list of a deletion's failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureCursor {
    generation: u64,
    chunk: u64,
    position: u64,
}

impl FailureCursor {
    pub(crate) fn parameters(self) -> [Value; 3] {
        [self.generation.into(), self.chunk.into(), self.position.into()]
    }
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
  AND (?6 IS NULL OR code = ?6) AND (?7 IS NULL OR failed_at < ?7)
ORDER BY generation, chunk, position LIMIT ?5";

/// At most `limit` failures of a deletion that come after `after` and that the filter lets through.
pub(crate) async fn list(
    database: &impl Database,
    deletion: &DeletionId,
    filter: FailureFilter,
    after: Option<FailureCursor>,
    limit: usize,
) -> Result<Vec<FailureRecord>, LedgerError> {
    let after = after.map_or([Value::Null, Value::Null, Value::Null], FailureCursor::parameters);
    let mut parameters = vec![deletion.as_str().into()];
    parameters.extend(after);
    parameters.push(limit.into());
    parameters.extend(filter.parameters());
    run(database, Statement::new(LIST, parameters)).await?.iter().map(read_record).collect()
}

fn read_record(row: &Row) -> Result<FailureRecord, LedgerError> {
    Ok(FailureRecord {
        key_json: row.text("key_json")?.to_owned(),
        code: FailureCode::from_text(row.text("code")?),
        attempts: row.number("attempts")?,
        failed_at: row.time("failed_at")?,
        cursor: FailureCursor {
            generation: row.number("generation")?,
            chunk: row.number("chunk")?,
            position: row.number("position")?,
        },
    })
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
