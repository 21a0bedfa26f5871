use std::collections::BTreeSet;

use protocol::{DeletionId, Packed};

use crate::database::{Database, LedgerError, Statement, run};

/// Most bytes of messages in one row; a row of D1 holds 2 MB.
const PIECE_BYTES_MAX: usize = 1_000_000;

const INSERT: &str = "\
INSERT INTO outbox (deletion, piece, first_chunk, messages)
SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM deletions WHERE id = ?1)";

const READ: &str = "SELECT first_chunk, messages FROM outbox WHERE deletion = ?1 AND piece = ?2";

/// Statements that write the messages of a deletion which the same transaction has written.
pub(crate) fn insert(id: &DeletionId, messages: &[Packed]) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut first_chunk = 0;
    while let Some(rest) = messages.get(first_chunk..).filter(|rest| !rest.is_empty()) {
        let count = piece_length(rest);
        let piece: Vec<&str> = rest.iter().take(count).map(|message| message.body.as_str()).collect();
        let parameters =
            [id.as_str().into(), statements.len().into(), first_chunk.into(), piece.join("\n").into()];
        statements.push(Statement::new(INSERT, parameters));
        first_chunk += count;
    }
    statements
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
