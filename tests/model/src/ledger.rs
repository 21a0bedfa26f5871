use protocol::{Counts, Progress, State};

use crate::keys::Keys;
use crate::plant::Plant;

/// What the ledger has of one deletion. A test holds it to the SQL: `tests/ledger.rs`.
///
/// A claim has no time and no owner here: whoever holds it knows that it does, and it ends only when nobody does.
/// That an invocation cannot outlive its claim is checked where the code is compiled (`CLAIM_MS`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// By generation: what was asked for, and what was redriven.
    pub parts: Vec<Part>,
    /// The chunks that were begun, in order.
    pub rows: Vec<Row>,
    /// By generation: the keys in the list of failures.
    pub failures: Vec<Keys>,
    /// How often it was redriven.
    pub generation: u8,
    /// Whether it was cancelled.
    pub cancelled: bool,
    /// Whether its last key was decided.
    pub finished: bool,
}

/// Keys that one request brought.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// Of each chunk.
    pub chunks: Vec<Keys>,
    /// Whether it is noted that every message was stored.
    pub enqueued: bool,
}

/// Names a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkName {
    /// Of which generation.
    pub generation: u8,
    /// Its number in it.
    pub chunk: u8,
}

/// A chunk that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Which.
    pub name: ChunkName,
    /// Whether an invocation may delete its keys.
    pub claimed: bool,
    /// What nothing is decided about.
    pub undecided: Keys,
    /// What is recorded.
    pub outcome: Outcome,
}

/// What became of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outcome {
    /// Confirmed absent.
    pub deleted: Keys,
    /// Kept, because they were uploaded since.
    pub skipped: Keys,
    /// Given up.
    pub failed: Keys,
}

/// The answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The chunk is the invocation's, with these keys undecided.
    Granted(Keys),
    /// It is decided, or its deletion cancelled.
    NothingToDo,
    /// Somebody holds it.
    ClaimedElsewhere,
    /// There is no such chunk.
    NotAccepted,
}

/// What a record has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The claim was held.
    pub taken: bool,
    /// Every key of the chunk is decided.
    pub settled: bool,
    /// The deletion ended with it.
    pub ended: bool,
}

impl Outcome {
    /// All keys that something was decided about.
    pub fn decided(self) -> Keys {
        self.deleted | self.skipped | self.failed
    }
}

impl Ledger {
    /// A deletion of these chunks, written down and not sent.
    pub fn new(chunks: &[Keys]) -> Self {
        Self {
            parts: vec![Part { chunks: chunks.to_vec(), enqueued: false }],
            rows: Vec::new(),
            failures: vec![Keys::NONE],
            generation: 0,
            cancelled: false,
            finished: false,
        }
    }

    /// The keys of a chunk that was accepted.
    pub fn chunk(&self, name: ChunkName) -> Option<Keys> {
        self.parts.get(usize::from(name.generation))?.chunks.get(usize::from(name.chunk)).copied()
    }

