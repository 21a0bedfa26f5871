use protocol::{DeletionId, FailureCode, Timestamp};

use crate::cursor::KeyCursor;
use crate::database::{Database, LedgerError, Row, Statement, Value, json, run};
use crate::part::{self, NewPart, PartRef, insert_part};

/// Which failures of keys are asked for; all that is given has to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureFilter {
    /// Those with this code.
    pub code: Option<FailureCode>,
    /// Those that were given up before this.
    pub failed_before: Option<Timestamp>,
}

/// Failures of a deletion to be taken out of the list of failures and sent again, as a part of the next generation whose
/// messages are in the outbox already.
#[derive(Clone, Debug)]
pub struct NewRedrive {
    /// The deletion.
    pub deletion: DeletionId,
    /// Its generation from now on: one more than it was, and over, when the failures were listed.
    pub generation: u32,
    /// Which failures.
    pub filter: FailureFilter,
    /// The last of them, in the list's order: those after it stay.
    pub last: KeyCursor,
    /// Their keys: one for each failure.
    pub part: NewPart,
}

/// A deletion that has failures to redrive, or whose redrive of such failures was begun and not sent whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedrivableDeletion {
    /// The deletion.
    pub id: DeletionId,
    /// How many failures, or of how many the redrive is that was begun.
    pub failures: u64,
    /// What was begun: it has taken the failures, and its messages are in the outbox.
    pub begun: Option<BegunRedrive>,
}

/// A redrive that is written down, and of which it is not noted that every message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BegunRedrive {
    /// Its generation.
    pub generation: u32,
    /// Until when a request holds the sending of its messages for itself.
    pub sending_until: Timestamp,
}

impl FailureFilter {
    /// The code and the time, as parameters.
    pub(crate) fn parameters(&self) -> [Value; 2] {
        let Self { code, failed_before } = self;
        [code.map(FailureCode::as_str).into(), failed_before.map(Timestamp::as_millis).into()]
    }

    /// What a part keeps of it as its fingerprint, for [`REDRIVABLE`].
    fn fingerprint(&self) -> Result<Value, LedgerError> {
        let Self { code, failed_before } = self;
        json(&(code.map(FailureCode::as_str), failed_before.map(Timestamp::as_millis)))
    }
}

impl NewRedrive {
    /// The part that it is.
    pub fn part_ref(&self) -> PartRef {
        PartRef { deletion: self.deletion.clone(), generation: self.generation, part: 0 }
    }
}

/// That a failure is a key's: nothing is deleted by the name of a prefix. A test holds it to [`FailureCode::is_of_a_prefix`].
macro_rules! of_a_key {
    () => {
        "code NOT IN ('sweep_incomplete', 'max_objects_exceeded')"
    };
}

