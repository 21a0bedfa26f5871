//! Sweeps: deleting by prefix.
//!
//! A message asks for a step of a sweep; what the sweep is of and how far it is, the ledger knows. A step lists a page, writes it
//! down, deletes it, and so on until its share is done; then it hands the sweep on as a new message. Whatever stops a step, the
//! next goes on where the ledger says.

mod divide;

use ledger::{
    ConsumerLedger, Cursor, Ended, FailedKey, LedgerError, Page, PageKey, Settled, SkippedKey, SweepClaim,
    SweepGrant, SweepProgress, SweepReply, SweepState, SweepThen, SweepTurn, SweepTurnReply,
};
use protocol::limits::{LIST_OBJECTS_MAX, SWEEP_RANGES_MAX};
use protocol::{
    Event, Fence, ObjectKey, R2Error, RetryCause, SweepPhase, SweepRange, SweepRef, Timestamp,
    UnreadableReason, retry_delay_seconds,
};

use self::divide::divide;
use crate::allowance::Allowance;
use crate::batch::SweepMessage;
use crate::bucket::{Bucket, ListCall};
use crate::delete::{Attempt, CALL_MS_MAX, Looks, delete_keys};
use crate::handle::CLAIM_MS;
use crate::host::Host;
use crate::notice::{Endpoint, Notices};
use crate::queue::Queue;
use crate::time_limit::in_time;
use crate::tries::in_tries;

/// Most pages that one step lists before it hands the sweep on: each costs the ledger a query or two, and the free plan has 50 for
/// an invocation.
const STEP_PAGES_MAX: u32 = 10;

/// Pages after which a range that goes on is divided.
const DIVIDE_AFTER_PAGES: u32 = 4;

/// Most bytes of keys in a page, as JSON: a row of the ledger holds 2 MB, as `OUTBOX_PIECE_BYTES_MAX` says of another.
const PAGE_BYTES_MAX: usize = ledger::OUTBOX_PIECE_BYTES_MAX;

/// Passes after which a sweep is given up: what it deletes does not stay deleted.
const PASSES_MAX: u32 = 10;

/// What one step has done, for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SweepReport {
    pub(crate) pages: u32,
    pub(crate) deleted: usize,
    pub(crate) skipped: usize,
    pub(crate) failed: usize,
    pub(crate) undecided: usize,
    pub(crate) lists: usize,
    pub(crate) calls: usize,
    pub(crate) heads: usize,
    pub(crate) fence_gap_ms: u64,
}

/// What is to become of a sweep's message.
#[derive(Debug)]
pub(crate) enum SweepEnd {
    /// Nothing more is owed to it.
    Settled(Settled),
    /// It is delivered again, in so many seconds.
    Retry(u32),
    /// It cannot be carried out.
    Unreadable(UnreadableReason),
}

/// A sweep's message after its step.
#[derive(Debug)]
pub(crate) struct Swept {
    pub(crate) index: usize,
    pub(crate) end: SweepEnd,
    pub(crate) report: SweepReport,
}

/// What a step stands on.
pub(crate) struct Ports<'a, B, L, Q, E, H> {
    pub(crate) bucket: &'a B,
    pub(crate) ledger: &'a L,
    pub(crate) notices: &'a Notices<'a, Q, E>,
    pub(crate) host: &'a H,
    pub(crate) allowance: &'a Allowance,
    /// When no call may be begun any more.
    pub(crate) deadline: Timestamp,
}

