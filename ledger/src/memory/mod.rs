//! The ledger in memory, without SQL: for simulations, where SQLite takes most of the time.
//!
//! It is written from what the traits and the statements say, statement by statement, and held equal to them by
//! `tests/memory.rs`, which asks both the same and compares all that they answer. What takes the SQL ledger two transactions is
//! one moment here.

mod sweeps;
mod tables;

use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeSet;

use protocol::limits::PART_CHUNKS_MAX;
use protocol::{
    ChunkRef, Counts, DeletionId, KeyDigest, NoticeRef, RequestId, State, SweepPhase, SweepRef, Timestamp,
    UnreadableReason,
};

use self::tables::{Chunk, Deletion, Failure, OutboxRow, Part, Skip, Sweep, Tables, count_errors};
use crate::admission::{EarlierRequest, Idempotency, NewDeletion, Sending};
use crate::claim::{ClaimBatch, ClaimReply, Settled};
use crate::cursor::KeyCursor;
use crate::database::LedgerError;
use crate::deletion::DeletionRecord;
use crate::failure::FailureRecord;
use crate::listing::{DeletionFilter, DeletionPage};
use crate::notice::{DueNotice, EARLY_MS, NoticeOutcome, NoticeReply};
use crate::outbox::OutboxPiece;
use crate::part::{Hold, NewPart, PartRecord, PartRef, Sealing};
use crate::record::{RecordBatch, RecordReply};
use crate::redrive::{BegunRedrive, FailureFilter, NewRedrive, RedrivableDeletion};
use crate::skip::SkipRecord;
use crate::sql_ledger::{ConsumerLedger, ProducerLedger, UpkeepLedger};
use crate::stats::{LedgerStats, NoticeStats, UnfinishedDeletion};
use crate::sweep::{SweepClaim, SweepReply, SweepTurn, SweepTurnReply};
use crate::unreadable::UnreadableRecord;
use crate::upkeep::LostPart;

/// The ledger in memory. No call of it waits.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    tables: RefCell<Tables>,
    /// Calls that may have changed what is said of a deletion.
    writes: Cell<usize>,
}

impl MemoryLedger {
    /// As long as this is the same, so is every [`DeletionRecord`]: a look at all of them can be saved.
    pub fn version(&self, now: Timestamp) -> (usize, usize) {
        let tables = self.tables.borrow();
        let chunks = tables.deletions.values().flat_map(|deletion| deletion.chunks.values());
        // Without a write claims can only end.
        (self.writes.get(), chunks.filter(|chunk| chunk.claimed_until > now).count())
    }

    /// For a call that may change what [`DeletionRecord`] says of a deletion.
    fn write(&self) -> RefMut<'_, Tables> {
        self.note_writes(1);
        self.tables.borrow_mut()
    }

    fn note_writes(&self, count: usize) {
        self.writes.set(self.writes.get() + count);
    }

    /// Whether nothing is kept but messages that nobody could read.
    pub fn is_empty(&self) -> bool {
        let tables = self.tables.borrow();
        tables.deletions.is_empty()
            && tables.idempotency_keys.is_empty()
            && tables.outbox.is_empty()
            && tables.notices.is_empty()
    }
}

impl Tables {
    fn part(&self, at: &PartRef) -> Option<&Part> {
        self.deletions.get(&at.deletion)?.parts.get(&(at.generation, at.part))
    }

    /// A part whose messages are not all sent.
    fn unsent(&mut self, at: &PartRef) -> Option<&mut Part> {
        let part = self.deletions.get_mut(&at.deletion)?.parts.get_mut(&(at.generation, at.part));
        part.filter(|part| part.enqueued_at.is_none())
    }

    fn messages(&self, at: &PartRef, piece: usize) -> Option<&OutboxRow> {
        let upload = self.part(at)?.upload.clone();
        self.outbox.get(&(upload, at.deletion.clone(), piece))
    }