/// Only of a deletion that is over, and in its present generation: of two redrives at once one comes first. And only of as
/// many failures as will be taken: not one is taken that is not sent.
const INSERT_PART: &str = insert_part!(concat!(
    "\
FROM deletions WHERE id = ?1 AND generation + 1 = ?2 AND finished_at IS NOT NULL
  AND ?5 = (SELECT COUNT(*) FROM failures
            WHERE deletion = ?1 AND generation < ?2 AND (generation, chunk, position) <= (?10, ?11, ?12)
              AND ",
    of_a_key!(),
    " AND (?13 IS NULL OR code = ?13) AND (?14 IS NULL OR failed_at < ?14))
ON CONFLICT DO NOTHING"
));

const TAKE_FAILURES: &str = concat!(
    "\
DELETE FROM failures
WHERE deletion = ?1 AND generation < ?2 AND (generation, chunk, position) <= (?4, ?5, ?6)
  AND ",
    of_a_key!(),
    " AND (?7 IS NULL OR code = ?7) AND (?8 IS NULL OR failed_at < ?8)
  AND EXISTS (SELECT 1 FROM parts WHERE deletion = ?1 AND generation = ?2 AND part = 0 AND upload = ?3)"
);

const REOPEN: &str = "\
UPDATE deletions SET generation = ?2, finished_at = NULL, cancelled_at = NULL
WHERE id = ?1 AND generation + 1 = ?2
  AND EXISTS (SELECT 1 FROM parts WHERE deletion = ?1 AND generation = ?2 AND part = 0 AND upload = ?3)";

/// The deletion is not over any more; a notice of its end will be owed when it is.
const TAKE_NOTICES: &str = "\
DELETE FROM notices
WHERE deletion = ?1 AND generation < ?2
  AND EXISTS (SELECT 1 FROM parts WHERE deletion = ?1 AND generation = ?2 AND part = 0 AND upload = ?3)";

/// What is left is counted once more, when the redriven keys are decided.
const VERIFY_AGAIN: [&str; 2] = [
    "\
UPDATE sweeps SET phase = 'verify', step = step + 1, due_at = NULL, progress = '{}', ended_at = NULL, finished_at = NULL,
    objects = 0, bytes = 0, uploaded_since = 0, oldest_at = NULL, newest_at = NULL, sample = NULL
WHERE deletion = ?1 AND (SELECT verify FROM deletions WHERE id = ?1)
  AND EXISTS (SELECT 1 FROM parts WHERE deletion = ?1 AND generation = ?2 AND part = 0 AND upload = ?3)",
    "\
UPDATE chunks SET finished_at = NULL
WHERE deletion = ?1 AND generation = 0 AND chunk >= 2000000 AND (SELECT verify FROM deletions WHERE id = ?1)
  AND EXISTS (SELECT 1 FROM parts WHERE deletion = ?1 AND generation = ?2 AND part = 0 AND upload = ?3)",
];

const IS_WRITTEN: &str = "\
SELECT 1 FROM parts WHERE deletion = ?1 AND generation = ?2 AND part = 0 AND upload = ?3";

/// What was begun is only of failures that the filter lets through when it began with such a filter, or a narrower one.
const REDRIVABLE: &str = concat!(
    "\
SELECT f.deletion, COUNT(*) AS failures, NULL AS generation, NULL AS sending_until
FROM failures AS f JOIN deletions AS d ON d.id = f.deletion
WHERE d.finished_at IS NOT NULL AND ",
    of_a_key!(),
    " AND (?1 IS NULL OR f.code = ?1) AND (?2 IS NULL OR f.failed_at < ?2)
GROUP BY f.deletion
UNION ALL
SELECT d.id, p.keys, p.generation, p.sending_until
FROM deletions AS d JOIN parts AS p ON p.deletion = d.id AND p.generation = d.generation AND p.part = 0
WHERE d.finished_at IS NULL AND d.cancelled_at IS NULL AND d.generation > 0 AND p.enqueued_at IS NULL
  AND (?1 IS NULL OR p.fingerprint ->> 0 = ?1) AND (?2 IS NULL OR p.fingerprint ->> 1 <= ?2)
ORDER BY 1 LIMIT ?3"
);

/// Turns failures into a part of the next generation, all or nothing: the deletion is open again, and its counts stay whole.
/// False when another redrive came first, or when the deletion is not over: nothing is changed then.
pub(crate) async fn admit(database: &impl Database, redrive: &NewRedrive) -> Result<bool, LedgerError> {
    let at = redrive.part_ref();
    let named = || -> Vec<Value> {
        vec![at.deletion.as_str().into(), at.generation.into(), redrive.part.upload.as_str().into()]
    };
    let which = || redrive.last.parameters().into_iter().chain(redrive.filter.parameters());
    let mut part = part::values(&at, &redrive.part, redrive.filter.fingerprint()?)?;
    part.extend(which());
    let [verify_again, open_chunks] = VERIFY_AGAIN;
    let statements = vec![
        Statement::new(INSERT_PART, part),
        Statement::new(TAKE_FAILURES, named().into_iter().chain(which()).collect::<Vec<_>>()),
        Statement::new(REOPEN, named()),
        Statement::new(TAKE_NOTICES, named()),
        Statement::new(verify_again, named()),
        Statement::new(open_chunks, named()),
        Statement::new(IS_WRITTEN, named()),
    ];
    Ok(database.batch(statements).await?.pop().is_some_and(|rows| !rows.is_empty()))
}

/// At most `limit` deletions that are over and have such failures, or whose redrive of such failures is not sent whole,
/// oldest first.
pub(crate) async fn list(
    database: &impl Database,
    filter: FailureFilter,
    limit: usize,
) -> Result<Vec<RedrivableDeletion>, LedgerError> {
    let [code, failed_before] = filter.parameters();
    let statement = Statement::new(REDRIVABLE, [code, failed_before, limit.into()]);
    run(database, statement).await?.iter().map(read_redrivable).collect()
}

fn read_redrivable(row: &Row) -> Result<RedrivableDeletion, LedgerError> {
    let begun = |generation| -> Result<_, LedgerError> {
        Ok(BegunRedrive { generation, sending_until: row.time("sending_until")? })
    };
    Ok(RedrivableDeletion {
        id: row.parsed("deletion")?,
        failures: row.number("failures")?,
        begun: row.number_if_any("generation")?.map(begun).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failures_that_are_not_redriven_are_those_of_prefixes() {
        for code in FailureCode::ALL {
            assert_eq!(
                of_a_key!().contains(&format!("'{}'", code.as_str())),
                code.is_of_a_prefix(),
                "{code:?}"
            );
        }
    }
}
