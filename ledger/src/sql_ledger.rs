use protocol::{DeletionId, KeyDigest, NoticeRef, RequestId, SweepRef, Timestamp};

use crate::admission::{self, EarlierRequest, NewDeletion};
use crate::claim::{self, ClaimBatch, ClaimReply, Settled};
use crate::cursor::KeyCursor;
use crate::database::{Database, LedgerError, Statement, run};
use crate::deletion::{self, DeletionRecord};
use crate::failure::{self, FailureRecord};
use crate::listing::{self, DeletionFilter, DeletionPage};
use crate::notice::{self, NoticeOutcome, NoticeReply};
use crate::outbox::{self, OutboxPiece};
use crate::part::{self, Hold, NewPart, PartRecord, PartRef, Sealing};
use crate::record::{self, RecordBatch, RecordReply};
use crate::redrive::{self, FailureFilter, NewRedrive, RedrivableDeletion};
use crate::skip::{self, SkipRecord};
use crate::stats::{self, LedgerStats};
use crate::sweep::{self, SweepClaim, SweepReply, SweepTurn, SweepTurnReply};
use crate::unreadable::{self, UnreadableRecord};
use crate::upkeep::{self, LostPart};

/// What the producer needs of the ledger.
///
/// Every call may have been carried out although it failed.
pub trait ProducerLedger {
    /// Writes messages into the outbox, of a part that is not written down yet. They belong to nobody until it is.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn fill_outbox(&self, piece: &OutboxPiece<'_>) -> impl Future<Output = Result<(), LedgerError>>;

    /// Removes the messages that a request has brought for nothing; those of a part that it has brought stay. MUST NOT be
    /// called when the writing down of its part failed, because that may yet be carried out.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; upkeep removes them after a day.
    fn discard_outbox(&self, upload: &RequestId) -> impl Future<Output = Result<(), LedgerError>>;

    /// Writes a deletion down, before the first of its messages is sent. False when another request with the same
    /// Idempotency-Key came first: nothing is written then.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn admit_deletion(&self, deletion: &NewDeletion) -> impl Future<Output = Result<bool, LedgerError>>;

