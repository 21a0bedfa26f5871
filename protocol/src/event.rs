use serde::Serialize;

use crate::{DeletionId, FailureCode, RequestId, State, UnreadableReason};

/// Where events go. The Workers pass each to the console as an object, so that its fields are indexed.
pub trait Log {
    /// Writes one event.
    fn emit(&self, event: &Event<'_>);
}

/// One line of the log: a flat JSON object. Never a key, a token or a body; counts and ids only.
///
/// Names follow OpenTelemetry's semantic conventions 1.44 where they have one.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event")]
#[non_exhaustive]
pub enum Event<'a> {
    /// The producer answered a request.
    #[serde(rename = "request.finished")]
    RequestFinished {
        /// The request's id, as in `X-Request-Id`.
        request_id: &'a RequestId,
        /// `GET`, `POST`, …
        #[serde(rename = "http.request.method")]
        method: &'a str,
        /// The route's pattern, never the path itself.
        #[serde(rename = "http.route")]
        route: &'a str,
        /// The status of the answer.
        #[serde(rename = "http.response.status_code")]
        status: u16,
        /// The problem's code, where the answer is a problem.
        #[serde(rename = "error.type", skip_serializing_if = "Option::is_none")]
        error_type: Option<&'a str>,
        /// What the problem's answer does not tell the caller.
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<&'a str>,
        /// From the request's arrival to its answer.
        duration_ms: u64,
    },
    /// Every message of a deletion is stored in the Queue.
    #[serde(rename = "deletion.accepted")]
    DeletionAccepted {
        /// The deletion.
        deletion: &'a DeletionId,
        /// The request that brought it.
        request_id: &'a RequestId,
        /// The name of the token it was requested with.
        requested_by: &'a str,
        /// Keys accepted.
        keys: usize,
        /// Duplicates left out.
        duplicates_removed: usize,
        /// Messages that its keys were sent as.
        messages: usize,
        /// Prefixes that are swept.
        prefixes: usize,
        /// Whether it only counts.
        dry_run: bool,
    },
    /// Messages of a deletion that the platform has lost were sent again.
    #[serde(rename = "deletion.resent")]
    DeletionResent {
        /// The deletion.
        deletion: &'a DeletionId,
        /// Messages sent.
        messages: usize,
    },
    /// Upkeep has gone round.
    #[serde(rename = "upkeep.finished")]
    UpkeepFinished {
        /// Deletions that it has cancelled, because they were never accepted and nobody asked for them again.
        abandoned: usize,
        /// Deletions whose lost messages it has sent again.
        resent: usize,
        /// Deletions that it has removed, because they ended long enough ago.
        removed: usize,
        /// Overdue notices whose messages it has sent again.
        notices: usize,
        /// Overdue sweeps whose messages it has sent again.
        sweeps: usize,
        /// How long it took.
        duration_ms: u64,
    },
    /// A part of a deletion was accepted: every message is stored.
    #[serde(rename = "part.accepted")]
    PartAccepted {
        /// The deletion.
        deletion: &'a DeletionId,
        /// The part's number.
        part: u32,
        /// The request that put it.
        request_id: &'a RequestId,
        /// Keys accepted, without duplicates.
        keys: usize,
        /// Duplicates left out.
        duplicates_removed: usize,
        /// Messages they were sent as.
        messages: usize,
    },
    /// Failures of a deletion were written down to be sent again.
    #[serde(rename = "redrive.started")]
    RedriveStarted {
        /// The deletion.
        deletion: &'a DeletionId,
        /// The request that asked for it.
        request_id: &'a RequestId,
        /// Its generation from now on.
        generation: u32,
        /// Failures that are sent again.
        keys: usize,
        /// Messages that they are sent as.
        messages: usize,
    },
    /// A deletion became final.
    #[serde(rename = "deletion.finished")]
    DeletionFinished {
        /// The deletion.
        deletion: &'a DeletionId,
        /// How often it had been redriven.
        generation: u32,
        /// Its final state.
        state: State,
        /// Keys accepted.
        total: u64,
        /// Keys confirmed absent.
        deleted: u64,
        /// Keys kept by the fence.
        skipped: u64,
        /// Keys that ended undeleted.
        failed: u64,
        /// From the request to the end.
        duration_ms: u64,
    },
    /// A step of a sweep is over.
    #[serde(rename = "sweep.progressed")]
    SweepProgressed {
        /// The deletion.
        deletion: &'a DeletionId,
        /// The sweep's number.
        sweep: u32,
        /// How often it had been handed on.
        step: u32,
        /// `count`, `delete` or `verify`.
        phase: &'static str,
        /// Pages listed.
        pages: u32,
        /// Keys confirmed absent.
        keys_deleted: usize,
        /// Keys left alone, because their objects were uploaded after the request.
        keys_skipped: usize,
        /// Keys that ended undeleted.
        keys_failed: usize,
        /// Keys left for another attempt.
        keys_undecided: usize,
        /// Whether the phase is over.
        is_over: bool,
        /// Why it is to be tried again, or was given up.
        #[serde(rename = "error.type", skip_serializing_if = "Option::is_none")]
        error_type: Option<&'static str>,
        /// R2's code, where R2 was the cause.
        #[serde(skip_serializing_if = "Option::is_none")]
        r2_code: Option<u32>,
        /// Seconds until it is tried again.
        #[serde(skip_serializing_if = "Option::is_none")]
        delay_seconds: Option<u32>,
    },
    /// The consumer settled every message of one invocation.
    #[serde(rename = "batch.processed")]
    BatchProcessed {
        /// Always `cloudflare.queues`.
        #[serde(rename = "messaging.system")]
        system: &'static str,
        /// The queue's name.
        #[serde(rename = "messaging.destination.name")]
        queue: &'a str,
        /// Messages in the batch.
        #[serde(rename = "messaging.batch.message_count")]
        messages: usize,
        /// Messages acknowledged.
        acked: usize,
        /// Messages to be delivered again.
        retried: usize,
        /// Keys confirmed absent by this batch.
        keys_deleted: usize,
        /// Keys kept by the fence in this batch.
        keys_skipped: usize,
        /// Keys that ended undeleted in this batch.
        keys_failed: usize,
        /// Keys left for another attempt.
        keys_undecided: usize,
        /// Delete calls made to R2.
        r2_calls: usize,
        /// Looks at single objects, for the fence.
        r2_heads: usize,
        /// Pages of objects listed, for sweeps.
        r2_lists: usize,
        /// Where the fence looked: the longest time from the first look before a delete call to the call's answer.
        #[serde(skip_serializing_if = "Option::is_none")]
        fence_gap_ms: Option<u64>,
        /// Age of the oldest message, from its sending to the start of the batch.
        oldest_message_ms: u64,
        /// How long the batch took.
        duration_ms: u64,
        /// Why the batch as a whole went wrong, where it did.
        #[serde(rename = "error.type", skip_serializing_if = "Option::is_none")]
        error_type: Option<&'a str>,
    },
    /// A chunk is to be delivered again.
    #[serde(rename = "chunk.retried")]
    ChunkRetried {
        /// The deletion.
        deletion: &'a DeletionId,
        /// The chunk's number.
        chunk: u32,
        /// The generation it belongs to.
        generation: u32,
        /// This delivery's number, from 1.
        attempt: u32,
        /// Seconds until the next.
        delay_seconds: u32,
        /// Keys left for it.
        keys_undecided: usize,
        /// Why.
        #[serde(rename = "error.type")]
        error_type: &'static str,
        /// R2's code, where R2 was the cause.
        #[serde(skip_serializing_if = "Option::is_none")]
        r2_code: Option<u32>,
    },
    /// A chunk's delete call was divided, because it was too large or to find a key that cannot be deleted.
    #[serde(rename = "chunk.split")]
    ChunkSplit {
        /// The deletion.
        deletion: &'a DeletionId,
        /// The chunk's number.
        chunk: u32,
        /// The generation it belongs to.
        generation: u32,
        /// How often a call was divided.
        splits: usize,
        /// Delete calls made for the chunk.
        r2_calls: usize,
        /// Keys found that cannot be deleted.
        keys_failed: usize,
    },
    /// A message exhausted its attempts; what was undecided in its chunk is now failed.
    #[serde(rename = "chunk.dead_lettered")]
    ChunkDeadLettered {
        /// The deletion.
        deletion: &'a DeletionId,
        /// The chunk's number.
        chunk: u32,
        /// The generation it belongs to.
        generation: u32,
        /// Keys that failed with it.
        keys_failed: usize,
        /// The failures' code.
        #[serde(rename = "error.type")]
        code: FailureCode,
    },
    /// A message cannot be carried out; its body is kept in the ledger.
    #[serde(rename = "message.unreadable")]
    MessageUnreadable {
        /// The queue's id of the message.
        #[serde(rename = "messaging.message.id")]
        message_id: &'a str,
        /// What is wrong with it.
        #[serde(rename = "error.type")]
        reason: UnreadableReason,
    },
    /// The endpoint has taken a completion notice.
    #[serde(rename = "notice.delivered")]
    NoticeDelivered(NoticeAttempt<'a>),
    /// The endpoint has not taken a completion notice, which is tried again.
    #[serde(rename = "notice.retried")]
    NoticeRetried(NoticeAttempt<'a>),
    /// A completion notice was given up.
    #[serde(rename = "notice.failed")]
    NoticeFailed(NoticeAttempt<'a>),
    /// The ledger refused or did not answer.
    #[serde(rename = "ledger.failed")]
    LedgerFailed {
        /// Which operation it was.
        operation: &'static str,
        /// What the database said.
        cause: &'a str,
    },
    /// The producer's rate limiter did not answer, and the call was let through.
    #[serde(rename = "rate_limiter.failed")]
    RateLimiterFailed {
        /// What the platform said.
        cause: &'a str,
    },
    /// A person must change the configuration before this Worker can do its work.
    #[serde(rename = "config.invalid")]
    ConfigInvalid {
        /// What is wrong, and what to do.
        cause: &'a str,
        /// R2's code, where R2 said so.
        #[serde(skip_serializing_if = "Option::is_none")]
        r2_code: Option<u32>,
    },
}

/// One attempt to send a completion notice. Never the endpoint's URL: its path or query may be a secret.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct NoticeAttempt<'a> {
    /// The deletion.
    pub deletion: &'a DeletionId,
    /// The generation that ended.
    pub generation: u32,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The status of the endpoint's answer, where there was one.
    #[serde(rename = "http.response.status_code", skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it was not taken.
    #[serde(rename = "error.type", skip_serializing_if = "Option::is_none")]
    pub error_type: Option<&'static str>,
    /// Seconds until the next attempt, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_seconds: Option<u32>,
}

/// How loud an event is: `ERROR` only where a person must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// Ordinary work.
    Info,
    /// Something went wrong that the system is dealing with.
    Warn,
    /// A person must act.
    Error,
}

impl Event<'_> {
    /// How loud the event is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::RequestFinished { status: 500.., .. }
            | Self::DeletionFinished { state: State::Failed, .. }
            | Self::ChunkDeadLettered { .. }
            | Self::MessageUnreadable { .. }
            | Self::LedgerFailed { .. }
            | Self::NoticeFailed(_)
            | Self::SweepProgressed { error_type: Some(_), delay_seconds: None, .. }
            | Self::ConfigInvalid { .. } => Severity::Error,
            Self::RequestFinished { status: 400.., .. }
            | Self::DeletionResent { .. }
            | Self::RateLimiterFailed { .. }
            | Self::NoticeRetried(_)
            | Self::SweepProgressed { error_type: Some(_), .. }
            | Self::ChunkRetried { .. }
            | Self::ChunkSplit { .. } => Severity::Warn,
            Self::RequestFinished { .. }
            | Self::DeletionAccepted { .. }
            | Self::PartAccepted { .. }
            | Self::RedriveStarted { .. }
            | Self::UpkeepFinished { .. }
            | Self::DeletionFinished { .. }
            | Self::NoticeDelivered(_)
            | Self::SweepProgressed { .. }
            | Self::BatchProcessed { .. } => Severity::Info,
        }
    }

    /// The event as one flat JSON object.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(flatten)]
            event: &'a Event<'a>,
            severity: Severity,
        }
        // Strings and numbers always serialize; an empty object would only lose the line.
        serde_json::to_string(&Line { event: self, severity: self.severity() })
            .unwrap_or_else(|_| "{}".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    /// Alerts and dashboards are built on these names.
    #[test]
    fn an_event_is_one_flat_object() {
        let deletion = DeletionId::new(Timestamp::from_millis(1_763_930_000_000), 0);
        let event = Event::ChunkRetried {
            deletion: &deletion,
            chunk: 3,
            generation: 0,
            attempt: 2,
            delay_seconds: 17,
            keys_undecided: 500,
            error_type: "r2_transient",
            r2_code: Some(10001),
        };
        assert_eq!(
            event.to_json(),
            format!(
                "{{\"event\":\"chunk.retried\",\"deletion\":\"{deletion}\",\"chunk\":3,\"generation\":0,\"attempt\":2,\
                 \"delay_seconds\":17,\"keys_undecided\":500,\"error.type\":\"r2_transient\",\"r2_code\":10001,\
                 \"severity\":\"WARN\"}}"
            )
        );
    }

    #[test]
    fn only_what_a_person_must_act_on_is_an_error() {
        let request_id = RequestId::new(Timestamp::from_millis(0), 0);
        let finished = |status| Event::RequestFinished {
            request_id: &request_id,
            method: "POST",
            route: "/v1/deletions",
            status,
            error_type: None,
            cause: None,
            duration_ms: 1,
        };
        assert_eq!(finished(202).severity(), Severity::Info);
        assert_eq!(finished(422).severity(), Severity::Warn);
        assert_eq!(finished(503).severity(), Severity::Error);
    }
}
