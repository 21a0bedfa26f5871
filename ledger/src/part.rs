use protocol::limits::PART_CHUNKS_MAX;
use protocol::{DeletionId, RequestId, Timestamp};

use crate::database::{Database, LedgerError, Statement, Value, json, run};

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

const RELEASE: &str = "\
UPDATE parts SET sending_until = 0 WHERE deletion = ?1 AND generation = ?2 AND part = ?3 AND enqueued_at IS NULL";

const MARK_ENQUEUED: &str = "\
UPDATE parts SET enqueued_at = ?4 WHERE deletion = ?1 AND generation = ?2 AND part = ?3 AND enqueued_at IS NULL";

/// The columns of a part as [`values`] gives them.
macro_rules! insert_part {
    ($rest:literal) => {
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
pub(crate) fn values(
    at: &PartRef,
    part: &NewPart,
    fingerprint: Option<&str>,
) -> Result<Vec<Value>, LedgerError> {
    Ok(at.and([
        json(&part.chunk_keys)?,
        part.keys().into(),
        part.duplicates_removed.into(),
        part.upload.as_str().into(),
        part.sending_until.as_millis().into(),
        fingerprint.into(),
    ]))
}

/// Takes over the sending of a part's messages, from a request that died over it: answers with the end of the undo window,
/// or with `None` when somebody else is at it, or when there is nothing to send.
pub(crate) async fn hold(
    database: &impl Database,
    part: &PartRef,
    now: Timestamp,
    until: Timestamp,
) -> Result<Option<Timestamp>, LedgerError> {
    let parameters = part.and([now.as_millis().into(), until.as_millis().into()]);
    run(database, Statement::new(HOLD, parameters))
        .await?
        .first()
        .map(|row| row.time("not_before"))
        .transpose()
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