/// Carries out one step of a sweep.
///
/// 1. *await* Claim the sweep. A step that is over asks for nothing.
/// 2. What an earlier step has written down and not decided is deleted first, each object looked at again.
/// 3. *await* List a page. What is older than the request is to be deleted; the rest is left alone, and so is what the deletion
///    has failed to delete or left alone before.
/// 4. *await* Write the page down, with what became of the one before. From here on, and only then, its keys may be deleted; a
///    cancelled deletion gets no further page.
/// 5. *await* Delete it, as a chunk is deleted. The listing was the look.
/// 6. Again from 3, until the share of a step is done: *await* hand the sweep on, as a new message.
/// 7. A pass that has found something is followed by another from the beginning; one that finds nothing ends the sweep.
///
/// A range that goes on after some pages is divided, for others to work beside. When the attempts of a message run out, what is
/// undecided fails, and so does the prefix.
pub(crate) async fn sweep<B: Bucket, L: ConsumerLedger, Q: Queue, E: Endpoint, H: Host>(
    message: &SweepMessage,
    is_dead_letter: bool,
    ports: &Ports<'_, B, L, Q, E, H>,
) -> Swept {
    let Ports { ledger, host, allowance, .. } = ports;
    let (token, now) = (host.token(), host.now());
    let until = now.plus_millis(CLAIM_MS);
    let claim = SweepClaim { sweep: message.sweep.clone(), token: token.clone(), now, until };
    let mut report = SweepReport::default();
    let end = match ledger.claim_sweep(&claim).await {
        Ok(SweepReply::Granted(grant)) => {
            let mut step = Step::new(*grant, token, message.attempts, ports);
            let then = if is_dead_letter { Then::GiveUp } else { step.work().await };
            let end = step.finish(then).await;
            report = step.report;
            end
        }
        Ok(SweepReply::NothingToDo(proof)) => SweepEnd::Settled(proof),
        Ok(SweepReply::ClaimedElsewhere { until }) => {
            retry(RetryCause::claimed_until(until, now), message.attempts, *host)
        }
        Ok(SweepReply::NotAccepted(reason)) => SweepEnd::Unreadable(reason),
        Err(error) => {
            host.emit(&Event::LedgerFailed { operation: "claim_sweep", cause: &error.cause });
            retry(RetryCause::LedgerUnavailable, message.attempts, *host)
        }
    };
    allowance.chunk_done();
    Swept { index: message.index, end, report }
}

fn retry(cause: RetryCause, attempts: u32, host: &impl Host) -> SweepEnd {
    SweepEnd::Retry(retry_delay_seconds(cause, attempts, host.random()))
}

/// Why a step ends.
enum Then {
    /// The message has an end already.
    Ended(SweepEnd),
    /// The share of a step is done.
    HandOn,
    /// The phase is over.
    EndPhase,
    /// The sweep is given up.
    GiveUp,
    /// Something is left for another attempt.
    Retry(RetryCause),
}

/// A step, and what it has not recorded yet.
struct Step<'a, B, L, Q, E, H> {
    grant: SweepGrant,
    state: SweepState,
    token: String,
    attempts: u32,
    ports: &'a Ports<'a, B, L, Q, E, H>,
    failed: Vec<FailedKey>,
    skipped: Vec<SkippedKey>,
    /// When the listing was begun that shows the page at hand.
    listed_at: Option<Timestamp>,
    report: SweepReport,
}

/// What a listing brings.
struct NextPage {
    progress: SweepProgress,
    old: Vec<String>,
    newer: Vec<(String, Timestamp)>,
    split: Option<(SweepRange, Vec<SweepRange>)>,
}

impl<'a, B: Bucket, L: ConsumerLedger, Q: Queue, E: Endpoint, H: Host> Step<'a, B, L, Q, E, H> {
    fn new(grant: SweepGrant, token: String, attempts: u32, ports: &'a Ports<'a, B, L, Q, E, H>) -> Self {
        Self {
            state: grant.state.clone(),
            grant,
            token,
            attempts,
            ports,
            failed: Vec::new(),
            skipped: Vec::new(),
            listed_at: None,
            report: SweepReport::default(),
        }
    }

    /// Steps 2 to 7 of [`sweep`].
    async fn work(&mut self) -> Then {
        loop {
            if !self.state.progress.page.is_empty() {
                match self.delete_page().await {
                    Ok(()) => {}
                    // What time or calls are missing for is not the sweep's fault: its next step has an attempt of its own.
                    Err(RetryCause::OutOfTime | RetryCause::OutOfCalls) => return Then::HandOn,
                    Err(cause) => return Then::Retry(cause),
                }
            }
            if self.state.progress.at_end && !self.begin_pass() {
                return Then::EndPhase;
            }
            if self.state.progress.passes >= PASSES_MAX {
                return Then::GiveUp;
            }
            let Ports { host, allowance, deadline, .. } = self.ports;
            if self.report.pages >= STEP_PAGES_MAX || host.now() >= *deadline || !allowance.take_head() {
                return Then::HandOn;
            }
            let next = match self.list_page().await {
                Ok(next) => next,
                Err(cause) => return Then::Retry(cause),
            };
            if let Err(then) = self.plan(next).await {
                return then;
            }
        }
    }

