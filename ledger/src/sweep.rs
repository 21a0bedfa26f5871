//! Sweeps: ranges of keys that are listed, a page at a time, and deleted.
//!
//! The ledger knows how far each is, so that any message may go on with it; the page at hand is written down before anything of
//! it is deleted, so that an invocation that dies leaves no key unaccounted for.

mod state;

use protocol::{
    DeletionId, Fence, R2Error, SWEEP_CHUNKS_FROM, SweepPhase, SweepRange, SweepRef, Timestamp,
    UnreadableReason,
};

pub use self::state::{Cursor, ListedObject, Page, PageKey, SweepProgress, SweepState, SweepTally};
use crate::claim::{Settled, read_digest};
use crate::database::{Database, LedgerError, Row, Statement, Value, json, next_rows, run};
use crate::record::{self, Ended, FailedKey, SkippedKey, WireFailure, WireSkip};

// The statements below, and those that sum chunks, say it in numbers.
const _: () = assert!(SWEEP_CHUNKS_FROM == 2_000_000);

/// One step of a sweep that an invocation asks for.
#[derive(Clone, Debug)]
pub struct SweepClaim {
    /// Which.
    pub sweep: SweepRef,
    /// What tells this invocation from every other.
    pub token: String,
    /// When it asks.
    pub now: Timestamp,
    /// When its claim ends, whatever becomes of it.
    pub until: Timestamp,
}

/// The ledger's answer to it.
#[derive(Debug)]
pub enum SweepReply {
    /// The sweep is the invocation's until its claim ends.
    Granted(Box<SweepGrant>),
    /// That step is over, or is not to be taken yet, and the ledger knows when; or the deletion is over or cancelled.
    NothingToDo(Settled),
    /// Another invocation holds the sweep until then.
    ClaimedElsewhere {
        /// When that claim ends.
        until: Timestamp,
    },
    /// The ledger knows no such sweep.
    NotAccepted(UnreadableReason),
}

/// A sweep in one invocation's hands, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepGrant {
    /// Which, and the step it is in.
    pub sweep: SweepRef,
    /// What it does with what it lists.
    pub phase: SweepPhase,
    /// Its keys.
    pub range: SweepRange,
    /// When the deletion was requested.
    pub requested_at: Timestamp,
    /// Whether what was uploaded since is kept.
    pub fence: Fence,
    /// Whether it only counts.
    pub dry_run: bool,
    /// Whether what is left is to be counted at the end.
    pub verify: bool,
    /// Whether the deletion has keys that failed or were left alone: those are not to be found again.
    pub has_known_keys: bool,
    /// How many ranges the deletion has.
    pub ranges: usize,
    /// How far it is.
    pub state: SweepState,
}

impl SweepGrant {
    /// Whether the end of its phase is its end.
    fn is_last_phase(&self) -> bool {
        match self.phase {
            SweepPhase::Count => self.dry_run,
            SweepPhase::Delete => !self.verify,
            SweepPhase::Verify => true,
        }
    }
}

/// What an invocation has to write down of a sweep, in one write.
#[derive(Clone, Debug)]
pub struct SweepTurn<'a> {
    /// The sweep, as it was granted.
    pub grant: &'a SweepGrant,
    /// The invocation's token, as it claimed with.
    pub token: &'a str,
    /// When it writes.
    pub now: Timestamp,
    /// How often the message was delivered.
    pub attempts: u32,
    /// How far the sweep is, with everything that was done.
    pub state: &'a SweepState,
    /// Keys that ended undeleted since the last turn.
    pub failed: Vec<FailedKey>,
    /// Keys that were left alone since the last turn.
    pub skipped: Vec<SkippedKey>,
    /// What is to be done next, if the deletion is not cancelled: keys may only be deleted when this is written.
    pub planned: Option<Page>,
    /// What is cut off the sweep's range for others, and what remains of it.
    pub split: Option<(SweepRange, Vec<SweepRange>)>,
    /// What becomes of the sweep.
    pub then: SweepThen,
    /// Whether a notice is owed for a deletion that this ends.
    pub owe_notices: bool,
}

/// What becomes of a sweep after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepThen {
    /// The invocation goes on.
    GoOn,
    /// The next message goes on, at once.
    HandOn,
    /// The same message goes on, when it is delivered again.
    Retry {
        /// When.
        due_at: Timestamp,
    },
    /// The phase is over.
    EndPhase,
    /// The sweep is over, for nobody can go on with it.
    GiveUp,
}