    fn admit(&mut self, new: &NewDeletion) -> Result<bool, LedgerError> {
        if let Some(Idempotency { key, fingerprint }) = &new.idempotency {
            let at = (new.requested_by.clone(), key.clone());
            let made = (fingerprint.clone(), new.id.clone());
            let (_, deletion) = self.idempotency_keys.entry(at).or_insert(made);
            if *deletion != new.id {
                return Ok(self.deletions.contains_key(&new.id));
            }
        }
        if self.deletions.contains_key(&new.id) {
            return Err(LedgerError::new("UNIQUE constraint failed: deletions.id"));
        }
        let sweep = new.sweep.as_ref();
        let prefixes: Option<Vec<&str>> =
            sweep.map(|sweep| sweep.ranges.iter().map(|range| range.prefix.as_str()).collect());
        let prefixes = prefixes.map(|prefixes| serde_json::to_string(&prefixes)).transpose();
        let is_over = new.planned_keys.is_some() && sweep.is_none();
        let has_no_keys = new.part.as_ref().is_some_and(|part| part.keys() == 0);
        let counts_first =
            new.planned_keys.is_some() || sweep.is_some_and(|sweep| sweep.max_objects.is_some());
        let phase = if counts_first { SweepPhase::Count } else { SweepPhase::Delete };
        let ranges = sweep.map(|sweep| sweep.ranges.as_slice()).unwrap_or_default();
        let due_at = has_no_keys.then_some(new.not_before);
        let deletion = Deletion {
            requested_by: new.requested_by.clone(),
            requested_at: new.requested_at,
            not_before: new.not_before,
            generation: 0,
            fence: new.fence,
            labels: new.labels.clone(),
            prefixes: prefixes.map_err(|error| LedgerError::new(error.to_string()))?,
            max_objects: sweep.and_then(|sweep| sweep.max_objects),
            verify: new.verify,
            planned_keys: new.planned_keys.map(|keys| keys as u64),
            sealed_at: new.part.as_ref().map(|_| new.requested_at),
            cancelled_at: None,
            finished_at: is_over.then_some(new.requested_at),
            parts: new.part.iter().map(|part| ((0, 0), Part::new(part, None))).collect(),
            chunks: std::collections::BTreeMap::new(),
            sweeps: (0..).zip(ranges.iter().map(|range| Sweep::new(range.clone(), phase, due_at))).collect(),
            failures: std::collections::BTreeMap::new(),
            skips: std::collections::BTreeMap::new(),
        };
        self.deletions.insert(new.id.clone(), deletion);
        Ok(true)
    }

    fn seal(&mut self, id: &DeletionId, parts: u32, keys: u64, now: Timestamp) -> Sealing {
        let (mut is_sealed, mut records) = (false, Vec::new());
        if let Some(deletion) = self.deletions.get_mut(id) {
            let own = || deletion.parts.iter().filter(|((generation, _), _)| *generation == 0);
            let is_whole = own().count() == parts as usize
                && own().all(|(_, part)| part.enqueued_at.is_some())
                && own().map(|((_, number), _)| *number).max() == Some(parts)
                && own().map(|(_, part)| part.keys + part.duplicates_removed).sum::<u64>() == keys;
            records = own()
                .filter(|((_, number), _)| *number > 0)
                .map(|((_, number), part)| part.record(*number))
                .collect();
            if deletion.sealed_at.is_none() && deletion.cancelled_at.is_none() && is_whole {
                deletion.sealed_at = Some(now);
            }
            is_sealed = deletion.sealed_at.is_some();
        }
        let ended = self.finish(std::slice::from_ref(id), now, true);
        Sealing { is_sealed, parts: records, ended }
    }

    fn admit_redrive(&mut self, redrive: &NewRedrive) -> bool {
        let NewRedrive { deletion: id, generation, filter, last, part } = redrive;
        let Some(deletion) = self.deletions.get_mut(id) else { return false };
        let upload = part.upload.as_str();
        let is_taken = |(at, failure): &(&KeyCursor, &Failure)| {
            at.generation() < u64::from(*generation)
                && *at <= last
                && !failure.code.is_of_a_prefix()
                && filter.lets_through(failure)
        };
        let taken: Vec<KeyCursor> = deletion.failures.iter().filter(is_taken).map(|(at, _)| *at).collect();
        if deletion.generation + 1 == *generation
            && deletion.finished_at.is_some()
            && taken.len() == part.keys()
        {
            let part = Part { filter: *filter, ..Part::new(part, None) };
            deletion.parts.entry((*generation, 0)).or_insert(part);
        }
        if !deletion.part_by(*generation, upload) {
            return false;
        }
        for at in taken {
            deletion.failures.remove(&at);
        }
        if deletion.generation + 1 == *generation {
            deletion.generation = *generation;
            (deletion.finished_at, deletion.cancelled_at) = (None, None);
        }
        if deletion.verify {
            for sweep in deletion.sweeps.values_mut() {
                sweep.begin(SweepPhase::Verify, None);
                sweep.finished_at = None;
            }
            let of_sweeps = deletion.chunks.range_mut((0, protocol::SWEEP_CHUNKS_FROM)..(1, 0));
            of_sweeps.for_each(|(_, chunk)| chunk.finished_at = None);
        }
        self.notices.retain(|(of, ended), _| of != id || ended >= generation);
        true
    }

