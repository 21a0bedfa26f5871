use std::collections::VecDeque;

use futures::future::{Either, select};
use futures::pin_mut;
use ledger::Grant;
use protocol::limits::{DELETE_KEYS_MAX, SAME_KEY_SPACING_MS};
use protocol::{ObjectKey, R2Error, R2ErrorClass, RetryCause, Timestamp};

use crate::bucket::{Bucket, DeleteCall};
use crate::call_size::CallSize;
use crate::host::Host;

/// How long one call to R2 may take before we stop waiting for it, in milliseconds. It may still take effect.
pub(crate) const CALL_MS_MAX: u64 = 30_000;

/// Calls in a row that fail at their smallest before the chunk is left for another attempt: R2 has an outage then, and
/// more calls would not help it.
const HOPELESS_CALLS_MAX: u32 = 3;

/// What became of a chunk's keys in one attempt, by their positions. What is in neither list is undecided.
#[derive(Debug, Default)]
pub(crate) struct ChunkReport {
    /// Confirmed absent.
    pub(crate) deleted: Vec<usize>,
    /// Cannot be deleted, each alone.
    pub(crate) failed: Vec<(usize, R2Error)>,
    /// Why keys are undecided, if they are.
    pub(crate) cause: Option<RetryCause>,
    /// Calls made to R2.
    pub(crate) calls: usize,
    /// Calls that were divided.
    pub(crate) splits: usize,
}

/// One attempt at a chunk.
#[derive(Debug)]
pub(crate) struct ChunkAttempt<'a> {
    /// The keys of the chunk's message.
    pub(crate) keys: &'a [ObjectKey<'a>],
    /// What the ledger has given us of it.
    pub(crate) grant: &'a Grant,
    /// The delivery's number, from 1.
    pub(crate) attempt: u32,
    /// When no call may be begun any more.
    pub(crate) deadline: Timestamp,
}

/// Deletes the undecided keys of a chunk.
///
/// The binding answers a bulk delete with one result for all its keys, so:
/// - *success*: all of them are deleted;
/// - *a key that can never be deleted* (locked, refused name): the call is halved until that key stands alone, fails
///   alone, and all others are deleted;
/// - *an error that large calls meet* (10001, 10043, no answer): the call is halved down to an eighth of the attempt's
///   first size, for every chunk of the invocation;
/// - *any other error*: the call's keys stay undecided, for another attempt. Each further attempt begins with smaller
///   calls, down to single keys, so that a key that makes its call fail in a way that R2 does not name ends alone too.
///
/// A failed call may have deleted some of its keys, and R2 refuses a second write to a key within a second, so no half is
/// sent sooner than [`SAME_KEY_SPACING_MS`] after the whole.
pub(crate) async fn delete_chunk(
    attempt: &ChunkAttempt<'_>,
    size: &CallSize,
    bucket: &impl Bucket,
    host: &impl Host,
) -> ChunkReport {
    let first_size = first_call_size(attempt.attempt, attempt.grant.last_error);
    let smallest = (first_size / 8).max(1);
    let mut report = ChunkReport::default();
    let mut slices = VecDeque::from([Slice {
        positions: attempt.grant.undecided.iter().collect(),
        not_before: host.now(),
    }]);
    let mut hopeless_calls = 0;

    while let Some(mut slice) = slices.pop_front() {
        let most = size.keys().min(first_size);
        if slice.positions.len() > most {
            slices.push_front(slice.split_off(most));
        }
        if host.now().max(slice.not_before) >= attempt.deadline {
            report.cause.get_or_insert(RetryCause::OutOfTime);
            break;
        }
        wait_until(slice.not_before, host).await;
        let Some(call) = DeleteCall::new(slice.positions.iter().filter_map(|&at| attempt.keys.get(at)))
        else {
            // Nothing is undecided, or the ledger names keys that the message does not have: nothing to delete.
            continue;
        };
        report.calls += 1;
        let Err(error) = delete_in_time(call, bucket, host).await else {
            size.succeeded();
            hopeless_calls = 0;
            report.deleted.append(&mut slice.positions);
            continue;
        };
        let keys = slice.positions.len();
        match error.class() {
            R2ErrorClass::Permanent if keys == 1 => {
                report.failed.extend(slice.positions.iter().map(|&at| (at, error)));
            }
            R2ErrorClass::Permanent => {
                report.splits += 1;
                slices.extend(slice.halves(host.now()));
            }
            R2ErrorClass::Transient if error.asks_for_smaller_calls() && keys > smallest => {
                report.splits += 1;
                size.halve(keys);
                slices.extend(slice.halves(host.now()));
            }
            R2ErrorClass::Transient | R2ErrorClass::Throttled => {
                report.cause = Some(RetryCause::R2(error));
                hopeless_calls += 1;
                if hopeless_calls >= HOPELESS_CALLS_MAX {
                    break;
                }
            }
            R2ErrorClass::Configuration => {
                report.cause = Some(RetryCause::R2(error));
                break;
            }
        }
    }
    report
}

/// The largest call that an attempt begins with: all that R2 takes, halved for each attempt that ended in an error which
/// may be one key's fault.
fn first_call_size(attempt: u32, last_error: Option<R2Error>) -> usize {
    match last_error.map(R2Error::class) {
        Some(R2ErrorClass::Transient | R2ErrorClass::Throttled) => {
            DELETE_KEYS_MAX.checked_shr(attempt.saturating_sub(1)).unwrap_or(0).max(1)
        }
        Some(R2ErrorClass::Permanent | R2ErrorClass::Configuration) | None => DELETE_KEYS_MAX,
    }
}

async fn delete_in_time(call: DeleteCall<'_>, bucket: &impl Bucket, host: &impl Host) -> Result<(), R2Error> {
    let delete = bucket.delete(call);
    let timeout = host.sleep(CALL_MS_MAX);
    pin_mut!(delete, timeout);
    match select(delete, timeout).await {
        Either::Left((answer, _)) => answer,
        Either::Right(((), _)) => Err(R2Error::TimedOut),
    }
}

async fn wait_until(time: Timestamp, host: &impl Host) {
    let millis = time.millis_since(host.now());
    if millis > 0 {
        host.sleep(millis).await;
    }
}

/// Keys that are to be deleted by one call.
struct Slice {
    positions: Vec<usize>,
    not_before: Timestamp,
}

impl Slice {
    fn split_off(&mut self, at: usize) -> Self {
        Self { positions: self.positions.split_off(at), not_before: self.not_before }
    }

    fn halves(mut self, failed_at: Timestamp) -> [Self; 2] {
        self.not_before = failed_at.plus_millis(SAME_KEY_SPACING_MS);
        let second = self.split_off(self.positions.len() / 2);
        [self, second]
    }
}