/// What the ledger has taken down of a turn.
#[derive(Debug)]
pub struct SweepTurnReply {
    /// Whether anything was: not if the claim had been lost.
    pub is_recorded: bool,
    /// Whether the invocation may go on: not if the sweep is over, or its deletion cancelled.
    pub goes_on: bool,
    /// Proof that nothing more is owed to the message, unless it is to be delivered again.
    pub proof: Option<Settled>,
    /// What followed.
    pub ended: Ended,
}

const CLAIM: &str = "\
INSERT INTO chunks (deletion, generation, chunk, keys, claimed_by, claimed_until, begun_at)
SELECT s.deletion, 0, 2000000 + s.sweep, 0, ?4, ?5, ?6
FROM sweeps AS s JOIN deletions AS d ON d.id = s.deletion
WHERE s.deletion = ?1 AND s.sweep = ?2 AND s.step = ?3 AND s.ended_at IS NULL AND s.due_at IS NOT NULL
  AND d.cancelled_at IS NULL AND d.finished_at IS NULL
ON CONFLICT (deletion, generation, chunk) DO UPDATE
SET claimed_by = excluded.claimed_by, claimed_until = excluded.claimed_until
WHERE chunks.finished_at IS NULL AND chunks.claimed_until <= ?6";

const READ_CLAIM: &str = "\
SELECT s.sweep IS NOT NULL AS known, s.step, s.phase, s.range, s.progress,
       s.objects, s.bytes, s.uploaded_since, s.oldest_at, s.newest_at, s.sample,
       s.ended_at IS NULL AND s.due_at IS NOT NULL AND d.cancelled_at IS NULL AND d.finished_at IS NULL AS open,
       d.requested_at, d.fence, d.verify, d.planned_keys IS NOT NULL AS dry_run,
       c.claimed_by, c.claimed_until, c.keys, c.deleted, c.skipped, c.failed, c.last_r2_code, c.digest,
       (SELECT COUNT(*) FROM sweeps WHERE deletion = d.id) AS ranges,
       EXISTS (SELECT 1 FROM chunks WHERE deletion = d.id AND failed + skipped > 0) AS has_known_keys
FROM deletions AS d
LEFT JOIN sweeps AS s ON s.deletion = d.id AND s.sweep = ?2
LEFT JOIN chunks AS c ON c.deletion = d.id AND c.generation = 0 AND c.chunk = 2000000 + ?2
WHERE d.id = ?1";

/// Claims a step of a sweep if it is free, and reads how far it is, in one transaction.
pub(crate) async fn claim(database: &impl Database, claim: &SweepClaim) -> Result<SweepReply, LedgerError> {
    let SweepClaim { sweep: SweepRef { deletion, sweep, step }, token, now, until } = claim;
    let (deletion, number) = (Value::from(deletion.as_str()), Value::from(*sweep));
    let claim_it = Statement::new(
        CLAIM,
        [
            deletion.clone(),
            number.clone(),
            (*step).into(),
            token.as_str().into(),
            until.as_millis().into(),
            now.as_millis().into(),
        ],
    );
    let read = Statement::new(READ_CLAIM, [deletion, number]);
    let mut answer = database.batch(vec![claim_it, read]).await?.into_iter().skip(1);
    let rows = next_rows(&mut answer)?;
    let Some(row) = rows.first() else {
        return Ok(SweepReply::NotAccepted(UnreadableReason::UnknownDeletion));
    };
    if !row.is("known")? {
        return Ok(SweepReply::NotAccepted(UnreadableReason::NotInDeletion));
    }
    let is_this_step = row.number::<u32>("step")? == *step;
    if !is_this_step || !row.is("open")? {
        return Ok(SweepReply::NothingToDo(Settled(())));
    }
    if row.text_if_any("claimed_by")? == Some(token) {
        return read_grant(row, &claim.sweep).map(Box::new).map(SweepReply::Granted);
    }
    Ok(SweepReply::ClaimedElsewhere { until: row.time("claimed_until")? })
}

