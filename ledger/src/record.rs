use std::mem;

use protocol::{
    ChunkRef, Counts, DeletionId, Event, FailureCode, KeyDigest, NoticeRef, Positions, Progress, R2Error,
    State, SweepRef, Timestamp,
};
use serde::Serialize;

use crate::claim::{Grant, Settled};
use crate::database::{Database, LedgerError, Row, Statement, Value, json, next_rows};
use crate::unreadable::{UnreadableMessage, keep_message};
use crate::{notice, outbox, sweep};

/// Everything that one invocation has to write down, in one write.
#[derive(Clone, Debug)]
pub struct RecordBatch {
    /// The invocation's token, as it claimed with.
    pub token: String,
    /// When it writes.
    pub now: Timestamp,
    /// What became of the chunks it was granted.
    pub outcomes: Vec<ChunkOutcome>,
    /// The messages that it could not carry out.
    pub unreadable: Vec<UnreadableMessage>,
    /// Whether a notice is owed for each deletion that this ends.
    pub owe_notices: bool,
}

/// What became of one chunk in one attempt. Every position of the grant that is neither deleted, skipped nor failed stays
/// undecided: nothing is taken for done because nobody said otherwise.
#[derive(Clone, Debug)]
pub struct ChunkOutcome {
    pub(crate) grant: Grant,
    pub(crate) deleted: Vec<usize>,
    pub(crate) skipped: Vec<SkippedKey>,
    pub(crate) failed: Vec<FailedKey>,
    pub(crate) undecided: Positions,
    pub(crate) last_error: Option<R2Error>,
    pub(crate) attempts: u32,
}

/// A key that ends undeleted.
#[derive(Clone, Debug)]
pub struct FailedKey {
    /// Its position in the chunk.
    pub position: usize,
    /// The key, as a JSON string.
    pub key_json: String,
    /// Why.
    pub code: FailureCode,
    /// R2's error, where R2 was the cause.
    pub error: Option<R2Error>,
}

/// A key that is left alone, because its object was uploaded after the deletion was requested.
#[derive(Clone, Debug)]
pub struct SkippedKey {
    /// Its position in the chunk.
    pub position: usize,
    /// The key, as a JSON string.
    pub key_json: String,
    /// When the object was uploaded.
    pub uploaded_at: Timestamp,
}

/// What the ledger has taken down of a batch.
#[derive(Debug)]
pub struct RecordReply {
    /// For each outcome, in order: proof that nothing more is owed to its message, when every key of the chunk is decided
    /// and recorded; `None` when keys are undecided, or when the claim had been lost and nothing was recorded.
    pub outcomes: Vec<Option<Settled>>,
    /// For each unreadable message, in order: proof that it is kept.
    pub unreadable: Vec<Settled>,
    /// What followed.
    pub ended: Ended,
}

/// A deletion whose last key has just been decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedDeletion {
    /// The deletion.
    pub id: DeletionId,
    /// How often it had been redriven.
    pub generation: u32,
    /// When it was requested.
    pub requested_at: Timestamp,
    /// What became of its keys.
    pub counts: Counts,
    /// It was a dry run.
    pub dry_run: bool,
}

impl FinishedDeletion {
    /// The notice of this end.
    pub fn notice(&self) -> NoticeRef {
        NoticeRef { deletion: self.id.clone(), generation: self.generation }
    }

    /// What the log says of it.
    pub fn event(&self, now: Timestamp) -> Event<'_> {
        let Counts { total, deleted, skipped, failed, .. } = self.counts;
        Event::DeletionFinished {
            deletion: &self.id,
            generation: self.generation,
            state: State::derive(
                &self.counts,
                Progress { begun: true, dry_run: self.dry_run, ..Progress::default() },
            ),
            total,
            deleted,
            skipped,
            failed,
            duration_ms: now.millis_since(self.requested_at),
        }
    }
}

impl ChunkOutcome {
    /// The outcome of attempt number `attempts` at the chunk of `grant`.
    ///
    /// Positions that the grant does not have are ignored, and one that is both deleted and failed is failed: the
    /// undecided positions are always what remains.
    pub fn new(
        grant: Grant,
        deleted: impl IntoIterator<Item = usize>,
        failed: Vec<FailedKey>,
        last_error: Option<R2Error>,
        attempts: u32,
    ) -> Self {
        let mut open = Open::new(&grant.undecided);
        let failed: Vec<FailedKey> = failed.into_iter().filter(|key| open.take(key.position)).collect();
        let deleted = deleted.into_iter().filter(|&position| open.take(position)).collect();
        let undecided = open.rest();
        Self { grant, deleted, skipped: Vec::new(), failed, undecided, last_error, attempts }
    }

