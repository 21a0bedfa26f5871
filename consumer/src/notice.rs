//! Completion notices: a webhook for each end of a deletion, to an endpoint of the operator's.
//!
//! The ledger knows which are owed and when each is to be tried; a message of the Queue only has one looked at. So a message
//! that is lost or comes twice does no harm: upkeep sends another, and the ledger has nothing to do for the second.

mod config;
mod webhook;

use ledger::{ConsumerLedger, DueNotice, Ended, LedgerError, NoticeOutcome, NoticeReply, Settled};
use protocol::limits::SEND_MESSAGES_MAX;
use protocol::{Event, NoticeAttempt, NoticeRef, RetryCause, SweepRef, notice_delay_seconds};

pub use self::config::NoticeConfig;
pub use self::webhook::Webhook;
use crate::host::Host;
use crate::queue::Queue;
use crate::time_limit::in_time;

/// How long the endpoint may take to answer, in milliseconds: what Standard Webhooks recommends at the least.
pub const POST_MS_MAX: u64 = 15_000;

/// How long is waited after each send that the Queue refuses, in milliseconds, before the next and last: a sweep that is not
/// handed on waits for upkeep.
const SEND_PAUSES_MS: [u64; 3] = [500, 2_000, 0];

/// The endpoint, as far as sending to it needs.
pub trait Endpoint {
    /// Posts a webhook: the status of the answer, whatever it is, without following a redirect and without reading more than
    /// the head; `None` when there was no answer.
    fn post(&self, webhook: &Webhook<'_>) -> impl Future<Output = Option<u16>>;
}

/// What notices are sent with.
#[derive(Debug)]
pub struct Notices<'a, Q, E> {
    /// Where to, and how signed; `None` when nobody wants notices, and an error what is wrong with the configuration.
    pub config: Result<Option<&'a NoticeConfig>, &'a str>,
    /// The Queue.
    pub queue: &'a Q,
    /// The endpoint.
    pub endpoint: &'a E,
}

/// Why the endpoint has not taken a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// It answered with this status.
    Status(u16),
    /// It did not answer.
    NoAnswer,
    /// It did not answer in time.
    TimedOut,
    /// Nobody knows where it is.
    Misconfigured,
}

impl Refusal {
    /// "Gone": the receiver wants no more of it. All else may pass, redirects included: they are not followed, since a
    /// receiver that has moved is the operator's to say.
    fn is_final(self) -> bool {
        self == Self::Status(410)
    }

    fn status(self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status),
            Self::NoAnswer | Self::TimedOut | Self::Misconfigured => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Status(410) => "gone",
            Self::Status(300..=399) => "redirected",
            Self::Status(_) => "refused",
            Self::NoAnswer => "no_answer",
            Self::TimedOut => "timed_out",
            Self::Misconfigured => RetryCause::Misconfigured.as_str(),
        }
    }
}

