use ledger::{ChunkOutcome, FailedKey, Grant, SkippedKey};
use protocol::{FailureCode, ObjectKey, R2Error, RETRIES_MAX, RetryCause, Timestamp};

use crate::allowance::Allowance;
use crate::batch::Message;
use crate::bucket::Bucket;
use crate::delete::{Attempt, ChunkReport, Looks, delete_keys};
use crate::host::Host;

/// A chunk after its attempt.
pub(crate) struct Worked {
    pub(crate) index: usize,
    pub(crate) attempts: u32,
    pub(crate) outcome: ChunkOutcome,
    pub(crate) report: ChunkReport,
    pub(crate) dead_letter: Option<FailureCode>,
}

impl Worked {
    /// Deletes what is undecided, but for what the fence keeps.
    pub(crate) async fn attempt(
        message: Message<'_>,
        grant: Grant,
        deadline: Timestamp,
        allowance: &Allowance,
        bucket: &impl Bucket,
        host: &impl Host,
    ) -> Self {
        let Message { index, attempts, body } = message;
        let attempt = Attempt {
            keys: &body.keys,
            delivery: Some(index),
            undecided: grant.undecided.iter().collect(),
            requested_at: body.requested_at,
            looks: Looks::Message(&body),
            number: attempts,
            last_error: grant.last_error,
            deadline,
        };
        let report = delete_keys(&attempt, allowance, bucket, host).await;
        allowance.chunk_done();
        let failed = report.failed.iter().filter_map(|&(position, error)| {
            failed_key(&body.keys, position, error.failure_code(), Some(error))
        });
        let last_error = match report.cause {
            Some(RetryCause::R2(error)) => Some(error),
            _ => grant.last_error,
        };
        let failed = failed.collect();
        let skipped = report.skipped.iter().filter_map(|&(position, uploaded_at)| {
            Some(SkippedKey { position, key_json: key_json(&body.keys, position)?, uploaded_at })
        });
        let outcome = ChunkOutcome::new(grant, report.deleted.iter().copied(), failed, last_error, attempts)
            .with_skipped(skipped.collect())
            .with_digest(|position| body.keys.get(position).map(ObjectKey::as_str));
        Self { index, attempts, outcome, report, dead_letter: None }
    }

    /// Gives up on what is undecided: the message has used up its attempts.
    pub(crate) fn dead_letter((message, grant): (Message<'_>, Grant)) -> Self {
        let Message { index, attempts, body } = message;
        let error = grant.last_error;
        let code = error.map_or(FailureCode::AttemptsExhausted, R2Error::failure_code);
        let failed =
            grant.undecided.iter().filter_map(|position| failed_key(&body.keys, position, code, error));
        let failed = failed.collect();
        // The dead-letter queue counts its own deliveries; those that are over are the deletions' queue's.
        let outcome = ChunkOutcome::new(grant, [], failed, error, RETRIES_MAX + 1);
        Self { index, attempts, outcome, report: ChunkReport::default(), dead_letter: Some(code) }
    }
}

fn failed_key(
    keys: &[ObjectKey<'_>],
    position: usize,
    code: FailureCode,
    error: Option<R2Error>,
) -> Option<FailedKey> {
    Some(FailedKey { position, key_json: key_json(keys, position)?, code, error })
}

fn key_json(keys: &[ObjectKey<'_>], position: usize) -> Option<String> {
    serde_json::to_string(keys.get(position)?).ok()
}
