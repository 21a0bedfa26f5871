use protocol::{DeletionId, Fence, Labels, SweepPhase, SweepRange, Timestamp};

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
    /// The keys that the request brings; `None` when they are to be put in parts. One without keys has the messages that begin
    /// the sweeps.
    pub part: Option<NewPart>,
    /// What it deletes by prefix.
    pub sweep: Option<NewSweep>,
    /// Whether the deleted keys are digested for a receipt, and what is left under the prefixes is counted at the end.
    pub verify: bool,
    /// How many keys were asked for besides, when it is a dry run: none of them is in its part.
    pub planned_keys: Option<usize>,
    /// The caller's names and values.
    pub labels: Labels,
    /// The Idempotency-Key that it was requested with.
    pub idempotency: Option<Idempotency>,
}

/// What a deletion deletes by prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSweep {
    /// The prefixes, none within another.
    pub ranges: Vec<SweepRange>,
    /// Nothing is deleted when there are more objects than this.
    pub max_objects: Option<u64>,
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

/// ?7 is when it is sealed: at once, if the request brings its keys. A dry run of keys alone is over at once.
const INSERT: &str = "\
INSERT INTO deletions
    (id, requested_by, requested_at, not_before, labels, sealed_at, fence, prefixes, max_objects, verify, planned_keys, finished_at)
SELECT ?1, ?2, ?3, ?4, ?5, ?7, ?8, ?9, ?10, ?11, ?12, CASE WHEN ?12 IS NOT NULL AND ?9 IS NULL THEN ?3 END
WHERE ?6 IS NULL
   OR (SELECT deletion FROM idempotency_keys WHERE requested_by = ?2 AND idempotency_key = ?6) = ?1";

const INSERT_PART: &str = insert_part!("WHERE EXISTS (SELECT 1 FROM deletions WHERE id = ?1)");

/// They wait for the keys of the deletion, if it has any: what they find then is what nobody has named.
const INSERT_SWEEPS: &str = "\
INSERT INTO sweeps (deletion, sweep, range, phase, due_at)
SELECT d.id, r.key, r.value, ?3, ?4 FROM deletions AS d, json_each(?2) AS r WHERE d.id = ?1
ON CONFLICT DO NOTHING";

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
    let sweep = deletion.sweep.as_ref();
    let prefixes: Option<Vec<&str>> =
        sweep.map(|sweep| sweep.ranges.iter().map(|range| range.prefix.as_str()).collect());
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
            prefixes.as_ref().map(json).transpose()?.into(),
            sweep.and_then(|sweep| sweep.max_objects).into(),
            u32::from(deletion.verify).into(),
            deletion.planned_keys.into(),
        ],
    ));
    if let Some(part) = &deletion.part {
        let values = part::values(&PartRef::request(&deletion.id), part, Value::Null)?;
        statements.push(Statement::new(INSERT_PART, values));
    }
    if let Some(sweep) = sweep {
        let counts_first = deletion.planned_keys.is_some() || sweep.max_objects.is_some();
        let phase = if counts_first { SweepPhase::Count } else { SweepPhase::Delete };
        let has_no_keys = deletion.part.as_ref().is_some_and(|part| part.keys() == 0);
        let due_at = has_no_keys.then_some(deletion.not_before.as_millis());
        let parameters = [id.clone(), json(&sweep.ranges)?, phase.as_str().into(), due_at.into()];
        statements.push(Statement::new(INSERT_SWEEPS, parameters));
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
