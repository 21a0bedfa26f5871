//! The steps of sweeps.

use protocol::{FailureCode, SWEEP_CHUNKS_FROM, SweepPhase, SweepRef, Timestamp, UnreadableReason};

use super::tables::{Deletion, Failure, Skip, Sweep, Tables};
use crate::claim::Settled;
use crate::cursor::KeyCursor;
use crate::database::LedgerError;
use crate::record::SkippedKey;
use crate::sweep::{SweepClaim, SweepGrant, SweepReply, SweepState, SweepThen, SweepTurn, SweepTurnReply};

impl Deletion {
    fn skip(&mut self, chunk: u32, skipped: &[SkippedKey], now: Timestamp) {
        for SkippedKey { position, key_json, uploaded_at } in skipped {
            self.skips.entry(KeyCursor::at(0, chunk, *position)).or_insert_with(|| Skip {
                key_json: key_json.clone(),
                uploaded_at: *uploaded_at,
                skipped_at: now,
            });
        }
    }

    /// Too many objects have been counted: the sweep at hand fails for all of them, and what cannot be counted stops.
    fn brake(&mut self, number: u32, now: Timestamp) -> Result<(), LedgerError> {
        let chunk_at = SWEEP_CHUNKS_FROM + number;
        let objects: u64 = self.sweeps.values().map(|sweep| sweep.tally.objects).sum();
        let is_too_much = self.planned_keys.is_none() && self.max_objects.is_some_and(|most| most < objects);
        let counting = |sweep: &Sweep| sweep.phase == SweepPhase::Count && sweep.finished_at.is_none();
        if let Some(sweep) = self.sweeps.get(&number).filter(|sweep| is_too_much && counting(sweep)) {
            let key_json = serde_json::to_string(&sweep.range.prefix)
                .map_err(|error| LedgerError::new(error.to_string()))?;
            self.failures.entry(KeyCursor::at(0, chunk_at, 0)).or_insert(Failure {
                key_json,
                code: FailureCode::MaxObjectsExceeded,
                error: None,
                attempts: 1,
                failed_at: now,
            });
        }
        let of_chunk = KeyCursor::at(0, chunk_at, 0)..KeyCursor::at(0, chunk_at + 1, 0);
        let has_braked =
            self.failures.range(of_chunk).any(|(_, failure)| failure.code == FailureCode::MaxObjectsExceeded);
        if let Some(chunk) = self.chunks.get_mut(&(0, chunk_at))
            && chunk.keys == 0
            && has_braked
        {
            (chunk.keys, chunk.failed) = (1, 1);
            chunk.check()?;
        }
        if self.has_failed_sweep() {
            for sweep in self.sweeps.values_mut().filter(|sweep| counting(sweep)) {
                (sweep.ended_at, sweep.finished_at) = (Some(now), Some(now));
            }
        }
        Ok(())
    }

    fn advance(&mut self, from: SweepPhase, to: SweepPhase, now: Timestamp) -> Vec<(u32, u32)> {
        let is_running = |sweep: &Sweep| sweep.phase == from && sweep.ended_at.is_none();
        if self.cancelled_at.is_some() || self.sweeps.values().any(is_running) {
            return Vec::new();
        }
        let next = |sweep: &&mut Sweep| sweep.phase == from && sweep.finished_at.is_none();
        let mut due = Vec::new();
        for (number, sweep) in &mut self.sweeps {
            if next(&sweep) {
                sweep.begin(to, Some(now));
                due.push((*number, sweep.step));
            }
        }
        due
    }
}