    /// The same with keys that are left alone; those that are decided already are ignored.
    #[must_use]
    pub fn with_skipped(mut self, skipped: Vec<SkippedKey>) -> Self {
        let mut open = Open::new(&self.undecided);
        self.skipped.extend(skipped.into_iter().filter(|key| open.take(key.position)));
        self.undecided = open.rest();
        self
    }

    /// The same with the digest of the keys deleted, if the ledger keeps one.
    #[must_use]
    pub fn with_digest<'k>(mut self, key: impl Fn(usize) -> Option<&'k str>) -> Self {
        let deleted = || self.deleted.iter().filter_map(|&position| key(position));
        self.grant.digest = self.grant.digest.map(|digest| deleted().fold(digest, KeyDigest::with));
        self
    }

    /// The chunk.
    pub fn chunk(&self) -> &ChunkRef {
        &self.grant.chunk
    }

    /// How many keys this attempt has confirmed absent.
    pub fn deleted(&self) -> usize {
        self.deleted.len()
    }

    /// How many keys this attempt has left alone.
    pub fn skipped(&self) -> usize {
        self.skipped.len()
    }

    /// How many keys this attempt has given up.
    pub fn failed(&self) -> usize {
        self.failed.len()
    }

    /// How many keys are left for another attempt.
    pub fn undecided(&self) -> usize {
        self.undecided.len()
    }
}

/// Positions that nothing is decided about yet, each of which can be decided once.
struct Open(Vec<bool>);

impl Open {
    fn new(positions: &Positions) -> Self {
        let mut open = Vec::new();
        for range in positions.ranges() {
            open.resize(range.start, false);
            open.resize(range.end, true);
        }
        Self(open)
    }

    /// Whether the position was open. It is not any more.
    fn take(&mut self, position: usize) -> bool {
        self.0.get_mut(position).is_some_and(mem::take)
    }

    fn rest(self) -> Positions {
        let open = self.0.into_iter().enumerate().filter(|(_, is_open)| *is_open);
        open.map(|(position, _)| position).collect()
    }
}

/// Failures and skips go first: they are only taken while the claim is held, and the next statement gives it back.
const RECORD_FAILURES: &str = "\
INSERT INTO failures (deletion, generation, chunk, position, key_json, code, r2_code, attempts, failed_at)
SELECT c.deletion, c.generation, c.chunk, f.value ->> 'position', f.value ->> 'key_json', f.value ->> 'code',
       f.value ->> 'r2_code', ?7, ?6
FROM chunks AS c, json_each(?5) AS f
WHERE c.deletion = ?1 AND c.generation = ?2 AND c.chunk = ?3
  AND c.claimed_by = ?4 AND c.claimed_until > ?6 AND c.finished_at IS NULL
ON CONFLICT DO NOTHING";

const RECORD_SKIPS: &str = "\
INSERT INTO skips (deletion, generation, chunk, position, key_json, uploaded_at, skipped_at)
SELECT c.deletion, c.generation, c.chunk, s.value ->> 'position', s.value ->> 'key_json', s.value ->> 'uploaded_at', ?6
FROM chunks AS c, json_each(?5) AS s
WHERE c.deletion = ?1 AND c.generation = ?2 AND c.chunk = ?3
  AND c.claimed_by = ?4 AND c.claimed_until > ?6 AND c.finished_at IS NULL
ON CONFLICT DO NOTHING";

const RECORD_CHUNKS: &str = "\
UPDATE chunks
SET claimed_by = NULL, claimed_until = 0,
    deleted = o.value ->> 'deleted', skipped = o.value ->> 'skipped', failed = o.value ->> 'failed',
    undecided = o.value ->> 'undecided', last_r2_code = o.value ->> 'last_r2_code',
    digest = o.value ->> 'digest', recorded_at = ?3, finished_at = CASE WHEN o.value ->> 'finished' THEN ?3 END
FROM json_each(?1) AS o
WHERE chunks.deletion = o.value ->> 'deletion' AND chunks.generation = o.value ->> 'generation'
  AND chunks.chunk = o.value ->> 'chunk'
  AND chunks.claimed_by = ?2 AND chunks.claimed_until > ?3 AND chunks.finished_at IS NULL
RETURNING deletion, generation, chunk";

