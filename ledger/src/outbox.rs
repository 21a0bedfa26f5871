use protocol::{DeletionId, Packed, Timestamp};

use crate::database::{Database, LedgerError, Statement, run};

/// Most bytes of messages in one row; a row of D1 holds 2 MB.
const PIECE_BYTES_MAX: usize = 1_000_000;

const INSERT: &str = "INSERT INTO outbox (deletion, piece, first_chunk, messages) VALUES (?1, ?2, ?3, ?4)";

const EMPTY: &str = "DELETE FROM outbox WHERE deletion = ?1";

const SWEEP: &str = "\
DELETE FROM outbox WHERE deletion < ?1 AND NOT EXISTS (SELECT 1 FROM deletions WHERE id = outbox.deletion)";

const READ: &str = "SELECT first_chunk, messages FROM outbox WHERE deletion = ?1 AND piece = ?2";

/// Writes the messages of a deletion that is not written down yet, a row at a time: a request of 16 MB must not be in memory
/// once more as a whole. Rows whose deletion never comes belong to nobody, until [`sweep`] takes them.
pub(crate) async fn fill(
    database: &impl Database,
    id: &DeletionId,
    messages: &[Packed],
) -> Result<(), LedgerError> {
    let (mut piece, mut first_chunk) = (0_usize, 0);
    while let Some(rest) = messages.get(first_chunk..).filter(|rest| !rest.is_empty()) {
        let count = piece_length(rest);
        let bodies: Vec<&str> = rest.iter().take(count).map(|message| message.body.as_str()).collect();
        let parameters = [id.as_str().into(), piece.into(), first_chunk.into(), bodies.join("\n").into()];
        run(database, Statement::new(INSERT, parameters)).await?;
        piece += 1;
        first_chunk += count;
    }
    Ok(())
}

/// Removes the messages of a deletion.
pub(crate) fn empty(id: &DeletionId) -> Statement {
    Statement::new(EMPTY, [id.as_str().into()])
}

/// Removes the messages of deletions that were to be written down before `before`, and never were.
pub(crate) fn sweep(before: Timestamp) -> Statement {
    // An id begins with its time, so that this is less than every id since.
    Statement::new(SWEEP, [DeletionId::new(before, 0).as_str().into()])
}

/// How many messages go into the next row: one at least.
fn piece_length(messages: &[Packed]) -> usize {
    let mut bytes = 0;
    let fits = messages.iter().take_while(|message| {
        bytes += message.body.len() + 1;
        bytes <= PIECE_BYTES_MAX
    });
    fits.count().max(1)
}

/// The messages in one row of a deletion's outbox, of those chunks that `wanted` has, or of all; `None` past the last row.
pub(crate) async fn read(
    database: &impl Database,
    id: &DeletionId,
    piece: usize,
    wanted: Option<&[u32]>,
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