impl Tables {
    pub(super) fn claim_sweep(&mut self, claim: &SweepClaim) -> Result<SweepReply, LedgerError> {
        let SweepClaim { sweep: SweepRef { deletion: id, sweep: number, step }, token, now, until } = claim;
        let Some(deletion) = self.deletions.get_mut(id) else {
            return Ok(SweepReply::NotAccepted(UnreadableReason::UnknownDeletion));
        };
        let is_open = deletion.is_open();
        let Some(sweep) = deletion.sweeps.get(number) else {
            return Ok(SweepReply::NotAccepted(UnreadableReason::NotInDeletion));
        };
        if sweep.step != *step || sweep.ended_at.is_some() || sweep.due_at.is_none() || !is_open {
            return Ok(SweepReply::NothingToDo(Settled(())));
        }
        deletion.claim((0, SWEEP_CHUNKS_FROM + number), 0, token, *now, *until);
        let deletion = &*deletion;
        let (Some(sweep), Some(chunk)) = (deletion.sweeps.get(number), deletion.sweep_chunk(*number)) else {
            return Err(LedgerError::new("a chunk that was just written is not there"));
        };
        if chunk.claimed_by.as_ref() != Some(token) {
            return Ok(SweepReply::ClaimedElsewhere { until: chunk.claimed_until });
        }
        Ok(SweepReply::Granted(Box::new(SweepGrant {
            sweep: claim.sweep.clone(),
            phase: sweep.phase,
            range: sweep.range.clone(),
            requested_at: deletion.requested_at,
            fence: deletion.fence,
            dry_run: deletion.planned_keys.is_some(),
            verify: deletion.verify,
            has_known_keys: deletion.chunks.values().any(|chunk| chunk.failed + chunk.skipped > 0),
            ranges: deletion.sweeps.len(),
            state: SweepState {
                keys: chunk.keys,
                deleted: chunk.deleted,
                skipped: chunk.skipped,
                failed: chunk.failed,
                digest: deletion.verify.then(|| chunk.digest.unwrap_or_default()),
                last_error: chunk.last_error,
                progress: sweep.progress.clone(),
                tally: sweep.tally.clone(),
            },
        })))
    }

    pub(super) fn turn_sweep(&mut self, turn: &SweepTurn<'_>) -> Result<SweepTurnReply, LedgerError> {
        let SweepTurn { grant, now, then, .. } = turn;
        let SweepRef { deletion: id, sweep: number, step } = &grant.sweep;
        let (mut due, mut is_held) = (Vec::new(), None);
        if let Some(deletion) = self.deletions.get_mut(id) {
            let is_claimed =
                deletion.sweep_chunk(*number).is_some_and(|chunk| chunk.is_held_by(turn.token, *now));
            if is_claimed {
                is_held = Some(record_turn(deletion, turn, &mut due)?);
            }
            if grant.phase == SweepPhase::Count {
                deletion.brake(*number, *now)?;
            }
            for (from, to) in
                [(SweepPhase::Count, SweepPhase::Delete), (SweepPhase::Delete, SweepPhase::Verify)]
            {
                if grant.phase == from && matches!(then, SweepThen::EndPhase | SweepThen::GiveUp) {
                    due.extend(deletion.advance(from, to, *now));
                }
            }
        }
        let mut ended = self.finish(std::slice::from_ref(id), *now, turn.owe_notices);
        let named = due.into_iter().map(|(sweep, step)| SweepRef { deletion: id.clone(), sweep, step });
        ended.due.extend(named);
        let goes_on = is_held == Some(true) && ended.finished.is_empty();
        if is_held.is_some() && *then == SweepThen::HandOn {
            ended.due.push(SweepRef { deletion: id.clone(), sweep: *number, step: step + 1 });
        }
        let comes_back = is_held.is_none() || matches!(then, SweepThen::Retry { .. }) || goes_on;
        Ok(SweepTurnReply {
            is_recorded: is_held.is_some(),
            goes_on,
            proof: (!comes_back).then_some(Settled(())),
            ended,
        })
    }
}

