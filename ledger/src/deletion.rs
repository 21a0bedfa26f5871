use protocol::{Counts, DeletionId, FailureCode, Labels, State, Timestamp};

use crate::database::{Database, LedgerError, Row, Statement, json};
use crate::row::{self, number, optional_time, time};

/// A deletion to be written down before its first message is sent.
#[derive(Clone, Debug)]
pub struct NewDeletion {
    /// Its id.
    pub id: DeletionId,
    /// The name of the token that requested it.
    pub requested_by: String,
    /// When.
    pub requested_at: Timestamp,
    /// Duplicates that were left out of it.
    pub duplicates_removed: usize,
    /// How many keys each of its chunks has.
    pub chunk_keys: Vec<usize>,
    /// The caller's names and values.
    pub labels: Labels,
}

/// A deletion as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletionRecord {
    /// Its id.
    pub id: DeletionId,
    /// The name of the token that requested it.
    pub requested_by: String,
    /// How often it has been redriven.
    pub generation: u32,
    /// What became of its keys.
    pub counts: Counts,
    /// Its state, which follows from the counts.
    pub state: State,
    /// Duplicates that were left out of it.
    pub duplicates_removed: u64,
    /// Messages it was sent as.
    pub messages: u64,
    /// When it was requested.
    pub requested_at: Timestamp,
    /// When its first chunk was begun.
    pub started_at: Option<Timestamp>,
    /// When its last key was decided.
    pub finished_at: Option<Timestamp>,
    /// Its failures by code and R2's code, most first.
    pub errors: Vec<ErrorCount>,
    /// The caller's names and values.
    pub labels: Labels,
}

/// How many keys of a deletion failed in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorCount {
    /// Why; `None` for a code of a later version.
    pub code: Option<FailureCode>,
    /// R2's code, where R2 gave one.
    pub r2_code: Option<u32>,
    /// How many keys.
    pub count: u64,
}

const INSERT: &str = "\
INSERT INTO deletions (id, requested_by, requested_at, total, duplicates_removed, chunk_keys, labels)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

const INSERT_LABELS: &str = "\
INSERT INTO labels (name, value, deletion)
SELECT l.key, l.value, d.id FROM deletions AS d, json_each(d.labels) AS l WHERE d.id = ?1
ON CONFLICT DO NOTHING";

const CANCEL: &str = "UPDATE deletions SET cancelled_at = ?2 WHERE id = ?1 AND cancelled_at IS NULL";

const FIND: &str = "\
SELECT d.id, d.labels,
       d.requested_by, d.requested_at, d.generation, d.total, d.duplicates_removed, d.cancelled_at, d.finished_at,
       json_array_length(d.chunk_keys) AS messages,
       COUNT(c.chunk) AS begun, MIN(c.begun_at) AS started_at, MAX(c.recorded_at) AS recorded_at,
       COALESCE(SUM(c.deleted), 0) AS deleted, COALESCE(SUM(c.skipped), 0) AS skipped,
       COALESCE(SUM(c.failed), 0) AS failed, COALESCE(SUM(c.claimed_until > ?2), 0) AS in_flight
FROM deletions AS d LEFT JOIN chunks AS c ON c.deletion = d.id
WHERE d.id IN (SELECT value FROM json_each(?1)) GROUP BY d.id ORDER BY d.id DESC";

const ERRORS: &str = "\
SELECT deletion, code, r2_code, COUNT(*) AS count FROM failures
WHERE deletion IN (SELECT value FROM json_each(?1))
GROUP BY deletion, code, r2_code ORDER BY count DESC, code";

pub(crate) async fn insert(database: &impl Database, deletion: &NewDeletion) -> Result<(), LedgerError> {
    let NewDeletion { id, requested_by, requested_at, duplicates_removed, chunk_keys, labels } = deletion;
    let total: usize = chunk_keys.iter().sum();
    let mut statements = vec![Statement::new(
        INSERT,
        [
            id.as_str().into(),
            requested_by.as_str().into(),
            requested_at.as_millis().into(),
            total.into(),
            (*duplicates_removed).into(),
            json(chunk_keys)?,
            json(labels)?,
        ],
    )];
    if !labels.is_empty() {
        statements.push(Statement::new(INSERT_LABELS, [id.as_str().into()]));
    }
    database.batch(statements).await.map(drop)
}

