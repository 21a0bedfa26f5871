//! The same queue, event by event: invocations that take a batch, wait for the one ledger, delete, wait for it again.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use super::Assumptions;

/// What an invocation wants next, at a time in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// To have the ledger claim its batch.
    Claim,
    /// To have it record what became of it.
    Record,
    /// The ledger has done the transaction at the head of its line.
    LedgerFree,
}

/// How long all invocations take for `batches`, which are all in the queue at the beginning. The ledger does one transaction after
/// the other, whoever comes first; deletes take their time side by side, and it varies by a tenth, so that nobody marches in step.
pub(super) fn seconds(batches: u32, of: Assumptions) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds are neither many nor negative"
    )]
    let nanoseconds = |seconds: f64| (seconds * 1e9) as u64;
    let (transaction, delete) = (nanoseconds(of.transaction_seconds), nanoseconds(of.delete_seconds));
    let mut left = batches;
    let mut line: VecDeque<Event> = VecDeque::new();
    let mut events: BinaryHeap<Reverse<(u64, Event)>> = BinaryHeap::new();
    for _ in 0..of.invocations {
        if left > 0 {
            left -= 1;
            events.push(Reverse((0, Event::Claim)));
        }
    }
    let (mut now, mut state) = (0, 1_u64);
    while let Some(Reverse((time, event))) = events.pop() {
        now = time;
        match event {
            Event::Claim | Event::Record => {
                line.push_back(event);
                if line.len() == 1 {
                    events.push(Reverse((now + transaction, Event::LedgerFree)));
                }
            }
            Event::LedgerFree => {
                match line.pop_front() {
                    Some(Event::Claim) => {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let varied = delete - delete / 10 + (state >> 33) % (delete / 5).max(1);
                        events.push(Reverse((now + varied, Event::Record)));
                    }
                    Some(_) if left > 0 => {
                        left -= 1;
                        events.push(Reverse((now, Event::Claim)));
                    }
                    _ => {}
                }
                if !line.is_empty() {
                    events.push(Reverse((now + transaction, Event::LedgerFree)));
                }
            }
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of hours are exact enough")]
    let seconds = now as f64 / 1e9;
    seconds
}
