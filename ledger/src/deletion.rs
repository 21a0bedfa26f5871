use protocol::{Counts, DeletionId, FailureCode, Fence, KeyDigest, Labels, Progress, State, Timestamp};

use crate::database::{Database, LedgerError, Row, Statement, json, next_rows, run};
use crate::{notice, outbox};

/// A deletion as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletionRecord {
    /// Its id.
    pub id: DeletionId,
    /// The name of the token that requested it.
    pub requested_by: String,
    /// How often it has been redriven.
    pub generation: u32,
    /// Whether what was uploaded since the request is kept.
    pub fence: Fence,
    /// What became of its keys.
    pub counts: Counts,
    /// Its state, which follows from the counts.
    pub state: State,
    /// Duplicates that were left out of it.
    pub duplicates_removed: u64,
    /// Messages it was sent as.
    pub messages: u64,
    /// When it was requested.
    pub requested_at: Timestamp,
    /// When its undo window ends; the time of the request when it has none.
    pub not_before: Timestamp,
    /// When its first chunk was begun.
    pub started_at: Option<Timestamp>,
    /// When its last key was decided.
    pub finished_at: Option<Timestamp>,
    /// Its failures by code and R2's code, most first.
    pub errors: Vec<ErrorCount>,
    /// The caller's names and values.
    pub labels: Labels,
    /// JSON: the prefixes that it deletes by.
    pub prefixes: Option<String>,
    /// How many keys its sweeps have found.
    pub found: u64,
    /// What a dry run has found.
    pub plan: Option<Plan>,
    /// What is left, where it was asked to be counted and has been.
    pub verification: Option<Verification>,
}

/// What a deletion would delete, as a dry run has counted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Keys that it was asked for, whether there are objects or not.
    pub keys: u64,
    /// Objects under its prefixes that are older than the request.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects under its prefixes that are not.
    pub uploaded_since: u64,
    /// When the oldest of all was uploaded.
    pub oldest_uploaded_at: Option<Timestamp>,
    /// When the newest of all was uploaded.
    pub newest_uploaded_at: Option<Timestamp>,
    /// JSON: some of the keys.
    pub sample: String,
}

/// What was left under a deletion's prefixes when everything was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    /// When the last of them was listed.
    pub verified_at: Timestamp,
    /// Objects that are older than the request.
    pub objects_left: u64,
    /// Objects that are not.
    pub uploaded_since: u64,
}

impl DeletionRecord {
    /// Whether parts can be put to it.
    pub fn takes_parts(&self) -> bool {
        self.state == State::Accepting
    }

    /// The fence that its messages have.
    pub fn sent_fence(&self) -> Fence {
        let window_ms = self.not_before.millis_since(self.requested_at);
        self.fence.with_undo_window(u32::try_from(window_ms.div_ceil(1_000)).unwrap_or(u32::MAX))
    }
}

/// How many keys of a deletion failed in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorCount {
    /// Why; `None` for a code of a later version.
    pub code: Option<FailureCode>,
    /// R2's code, where R2 gave one.
    pub r2_code: Option<u32>,
    /// How many keys.
    pub count: u64,
}

const CANCEL: &str = "\
UPDATE deletions SET cancelled_at = ?2 WHERE id = ?1 AND cancelled_at IS NULL AND finished_at IS NULL RETURNING id";

const FIND: &str = "\
SELECT d.id, d.labels, d.fence, d.prefixes, d.planned_keys,
       d.requested_by, d.requested_at, d.not_before, d.generation, d.sealed_at, d.cancelled_at, d.finished_at,
       COALESCE(SUM(CASE WHEN c.chunk >= 2000000 THEN c.keys END), 0) AS found, COALESCE(s.unfinished, 0) > 0 AS sweeping,
       COALESCE(s.objects, 0) AS objects, COALESCE(s.bytes, 0) AS bytes, COALESCE(s.uploaded_since, 0) AS uploaded_since,
       s.oldest_at, s.newest_at, s.verified_at,
       CASE WHEN d.planned_keys IS NOT NULL THEN
           (SELECT json_group_array(value) FROM
               (SELECT k.value FROM sweeps AS w, json_each(w.sample) AS k WHERE w.deletion = d.id ORDER BY w.sweep, k.key LIMIT 20))
       END AS sample,
       COALESCE(p.total, 0) AS total, COALESCE(p.duplicates_removed, 0) AS duplicates_removed,
       COALESCE(p.messages, 0) AS messages,
       COUNT(c.chunk) AS begun, MIN(c.begun_at) AS started_at, MAX(c.recorded_at) AS recorded_at,
       COALESCE(SUM(c.deleted), 0) AS deleted, COALESCE(SUM(c.skipped), 0) AS skipped,
       COALESCE(SUM(c.failed), 0) - COALESCE(p.redriven, 0) AS failed, COALESCE(SUM(c.claimed_until > ?2), 0) AS in_flight