fn read_grant(row: &Row, sweep: &SweepRef) -> Result<SweepGrant, LedgerError> {
    let broken = |what: &str| LedgerError::new(format!("the {what} of a sweep makes no sense"));
    let sample = row.text_if_any("sample")?.map(serde_json::from_str).transpose();
    Ok(SweepGrant {
        sweep: sweep.clone(),
        phase: SweepPhase::from_text(row.text("phase")?).ok_or_else(|| broken("phase"))?,
        range: serde_json::from_str(row.text("range")?).map_err(|_| broken("range"))?,
        requested_at: row.time("requested_at")?,
        fence: row.parsed("fence")?,
        dry_run: row.is("dry_run")?,
        verify: row.is("verify")?,
        has_known_keys: row.is("has_known_keys")?,
        ranges: row.number("ranges")?,
        state: SweepState {
            keys: row.number("keys")?,
            deleted: row.number("deleted")?,
            skipped: row.number("skipped")?,
            failed: row.number("failed")?,
            digest: read_digest(row)?,
            last_error: row.number_if_any("last_r2_code")?.map(R2Error::from_code),
            progress: serde_json::from_str(row.text("progress")?).map_err(|_| broken("progress"))?,
            tally: SweepTally {
                objects: row.number("objects")?,
                bytes: row.number("bytes")?,
                uploaded_since: row.number("uploaded_since")?,
                oldest_at: row.time_if_any("oldest_at")?,
                newest_at: row.time_if_any("newest_at")?,
                sample: sample.map_err(|_| broken("sample"))?.unwrap_or_default(),
            },
        },
    })
}

const KNOWN_KEYS: &str = "\
SELECT key_json FROM failures WHERE deletion = ?1 AND key_json IN (SELECT value FROM json_each(?2))
UNION
SELECT key_json FROM skips WHERE deletion = ?1 AND key_json IN (SELECT value FROM json_each(?2))";

/// Which of these keys, each as a JSON string, have failed or were left alone in this deletion. It reads all such keys that the
/// deletion has.
pub(crate) async fn known_keys(
    database: &impl Database,
    deletion: &DeletionId,
    keys_json: &[String],
) -> Result<Vec<String>, LedgerError> {
    let statement = Statement::new(KNOWN_KEYS, [deletion.as_str().into(), json(keys_json)?]);
    run(database, statement).await?.iter().map(|row| Ok(row.text("key_json")?.to_owned())).collect()
}

/// What all statements of a turn that come before its last are bound to: the claim, which the last may give back.
/// ?1 the deletion, ?2 the sweep, ?3 the token, ?4 now.
macro_rules! while_claimed {
    () => {
        "EXISTS (SELECT 1 FROM chunks WHERE deletion = ?1 AND generation = 0 AND chunk = 2000000 + ?2
          AND claimed_by = ?3 AND claimed_until > ?4 AND finished_at IS NULL)"
    };
}

macro_rules! not_cancelled {
    () => {
        "(SELECT cancelled_at FROM deletions WHERE id = ?1) IS NULL"
    };
}

const RECORD_FAILURES: &str = concat!(
    "\
INSERT INTO failures (deletion, generation, chunk, position, key_json, code, r2_code, attempts, failed_at)
SELECT ?1, 0, 2000000 + ?2, f.value ->> 'position', f.value ->> 'key_json', f.value ->> 'code', f.value ->> 'r2_code', ?6, ?4
FROM json_each(?5) AS f WHERE ",
    while_claimed!(),
    " ON CONFLICT DO NOTHING"
);

macro_rules! record_skips {
    ($condition:expr) => {
        concat!(
            "\
INSERT INTO skips (deletion, generation, chunk, position, key_json, uploaded_at, skipped_at)
SELECT ?1, 0, 2000000 + ?2, s.value ->> 'position', s.value ->> 'key_json', s.value ->> 'uploaded_at', ?4
FROM json_each(?5) AS s WHERE ",
            $condition,
            while_claimed!(),
            " ON CONFLICT DO NOTHING"
        )
    };
}

const RECORD_SKIPS: &str = record_skips!("");

const PLAN_SKIPS: &str = record_skips!(concat!(not_cancelled!(), " AND "));

/// Once: the same write changes the range.
const SPLIT: &str = concat!(
    "\
INSERT INTO sweeps (deletion, sweep, range, phase, due_at)
SELECT ?1, (SELECT MAX(sweep) + 1 FROM sweeps WHERE deletion = ?1) + r.key, r.value, s.phase, ?4
FROM json_each(?5) AS r, sweeps AS s
WHERE s.deletion = ?1 AND s.sweep = ?2 AND s.range = ?6 AND s.ended_at IS NULL AND ",
    not_cancelled!(),
    " AND ",
    while_claimed!(),
    "
RETURNING deletion, sweep, step"
);

