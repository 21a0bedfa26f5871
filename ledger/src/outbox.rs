use protocol::{RequestId, Timestamp};

use crate::database::{Database, LedgerError, Statement, Value, run};
use crate::part::PartRef;

/// Most bytes of messages that one row is for; a row of D1 holds 2 MB.
pub const OUTBOX_PIECE_BYTES_MAX: usize = 1_000_000;

/// One row of the outbox, to be written.
#[derive(Clone, Debug)]
pub struct OutboxPiece<'a> {
    /// The request that brings the messages.
    pub upload: &'a RequestId,
    /// The part that they are meant for.
    pub part: &'a PartRef,
    /// The row's number, from 0.
    pub piece: usize,
    /// The number of the first message's chunk; the others follow it.
    pub first_chunk: u32,
    /// The bodies of the messages: [`OUTBOX_PIECE_BYTES_MAX`] bytes together, or one that is longer.
    pub messages: &'a [String],
}

const INSERT: &str = "\
INSERT INTO outbox (deletion, generation, part, upload, piece, first_chunk, messages) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// Of the messages that some condition finds, those whose part did not come, or came by another request.
macro_rules! discard_where {
    ($condition:literal) => {
        concat!(
            "DELETE FROM outbox WHERE ",
            $condition,
            " AND upload IS NOT
    (SELECT p.upload FROM parts AS p
     WHERE p.deletion = outbox.deletion AND p.generation = outbox.generation AND p.part = outbox.part)"
        )
    };
}

const DISCARD: &str = discard_where!("upload = ?1");

const SWEEP: &str = discard_where!("upload < ?1");

const READ: &str = "\
SELECT first_chunk, messages FROM outbox
WHERE upload = (SELECT upload FROM parts WHERE deletion = ?1 AND generation = ?2 AND part = ?3)
  AND deletion = ?1 AND piece = ?4";

/// Removes the messages of those deletions among ?1, a JSON list of ids, that are cancelled or finished: they are never sent
/// again.
const EMPTY: &str = "\
DELETE FROM outbox WHERE (upload, deletion) IN
    (SELECT p.upload, p.deletion FROM parts AS p JOIN deletions AS d ON d.id = p.deletion
     WHERE d.id IN (SELECT value FROM json_each(?1)) AND (d.finished_at IS NOT NULL OR d.cancelled_at IS NOT NULL))";

/// Writes a row of messages whose part is not written down yet. Rows whose part never comes belong to nobody, until
/// [`discard`] or [`sweep`] takes them.
pub(crate) async fn write(database: &impl Database, row: &OutboxPiece<'_>) -> Result<(), LedgerError> {
    let parameters = row.part.and([
        row.upload.as_str().into(),
        row.piece.into(),
        row.first_chunk.into(),
        row.messages.join("\n").into(),
    ]);
    run(database, Statement::new(INSERT, parameters)).await.map(drop)
}

/// Removes the messages that a request has brought for nothing. Those of a part that it has brought stay.
pub(crate) async fn discard(database: &impl Database, upload: &RequestId) -> Result<(), LedgerError> {
    run(database, Statement::new(DISCARD, [upload.as_str().into()])).await.map(drop)
}

/// Removes the messages of deletions that are over, among `ids`, a JSON list.
pub(crate) fn empty(ids: Value) -> Statement {
    Statement::new(EMPTY, [ids])
}

/// Removes the messages that requests before `before` have brought for nothing.
pub(crate) fn sweep(before: Timestamp) -> Statement {
    // An id begins with its time, so that this is less than every id since.
    Statement::new(SWEEP, [RequestId::new(before, 0).as_str().into()])
}

/// The messages in one row of a part's outbox, of those chunks that `wanted` has, or of all; `None` past the last row.
pub(crate) async fn read(
    database: &impl Database,
    part: &PartRef,
    piece: usize,
    wanted: Option<&[u32]>,
) -> Result<Option<Vec<String>>, LedgerError> {
    let rows = run(database, Statement::new(READ, part.and([piece.into()]))).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (first_chunk, messages) = (row.number::<u32>("first_chunk")?, row.text("messages")?);
    let wanted = (first_chunk..)
        .zip(messages.lines())
        .filter(|(chunk, _)| wanted.is_none_or(|wanted| wanted.contains(chunk)))
        .map(|(_, body)| body.to_owned());
    Ok(Some(wanted.collect()))
}