    fn claim(&mut self, batch: &ClaimBatch) -> Result<Vec<ClaimReply>, LedgerError> {
        let ClaimBatch { token, now, until, requests } = batch;
        for request in requests {
            let ChunkRef { deletion, generation, chunk } = &request.chunk;
            if let Some(deletion) = self.deletions.get_mut(deletion)
                && deletion.cancelled_at.is_none()
                && deletion.keys_of(*generation, *chunk) == Some(request.keys)
            {
                deletion.claim((*generation, *chunk), request.keys as u64, token, *now, *until);
            }
        }
        let reply = |request: &crate::claim::ClaimRequest| {
            let ChunkRef { deletion, generation, chunk } = &request.chunk;
            let Some(deletion) = self.deletions.get(deletion) else {
                return Ok(ClaimReply::NotAccepted(UnreadableReason::UnknownDeletion));
            };
            if deletion.keys_of(*generation, *chunk) != Some(request.keys) {
                return Ok(ClaimReply::NotAccepted(UnreadableReason::NotInDeletion));
            }
            let found = deletion.chunks.get(&(*generation, *chunk));
            let is_finished = found.is_some_and(|chunk| chunk.finished_at.is_some());
            if is_finished || deletion.cancelled_at.is_some() {
                return Ok(ClaimReply::NothingToDo(Settled(())));
            }
            let found =
                found.ok_or_else(|| LedgerError::new("a chunk that was just written is not there"))?;
            if found.claimed_by.as_ref() != Some(token) {
                return Ok(ClaimReply::ClaimedElsewhere { until: found.claimed_until });
            }
            Ok(ClaimReply::Granted(deletion.grant(request.chunk.clone(), request.keys, found)))
        };
        requests.iter().map(reply).collect()
    }

    fn record(&mut self, batch: &RecordBatch) -> Result<RecordReply, LedgerError> {
        let RecordBatch { token, now, outcomes, unreadable, owe_notices } = batch;
        let mut recorded = Vec::new();
        for outcome in outcomes {
            let ChunkRef { deletion: id, generation, chunk: number } = outcome.chunk();
            let place = |position| KeyCursor::at(*generation, *number, position);
            recorded.push(None);
            let Some(deletion) = self.deletions.get_mut(id) else { continue };
            let Some(chunk) = deletion.chunks.get_mut(&(*generation, *number)) else { continue };
            if !chunk.is_held_by(token, *now) {
                continue;
            }
            for failed in &outcome.failed {
                deletion.failures.entry(place(failed.position)).or_insert_with(|| Failure {
                    key_json: failed.key_json.clone(),
                    code: failed.code,
                    error: failed.error,
                    attempts: outcome.attempts,
                    failed_at: *now,
                });
            }
            for skipped in &outcome.skipped {
                deletion.skips.entry(place(skipped.position)).or_insert_with(|| Skip {
                    key_json: skipped.key_json.clone(),
                    uploaded_at: skipped.uploaded_at,
                    skipped_at: *now,
                });
            }
            let grant = &outcome.grant;
            let is_whole = outcome.undecided.is_empty();
            *chunk = Chunk {
                keys: chunk.keys,
                begun_at: chunk.begun_at,
                claimed_by: None,
                claimed_until: Timestamp::default(),
                deleted: (grant.deleted + outcome.deleted.len()) as u64,
                skipped: (grant.skipped + outcome.skipped.len()) as u64,
                failed: (grant.failed + outcome.failed.len()) as u64,
                undecided: Some(outcome.undecided.clone()),
                last_error: outcome.last_error.filter(|_| !is_whole),
                digest: grant.digest,
                recorded_at: Some(*now),
                finished_at: is_whole.then_some(*now),
            };
            chunk.check()?;
            if let Some(last) = recorded.last_mut() {
                *last = is_whole.then_some(Settled(()));
            }
        }
        for message in unreadable {
            self.unreadable.entry(message.message_id.clone()).or_insert_with(|| UnreadableRecord {
                message_id: message.message_id.clone(),
                queue: message.queue.clone(),
                reason: message.reason.as_str().to_owned(),
                body: message.body.clone(),
                attempts: message.attempts,
                received_at: *now,
            });
        }
        let ids: BTreeSet<&DeletionId> = outcomes.iter().map(|outcome| &outcome.chunk().deletion).collect();
        let ids: Vec<DeletionId> = ids.into_iter().cloned().collect();
        Ok(RecordReply {
            outcomes: recorded,
            unreadable: unreadable.iter().map(|_| Settled(())).collect(),
            ended: self.finish(&ids, *now, *owe_notices),
        })
    }