FROM deletions AS d
LEFT JOIN (
    SELECT deletion, SUM(CASE generation WHEN 0 THEN keys END) AS total, SUM(CASE generation WHEN 0 THEN 0 ELSE keys END) AS redriven,
           SUM(duplicates_removed) AS duplicates_removed, SUM(json_array_length(chunk_keys)) AS messages
    FROM parts WHERE deletion IN (SELECT value FROM json_each(?1)) GROUP BY deletion) AS p ON p.deletion = d.id
LEFT JOIN (
    SELECT deletion, SUM(finished_at IS NULL) AS unfinished, SUM(objects) AS objects, SUM(bytes) AS bytes,
           SUM(uploaded_since) AS uploaded_since, MIN(oldest_at) AS oldest_at, MAX(newest_at) AS newest_at,
           MAX(CASE phase WHEN 'verify' THEN finished_at END) AS verified_at
    FROM sweeps WHERE deletion IN (SELECT value FROM json_each(?1)) GROUP BY deletion) AS s ON s.deletion = d.id
LEFT JOIN chunks AS c ON c.deletion = d.id
WHERE d.id IN (SELECT value FROM json_each(?1)) GROUP BY d.id ORDER BY d.id DESC";

const ERRORS: &str = "\
SELECT deletion, code, r2_code, COUNT(*) AS count FROM failures
WHERE deletion IN (SELECT value FROM json_each(?1))
GROUP BY deletion, code, r2_code ORDER BY count DESC, code";

pub(crate) async fn cancel(
    database: &impl Database,
    id: &DeletionId,
    now: Timestamp,
) -> Result<bool, LedgerError> {
    let ids = json(&[id])?;
    let cancel = Statement::new(CANCEL, [id.as_str().into(), now.as_millis().into()]);
    let answer = database.batch(vec![cancel, outbox::empty(ids.clone()), notice::owe(ids, now)]).await?;
    Ok(answer.first().is_some_and(|rows| !rows.is_empty()))
}

pub(crate) async fn find(
    database: &impl Database,
    id: &DeletionId,
    now: Timestamp,
) -> Result<Option<DeletionRecord>, LedgerError> {
    Ok(find_all(database, std::slice::from_ref(id), now).await?.pop())
}

/// Those of `ids` that there are, newest first.
pub(crate) async fn find_all(
    database: &impl Database,
    ids: &[DeletionId],
    now: Timestamp,
) -> Result<Vec<DeletionRecord>, LedgerError> {
    let ids = json(ids)?;
    let find = Statement::new(FIND, [ids.clone(), now.as_millis().into()]);
    let errors = Statement::new(ERRORS, [ids]);
    let mut answer = database.batch(vec![find, errors]).await?.into_iter();
    let (found, errors) = (next_rows(&mut answer)?, next_rows(&mut answer)?);
    found.iter().map(|row| read_record(row, &errors)).collect()
}

/// A page of the digests of a deletion's chunks.
const DIGESTS: &str = "\
SELECT generation, chunk, digest FROM chunks
WHERE deletion = ?1 AND digest IS NOT NULL AND (?2 IS NULL OR (generation, chunk) > (?2, ?3))
ORDER BY generation, chunk LIMIT ?4";

/// How many digests are read at once: at a thousand keys a chunk, those of five million keys.
const DIGESTS_AT_ONCE: usize = 5_000;

