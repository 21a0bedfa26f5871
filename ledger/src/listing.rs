use protocol::{DeletionId, Labels, State, Timestamp};

use crate::database::{Database, LedgerError, Statement, json, run};
use crate::deletion::{self, DeletionRecord};

/// Which deletions are asked for; all that is given has to hold.
#[derive(Clone, Debug, Default)]
pub struct DeletionFilter<'a> {
    /// Those of this token; `None` for everybody's.
    pub requested_by: Option<&'a str>,
    /// Those in this state.
    pub state: Option<State>,
    /// Those with all of these labels.
    pub labels: Labels,
}

/// A page of deletions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletionPage {
    /// The deletions, newest first; they may be fewer than were asked for, even none, with more to come.
    pub deletions: Vec<DeletionRecord>,
    /// Where the next page goes on, if there may be more.
    pub next: Option<DeletionId>,
}

/// A statement that finds the ids of a page.
///
/// The counts and the state of a deletion follow from its chunks, so that no index knows them. Each way below walks an
/// index that has little else than what is asked for, in the order of the answer, and stops at the limit. What the
/// conditions let through may be more than the state asked for, never less: `State::derive` has the last word.
/// `INDEXED BY` makes SQLite refuse a walk that would not use that index.
///
/// ?1: only ids before this. ?2: the token, or NULL. ?3: the labels, a JSON object. ?4: the state, or NULL. ?5: the limit.
macro_rules! listing {
    ($id:literal from $from:literal where $condition:literal) => {
        concat!(listing!("", $id from $from where $condition unordered), " ORDER BY ", $id, " DESC LIMIT ?5")
    };
    ($with:literal, $id:literal from $from:literal where $condition:literal unordered) => {
        concat!(
            $with,
            "SELECT d.id FROM ",
            $from,
            " WHERE ",
            $id,
            " < ?1 AND ",
            $condition,
            "
  AND (?2 IS NULL OR d.requested_by = ?2)
  AND NOT EXISTS (
      SELECT 1 FROM json_each(?3) AS asked
      WHERE NOT EXISTS (SELECT 1 FROM labels AS l WHERE l.name = asked.key AND l.value = asked.value AND l.deletion = d.id))
  AND CASE ?4
      WHEN 'accepting' THEN d.finished_at IS NULL AND d.cancelled_at IS NULL AND d.sealed_at IS NULL
      WHEN 'queued' THEN d.finished_at IS NULL AND d.cancelled_at IS NULL
      WHEN 'running' THEN d.finished_at IS NULL AND d.cancelled_at IS NULL
          AND EXISTS (SELECT 1 FROM chunks AS c WHERE c.deletion = d.id)
      WHEN 'cancelling' THEN d.cancelled_at IS NOT NULL
      WHEN 'cancelled' THEN d.cancelled_at IS NOT NULL
      WHEN 'planned' THEN d.planned_keys IS NOT NULL
      WHEN 'succeeded' THEN d.finished_at IS NOT NULL
      WHEN 'failed' THEN d.finished_at IS NOT NULL
          AND EXISTS (SELECT 1 FROM failures AS f WHERE f.deletion = d.id)
      ELSE TRUE END"
        )
    };
}

const OF_EVERYBODY: &str = listing!("d.id" from "deletions AS d" where "TRUE");

const OF_PRINCIPAL: &str =
    listing!("d.id" from "deletions AS d INDEXED BY deletions_by_principal" where "d.requested_by = ?2");

const OPEN: &str = listing!("d.id" from "deletions AS d INDEXED BY deletions_open"
    where "d.finished_at IS NULL AND d.cancelled_at IS NULL");

const CANCELLED: &str = listing!("d.id" from "deletions AS d INDEXED BY deletions_cancelled"
    where "d.cancelled_at IS NOT NULL");