/// ?8 is what is planned next, ?7 what holds if the deletion was cancelled, so that nothing more may be.
const RECORD_SWEEP: &str = concat!(
    "\
UPDATE sweeps
SET range = CASE WHEN ?6 IS NULL OR NOT ",
    not_cancelled!(),
    " THEN range ELSE ?6 END, progress = CASE WHEN ",
    not_cancelled!(),
    " THEN ?8 ELSE ?7 END,
    step = step + ?9, due_at = ?10, ended_at = ?11, finished_at = ?12,
    objects = ?13, bytes = ?14, uploaded_since = ?15, oldest_at = ?16, newest_at = ?17, sample = ?18
WHERE deletion = ?1 AND sweep = ?2 AND step = ?5 AND ended_at IS NULL AND ",
    while_claimed!()
);

/// What the same turn has left alone before, when it was written and its answer was lost: its position is behind ?6, all keys.
macro_rules! planned_before {
    () => {
        "(SELECT COUNT(*) FROM skips
          WHERE deletion = ?1 AND generation = 0 AND chunk = 2000000 + ?2 AND position >= ?6)"
    };
}

/// ?5 to ?8: keys, and skipped, with what is planned next and without. What was left alone stays so when the deletion is
/// cancelled between two writes of one turn.
const RECORD_CHUNK: &str = concat!(
    "\
UPDATE chunks
SET keys = CASE WHEN ",
    not_cancelled!(),
    " THEN ?5 ELSE ?6 + ",
    planned_before!(),
    " END, skipped = CASE WHEN ",
    not_cancelled!(),
    " THEN ?7 ELSE ?8 + ",
    planned_before!(),
    " END,
    deleted = ?9, failed = ?10, last_r2_code = ?11, digest = ?14, recorded_at = ?4, finished_at = ?12,
    claimed_by = CASE WHEN ?13 AND ",
    not_cancelled!(),
    " THEN claimed_by END,
    claimed_until = CASE WHEN ?13 AND ",
    not_cancelled!(),
    " THEN claimed_until ELSE 0 END
WHERE deletion = ?1 AND generation = 0 AND chunk = 2000000 + ?2
  AND claimed_by = ?3 AND claimed_until > ?4 AND finished_at IS NULL
RETURNING claimed_by IS NOT NULL
    AND EXISTS (SELECT 1 FROM sweeps WHERE deletion = ?1 AND sweep = ?2 AND ended_at IS NULL) AS is_held"
);

/// The brake: too many objects have been counted. The sweep at hand fails for all of them.
const BRAKE: [&str; 2] = [
    "\
INSERT INTO failures (deletion, generation, chunk, position, key_json, code, attempts, failed_at)
SELECT ?1, 0, 2000000 + s.sweep, 0, s.range -> '$.prefix', 'max_objects_exceeded', 1, ?3
FROM sweeps AS s JOIN deletions AS d ON d.id = s.deletion
WHERE s.deletion = ?1 AND s.sweep = ?2 AND s.phase = 'count' AND s.finished_at IS NULL AND d.planned_keys IS NULL
  AND d.max_objects < (SELECT SUM(objects) FROM sweeps WHERE deletion = ?1)
ON CONFLICT DO NOTHING",
    "\
UPDATE chunks SET keys = 1, failed = 1
WHERE deletion = ?1 AND generation = 0 AND chunk = 2000000 + ?2 AND keys = 0
  AND EXISTS (SELECT 1 FROM failures
              WHERE deletion = ?1 AND generation = 0 AND chunk = 2000000 + ?2 AND code = 'max_objects_exceeded')",
];

/// What cannot be counted is not deleted.
const STOP: &str = "\
UPDATE sweeps SET ended_at = ?2, finished_at = ?2
WHERE deletion = ?1 AND phase = 'count' AND finished_at IS NULL
  AND EXISTS (SELECT 1 FROM chunks WHERE deletion = ?1 AND generation = 0 AND chunk >= 2000000 AND failed > 0)";

/// The last sweep of a phase has all of them begin the next.
const ADVANCE: &str = "\
UPDATE sweeps
SET phase = ?3, step = step + 1, due_at = ?4, progress = '{}', ended_at = NULL,
    objects = 0, bytes = 0, uploaded_since = 0, oldest_at = NULL, newest_at = NULL, sample = NULL
