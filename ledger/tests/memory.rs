//! The ledger in memory answers whatever the SQL answers: both are asked the same, in any order, and all that can be seen of
//! them is compared after every call.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::range_plus_one,
    reason = "a panic is how a test fails, and all numbers here are small"
)]

use std::fmt::Debug;

use futures::executor::block_on;
use ledger::{
    ChunkOutcome, ClaimBatch, ClaimReply, ClaimRequest, ConsumerLedger, DeletionFilter, DeletionPage,
    FailedKey, FailureFilter, Grant, Idempotency, ListedObject, MemoryLedger, NewDeletion, NewPart,
    NewRedrive, NewSweep, NoticeOutcome, OutboxPiece, PartRef, ProducerLedger, RecordBatch, SkippedKey,
    SqlLedger, SqliteDatabase, SweepClaim, SweepGrant, SweepReply, SweepThen, SweepTurn, UnreadableMessage,
    UpkeepLedger,
};
use proptest::prelude::*;
use protocol::{
    ChunkRef, DeletionId, FailureCode, Fence, Labels, NoticeRef, R2Error, RequestId, State, SweepRange,
    SweepRef, Timestamp, UnreadableReason,
};

const BEGINS_AT: u64 = 1_763_930_000_000;

/// What an operation is made of. Whatever is taken beyond its end is 0, the simplest.
#[derive(Clone, Debug)]
struct Choices(std::vec::IntoIter<u8>);

impl Choices {
    fn below(&mut self, most: usize) -> usize {
        usize::from(self.0.next().unwrap_or_default()) % most.max(1)
    }

    fn is(&mut self) -> bool {
        self.below(2) == 1
    }

    /// One of `all`; the last ones are the likelier.
    fn of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        let back = self.below(256) * self.below(256) * all.len() / 65_536;
        all.get(all.len().checked_sub(back + 1)?).cloned()
    }
}

struct Both {
    sql: SqlLedger<SqliteDatabase>,
    memory: MemoryLedger,
    now: Timestamp,
    number: u128,
    ids: Vec<DeletionId>,
    parts: Vec<PartRef>,
    uploads: Vec<RequestId>,
    chunks: Vec<ClaimRequest>,
    sweeps: Vec<SweepRef>,
    grants: Vec<(String, Grant)>,
    sweep_grants: Vec<(String, SweepGrant)>,
    notices: Vec<NoticeRef>,
    /// What was last seen, and the version of the ledger in memory then.
    seen: Option<((usize, usize), DeletionPage)>,
}

/// Asks both the same, the arguments evaluated twice: one answer, or a panic.
macro_rules! both {
    ($both:expr, $method:ident($($argument:expr),*)) => {{
        let sql = block_on($both.sql.$method($($argument),*));
        let memory = block_on($both.memory.$method($($argument),*));
        assert_eq!(sql.is_ok(), memory.is_ok(), "{}: {sql:?} {memory:?}", stringify!($method));
        if sql.is_ok() {
            assert_eq!(text(&sql), text(&memory), "{}", stringify!($method));
        }
        sql
    }};
}

fn text(answer: &impl Debug) -> String {
    format!("{answer:#?}")
}

impl Both {
    fn new() -> Self {
        Self {
            sql: SqlLedger::new(SqliteDatabase::in_memory().unwrap()),
            memory: MemoryLedger::default(),
            now: Timestamp::from_millis(BEGINS_AT),
            number: 0,
            ids: Vec::new(),
            parts: Vec::new(),
            uploads: Vec::new(),
            chunks: Vec::new(),
            sweeps: Vec::new(),
            grants: Vec::new(),
            sweep_grants: Vec::new(),
            notices: Vec::new(),
            seen: None,
        }
    }

    fn next(&mut self) -> u128 {
        self.number += 1;
        self.number
    }

    /// A part with its messages in the outbox.
    fn new_part(&mut self, at: &PartRef, chunk_keys: Vec<usize>, choices: &mut Choices) -> NewPart {
        let upload = RequestId::new(self.now, self.next());
        let messages: Vec<String> =
            (0..chunk_keys.len().max(1)).map(|n| format!("{{\"chunk\":{n}}}")).collect();
        let first_chunk = at.first_chunk();
        for (piece, messages) in messages.chunks(2).enumerate() {
            let row = OutboxPiece {
                upload: &upload,
                part: at,
                piece,
                first_chunk: first_chunk + 2 * piece as u32,
                messages,
            };
            let _ = both!(self, fill_outbox(&row));
        }
        self.uploads.push(upload.clone());
        self.parts.push(at.clone());
        for (chunk, keys) in (first_chunk..).zip(&chunk_keys) {
            let chunk = ChunkRef { deletion: at.deletion.clone(), generation: at.generation, chunk };
            self.chunks.push(ClaimRequest { chunk, keys: *keys });
        }
        let sending_until = self.now.plus_millis(if choices.is() { 60_000 } else { 0 });
        NewPart { upload, chunk_keys, duplicates_removed: choices.below(2), sending_until }
    }

