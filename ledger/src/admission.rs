use protocol::{DeletionId, Fence, Labels, Packed, Timestamp};

use crate::database::{Database, LedgerError, Row, Statement, Value, json, run};
use crate::outbox;

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
    /// Until when the request holds the sending of its messages for itself.
    pub sending_until: Timestamp,
    /// Duplicates that were left out of it.
    pub duplicates_removed: usize,
    /// Whether what is uploaded since the request is kept.
    pub fence: Fence,
    /// Its messages.
    pub messages: Vec<Packed>,
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

const CLAIM_KEY: &str = "\
INSERT INTO idempotency_keys (requested_by, idempotency_key, fingerprint, deletion) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT DO NOTHING";

const INSERT: &str = "\
INSERT INTO deletions (id, requested_by, requested_at, not_before, sending_until, total, duplicates_removed, chunk_keys, labels, fence)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?10, ?11
WHERE ?9 IS NULL
   OR (SELECT deletion FROM idempotency_keys WHERE requested_by = ?2 AND idempotency_key = ?9) = ?1";

const INSERT_LABELS: &str = "\
INSERT INTO labels (name, value, deletion)
SELECT l.key, l.value, d.id FROM deletions AS d, json_each(d.labels) AS l WHERE d.id = ?1
ON CONFLICT DO NOTHING";

const IS_WRITTEN: &str = "SELECT id FROM deletions WHERE id = ?1";

const FIND_KEY: &str = "\
SELECT k.deletion, k.fingerprint, d.sending_until,
       d.enqueued_at IS NOT NULL OR d.cancelled_at IS NOT NULL OR d.finished_at IS NOT NULL AS done
FROM idempotency_keys AS k JOIN deletions AS d ON d.id = k.deletion
WHERE k.requested_by = ?1 AND k.idempotency_key = ?2";

const HOLD: &str = "\
UPDATE deletions SET sending_until = ?3
WHERE id = ?1 AND enqueued_at IS NULL AND cancelled_at IS NULL AND sending_until <= ?2
RETURNING not_before";

const RELEASE: &str = "UPDATE deletions SET sending_until = 0 WHERE id = ?1 AND enqueued_at IS NULL";

const MARK_ENQUEUED: &str = "UPDATE deletions SET enqueued_at = ?2 WHERE id = ?1 AND enqueued_at IS NULL";

/// Writes the deletion down with its messages. False when another request with the same Idempotency-Key came first: nothing
/// is left written then.
///
/// 1. *await* The messages, which belong to nobody yet. Stopped here, upkeep removes them.
/// 2. *await* The deletion with its Idempotency-Key and its labels, all or nothing. From here on it is there as a whole.
pub(crate) async fn admit(database: &impl Database, deletion: &NewDeletion) -> Result<bool, LedgerError> {
    let id = Value::from(deletion.id.as_str());
    let requested_by = Value::from(deletion.requested_by.as_str());
    let key: Value = deletion.idempotency.as_ref().map(|idempotency| idempotency.key.as_str()).into();
    let chunk_keys: Vec<usize> = deletion.messages.iter().map(|message| message.keys).collect();
    // (1) Messages.
    outbox::fill(database, &deletion.id, &deletion.messages).await?;

    // (2) Deletion.
    let mut statements = Vec::new();
    if let Some(Idempotency { key, fingerprint }) = &deletion.idempotency {
        let parameters = [requested_by.clone(), key.as_str().into(), fingerprint.as_str().into(), id.clone()];
        statements.push(Statement::new(CLAIM_KEY, parameters));
    }
    statements.push(Statement::new(
        INSERT,
        [
            id.clone(),
            requested_by,
            deletion.requested_at.as_millis().into(),
            deletion.not_before.as_millis().into(),
            deletion.sending_until.as_millis().into(),
            chunk_keys.iter().sum::<usize>().into(),
            deletion.duplicates_removed.into(),
            json(&chunk_keys)?,
            key,
            json(&deletion.labels)?,
            deletion.fence.as_str().into(),
        ],
    ));
    if !deletion.labels.is_empty() {
        statements.push(Statement::new(INSERT_LABELS, [id.clone()]));
    }
    statements.push(Statement::new(IS_WRITTEN, [id]));
    let is_written = database.batch(statements).await?.pop().is_some_and(|rows| !rows.is_empty());
    if !is_written {
        run(database, outbox::empty(&deletion.id)).await?;
    }
    Ok(is_written)
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

/// Takes over the sending of a deletion's messages, from a request that died over it: answers with the end of the undo
/// window, or with `None` when somebody else is at it, or when there is nothing to send.
pub(crate) async fn hold(
    database: &impl Database,
    id: &DeletionId,
    now: Timestamp,
    until: Timestamp,
) -> Result<Option<Timestamp>, LedgerError> {
    let parameters = [id.as_str().into(), now.as_millis().into(), until.as_millis().into()];
    run(database, Statement::new(HOLD, parameters))
        .await?
        .first()
        .map(|row| row.time("not_before"))
        .transpose()
}

/// Lets the next request with the same Idempotency-Key take over at once.
pub(crate) async fn release(database: &impl Database, id: &DeletionId) -> Result<(), LedgerError> {
    run(database, Statement::new(RELEASE, [id.as_str().into()])).await.map(drop)
}

/// Every message of the deletion is stored in the Queue.
pub(crate) async fn mark_enqueued(
    database: &impl Database,
    id: &DeletionId,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let statement = Statement::new(MARK_ENQUEUED, [id.as_str().into(), now.as_millis().into()]);
    run(database, statement).await.map(drop)
}

fn read_earlier(row: &Row) -> Result<EarlierRequest, LedgerError> {
    let sending =
        if row.is("done")? { Sending::Done } else { Sending::Held { until: row.time("sending_until")? } };
    Ok(EarlierRequest {
        deletion: row.parsed("deletion")?,
        fingerprint: row.text("fingerprint")?.to_owned(),
        sending,
    })
}