pub(crate) async fn cancel(
    database: &impl Database,
    id: &DeletionId,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let statement = Statement::new(CANCEL, [id.as_str().into(), now.as_millis().into()]);
    database.batch(vec![statement]).await.map(drop)
}

pub(crate) async fn find(
    database: &impl Database,
    id: &DeletionId,
    now: Timestamp,
) -> Result<Option<DeletionRecord>, LedgerError> {
    Ok(find_all(database, std::slice::from_ref(id), now).await?.pop())
}

/// Those of `ids` that there are, newest first.
pub(crate) async fn find_all(
    database: &impl Database,
    ids: &[DeletionId],
    now: Timestamp,
) -> Result<Vec<DeletionRecord>, LedgerError> {
    let ids = json(ids)?;
    let find = Statement::new(FIND, [ids.clone(), now.as_millis().into()]);
    let errors = Statement::new(ERRORS, [ids]);
    let mut answer = database.batch(vec![find, errors]).await?.into_iter();
    let rows = row::next(&mut answer)?;
    let errors = row::next(&mut answer)?;
    rows.iter()
        .map(|row| {
            let row = DeletionRow::read(row)?;
            let of_it =
                |error: &&Row| error.get("deletion").and_then(|id| id.as_str()) == Some(row.id.as_str());
            let errors = errors.iter().filter(of_it).map(ErrorCount::read).collect::<Result<_, _>>()?;
            row.into_record(errors)
        })
        .collect()
}

struct DeletionRow {
    id: DeletionId,
    labels: String,
    requested_by: String,
    requested_at: Timestamp,
    generation: u32,
    total: u64,
    duplicates_removed: u64,
    cancelled_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    messages: u64,
    begun: u64,
    started_at: Option<Timestamp>,
    recorded_at: Option<Timestamp>,
    deleted: u64,
    skipped: u64,
    failed: u64,
    in_flight: u64,
}

impl DeletionRow {
    fn read(row: &Row) -> Result<Self, LedgerError> {
        Ok(Self {
            id: row::id(row, "id")?,
            labels: row::text(row, "labels")?,
            requested_by: row::text(row, "requested_by")?,
            requested_at: time(row, "requested_at")?,
            generation: row::small(row, "generation")?,
            total: number(row, "total")?,
            duplicates_removed: number(row, "duplicates_removed")?,
            cancelled_at: optional_time(row, "cancelled_at")?,
            finished_at: optional_time(row, "finished_at")?,
            messages: number(row, "messages")?,
            begun: number(row, "begun")?,
            started_at: optional_time(row, "started_at")?,
            recorded_at: optional_time(row, "recorded_at")?,
            deleted: number(row, "deleted")?,
            skipped: number(row, "skipped")?,
            failed: number(row, "failed")?,
            in_flight: number(row, "in_flight")?,
        })
    }

    fn into_record(self, errors: Vec<ErrorCount>) -> Result<DeletionRecord, LedgerError> {
        let cancel = self.cancelled_at.is_some();
        let closed = cancel && self.in_flight == 0;
        let counts = Counts::derive(self.total, self.deleted, self.skipped, self.failed, closed);
        let state = State::derive(&counts, self.begun > 0, cancel);
        // A cancelled deletion ends when the last chunk that was in flight is recorded, or at once.
        let finished_at = match state {
            State::Cancelled => self.cancelled_at.max(self.recorded_at),
            _ => self.finished_at,
        };
        let labels = serde_json::from_slice(self.labels.as_bytes())
            .map_err(|error| LedgerError::new(format!("the labels of a deletion: {error}")))?;
        Ok(DeletionRecord {
            id: self.id,
            requested_by: self.requested_by,
            generation: self.generation,
            counts,
            state,
            duplicates_removed: self.duplicates_removed,
            messages: self.messages,
            requested_at: self.requested_at,
            started_at: self.started_at,
            finished_at,
            errors,
            labels,
        })
    }
}

impl ErrorCount {
    pub(crate) fn read(row: &Row) -> Result<Self, LedgerError> {
        let r2_code = row::optional_number(row, "r2_code")?;
        Ok(Self {
            code: FailureCode::from_text(&row::text(row, "code")?),
            r2_code: r2_code.and_then(|code| code.try_into().ok()),
            count: number(row, "count")?,
        })
    }
}
