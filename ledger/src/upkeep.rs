use protocol::Timestamp;

use crate::database::{Database, LedgerError, Row, Statement, json, run};
use crate::notice;
use crate::outbox;
use crate::part::PartRef;

/// A part of a deletion whose messages the platform seems to have lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostPart {
    /// The part.
    pub part: PartRef,
    /// The chunks that are not recorded whole, and in nobody's hands.
    pub chunks: Vec<u32>,
}

/// What nobody was told 202 for, and what nobody has put a part to or sealed for as long.
/// What was redriven had ended, whoever was told of its request.
const ABANDON: &str = "\
UPDATE deletions SET cancelled_at = ?2
WHERE finished_at IS NULL AND cancelled_at IS NULL AND generation = 0 AND requested_at <= ?1
  AND CASE WHEN sealed_at IS NULL
      THEN NOT EXISTS (
          SELECT 1 FROM parts WHERE deletion = id AND MAX(COALESCE(enqueued_at, 0), sending_until) > ?1)
      ELSE EXISTS (
          SELECT 1 FROM parts
          WHERE deletion = id AND generation = 0 AND part = 0 AND enqueued_at IS NULL AND sending_until <= ?2)
      END
RETURNING id";

const EMPTY_ABANDONED: &str = "\
DELETE FROM outbox WHERE (upload, deletion) IN
    (SELECT p.upload, p.deletion FROM deletions AS d JOIN parts AS p ON p.deletion = d.id WHERE d.cancelled_at = ?1)";

/// What was sent long ago; and what of a redrive was written down but not sent whole, because what it has taken from the
/// failures is nowhere else.
const LOST: &str = "\
SELECT p.deletion, p.generation, p.part, json_array_length(p.chunk_keys) AS chunks
FROM deletions AS d JOIN parts AS p ON p.deletion = d.id
WHERE d.finished_at IS NULL AND d.cancelled_at IS NULL
  AND CASE WHEN p.enqueued_at IS NULL
      THEN p.generation > 0 AND p.sending_until <= ?2
      ELSE MAX(p.enqueued_at, d.not_before, COALESCE(p.resent_at, 0)) <= ?1 END
  AND p.keys > (
      SELECT COALESCE(SUM(c.deleted + c.skipped + c.failed), 0) FROM chunks AS c
      WHERE c.deletion = p.deletion AND c.generation = p.generation
        AND c.chunk >= p.part * 1000 AND c.chunk < (p.part + 1) * 1000)
ORDER BY d.id, p.generation, p.part LIMIT ?3";

const CHUNKS_AT_WORK: &str = "\
SELECT chunk FROM chunks
WHERE deletion = ?1 AND generation = ?2 AND chunk >= ?3 * 1000 AND chunk < (?3 + 1) * 1000
  AND (finished_at IS NOT NULL OR claimed_until > ?4)";

const MARK_RESENT: &str = "\
UPDATE parts SET resent_at = ?4, enqueued_at = COALESCE(enqueued_at, ?4)
WHERE deletion = ?1 AND generation = ?2 AND part = ?3";

const EXPIRED: &str = "\
SELECT id FROM deletions
WHERE finished_at <= ?2 OR cancelled_at <= ?1
   OR finished_at <= ?1 AND NOT EXISTS (SELECT 1 FROM failures WHERE deletion = id)
LIMIT ?3";

const REMOVE: [&str; 10] = [
    "DELETE FROM labels WHERE (name, value, deletion) IN
        (SELECT l.key, l.value, d.id FROM deletions AS d, json_each(d.labels) AS l
         WHERE d.id IN (SELECT value FROM json_each(?1)))",
    "DELETE FROM chunks WHERE deletion IN (SELECT value FROM json_each(?1))",
    "DELETE FROM sweeps WHERE deletion IN (SELECT value FROM json_each(?1))",
    "DELETE FROM failures WHERE deletion IN (SELECT value FROM json_each(?1))",
    "DELETE FROM skips WHERE deletion IN (SELECT value FROM json_each(?1))",
    "DELETE FROM notices WHERE deletion IN (SELECT value FROM json_each(?1))",
    "DELETE FROM outbox WHERE (upload, deletion) IN
        (SELECT upload, deletion FROM parts WHERE deletion IN (SELECT value FROM json_each(?1)))",
    "DELETE FROM parts WHERE deletion IN (SELECT value FROM json_each(?1))",
    "DELETE FROM idempotency_keys WHERE deletion IN (SELECT value FROM json_each(?1))",
    "DELETE FROM deletions WHERE id IN (SELECT value FROM json_each(?1))",
];

/// Cancels the deletions that were requested before `before` and never accepted, or never sealed, and removes the messages
/// that came to nothing. Answers with how many it has cancelled.
pub(crate) async fn cancel_abandoned(
    database: &impl Database,
    before: Timestamp,
    now: Timestamp,
) -> Result<usize, LedgerError> {
    let abandon = Statement::new(ABANDON, [before.as_millis().into(), now.as_millis().into()]);
    let empty = Statement::new(EMPTY_ABANDONED, [now.as_millis().into()]);
    let answer =
        database.batch(vec![abandon, empty, notice::owe_cancelled(now), outbox::sweep(before)]).await?;
    Ok(answer.first().map_or(0, Vec::len))
}

/// At most `limit` parts that are not decided although all their messages were sent before `before`, oldest first.
pub(crate) async fn lost(
    database: &impl Database,
    before: Timestamp,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<LostPart>, LedgerError> {
    let statement = Statement::new(LOST, [before.as_millis().into(), now.as_millis().into(), limit.into()]);
    let mut lost = Vec::new();
    for row in run(database, statement).await? {
        let part = PartRef {
            deletion: row.parsed("deletion")?,
            generation: row.number("generation")?,
            part: row.number("part")?,
        };
        let first_chunk = part.first_chunk();
        let chunks = first_chunk..first_chunk + row.number::<u32>("chunks")?;
        let at_work =
            run(database, Statement::new(CHUNKS_AT_WORK, part.and([now.as_millis().into()]))).await?;
        let at_work = at_work.iter().map(|row| row.number("chunk")).collect::<Result<Vec<u32>, _>>()?;
        lost.push(LostPart { part, chunks: chunks.filter(|chunk| !at_work.contains(chunk)).collect() });
    }
    Ok(lost)
}

/// Messages of the part have been sent again; it is left alone for as long as they may live.
pub(crate) async fn mark_resent(
    database: &impl Database,
    part: &PartRef,
    now: Timestamp,
) -> Result<(), LedgerError> {
    run(database, Statement::new(MARK_RESENT, part.and([now.as_millis().into()]))).await.map(drop)
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