    fn list(
        &self,
        filter: &DeletionFilter<'_>,
        before: Option<&DeletionId>,
        limit: usize,
        now: Timestamp,
    ) -> Result<DeletionPage, LedgerError> {
        let DeletionFilter { requested_by, state, labels } = filter;
        let may_be = |deletion: &Deletion| match state {
            Some(State::Accepting) => deletion.is_open() && deletion.sealed_at.is_none(),
            Some(State::Queued) => deletion.is_open(),
            Some(State::Running) => deletion.is_open() && !deletion.chunks.is_empty(),
            Some(State::Cancelling | State::Cancelled) => deletion.cancelled_at.is_some(),
            Some(State::Planned) => deletion.planned_keys.is_some(),
            Some(State::Succeeded) => deletion.finished_at.is_some(),
            Some(State::Failed) => deletion.finished_at.is_some() && !deletion.failures.is_empty(),
            _ => true,
        };
        let candidates = self.deletions.iter().rev().filter(|(id, deletion)| {
            before.is_none_or(|before| *id < before)
                && requested_by.is_none_or(|name| deletion.requested_by == name)
                && labels.iter().all(|(name, value)| deletion.labels.get(name) == Some(value))
                && may_be(deletion)
        });
        let mut page: Vec<_> = candidates.take(limit + 1).collect();
        let more = page.len() > limit;
        page.truncate(limit);
        let next = page.last().filter(|_| more).map(|(id, _)| (*id).clone());
        let mut deletions = Vec::with_capacity(page.len());
        for (id, deletion) in page {
            deletions.push(deletion.record(id, now)?);
        }
        deletions.retain(|deletion| state.is_none_or(|state| state == deletion.state));
        Ok(DeletionPage { deletions, next })
    }

    fn stats(&self, requested_by: Option<&str>, now: Timestamp) -> LedgerStats {
        let is_own = |deletion: &Deletion| requested_by.is_none_or(|name| deletion.requested_by == name);
        let own = || self.deletions.iter().filter(|(_, deletion)| is_own(deletion));
        let mut states = State::ALL.map(|state| (state, 0));
        let mut keys = Counts::default();
        for (_, deletion) in own() {
            let (state, counts) = deletion.state(now);
            states.iter_mut().filter(|(listed, _)| *listed == state).for_each(|(_, count)| *count += 1);
            keys = keys.plus(counts);
        }
        let open = own().find(|(_, deletion)| deletion.is_open());
        let cancelling = own().find(|(_, deletion)| {
            deletion.cancelled_at.is_some() && deletion.finished_at.is_none() && deletion.is_in_flight(now)
        });
        let oldest = open.into_iter().chain(cancelling);
        let oldest = oldest.min_by_key(|(id, deletion)| (deletion.requested_at, (*id).clone()));
        let notices = || {
            let of = |id: &DeletionId| self.deletions.get(id).is_some_and(is_own);
            self.notices.iter().filter(move |((id, _), _)| of(id)).map(|(_, notice)| notice)
        };
        let failed = notices().filter(|notice| notice.failed_at.is_some()).count() as u64;
        LedgerStats {
            states: states.to_vec(),
            keys,
            oldest_unfinished: oldest.map(|(id, deletion)| UnfinishedDeletion {
                id: id.clone(),
                requested_at: deletion.requested_at,
            }),
            failures: count_errors(own().flat_map(|(_, deletion)| deletion.failures.values())),
            unreadable_messages: self.unreadable.len() as u64,
            notices: NoticeStats { owed: notices().count() as u64 - failed, failed },
        }
    }

    fn cancel_abandoned(&mut self, before: Timestamp, now: Timestamp) -> usize {
        let mut cancelled = 0;
        for deletion in self.deletions.values_mut() {
            if !deletion.is_open() || deletion.generation > 0 || deletion.requested_at > before {
                continue;
            }
            let is_abandoned = if deletion.sealed_at.is_none() {
                let moved_at = |part: &Part| part.enqueued_at.unwrap_or_default().max(part.sending_until);
                deletion.parts.values().all(|part| moved_at(part) <= before)
            } else {
                let part = deletion.parts.get(&(0, 0));
                part.is_some_and(|part| part.enqueued_at.is_none() && part.sending_until <= now)
            };
            if is_abandoned {
                deletion.cancelled_at = Some(now);
                cancelled += 1;
            }
        }
        let just_now = self.deletions.iter().filter(|(_, deletion)| deletion.cancelled_at == Some(now));
        let just_now: Vec<_> = just_now.map(|(id, deletion)| (id.clone(), deletion.generation)).collect();
        for (id, generation) in just_now {
            self.empty_outbox(&id);
            self.owe(&id, generation, now);
        }
        if !self.outbox.is_empty() {
            let oldest = RequestId::new(before, 0);
            self.discard(|upload| upload < oldest.as_str());
        }
        cancelled
    }