/// The digest of all keys that a deletion has deleted; `None` when none is kept.
pub(crate) async fn sum_digests(
    database: &impl Database,
    id: &DeletionId,
) -> Result<Option<KeyDigest>, LedgerError> {
    let (mut sum, mut after) = (None, None::<(u64, u64)>);
    loop {
        let (generation, chunk) = after.unzip();
        let parameters = [id.as_str().into(), generation.into(), chunk.into(), DIGESTS_AT_ONCE.into()];
        let rows = run(database, Statement::new(DIGESTS, parameters)).await?;
        for row in &rows {
            let digest: KeyDigest = row.parsed("digest")?;
            sum = Some(digest.plus(sum.unwrap_or_default()));
            after = Some((row.number("generation")?, row.number("chunk")?));
        }
        if rows.len() < DIGESTS_AT_ONCE {
            return Ok(sum);
        }
    }
}

fn read_record(row: &Row, errors: &[Row]) -> Result<DeletionRecord, LedgerError> {
    let id = row.text("id")?;
    let errors = errors.iter().filter(|error| error.text("deletion") == Ok(id)).map(read_error);
    let errors = errors.collect::<Result<Vec<_>, _>>()?;
    let prefixes_failed: u64 = errors
        .iter()
        .filter(|error| error.code.is_some_and(FailureCode::is_of_a_prefix))
        .map(|error| error.count)
        .sum();
    let cancelled_at = row.time_if_any("cancelled_at")?;
    let progress = Progress {
        accepting: row.time_if_any("sealed_at")?.is_none(),
        sweeping: row.is("sweeping")?,
        dry_run: row.number_if_any::<u64>("planned_keys")?.is_some(),
        begun: row.number::<u64>("begun")? > 0,
        cancelled: cancelled_at.is_some(),
        in_flight: row.number::<u64>("in_flight")? > 0,
    };
    let counts = Counts::derive(
        row.number::<u64>("total")? + row.number::<u64>("found")?,
        row.number("deleted")?,
        row.number("skipped")?,
        row.number("failed")?,
        progress.cancelled && !progress.in_flight,
    );
    let state = State::derive(&counts, progress);
    // A cancelled deletion ends when the last chunk that was in flight is recorded, or at once.
    let finished_at = match state {
        State::Cancelled => cancelled_at.max(row.time_if_any("recorded_at")?),
        _ => row.time_if_any("finished_at")?,
    };
    Ok(DeletionRecord {
        id: row.parsed("id")?,
        requested_by: row.text("requested_by")?.to_owned(),
        generation: row.number("generation")?,
        fence: row.parsed("fence")?,
        counts,
        state,
        duplicates_removed: row.number("duplicates_removed")?,
        messages: row.number("messages")?,
        requested_at: row.time("requested_at")?,
        not_before: row.time("not_before")?,
        started_at: row.time_if_any("started_at")?,
        finished_at,
        errors,
        labels: serde_json::from_str(row.text("labels")?)
            .map_err(|error| LedgerError::new(format!("the labels of a deletion: {error}")))?,
        prefixes: row.text_if_any("prefixes")?.map(str::to_owned),
        // A prefix that failed counts among what its sweep has found, and is no key.
        found: row.number::<u64>("found")?.saturating_sub(prefixes_failed),
        plan: row.number_if_any("planned_keys")?.map(|keys| read_plan(row, keys)).transpose()?,
        verification: match row.time_if_any("verified_at")? {
            Some(verified_at) if !progress.sweeping => Some(Verification {
                verified_at,
                objects_left: row.number("objects")?,
                uploaded_since: row.number("uploaded_since")?,
            }),
            _ => None,
        },
    })
}

fn read_plan(row: &Row, keys: u64) -> Result<Plan, LedgerError> {
    Ok(Plan {
        keys,
        objects: row.number("objects")?,
        bytes: row.number("bytes")?,
        uploaded_since: row.number("uploaded_since")?,
        oldest_uploaded_at: row.time_if_any("oldest_at")?,
        newest_uploaded_at: row.time_if_any("newest_at")?,
        sample: row.text("sample")?.to_owned(),
    })
}

pub(crate) fn read_error(row: &Row) -> Result<ErrorCount, LedgerError> {
    Ok(ErrorCount {
        code: FailureCode::from_text(row.text("code")?),
        r2_code: row.number_if_any("r2_code")?,
        count: row.number("count")?,
    })
}
