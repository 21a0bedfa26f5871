use futures::future::join_all;
use ledger::{ClaimBatch, ClaimReply, ClaimRequest, ConsumerLedger, LedgerError, RecordBatch, RecordReply};
use protocol::{DEAD_LETTER_QUEUE_SUFFIX, Timestamp};

use crate::allowance::Allowance;
use crate::batch::{Batch, Message};
use crate::bucket::Bucket;
use crate::delete::CALL_MS_MAX;
use crate::delivery::Delivery;
use crate::host::Host;
use crate::settlement::Settlements;
use crate::work::Worked;

/// How long after its start an invocation may begin calls to R2, in milliseconds.
const WORK_MS: u64 = 60_000;

/// How often the record is tried, and how long between two tries, in milliseconds.
const RECORD_TRIES: u64 = 3;
const RECORD_PAUSE_MS: u64 = 1_000;

/// The longest that D1 lets one query run. docs: d1/platform/limits.
const LEDGER_CALL_MS_MAX: u64 = 30_000;

/// How long a claim lasts, in milliseconds: longer than an invocation can still do anything to its chunks.
pub const CLAIM_MS: u64 = 240_000;

const _: () =
    assert!(WORK_MS + CALL_MS_MAX + RECORD_TRIES * (LEDGER_CALL_MS_MAX + RECORD_PAUSE_MS) < CLAIM_MS);

/// Handles one batch of messages, and says what is to become of each.
///
/// Each `await` may be the last thing that ever happens. What then:
/// 1. Decode every message by itself. One that cannot be read is kept with its body, and hurts no other.
/// 2. *await* Claim the chunks. Repeating it is safe: a claim that nobody records ends by itself.
/// 3. Sort the replies: what is decided or cancelled is acknowledged, what is elsewhere comes back when that claim ends,
///    what was never accepted is kept as unreadable.
/// 4. *await* Delete what was granted, each chunk on its own, but for what the fence keeps; dead letters fail what is
///    undecided instead. Repeating it is safe within the claim: a missing object counts as deleted, and one that has come
///    since is looked at.
/// 5. *await* Record, in one write. Repeating it is safe: the record takes the claim with it. Until it is confirmed nothing
///    is acknowledged.
/// 6. Settle: acknowledged is only what the ledger has given a proof for.
///
/// When the attempts of a message run out, the platform moves it to the dead-letter queue, which ends here too: its
/// undecided keys become failures.
pub async fn handle(
    queue: &str,
    deliveries: &[Delivery],
    bucket: &impl Bucket,
    ledger: &impl ConsumerLedger,
    host: &impl Host,
) -> Settlements {
    let started_at = host.now();
    let mut batch = Batch::new(queue, deliveries, host);

    // (1) Decode.
    let (messages, mut unreadable) = batch.decode();

    // (2) Claim.
    let token = host.token();
    let replies = match claim(&messages, &token, started_at, ledger).await {
        Ok(replies) => replies,
        Err(error) => return batch.give_up("claim", &error, started_at),
    };

    // (3) Sort.
    let mut granted = Vec::new();
    for (message, reply) in messages.into_iter().zip(replies) {
        match reply {
            ClaimReply::Granted(grant) => granted.push((message, grant)),
            ClaimReply::NothingToDo(proof) => batch.acknowledge(message.index, proof),
            ClaimReply::ClaimedElsewhere { until } => batch.retry_claimed(&message, until),
            ClaimReply::NotAccepted(reason) => unreadable.push((message.index, reason)),
        }
    }

    // (4) Delete, or give up.
    let worked = if queue.ends_with(DEAD_LETTER_QUEUE_SUFFIX) {
        granted.into_iter().map(Worked::dead_letter).collect()
    } else {
        let (allowance, deadline) = (Allowance::of(granted.len()), started_at.plus_millis(WORK_MS));
        let attempts = granted.into_iter().map(|(message, grant)| {
            let allowance = &allowance;
            async move { Worked::attempt(message, grant, deadline, allowance, bucket, host).await }
        });
        join_all(attempts).await
    };

    // (5) Record.
    let record = RecordBatch {
        token,
        now: host.now(),
        outcomes: worked.iter().map(|work| work.outcome.clone()).collect(),
        unreadable: unreadable
            .iter()
            .map(|&(index, reason)| batch.unreadable_message(index, reason))
            .collect(),
    };
    let reply = match record_with_retries(record, ledger, host).await {
        Ok(reply) => reply,
        Err(error) => return batch.give_up("record", &error, started_at),
    };

    // (6) Settle.
    batch.settle(&worked, &unreadable, reply, started_at)
}

async fn claim(
    messages: &[Message<'_>],
    token: &str,
    now: Timestamp,
    ledger: &impl ConsumerLedger,
) -> Result<Vec<ClaimReply>, LedgerError> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let requests = messages
        .iter()
        .map(|message| ClaimRequest { chunk: message.body.chunk.clone(), keys: message.body.keys.len() });
    ledger
        .claim(&ClaimBatch {
            token: token.to_owned(),
            now,
            until: now.plus_millis(CLAIM_MS),
            requests: requests.collect(),
        })
        .await
}

async fn record_with_retries(
    mut batch: RecordBatch,
    ledger: &impl ConsumerLedger,
    host: &impl Host,
) -> Result<RecordReply, LedgerError> {
    if batch.outcomes.is_empty() && batch.unreadable.is_empty() {
        return Ok(RecordReply { outcomes: Vec::new(), unreadable: Vec::new(), finished: Vec::new() });
    }
    let mut tries = 1;
    loop {
        match ledger.record(&batch).await {
            Err(_) if tries < RECORD_TRIES => {
                tries += 1;
                host.sleep(RECORD_PAUSE_MS).await;
                batch.now = host.now();
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests;