/// That the keys that a deletion was asked for are all there and all decided. What its sweeps find is not among them.
///
/// The sum reads a row for each chunk, of which a deletion can have 100,000, and every batch asks. So the last chunk of each
/// part is asked about first, from the last part on: parts come more or less in order, so that until the last of them is at
/// work this is a row or two. Were they in any order, it would be a few parts. Within one part it decides little: the end
/// of a part is sent first. (No NOT EXISTS, for that has no order.)
macro_rules! keys_are_decided {
    ($deletion:literal) => {
        concat!(
            "(SELECT 1 FROM parts AS p
    WHERE p.deletion = ",
            $deletion,
            " AND p.keys > 0
      AND NOT EXISTS (SELECT 1 FROM chunks AS c
        WHERE c.deletion = p.deletion AND c.generation = p.generation
          AND c.chunk = p.part * 1000 + json_array_length(p.chunk_keys) - 1 AND c.finished_at IS NOT NULL)
    ORDER BY p.generation DESC, p.part DESC LIMIT 1) IS NULL
  AND (SELECT COALESCE(SUM(keys), 0) FROM parts WHERE deletion = ",
            $deletion,
            ")
    = (SELECT COALESCE(SUM(deleted + skipped + failed), 0) FROM chunks WHERE deletion = ",
            $deletion,
            " AND chunk < 2000000)"
        )
    };
}

const FINISH_DELETIONS: &str = concat!(
    "\
UPDATE deletions SET finished_at = ?2
WHERE id IN (SELECT value FROM json_each(?1)) AND finished_at IS NULL AND sealed_at IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM sweeps WHERE deletion = id AND finished_at IS NULL)
  AND ",
    keys_are_decided!("id"),
    "
RETURNING id, generation, requested_at, planned_keys IS NOT NULL AS dry_run,
    (SELECT COALESCE(SUM(keys), 0) FROM parts WHERE deletion = id AND generation = 0) AS asked,
    (SELECT COALESCE(SUM(keys), 0) FROM chunks WHERE deletion = id AND chunk >= 2000000) AS found,
    (SELECT COALESCE(SUM(deleted), 0) FROM chunks WHERE deletion = id) AS deleted,
    (SELECT COALESCE(SUM(skipped), 0) FROM chunks WHERE deletion = id) AS skipped"
);

/// Has the sweeps begin that have waited for the keys.
const BEGIN_SWEEPS: &str = concat!(
    "\
UPDATE sweeps SET due_at = ?2
WHERE deletion IN (SELECT value FROM json_each(?1)) AND due_at IS NULL AND ended_at IS NULL
  AND EXISTS (SELECT 1 FROM deletions
              WHERE id = deletion AND finished_at IS NULL AND cancelled_at IS NULL AND sealed_at IS NOT NULL)
  AND ",
    keys_are_decided!("sweeps.deletion"),
    "
RETURNING deletion, sweep, step"
);

/// What follows when the last key of a deletion is decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// The deletions that became final; each is told once, ever.
    pub finished: Vec<FinishedDeletion>,
    /// The sweeps that are to go on now. Whoever is told sends their messages.
    pub due: Vec<SweepRef>,
}

/// Ends those deletions of `ids`, a JSON list, that have nothing left to do, gives up what was kept to send their keys again,
/// and owes a notice for each; those that have swept nothing yet begin it. [`read_ended`] reads the answer.
pub(crate) fn finish(ids: &Value, now: Timestamp, owe_notices: bool) -> Vec<Statement> {
    let at = |sql| Statement::new(sql, [ids.clone(), now.as_millis().into()]);
    let mut statements = vec![at(FINISH_DELETIONS), at(BEGIN_SWEEPS), outbox::empty(ids.clone())];
    if owe_notices {
        statements.push(notice::owe(ids.clone(), now));
    }
    statements
}

/// What the statements of [`finish`] have done.
pub(crate) fn read_ended(answer: &mut impl Iterator<Item = Vec<Row>>) -> Result<Ended, LedgerError> {
    Ok(Ended {
        finished: next_rows(answer)?.iter().map(read_finished_deletion).collect::<Result<_, _>>()?,
        due: next_rows(answer)?.iter().map(sweep::read_ref).collect::<Result<_, _>>()?,
    })
}

/// Records everything of the batch in one transaction. Running it again changes nothing: the claims are given back.
pub(crate) async fn record(
    database: &impl Database,
    batch: &RecordBatch,
) -> Result<RecordReply, LedgerError> {
    let RecordBatch { token, now, outcomes, unreadable, owe_notices } = batch;
    let now_ms = now.as_millis();
    let mut statements = Vec::new();
    for outcome in outcomes {
        if !outcome.failed.is_empty() {
            let failed: Vec<WireFailure<'_>> = outcome.failed.iter().map(WireFailure::from).collect();
            let mut statement = keys_statement(RECORD_FAILURES, outcome, token, json(&failed)?, *now);
            statement.parameters.push(outcome.attempts.into());
            statements.push(statement);
        }
        if !outcome.skipped.is_empty() {
            let skipped: Vec<WireSkip<'_>> = outcome.skipped.iter().map(WireSkip::from).collect();
            statements.push(keys_statement(RECORD_SKIPS, outcome, token, json(&skipped)?, *now));
        }
    }
    statements.extend(unreadable.iter().map(|message| keep_message(message, *now)));
    let before_chunks = statements.len();
    let wire: Vec<WireOutcome<'_>> = outcomes.iter().map(WireOutcome::from).collect();
    // OK to look through all of them because a batch has six: a tree brings a sort, which is a hundredth of the Worker's wasm.
    let mut ids: Vec<&str> = Vec::new();
    for WireOutcome { deletion, .. } in &wire {
        if !ids.contains(deletion) {
            ids.push(deletion);
        }
    }
    statements.push(Statement::new(RECORD_CHUNKS, [json(&wire)?, token.as_str().into(), now_ms.into()]));
    statements.extend(finish(&json(&ids)?, *now, *owe_notices));

    let mut answer = database.batch(statements).await?.into_iter().skip(before_chunks);
    read_reply(batch, &mut answer)
}

