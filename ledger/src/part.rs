use protocol::limits::PART_CHUNKS_MAX;
use protocol::{DeletionId, RequestId, Timestamp};

use crate::admission::Sending;
use crate::database::{Database, LedgerError, Row, Statement, Value, json, next_rows, run};
use crate::record::{self, Ended};

/// Names one part of a deletion: keys that one request brought.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartRef {
    /// The deletion.
    pub deletion: DeletionId,
    /// How often the deletion had been redriven when the keys were brought.
    pub generation: u32,
    /// Its number: 0 for the keys of the request itself and for those of a redrive, from 1 for those that were put.
    pub part: u32,
}

/// A part to be written down. Its messages are in the outbox already, under `upload`.
#[derive(Clone, Debug)]
pub struct NewPart {
    /// The request that brings it.
    pub upload: RequestId,
    /// How many keys each of its chunks has, in order.
    pub chunk_keys: Vec<usize>,
    /// Duplicates that were left out of it.
    pub duplicates_removed: usize,
    /// Until when the request holds the sending of its messages for itself.
    pub sending_until: Timestamp,
}

/// A part that has been put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRecord {
    /// Its number.
    pub part: u32,
    /// How many keys it has.
    pub keys: u64,
    /// Duplicates that were left out of it.
    pub duplicates_removed: u64,
    /// Messages it was sent as.
    pub messages: u64,
    /// Which body it was made of.
    pub fingerprint: String,
    /// How far it came.
    pub sending: Sending,
}

/// What a deletion that is put in parts consists of, after an attempt to seal it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealing {
    /// It takes no more parts.
    pub is_sealed: bool,
    /// Its parts, in order.
    pub parts: Vec<PartRecord>,
    /// What followed, if that was all that was missing.
    pub ended: Ended,
}

/// Whose it is to send a part's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Whoever has asked: from now on, and to be delivered from the end of the undo window.
    Taken {
        /// The end of the undo window.
        not_before: Timestamp,
    },
    /// Somebody else's, or nobody's: the deletion was cancelled.
    Elsewhere,
    /// Nobody's: every message is stored.
    Sent,
}

impl PartRef {
    /// The part that the request itself brings.
    pub fn request(deletion: &DeletionId) -> Self {
        Self { deletion: deletion.clone(), generation: 0, part: 0 }
    }

    /// The number of its first chunk.
    pub fn first_chunk(&self) -> u32 {
        self.part.saturating_mul(PART_CHUNKS_MAX)
    }

    pub(crate) fn parameters(&self) -> [Value; 3] {
        [self.deletion.as_str().into(), self.generation.into(), self.part.into()]
    }

    /// The parameters of a statement that begins with these.
    pub(crate) fn and<const N: usize>(&self, more: [Value; N]) -> Vec<Value> {
        self.parameters().into_iter().chain(more).collect()
    }
}

impl NewPart {
    /// How many keys it has.
    pub fn keys(&self) -> usize {
        self.chunk_keys.iter().sum()
    }
}

const HOLD: &str = "\
UPDATE parts SET sending_until = ?5
WHERE deletion = ?1 AND generation = ?2 AND part = ?3 AND enqueued_at IS NULL AND sending_until <= ?4
  AND (SELECT cancelled_at FROM deletions WHERE id = ?1) IS NULL
RETURNING (SELECT not_before FROM deletions WHERE id = ?1) AS not_before";

const IS_SENT: &str = "\
SELECT enqueued_at IS NOT NULL AS done FROM parts WHERE deletion = ?1 AND generation = ?2 AND part = ?3";

const RELEASE: &str = "\
UPDATE parts SET sending_until = 0 WHERE deletion = ?1 AND generation = ?2 AND part = ?3 AND enqueued_at IS NULL";

const MARK_ENQUEUED: &str = "\
UPDATE parts SET enqueued_at = ?4 WHERE deletion = ?1 AND generation = ?2 AND part = ?3 AND enqueued_at IS NULL";

/// The columns of a part as [`values`] gives them.
macro_rules! insert_part {
    ($rest:expr) => {
        concat!(
            "\
INSERT INTO parts (deletion, generation, part, chunk_keys, keys, duplicates_removed, upload, sending_until, fingerprint)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 ",
            $rest
        )
    };
}
pub(crate) use insert_part;

/// ?1 to ?9 of a statement made by [`insert_part`].
pub(crate) fn values(at: &PartRef, part: &NewPart, fingerprint: Value) -> Result<Vec<Value>, LedgerError> {
    Ok(at.and([
        json(&part.chunk_keys)?,
        part.keys().into(),
        part.duplicates_removed.into(),
        part.upload.as_str().into(),
        part.sending_until.as_millis().into(),
        fingerprint,
    ]))
}

/// Only of a deletion that takes parts, and only the first of this number.
const PUT: &str = insert_part!(
    "FROM deletions WHERE id = ?1 AND sealed_at IS NULL AND cancelled_at IS NULL ON CONFLICT DO NOTHING"
);

const IS_PUT: &str = "\
SELECT 1 FROM parts WHERE deletion = ?1 AND generation = ?2 AND part = ?3 AND upload = ?4";

