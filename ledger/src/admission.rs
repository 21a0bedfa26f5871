use protocol::{DeletionId, Fence, Labels, Timestamp};

use crate::database::{Database, LedgerError, Row, Statement, Value, json, run};
use crate::part::{self, NewPart, PartRef, insert_part};

/// A deletion to be written down before its first message is sent.
#[derive(Clone, Debug)]
pub struct NewDeletion {
    /// Its id.
    pub id: DeletionId,
    /// The name of the token that requested it.
    pub requested_by: String,
    /// When.
    pub requested_at: Timestamp,
    /// When its undo window ends; the time of the request when it has none.
    pub not_before: Timestamp,
    /// Whether what is uploaded since the request is kept.
    pub fence: Fence,
    /// The keys that the request brings; `None` when they are to be put in parts.
    pub part: Option<NewPart>,
    /// The caller's names and values.
    pub labels: Labels,
    /// The Idempotency-Key that it was requested with.
    pub idempotency: Option<Idempotency>,
}

/// An Idempotency-Key with what it was sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The key; scoped to the token.
    pub key: String,
    /// Tells one body from another.
    pub fingerprint: String,
}

/// What an Idempotency-Key has made before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierRequest {
    /// The deletion.
    pub deletion: DeletionId,
    /// Which body it was made of.
    pub fingerprint: String,
    /// How far it came.
    pub sending: Sending,
}

/// How far the sending of a deletion's messages is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// Every message is stored, or the deletion is over.
    Done,
    /// A request is at it until then, at the most.
    Held {
        /// When the request's hold ends.
        until: Timestamp,
    },
}

impl Sending {
    /// From the columns `done` and `sending_until`.
    pub(crate) fn read(row: &Row) -> Result<Self, LedgerError> {
        Ok(if row.is("done")? { Self::Done } else { Self::Held { until: row.time("sending_until")? } })
    }
}

const CLAIM_KEY: &str = "\
INSERT INTO idempotency_keys (requested_by, idempotency_key, fingerprint, deletion) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT DO NOTHING";

/// ?7 is when it is sealed: at once, if the request brings its keys.
const INSERT: &str = "\
INSERT INTO deletions (id, requested_by, requested_at, not_before, labels, sealed_at, fence)
SELECT ?1, ?2, ?3, ?4, ?5, ?7, ?8
WHERE ?6 IS NULL
   OR (SELECT deletion FROM idempotency_keys WHERE requested_by = ?2 AND idempotency_key = ?6) = ?1";

const INSERT_PART: &str = insert_part!("WHERE EXISTS (SELECT 1 FROM deletions WHERE id = ?1)");

const INSERT_LABELS: &str = "\
INSERT INTO labels (name, value, deletion)
SELECT l.key, l.value, d.id FROM deletions AS d, json_each(d.labels) AS l WHERE d.id = ?1
ON CONFLICT DO NOTHING";

const IS_WRITTEN: &str = "SELECT id FROM deletions WHERE id = ?1";

const FIND_KEY: &str = "\
SELECT k.deletion, k.fingerprint, COALESCE(p.sending_until, 0) AS sending_until,
       p.part IS NULL OR p.enqueued_at IS NOT NULL OR d.cancelled_at IS NOT NULL OR d.finished_at IS NOT NULL AS done
FROM idempotency_keys AS k JOIN deletions AS d ON d.id = k.deletion
LEFT JOIN parts AS p ON p.deletion = d.id AND p.generation = 0 AND p.part = 0
WHERE k.requested_by = ?1 AND k.idempotency_key = ?2";

/// Writes the deletion down with its Idempotency-Key, its labels and its part, whose messages are in the outbox already: all
/// or nothing. False when another request with the same Idempotency-Key came first: nothing is written then.
pub(crate) async fn admit(database: &impl Database, deletion: &NewDeletion) -> Result<bool, LedgerError> {
    let id = Value::from(deletion.id.as_str());
    let requested_by = Value::from(deletion.requested_by.as_str());
    let key: Value = deletion.idempotency.as_ref().map(|idempotency| idempotency.key.as_str()).into();
    let mut statements = Vec::new();
    if let Some(Idempotency { key, fingerprint }) = &deletion.idempotency {
        let parameters = [requested_by.clone(), key.as_str().into(), fingerprint.as_str().into(), id.clone()];
        statements.push(Statement::new(CLAIM_KEY, parameters));
    }
    let sealed_at = deletion.part.as_ref().map(|_| deletion.requested_at.as_millis());
    statements.push(Statement::new(
        INSERT,
        [
            id.clone(),
            requested_by,
            deletion.requested_at.as_millis().into(),
            deletion.not_before.as_millis().into(),
            json(&deletion.labels)?,
            key,
            sealed_at.into(),
            deletion.fence.as_str().into(),
        ],
    ));
    if let Some(part) = &deletion.part {
        let values = part::values(&PartRef::request(&deletion.id), part, None)?;
        statements.push(Statement::new(INSERT_PART, values));
    }
    if !deletion.labels.is_empty() {
        statements.push(Statement::new(INSERT_LABELS, [id.clone()]));
    }
    statements.push(Statement::new(IS_WRITTEN, [id]));
    Ok(database.batch(statements).await?.pop().is_some_and(|rows| !rows.is_empty()))
}

/// What this Idempotency-Key of this token has made before.
pub(crate) async fn find_key(
    database: &impl Database,
    requested_by: &str,
    key: &str,
) -> Result<Option<EarlierRequest>, LedgerError> {
    let statement = Statement::new(FIND_KEY, [requested_by.into(), key.into()]);
    run(database, statement).await?.first().map(read_earlier).transpose()
}

fn read_earlier(row: &Row) -> Result<EarlierRequest, LedgerError> {
    Ok(EarlierRequest {
        deletion: row.parsed("deletion")?,
        fingerprint: row.text("fingerprint")?.to_owned(),
        sending: Sending::read(row)?,
    })
}
