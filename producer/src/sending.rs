use futures::try_join;
use ledger::{Hold, LedgerError, PartRef, ProducerLedger};
use protocol::limits::CONNECTIONS_MAX;
use protocol::{Event, QueueError, Timestamp, group_into_sends};
use std::cell::RefCell;

use crate::assets::Assets;
use crate::host::Host;
use crate::idempotency::SENDING_MS;
use crate::outbox::FilledOutbox;
use crate::problem::Problem;
use crate::queue::Queue;
use crate::rate_limit::RateLimiter;
use crate::router::Ports;

/// Why messages could not all be sent.
#[derive(Debug)]
pub(crate) enum SendingError {
    /// The ledger did not say what they are.
    Ledger(LedgerError),
    /// The Queue did not store them all.
    Queue(QueueError),
}

impl SendingError {
    pub(crate) fn into_problem(self, now: Timestamp) -> Problem {
        match self {
            Self::Ledger(error) => Problem::ledger(&error),
            Self::Queue(error) => Problem::queue(error, now),
        }
    }
}

// As many lanes as `send_all` has.
const _: () = assert!(CONNECTIONS_MAX == 6);

/// Sends messages of these bodies, in as few sends as they fit, [`CONNECTIONS_MAX`] at once.
///
/// Six lanes take the next send each, rather than a stream that is polled concurrently: that was ten kilobytes of wasm.
async fn send_all(bodies: Vec<String>, delay_seconds: u32, queue: &impl Queue) -> Result<(), QueueError> {
    let sends = RefCell::new(group_into_sends(bodies).into_iter());
    let lane = async || {
        loop {
            let next = sends.borrow_mut().next();
            let Some(send) = next else { return Ok(()) };
            queue.send(send, delay_seconds).await?;
        }
    };
    try_join!(lane(), lane(), lane(), lane(), lane(), lane()).map(drop)
}

/// The messages of a part that are to be sent.
pub(crate) enum Unsent {
    /// Those that its outbox has just been filled with: all of them must be there.
    Filled(FilledOutbox),
    /// Those that its outbox has.
    Stored,
}

/// Sends messages of a part, in what is left of its undo window. Sending one that was sent before is harmless.
pub(crate) async fn send_part(
    part: &PartRef,
    unsent: Unsent,
    not_before: Timestamp,
    ledger: &impl ProducerLedger,
    queue: &impl Queue,
    host: &impl Host,
) -> Result<(), SendingError> {
    // What is at hand first, so that it is out of memory while the others come.
    let (mut bodies, rows) = match unsent {
        Unsent::Filled(FilledOutbox { pieces, last, .. }) => (last, Some(pieces.saturating_sub(1))),
        Unsent::Stored => (Vec::new(), None),
    };
    let mut row = 0;
    loop {
        let delay_seconds = delay_seconds(host.now(), not_before);
        send_all(bodies, delay_seconds, queue).await.map_err(SendingError::Queue)?;
        if rows == Some(row) {
            return Ok(());
        }
        bodies = match ledger.read_outbox(part, row).await.map_err(SendingError::Ledger)? {
            Some(bodies) => bodies,
            None if rows.is_none() => return Ok(()),
            // It has been cancelled in the meantime, or it must not be said to be sent.
            None => {
                let cause = "a row of the outbox is missing".to_owned();
                return Err(SendingError::Ledger(LedgerError { cause }));
            }
        };
        row += 1;
    }
}

/// Whole seconds from `now` to `not_before`, rounded up: an undo window is never cut short.
pub(crate) fn delay_seconds(now: Timestamp, not_before: Timestamp) -> u32 {
    u32::try_from(not_before.millis_since(now).div_ceil(1_000)).unwrap_or(u32::MAX)
}

/// Notes that every message of a part is stored, or gives the sending up for the next request to take over.
pub(crate) async fn note_sent(
    part: &PartRef,
    sent: Result<(), SendingError>,
    ledger: &impl ProducerLedger,
    host: &impl Host,
) -> Result<(), Problem> {
    let noted = match sent {
        Ok(()) => ledger.mark_enqueued(part, host.now()).await.map_err(SendingError::Ledger),
        Err(error) => Err(error),
    };
    let Err(error) = noted else { return Ok(()) };
    // Without this the next request has to wait for a while.
    if let Err(error) = ledger.release_sending(part).await {
        host.emit(&Event::LedgerFailed { operation: "release_sending", cause: &error.cause });
    }
    Err(error.into_problem(host.now()))
}

/// Takes the place of a request that died before it had sent its part, or that the Queue refused: *await* sends every message
/// from the outbox, and notes it. Those that were stored before are delivered twice, which is harmless.
///
/// False when another request is at it: nobody may say then that all are stored.
pub(crate) async fn resume(
    part: &PartRef,
    ports: &Ports<'_, impl ProducerLedger, impl Queue, impl RateLimiter, impl Assets, impl Host>,
) -> Result<bool, Problem> {
    Ok(take_over(part, ports).await? != Hold::Elsewhere)
}

/// As [`resume`], for whoever wants to know who has sent it: this request, if it was [`Hold::Taken`].
pub(crate) async fn take_over(
    part: &PartRef,
    ports: &Ports<'_, impl ProducerLedger, impl Queue, impl RateLimiter, impl Assets, impl Host>,
) -> Result<Hold, Problem> {
    let &Ports { ledger, queue, host, .. } = ports;
    let now = host.now();
    let held = ledger.hold_sending(part, now, now.plus_millis(SENDING_MS)).await;
    let held = held.map_err(|error| Problem::ledger(&error))?;
    if let Hold::Taken { not_before } = held {
        let sent = send_part(part, Unsent::Stored, not_before, ledger, queue, host).await;
        note_sent(part, sent, ledger, host).await?;
    }
    Ok(held)
}
