//! The tables, and what is asked of one deletion's rows.

use std::collections::BTreeMap;

use protocol::limits::PART_CHUNKS_MAX;
use protocol::{
    ChunkRef, Counts, DeletionId, FailureCode, Fence, KeyDigest, Labels, Positions, Progress, R2Error,
    SWEEP_CHUNKS_FROM, State, SweepPhase, SweepRange, SweepRef, Timestamp,
};

use crate::admission::Sending;
use crate::claim::Grant;
use crate::cursor::KeyCursor;
use crate::database::LedgerError;
use crate::deletion::{DeletionRecord, ErrorCount, Plan, Verification};
use crate::part::{NewPart, PartRecord};
use crate::record::{Ended, FinishedDeletion};
use crate::redrive::FailureFilter;
use crate::sweep::{SweepProgress, SweepTally};
use crate::unreadable::UnreadableRecord;

/// How many keys a plan shows of those that were counted.
const SAMPLE_MAX: usize = 20;

#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) deletions: BTreeMap<DeletionId, Deletion>,
    /// By token and key: the fingerprint and the deletion.
    pub(super) idempotency_keys: BTreeMap<(String, String), (String, DeletionId)>,
    /// By upload, deletion and piece.
    pub(super) outbox: BTreeMap<(String, DeletionId, usize), OutboxRow>,
    /// By deletion and generation.
    pub(super) notices: BTreeMap<(DeletionId, u32), Notice>,
    pub(super) unreadable: BTreeMap<String, UnreadableRecord>,
}

#[derive(Debug)]
pub(super) struct OutboxRow {
    pub(super) generation: u32,
    pub(super) part: u32,
    pub(super) first_chunk: u32,
    pub(super) messages: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Notice {
    pub(super) attempts: u32,
    pub(super) due_at: Timestamp,
    pub(super) failed_at: Option<Timestamp>,
}

/// A deletion with all that is kept of it, but its notices and its messages.
#[derive(Debug)]
pub(super) struct Deletion {
    pub(super) requested_by: String,
    pub(super) requested_at: Timestamp,
    pub(super) not_before: Timestamp,
    pub(super) generation: u32,
    pub(super) fence: Fence,
    pub(super) labels: Labels,
    pub(super) prefixes: Option<String>,
    pub(super) max_objects: Option<u64>,
    pub(super) verify: bool,
    pub(super) planned_keys: Option<u64>,
    pub(super) sealed_at: Option<Timestamp>,
    pub(super) cancelled_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    /// By generation and number, as are its chunks.
    pub(super) parts: BTreeMap<(u32, u32), Part>,
    pub(super) chunks: BTreeMap<(u32, u32), Chunk>,
    pub(super) sweeps: BTreeMap<u32, Sweep>,
    pub(super) failures: BTreeMap<KeyCursor, Failure>,
    pub(super) skips: BTreeMap<KeyCursor, Skip>,
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) chunk_keys: Vec<usize>,
    pub(super) keys: u64,
    pub(super) duplicates_removed: u64,
    pub(super) fingerprint: Option<String>,
    /// Of a redrive.
    pub(super) filter: FailureFilter,
    pub(super) upload: String,
    pub(super) sending_until: Timestamp,
    pub(super) enqueued_at: Option<Timestamp>,
    pub(super) resent_at: Option<Timestamp>,
}

#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) keys: u64,
    pub(super) claimed_by: Option<String>,
    pub(super) claimed_until: Timestamp,
    pub(super) begun_at: Timestamp,
    pub(super) deleted: u64,
    pub(super) skipped: u64,
    pub(super) failed: u64,
    pub(super) undecided: Option<Positions>,
    pub(super) last_error: Option<R2Error>,
    pub(super) digest: Option<KeyDigest>,
    pub(super) recorded_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) struct Sweep {
    pub(super) range: SweepRange,
    pub(super) phase: SweepPhase,
    pub(super) step: u32,
    pub(super) due_at: Option<Timestamp>,
    pub(super) progress: SweepProgress,
    pub(super) tally: SweepTally,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) key_json: String,
    pub(super) code: FailureCode,
    pub(super) error: Option<R2Error>,
    pub(super) attempts: u32,
    pub(super) failed_at: Timestamp,
}

#[derive(Debug)]
pub(super) struct Skip {
    pub(super) key_json: String,
    pub(super) uploaded_at: Timestamp,
    pub(super) skipped_at: Timestamp,
}

impl FailureFilter {
    pub(super) fn lets_through(&self, failure: &Failure) -> bool {
        self.code.is_none_or(|code| code == failure.code)
            && self.failed_before.is_none_or(|before| failure.failed_at < before)
    }

