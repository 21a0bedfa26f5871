//! The ledger as the Workers have it: at simulated times, failing before or after it has taken effect.

use std::rc::Rc;

use ledger::{
    ClaimBatch, ClaimReply, ConsumerLedger, Database, DeletionFilter, DeletionPage, DeletionRecord,
    EarlierRequest, FailureFilter, FailureRecord, Hold, KeyCursor, LedgerError, LostPart, MemoryLedger,
    NewDeletion, NewPart, NewRedrive, NoticeOutcome, NoticeReply, OutboxPiece, PartRecord, PartRef,
    ProducerLedger, RecordBatch, RecordReply, RedrivableDeletion, Row, Sealing, Settled, SkipRecord,
    SqlLedger, SqliteDatabase, Statement, SweepClaim, SweepReply, SweepTurn, SweepTurnReply,
    UnreadableRecord, UpkeepLedger,
};
use protocol::{DeletionId, KeyDigest, NoticeRef, RequestId, SweepRef, Timestamp};

use crate::counts::{Call, Count};
use crate::fault::Fault;
use crate::plant::Plant;
use crate::sim::{Sim, Within};

/// The ledger that one schedule has. Both kinds are held equal by a test of the ledger's own.
pub(crate) enum SimLedger {
    /// The SQL that is deployed, on a SQLite.
    Sql(SqlLedger<SimDatabase>),
    /// The same answers without SQL, ten times as fast.
    Memory(SimMemory),
}

/// When calls of the ledger take effect, and which fail.
pub(crate) struct Timing {
    pub(crate) sim: Rc<Sim>,
    /// For the one who only looks: at once, and without faults.
    pub(crate) is_direct: bool,
}

/// The ledger in memory, at simulated times.
pub(crate) struct SimMemory {
    pub(crate) ledger: Rc<MemoryLedger>,
    pub(crate) timing: Timing,
}

/// Real SQL, at simulated times.
pub(crate) struct SimDatabase {
    pub(crate) database: Rc<SqliteDatabase>,
    pub(crate) plant: Option<Plant>,
    pub(crate) timing: Timing,
}

impl Timing {
    async fn call<T>(
        &self,
        within: Option<&Within>,
        call: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        let sim = &self.sim;
        if self.is_direct {
            return call.await;
        }
        let slow = if sim.fails(Fault::LedgerSlow) { sim.between(1_000, 14_000) } else { 0 };
        sim.sleep(slow + sim.between(1, 30)).await;
        let injected = || Err(LedgerError { cause: "injected".to_owned() });
        if sim.fails(Fault::LedgerRefuses) {
            sim.sleep(slow + 1).await;
            return injected();
        }
        let answer = call.await;
        if let Some(within) = within {
            within.take_effect();
        }
        if let Err(error) = &answer {
            sim.violate(|| format!("the ledger: {}", error.cause));
        }
        sim.sleep(slow + sim.between(1, 30)).await;
        if sim.fails(Fault::LedgerUnsure) { injected() } else { answer }
    }
}

