//! The model's ledger answers as the SQL does, to whatever is asked of both in whatever order.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use futures::executor::block_on;
use ledger::{
    ChunkOutcome, ClaimBatch, ClaimReply, ClaimRequest, ConsumerLedger as _, FailedKey, FailureFilter, Grant,
    NewDeletion, NewPart, NewRedrive, ProducerLedger as _, RecordBatch, SkippedKey, SqlLedger,
    SqliteDatabase,
};
use model::{ChunkName, Keys, Ledger, Outcome, Reply};
use proptest::prelude::*;
use protocol::{ChunkRef, DeletionId, FailureCode, Fence, Labels, RequestId, Timestamp};

const LEASE_MS: u64 = 1_000;
/// The chunks of the request.
const CHUNKS: [Keys; 2] = [Keys::range(0, 2), Keys::range(2, 1)];

/// What is asked of both. Invocations are three; each has at most one chunk, as in the model.
#[derive(Clone, Copy, Debug)]
enum Ask {
    /// An invocation claims a chunk, by a message with so many keys too many.
    Claim(usize, ChunkName, u8),
    /// It records what of its grant it has decided: for each key in turn nothing, deleted, skipped or failed.
    Record(usize, [u8; 2]),
    /// Every claim ends.
    Expire,
    Cancel,
    /// Failures are listed, as a redrive does it.
    List,
    /// What was listed is admitted.
    Redrive,
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let worker = 0..3_usize;
    let claim = (worker.clone(), 0..3_u8, 0..3_u8, prop_oneof![9 => Just(0_u8), 1 => Just(1)]).prop_map(
        |(worker, generation, chunk, more)| Ask::Claim(worker, ChunkName { generation, chunk }, more),
    );
    let record =
        (worker, any::<[u8; 2]>()).prop_map(|(worker, ways)| Ask::Record(worker, ways.map(|way| way % 4)));
    let ask = prop_oneof![
        8 => claim,
        8 => record,
        1 => Just(Ask::Expire),
        1 => Just(Ask::Cancel),
        2 => Just(Ask::List),
        2 => Just(Ask::Redrive),
    ];
    prop::collection::vec(ask, 1..60)
}

/// An invocation: what it was granted, and in the model whether the claim still stands.
#[derive(Default)]
struct Worker {
    grant: Option<(ChunkName, Keys, Grant)>,
    holds: bool,
}

struct Both {
    model: Ledger,
    sql: SqlLedger<SqliteDatabase>,
    now: u64,
    workers: [Worker; 3],
    listed: Option<(u8, Keys, NewRedrive)>,
    requests: u128,
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_763_930_000_000 + millis)
}

fn id() -> DeletionId {
    DeletionId::new(at(0), 7)
}

fn size(keys: Keys) -> usize {
    usize::try_from(keys.count()).unwrap()
}

/// The key at a position of a chunk.
fn key_at(chunk: Keys, position: usize) -> Keys {
    chunk.each().nth(position).unwrap()
}

fn part(request: u128, chunk_keys: Vec<usize>) -> NewPart {
    NewPart {
        upload: RequestId::new(at(0), request),
        chunk_keys,
        duplicates_removed: 0,
        sending_until: at(LEASE_MS),
    }
}

impl Both {
    fn new() -> Self {
        let sql = SqlLedger::new(SqliteDatabase::in_memory().unwrap());
        let deletion = NewDeletion {
            id: id(),
            requested_by: "backend".to_owned(),
            requested_at: at(0),
            not_before: at(0),
            fence: Fence::Auto,
            part: Some(part(0, CHUNKS.map(size).to_vec())),
            sweep: None,
            verify: false,
            planned_keys: None,
            idempotency: None,
            labels: Labels::default(),
        };
        assert!(block_on(sql.admit_deletion(&deletion)).unwrap());
        let workers = Default::default();
        Self { model: Ledger::new(&CHUNKS), sql, now: 0, workers, listed: None, requests: 0 }
    }

    fn ask(&mut self, ask: Ask) {
        self.now += 1;
        match ask {
            Ask::Claim(worker, name, more) => self.claim(worker, name, more),
            Ask::Record(worker, ways) => self.record(worker, ways),
            Ask::Expire => {
                self.now += LEASE_MS;
                self.model.rows.iter_mut().for_each(|row| row.claimed = false);
                self.workers.iter_mut().for_each(|worker| worker.holds = false);
            }
            Ask::Cancel => {
                assert_eq!(
                    block_on(self.sql.cancel_deletion(&id(), at(self.now))).unwrap(),
                    self.model.cancel()
                );
            }
            Ask::List => self.list(),
            Ask::Redrive => self.redrive(),
        }
        let found = block_on(self.sql.find_deletion(&id(), at(self.now))).unwrap().unwrap();
        assert_eq!(self.model.view(None), Some((found.counts, found.state)));
        assert_eq!(u32::from(self.model.generation), found.generation);
    }