    fn chunk_keys(choices: &mut Choices) -> Vec<usize> {
        (0..choices.below(3) + 1).map(|_| choices.below(4) + 1).collect()
    }

    fn admit(&mut self, choices: &mut Choices) {
        let id = DeletionId::new(self.now, self.next());
        let kind = choices.below(6);
        let ranges = || ["a/", "b/", "é\u{1}\"/"].map(SweepRange::of).into_iter();
        let sweep = (kind >= 3).then(|| NewSweep {
            ranges: ranges().take(choices.below(3) + 1).collect(),
            max_objects: choices.is().then(|| choices.below(4) as u64),
        });
        let chunk_keys = if kind == 3 || kind == 4 { Vec::new() } else { Self::chunk_keys(choices) };
        let in_parts = kind == 1;
        let part = (!in_parts).then(|| self.new_part(&PartRef::request(&id), chunk_keys, choices));
        let dry_run = choices.below(6) == 5 && !in_parts;
        let labels = [("team", "red"), ("team", "blue"), ("run", "1")];
        let labels: Labels = labels
            .iter()
            .take(choices.below(4))
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let deletion = NewDeletion {
            id: id.clone(),
            requested_by: ["backend", "ops"][choices.below(2)].to_owned(),
            requested_at: self.now,
            not_before: self.now.plus_millis([0, 0, 30_000][choices.below(3)]),
            fence: Fence::ALL[choices.below(Fence::ALL.len())],
            part,
            verify: sweep.is_some() && choices.is(),
            planned_keys: dry_run.then(|| choices.below(5)),
            labels,
            idempotency: choices.is().then(|| Idempotency {
                key: ["one", "two"][choices.below(2)].to_owned(),
                fingerprint: ["x", "y"][choices.below(2)].to_owned(),
            }),
            sweep,
        };
        let _ = both!(self, admit_deletion(&deletion));
        let swept = deletion.sweep.map_or(0, |sweep| sweep.ranges.len() as u32);
        self.sweeps.extend((0..swept).map(|sweep| SweepRef::first(&id, sweep)));
        self.notices.push(NoticeRef { deletion: id.clone(), generation: 0 });
        self.ids.push(id);
    }

    fn put_part(&mut self, choices: &mut Choices) {
        let Some(deletion) = choices.of(&self.ids) else { return };
        let at = PartRef { deletion, generation: 0, part: choices.below(3) as u32 + 1 };
        let chunk_keys = Self::chunk_keys(choices);
        let part = self.new_part(&at, chunk_keys, choices);
        let is_put = both!(self, admit_part(&at, &part, "print"));
        if is_put == Ok(false) {
            let _ = both!(self, discard_outbox(&part.upload));
        }
    }

    fn seal(&mut self, choices: &mut Choices) {
        let Some(id) = choices.of(&self.ids) else { return };
        let parts: Vec<_> = (1..5).map_while(|part| both!(self, find_part(&id, part)).unwrap()).collect();
        let keys: u64 = parts.iter().map(|part| part.keys + part.duplicates_removed).sum();
        let wrong = choices.below(5) == 4;
        let parts = parts.len() as u32;
        if choices.below(4) > 0 {
            for part in 1..=parts {
                let part = PartRef { deletion: id.clone(), generation: 0, part };
                let _ = both!(self, mark_enqueued(&part, self.now));
            }
        }
        let sealing = both!(self, seal_deletion(&id, parts, keys + u64::from(wrong), self.now));
        self.sweeps.extend(sealing.unwrap().ended.due);
    }

