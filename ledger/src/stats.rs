use protocol::{Counts, DeletionId, Progress, State, Timestamp};
use serde::Serialize;

use crate::database::{Database, LedgerError, Row, Statement, next_rows};
use crate::deletion::{ErrorCount, read_error};

/// What the ledger holds as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerStats {
    /// How many deletions are in each state; every state is there.
    pub states: Vec<(State, u64)>,
    /// What became of all keys.
    pub keys: Counts,
    /// The deletion that has waited longest for its end.
    pub oldest_unfinished: Option<UnfinishedDeletion>,
    /// All failures by code and R2's code, most first.
    pub failures: Vec<ErrorCount>,
    /// Messages that could not be read.
    pub unreadable_messages: u64,
    /// Completion notices that did not get to their end.
    pub notices: NoticeStats,
}

/// How many completion notices stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NoticeStats {
    /// Those that are still to be delivered.
    pub owed: u64,
    /// Those that were given up.
    pub failed: u64,
}

/// A deletion that is not final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedDeletion {
    /// Its id.
    pub id: DeletionId,
    /// When it was requested.
    pub requested_at: Timestamp,
}

/// Groups alike deletions, so that one answer has a row for each way a deletion can stand, and `State::derive` says which
/// state that is. It reads every deletion and chunk that is kept: what a person or a monitor asks for, not a backend.
const GROUPS: &str = "\
SELECT accepting, sweeping, dry_run, begun, cancelled, in_flight, COUNT(*) AS deletions, SUM(total) AS total,
       SUM(deleted) AS deleted, SUM(skipped) AS skipped, SUM(failed) AS failed
FROM (
    SELECT d.sealed_at IS NULL AS accepting, d.cancelled_at IS NOT NULL AS cancelled, COUNT(c.chunk) > 0 AS begun,
           EXISTS (SELECT 1 FROM sweeps WHERE deletion = d.id AND finished_at IS NULL) AS sweeping,
           d.planned_keys IS NOT NULL AS dry_run,
           COALESCE((SELECT SUM(keys) FROM parts WHERE deletion = d.id AND generation = 0), 0)
               + COALESCE(SUM(CASE WHEN c.chunk >= 2000000 THEN c.keys END), 0) AS total,
           COALESCE(SUM(c.deleted), 0) AS deleted, COALESCE(SUM(c.skipped), 0) AS skipped,
           COALESCE(SUM(c.failed), 0)
               - COALESCE((SELECT SUM(keys) FROM parts WHERE deletion = d.id AND generation > 0), 0) AS failed,
           COALESCE(SUM(c.claimed_until > ?2), 0) > 0 AS in_flight
    FROM deletions AS d LEFT JOIN chunks AS c ON c.deletion = d.id
    WHERE ?1 IS NULL OR d.requested_by = ?1
    GROUP BY d.id)
GROUP BY accepting, sweeping, dry_run, begun, cancelled, in_flight, total > deleted + skipped + failed, failed > 0";

/// The first that is open, or that is cancelled with a chunk in flight.
const OLDEST_UNFINISHED: &str = "\
SELECT id, requested_at FROM (
    SELECT * FROM (
        SELECT id, requested_at FROM deletions INDEXED BY deletions_open
        WHERE finished_at IS NULL AND cancelled_at IS NULL AND (?1 IS NULL OR requested_by = ?1)
        ORDER BY id LIMIT 1)
    UNION ALL
    SELECT * FROM (
        SELECT id, requested_at FROM deletions INDEXED BY deletions_cancelled
        WHERE cancelled_at IS NOT NULL AND finished_at IS NULL AND (?1 IS NULL OR requested_by = ?1)
          AND EXISTS (SELECT 1 FROM chunks AS c WHERE c.deletion = deletions.id AND c.claimed_until > ?2)
        ORDER BY id LIMIT 1))
ORDER BY requested_at, id LIMIT 1";

const FAILURES: &str = "\
SELECT f.code, f.r2_code, COUNT(*) AS count
FROM deletions AS d CROSS JOIN failures AS f ON f.deletion = d.id
WHERE ?1 IS NULL OR d.requested_by = ?1
GROUP BY f.code, f.r2_code ORDER BY count DESC, f.code";

const NOTICES: &str = "\
SELECT COUNT(*) - COUNT(n.failed_at) AS owed, COUNT(n.failed_at) AS failed
FROM notices AS n JOIN deletions AS d ON d.id = n.deletion
WHERE ?1 IS NULL OR d.requested_by = ?1";

const UNREADABLE: &str = "SELECT COUNT(*) AS count FROM unreadable_messages";

/// Reads it all in one transaction.
pub(crate) async fn read(
    database: &impl Database,
    requested_by: Option<&str>,
    now: Timestamp,
) -> Result<LedgerStats, LedgerError> {
    let now = now.as_millis();
    let statements = vec![
        Statement::new(GROUPS, [requested_by.into(), now.into()]),
        Statement::new(OLDEST_UNFINISHED, [requested_by.into(), now.into()]),
        Statement::new(FAILURES, [requested_by.into()]),
        Statement::new(UNREADABLE, []),
        Statement::new(NOTICES, [requested_by.into()]),
    ];
    let mut answer = database.batch(statements).await?.into_iter();
    let groups = next_rows(&mut answer)?;
    let oldest = next_rows(&mut answer)?;
    let failures = next_rows(&mut answer)?;
    let unreadable = next_rows(&mut answer)?;
    let notices = next_rows(&mut answer)?;

    let mut states = State::ALL.map(|state| (state, 0));
    let mut keys = Counts::default();
    for group in &groups {
        let (state, counts) = derive(group)?;
        let deletions: u64 = group.number("deletions")?;
        for (_, count) in states.iter_mut().filter(|(listed, _)| *listed == state) {
            *count += deletions;
        }
        keys = keys.plus(counts);
    }
    let oldest_unfinished = oldest.first().map(|row| {
        Ok::<_, LedgerError>(UnfinishedDeletion {
            id: row.parsed("id")?,
            requested_at: row.time("requested_at")?,
        })
    });
    let unreadable_messages = unreadable.first().map(|row| row.number("count")).transpose()?;
    Ok(LedgerStats {
        states: states.to_vec(),
        keys,
        oldest_unfinished: oldest_unfinished.transpose()?,
        failures: failures.iter().map(read_error).collect::<Result<_, _>>()?,
        unreadable_messages: unreadable_messages.unwrap_or_default(),
        notices: notices.first().map(read_notices).transpose()?.unwrap_or_default(),
    })
}

fn read_notices(row: &Row) -> Result<NoticeStats, LedgerError> {
    Ok(NoticeStats { owed: row.number("owed")?, failed: row.number("failed")? })
}

/// The state of each deletion of a group, and the counts of all. OK because a state depends on which counts are zero, and
/// in a group the same are.
fn derive(group: &Row) -> Result<(State, Counts), LedgerError> {
    let progress = Progress {
        accepting: group.is("accepting")?,
        sweeping: group.is("sweeping")?,
        dry_run: group.is("dry_run")?,
        begun: group.is("begun")?,
        cancelled: group.is("cancelled")?,
        in_flight: group.is("in_flight")?,
    };
    let closed = progress.cancelled && !progress.in_flight;
    let keys = |column| group.number(column);
    let counts = Counts::derive(keys("total")?, keys("deleted")?, keys("skipped")?, keys("failed")?, closed);
    Ok((State::derive(&counts, progress), counts))
}