    /// Whether it lets through whatever the other one does.
    pub(super) fn includes(&self, other: &Self) -> bool {
        self.code.is_none_or(|code| other.code == Some(code))
            && self
                .failed_before
                .is_none_or(|before| other.failed_before.is_some_and(|other| other <= before))
    }
}

impl Part {
    pub(super) fn new(part: &NewPart, fingerprint: Option<&str>) -> Self {
        Self {
            chunk_keys: part.chunk_keys.clone(),
            keys: part.keys() as u64,
            duplicates_removed: part.duplicates_removed as u64,
            fingerprint: fingerprint.map(str::to_owned),
            filter: FailureFilter::default(),
            upload: part.upload.as_str().to_owned(),
            sending_until: part.sending_until,
            enqueued_at: None,
            resent_at: None,
        }
    }

    pub(super) fn record(&self, part: u32) -> PartRecord {
        PartRecord {
            part,
            keys: self.keys,
            duplicates_removed: self.duplicates_removed,
            messages: self.chunk_keys.len() as u64,
            fingerprint: self.fingerprint.clone().unwrap_or_default(),
            sending: if self.enqueued_at.is_some() {
                Sending::Done
            } else {
                Sending::Held { until: self.sending_until }
            },
        }
    }
}

impl Chunk {
    pub(super) fn is_held_by(&self, token: &str, now: Timestamp) -> bool {
        self.claimed_by.as_deref() == Some(token) && self.claimed_until > now && self.finished_at.is_none()
    }

    pub(super) fn decided(&self) -> u64 {
        self.deleted + self.skipped + self.failed
    }

    /// The constraints of the table.
    pub(super) fn check(&self) -> Result<(), LedgerError> {
        let is_whole = self.finished_at.is_none() || self.decided() == self.keys;
        if self.decided() <= self.keys && is_whole {
            Ok(())
        } else {
            Err(LedgerError::new("CHECK constraint failed: chunks"))
        }
    }
}

impl Sweep {
    pub(super) fn new(range: SweepRange, phase: SweepPhase, due_at: Option<Timestamp>) -> Self {
        Self {
            range,
            phase,
            step: 0,
            due_at,
            progress: SweepProgress::default(),
            tally: SweepTally::default(),
            ended_at: None,
            finished_at: None,
        }
    }

    /// Begins another phase.
    pub(super) fn begin(&mut self, phase: SweepPhase, due_at: Option<Timestamp>) {
        (self.phase, self.step, self.due_at) = (phase, self.step + 1, due_at);
        (self.progress, self.tally) = (SweepProgress::default(), SweepTally::default());
        self.ended_at = None;
    }
}

impl Deletion {
    pub(super) fn is_open(&self) -> bool {
        self.finished_at.is_none() && self.cancelled_at.is_none()
    }

    pub(super) fn is_in_flight(&self, now: Timestamp) -> bool {
        self.chunks.values().any(|chunk| chunk.claimed_until > now)
    }

    pub(super) fn part_by(&self, generation: u32, upload: &str) -> bool {
        self.parts.get(&(generation, 0)).is_some_and(|part| part.upload == upload)
    }

    /// How many keys the chunk has of which a message says that it is one of this deletion.
    pub(super) fn keys_of(&self, generation: u32, chunk: u32) -> Option<usize> {
        let part = self.parts.get(&(generation, chunk / PART_CHUNKS_MAX))?;
        part.chunk_keys.get((chunk % PART_CHUNKS_MAX) as usize).copied()
    }

    /// Claims a chunk: a new one, or one that is not finished and in nobody's hands.
    pub(super) fn claim(&mut self, at: (u32, u32), keys: u64, token: &str, now: Timestamp, until: Timestamp) {
        let chunk =
            self.chunks.entry(at).or_insert_with(|| Chunk { keys, begun_at: now, ..Chunk::default() });
        if chunk.finished_at.is_none() && chunk.claimed_until <= now {
            (chunk.claimed_by, chunk.claimed_until) = (Some(token.to_owned()), until);
        }
    }

    pub(super) fn sweep_chunk(&self, sweep: u32) -> Option<&Chunk> {
        self.chunks.get(&(0, SWEEP_CHUNKS_FROM + sweep))
    }

    fn of_sweeps(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter().filter(|((_, chunk), _)| *chunk >= SWEEP_CHUNKS_FROM).map(|(_, chunk)| chunk)
    }

    pub(super) fn has_failed_sweep(&self) -> bool {
        self.chunks
            .iter()
            .any(|((generation, at), chunk)| *generation == 0 && *at >= SWEEP_CHUNKS_FROM && chunk.failed > 0)
    }

    fn keys_asked(&self) -> u64 {
        self.parts.iter().filter(|((generation, _), _)| *generation == 0).map(|(_, part)| part.keys).sum()
    }