    fn claim(&mut self, choices: &mut Choices) {
        let mut requests: Vec<ClaimRequest> = Vec::new();
        for _ in 0..choices.below(3) + 1 {
            let Some(mut request) = choices.of(&self.chunks) else { return };
            request.keys += usize::from(choices.below(16) == 15);
            request.chunk.chunk += u32::from(choices.below(32) == 31);
            if requests.iter().all(|other| other.chunk != request.chunk) {
                requests.push(request);
            }
        }
        let token = format!("t{}", if choices.below(8) == 7 { 0 } else { self.next() });
        let batch =
            ClaimBatch { token: token.clone(), now: self.now, until: self.now.plus_millis(10_000), requests };
        let sql = block_on(self.sql.claim(&batch)).unwrap();
        let memory = block_on(self.memory.claim(&batch)).unwrap();
        assert_eq!(text(&sql), text(&memory));
        for reply in memory {
            if let ClaimReply::Granted(grant) = reply {
                self.grants.push((token.clone(), grant));
            }
        }
    }

    fn record(&mut self, choices: &mut Choices) {
        let Some((token, _)) = choices.of(&self.grants) else { return };
        let grants: Vec<_> = self.grants.iter().filter(|(of, _)| *of == token).cloned().collect();
        let mut outcomes = Vec::<ChunkOutcome>::new();
        for (_, grant) in grants {
            if outcomes.iter().any(|outcome| *outcome.chunk() == grant.chunk) {
                continue;
            }
            let (mut deleted, mut skipped, mut failed) = (Vec::new(), Vec::new(), Vec::new());
            for position in grant.undecided.iter() {
                let key_json = format!("\"a/{position}é\"");
                match choices.below(6) {
                    0..3 => deleted.push(position),
                    3 => skipped.push(SkippedKey { position, key_json, uploaded_at: self.now }),
                    4 => failed.push(FailedKey {
                        position,
                        key_json,
                        code: FailureCode::ALL[choices.below(6)],
                        error: choices.is().then_some(R2Error::Internal),
                    }),
                    _ => {}
                }
            }
            let error = choices.is().then_some(R2Error::Internal);
            let outcome = ChunkOutcome::new(grant, deleted, failed, error, choices.below(3) as u32 + 1);
            outcomes.push(outcome.with_skipped(skipped).with_digest(|_| Some("a key")));
        }
        let unreadable = (choices.below(8) == 7).then(|| UnreadableMessage {
            message_id: format!("m{}", choices.below(4)),
            queue: "r2-deletions".to_owned(),
            reason: UnreadableReason::InvalidMessage,
            body: "half".to_owned(),
            attempts: 1,
        });
        let owe_notices = choices.below(4) > 0;
        let unreadable = unreadable.into_iter().collect();
        let batch = RecordBatch { token, now: self.now, outcomes, unreadable, owe_notices };
        let reply = both!(self, record(&batch)).unwrap();
        self.sweeps.extend(reply.ended.due);
    }

    fn claim_sweep(&mut self, choices: &mut Choices) {
        let Some(mut sweep) = choices.of(&self.sweeps) else { return };
        sweep.sweep += u32::from(choices.below(32) == 31);
        let token = format!("s{}", self.next());
        let until = self.now.plus_millis(10_000);
        let claim = SweepClaim { sweep, token: token.clone(), now: self.now, until };
        let sql = block_on(self.sql.claim_sweep(&claim)).unwrap();
        let memory = block_on(self.memory.claim_sweep(&claim)).unwrap();
        assert_eq!(text(&sql), text(&memory));
        if let (SweepReply::Granted(sql), SweepReply::Granted(memory)) = (sql, memory) {
            assert_eq!(sql, memory);
            self.sweep_grants.push((token, *memory));
        }
    }

