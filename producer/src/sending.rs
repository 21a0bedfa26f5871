use std::cell::RefCell;

use futures::try_join;
use ledger::{LedgerError, ProducerLedger};
use protocol::limits::CONNECTIONS_MAX;
use protocol::{DeletionId, QueueError, Timestamp, group_into_sends};

use crate::host::Host;
use crate::problem::Problem;
use crate::queue::Queue;

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
pub(crate) async fn send_all(
    bodies: Vec<String>,
    delay_seconds: u32,
    queue: &impl Queue,
) -> Result<(), QueueError> {
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

/// Sends what the outbox has of a deletion, of the chunks that are `wanted` or of all, in what is left of its undo window.
/// Answers with the number of messages. Sending one that was sent before is harmless.
pub(crate) async fn send_outbox(
    id: &DeletionId,
    wanted: Option<&[u32]>,
    not_before: Timestamp,
    ledger: &impl ProducerLedger,
    queue: &impl Queue,
    host: &impl Host,
) -> Result<usize, SendingError> {
    let mut sent = 0;
    for piece in 0.. {
        let Some(bodies) = ledger.read_outbox(id, piece, wanted).await.map_err(SendingError::Ledger)? else {
            break;
        };
        sent += bodies.len();
        let delay_seconds = delay_seconds(host.now(), not_before);
        send_all(bodies, delay_seconds, queue).await.map_err(SendingError::Queue)?;
    }
    Ok(sent)
}

/// Whole seconds from `now` to `not_before`, rounded up: an undo window is never cut short.
pub(crate) fn delay_seconds(now: Timestamp, not_before: Timestamp) -> u32 {
    u32::try_from(not_before.millis_since(now).div_ceil(1_000)).unwrap_or(u32::MAX)
}