    pub(super) fn is_every_key_decided(&self) -> bool {
        let named = self.chunks.iter().filter(|((_, chunk), _)| *chunk < SWEEP_CHUNKS_FROM);
        self.parts.values().map(|part| part.keys).sum::<u64>()
            == named.map(|(_, chunk)| chunk.decided()).sum::<u64>()
    }

    /// Ends it if nothing is left to do.
    fn finish(&mut self, id: &DeletionId, now: Timestamp) -> Option<FinishedDeletion> {
        let is_over = self.finished_at.is_none()
            && self.sealed_at.is_some()
            && self.sweeps.values().all(|sweep| sweep.finished_at.is_some())
            && self.is_every_key_decided();
        if !is_over {
            return None;
        }
        self.finished_at = Some(now);
        let total = self.keys_asked() + self.of_sweeps().map(|chunk| chunk.keys).sum::<u64>();
        let deleted = self.chunks.values().map(|chunk| chunk.deleted).sum();
        let skipped = self.chunks.values().map(|chunk| chunk.skipped).sum();
        Some(FinishedDeletion {
            id: id.clone(),
            generation: self.generation,
            requested_at: self.requested_at,
            counts: Counts::derive(total, deleted, skipped, total.saturating_sub(deleted + skipped), false),
            dry_run: self.planned_keys.is_some(),
        })
    }

    /// Its failures by code and R2's code.
    fn errors(&self) -> Vec<ErrorCount> {
        count_errors(self.failures.values())
    }

    pub(super) fn progress(&self, now: Timestamp) -> Progress {
        Progress {
            accepting: self.sealed_at.is_none(),
            sweeping: self.sweeps.values().any(|sweep| sweep.finished_at.is_none()),
            dry_run: self.planned_keys.is_some(),
            begun: !self.chunks.is_empty(),
            cancelled: self.cancelled_at.is_some(),
            in_flight: self.is_in_flight(now),
        }
    }

    pub(super) fn counts(&self, progress: Progress) -> Counts {
        let sum = |of: fn(&Chunk) -> u64| self.chunks.values().map(of).sum::<u64>();
        let found = self.of_sweeps().map(|chunk| chunk.keys).sum::<u64>();
        let redriven: u64 =
            self.parts.iter().filter(|((generation, _), _)| *generation > 0).map(|(_, part)| part.keys).sum();
        Counts::derive(
            self.keys_asked() + found,
            sum(|chunk| chunk.deleted),
            sum(|chunk| chunk.skipped),
            sum(|chunk| chunk.failed) - redriven,
            progress.cancelled && !progress.in_flight,
        )
    }

    pub(super) fn state(&self, now: Timestamp) -> (State, Counts) {
        let progress = self.progress(now);
        let counts = self.counts(progress);
        (State::derive(&counts, progress), counts)
    }

    pub(super) fn record(&self, id: &DeletionId, now: Timestamp) -> Result<DeletionRecord, LedgerError> {
        let (progress, (state, counts)) = (self.progress(now), self.state(now));
        let errors = self.errors();
        let of_prefixes = errors.iter().filter(|error| error.code.is_some_and(FailureCode::is_of_a_prefix));
        let prefixes_failed: u64 = of_prefixes.map(|error| error.count).sum();
        let found = self.of_sweeps().map(|chunk| chunk.keys).sum::<u64>();
        let tallies = || self.sweeps.values().map(|sweep| &sweep.tally);
        let objects = tallies().map(|tally| tally.objects).sum();
        let uploaded_since = tallies().map(|tally| tally.uploaded_since).sum();
        let recorded_at = self.chunks.values().filter_map(|chunk| chunk.recorded_at).max();
        let verified = self.sweeps.values().filter(|sweep| sweep.phase == SweepPhase::Verify);
        let verified_at = verified.filter_map(|sweep| sweep.finished_at).max();
        let sample: Vec<_> = tallies().flat_map(|tally| &tally.sample).take(SAMPLE_MAX).collect();
        let sample = serde_json::to_string(&sample).map_err(|error| LedgerError::new(error.to_string()))?;
        Ok(DeletionRecord {
            id: id.clone(),
            requested_by: self.requested_by.clone(),
            generation: self.generation,
            fence: self.fence,
            counts,
            state,
            duplicates_removed: self.parts.values().map(|part| part.duplicates_removed).sum(),
            messages: self.parts.values().map(|part| part.chunk_keys.len() as u64).sum(),
            requested_at: self.requested_at,
            not_before: self.not_before,
            started_at: self.chunks.values().map(|chunk| chunk.begun_at).min(),
            finished_at: if state == State::Cancelled {
                self.cancelled_at.max(recorded_at)
            } else {
                self.finished_at
            },
            errors,
            labels: self.labels.clone(),
            prefixes: self.prefixes.clone(),
            found: found.saturating_sub(prefixes_failed),
            plan: self.planned_keys.map(|keys| Plan {
                keys,
                objects,
                bytes: tallies().map(|tally| tally.bytes).sum(),
                uploaded_since,
                oldest_uploaded_at: tallies().filter_map(|tally| tally.oldest_at).min(),
                newest_uploaded_at: tallies().filter_map(|tally| tally.newest_at).max(),
                sample,
            }),
            verification: verified_at.filter(|_| !progress.sweeping).map(|verified_at| Verification {
                verified_at,
                objects_left: objects,
                uploaded_since,
            }),
        })
    }

