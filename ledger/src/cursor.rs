use std::fmt;
use std::str::FromStr;

use protocol::DeletionId;

use crate::database::{LedgerError, Row, Statement, Value};

/// A place in a list of a deletion's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyCursor {
    generation: u64,
    chunk: u64,
    position: u64,
}

impl fmt::Display for KeyCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.generation, self.chunk, self.position)
    }
}

impl FromStr for KeyCursor {
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

#[cfg(feature = "memory")]
impl KeyCursor {
    pub(crate) fn at(generation: u32, chunk: u32, position: usize) -> Self {
        Self { generation: generation.into(), chunk: chunk.into(), position: position as u64 }
    }

    pub(crate) fn generation(self) -> u64 {
        self.generation
    }
}

impl KeyCursor {
    /// Its generation, chunk and position.
    pub(crate) fn parameters(self) -> [Value; 3] {
        [self.generation.into(), self.chunk.into(), self.position.into()]
    }

    /// The place of a row that has the columns `generation`, `chunk` and `position`.
    pub(crate) fn of(row: &Row) -> Result<Self, LedgerError> {
        Ok(Self {
            generation: row.number("generation")?,
            chunk: row.number("chunk")?,
            position: row.number("position")?,
        })
    }
}

/// A statement for at most `limit` rows of a deletion that come after `after`: it takes the deletion, the three numbers of the
/// place or nothing, and the limit.
pub(crate) fn list_after(
    sql: &'static str,
    deletion: &DeletionId,
    after: Option<KeyCursor>,
    limit: usize,
) -> Statement {
    let after = after.map_or([Value::Null, Value::Null, Value::Null], KeyCursor::parameters);
    let mut parameters = vec![deletion.as_str().into()];
    parameters.extend(after);
    parameters.push(limit.into());
    Statement::new(sql, parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_nothing_else_is_one() {
        let cursor = KeyCursor { generation: 0, chunk: 7, position: 999 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "0.7", "0.7.9.9", "0.7.-1", "0.7.x", "0.7.9007199254740992"] {
            assert_eq!(text.parse::<KeyCursor>(), Err(()), "{text}");
        }
    }
}