WHERE deletion = ?1 AND phase = ?2 AND finished_at IS NULL
  AND NOT EXISTS (SELECT 1 FROM sweeps WHERE deletion = ?1 AND phase = ?2 AND ended_at IS NULL)
  AND (SELECT cancelled_at FROM deletions WHERE id = ?1) IS NULL
RETURNING deletion, sweep, step";

/// Records what became of a page and plans the next, all or nothing. Running it again changes nothing: it is bound to the
/// claim and to the step.
pub(crate) async fn turn(
    database: &impl Database,
    turn: &SweepTurn<'_>,
) -> Result<SweepTurnReply, LedgerError> {
    let SweepTurn { grant, now, then, .. } = turn;
    let SweepRef { deletion, sweep, step } = &grant.sweep;
    let (id, number) = (Value::from(deletion.as_str()), Value::from(*sweep));
    let bound = |more: Vec<Value>| -> Vec<Value> {
        let claim = [id.clone(), number.clone(), turn.token.into(), now.as_millis().into()];
        claim.into_iter().chain(more).collect()
    };
    let mut statements = Vec::new();
    if !turn.failed.is_empty() {
        let failed: Vec<_> = turn.failed.iter().map(WireFailure::from).collect();
        statements.push(Statement::new(RECORD_FAILURES, bound(vec![json(&failed)?, turn.attempts.into()])));
    }
    let planned_skips = turn.planned.iter().map(|page| (PLAN_SKIPS, &page.skipped));
    for (sql, skipped) in [(RECORD_SKIPS, &turn.skipped)].into_iter().chain(planned_skips) {
        if !skipped.is_empty() {
            let skipped: Vec<_> = skipped.iter().map(WireSkip::from).collect();
            statements.push(Statement::new(sql, bound(vec![json(&skipped)?])));
        }
    }
    let mut split_at = None;
    if let Some((_, others)) = &turn.split {
        split_at = Some(statements.len());
        statements.push(Statement::new(SPLIT, bound(vec![json(others)?, json(&grant.range)?])));
    }
    statements.push(record_sweep(turn, bound)?);
    let chunk_at = statements.len();
    statements.push(record_chunk(turn, bound));
    if grant.phase == SweepPhase::Count {
        let [fail, count] = BRAKE;
        let at_hand = [id.clone(), number.clone(), now.as_millis().into()];
        statements.push(Statement::new(fail, at_hand.clone()));
        statements.push(Statement::new(count, at_hand[..2].to_vec()));
        statements.push(Statement::new(STOP, [id.clone(), now.as_millis().into()]));
    }
    let advance_at = statements.len();
    for (from, to) in [(SweepPhase::Count, SweepPhase::Delete), (SweepPhase::Delete, SweepPhase::Verify)] {
        if grant.phase == from && matches!(then, SweepThen::EndPhase | SweepThen::GiveUp) {
            let parameters = [id.clone(), from.as_str().into(), to.as_str().into(), now.as_millis().into()];
            statements.push(Statement::new(ADVANCE, parameters));
        }
    }
    let finish_at = statements.len();
    statements.extend(record::finish(&json(&[deletion])?, *now, turn.owe_notices));

    let answer = database.batch(statements).await?;
    let rows = |at: usize| answer.get(at).map(Vec::as_slice).unwrap_or_default();
    let mut ended = record::read_ended(&mut answer.iter().skip(finish_at).cloned())?;
    for at in split_at.into_iter().chain(advance_at..finish_at) {
        for row in rows(at) {
            ended.due.push(read_ref(row)?);
        }
    }
    let recorded = rows(chunk_at).first();
    let is_held = recorded.map(|row| row.is("is_held")).transpose()?;
    let is_over = !ended.finished.is_empty();
    let goes_on = is_held == Some(true) && !is_over;
    if recorded.is_some() && *then == SweepThen::HandOn {
        ended.due.push(SweepRef { deletion: deletion.clone(), sweep: *sweep, step: step + 1 });
    }
    let comes_back = recorded.is_none() || matches!(then, SweepThen::Retry { .. }) || goes_on;
    Ok(SweepTurnReply {
        is_recorded: recorded.is_some(),
        goes_on,
        proof: (!comes_back).then_some(Settled(())),
        ended,
    })
}

