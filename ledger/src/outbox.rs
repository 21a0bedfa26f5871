use std::collections::BTreeSet;

use protocol::{DeletionId, Timestamp};

use crate::database::{Database, LedgerError, Statement, run};

/// Most bytes of messages, a line break behind each, that one row of an outbox is given: a row of D1 holds 2 MB.
pub const OUTBOX_PIECE_BYTES_MAX: usize = 1_000_000;

const INSERT: &str = "INSERT INTO outbox (deletion, piece, first_chunk, messages) VALUES (?1, ?2, ?3, ?4)";

const DISCARD: &str = "\
DELETE FROM outbox WHERE deletion = ?1 AND NOT EXISTS (SELECT 1 FROM deletions WHERE id = ?1)";

const SWEEP: &str = "\
DELETE FROM outbox WHERE deletion < ?1 AND NOT EXISTS (SELECT 1 FROM deletions WHERE id = outbox.deletion)";

const READ: &str = "SELECT first_chunk, messages FROM outbox WHERE deletion = ?1 AND piece = ?2";

/// Writes a row of messages of a deletion that is not written down yet: a request of 16 MB must never be in memory as a whole.
/// Rows whose deletion never comes belong to nobody, until [`sweep`] takes them.
pub(crate) async fn fill(
    database: &impl Database,
    id: &DeletionId,
    piece: usize,
    first_chunk: u32,
    bodies: &[String],
) -> Result<(), LedgerError> {
    let parameters = [id.as_str().into(), piece.into(), first_chunk.into(), bodies.join("\n").into()];
    run(database, Statement::new(INSERT, parameters)).await.map(drop)
}

/// Removes the messages of a deletion that is not written down. Those of one that is stay: they are what was promised.
pub(crate) async fn discard(database: &impl Database, id: &DeletionId) -> Result<(), LedgerError> {
    run(database, Statement::new(DISCARD, [id.as_str().into()])).await.map(drop)
}

/// Removes the messages of deletions that were to be written down before `before`, and never were.
pub(crate) fn sweep(before: Timestamp) -> Statement {
    // An id begins with its time, so that this is less than every id since.
    Statement::new(SWEEP, [DeletionId::new(before, 0).as_str().into()])
}

/// The messages in one row of a deletion's outbox, of those chunks that `wanted` has, or of all; `None` past the last row.
pub(crate) async fn read(
    database: &impl Database,
    id: &DeletionId,
    piece: usize,
    wanted: Option<&BTreeSet<u32>>,
) -> Result<Option<Vec<String>>, LedgerError> {
    let statement = Statement::new(READ, [id.as_str().into(), piece.into()]);
    let rows = run(database, statement).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (first_chunk, messages) = (row.number::<u32>("first_chunk")?, row.text("messages")?);
    let wanted = (first_chunk..)
        .zip(messages.lines())
        .filter(|(chunk, _)| wanted.is_none_or(|wanted| wanted.contains(chunk)))
        .map(|(_, body)| body.to_owned());
    Ok(Some(wanted.collect()))
}
