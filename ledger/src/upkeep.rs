use protocol::{DeletionId, Timestamp};

use crate::database::{Database, LedgerError, Row, Statement, json, run};
use crate::outbox;

/// A deletion whose messages the platform seems to have lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostDeletion {
    /// The deletion.
    pub id: DeletionId,
    /// The chunks that are not recorded whole, and in nobody's hands.
    pub chunks: Vec<u32>,
}

const ABANDON: &str = "\
UPDATE deletions SET cancelled_at = ?2
WHERE finished_at IS NULL AND cancelled_at IS NULL AND enqueued_at IS NULL
  AND requested_at <= ?1 AND sending_until <= ?2
RETURNING id";

const EMPTY_ABANDONED: &str = "\
DELETE FROM outbox
WHERE deletion IN (SELECT id FROM deletions WHERE cancelled_at IS NOT NULL AND enqueued_at IS NULL)";

const LOST: &str = "\
SELECT id, json_array_length(chunk_keys) AS chunks FROM deletions
WHERE finished_at IS NULL AND cancelled_at IS NULL AND enqueued_at IS NOT NULL
  AND MAX(enqueued_at, not_before, COALESCE(resent_at, 0)) <= ?1
ORDER BY id LIMIT ?2";

const CHUNKS_AT_WORK: &str = "\
SELECT chunk FROM chunks WHERE deletion = ?1 AND (finished_at IS NOT NULL OR claimed_until > ?2)";

const MARK_RESENT: &str = "UPDATE deletions SET resent_at = ?2 WHERE id = ?1";

const EXPIRED: &str = "\
SELECT id FROM deletions
WHERE finished_at <= ?2 OR cancelled_at <= ?1
   OR finished_at <= ?1 AND NOT EXISTS (SELECT 1 FROM failures WHERE deletion = id)
LIMIT ?3";

const REMOVE: [&str; 6] = [
    "DELETE FROM labels WHERE (name, value, deletion) IN
        (SELECT l.key, l.value, d.id FROM deletions AS d, json_each(d.labels) AS l
         WHERE d.id IN (SELECT value FROM json_each(?1)))",
    "DELETE FROM chunks WHERE deletion IN (SELECT value FROM json_each(?1))",
    "DELETE FROM failures WHERE deletion IN (SELECT value FROM json_each(?1))",
    "DELETE FROM outbox WHERE deletion IN (SELECT value FROM json_each(?1))",
    "DELETE FROM idempotency_keys WHERE deletion IN (SELECT value FROM json_each(?1))",
    "DELETE FROM deletions WHERE id IN (SELECT value FROM json_each(?1))",
];

/// Cancels the deletions that were requested before `before` and never accepted, and removes the messages of those that were
/// never even written down. Answers with how many it has cancelled.
pub(crate) async fn cancel_abandoned(
    database: &impl Database,
    before: Timestamp,
    now: Timestamp,
) -> Result<usize, LedgerError> {
    let abandon = Statement::new(ABANDON, [before.as_millis().into(), now.as_millis().into()]);
    let statements = vec![abandon, Statement::new(EMPTY_ABANDONED, []), outbox::sweep(before)];
    let answer = database.batch(statements).await?;
    Ok(answer.first().map_or(0, Vec::len))
}

/// At most `limit` deletions that are not over although all their messages were sent before `before`, oldest first.
pub(crate) async fn lost(
    database: &impl Database,
    before: Timestamp,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<LostDeletion>, LedgerError> {
    let statement = Statement::new(LOST, [before.as_millis().into(), limit.into()]);
    let mut lost = Vec::new();
    for row in run(database, statement).await? {
        let (id, chunks): (DeletionId, u32) = (row.parsed("id")?, row.number("chunks")?);
        let statement = Statement::new(CHUNKS_AT_WORK, [id.as_str().into(), now.as_millis().into()]);
        let at_work = run(database, statement).await?;
        let at_work = at_work.iter().map(|row| row.number("chunk")).collect::<Result<Vec<u32>, _>>()?;
        lost.push(LostDeletion {
            id,
            chunks: (0..chunks).filter(|chunk| !at_work.contains(chunk)).collect(),
        });
    }
    Ok(lost)
}

/// Messages of the deletion have been sent again; it is left alone for as long as they may live.
pub(crate) async fn mark_resent(
    database: &impl Database,
    id: &DeletionId,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let statement = Statement::new(MARK_RESENT, [id.as_str().into(), now.as_millis().into()]);
    run(database, statement).await.map(drop)
}

/// Removes at most `limit` deletions that ended before `before`, or before `failed_before` when some key failed, with all
/// that is kept of them. Answers with how many.
pub(crate) async fn remove_expired(
    database: &impl Database,
    before: Timestamp,
    failed_before: Timestamp,
    limit: usize,
) -> Result<usize, LedgerError> {
    let parameters = [before.as_millis().into(), failed_before.as_millis().into(), limit.into()];
    let expired = Statement::new(EXPIRED, parameters);
    let rows = run(database, expired).await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let ids = rows.iter().map(|row: &Row| row.text("id")).collect::<Result<Vec<_>, _>>()?;
    let ids = json(&ids)?;
    database.batch(REMOVE.map(|sql| Statement::new(sql, [ids.clone()])).into()).await?;
    Ok(rows.len())
}