fn record_sweep(
    turn: &SweepTurn<'_>,
    bound: impl Fn(Vec<Value>) -> Vec<Value>,
) -> Result<Statement, LedgerError> {
    let SweepTurn { grant, now, state, then, .. } = turn;
    let now = now.as_millis();
    let (planned, tally) = (turn.planned.as_ref(), &state.tally);
    let is_over = match then {
        SweepThen::EndPhase => grant.is_last_phase(),
        SweepThen::GiveUp => true,
        SweepThen::GoOn | SweepThen::HandOn | SweepThen::Retry { .. } => false,
    };
    let has_ended = matches!(then, SweepThen::EndPhase | SweepThen::GiveUp);
    let due_at = match then {
        SweepThen::Retry { due_at } => due_at.as_millis(),
        _ => now,
    };
    let sample = (!tally.sample.is_empty()).then(|| json(&tally.sample)).transpose()?;
    Ok(Statement::new(
        RECORD_SWEEP,
        bound(vec![
            grant.sweep.step.into(),
            turn.split.as_ref().map(|(range, _)| json(range)).transpose()?.into(),
            json(&state.progress)?,
            json(planned.map_or(&state.progress, |page| &page.progress))?,
            u32::from(*then == SweepThen::HandOn).into(),
            due_at.into(),
            has_ended.then_some(now).into(),
            is_over.then_some(now).into(),
            tally.objects.into(),
            tally.bytes.into(),
            tally.uploaded_since.into(),
            tally.oldest_at.map(Timestamp::as_millis).into(),
            tally.newest_at.map(Timestamp::as_millis).into(),
            sample.into(),
        ]),
    ))
}

fn record_chunk(turn: &SweepTurn<'_>, bound: impl Fn(Vec<Value>) -> Vec<Value>) -> Statement {
    let SweepTurn { grant, now, state, then, .. } = turn;
    let planned = turn.planned.as_ref();
    let is_over = *then == SweepThen::GiveUp || (*then == SweepThen::EndPhase && grant.is_last_phase());
    Statement::new(
        RECORD_CHUNK,
        bound(vec![
            (state.keys + planned.map_or(0, Page::keys)).into(),
            state.keys.into(),
            (state.skipped + planned.map_or(0, |page| page.skipped.len() as u64)).into(),
            state.skipped.into(),
            state.deleted.into(),
            state.failed.into(),
            state.last_error.filter(|_| !state.progress.page.is_empty()).map(R2Error::code).into(),
            is_over.then_some(now.as_millis()).into(),
            u32::from(*then == SweepThen::GoOn).into(),
            state.digest.map(|digest| digest.to_string()).into(),
        ]),
    )
}

/// What it wakes is due now, so that the next round leaves it alone for as long as this one did. The step stays: the message
/// may only be late, and of two the second finds nothing to do. What was redriven had ended, whoever was told of its request.
const WAKE: &str = "\
UPDATE sweeps SET due_at = ?2
WHERE (deletion, sweep) IN (
    SELECT s.deletion, s.sweep FROM sweeps AS s JOIN deletions AS d ON d.id = s.deletion
    LEFT JOIN chunks AS c ON c.deletion = s.deletion AND c.generation = 0 AND c.chunk = 2000000 + s.sweep
    WHERE s.due_at <= ?1 AND s.ended_at IS NULL AND d.cancelled_at IS NULL AND d.finished_at IS NULL
      AND COALESCE(c.claimed_until, 0) <= ?2
      AND (d.generation > 0
        OR NOT EXISTS (SELECT 1 FROM parts WHERE deletion = d.id AND generation = 0 AND part = 0 AND enqueued_at IS NULL))
    ORDER BY s.due_at LIMIT ?3)
RETURNING deletion, sweep, step";

/// At most `limit` sweeps of accepted deletions that were due before `before`, and that nobody goes on with. They are due at
/// `now` from here on.
pub(crate) async fn wake(
    database: &impl Database,
    before: Timestamp,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<SweepRef>, LedgerError> {
    let parameters = [before.as_millis().into(), now.as_millis().into(), limit.into()];
    run(database, Statement::new(WAKE, parameters)).await?.iter().map(read_ref).collect()
}

pub(crate) fn read_ref(row: &Row) -> Result<SweepRef, LedgerError> {
    Ok(SweepRef { deletion: row.parsed("deletion")?, sweep: row.number("sweep")?, step: row.number("step")? })
}