    fn claim(&mut self, worker: usize, name: ChunkName, more: u8) {
        // Of a chunk that there is not, any key.
        let chunk = self.model.chunk(name).unwrap_or(Keys::range(0, 1));
        let keys = if more > 0 { chunk | Keys::BYSTANDER } else { chunk };
        // A token is an invocation's: a further claim is another invocation's.
        self.requests += 1;
        let token = format!("{worker}");
        if self.workers[worker].holds {
            return;
        }
        let reference =
            ChunkRef { deletion: id(), generation: name.generation.into(), chunk: name.chunk.into() };
        let reply = block_on(self.sql.claim(&ClaimBatch {
            token,
            now: at(self.now),
            until: at(self.now + LEASE_MS),
            requests: vec![ClaimRequest { chunk: reference, keys: size(keys) }],
        }));
        let reply = reply.unwrap().remove(0);
        match (self.model.claim(name, keys, None), reply) {
            (Reply::Granted(undecided), ClaimReply::Granted(grant)) => {
                let same = grant.undecided.iter().fold(Keys::NONE, |keys, at| keys | key_at(chunk, at));
                assert_eq!(undecided, same);
                self.workers[worker] = Worker { grant: Some((name, chunk, grant)), holds: true };
            }
            (Reply::NothingToDo, ClaimReply::NothingToDo(_))
            | (Reply::ClaimedElsewhere, ClaimReply::ClaimedElsewhere { .. })
            | (Reply::NotAccepted, ClaimReply::NotAccepted(_)) => {}
            (model, sql) => panic!("{model:?}, but {sql:?}"),
        }
    }

    /// Records by a grant that was used before, too: as a repetition does, and as an invocation does that has lost
    /// its claim.
    fn record(&mut self, worker: usize, ways: [u8; 2]) {
        let holds = std::mem::take(&mut self.workers[worker].holds);
        let Some((name, chunk, grant)) = self.workers[worker].grant.clone() else { return };
        let (mut outcome, mut deleted) = (Outcome::default(), Vec::new());
        let (mut failed, mut skipped) = (Vec::new(), Vec::new());
        for (position, way) in grant.undecided.iter().zip(ways) {
            let key = key_at(chunk, position);
            let key_json = format!("\"k{position}\"");
            match way {
                1 => {
                    outcome.deleted |= key;
                    deleted.push(position);
                }
                2 => {
                    outcome.skipped |= key;
                    skipped.push(SkippedKey { position, key_json, uploaded_at: at(1) });
                }
                3 => {
                    outcome.failed |= key;
                    failed.push(FailedKey {
                        position,
                        key_json,
                        code: FailureCode::ObjectLocked,
                        error: None,
                    });
                }
                _ => {}
            }
        }
        let recorded = self.model.record(name, outcome, holds, None);
        let outcome = ChunkOutcome::new(grant, deleted, failed, None, 1).with_skipped(skipped);
        let reply = block_on(self.sql.record(&RecordBatch {
            token: format!("{worker}"),
            now: at(self.now),
            outcomes: vec![outcome],
            unreadable: Vec::new(),
            owe_notices: false,
        }));
        let reply = reply.unwrap();
        assert_eq!(reply.outcomes[0].is_some(), recorded.settled);
        assert_eq!(reply.ended.finished.len(), usize::from(recorded.ended));
    }

    /// Of what is over only, as the producer does: a redrive takes what was listed, and whatever failed later is left to the next.
    fn list(&mut self) {
        if !self.model.finished {
            return;
        }
        self.requests += 1;
        let failures = block_on(self.sql.list_failures(&id(), FailureFilter::default(), None, 10)).unwrap();
        assert_eq!(failures.len(), size(self.model.listed()));
        let Some(last) = failures.last() else { return };
        let redrive = NewRedrive {
            deletion: id(),
            generation: u32::from(self.model.generation) + 1,
            filter: FailureFilter::default(),
            last: last.cursor,
            part: part(self.requests, vec![failures.len()]),
        };
        self.listed = Some((self.model.generation, self.model.listed(), redrive));
    }

    fn redrive(&mut self) {
        let Some((generation, listed, redrive)) = self.listed.take() else { return };
        let is_first = block_on(self.sql.admit_redrive(&redrive)).unwrap();
        assert_eq!(is_first, self.model.admit_redrive(generation, listed, None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_model_answers_as_the_sql_does(asks in asks()) {
        let mut both = Both::new();
        for ask in asks {
            both.ask(ask);
        }
    }
}