    /// A chunk that was begun.
    pub fn row(&self, name: ChunkName) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    fn row_mut(&mut self, name: ChunkName) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.name == name)
    }

    /// `CLAIM`, and what `READ_CLAIMS` says of it, for a message that carries `keys`.
    pub fn claim(&mut self, name: ChunkName, keys: Keys, plant: Option<Plant>) -> Reply {
        match self.chunk(name) {
            Some(accepted) if accepted.count() == keys.count() => {}
            _ if plant == Some(Plant::NoLedgerCheck) => return Reply::Granted(keys),
            _ => return Reply::NotAccepted,
        }
        // With the generation left out of the chunk's name, that of the request stands for all.
        let row_name = match plant {
            Some(Plant::NoGenerationInName) => ChunkName { generation: 0, ..name },
            _ => name,
        };
        if self.row(row_name).is_none() {
            if self.cancelled {
                return Reply::NothingToDo;
            }
            self.rows.push(Row {
                name: row_name,
                claimed: false,
                undecided: keys,
                outcome: Outcome::default(),
            });
            self.rows.sort_by_key(|row| row.name);
        }
        let cancelled = self.cancelled;
        let Some(row) = self.row_mut(row_name) else { return Reply::NotAccepted };
        if row.undecided.is_empty() || cancelled {
            return Reply::NothingToDo;
        }
        if row.claimed && plant != Some(Plant::NoClaim) {
            return Reply::ClaimedElsewhere;
        }
        row.claimed = true;
        Reply::Granted(row.undecided)
    }

    /// Everything that a record is, in one transaction, for an invocation that holds the chunk's claim or does not.
    pub fn record(
        &mut self,
        name: ChunkName,
        outcome: Outcome,
        holds: bool,
        plant: Option<Plant>,
    ) -> Recorded {
        // What follows is asked for whatever is taken down.
        let untaken = |ledger: &mut Self| Recorded { ended: ledger.finish(plant), ..Recorded::default() };
        let forced = plant == Some(Plant::RecordWithoutClaim);
        let Some(row) = self.row_mut(name) else { return untaken(self) };
        if !forced && (!holds || row.undecided.is_empty()) {
            return untaken(self);
        }
        row.claimed = false;
        row.undecided = row.undecided.without(outcome.decided());
        row.outcome.deleted |= outcome.deleted;
        row.outcome.skipped |= outcome.skipped;
        row.outcome.failed |= outcome.failed;
        let settled = row.undecided.is_empty();
        if let Some(failures) = self.failures.get_mut(usize::from(name.generation)) {
            *failures |= outcome.failed;
        }
        Recorded { taken: true, settled, ended: self.finish(plant) }
    }

    /// `FINISH_DELETIONS`: whether it has ended it.
    fn finish(&mut self, plant: Option<Plant>) -> bool {
        let asked: u64 = self.parts.iter().flat_map(|part| &part.chunks).map(|keys| keys.count()).sum();
        let decided: u64 = self.rows.iter().map(|row| row.outcome.decided().count()).sum();
        let ended = asked == decided && (!self.finished || plant == Some(Plant::EndedTwice));
        self.finished |= ended;
        ended
    }

    /// `CANCEL`.
    pub fn cancel(&mut self) -> bool {
        let cancels = !self.cancelled && !self.finished;
        self.cancelled |= cancels;
        cancels
    }

    /// All failures of keys that are listed.
    pub fn listed(&self) -> Keys {
        self.failures.iter().fold(Keys::NONE, |keys, &failures| keys | failures)
    }

    /// `admit_redrive`: makes the failures that were listed when the deletion was of `generation` a part of the next;
    /// whether it does.
    pub fn admit_redrive(&mut self, generation: u8, listed: Keys, plant: Option<Plant>) -> bool {
        let is_first = self.generation == generation && self.finished && self.listed() == listed;
        if !is_first && plant != Some(Plant::RedriveUnconditional) {
            return false;
        }
        self.parts.push(Part { chunks: vec![listed], enqueued: false });
        self.failures.iter_mut().for_each(|failures| *failures = Keys::NONE);
        self.failures.push(Keys::NONE);
        self.generation += 1;
        self.finished = false;
        self.cancelled = false;
        true
    }

    /// Whether some invocation holds a claim, as the ledger sees it.
    pub fn in_flight(&self) -> bool {
        self.rows.iter().any(|row| row.claimed)
    }

    /// What the API says; `None` when the counts do not add up.
    pub fn view(&self, plant: Option<Plant>) -> Option<(Counts, State)> {
        let sum = |which: fn(&Row) -> Keys| self.rows.iter().map(|row| which(row).count()).sum::<u64>();
        let of = |part: &Part| part.chunks.iter().map(|keys| keys.count()).sum::<u64>();
        let total = self.parts.first().map(of)?;
        let redriven: u64 = self.parts.iter().skip(1).map(of).sum();
        let (deleted, skipped) = (sum(|row| row.outcome.deleted), sum(|row| row.outcome.skipped));
        let failed = sum(|row| row.outcome.failed).checked_sub(redriven)?;
        let listed: u64 = self.failures.iter().map(|keys| keys.count()).sum();
        if failed != listed || deleted + skipped + failed > total {
            return None;
        }
        let in_flight = self.in_flight() && plant != Some(Plant::CancelledAtOnce);
        let counts = Counts::derive(total, deleted, skipped, failed, self.cancelled && !in_flight);
        let progress = Progress {
            begun: !self.rows.is_empty(),
            cancelled: self.cancelled,
            in_flight,
            ..Progress::default()
        };
        Some((counts, State::derive(&counts, progress)))
    }

    /// What is recorded of a key, in whatever generation; a failure that was redriven is none.
    pub fn recorded(&self) -> Keys {
        self.rows.iter().fold(Keys::NONE, |keys, row| keys | row.outcome.deleted | row.outcome.skipped)
            | self.listed()
    }

    /// The keys that are said to be deleted.
    pub fn deleted(&self) -> Keys {
        self.rows.iter().fold(Keys::NONE, |keys, row| keys | row.outcome.deleted)
    }
}