    fn lost(&self, before: Timestamp, now: Timestamp, limit: usize) -> Vec<LostPart> {
        let mut lost = Vec::new();
        for (id, deletion) in self.deletions.iter().filter(|(_, deletion)| deletion.is_open()) {
            for (&(generation, number), part) in &deletion.parts {
                let is_late = match part.enqueued_at {
                    None => generation > 0 && part.sending_until <= now,
                    Some(at) => at.max(deletion.not_before).max(part.resent_at.unwrap_or_default()) <= before,
                };
                let first = number * PART_CHUNKS_MAX;
                let chunks =
                    || deletion.chunks.range((generation, first)..(generation, first + PART_CHUNKS_MAX));
                let decided: u64 = chunks().map(|(_, chunk)| chunk.decided()).sum();
                if !is_late || part.keys <= decided {
                    continue;
                }
                let at_work = |number: u32| {
                    let chunk = deletion.chunks.get(&(generation, number));
                    chunk.is_some_and(|chunk| chunk.finished_at.is_some() || chunk.claimed_until > now)
                };
                let all = first..first + u32::try_from(part.chunk_keys.len()).unwrap_or(u32::MAX);
                let part = PartRef { deletion: id.clone(), generation, part: number };
                lost.push(LostPart { part, chunks: all.filter(|&number| !at_work(number)).collect() });
            }
        }
        lost.truncate(limit);
        lost
    }

    fn wake_sweeps(&mut self, before: Timestamp, now: Timestamp, limit: usize) -> Vec<SweepRef> {
        let mut due: Vec<(Timestamp, DeletionId, u32)> = Vec::new();
        for (id, deletion) in &self.deletions {
            let is_sent = deletion.parts.get(&(0, 0)).is_none_or(|part| part.enqueued_at.is_some());
            if !deletion.is_open() || (deletion.generation == 0 && !is_sent) {
                continue;
            }
            for (number, sweep) in &deletion.sweeps {
                let is_free = deletion.sweep_chunk(*number).is_none_or(|chunk| chunk.claimed_until <= now);
                if let Some(due_at) = sweep.due_at
                    && due_at <= before
                    && sweep.ended_at.is_none()
                    && is_free
                {
                    due.push((due_at, id.clone(), *number));
                }
            }
        }
        due.sort_by_key(|(due_at, ..)| *due_at);
        due.truncate(limit);
        due.sort_by(|(_, id, number), (_, other, others)| (id, number).cmp(&(other, others)));
        let mut woken = Vec::new();
        for (_, deletion, number) in due {
            let sweep = self.deletions.get_mut(&deletion).and_then(|found| found.sweeps.get_mut(&number));
            if let Some(sweep) = sweep {
                sweep.due_at = Some(now);
                woken.push(SweepRef { deletion, sweep: number, step: sweep.step });
            }
        }
        woken
    }

    fn wake_notices(&mut self, before: Timestamp, now: Timestamp, limit: usize) -> Vec<NoticeRef> {
        let owed =
            self.notices.iter().filter(|(_, notice)| notice.failed_at.is_none() && notice.due_at <= before);
        let mut due: Vec<_> = owed.map(|(at, notice)| (notice.due_at, at.clone())).collect();
        due.sort_by_key(|(due_at, _)| *due_at);
        due.truncate(limit);
        let due: BTreeSet<_> = due.into_iter().map(|(_, at)| at).collect();
        for at in &due {
            if let Some(notice) = self.notices.get_mut(at) {
                notice.due_at = now;
            }
        }
        due.into_iter().map(|(deletion, generation)| NoticeRef { deletion, generation }).collect()
    }

    fn remove_expired(&mut self, before: Timestamp, failed_before: Timestamp, limit: usize) -> usize {
        let is_expired = |deletion: &Deletion| {
            deletion.finished_at.is_some_and(|at| at <= failed_before)
                || deletion.cancelled_at.is_some_and(|at| at <= before)
                || deletion.finished_at.is_some_and(|at| at <= before) && deletion.failures.is_empty()
        };
        let expired = self.deletions.iter().filter(|(_, deletion)| is_expired(deletion));
        let expired: Vec<DeletionId> = expired.map(|(id, _)| id.clone()).take(limit).collect();
        for id in &expired {
            self.empty_outbox(id);
            self.deletions.remove(id);
            self.notices.retain(|(of, _), _| of != id);
            self.idempotency_keys.retain(|_, (_, of)| of != id);
        }
        expired.len()
    }
}