    /// Whether another pass follows the one that is over.
    fn begin_pass(&mut self) -> bool {
        let SweepProgress { found, passes, .. } = self.state.progress;
        // Without the fence nothing tells what was there before, so that there is no end but the first.
        let again = self.grant.phase == SweepPhase::Delete && self.grant.fence != Fence::Off && found > 0;
        if again {
            self.state.progress = SweepProgress { passes: passes + 1, ..SweepProgress::default() };
        }
        again
    }

    /// Deletes the page at hand; an error is why keys are undecided.
    async fn delete_page(&mut self) -> Result<(), RetryCause> {
        let Ports { bucket, host, allowance, deadline, .. } = self.ports;
        let page = &self.state.progress.page;
        let keys: Result<Vec<_>, _> =
            page.iter().map(|PageKey(_, key)| ObjectKey::parse(key.as_str())).collect();
        // No key is written down that is none.
        let keys = keys.map_err(|_| RetryCause::LedgerUnavailable)?;
        let attempt = Attempt {
            undecided: (0..keys.len()).collect(),
            keys: &keys,
            delivery: None,
            requested_at: self.grant.requested_at,
            looks: match self.grant.fence {
                Fence::Off => Looks::Never,
                Fence::Auto | Fence::Always => Looks::Listed(self.listed_at.take()),
            },
            number: self.attempts,
            last_error: self.state.last_error,
            deadline: *deadline,
        };
        let report = delete_keys(&attempt, allowance, *bucket, *host).await;
        let failed: Vec<_> =
            report.failed.iter().map(|&(at, error)| (at, error.failure_code(), Some(error))).collect();
        if let Some(RetryCause::R2(error)) = report.cause {
            self.state.last_error = Some(error);
        }
        let before = self.state.progress.page.len();
        let settled = self.state.settle(&report.deleted, &report.skipped, &failed);
        let (skipped, failed) = settled.map_err(|error| self.told("settle", &error))?;
        let undecided = self.state.progress.page.len();
        self.report.deleted += before - undecided - skipped.len() - failed.len();
        self.report.skipped += skipped.len();
        self.report.failed += failed.len();
        self.report.calls += report.calls;
        self.report.heads += report.heads;
        self.report.lists += report.lists;
        self.report.fence_gap_ms = self.report.fence_gap_ms.max(report.fence_gap_ms);
        self.skipped.extend(skipped);
        self.failed.extend(failed);
        if undecided == 0 { Ok(()) } else { Err(report.cause.unwrap_or(RetryCause::OutOfTime)) }
    }

    /// Lists the page that comes next, and takes from it what is the sweep's.
    async fn list_page(&mut self) -> Result<NextPage, RetryCause> {
        let Ports { bucket, host, .. } = self.ports;
        let mut progress = self.state.progress.clone();
        let split = self.divide(&mut progress).await;
        let SweepGrant { phase, requested_at, fence, .. } = &self.grant;
        let range = split.as_ref().map_or(&self.grant.range, |(range, _)| range);
        let began_at = host.now();
        let start_after = progress.cursor.as_ref().map(|Cursor(key)| key.as_str()).or(range.after.as_deref());
        let call = ListCall { prefix: &range.prefix, start_after, limit: LIST_OBJECTS_MAX, delimiter: None };
        self.report.lists += 1;
        let listed = in_time(bucket.list(&call), CALL_MS_MAX, *host).await;
        let listing = listed.unwrap_or(Err(R2Error::TimedOut)).map_err(RetryCause::R2)?;

        let (mut old, mut newer, mut bytes, mut at_end) = (Vec::new(), Vec::new(), 0, !listing.truncated);
        let mut tally = self.state.tally.clone();
        let after = start_after.map(str::to_owned);
        for object in listing.objects {
            if range.ends_before(&object.key) {
                at_end = true;
                break;
            }
            // Whatever a listing says: nothing is deleted that was not asked for, and nothing comes twice.
            let is_next = progress.cursor.as_ref().is_none_or(|Cursor(cursor)| object.key > *cursor);
            if !range.contains(&object.key)
                || !is_next
                || after.as_deref().is_some_and(|after| object.key.as_str() <= after)
            {
                return Err(RetryCause::R2(R2Error::Other(0)));
            }
            bytes += json_bytes(&object.key);
            if bytes > PAGE_BYTES_MAX {
                at_end = false;
                break;
            }
            progress.cursor = Some(Cursor(object.key.clone()));
            let is_old = object.uploaded_at <= *requested_at;
            match phase {
                SweepPhase::Count | SweepPhase::Verify => tally.count(&object, is_old),
                SweepPhase::Delete if is_old || *fence == Fence::Off => old.push(object.key),
                // What comes while it sweeps is no news: what was there in the first pass is told.
                SweepPhase::Delete if progress.passes == 0 => newer.push((object.key, object.uploaded_at)),
                SweepPhase::Delete => {}
            }
        }
        if !at_end && progress.cursor == self.state.progress.cursor {
            // More is said to come, and nothing does.
            return Err(RetryCause::R2(R2Error::Other(0)));
        }
        progress.at_end = at_end;
        progress.pages += 1;
        self.report.pages += 1;
        self.listed_at = Some(began_at);
        self.leave_out_known(&mut old, &mut newer).await?;

        self.state.tally = tally;
        Ok(NextPage { progress, old, newer, split })
    }