/// Records the turn of whoever holds the sweep: whether it is still held afterwards. New sweeps go to `due`.
fn record_turn(
    deletion: &mut Deletion,
    turn: &SweepTurn<'_>,
    due: &mut Vec<(u32, u32)>,
) -> Result<bool, LedgerError> {
    let SweepTurn { grant, now, then, state, .. } = turn;
    let (number, step) = (grant.sweep.sweep, grant.sweep.step);
    let chunk_at = SWEEP_CHUNKS_FROM + number;
    let is_cancelled = deletion.cancelled_at.is_some();
    let planned = turn.planned.as_ref().filter(|_| !is_cancelled);
    for failed in &turn.failed {
        deletion.failures.entry(KeyCursor::at(0, chunk_at, failed.position)).or_insert_with(|| Failure {
            key_json: failed.key_json.clone(),
            code: failed.code,
            error: failed.error,
            attempts: turn.attempts,
            failed_at: *now,
        });
    }
    deletion.skip(chunk_at, &turn.skipped, *now);
    deletion.skip(chunk_at, planned.map(|page| page.skipped.as_slice()).unwrap_or_default(), *now);

    let split = turn.split.as_ref().filter(|_| !is_cancelled);
    let last = deletion.sweeps.last_key_value().map(|(last, _)| last + 1);
    if let (Some((_, others)), Some(sweep), Some(next)) = (split, deletion.sweeps.get(&number), last)
        && sweep.range == grant.range
        && sweep.ended_at.is_none()
    {
        let phase = sweep.phase;
        for (number, range) in (next..).zip(others) {
            deletion.sweeps.insert(number, Sweep::new(range.clone(), phase, Some(*now)));
            due.push((number, 0));
        }
    }
    let is_over = match then {
        SweepThen::EndPhase => match grant.phase {
            SweepPhase::Count => grant.dry_run,
            SweepPhase::Delete => !grant.verify,
            SweepPhase::Verify => true,
        },
        SweepThen::GiveUp => true,
        SweepThen::GoOn | SweepThen::HandOn | SweepThen::Retry { .. } => false,
    };
    let has_ended = matches!(then, SweepThen::EndPhase | SweepThen::GiveUp);
    let sweep = deletion.sweeps.get_mut(&number);
    if let Some(sweep) = sweep.filter(|sweep| sweep.step == step && sweep.ended_at.is_none()) {
        if let Some((range, _)) = split {
            sweep.range = range.clone();
        }
        sweep.progress = planned.map_or(&state.progress, |page| &page.progress).clone();
        sweep.step += u32::from(*then == SweepThen::HandOn);
        sweep.due_at = Some(if let SweepThen::Retry { due_at } = then { *due_at } else { *now });
        sweep.ended_at = has_ended.then_some(*now);
        sweep.finished_at = is_over.then_some(*now);
        sweep.tally = state.tally.clone();
    }
    let is_running = deletion.sweeps.get(&number).is_some_and(|sweep| sweep.ended_at.is_none());
    let next = usize::try_from(state.keys).unwrap_or(usize::MAX);
    let behind = KeyCursor::at(0, chunk_at, next)..KeyCursor::at(0, chunk_at + 1, 0);
    let planned_before = deletion.skips.range(behind).count() as u64;
    let Some(chunk) = deletion.chunks.get_mut(&(0, chunk_at)) else { return Ok(false) };
    let (keys, skipped) = match planned {
        Some(page) => (page.keys(), page.skipped.len() as u64),
        None if is_cancelled => (planned_before, planned_before),
        None => (0, 0),
    };
    chunk.keys = state.keys + keys;
    chunk.skipped = state.skipped + skipped;
    (chunk.deleted, chunk.failed) = (state.deleted, state.failed);
    chunk.last_error = state.last_error.filter(|_| !state.progress.page.is_empty());
    (chunk.digest, chunk.recorded_at) = (state.digest, Some(*now));
    chunk.finished_at = is_over.then_some(*now);
    let is_kept = *then == SweepThen::GoOn && !is_cancelled;
    if !is_kept {
        (chunk.claimed_by, chunk.claimed_until) = (None, Timestamp::default());
    }
    chunk.check()?;
    Ok(is_kept && is_running)
}
