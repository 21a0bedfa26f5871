use protocol::{DeletionId, Timestamp};

use crate::claim::{self, ClaimBatch, ClaimReply};
use crate::database::{Database, LedgerError, Statement};
use crate::deletion::{self, DeletionRecord, NewDeletion};
use crate::failure::{self, FailureCursor, FailureRecord};
use crate::listing::{self, DeletionFilter, DeletionPage};
use crate::record::{self, RecordBatch, RecordReply};
use crate::stats::{self, LedgerStats};
use crate::unreadable::{self, UnreadableRecord};

/// What the producer needs of the ledger.
///
/// Every call may have been carried out although it failed.
pub trait ProducerLedger {
    /// Writes a deletion down, before its first message is sent.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn insert_deletion(&self, deletion: &NewDeletion) -> impl Future<Output = Result<(), LedgerError>>;

    /// Cancels a deletion: no chunk of it is begun any more.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn cancel_deletion(
        &self,
        id: &DeletionId,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), LedgerError>>;

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

    /// At most `limit` failures of a deletion that come after `after`.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    fn list_failures(
        &self,
        id: &DeletionId,
        after: Option<FailureCursor>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<FailureRecord>, LedgerError>>;

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
    async fn insert_deletion(&self, deletion: &NewDeletion) -> Result<(), LedgerError> {
        deletion::insert(&self.database, deletion).await
    }

    async fn cancel_deletion(&self, id: &DeletionId, now: Timestamp) -> Result<(), LedgerError> {
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
        after: Option<FailureCursor>,
        limit: usize,
    ) -> Result<Vec<FailureRecord>, LedgerError> {
        failure::list(&self.database, id, after, limit).await
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
}