impl<Q: Queue, E: Endpoint> Notices<'_, Q, E> {
    /// Whether a notice is owed for each deletion that ends. One that cannot be sent for now is owed too.
    pub(crate) fn are_wanted(&self) -> bool {
        !matches!(self.config, Ok(None))
    }

    /// Does what follows when the ledger has recorded something: writes ends of deletions to the log and has their notices looked
    /// at, and has sweeps go on that are due.
    ///
    /// What fails here, and what an invocation that dies before it leaves undone, upkeep does.
    pub(crate) async fn announce(&self, ended: &Ended, host: &impl Host) {
        let Ended { finished, due } = ended;
        let now = host.now();
        for finished in finished {
            host.emit(&finished.event(now));
        }
        let notices =
            finished.iter().filter(|_| self.are_wanted()).map(|finished| finished.notice().to_message());
        let messages: Vec<String> = due.iter().map(SweepRef::to_message).chain(notices).collect();
        for send in messages.chunks(SEND_MESSAGES_MAX) {
            for pause_ms in SEND_PAUSES_MS {
                if self.send(send.to_vec(), 0, host).await {
                    break;
                }
                host.sleep(pause_ms).await;
            }
        }
    }

    /// Looks at a notice, and sends it if it is owed.
    ///
    /// 1. *await* Ask the ledger. Nobody wants notices, or there is nothing to do: that is all.
    /// 2. *await* Post it. Doing so twice is harmless: its `webhook-id` is the same, so that the receiver can tell.
    /// 3. *await* Record what became of it, and write it to the log. Only this lets the message be acknowledged.
    /// 4. *await* If it is to be tried again, send the message that has it looked at then: a new one, because a message that
    ///    was sent three days ago would be gone from some queues.
    ///
    /// # Errors
    ///
    /// Why the message comes back.
    pub(crate) async fn look_at(
        &self,
        notice: &NoticeRef,
        ledger: &impl ConsumerLedger,
        host: &impl Host,
    ) -> Result<Settled, RetryCause> {
        // (1) Ask.
        if !self.are_wanted() {
            return told(ledger.record_notice(notice, NoticeOutcome::Done).await, "record_notice", host);
        }
        let due = match told(ledger.find_notice(notice, host.now()).await, "find_notice", host)? {
            NoticeReply::NothingToDo(proof) => return Ok(proof),
            NoticeReply::NotFinal => return Err(RetryCause::NotFinal),
            NoticeReply::Due(due) => due,
        };

        // (2) Post.
        let posted = self.post(notice, &due, host).await;

        // (3) Record.
        let (attempts, now) = (due.attempts.saturating_add(1), host.now());
        let delay_seconds = match posted {
            Err(refusal) if !refusal.is_final() => notice_delay_seconds(attempts, host.random()),
            _ => None,
        };
        let outcome = match (posted, delay_seconds) {
            (Ok(_), _) => NoticeOutcome::Done,
            (Err(_), Some(seconds)) => {
                NoticeOutcome::Retry { attempts, due_at: now.plus_millis(u64::from(seconds) * 1_000) }
            }
            (Err(_), None) => NoticeOutcome::Failed { attempts, failed_at: now },
        };
        let proof = told(ledger.record_notice(notice, outcome).await, "record_notice", host)?;
        let attempt = NoticeAttempt {
            deletion: &notice.deletion,
            generation: notice.generation,
            attempt: attempts,
            status: posted.map_or_else(Refusal::status, Some),
            error_type: posted.err().map(Refusal::as_str),
            delay_seconds,
        };
        host.emit(&match outcome {
            NoticeOutcome::Done => Event::NoticeDelivered(attempt),
            NoticeOutcome::Retry { .. } => Event::NoticeRetried(attempt),
            NoticeOutcome::Failed { .. } => Event::NoticeFailed(attempt),
        });

        // (4) Try again.
        if let Some(delay_seconds) = delay_seconds {
            self.send(vec![notice.to_message()], delay_seconds, host).await;
        }
        Ok(proof)
    }

    /// The status of the answer when the endpoint has taken the notice.
    async fn post(&self, notice: &NoticeRef, due: &DueNotice, host: &impl Host) -> Result<u16, Refusal> {
        let config = match self.config {
            Ok(Some(config)) => config,
            Ok(None) => return Err(Refusal::Misconfigured),
            Err(cause) => {
                host.emit(&Event::ConfigInvalid { cause, r2_code: None });
                return Err(Refusal::Misconfigured);
            }
        };
        let webhook = config.webhook(notice, &due.deletion, host.now());
        match in_time(self.endpoint.post(&webhook), POST_MS_MAX, host).await {
            Some(Some(status @ 200..=299)) => Ok(status),
            Some(Some(status)) => Err(Refusal::Status(status)),
            Some(None) => Err(Refusal::NoAnswer),
            None => Err(Refusal::TimedOut),
        }
    }

    /// Sends messages, as well as it goes: whether the Queue has taken them in time. What it has not, upkeep sends when it is
    /// overdue.
    async fn send(&self, bodies: Vec<String>, delay_seconds: u32, host: &impl Host) -> bool {
        matches!(in_time(self.queue.send(bodies, delay_seconds), POST_MS_MAX, host).await, Some(Ok(())))
    }
}

/// Writes an error of the ledger to the log, and has the message come back.
fn told<T>(
    result: Result<T, LedgerError>,
    operation: &'static str,
    host: &impl Host,
) -> Result<T, RetryCause> {
    result.map_err(|error| {
        host.emit(&Event::LedgerFailed { operation, cause: &error.cause });
        RetryCause::LedgerUnavailable
    })
}

#[cfg(test)]
mod tests;