    pub(super) fn grant(&self, claimed: ChunkRef, keys: usize, chunk: &Chunk) -> Grant {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Grant {
            chunk: claimed,
            undecided: chunk.undecided.clone().unwrap_or_else(|| Positions::all(keys)),
            last_error: chunk.last_error,
            digest: self.verify.then(|| chunk.digest.unwrap_or_default()),
            deleted: count(chunk.deleted),
            skipped: count(chunk.skipped),
            failed: count(chunk.failed),
        }
    }
}

/// Failures by code and R2's code, most first.
pub(super) fn count_errors<'f>(failures: impl Iterator<Item = &'f Failure>) -> Vec<ErrorCount> {
    let mut counts = BTreeMap::<(&str, Option<u32>), u64>::new();
    for failure in failures {
        *counts.entry((failure.code.as_str(), failure.error.map(R2Error::code))).or_default() += 1;
    }
    let errors = counts.into_iter().map(|((code, r2_code), count)| ErrorCount {
        code: FailureCode::from_text(code),
        r2_code,
        count,
    });
    let mut errors: Vec<_> = errors.collect();
    errors.sort_by_key(|error| std::cmp::Reverse(error.count));
    errors
}

impl Tables {
    /// Whether the part that these messages are meant for came by this request.
    pub(super) fn belongs(&self, upload: &str, deletion: &DeletionId, row: &OutboxRow) -> bool {
        let part =
            self.deletions.get(deletion).and_then(|found| found.parts.get(&(row.generation, row.part)));
        part.is_some_and(|part| part.upload == upload)
    }

    /// Removes those messages of requests that a condition finds whose part came otherwise or not at all.
    pub(super) fn discard(&mut self, condition: impl Fn(&str) -> bool) {
        let mut outbox = std::mem::take(&mut self.outbox);
        outbox.retain(|(upload, deletion, _), row| !condition(upload) || self.belongs(upload, deletion, row));
        self.outbox = outbox;
    }

    /// Removes the messages of a deletion.
    pub(super) fn empty_outbox(&mut self, id: &DeletionId) {
        let Some(deletion) = self.deletions.get(id) else { return };
        self.outbox.retain(|(upload, of, _), _| {
            of != id || !deletion.parts.values().any(|part| part.upload == *upload)
        });
    }

    /// Owes a notice.
    pub(super) fn owe(&mut self, id: &DeletionId, generation: u32, now: Timestamp) {
        let notice = Notice { attempts: 0, due_at: now, failed_at: None };
        self.notices.entry((id.clone(), generation)).or_insert(notice);
    }

    /// Gives up what was kept to send the keys of a deletion that is over, and owes the notice of an end that is now.
    pub(super) fn close(&mut self, id: &DeletionId, now: Timestamp, owe_notices: bool) {
        let Some(deletion) = self.deletions.get(id) else { return };
        let generation = deletion.generation;
        let ends_now = [deletion.finished_at, deletion.cancelled_at].contains(&Some(now));
        if !deletion.is_open() {
            self.empty_outbox(id);
        }
        if owe_notices && ends_now {
            self.owe(id, generation, now);
        }
    }

    /// What follows when the last key is decided: of each of these, in their order.
    pub(super) fn finish(&mut self, ids: &[DeletionId], now: Timestamp, owe_notices: bool) -> Ended {
        let mut ended = Ended::default();
        for id in ids {
            let Some(deletion) = self.deletions.get_mut(id) else { continue };
            ended.finished.extend(deletion.finish(id, now));
            if deletion.is_open() && deletion.sealed_at.is_some() && deletion.is_every_key_decided() {
                let waiting = deletion.sweeps.iter_mut();
                for (number, sweep) in
                    waiting.filter(|(_, sweep)| sweep.due_at.is_none() && sweep.ended_at.is_none())
                {
                    sweep.due_at = Some(now);
                    ended.due.push(SweepRef { deletion: id.clone(), sweep: *number, step: sweep.step });
                }
            }
            self.close(id, now, owe_notices);
        }
        ended
    }
}
