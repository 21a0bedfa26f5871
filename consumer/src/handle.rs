use futures::future::{join, join_all};
use ledger::{
    ClaimBatch, ClaimReply, ClaimRequest, ConsumerLedger, Ended, LedgerError, RecordBatch, RecordReply,
};
use protocol::{DEAD_LETTER_QUEUE_SUFFIX, Event, Timestamp, UnreadableReason};

use crate::allowance::Allowance;
use crate::batch::{Batch, Decoded, Message};
use crate::bucket::Bucket;
use crate::delete::CALL_MS_MAX;
use crate::delivery::Delivery;
use crate::host::Host;
use crate::notice::{Endpoint, Notices};
use crate::queue::Queue;
use crate::settlement::Settlements;
use crate::sweep::{Ports, sweep};
use crate::tries::{RECORD_PAUSE_MS, RECORD_TRIES, in_tries};
use crate::work::Worked;

/// How long after its start an invocation may begin calls to R2, in milliseconds.
const WORK_MS: u64 = 60_000;

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
/// 5. *await* Record, in one write, which also owes a notice for each deletion that it ends. Repeating it is safe: the record
///    takes the claim with it. Until it is confirmed nothing is acknowledged.
/// 6. *await* Write those ends to the log, have their notices looked at, and have the sweeps begin that have waited for the last of
///    the keys. What is left undone here, upkeep does.
/// 7. Settle: acknowledged is only what the ledger has given a proof for.
///
/// Messages that have a notice looked at go beside 2 to 6 ([`Notices`]): a slow endpoint holds up no delete and no record. So do
/// those that ask for a step of a sweep ([`sweep`]), which claims, deletes and records by itself.
///
/// When the attempts of a message run out, the platform moves it to the dead-letter queue, which ends here too: its
/// undecided keys become failures, and a notice is looked at as ever.
pub async fn handle(
    queue: &str,
    deliveries: &[Delivery],
    bucket: &impl Bucket,
    ledger: &impl ConsumerLedger,
    notices: &Notices<'_, impl Queue, impl Endpoint>,
    host: &impl Host,
) -> Settlements {
    let mut batch = Batch::new(queue, deliveries, host);

    // (1) Decode.
    let Decoded { messages, notices: notice_messages, sweeps: sweep_messages, unreadable } = batch.decode();

    // (2) to (6), and sweeps and notices beside it.
    let allowance = Allowance::of(messages.len() + sweep_messages.len(), notice_messages.len());
    let deadline = batch.started_at.plus_millis(WORK_MS);
    let ports = Ports { bucket, ledger, notices, host, allowance: &allowance, deadline };
    let is_dead_letter = queue.ends_with(DEAD_LETTER_QUEUE_SUFFIX);
    let looked_at = notice_messages.iter().map(|message| notices.look_at(&message.notice, ledger, host));
    let swept = sweep_messages.iter().map(|message| sweep(message, is_dead_letter, &ports));
    let chunks = handle_chunks(&mut batch, messages, unreadable, is_dead_letter, &ports);
    let (chunks, (swept, looked_at)) = join(chunks, join(join_all(swept), join_all(looked_at))).await;

    // (7) Settle.
    for (message, looked_at) in notice_messages.iter().zip(looked_at) {
        batch.settle_notice(message, looked_at);
    }
    let unreadable = batch.settle_sweeps(swept);
    keep(&mut batch, &unreadable, &ports).await;
    match chunks {
        Ok(Recorded { worked, unreadable, reply }) => batch.settle(&worked, &unreadable, reply),
        Err((operation, error)) => batch.give_up(operation, &error),
    }
}

/// *await* Keeps sweeps' messages that the ledger knows nothing of. Those that it does not take come back.
async fn keep<H: Host>(
    batch: &mut Batch<'_, H>,
    unreadable: &[(usize, UnreadableReason)],
    ports: &Ports<'_, impl Bucket, impl ConsumerLedger, impl Queue, impl Endpoint, impl Host>,
) {
    let record = RecordBatch {
        token: batch.host.token(),
        now: batch.host.now(),
        outcomes: Vec::new(),
        unreadable: batch.unreadable_messages(unreadable),
        owe_notices: false,
    };
    match record_with_retries(record, ports.ledger, batch.host).await {
        Ok(reply) => batch.settle_unreadable(unreadable, reply.unreadable),
        Err(error) => {
            batch.host.emit(&Event::LedgerFailed { operation: "keep", cause: &error.cause });
        }
    }
}

/// What has become of a batch's chunks, recorded.
struct Recorded {
    worked: Vec<Worked>,
    unreadable: Vec<(usize, UnreadableReason)>,
    reply: RecordReply,
}

/// Steps 2 to 6 of [`handle`]; an error is one of the ledger, with the operation that it refused.
async fn handle_chunks<H: Host>(
    batch: &mut Batch<'_, H>,
    messages: Vec<Message<'_>>,
    mut unreadable: Vec<(usize, UnreadableReason)>,
    is_dead_letter: bool,
    ports: &Ports<'_, impl Bucket, impl ConsumerLedger, impl Queue, impl Endpoint, impl Host>,
) -> Result<Recorded, (&'static str, LedgerError)> {
    let &Ports { bucket, ledger, notices, allowance, deadline, .. } = ports;
    let (host, started_at) = (batch.host, batch.started_at);

    // (2) Claim.
    let token = host.token();
    let replies = claim(&messages, &token, started_at, ledger).await.map_err(|error| ("claim", error))?;

    // (3) Sort.
    let mut granted = Vec::new();
    for (message, reply) in messages.into_iter().zip(replies) {
        if !matches!(reply, ClaimReply::Granted(_)) {
            allowance.chunk_done();
        }
        match reply {
            ClaimReply::Granted(grant) => granted.push((message, grant)),
            ClaimReply::NothingToDo(proof) => batch.acknowledge(message.index, proof),
            ClaimReply::ClaimedElsewhere { until } => batch.retry_claimed(&message, until),
            ClaimReply::NotAccepted(reason) => unreadable.push((message.index, reason)),
        }
    }

    // (4) Delete, or give up.
    let worked = if is_dead_letter {
        granted.into_iter().map(Worked::dead_letter).collect()
    } else {
        let attempts = granted
            .into_iter()
            .map(|(message, grant)| Worked::attempt(message, grant, deadline, allowance, bucket, host));
        join_all(attempts).await
    };

    // (5) Record.
    let record = RecordBatch {
        token,
        now: host.now(),
        outcomes: worked.iter().map(|work| work.outcome.clone()).collect(),
        unreadable: batch.unreadable_messages(&unreadable),
        owe_notices: notices.are_wanted(),
    };
    let reply = record_with_retries(record, ledger, host).await.map_err(|error| ("record", error))?;

    // (6) Announce: to the log, to whoever wants notices, and to the sweeps that have waited for the keys.
    notices.announce(&reply.ended, host).await;
    Ok(Recorded { worked, unreadable, reply })
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
        return Ok(RecordReply { outcomes: Vec::new(), unreadable: Vec::new(), ended: Ended::default() });
    }
    in_tries(host, async |now| {
        batch.now = now;
        ledger.record(&batch).await
    })
    .await
}

#[cfg(test)]
mod tests;