impl ProducerLedger for MemoryLedger {
    async fn fill_outbox(&self, piece: &OutboxPiece<'_>) -> Result<(), LedgerError> {
        let OutboxPiece { upload, part, piece, first_chunk, messages } = piece;
        let row = OutboxRow {
            generation: part.generation,
            part: part.part,
            first_chunk: *first_chunk,
            messages: messages.to_vec(),
        };
        let at = (upload.as_str().to_owned(), part.deletion.clone(), *piece);
        match self.tables.borrow_mut().outbox.insert(at, row) {
            None => Ok(()),
            Some(_) => Err(LedgerError::new("UNIQUE constraint failed: outbox")),
        }
    }

    async fn discard_outbox(&self, upload: &RequestId) -> Result<(), LedgerError> {
        self.tables.borrow_mut().discard(|other| other == upload.as_str());
        Ok(())
    }

    async fn admit_deletion(&self, deletion: &NewDeletion) -> Result<bool, LedgerError> {
        self.write().admit(deletion)
    }

    async fn admit_part(&self, at: &PartRef, part: &NewPart, fingerprint: &str) -> Result<bool, LedgerError> {
        let tables = &mut *self.write();
        let Some(deletion) = tables.deletions.get_mut(&at.deletion) else { return Ok(false) };
        let place = (at.generation, at.part);
        if deletion.sealed_at.is_none() && deletion.cancelled_at.is_none() {
            deletion.parts.entry(place).or_insert_with(|| Part::new(part, Some(fingerprint)));
        }
        Ok(deletion.parts.get(&place).is_some_and(|found| found.upload == part.upload.as_str()))
    }

    async fn find_part(&self, deletion: &DeletionId, part: u32) -> Result<Option<PartRecord>, LedgerError> {
        let tables = self.tables.borrow();
        let found = tables.deletions.get(deletion).and_then(|deletion| deletion.parts.get(&(0, part)));
        Ok(found.filter(|_| part > 0).map(|found| found.record(part)))
    }

    async fn seal_deletion(
        &self,
        deletion: &DeletionId,
        parts: u32,
        keys: u64,
        now: Timestamp,
    ) -> Result<Sealing, LedgerError> {
        Ok(self.write().seal(deletion, parts, keys, now))
    }

    async fn find_idempotency_key(
        &self,
        requested_by: &str,
        key: &str,
    ) -> Result<Option<EarlierRequest>, LedgerError> {
        let tables = self.tables.borrow();
        let found = tables.idempotency_keys.get(&(requested_by.to_owned(), key.to_owned()));
        let Some((fingerprint, id)) = found else { return Ok(None) };
        let Some(deletion) = tables.deletions.get(id) else { return Ok(None) };
        let unsent = deletion.parts.get(&(0, 0)).filter(|part| part.enqueued_at.is_none());
        let sending = match unsent {
            Some(part) if deletion.is_open() => Sending::Held { until: part.sending_until },
            _ => Sending::Done,
        };
        Ok(Some(EarlierRequest { deletion: id.clone(), fingerprint: fingerprint.clone(), sending }))
    }