fn keys_statement(
    sql: &'static str,
    outcome: &ChunkOutcome,
    token: &str,
    keys: Value,
    now: Timestamp,
) -> Statement {
    let ChunkRef { deletion, generation, chunk } = outcome.chunk();
    let parameters = [
        deletion.as_str().into(),
        (*generation).into(),
        (*chunk).into(),
        token.into(),
        keys,
        now.as_millis().into(),
    ];
    Statement::new(sql, parameters)
}

fn read_reply(
    batch: &RecordBatch,
    answer: &mut impl Iterator<Item = Vec<Row>>,
) -> Result<RecordReply, LedgerError> {
    let recorded = next_rows(answer)?.iter().map(read_chunk).collect::<Result<Vec<ChunkRef>, _>>()?;
    let settled = |outcome: &ChunkOutcome| {
        (recorded.contains(outcome.chunk()) && outcome.undecided.is_empty()).then_some(Settled(()))
    };
    Ok(RecordReply {
        outcomes: batch.outcomes.iter().map(settled).collect(),
        unreadable: batch.unreadable.iter().map(|_| Settled(())).collect(),
        ended: read_ended(answer)?,
    })
}

#[derive(Serialize)]
struct WireOutcome<'a> {
    deletion: &'a str,
    generation: u32,
    chunk: u32,
    deleted: usize,
    skipped: usize,
    failed: usize,
    undecided: String,
    last_r2_code: Option<u32>,
    finished: bool,
    digest: Option<String>,
}

impl<'a> From<&'a ChunkOutcome> for WireOutcome<'a> {
    fn from(outcome: &'a ChunkOutcome) -> Self {
        let ChunkOutcome { grant, deleted, skipped, failed, undecided, last_error, attempts: _ } = outcome;
        Self {
            deletion: grant.chunk.deletion.as_str(),
            generation: grant.chunk.generation,
            chunk: grant.chunk.chunk,
            deleted: grant.deleted + deleted.len(),
            skipped: grant.skipped + skipped.len(),
            failed: grant.failed + failed.len(),
            undecided: undecided.to_json(),
            // What earlier attempts met is no news once the last key is decided.
            last_r2_code: last_error.filter(|_| !undecided.is_empty()).map(R2Error::code),
            finished: undecided.is_empty(),
            digest: grant.digest.map(|digest| digest.to_string()),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct WireFailure<'a> {
    position: usize,
    key_json: &'a str,
    code: &'static str,
    r2_code: Option<u32>,
}

impl<'a> From<&'a FailedKey> for WireFailure<'a> {
    fn from(FailedKey { position, key_json, code, error }: &'a FailedKey) -> Self {
        Self { position: *position, key_json, code: code.as_str(), r2_code: error.map(R2Error::code) }
    }
}

#[derive(Serialize)]
pub(crate) struct WireSkip<'a> {
    position: usize,
    key_json: &'a str,
    uploaded_at: Timestamp,
}

impl<'a> From<&'a SkippedKey> for WireSkip<'a> {
    fn from(SkippedKey { position, key_json, uploaded_at }: &'a SkippedKey) -> Self {
        Self { position: *position, key_json, uploaded_at: *uploaded_at }
    }
}

fn read_chunk(row: &Row) -> Result<ChunkRef, LedgerError> {
    Ok(ChunkRef {
        deletion: row.parsed("deletion")?,
        generation: row.number("generation")?,
        chunk: row.number("chunk")?,
    })
}

fn read_finished_deletion(row: &Row) -> Result<FinishedDeletion, LedgerError> {
    let total = row.number::<u64>("asked")? + row.number::<u64>("found")?;
    let (deleted, skipped) = (row.number("deleted")?, row.number("skipped")?);
    Ok(FinishedDeletion {
        id: row.parsed("id")?,
        generation: row.number("generation")?,
        requested_at: row.time("requested_at")?,
        // Every key is decided, so what is neither deleted nor skipped has failed.
        counts: Counts::derive(total, deleted, skipped, total.saturating_sub(deleted + skipped), false),
        dry_run: row.is("dry_run")?,
    })
}