    /// Writes a part down that has been put, before the first of its messages is sent. False when the deletion takes no parts,
    /// or has one of this number: nothing is written then.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn admit_part(
        &self,
        at: &PartRef,
        part: &NewPart,
        fingerprint: &str,
    ) -> impl Future<Output = Result<bool, LedgerError>>;

    /// The part of this number, if it has been put.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn find_part(
        &self,
        deletion: &DeletionId,
        part: u32,
    ) -> impl Future<Output = Result<Option<PartRecord>, LedgerError>>;

    /// Seals a deletion if it consists of the parts 1 to `parts`, all of them sent, with `keys` keys as they were asked, and
    /// says what it consists of.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn seal_deletion(
        &self,
        deletion: &DeletionId,
        parts: u32,
        keys: u64,
        now: Timestamp,
    ) -> impl Future<Output = Result<Sealing, LedgerError>>;

    /// What this Idempotency-Key of this token has made before.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn find_idempotency_key(
        &self,
        requested_by: &str,
        key: &str,
    ) -> impl Future<Output = Result<Option<EarlierRequest>, LedgerError>>;

    /// Takes over the sending of a part's messages until `until`, if there is anything to send and nobody is at it.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn hold_sending(
        &self,
        part: &PartRef,
        now: Timestamp,
        until: Timestamp,
    ) -> impl Future<Output = Result<Hold, LedgerError>>;

    /// Gives the sending up, for the next to take over at once.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn release_sending(&self, part: &PartRef) -> impl Future<Output = Result<(), LedgerError>>;

    /// Every message of the part is stored in the Queue.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn mark_enqueued(&self, part: &PartRef, now: Timestamp) -> impl Future<Output = Result<(), LedgerError>>;

    /// The messages in one row of a part's outbox, from 0; `None` past the last row.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn read_outbox(
        &self,
        part: &PartRef,
        piece: usize,
    ) -> impl Future<Output = Result<Option<Vec<String>>, LedgerError>>;

    /// Cancels a deletion: no chunk of it is begun any more, and a notice is owed. False when it was over or cancelled.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn cancel_deletion(
        &self,
        id: &DeletionId,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, LedgerError>>;

    /// The deletion as it stands, or `None` when there is none of that id.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn find_deletion(
        &self,
        id: &DeletionId,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<DeletionRecord>, LedgerError>>;

    /// The deletions that `filter` lets through, newest first: `limit` of those that may be such are looked at, so that
    /// the page may be short, or even empty with more to come.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn list_deletions(
        &self,
        filter: &DeletionFilter<'_>,
        before: Option<&DeletionId>,
        limit: usize,
        now: Timestamp,
    ) -> impl Future<Output = Result<DeletionPage, LedgerError>>;

    /// What the ledger holds as a whole: of one token's deletions, or of all.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn stats(
        &self,
        requested_by: Option<&str>,
        now: Timestamp,
    ) -> impl Future<Output = Result<LedgerStats, LedgerError>>;

    /// At most `limit` failures of a deletion that come after `after` and that the filter lets through.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn list_failures(
        &self,
        id: &DeletionId,
        filter: FailureFilter,
        after: Option<KeyCursor>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<FailureRecord>, LedgerError>>;

    /// Turns failures of a deletion that is over into a part of its next generation, all or nothing, before the first of its
    /// messages is sent. False when another redrive came first, or when the deletion is not over: nothing is changed then.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn admit_redrive(&self, redrive: &NewRedrive) -> impl Future<Output = Result<bool, LedgerError>>;

    /// At most `limit` deletions that are over and have failures that the filter lets through, or whose redrive of only such
    /// failures was begun and not sent whole, oldest first. It reads every failure that is kept: what a person asks for, not
    /// a backend.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn list_redrivable(
        &self,
        filter: FailureFilter,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<RedrivableDeletion>, LedgerError>>;

    /// At most `limit` keys of a deletion that were left alone, those that come after `after`.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn list_skips(
        &self,
        id: &DeletionId,
        after: Option<KeyCursor>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<SkipRecord>, LedgerError>>;

    /// The digest of all keys that a deletion has deleted; `None` when none is kept.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn sum_digests(&self, id: &DeletionId) -> impl Future<Output = Result<Option<KeyDigest>, LedgerError>>;

    /// At most `limit` messages that could not be read, by id, that come after the message `after`.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn list_unreadable(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<UnreadableRecord>, LedgerError>>;

    /// Asks whether the ledger answers, with its tables in place.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn ping(&self) -> impl Future<Output = Result<(), LedgerError>>;
}

/// What the consumer needs of the ledger.
///
/// Every call may have been carried out although it failed.
pub trait ConsumerLedger {
    /// Claims chunks: a reply for each request, in order.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; claims that were taken all the same end by themselves.
    fn claim(&self, batch: &ClaimBatch) -> impl Future<Output = Result<Vec<ClaimReply>, LedgerError>>;

    /// Records what became of claimed chunks and keeps what could not be read, all or nothing, and gives the claims back.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; nothing may be acknowledged then.
    fn record(&self, batch: &RecordBatch) -> impl Future<Output = Result<RecordReply, LedgerError>>;

    /// Claims a step of a sweep.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; a claim that was taken all the same ends by itself.
    fn claim_sweep(&self, claim: &SweepClaim) -> impl Future<Output = Result<SweepReply, LedgerError>>;

    /// Which of these keys, each as a JSON string, have failed or were left alone in this deletion.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn known_keys(
        &self,
        deletion: &DeletionId,
        keys_json: &[String],
    ) -> impl Future<Output = Result<Vec<String>, LedgerError>>;

    /// Records what became of a sweep's page and plans the next, all or nothing.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; nothing of the next page may be deleted then.
    fn turn_sweep(&self, turn: &SweepTurn<'_>) -> impl Future<Output = Result<SweepTurnReply, LedgerError>>;

    /// What is to be done about a notice.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn find_notice(
        &self,
        notice: &NoticeRef,
        now: Timestamp,
    ) -> impl Future<Output = Result<NoticeReply, LedgerError>>;

    /// Notes what became of a notice: proof that nothing more is owed to the message that had it looked at.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; the message may not be acknowledged then.
    fn record_notice(
        &self,
        notice: &NoticeRef,
        outcome: NoticeOutcome,
    ) -> impl Future<Output = Result<Settled, LedgerError>>;
}

