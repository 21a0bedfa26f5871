use protocol::limits::PART_CHUNKS_MAX;
use protocol::{ChunkRef, KeyDigest, Positions, R2Error, Timestamp, UnreadableReason};
use serde::Serialize;

use crate::database::{Database, LedgerError, Row, Statement, json, next_rows};

/// Several chunks that one invocation asks for, in one write.
#[derive(Clone, Debug)]
pub struct ClaimBatch {
    /// What tells this invocation from every other: drawn at random for each.
    pub token: String,
    /// When it asks.
    pub now: Timestamp,
    /// When its claims end, whatever becomes of it.
    pub until: Timestamp,
    /// What it asks for; no chunk twice.
    pub requests: Vec<ClaimRequest>,
}

/// One chunk that an invocation asks for.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The chunk.
    pub chunk: ChunkRef,
    /// How many keys its message carries.
    pub keys: usize,
}

/// The ledger's answer to one request.
#[derive(Debug)]
pub enum ClaimReply {
    /// The chunk is the invocation's until its claim ends.
    Granted(Grant),
    /// Every key of the chunk is decided, or its deletion is cancelled: there is nothing to do.
    NothingToDo(Settled),
    /// Another invocation holds the chunk until then.
    ClaimedElsewhere {
        /// When that claim ends.
        until: Timestamp,
    },
    /// The ledger knows no such chunk: nothing of it may be deleted.
    NotAccepted(UnreadableReason),
}

/// A chunk in one invocation's hands, and what earlier attempts have recorded of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The chunk.
    pub chunk: ChunkRef,
    /// The positions that nothing is decided about.
    pub undecided: Positions,
    /// The error that left them so, where R2 was the cause.
    pub last_error: Option<R2Error>,
    /// The digest of the keys deleted so far, where one is kept.
    pub digest: Option<KeyDigest>,
    pub(crate) deleted: usize,
    pub(crate) skipped: usize,
    pub(crate) failed: usize,
}

/// Proof that nothing more is owed to a message: the ledger has every key of its chunk decided, its deletion cancelled,
/// its body kept, or what became of its notice. Only the ledger makes one, and nothing else lets a message be acknowledged.
#[derive(Debug)]
pub struct Settled(pub(crate) ());

// The statements below divide a chunk's number by it, to find its part.
const _: () = assert!(PART_CHUNKS_MAX == 1_000);

const CLAIM: &str = "\
INSERT INTO chunks (deletion, generation, chunk, keys, claimed_by, claimed_until, begun_at)
SELECT d.id, r.value ->> 'generation', r.value ->> 'chunk', r.value ->> 'keys', ?2, ?3, ?4
FROM json_each(?1) AS r
JOIN deletions AS d ON d.id = r.value ->> 'deletion'
JOIN parts AS p ON p.deletion = d.id AND p.generation = r.value ->> 'generation' AND p.part = (r.value ->> 'chunk') / 1000
WHERE d.cancelled_at IS NULL
  AND json_extract(p.chunk_keys, '$[' || ((r.value ->> 'chunk') % 1000) || ']') = r.value ->> 'keys'
ON CONFLICT (deletion, generation, chunk) DO UPDATE
SET claimed_by = excluded.claimed_by, claimed_until = excluded.claimed_until
WHERE chunks.finished_at IS NULL AND chunks.claimed_until <= ?4";

const READ_CLAIMS: &str = "\
SELECT d.id IS NOT NULL AS known,
       d.cancelled_at IS NOT NULL AS cancelled,
       json_extract(p.chunk_keys, '$[' || ((r.value ->> 'chunk') % 1000) || ']') IS r.value ->> 'keys' AS in_deletion,
       c.claimed_by, c.claimed_until, c.deleted, c.skipped, c.failed, c.undecided, c.last_r2_code,
       c.finished_at IS NOT NULL AS finished, d.verify, c.digest
