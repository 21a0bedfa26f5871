use protocol::{Timestamp, UnreadableReason, rfc3339};
use serde::Serialize;

use crate::database::{Database, LedgerError, Row, Statement};
use crate::row;

/// A message that could not be carried out, to be kept.
#[derive(Clone, Debug)]
pub struct UnreadableMessage {
    /// The Queue's id of the message.
    pub message_id: String,
    /// The queue it came by.
    pub queue: String,
    /// What is wrong with it.
    pub reason: UnreadableReason,
    /// Its body; what was not text, as JSON.
    pub body: String,
    /// How often it had been delivered.
    pub attempts: u32,
}

/// A kept message, as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnreadableRecord {
    /// The Queue's id of the message.
    pub message_id: String,
    /// The queue it came by.
    pub queue: String,
    /// What is wrong with it.
    pub reason: String,
    /// Its body.
    pub body: String,
    /// How often it had been delivered.
    pub attempts: u32,
    /// When it was kept.
    #[serde(serialize_with = "rfc3339::serialize")]
    pub received_at: Timestamp,
}

const KEEP: &str = "\
INSERT INTO unreadable_messages (message_id, queue, reason, body, attempts, received_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT DO NOTHING";

const LIST: &str = "\
SELECT message_id, queue, reason, body, attempts, received_at
FROM unreadable_messages WHERE message_id > ?1 ORDER BY message_id LIMIT ?2";

pub(crate) fn keep_message(message: &UnreadableMessage, now: Timestamp) -> Statement {
    let UnreadableMessage { message_id, queue, reason, body, attempts } = message;
    Statement::new(
        KEEP,
        [
            message_id.as_str().into(),
            queue.as_str().into(),
            reason.as_str().into(),
            body.as_str().into(),
            (*attempts).into(),
            now.as_millis().into(),
        ],
    )
}

/// At most `limit` kept messages whose id comes after `after`, by id.
pub(crate) async fn list(
    database: &impl Database,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<UnreadableRecord>, LedgerError> {
    let statement = Statement::new(LIST, [after.unwrap_or_default().into(), limit.into()]);
    let rows = row::next(&mut database.batch(vec![statement]).await?.into_iter())?;
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<UnreadableRecord, LedgerError> {
    Ok(UnreadableRecord {
        message_id: row::text(row, "message_id")?,
        queue: row::text(row, "queue")?,
        reason: row::text(row, "reason")?,
        body: row::text(row, "body")?,
        attempts: row::small(row, "attempts")?,
        received_at: row::time(row, "received_at")?,
    })
}