macro_rules! select_parts {
    ($rest:literal) => {
        concat!(
            "\
SELECT part, keys, duplicates_removed, json_array_length(chunk_keys) AS messages, fingerprint, sending_until,
       enqueued_at IS NOT NULL AS done
FROM parts WHERE deletion = ?1 AND generation = 0 AND part > 0",
            $rest
        )
    };
}

const FIND: &str = select_parts!(" AND part = ?2");

const LIST: &str = select_parts!(" ORDER BY part");

/// Takes what is said of the parts only if it is so: the parts 1 to ?3, all of them sent, with ?4 keys as they were asked,
/// duplicates and all.
const SEAL: &str = "\
UPDATE deletions SET sealed_at = ?2
WHERE id = ?1 AND sealed_at IS NULL AND cancelled_at IS NULL
  AND (?3, ?3, ?3, ?4) =
      (SELECT COUNT(*), SUM(enqueued_at IS NOT NULL), MAX(part), SUM(keys + duplicates_removed)
       FROM parts WHERE deletion = ?1 AND generation = 0)";

const IS_SEALED: &str = "SELECT sealed_at IS NOT NULL AS is_sealed FROM deletions WHERE id = ?1";

/// Writes down a part that has been put, whose messages are in the outbox already. False when the deletion takes no parts, or
/// has one of this number: nothing is written then.
pub(crate) async fn put(
    database: &impl Database,
    at: &PartRef,
    part: &NewPart,
    fingerprint: &str,
) -> Result<bool, LedgerError> {
    let statements = vec![
        Statement::new(PUT, values(at, part, fingerprint.into())?),
        Statement::new(IS_PUT, at.and([part.upload.as_str().into()])),
    ];
    Ok(database.batch(statements).await?.pop().is_some_and(|rows| !rows.is_empty()))
}

/// The part of this number, if it has been put.
pub(crate) async fn find(
    database: &impl Database,
    deletion: &DeletionId,
    part: u32,
) -> Result<Option<PartRecord>, LedgerError> {
    let statement = Statement::new(FIND, [deletion.as_str().into(), part.into()]);
    run(database, statement).await?.first().map(read_part).transpose()
}

/// Seals a deletion if it consists of the parts 1 to `parts`, all of them sent, with `keys` keys as they were asked; and says
/// what it consists of.
pub(crate) async fn seal(
    database: &impl Database,
    deletion: &DeletionId,
    parts: u32,
    keys: u64,
    now: Timestamp,
) -> Result<Sealing, LedgerError> {
    let id: Value = deletion.as_str().into();
    let seal = Statement::new(SEAL, [id.clone(), now.as_millis().into(), parts.into(), keys.into()]);
    let mut statements = vec![seal, Statement::new(IS_SEALED, [id.clone()]), Statement::new(LIST, [id])];
    // Whether anybody wants the notice, the consumer knows.
    statements.extend(record::finish(&json(&[deletion])?, now, true));
    let mut answer = database.batch(statements).await?.into_iter().skip(1);
    let is_sealed = next_rows(&mut answer)?.first().map(|row| row.is("is_sealed")).transpose()?;
    Ok(Sealing {
        is_sealed: is_sealed.unwrap_or_default(),
        parts: next_rows(&mut answer)?.iter().map(read_part).collect::<Result<_, _>>()?,
        ended: record::read_ended(&mut answer)?,
    })
}

fn read_part(row: &Row) -> Result<PartRecord, LedgerError> {
    Ok(PartRecord {
        part: row.number("part")?,
        keys: row.number("keys")?,
        duplicates_removed: row.number("duplicates_removed")?,
        messages: row.number("messages")?,
        fingerprint: row.text_if_any("fingerprint")?.unwrap_or_default().to_owned(),
        sending: Sending::read(row)?,
    })
}

/// Takes over the sending of a part's messages, from a request that died over it.
pub(crate) async fn hold(
    database: &impl Database,
    part: &PartRef,
    now: Timestamp,
    until: Timestamp,
) -> Result<Hold, LedgerError> {
    let parameters = part.and([now.as_millis().into(), until.as_millis().into()]);
    let statements = vec![Statement::new(HOLD, parameters), Statement::new(IS_SENT, part.parameters())];
    let mut answer = database.batch(statements).await?.into_iter();
    if let Some(taken) = next_rows(&mut answer)?.first() {
        return Ok(Hold::Taken { not_before: taken.time("not_before")? });
    }
    let is_sent = next_rows(&mut answer)?.first().map(|row| row.is("done")).transpose()?;
    Ok(if is_sent == Some(true) { Hold::Sent } else { Hold::Elsewhere })
}

/// Lets the next request for the same part take over at once.
pub(crate) async fn release(database: &impl Database, part: &PartRef) -> Result<(), LedgerError> {
    run(database, Statement::new(RELEASE, part.parameters())).await.map(drop)
}

/// Every message of the part is stored in the Queue.
pub(crate) async fn mark_enqueued(
    database: &impl Database,
    part: &PartRef,
    now: Timestamp,
) -> Result<(), LedgerError> {
    run(database, Statement::new(MARK_ENQUEUED, part.and([now.as_millis().into()]))).await.map(drop)
}
