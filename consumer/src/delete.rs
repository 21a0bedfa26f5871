use std::collections::VecDeque;
use std::ops::ControlFlow;

use protocol::limits::{DELETE_KEYS_MAX, SAME_KEY_SPACING_MS};
use protocol::{ChunkMessage, ObjectKey, R2Error, R2ErrorClass, RetryCause, Timestamp};

use crate::allowance::Allowance;
use crate::bucket::{Bucket, DeleteCall};
use crate::host::Host;
use crate::look::{LOOK_MS_MAX, Look, Pages, look};
use crate::time_limit::in_time;

/// How long one call to R2 may take before we stop waiting for it, in milliseconds. It may still take effect.
pub(crate) const CALL_MS_MAX: u64 = 30_000;

/// Calls in a row that fail at their smallest before the chunk is left for another attempt: R2 has an outage then, and
/// more calls would not help it.
const HOPELESS_CALLS_MAX: u32 = 3;

/// What became of a chunk's keys in one attempt, by their positions. What is in none of the lists is undecided.
#[derive(Debug, Default)]
pub(crate) struct ChunkReport {
    /// Confirmed absent.
    pub(crate) deleted: Vec<usize>,
    /// Uploaded since the request, and when.
    pub(crate) skipped: Vec<(usize, Timestamp)>,
    /// Cannot be deleted, each alone.
    pub(crate) failed: Vec<(usize, R2Error)>,
    /// Why keys are undecided, if they are.
    pub(crate) cause: Option<RetryCause>,
    /// Delete calls made to R2.
    pub(crate) calls: usize,
    /// Calls that were divided.
    pub(crate) splits: usize,
    /// Looks at single objects.
    pub(crate) heads: usize,
    /// Pages of listings that were looks at many.
    pub(crate) lists: usize,
    /// The longest time in which an upload could have been deleted in spite of the fence, in milliseconds: from the first
    /// look before a call to the call's answer.
    pub(crate) fence_gap_ms: u64,
}

/// One attempt at keys: a chunk's, or those of a page that a sweep has listed.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    /// The keys.
    pub(crate) keys: &'a [ObjectKey<'a>],
    /// The number of the batch's delivery whose keys they are.
    pub(crate) delivery: Option<usize>,
    /// The positions of those that nothing is decided about.
    pub(crate) undecided: Vec<usize>,
    /// When their deletion was requested.
    pub(crate) requested_at: Timestamp,
    /// Where the fence looks.
    pub(crate) looks: Looks<'a>,
    /// The delivery's number, from 1.
    pub(crate) number: u32,
    /// The error that left them undecided, where R2 was the cause.
    pub(crate) last_error: Option<R2Error>,
    /// When no call may be begun any more.
    pub(crate) deadline: Timestamp,
}

/// Where the fence looks at an object before a call deletes it.
#[derive(Debug)]
pub(crate) enum Looks<'a> {
    /// As the message's fence says.
    Message(&'a ChunkMessage<'a>),
    /// At every object, unless a listing has just shown it, when it was begun then.
    Listed(Option<Timestamp>),
    /// Nowhere.
    Never,
}

impl Attempt<'_> {
    /// Whether keys are looked at that a call is to delete which is begun at `now`.
    fn looks(&self, now: Timestamp) -> bool {
        match self.looks {
            Looks::Message(message) => message.looks(self.number, now),
            Looks::Listed(_) => true,
            Looks::Never => false,
        }
    }

    /// When the keys were last seen before the attempt, by a listing.
    fn seen_at(&self) -> Option<Timestamp> {
        match self.looks {
            Looks::Listed(at) => at,
            Looks::Message(_) | Looks::Never => None,
        }
    }
}

/// Deletes the undecided keys.
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
///
/// Where the fence looks, each call is preceded by looks at its keys' objects, for a second at the most, and names only
/// those that are not newer than the request. That holds for halves too: an upload may have come while they waited, and a
/// key that the failed call has deleted needs no second one. What is uploaded between a key's look and its call is deleted.
/// A listing that has just shown the keys is a look, for the first call and as long as a look can be old.
pub(crate) async fn delete_keys(
    attempt: &Attempt<'_>,
    allowance: &Allowance,
    bucket: &impl Bucket,
    host: &impl Host,
) -> ChunkReport {
    let mut work = Work::new(attempt, host.now());
    while let Some(slice) = work.next_slice(allowance) {
        if let ControlFlow::Break(cause) = work.carry_out(slice, attempt, allowance, bucket, host).await {
            work.note(cause);
            break;
        }
    }
    work.report
}

/// A chunk's attempt, and how far it is.
struct Work {
    report: ChunkReport,
    slices: VecDeque<Slice>,
    first_size: usize,
    pages: Pages,
    hopeless_calls: u32,
}

impl Work {
    fn new(attempt: &Attempt<'_>, now: Timestamp) -> Self {
        let positions = attempt.undecided.clone();
        let all = Slice { positions, not_before: now, seen_at: attempt.seen_at() };
        Self {
            report: ChunkReport::default(),
            slices: VecDeque::from([all]),
            first_size: first_call_size(attempt.number, attempt.last_error),
            pages: Pages::new(),
            hopeless_calls: 0,
        }
    }

    /// The keys of the next call.
    fn next_slice(&mut self, allowance: &Allowance) -> Option<Slice> {
        let mut slice = self.slices.pop_front()?;
        let most = allowance.size.keys().min(self.first_size);
        if slice.positions.len() > most {
            self.slices.push_front(slice.split_off(most));
        }
        Some(slice)
    }

