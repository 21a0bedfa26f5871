use protocol::{NoticeRef, Timestamp};

use crate::claim::Settled;
use crate::database::{Database, LedgerError, Row, Statement, Value, run};
use crate::deletion::{self, DeletionRecord};

/// What the ledger says to a message that has a notice looked at.
#[derive(Debug)]
pub enum NoticeReply {
    /// The notice has been delivered or given up, the deletion has been opened again, or the notice's time has not come and
    /// the ledger knows when it does: nothing more is owed to the message.
    NothingToDo(Settled),
    /// The deletion was cancelled, and some of it is in flight still.
    NotFinal,
    /// It is to be sent.
    Due(Box<DueNotice>),
}

/// A notice that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueNotice {
    /// How often it was tried before.
    pub attempts: u32,
    /// The deletion, which is final.
    pub deletion: DeletionRecord,
}

/// What became of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeOutcome {
    /// It was delivered, or nobody wants it.
    Done,
    /// An attempt failed.
    Retry {
        /// How often it was tried, this attempt included.
        attempts: u32,
        /// When it is tried next.
        due_at: Timestamp,
    },
    /// The last attempt failed.
    Failed {
        /// How often it was tried, this attempt included.
        attempts: u32,
        /// When.
        failed_at: Timestamp,
    },
}

/// How much too early a message may come and count as in time, in milliseconds: clocks differ.
pub(crate) const EARLY_MS: u64 = 2_000;

/// One for each end of a deletion: what has one already has ended at the same time as it was cancelled.
const OWE: &str = "\
INSERT INTO notices (deletion, generation, due_at)
SELECT id, generation, ?2 FROM deletions
WHERE id IN (SELECT value FROM json_each(?1)) AND (finished_at = ?2 OR cancelled_at = ?2)
ON CONFLICT DO NOTHING";

const OWE_CANCELLED: &str = "\
INSERT INTO notices (deletion, generation, due_at)
SELECT id, generation, ?1 FROM deletions WHERE cancelled_at = ?1
ON CONFLICT DO NOTHING";

const FIND: &str = "SELECT attempts, due_at, failed_at FROM notices WHERE deletion = ?1 AND generation = ?2";

const DONE: &str = "DELETE FROM notices WHERE deletion = ?1 AND generation = ?2";

/// Two messages at once count as two attempts, and no message undoes what a later one has noted.
const NOT_DELIVERED: &str = "\
UPDATE notices SET attempts = ?3, due_at = ?4, failed_at = ?5
WHERE deletion = ?1 AND generation = ?2 AND attempts < ?3 AND failed_at IS NULL";

/// What it wakes is due now, so that the next round leaves it alone for as long as this one did. It reads every notice that
/// is kept: those that are owed, and those that were given up in the last month.
const WAKE: &str = "\
UPDATE notices SET due_at = ?2
WHERE (deletion, generation) IN (
    SELECT deletion, generation FROM notices WHERE failed_at IS NULL AND due_at <= ?1 ORDER BY due_at LIMIT ?3)
RETURNING deletion, generation";

/// Owes a notice for each deletion of `ids`, a JSON list, that the same transaction has ended or cancelled at `now`.
pub(crate) fn owe(ids: Value, now: Timestamp) -> Statement {
    Statement::new(OWE, [ids, now.as_millis().into()])
}

/// Owes a notice for each deletion that the same transaction has cancelled at `now`.
pub(crate) fn owe_cancelled(now: Timestamp) -> Statement {
    Statement::new(OWE_CANCELLED, [now.as_millis().into()])
}

/// What is to be done about a notice.
pub(crate) async fn find(
    database: &impl Database,
    notice: &NoticeRef,
    now: Timestamp,
) -> Result<NoticeReply, LedgerError> {
    let found = run(database, Statement::new(FIND, parameters(notice))).await?;
    let Some(attempts) = found.first().map(|row| due(row, now)).transpose()?.flatten() else {
        return Ok(NoticeReply::NothingToDo(Settled(())));
    };
    // Opened again since: its next end is told.
    let same = |deletion: &DeletionRecord| deletion.generation == notice.generation;
    let Some(deletion) = deletion::find(database, &notice.deletion, now).await?.filter(same) else {
        return Ok(NoticeReply::NothingToDo(Settled(())));
    };
    if !deletion.state.is_final() {
        return Ok(NoticeReply::NotFinal);
    }
    Ok(NoticeReply::Due(Box::new(DueNotice { attempts, deletion })))
}

/// The attempts so far of a notice that is due.
fn due(row: &Row, now: Timestamp) -> Result<Option<u32>, LedgerError> {
    let is_due = row.time_if_any("failed_at")?.is_none() && row.time("due_at")? <= now.plus_millis(EARLY_MS);
    if is_due { row.number("attempts").map(Some) } else { Ok(None) }
}

/// Notes what became of a notice. From then on nothing more is owed to the message that had it looked at.
pub(crate) async fn record(
    database: &impl Database,
    notice: &NoticeRef,
    outcome: NoticeOutcome,
) -> Result<Settled, LedgerError> {
    let not_delivered = |attempts: u32, due_at: Timestamp, failed_at: Option<Timestamp>| {
        let [deletion, generation] = parameters(notice);
        let (due_at, failed_at) = (due_at.as_millis().into(), failed_at.map(Timestamp::as_millis).into());
        Statement::new(NOT_DELIVERED, [deletion, generation, attempts.into(), due_at, failed_at])
    };
    let statement = match outcome {
        NoticeOutcome::Done => Statement::new(DONE, parameters(notice)),
        NoticeOutcome::Retry { attempts, due_at } => not_delivered(attempts, due_at, None),
        NoticeOutcome::Failed { attempts, failed_at } => not_delivered(attempts, failed_at, Some(failed_at)),
    };
    run(database, statement).await.map(|_| Settled(()))
}

/// At most `limit` notices that were due before `before` and that nobody has seen to, longest overdue first. They count as
/// due at `now` from here on.
pub(crate) async fn wake(
    database: &impl Database,
    before: Timestamp,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<NoticeRef>, LedgerError> {
    let parameters = [before.as_millis().into(), now.as_millis().into(), limit.into()];
    run(database, Statement::new(WAKE, parameters)).await?.iter().map(read_notice).collect()
}

fn parameters(notice: &NoticeRef) -> [Value; 2] {
    [notice.deletion.as_str().into(), notice.generation.into()]
}

fn read_notice(row: &Row) -> Result<NoticeRef, LedgerError> {
    Ok(NoticeRef { deletion: row.parsed("deletion")?, generation: row.number("generation")? })
}