/// What upkeep needs of the ledger.
///
/// Every call may have been carried out although it failed.
pub trait UpkeepLedger {
    /// Cancels the deletions that were requested before `before` and never accepted, or never sealed. Answers with how many.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn cancel_abandoned(
        &self,
        before: Timestamp,
        now: Timestamp,
    ) -> impl Future<Output = Result<usize, LedgerError>>;

    /// At most `limit` parts that are not decided although all their messages were sent before `before`, oldest first.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn list_lost(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<LostPart>, LedgerError>>;

    /// The messages of a lost part's chunks, in one row of its outbox, from 0; `None` past the last row.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn read_lost(
        &self,
        lost: &LostPart,
        piece: usize,
    ) -> impl Future<Output = Result<Option<Vec<String>>, LedgerError>>;

    /// Messages of the part have been sent again.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn mark_resent(&self, part: &PartRef, now: Timestamp) -> impl Future<Output = Result<(), LedgerError>>;

    /// At most `limit` sweeps of accepted deletions that were due before `before` and that nobody goes on with. They count as due
    /// now from here on.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn wake_sweeps(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<SweepRef>, LedgerError>>;

    /// At most `limit` notices that were due before `before` and that nobody has seen to, longest overdue first. They count as
    /// due now from here on.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn wake_notices(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<NoticeRef>, LedgerError>>;

    /// Removes at most `limit` deletions that ended before `before`, or before `failed_before` when some key failed.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn remove_expired(
        &self,
        before: Timestamp,
        failed_before: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<usize, LedgerError>>;
}

/// The ledger over a database.
#[derive(Clone, Debug)]
pub struct SqlLedger<D> {
    database: D,
}

impl<D: Database> SqlLedger<D> {
    /// The ledger in `database`, whose migrations have been applied.
    pub fn new(database: D) -> Self {
        Self { database }
    }
}

impl<D: Database> ProducerLedger for SqlLedger<D> {
    async fn fill_outbox(&self, piece: &OutboxPiece<'_>) -> Result<(), LedgerError> {
        outbox::write(&self.database, piece).await
    }

    async fn discard_outbox(&self, upload: &RequestId) -> Result<(), LedgerError> {
        outbox::discard(&self.database, upload).await
    }

    async fn admit_deletion(&self, deletion: &NewDeletion) -> Result<bool, LedgerError> {
        admission::admit(&self.database, deletion).await
    }

    async fn admit_part(&self, at: &PartRef, part: &NewPart, fingerprint: &str) -> Result<bool, LedgerError> {
        part::put(&self.database, at, part, fingerprint).await
    }

    async fn find_part(&self, deletion: &DeletionId, part: u32) -> Result<Option<PartRecord>, LedgerError> {
        part::find(&self.database, deletion, part).await
    }

    async fn seal_deletion(
        &self,
        deletion: &DeletionId,
        parts: u32,
        keys: u64,
        now: Timestamp,
    ) -> Result<Sealing, LedgerError> {
        part::seal(&self.database, deletion, parts, keys, now).await
    }

    async fn find_idempotency_key(
        &self,
        requested_by: &str,
        key: &str,
    ) -> Result<Option<EarlierRequest>, LedgerError> {
        admission::find_key(&self.database, requested_by, key).await
    }