/// The deletions that have failures, one seek for each, however many failures it has. The recursion finds them in the
/// order of the answer; an `ORDER BY` would make SQLite find all of them first.
const FAILED: &str = concat!(
    listing!(
    "WITH RECURSIVE found (id) AS (
    SELECT (SELECT f.deletion FROM failures AS f WHERE f.deletion < ?1 ORDER BY f.deletion DESC LIMIT 1)
    UNION ALL
    SELECT (SELECT f.deletion FROM failures AS f WHERE f.deletion < found.id ORDER BY f.deletion DESC LIMIT 1)
    FROM found WHERE found.id IS NOT NULL)
", "d.id" from "found CROSS JOIN deletions AS d ON d.id = found.id" where "TRUE" unordered),
    " LIMIT ?5"
);

/// Walks the first of the labels; the others are looked up.
const LABELLED: &str = listing!("first.deletion" from "labels AS first CROSS JOIN deletions AS d ON d.id = first.deletion"
    where "first.name = (SELECT key FROM json_each(?3) LIMIT 1) AND first.value = (SELECT value FROM json_each(?3) LIMIT 1)");

/// Greater than every id.
const AFTER_ALL: &str = "del_~";

/// The page of `limit` candidates that come before `before`, those that the filter lets through.
pub(crate) async fn list(
    database: &impl Database,
    filter: &DeletionFilter<'_>,
    before: Option<&DeletionId>,
    limit: usize,
    now: Timestamp,
) -> Result<DeletionPage, LedgerError> {
    let DeletionFilter { requested_by, state, labels } = filter;
    let sql = match (state, requested_by) {
        _ if !labels.is_empty() => LABELLED,
        (Some(State::Accepting | State::Queued | State::Running), _) => OPEN,
        (Some(State::Cancelling | State::Cancelled), _) => CANCELLED,
        (Some(State::Failed), _) => FAILED,
        (_, Some(_)) => OF_PRINCIPAL,
        (_, None) => OF_EVERYBODY,
    };
    let statement = Statement::new(
        sql,
        [
            before.map_or(AFTER_ALL, DeletionId::as_str).into(),
            (*requested_by).into(),
            json(labels)?,
            state.map(State::as_str).into(),
            // One more tells whether there is another page.
            (limit + 1).into(),
        ],
    );
    let rows = run(database, statement).await?;
    let more = rows.len() > limit;
    let ids: Vec<DeletionId> =
        rows.iter().take(limit).map(|row| row.parsed("id")).collect::<Result<_, _>>()?;
    let next = ids.last().filter(|_| more).cloned();
    if ids.is_empty() {
        return Ok(DeletionPage { deletions: Vec::new(), next });
    }
    let mut deletions = deletion::find_all(database, &ids, now).await?;
    deletions.retain(|deletion| state.is_none_or(|state| state == deletion.state));
    Ok(DeletionPage { deletions, next })
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::{SqliteDatabase, Value};

    #[test]
    fn no_page_scans_a_table_or_sorts_what_it_found() {
        for (sql, walks) in [
            (OF_EVERYBODY, "SEARCH d USING PRIMARY KEY (id<?)"),
            (OF_PRINCIPAL, "SEARCH d USING INDEX deletions_by_principal (requested_by=? AND id<?)"),
            (OPEN, "SEARCH d USING INDEX deletions_open (id<?)"),
            (CANCELLED, "SEARCH d USING INDEX deletions_cancelled (id<?)"),
            (FAILED, "SEARCH d USING PRIMARY KEY (id=?)"),
            (LABELLED, "SEARCH first USING PRIMARY KEY (name=? AND value=? AND deletion<?)"),
        ] {
            let explain: &'static str = format!("EXPLAIN QUERY PLAN {sql}").leak();
            let parameters = ["del_~".into(), "backend".into(), "{}".into(), Value::Null, 10_u32.into()];
            let database = SqliteDatabase::in_memory().unwrap();
            let answer = block_on(database.batch(vec![Statement::new(explain, parameters)])).unwrap();
            let plan: Vec<&str> = answer[0].iter().map(|row| row.text("detail").unwrap()).collect();
            let plan = plan.join("\n");
            assert!(plan.contains(walks), "{walks}\n{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
            for line in plan.lines().filter(|line| line.starts_with("SCAN")) {
                assert!(
                    ["SCAN asked", "SCAN json_each", "SCAN found", "SCAN CONSTANT"]
                        .iter()
                        .any(|ok| line.starts_with(ok)),
                    "{plan}"
                );
            }
        }
    }
}