    /// Cuts off what others can sweep, when the range goes on and on: what remains, and the rest.
    async fn divide(&mut self, progress: &mut SweepProgress) -> Option<(SweepRange, Vec<SweepRange>)> {
        let Ports { bucket, host, allowance, deadline, .. } = self.ports;
        let Cursor(last) = progress.cursor.as_ref()?;
        let most = SWEEP_RANGES_MAX.saturating_sub(self.grant.ranges);
        let is_divisible = self.grant.phase != SweepPhase::Verify && progress.passes == 0 && most > 0;
        if !is_divisible || progress.pages < DIVIDE_AFTER_PAGES {
            return None;
        }
        progress.pages = 0;
        let (cuts, lists) = divide(&self.grant.range, last, most, *deadline, allowance, *bucket, *host).await;
        self.report.lists += lists;
        let mut range = self.grant.range.clone();
        let others = range.split(cuts);
        (!others.is_empty()).then_some((range, others))
    }

    /// Leaves out what the deletion has failed to delete or has left alone before.
    async fn leave_out_known(
        &self,
        old: &mut Vec<String>,
        newer: &mut Vec<(String, Timestamp)>,
    ) -> Result<(), RetryCause> {
        let may_be_known = self.grant.has_known_keys || self.report.failed > 0 || self.report.skipped > 0;
        if !may_be_known || (old.is_empty() && newer.is_empty()) {
            return Ok(());
        }
        let keys = old.iter().chain(newer.iter().map(|(key, _)| key));
        let keys_json: Vec<String> = keys.filter_map(|key| serde_json::to_string(key).ok()).collect();
        let known = self.ports.ledger.known_keys(&self.grant.sweep.deletion, &keys_json).await;
        let mut known = known.map_err(|error| self.told("known_keys", &error))?;
        known.extend(self.failed.iter().map(|key| key.key_json.clone()));
        known.extend(self.skipped.iter().map(|key| key.key_json.clone()));
        let is_known = |key: &String| serde_json::to_string(key).is_ok_and(|json| known.contains(&json));
        old.retain(|key| !is_known(key));
        newer.retain(|(key, _)| !is_known(key));
        Ok(())
    }

    /// Writes the next page down, or only remembers that there was nothing in it.
    async fn plan(&mut self, next: NextPage) -> Result<(), Then> {
        let NextPage { progress, old, newer, split } = next;
        if old.is_empty() && newer.is_empty() && split.is_none() {
            self.state.progress = progress;
            return Ok(());
        }
        let page = self.state.plan(progress, old, newer);
        let page = page.map_err(|error| Then::Retry(self.told("plan", &error)))?;
        let split_into = split.as_ref().map(|(range, others)| (range.clone(), others.len()));
        let SweepTurnReply { is_recorded, goes_on, proof, ended } =
            self.turn(SweepThen::GoOn, Some(page.clone()), split).await?;
        self.announce(&ended).await;
        match proof {
            _ if goes_on => {}
            Some(proof) => return Err(Then::Ended(SweepEnd::Settled(proof))),
            None if !is_recorded => return Err(Then::Retry(RetryCause::ClaimedElsewhere { seconds: 0 })),
            None => {}
        }
        if let Some((range, others)) = split_into {
            self.grant.range = range;
            self.grant.ranges += others;
        }
        self.report.skipped += page.skipped();
        self.state.take(page);
        Ok(())
    }