    async fn hold_sending(
        &self,
        part: &PartRef,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Hold, LedgerError> {
        part::hold(&self.database, part, now, until).await
    }

    async fn release_sending(&self, part: &PartRef) -> Result<(), LedgerError> {
        part::release(&self.database, part).await
    }

    async fn mark_enqueued(&self, part: &PartRef, now: Timestamp) -> Result<(), LedgerError> {
        part::mark_enqueued(&self.database, part, now).await
    }

    async fn read_outbox(&self, part: &PartRef, piece: usize) -> Result<Option<Vec<String>>, LedgerError> {
        outbox::read(&self.database, part, piece, None).await
    }

    async fn cancel_deletion(&self, id: &DeletionId, now: Timestamp) -> Result<bool, LedgerError> {
        deletion::cancel(&self.database, id, now).await
    }

    async fn find_deletion(
        &self,
        id: &DeletionId,
        now: Timestamp,
    ) -> Result<Option<DeletionRecord>, LedgerError> {
        deletion::find(&self.database, id, now).await
    }

    async fn list_deletions(
        &self,
        filter: &DeletionFilter<'_>,
        before: Option<&DeletionId>,
        limit: usize,
        now: Timestamp,
    ) -> Result<DeletionPage, LedgerError> {
        listing::list(&self.database, filter, before, limit, now).await
    }

    async fn stats(&self, requested_by: Option<&str>, now: Timestamp) -> Result<LedgerStats, LedgerError> {
        stats::read(&self.database, requested_by, now).await
    }

    async fn list_failures(
        &self,
        id: &DeletionId,
        filter: FailureFilter,
        after: Option<KeyCursor>,
        limit: usize,
    ) -> Result<Vec<FailureRecord>, LedgerError> {
        let rows = run(&self.database, failure::list(id, filter, after, limit)).await?;
        rows.iter().map(failure::read_record).collect()
    }

    async fn admit_redrive(&self, redrive: &NewRedrive) -> Result<bool, LedgerError> {
        redrive::admit(&self.database, redrive).await
    }

    async fn list_redrivable(
        &self,
        filter: FailureFilter,
        limit: usize,
    ) -> Result<Vec<RedrivableDeletion>, LedgerError> {
        redrive::list(&self.database, filter, limit).await
    }

    async fn list_skips(
        &self,
        id: &DeletionId,
        after: Option<KeyCursor>,
        limit: usize,
    ) -> Result<Vec<SkipRecord>, LedgerError> {
        let rows = run(&self.database, skip::list(id, after, limit)).await?;
        rows.iter().map(skip::read_record).collect()
    }

    async fn sum_digests(&self, id: &DeletionId) -> Result<Option<KeyDigest>, LedgerError> {
        deletion::sum_digests(&self.database, id).await
    }

    async fn list_unreadable(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<UnreadableRecord>, LedgerError> {
        unreadable::list(&self.database, after, limit).await
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        let statement = Statement::new("SELECT 1 FROM deletions LIMIT 1", []);
        self.database.batch(vec![statement]).await.map(drop)
    }
}

impl<D: Database> ConsumerLedger for SqlLedger<D> {
    async fn claim(&self, batch: &ClaimBatch) -> Result<Vec<ClaimReply>, LedgerError> {
        claim::claim(&self.database, batch).await
    }

    async fn record(&self, batch: &RecordBatch) -> Result<RecordReply, LedgerError> {
        record::record(&self.database, batch).await
    }

    async fn claim_sweep(&self, claim: &SweepClaim) -> Result<SweepReply, LedgerError> {
        sweep::claim(&self.database, claim).await
    }

    async fn known_keys(
        &self,
        deletion: &DeletionId,
        keys_json: &[String],
    ) -> Result<Vec<String>, LedgerError> {
        sweep::known_keys(&self.database, deletion, keys_json).await
    }

    async fn turn_sweep(&self, turn: &SweepTurn<'_>) -> Result<SweepTurnReply, LedgerError> {
        sweep::turn(&self.database, turn).await
    }

    async fn find_notice(&self, notice: &NoticeRef, now: Timestamp) -> Result<NoticeReply, LedgerError> {
        notice::find(&self.database, notice, now).await
    }

    async fn record_notice(
        &self,
        notice: &NoticeRef,
        outcome: NoticeOutcome,
    ) -> Result<Settled, LedgerError> {
        notice::record(&self.database, notice, outcome).await
    }
}

impl<D: Database> UpkeepLedger for SqlLedger<D> {
    async fn cancel_abandoned(&self, before: Timestamp, now: Timestamp) -> Result<usize, LedgerError> {
        upkeep::cancel_abandoned(&self.database, before, now).await
    }

    async fn list_lost(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<LostPart>, LedgerError> {
        upkeep::lost(&self.database, before, now, limit).await
    }

    async fn read_lost(&self, lost: &LostPart, piece: usize) -> Result<Option<Vec<String>>, LedgerError> {
        outbox::read(&self.database, &lost.part, piece, Some(&lost.chunks)).await
    }

    async fn mark_resent(&self, part: &PartRef, now: Timestamp) -> Result<(), LedgerError> {
        upkeep::mark_resent(&self.database, part, now).await
    }

    async fn wake_sweeps(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<SweepRef>, LedgerError> {
        sweep::wake(&self.database, before, now, limit).await
    }

    async fn wake_notices(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<NoticeRef>, LedgerError> {
        notice::wake(&self.database, before, now, limit).await
    }

    async fn remove_expired(
        &self,
        before: Timestamp,
        failed_before: Timestamp,
        limit: usize,
    ) -> Result<usize, LedgerError> {
        upkeep::remove_expired(&self.database, before, failed_before, limit).await
    }
}