    async fn hold_sending(
        &self,
        part: &PartRef,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Hold, LedgerError> {
        let tables = &mut *self.tables.borrow_mut();
        let Some(deletion) = tables.deletions.get_mut(&part.deletion) else { return Ok(Hold::Elsewhere) };
        let is_cancelled = deletion.cancelled_at.is_some();
        match deletion.parts.get_mut(&(part.generation, part.part)) {
            Some(found) if found.enqueued_at.is_some() => Ok(Hold::Sent),
            Some(found) if !is_cancelled && found.sending_until <= now => {
                found.sending_until = until;
                Ok(Hold::Taken { not_before: deletion.not_before })
            }
            _ => Ok(Hold::Elsewhere),
        }
    }

    async fn release_sending(&self, part: &PartRef) -> Result<(), LedgerError> {
        if let Some(part) = self.tables.borrow_mut().unsent(part) {
            part.sending_until = Timestamp::default();
        }
        Ok(())
    }

    async fn mark_enqueued(&self, part: &PartRef, now: Timestamp) -> Result<(), LedgerError> {
        if let Some(part) = self.tables.borrow_mut().unsent(part) {
            part.enqueued_at = Some(now);
        }
        Ok(())
    }

    async fn read_outbox(&self, part: &PartRef, piece: usize) -> Result<Option<Vec<String>>, LedgerError> {
        Ok(self.tables.borrow().messages(part, piece).map(|row| row.messages.clone()))
    }

    async fn cancel_deletion(&self, id: &DeletionId, now: Timestamp) -> Result<bool, LedgerError> {
        let tables = &mut *self.write();
        let open = tables.deletions.get_mut(id).filter(|deletion| deletion.is_open());
        let is_cancelled = open.map(|deletion| deletion.cancelled_at = Some(now)).is_some();
        tables.close(id, now, true);
        Ok(is_cancelled)
    }

    async fn find_deletion(
        &self,
        id: &DeletionId,
        now: Timestamp,
    ) -> Result<Option<DeletionRecord>, LedgerError> {
        self.tables.borrow().deletions.get(id).map(|deletion| deletion.record(id, now)).transpose()
    }

    async fn list_deletions(
        &self,
        filter: &DeletionFilter<'_>,
        before: Option<&DeletionId>,
        limit: usize,
        now: Timestamp,
    ) -> Result<DeletionPage, LedgerError> {
        self.tables.borrow().list(filter, before, limit, now)
    }

    async fn stats(&self, requested_by: Option<&str>, now: Timestamp) -> Result<LedgerStats, LedgerError> {
        Ok(self.tables.borrow().stats(requested_by, now))
    }

    async fn list_failures(
        &self,
        id: &DeletionId,
        filter: FailureFilter,
        after: Option<KeyCursor>,
        limit: usize,
    ) -> Result<Vec<FailureRecord>, LedgerError> {
        let tables = self.tables.borrow();
        let failures = tables.deletions.get(id).into_iter().flat_map(|deletion| &deletion.failures);
        let listed = failures
            .filter(|(at, failure)| after.is_none_or(|after| **at > after) && filter.lets_through(failure));
        let record = |(at, failure): (&KeyCursor, &Failure)| FailureRecord {
            key_json: failure.key_json.clone(),
            code: Some(failure.code),
            attempts: failure.attempts,
            failed_at: failure.failed_at,
            cursor: *at,
        };
        Ok(listed.take(limit).map(record).collect())
    }

    async fn admit_redrive(&self, redrive: &NewRedrive) -> Result<bool, LedgerError> {
        Ok(self.write().admit_redrive(redrive))
    }

    async fn list_redrivable(
        &self,
        filter: FailureFilter,
        limit: usize,
    ) -> Result<Vec<RedrivableDeletion>, LedgerError> {
        let tables = self.tables.borrow();
        let found = tables.deletions.iter().filter_map(|(id, deletion)| {
            if deletion.finished_at.is_none() {
                let generation = deletion.generation;
                let part = deletion
                    .parts
                    .get(&(generation, 0))
                    .filter(|_| generation > 0 && deletion.cancelled_at.is_none())?;
                let is_begun = part.enqueued_at.is_none() && filter.includes(&part.filter);
                let begun = Some(BegunRedrive { generation, sending_until: part.sending_until });
                return is_begun.then(|| RedrivableDeletion { id: id.clone(), failures: part.keys, begun });
            }
            let is_one = |failure: &&Failure| !failure.code.is_of_a_prefix() && filter.lets_through(failure);
            let failures = deletion.failures.values().filter(is_one).count() as u64;
            (failures > 0).then(|| RedrivableDeletion { id: id.clone(), failures, begun: None })
        });
        Ok(found.take(limit).collect())
    }

    async fn list_skips(
        &self,
        id: &DeletionId,
        after: Option<KeyCursor>,
        limit: usize,
    ) -> Result<Vec<SkipRecord>, LedgerError> {
        let tables = self.tables.borrow();
        let skips = tables.deletions.get(id).into_iter().flat_map(|deletion| &deletion.skips);
        let listed = skips.filter(|(at, _)| after.is_none_or(|after| **at > after));
        let record = |(at, skip): (&KeyCursor, &Skip)| SkipRecord {
            key_json: skip.key_json.clone(),
            uploaded_at: skip.uploaded_at,
            skipped_at: skip.skipped_at,
            cursor: *at,
        };
        Ok(listed.take(limit).map(record).collect())
    }

    async fn sum_digests(&self, id: &DeletionId) -> Result<Option<KeyDigest>, LedgerError> {
        let tables = self.tables.borrow();
        let chunks = tables.deletions.get(id).into_iter().flat_map(|deletion| deletion.chunks.values());
        Ok(chunks.filter_map(|chunk| chunk.digest).reduce(KeyDigest::plus))
    }

    async fn list_unreadable(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<UnreadableRecord>, LedgerError> {
        let tables = self.tables.borrow();
        let after = after.unwrap_or_default();
        let listed = tables.unreadable.values().filter(|message| message.message_id.as_str() > after);
        Ok(listed.take(limit).cloned().collect())
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        Ok(())
    }
}

impl ConsumerLedger for MemoryLedger {
    async fn claim(&self, batch: &ClaimBatch) -> Result<Vec<ClaimReply>, LedgerError> {
        self.write().claim(batch)
    }

    async fn record(&self, batch: &RecordBatch) -> Result<RecordReply, LedgerError> {
        self.write().record(batch)
    }

    async fn claim_sweep(&self, claim: &SweepClaim) -> Result<SweepReply, LedgerError> {
        self.write().claim_sweep(claim)
    }

    async fn known_keys(
        &self,
        deletion: &DeletionId,
        keys_json: &[String],
    ) -> Result<Vec<String>, LedgerError> {
        let tables = self.tables.borrow();
        let Some(deletion) = tables.deletions.get(deletion) else { return Ok(Vec::new()) };
        let failed = deletion.failures.values().map(|failure| &failure.key_json);
        let known: BTreeSet<&String> =
            failed.chain(deletion.skips.values().map(|skip| &skip.key_json)).collect();
        let asked: BTreeSet<&String> = keys_json.iter().collect();
        Ok(known.intersection(&asked).map(|&key| key.clone()).collect())
    }

    async fn turn_sweep(&self, turn: &SweepTurn<'_>) -> Result<SweepTurnReply, LedgerError> {
        self.write().turn_sweep(turn)
    }

    async fn find_notice(&self, notice: &NoticeRef, now: Timestamp) -> Result<NoticeReply, LedgerError> {
        let tables = self.tables.borrow();
        let NoticeRef { deletion: id, generation } = notice;
        let due = tables.notices.get(&(id.clone(), *generation));
        let due = due.filter(|due| due.failed_at.is_none() && due.due_at <= now.plus_millis(EARLY_MS));
        let deletion = tables.deletions.get(id).filter(|deletion| deletion.generation == *generation);
        let (Some(due), Some(deletion)) = (due, deletion) else {
            return Ok(NoticeReply::NothingToDo(Settled(())));
        };
        let deletion = deletion.record(id, now)?;
        if !deletion.state.is_final() {
            return Ok(NoticeReply::NotFinal);
        }
        Ok(NoticeReply::Due(Box::new(DueNotice { attempts: due.attempts, deletion })))
    }

    async fn record_notice(
        &self,
        notice: &NoticeRef,
        outcome: NoticeOutcome,
    ) -> Result<Settled, LedgerError> {
        let tables = &mut *self.tables.borrow_mut();
        let at = (notice.deletion.clone(), notice.generation);
        let (attempts, due_at, failed_at) = match outcome {
            NoticeOutcome::Done => {
                tables.notices.remove(&at);
                return Ok(Settled(()));
            }
            NoticeOutcome::Retry { attempts, due_at } => (attempts, due_at, None),
            NoticeOutcome::Failed { attempts, failed_at } => (attempts, failed_at, Some(failed_at)),
        };
        if let Some(found) = tables.notices.get_mut(&at)
            && found.attempts < attempts
            && found.failed_at.is_none()
        {
            (found.attempts, found.due_at, found.failed_at) = (attempts, due_at, failed_at);
        }
        Ok(Settled(()))
    }
}

impl UpkeepLedger for MemoryLedger {
    async fn cancel_abandoned(&self, before: Timestamp, now: Timestamp) -> Result<usize, LedgerError> {
        let cancelled = self.tables.borrow_mut().cancel_abandoned(before, now);
        self.note_writes(cancelled);
        Ok(cancelled)
    }

    async fn list_lost(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<LostPart>, LedgerError> {
        Ok(self.tables.borrow().lost(before, now, limit))
    }

    async fn read_lost(&self, lost: &LostPart, piece: usize) -> Result<Option<Vec<String>>, LedgerError> {
        let tables = self.tables.borrow();
        let Some(row) = tables.messages(&lost.part, piece) else { return Ok(None) };
        let wanted = (row.first_chunk..).zip(&row.messages).filter(|(chunk, _)| lost.chunks.contains(chunk));
        Ok(Some(wanted.map(|(_, body)| body.clone()).collect()))
    }

    async fn mark_resent(&self, part: &PartRef, now: Timestamp) -> Result<(), LedgerError> {
        let tables = &mut *self.tables.borrow_mut();
        let deletion = tables.deletions.get_mut(&part.deletion);
        if let Some(found) = deletion.and_then(|found| found.parts.get_mut(&(part.generation, part.part))) {
            found.resent_at = Some(now);
            found.enqueued_at.get_or_insert(now);
        }
        Ok(())
    }

    async fn wake_sweeps(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<SweepRef>, LedgerError> {
        Ok(self.tables.borrow_mut().wake_sweeps(before, now, limit))
    }

    async fn wake_notices(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<NoticeRef>, LedgerError> {
        Ok(self.tables.borrow_mut().wake_notices(before, now, limit))
    }

    async fn remove_expired(
        &self,
        before: Timestamp,
        failed_before: Timestamp,
        limit: usize,
    ) -> Result<usize, LedgerError> {
        let removed = self.tables.borrow_mut().remove_expired(before, failed_before, limit);
        self.note_writes(removed);
        Ok(removed)
    }
}