impl Database for SimDatabase {
    async fn batch(&self, mut statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, LedgerError> {
        if let Some(plant) = self.plant {
            for statement in &mut statements {
                statement.sql = plant.rewrite(statement.sql);
            }
        }
        self.timing.call(None, self.database.batch(statements)).await
    }
}

macro_rules! delegate {
    ($($call:ident: fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $answer:ty;)*) => {
        $(async fn $name(&self $(, $argument: $type)*) -> Result<$answer, LedgerError> {
            match self {
                Self::Sql(sql) => sql.$name($($argument),*).await,
                Self::Memory(SimMemory { ledger, timing }) => {
                    let within = timing.sim.enter(Call::$call);
                    timing.call(Some(&within), ledger.$name($($argument),*)).await
                }
            }
        })*
    };
}

impl ProducerLedger for SimLedger {
    delegate! {
        FillOutbox: fn fill_outbox(&self, piece: &OutboxPiece<'_>) -> ();
        DiscardOutbox: fn discard_outbox(&self, upload: &RequestId) -> ();
        AdmitDeletion: fn admit_deletion(&self, deletion: &NewDeletion) -> bool;
        AdmitPart: fn admit_part(&self, at: &PartRef, part: &NewPart, fingerprint: &str) -> bool;
        FindPart: fn find_part(&self, deletion: &DeletionId, part: u32) -> Option<PartRecord>;
        SealDeletion: fn seal_deletion(&self, id: &DeletionId, parts: u32, keys: u64, now: Timestamp) -> Sealing;
        FindIdempotencyKey: fn find_idempotency_key(&self, requested_by: &str, key: &str) -> Option<EarlierRequest>;
        HoldSending: fn hold_sending(&self, part: &PartRef, now: Timestamp, until: Timestamp) -> Hold;
        ReleaseSending: fn release_sending(&self, part: &PartRef) -> ();
        MarkEnqueued: fn mark_enqueued(&self, part: &PartRef, now: Timestamp) -> ();
        ReadOutbox: fn read_outbox(&self, part: &PartRef, piece: usize) -> Option<Vec<String>>;
        CancelDeletion: fn cancel_deletion(&self, id: &DeletionId, now: Timestamp) -> bool;
        FindDeletion: fn find_deletion(&self, id: &DeletionId, now: Timestamp) -> Option<DeletionRecord>;
        ListDeletions: fn list_deletions(
            &self, filter: &DeletionFilter<'_>, before: Option<&DeletionId>, limit: usize, now: Timestamp
        ) -> DeletionPage;
        Stats: fn stats(&self, requested_by: Option<&str>, now: Timestamp) -> ledger::LedgerStats;
        ListFailures: fn list_failures(
            &self, id: &DeletionId, filter: FailureFilter, after: Option<KeyCursor>, limit: usize
        ) -> Vec<FailureRecord>;
        AdmitRedrive: fn admit_redrive(&self, redrive: &NewRedrive) -> bool;
        ListRedrivable: fn list_redrivable(&self, filter: FailureFilter, limit: usize) -> Vec<RedrivableDeletion>;
        ListSkips: fn list_skips(&self, id: &DeletionId, after: Option<KeyCursor>, limit: usize) -> Vec<SkipRecord>;
        SumDigests: fn sum_digests(&self, id: &DeletionId) -> Option<KeyDigest>;
        ListUnreadable: fn list_unreadable(&self, after: Option<&str>, limit: usize) -> Vec<UnreadableRecord>;
        Ping: fn ping(&self) -> ();
    }
}

impl SimMemory {
    fn count_conflicts(&self, conflicts: usize) {
        self.timing.sim.count_many(Count::ClaimConflicts, conflicts as u64);
    }
}

impl ConsumerLedger for SimLedger {
    async fn claim(&self, batch: &ClaimBatch) -> Result<Vec<ClaimReply>, LedgerError> {
        let memory = match self {
            Self::Sql(sql) => return sql.claim(batch).await,
            Self::Memory(memory) => memory,
        };
        let within = memory.timing.sim.enter(Call::Claim);
        let replies = memory.timing.call(Some(&within), memory.ledger.claim(batch)).await?;
        let is_conflict = |reply: &&ClaimReply| matches!(reply, ClaimReply::ClaimedElsewhere { .. });
        memory.count_conflicts(replies.iter().filter(is_conflict).count());
        Ok(replies)
    }

    async fn claim_sweep(&self, claim: &SweepClaim) -> Result<SweepReply, LedgerError> {
        let memory = match self {
            Self::Sql(sql) => return sql.claim_sweep(claim).await,
            Self::Memory(memory) => memory,
        };
        let within = memory.timing.sim.enter(Call::ClaimSweep);
        let reply = memory.timing.call(Some(&within), memory.ledger.claim_sweep(claim)).await?;
        memory.count_conflicts(usize::from(matches!(reply, SweepReply::ClaimedElsewhere { .. })));
        Ok(reply)
    }

    delegate! {
        Record: fn record(&self, batch: &RecordBatch) -> RecordReply;
        KnownKeys: fn known_keys(&self, deletion: &DeletionId, keys_json: &[String]) -> Vec<String>;
        TurnSweep: fn turn_sweep(&self, turn: &SweepTurn<'_>) -> SweepTurnReply;
        FindNotice: fn find_notice(&self, notice: &NoticeRef, now: Timestamp) -> NoticeReply;
        RecordNotice: fn record_notice(&self, notice: &NoticeRef, outcome: NoticeOutcome) -> Settled;
    }
}

impl UpkeepLedger for SimLedger {
    delegate! {
        CancelAbandoned: fn cancel_abandoned(&self, before: Timestamp, now: Timestamp) -> usize;
        ListLost: fn list_lost(&self, before: Timestamp, now: Timestamp, limit: usize) -> Vec<LostPart>;
        ReadLost: fn read_lost(&self, lost: &LostPart, piece: usize) -> Option<Vec<String>>;
        MarkResent: fn mark_resent(&self, part: &PartRef, now: Timestamp) -> ();
        WakeSweeps: fn wake_sweeps(&self, before: Timestamp, now: Timestamp, limit: usize) -> Vec<SweepRef>;
        WakeNotices: fn wake_notices(&self, before: Timestamp, now: Timestamp, limit: usize) -> Vec<NoticeRef>;
        RemoveExpired: fn remove_expired(&self, before: Timestamp, failed_before: Timestamp, limit: usize) -> usize;
    }
}
