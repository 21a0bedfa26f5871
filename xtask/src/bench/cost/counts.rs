//! What `tests/bench/counted.js` has logged.

use std::{collections::BTreeMap, ops::AddAssign};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// How a line of it begins.
const MARK: &str = "counted {";

/// What was done that is paid for, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    counts: BTreeMap<String, u64>,
    /// By the verb and the table of the statement.
    pub(super) statements: BTreeMap<String, Rows>,
}

/// Rows of the ledger, index entries included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rows {
    pub(super) times: u64,
    #[serde(rename = "rows_read")]
    pub(super) read: u64,
    #[serde(rename = "rows_written")]
    pub(super) written: u64,
}

impl Counts {
    /// The sum of all that a log says after its first `from` bytes.
    pub(super) fn read(log: &str, from: usize) -> Result<Self> {
        let news = log.get(from..).context("the log has become shorter")?;
        let mut sum = Self::default();
        // A line whose end has not been written yet is read the next time.
        for line in news.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            if let Some(at) = line.find(MARK) {
                let json = line.get(at + MARK.len() - 1..).unwrap_or_default();
                sum += &serde_json::from_str(json).with_context(|| format!("not as counted: {line}"))?;
            }
        }
        Ok(sum)
    }

    /// How often something was done; 0 where it was not.
    pub(super) fn of(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default()
    }

    /// Whether every message that was sent was acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.of("queue_messages_written") == self.of("queue_messages_deleted")
    }
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        for (name, count) in &other.counts {
            *self.counts.entry(name.clone()).or_default() += count;
        }
        for (kind, rows) in &other.statements {
            let sum = self.statements.entry(kind.clone()).or_default();
            sum.times += rows.times;
            sum.read += rows.read;
            sum.written += rows.written;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_whole_lines_say_is_added_up() {
        let line = r#"counted {"worker":"consumer","counts":{"r2_heads":2},"statements":{"UPDATE chunks":{"times":1,"rows_read":3,"rows_written":4}}}"#;
        let log = format!("before {line}\nGET / 200 OK\n{line}\n  {line}\n{line}");
        let counts = Counts::read(&log, 0).unwrap();
        assert_eq!((counts.of("r2_heads"), counts.of("r2_lists")), (6, 0));
        assert_eq!(counts.statements["UPDATE chunks"], Rows { times: 3, read: 9, written: 12 });
        assert_eq!(Counts::read(&log, "before ".len() + line.len()).unwrap().of("r2_heads"), 4);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_not_left_out() {
        assert!(Counts::read("counted {\"counts\":\n", 0).is_err());
    }
}