    fn turn_sweep(&mut self, choices: &mut Choices) {
        let Some((token, grant)) = choices.of(&self.sweep_grants) else { return };
        let mut state = grant.state.clone();
        let (mut deleted, mut skipped, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for at in 0..state.progress.page.len() {
            match choices.below(6) {
                0..3 => deleted.push(at),
                3 => skipped.push((at, self.now)),
                4 => failed.push((at, FailureCode::ALL[choices.below(6)], Some(R2Error::Internal))),
                _ => {}
            }
        }
        let (skipped, mut failed) = state.settle(&deleted, &skipped, &failed).unwrap();
        if choices.is() {
            let object = ListedObject { key: "a/é".to_owned(), size: 3, uploaded_at: self.now };
            state.tally.count(&object, choices.is());
        }
        let then = match choices.below(8) {
            0 | 1 => SweepThen::HandOn,
            2 => SweepThen::Retry { due_at: self.now.plus_millis(30_000) },
            3 | 4 if state.progress.page.is_empty() => SweepThen::EndPhase,
            5 => SweepThen::GiveUp,
            _ => SweepThen::GoOn,
        };
        if then == SweepThen::GiveUp {
            failed.extend(state.give_up(&grant.range).unwrap());
        }
        let may_plan = matches!(then, SweepThen::GoOn | SweepThen::HandOn) && state.progress.page.is_empty();
        let planned = (may_plan && choices.is()).then(|| {
            let old = (0..choices.below(3)).map(|n| format!("a/{n}é")).collect();
            let newer = (0..choices.below(2)).map(|n| (format!("a/new{n}"), self.now)).collect();
            state.plan(state.progress.clone(), old, newer).unwrap()
        });
        let split = (choices.below(4) == 3).then(|| {
            let mut range = grant.range.clone();
            let others =
                range.split([format!("{}m", grant.range.prefix), format!("{}s", grant.range.prefix)]);
            (range, others)
        });
        let turn = SweepTurn {
            grant: &grant,
            token: &token,
            now: self.now,
            attempts: 1,
            state: &state,
            failed,
            skipped,
            planned,
            split: split.filter(|(_, others)| !others.is_empty()),
            then,
            owe_notices: choices.below(4) > 0,
        };
        let mut reply = both!(self, turn_sweep(&turn)).unwrap();
        // Its answer was lost, and now and then it was cancelled meanwhile.
        if choices.below(6) == 5 {
            if choices.is() {
                let _ = both!(self, cancel_deletion(&grant.sweep.deletion, self.now));
            }
            reply = both!(self, turn_sweep(&turn)).unwrap();
        }
        if reply.goes_on {
            let SweepTurn { planned, split, .. } = turn;
            let range = split.map_or_else(|| grant.range.clone(), |(range, _)| range);
            if let Some(page) = planned {
                state.take(page);
            }
            self.sweep_grants.push((token, SweepGrant { range, state, ..grant }));
        }
        self.sweeps.extend(reply.ended.due);
    }

    fn redrive(&mut self, choices: &mut Choices) {
        let Some(id) = choices.of(&self.ids) else { return };
        let filter = FailureFilter {
            code: (choices.below(4) == 3).then(|| FailureCode::ALL[choices.below(8)]),
            failed_before: (choices.below(4) == 3).then_some(self.now),
        };
        let limit = choices.below(4) + 1;
        let failures = both!(self, list_failures(&id, filter, None, limit)).unwrap();
        let Some(deletion) = both!(self, find_deletion(&id, self.now)).unwrap() else { return };
        let Some(last) = failures.last() else { return };
        let is_key = |code: Option<FailureCode>| code.is_none_or(|code| !code.is_of_a_prefix());
        let keys = failures.iter().filter(|failure| is_key(failure.code)).count()
            + usize::from(choices.below(8) == 7);
        let at = PartRef { deletion: id.clone(), generation: deletion.generation + 1, part: 0 };
        if keys == 0 {
            return;
        }
        let part = self.new_part(&at, vec![keys], choices);
        let redrive = NewRedrive { deletion: id, generation: at.generation, filter, last: last.cursor, part };
        let _ = both!(self, admit_redrive(&redrive));
        if choices.below(4) == 3 {
            let _ = both!(self, admit_redrive(&redrive));
        }
        self.notices.push(NoticeRef { deletion: at.deletion, generation: at.generation });
    }

    fn send(&mut self, choices: &mut Choices) {
        let Some(part) = choices.of(&self.parts) else { return };
        match choices.below(4) {
            0 => drop(both!(self, release_sending(&part))),
            1 => {
                let _ = both!(self, hold_sending(&part, self.now, self.now.plus_millis(60_000)));
            }
            2 => {
                if let Some(upload) = choices.of(&self.uploads) {
                    let _ = both!(self, discard_outbox(&upload));
                }
            }
            _ => drop(both!(self, mark_enqueued(&part, self.now))),
        }
    }

    fn notice(&mut self, choices: &mut Choices) {
        let Some(notice) = choices.of(&self.notices) else { return };
        let _ = both!(self, find_notice(&notice, self.now));
        let attempts = choices.below(3) as u32;
        let outcome = match choices.below(4) {
            0 => NoticeOutcome::Done,
            1 => NoticeOutcome::Failed { attempts, failed_at: self.now },
            2 => NoticeOutcome::Retry { attempts, due_at: self.now.plus_millis(60_000) },
            _ => return,
        };
        let _ = both!(self, record_notice(&notice, outcome));
    }

    fn look_after(&mut self, choices: &mut Choices) {
        let now = self.now;
        let ago = |choices: &mut Choices| {
            let spans = [0, 1_000, 60_000, 3_600_000, 86_400_000];
            Timestamp::from_millis(now.as_millis() - spans[choices.below(spans.len())])
        };
        let (before, limit) = (ago(choices), choices.below(3) + 1);
        match choices.below(6) {
            0 => drop(both!(self, cancel_abandoned(before, now))),
            1 | 2 => {
                let lost = both!(self, list_lost(before, now, limit)).unwrap();
                for lost in lost {
                    let piece = choices.below(2);
                    let _ = both!(self, read_lost(&lost, piece));
                    let _ = both!(self, mark_resent(&lost.part, now));
                }
            }
            3 => {
                self.sweeps.extend(both!(self, wake_sweeps(before, now, 100)).unwrap());
            }
            4 => drop(both!(self, wake_notices(before, now, 100))),
            _ => {
                let failed_before = before.min(ago(choices));
                let _ = both!(self, remove_expired(before, failed_before, limit));
            }
        }
    }

    fn pass(&mut self, choices: &mut Choices) {
        let spans = [1, 1_000, 11_000, 61_000, 3_600_000, 86_400_000];
        self.now = self.now.plus_millis(spans[choices.below(spans.len())]);
    }

    fn step(&mut self, kind: u8, choices: &mut Choices) {
        match kind {
            0 | 1 => self.admit(choices),
            2 => self.put_part(choices),
            3 => self.seal(choices),
            4..7 => self.claim(choices),
            7..10 => self.record(choices),
            10..12 => self.claim_sweep(choices),
            12..15 => self.turn_sweep(choices),
            15 => self.redrive(choices),
            16 | 17 => self.send(choices),
            18 => self.notice(choices),
            19 | 20 => self.look_after(choices),
            21 => {
                if let Some(id) = choices.of(&self.ids) {
                    let _ = both!(self, cancel_deletion(&id, self.now));
                }
            }
            _ => self.pass(choices),
        }
        self.compare(choices);
    }

    /// All that can be seen.
    fn compare(&mut self, choices: &mut Choices) {
        let now = self.now;
        let everything = DeletionFilter::default();
        let all = both!(self, list_deletions(&everything, None, 1_000, now)).unwrap();
        let version = self.memory.version(now);
        if let Some((_, seen)) = self.seen.replace((version, all.clone())).filter(|(of, _)| *of == version) {
            assert_eq!(seen, all, "another page, and no other version");
        }
        for deletion in &all.deletions {
            let id = &deletion.id;
            let _ = both!(self, find_deletion(id, now));
            let failures = both!(self, list_failures(id, FailureFilter::default(), None, 1_000)).unwrap();
            let skips = both!(self, list_skips(id, None, 1_000)).unwrap();
            let after = failures.first().map(|failure| failure.cursor);
            let _ = both!(self, list_failures(id, FailureFilter::default(), after, 1));
            let _ = both!(self, list_skips(id, skips.first().map(|skip| skip.cursor), 1));
            let keys: Vec<String> = failures.iter().map(|failure| failure.key_json.clone()).collect();
            let _ = both!(self, known_keys(id, &[keys.as_slice(), &["\"a/0é\"".to_owned()]].concat()));
            let _ = both!(self, sum_digests(id));
        }
        for part in &self.parts {
            for piece in 0..2 {
                let _ = both!(self, read_outbox(part, piece));
            }
            let _ = both!(self, find_part(&part.deletion, part.part));
        }
        for key in ["one", "two"] {
            let _ = both!(self, find_idempotency_key("backend", key));
        }
        let filter = DeletionFilter {
            requested_by: choices.is().then_some("backend"),
            state: choices.is().then(|| State::ALL[choices.below(8)]),
            labels: [("team".to_owned(), "red".to_owned())].into_iter().take(choices.below(2)).collect(),
        };
        let before = choices.of(&self.ids);
        let limit = choices.below(3) + 1;
        let _ = both!(self, list_deletions(&filter, before.as_ref(), limit, now));
        let _ = both!(self, stats(filter.requested_by, now));
        let code = (choices.below(3) == 2).then(|| FailureCode::ALL[choices.below(8)]);
        let failed_before = (choices.below(3) == 2).then_some(now);
        let _ = both!(self, list_redrivable(FailureFilter { code, failed_before }, 2));
        let _ = both!(self, list_unreadable(None, 10));
        let _ = both!(self, ping());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_in_memory_answers_what_the_sql_answers(
        steps in proptest::collection::vec((0_u8..24, proptest::collection::vec(any::<u8>(), 0..24)), 1..80),
    ) {
        let mut both = Both::new();
        for (kind, choices) in steps {
            both.step(kind, &mut Choices(choices.into_iter()));
        }
    }
}
