use ledger::{LedgerError, LostPart, UpkeepLedger};
use protocol::limits::SEND_MESSAGES_MAX;
use protocol::{
    Event, MESSAGE_LIFE_SECONDS_MAX, NoticeRef, RETENTION_FAILED_MS, RETENTION_MS, SweepRef, group_into_sends,
};

use crate::host::Host;
use crate::queue::Queue;

/// How long a deletion that nobody was told 202 for waits to be asked for again with its Idempotency-Key, in milliseconds.
const ABANDONED_MS: u64 = 86_400_000;

/// After how long a message that has not come is taken for lost, in milliseconds: an hour longer than one can live.
const LOST_MS: u64 = (MESSAGE_LIFE_SECONDS_MAX as u64 + 3_600) * 1_000;

/// How long after its time a notice or a sweep is taken for forgotten, in milliseconds: longer than a message waits in a full queue as a
/// rule.
const OVERDUE_MS: u64 = 10 * 60_000;

/// Most parts that one round sends, and most deletions that it removes: a round ends, the next goes on.
const RESENT_MAX: usize = 20;
const REMOVED_MAX: usize = 500;

/// One round of upkeep, which a cron trigger starts.
///
/// 1. *await* Deletions whose request died before all messages were stored, and that nobody has asked for again within a
///    day: cancel them. Nobody was told 202, so nobody may find files gone a day after they were told it had failed.
/// 2. *await* Deletions that are not over although their messages must have been delivered or expired by now: send the
///    messages of the chunks that are missing once more.
/// 3. *await* Notices that nobody has seen to when they were due, because their message was never sent or is lost: send it
///    again. A second message is harmless: the ledger knows whether a notice is owed.
/// 4. *await* Sweeps that nobody goes on with: likewise.
/// 5. *await* Deletions that ended long enough ago: remove all that is kept of them.
///
/// What fails is tried again in the next round.
pub async fn upkeep(ledger: &impl UpkeepLedger, queue: &impl Queue, host: &impl Host) {
    let started_at = host.now();
    let abandoned = ledger.cancel_abandoned(started_at.minus_millis(ABANDONED_MS), started_at).await;
    let abandoned = told(abandoned, "cancel_abandoned", host).unwrap_or_default();
    let resent = resend_lost(ledger, queue, host).await;
    let notices = wake_notices(ledger, queue, host).await;
    let sweeps = wake_sweeps(ledger, queue, host).await;
    let now = host.now();
    let (before, failed_before) = (now.minus_millis(RETENTION_MS), now.minus_millis(RETENTION_FAILED_MS));
    let removed = ledger.remove_expired(before, failed_before, REMOVED_MAX).await;
    let removed = told(removed, "remove", host).unwrap_or_default();
    host.emit(&Event::UpkeepFinished {
        abandoned,
        resent,
        removed,
        notices,
        sweeps,
        duration_ms: host.now().millis_since(started_at),
    });
}

async fn resend_lost(ledger: &impl UpkeepLedger, queue: &impl Queue, host: &impl Host) -> usize {
    let now = host.now();
    let lost = ledger.list_lost(now.minus_millis(LOST_MS), now, RESENT_MAX).await;
    let mut resent = 0;
    for lost in told(lost, "list_lost", host).unwrap_or_default() {
        if let Some(messages) = resend(&lost, ledger, queue, host).await {
            told(ledger.mark_resent(&lost.part, host.now()).await, "mark_resent", host);
            host.emit(&Event::DeletionResent { deletion: &lost.part.deletion, messages });
            resent += 1;
        }
    }
    resent
}

/// Sends the messages of a part that are lost, row by row of its outbox, and answers with their number; with `None`
/// when the ledger or the Queue refuses at the moment: the next round asks again. Sending one that is not lost is
/// harmless.
async fn resend(
    lost: &LostPart,
    ledger: &impl UpkeepLedger,
    queue: &impl Queue,
    host: &impl Host,
) -> Option<usize> {
    let (mut messages, mut row) = (0, 0);
    while let Some(bodies) = told(ledger.read_lost(lost, row).await, "read_lost", host)? {
        messages += bodies.len();
        for send in group_into_sends(bodies) {
            queue.send(send, 0).await.ok()?;
        }
        row += 1;
    }
    Some(messages)
}

async fn wake_notices(ledger: &impl UpkeepLedger, queue: &impl Queue, host: &impl Host) -> usize {
    let now = host.now();
    let overdue = ledger.wake_notices(now.minus_millis(OVERDUE_MS), now, SEND_MESSAGES_MAX).await;
    let overdue = told(overdue, "wake_notices", host).unwrap_or_default();
    send(overdue.iter().map(NoticeRef::to_message).collect(), queue).await
}

async fn wake_sweeps(ledger: &impl UpkeepLedger, queue: &impl Queue, host: &impl Host) -> usize {
    let now = host.now();
    let overdue = ledger.wake_sweeps(now.minus_millis(OVERDUE_MS), now, SEND_MESSAGES_MAX).await;
    let overdue = told(overdue, "wake_sweeps", host).unwrap_or_default();
    send(overdue.iter().map(SweepRef::to_message).collect(), queue).await
}

/// Sends messages, and answers with how many were stored. What the Queue refuses is overdue again in a while.
async fn send(messages: Vec<String>, queue: &impl Queue) -> usize {
    let count = messages.len();
    if count > 0 && queue.send(messages, 0).await.is_ok() { count } else { 0 }
}

/// Writes an error to the log, and goes on without.
fn told<T>(result: Result<T, LedgerError>, operation: &'static str, host: &impl Host) -> Option<T> {
    result.inspect_err(|error| host.emit(&Event::LedgerFailed { operation, cause: &error.cause })).ok()
}

#[cfg(test)]
mod tests;