FROM json_each(?1) AS r
LEFT JOIN deletions AS d ON d.id = r.value ->> 'deletion'
LEFT JOIN parts AS p ON p.deletion = d.id AND p.generation = r.value ->> 'generation' AND p.part = (r.value ->> 'chunk') / 1000
LEFT JOIN chunks AS c ON c.deletion = d.id
    AND c.generation = r.value ->> 'generation' AND c.chunk = r.value ->> 'chunk'
ORDER BY r.key";

/// Claims what is free and reads the rest, in one transaction: a reply for each request, in order.
pub(crate) async fn claim(
    database: &impl Database,
    batch: &ClaimBatch,
) -> Result<Vec<ClaimReply>, LedgerError> {
    let wire: Vec<WireRequest<'_>> = batch.requests.iter().map(WireRequest::from).collect();
    let wire = json(&wire)?;
    let claim = Statement::new(
        CLAIM,
        [
            wire.clone(),
            batch.token.as_str().into(),
            batch.until.as_millis().into(),
            batch.now.as_millis().into(),
        ],
    );
    let read = Statement::new(READ_CLAIMS, [wire]);
    let mut answer = database.batch(vec![claim, read]).await?.into_iter().skip(1);
    let rows = next_rows(&mut answer)?;
    if rows.len() != batch.requests.len() {
        return Err(LedgerError::new("the claims' answer has not one row for each request"));
    }
    rows.into_iter()
        .zip(&batch.requests)
        .map(|(row, request)| read_reply(&row, request, &batch.token))
        .collect()
}

#[derive(Serialize)]
struct WireRequest<'a> {
    deletion: &'a str,
    generation: u32,
    chunk: u32,
    keys: usize,
}

impl<'a> From<&'a ClaimRequest> for WireRequest<'a> {
    fn from(ClaimRequest { chunk, keys }: &'a ClaimRequest) -> Self {
        let ChunkRef { deletion, generation, chunk } = chunk;
        Self { deletion: deletion.as_str(), generation: *generation, chunk: *chunk, keys: *keys }
    }
}

fn read_reply(row: &Row, request: &ClaimRequest, token: &str) -> Result<ClaimReply, LedgerError> {
    if !row.is("known")? {
        return Ok(ClaimReply::NotAccepted(UnreadableReason::UnknownDeletion));
    }
    if !row.is("in_deletion")? {
        return Ok(ClaimReply::NotAccepted(UnreadableReason::NotInDeletion));
    }
    if row.is("finished")? || row.is("cancelled")? {
        return Ok(ClaimReply::NothingToDo(Settled(())));
    }
    if row.text_if_any("claimed_by")? == Some(token) {
        return read_grant(row, request).map(ClaimReply::Granted);
    }
    Ok(ClaimReply::ClaimedElsewhere { until: row.time("claimed_until")? })
}

/// The digest so far, where one is kept: from the columns `verify` and `digest`.
pub(crate) fn read_digest(row: &Row) -> Result<Option<KeyDigest>, LedgerError> {
    if !row.is("verify")? {
        return Ok(None);
    }
    match row.text_if_any("digest")? {
        Some(_) => row.parsed("digest").map(Some),
        None => Ok(Some(KeyDigest::default())),
    }
}

fn read_grant(row: &Row, request: &ClaimRequest) -> Result<Grant, LedgerError> {
    let undecided = match row.text_if_any("undecided")? {
        None => Positions::all(request.keys),
        Some(ranges) => Positions::from_json(ranges, request.keys)
            .map_err(|error| LedgerError::new(format!("the undecided positions of a chunk: {error}")))?,
    };
    Ok(Grant {
        chunk: request.chunk.clone(),
        undecided,
        last_error: row.number_if_any("last_r2_code")?.map(R2Error::from_code),
        digest: read_digest(row)?,
        deleted: row.number("deleted")?,
        skipped: row.number("skipped")?,
        failed: row.number("failed")?,
    })
}