    /// Records how the step ends, and says what is to become of the message.
    async fn finish(&mut self, then: Then) -> SweepEnd {
        let host = self.ports.host;
        let mut delay = None;
        let turn = match then {
            Then::Ended(end) => {
                self.log(None, None);
                return end;
            }
            Then::HandOn => SweepThen::HandOn,
            Then::EndPhase => SweepThen::EndPhase,
            Then::GiveUp => match self.state.give_up(&self.grant.range) {
                Ok(failed) => {
                    self.report.failed += failed.len();
                    self.failed.extend(failed);
                    SweepThen::GiveUp
                }
                Err(error) => return retry(self.told("give_up", &error), self.attempts, host),
            },
            Then::Retry(cause) => {
                let seconds = retry_delay_seconds(cause, self.attempts, host.random());
                delay = Some((cause, seconds));
                SweepThen::Retry { due_at: host.now().plus_millis(u64::from(seconds) * 1_000) }
            }
        };
        self.report.undecided = self.state.progress.page.len();
        let reply = match self.turn(turn, None, None).await {
            Ok(reply) => reply,
            Err(Then::Ended(end)) => return end,
            Err(_) => return retry(RetryCause::LedgerUnavailable, self.attempts, host),
        };
        self.announce(&reply.ended).await;
        self.log(delay, Some(turn));
        match (reply.proof, delay) {
            (Some(proof), _) => SweepEnd::Settled(proof),
            (None, Some((_, seconds))) => SweepEnd::Retry(seconds),
            (None, None) => retry(RetryCause::ClaimedElsewhere { seconds: 0 }, self.attempts, host),
        }
    }

    /// Writes down what was done, and what is planned; an error of the ledger ends the step.
    async fn turn(
        &mut self,
        then: SweepThen,
        planned: Option<Page>,
        split: Option<(SweepRange, Vec<SweepRange>)>,
    ) -> Result<SweepTurnReply, Then> {
        let Ports { ledger, notices, host, .. } = self.ports;
        let mut turn = SweepTurn {
            grant: &self.grant,
            token: &self.token,
            now: host.now(),
            attempts: self.attempts,
            state: &self.state,
            failed: self.failed.clone(),
            skipped: self.skipped.clone(),
            planned,
            split,
            then,
            owe_notices: notices.are_wanted(),
        };
        let reply = in_tries(*host, async |now| {
            turn.now = now;
            ledger.turn_sweep(&turn).await
        })
        .await;
        match reply {
            Ok(reply) => {
                self.failed.clear();
                self.skipped.clear();
                Ok(reply)
            }
            Err(error) => {
                let cause = self.told("turn_sweep", &error);
                Err(Then::Ended(retry(cause, self.attempts, *host)))
            }
        }
    }

    /// What follows a turn: sweeps go on, and ends are told.
    async fn announce(&self, ended: &Ended) {
        let Ports { notices, host, .. } = self.ports;
        notices.announce(ended, *host).await;
    }

    fn told(&self, operation: &'static str, error: &LedgerError) -> RetryCause {
        self.ports.host.emit(&Event::LedgerFailed { operation, cause: &error.cause });
        RetryCause::LedgerUnavailable
    }

    fn log(&self, delay: Option<(RetryCause, u32)>, turn: Option<SweepThen>) {
        let SweepRef { deletion, sweep, step } = &self.grant.sweep;
        let SweepReport { pages, deleted, skipped, failed, undecided, .. } = self.report;
        self.ports.host.emit(&Event::SweepProgressed {
            deletion,
            sweep: *sweep,
            step: *step,
            phase: self.grant.phase.as_str(),
            pages,
            keys_deleted: deleted,
            keys_skipped: skipped,
            keys_failed: failed,
            keys_undecided: undecided,
            is_over: matches!(turn, Some(SweepThen::EndPhase | SweepThen::GiveUp)),
            error_type: match (delay, turn) {
                (Some((cause, _)), _) => Some(cause.as_str()),
                (None, Some(SweepThen::GiveUp)) => Some("sweep_incomplete"),
                (None, _) => None,
            },
            r2_code: match delay {
                Some((RetryCause::R2(error), _)) => Some(error.code()),
                _ => None,
            },
            delay_seconds: delay.map(|(_, seconds)| seconds),
        });
    }
}

fn json_bytes(key: &str) -> usize {
    serde_json::to_string(key).map_or(key.len() * 6, |json| json.len())
}

#[cfg(test)]
mod tests;