    /// Looks where the fence does, deletes, and says when the rest of the chunk is to be left for another attempt.
    async fn carry_out(
        &mut self,
        mut slice: Slice,
        attempt: &Attempt<'_>,
        allowance: &Allowance,
        bucket: &impl Bucket,
        host: &impl Host,
    ) -> ControlFlow<RetryCause> {
        if host.now().max(slice.not_before) >= attempt.deadline {
            return ControlFlow::Break(RetryCause::OutOfTime);
        }
        wait_until(slice.not_before, host).await;
        let (began_at, mut stop) = (host.now(), None);
        let seen_at = slice.seen_at.filter(|&at| began_at.millis_since(at) <= LOOK_MS_MAX);
        let looks = attempt.looks(began_at);
        if looks && seen_at.is_none() {
            let look = look(attempt, &slice.positions, &mut self.pages, allowance, bucket, host).await;
            stop = look.stop;
            slice.positions = self.take_in(look, slice.not_before);
        }
        slice.positions.retain(|&at| at < attempt.keys.len());
        // Without a call nothing of the slice is left to delete, or the ledger names keys that the message does not have.
        if let Some(call) = DeleteCall::new(attempt.keys, &slice.positions) {
            // No position is in a slice twice, so that as many are all.
            let is_all = slice.positions.len() == attempt.keys.len();
            let call = call.of_delivery(attempt.delivery.filter(|_| is_all));
            if host.now() >= attempt.deadline {
                return ControlFlow::Break(RetryCause::OutOfTime);
            }
            if !allowance.take_delete() {
                return ControlFlow::Break(RetryCause::OutOfCalls);
            }
            self.report.calls += 1;
            let answer = in_time(bucket.delete(call), CALL_MS_MAX, host).await;
            let answer = answer.unwrap_or(Err(R2Error::TimedOut));
            if looks {
                let gap_ms = host.now().millis_since(seen_at.unwrap_or(began_at));
                self.report.fence_gap_ms = self.report.fence_gap_ms.max(gap_ms);
            }
            self.settle(slice, answer, allowance, host.now())?;
        }
        stop.map_or(ControlFlow::Continue(()), ControlFlow::Break)
    }

    /// Takes in what a look has decided, and answers with what is left to delete.
    fn take_in(&mut self, look: Look, not_before: Timestamp) -> Vec<usize> {
        let Look { old, absent, newer, refused, rest, heads, lists, error, .. } = look;
        self.report.heads += heads;
        self.report.lists += lists;
        self.report.deleted.extend(absent);
        self.report.skipped.extend(newer);
        self.report.failed.extend(refused);
        if let Some(error) = error {
            self.note(RetryCause::R2(error));
        }
        if !rest.is_empty() {
            self.slices.push_front(Slice { positions: rest, not_before, seen_at: None });
        }
        old
    }

    /// Draws the conclusions from the answer to a call for the keys of `slice`.
    fn settle(
        &mut self,
        mut slice: Slice,
        answer: Result<(), R2Error>,
        allowance: &Allowance,
        now: Timestamp,
    ) -> ControlFlow<RetryCause> {
        let keys = slice.positions.len();
        let Err(error) = answer else {
            allowance.size.succeeded();
            self.hopeless_calls = 0;
            self.report.deleted.append(&mut slice.positions);
            return ControlFlow::Continue(());
        };
        match error.class() {
            R2ErrorClass::Permanent if keys == 1 => {
                self.report.failed.extend(slice.positions.iter().map(|&at| (at, error)));
            }
            R2ErrorClass::Permanent => self.halve(slice, now),
            R2ErrorClass::Transient if error.asks_for_smaller_calls() && keys > self.smallest() => {
                allowance.size.halve(keys);
                self.halve(slice, now);
            }
            R2ErrorClass::Transient | R2ErrorClass::Throttled => {
                self.note(RetryCause::R2(error));
                self.hopeless_calls += 1;
                if self.hopeless_calls >= HOPELESS_CALLS_MAX {
                    return ControlFlow::Break(RetryCause::R2(error));
                }
            }
            R2ErrorClass::Configuration => return ControlFlow::Break(RetryCause::R2(error)),
        }
        ControlFlow::Continue(())
    }

    fn smallest(&self) -> usize {
        (self.first_size / 8).max(1)
    }

    fn halve(&mut self, slice: Slice, failed_at: Timestamp) {
        self.report.splits += 1;
        self.slices.extend(slice.halves(failed_at));
    }

    /// Remembers why keys are undecided. What R2 has said counts for more than that time or calls ran out.
    fn note(&mut self, cause: RetryCause) {
        match cause {
            RetryCause::R2(_) => self.report.cause = Some(cause),
            _ => drop(self.report.cause.get_or_insert(cause)),
        }
    }
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
    /// When a listing has shown them.
    seen_at: Option<Timestamp>,
}

impl Slice {
    fn split_off(&mut self, at: usize) -> Self {
        let Self { not_before, seen_at, .. } = *self;
        Self { positions: self.positions.split_off(at), not_before, seen_at }
    }

    fn halves(mut self, failed_at: Timestamp) -> [Self; 2] {
        self.not_before = failed_at.plus_millis(SAME_KEY_SPACING_MS);
        self.seen_at = None;
        let second = self.split_off(self.positions.len() / 2);
        [self, second]
    }
}
