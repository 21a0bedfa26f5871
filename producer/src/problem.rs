use std::ops::Deref;

use protocol::{QueueError, QueueErrorClass, RequestId, Timestamp};
use serde::Serialize;

use crate::http::Response;

/// What went wrong with a request: an RFC 9457 problem in the making.
///
/// It has two messages: `detail` for the caller, `cause` for the log. What the platform says goes only to the log.
///
/// Boxed, because every `?` on its way hands it on: unboxed, that was 4 % of the producer's wasm.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem(Box<Contents>);

/// What a problem consists of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) code: ProblemCode,
    detail: String,
    errors: Vec<FieldError>,
    headers: Vec<(&'static str, String)>,
    pub(crate) cause: Option<String>,
}

impl Deref for Problem {
    type Target = Contents;

    fn deref(&self) -> &Contents {
        &self.0
    }
}

/// What kind of thing went wrong. Stable: clients compare these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProblemCode {
    MalformedRequest,
    Unauthenticated,
    InvalidToken,
    InsufficientScope,
    KeyNotAllowed,
    KeyProtected,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    RequestTimeout,
    PayloadTooLarge,
    UnsupportedMediaType,
    ValidationFailed,
    IdempotencyKeyReused,
    RequestInProgress,
    DeletionNotFinal,
    DeletionCancelled,
    PartsClosed,
    PartDiffers,
    PartsIncomplete,
    RateLimited,
    QueueOverloaded,
    Overloaded,
    QueueUnavailable,
    LedgerUnavailable,
    NotConfigured,
    NotReady,
}

/// One thing that is wrong in a request.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FieldError {
    /// A JSON Pointer into the body as a URI fragment, `line 17` of an NDJSON body, or `?name` for a query parameter.
    pub(crate) pointer: String,
    /// What is wrong, and what would be right.
    pub(crate) detail: String,
}

/// How many things that are wrong one answer lists.
pub(crate) const ERRORS_LISTED_MAX: usize = 20;

impl ProblemCode {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::MalformedRequest => "malformed_request",
            Self::Unauthenticated => "unauthenticated",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
            Self::KeyNotAllowed => "key_not_allowed",
            Self::KeyProtected => "key_protected",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotAcceptable => "not_acceptable",
            Self::RequestTimeout => "request_timeout",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::ValidationFailed => "validation_failed",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::RequestInProgress => "request_in_progress",
            Self::DeletionNotFinal => "deletion_not_final",
            Self::DeletionCancelled => "deletion_cancelled",
            Self::PartsClosed => "parts_closed",
            Self::PartDiffers => "part_differs",
            Self::PartsIncomplete => "parts_incomplete",
            Self::RateLimited => "rate_limited",
            Self::QueueOverloaded => "queue_overloaded",
            Self::Overloaded => "overloaded",
            Self::QueueUnavailable => "queue_unavailable",
            Self::LedgerUnavailable => "ledger_unavailable",
            Self::NotConfigured => "not_configured",
            Self::NotReady => "not_ready",
        }
    }

    pub(crate) fn status(self) -> u16 {
        match self {
            Self::MalformedRequest => 400,
            Self::Unauthenticated | Self::InvalidToken => 401,
            Self::InsufficientScope | Self::KeyNotAllowed | Self::KeyProtected => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::RequestTimeout => 408,
            Self::PayloadTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::ValidationFailed | Self::IdempotencyKeyReused => 422,
            Self::RequestInProgress
            | Self::DeletionNotFinal
            | Self::DeletionCancelled
            | Self::PartsClosed
            | Self::PartDiffers
            | Self::PartsIncomplete => 409,
            Self::RateLimited | Self::QueueOverloaded => 429,
            Self::Overloaded
            | Self::QueueUnavailable
            | Self::LedgerUnavailable
            | Self::NotConfigured
            | Self::NotReady => 503,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::MalformedRequest => "Bad Request",
            Self::Unauthenticated | Self::InvalidToken => "Unauthorized",
            Self::InsufficientScope | Self::KeyNotAllowed | Self::KeyProtected => "Forbidden",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::NotAcceptable => "Not Acceptable",
            Self::RequestTimeout => "Request Timeout",
            Self::PayloadTooLarge => "Content Too Large",
            Self::UnsupportedMediaType => "Unsupported Media Type",
            Self::ValidationFailed | Self::IdempotencyKeyReused => "Unprocessable Content",
            Self::RequestInProgress
            | Self::DeletionNotFinal
            | Self::DeletionCancelled
            | Self::PartsClosed
            | Self::PartDiffers
            | Self::PartsIncomplete => "Conflict",
            Self::RateLimited | Self::QueueOverloaded => "Too Many Requests",
            Self::Overloaded
            | Self::QueueUnavailable
            | Self::LedgerUnavailable
            | Self::NotConfigured
            | Self::NotReady => "Service Unavailable",
        }
    }

    /// Whether the same request may succeed later without anybody changing anything about it.
    pub(crate) fn retryable(self) -> bool {
        match self {
            Self::RequestTimeout
            | Self::RequestInProgress
            | Self::DeletionNotFinal
            | Self::RateLimited
            | Self::QueueOverloaded
            | Self::Overloaded
            | Self::QueueUnavailable
            | Self::LedgerUnavailable
            | Self::NotReady => true,
            Self::MalformedRequest
            | Self::Unauthenticated
            | Self::InvalidToken
            | Self::InsufficientScope
            | Self::KeyNotAllowed
            | Self::KeyProtected
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::NotAcceptable
            | Self::PayloadTooLarge
            | Self::UnsupportedMediaType
            | Self::ValidationFailed
            | Self::IdempotencyKeyReused
            | Self::DeletionCancelled
            | Self::PartsClosed
            | Self::PartDiffers
            | Self::PartsIncomplete
            | Self::NotConfigured => false,
        }
    }
}

impl Problem {
    pub(crate) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        let (detail, errors, headers) = (detail.into(), Vec::new(), Vec::new());
        Self(Box::new(Contents { code, detail, errors, headers, cause: None }))
    }

    /// A request whose form is right and whose content is not.
    pub(crate) fn validation(detail: impl Into<String>, errors: Vec<FieldError>) -> Self {
        Self::new(ProblemCode::ValidationFailed, detail).with_errors(errors)
    }

    /// The ledger did not answer.
    pub(crate) fn ledger(error: &ledger::LedgerError) -> Self {
        Self::new(ProblemCode::LedgerUnavailable, "The ledger did not answer. Send the request again.")
            .with_cause(&error.cause)
            .with_header("Retry-After", "5")
    }

    /// The Queue did not store every message.
    pub(crate) fn queue(error: QueueError, now: Timestamp) -> Self {
        let code = match error.class() {
            QueueErrorClass::Overloaded => ProblemCode::QueueOverloaded,
            QueueErrorClass::Closed | QueueErrorClass::Configuration | QueueErrorClass::Unknown => {
                ProblemCode::QueueUnavailable
            }
        };
        Self::new(code, error.detail())
            .with_cause(format!("queue error {}", error.code))
            .with_header("Retry-After", error.retry_after_seconds(now).to_string())
    }

    /// Says which parts of the request it is about.
    #[must_use]
    pub(crate) fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = errors;
        self
    }

    /// Says what credentials would be let in (RFC 6750, 3), `parameters` behind the realm.
    #[must_use]
    pub(crate) fn with_challenge(self, parameters: &str) -> Self {
        self.with_header("WWW-Authenticate", format!("Bearer realm=\"r2-deletion-queue\"{parameters}"))
    }

    #[must_use]
    pub(crate) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.headers.push((name, value.into()));
        self
    }

    #[must_use]
    pub(crate) fn with_cause(mut self, cause: impl Into<String>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    pub(crate) fn into_response(self, request_id: &RequestId) -> Response {
        let status = self.code.status();
        let body = ProblemView {
            r#type: "about:blank",
            title: self.code.title(),
            status,
            detail: &self.detail,
            code: self.code,
            retryable: self.code.retryable(),
            request_id,
            errors: &self.errors,
        };
        let mut response = Response::json(status, &body);
        response.headers = vec![("Content-Type", "application/problem+json".to_owned())];
        response.headers.extend(self.0.headers);
        response
    }
}

#[derive(Serialize)]
struct ProblemView<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: ProblemCode,
    retryable: bool,
    request_id: &'a RequestId,
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_members_that_clients_read() {
        let request_id = RequestId::new(Timestamp::from_millis(0), 0);
        let error =
            FieldError { pointer: "#/objectKeys/17".to_owned(), detail: "the key is empty".to_owned() };
        let response = Problem::validation("1 key is invalid.", vec![error]).into_response(&request_id);
        assert_eq!(response.status, 422);
        assert_eq!(
            response.text(),
            concat!(
                r#"{"type":"about:blank","title":"Unprocessable Content","status":422,"detail":"1 key is invalid.","#,
                r#""code":"validation_failed","retryable":false,"request_id":"req_00000000000000000000000000","#,
                r##""errors":[{"pointer":"#/objectKeys/17","detail":"the key is empty"}]}"##
            )
        );
    }

    #[test]
    fn what_the_platform_said_goes_to_the_log_only() {
        let problem = Problem::ledger(&ledger::LedgerError { cause: "D1_ERROR: secret".to_owned() });
        assert_eq!(problem.cause.as_deref(), Some("D1_ERROR: secret"));
        let response = problem.into_response(&RequestId::new(Timestamp::from_millis(0), 0));
        assert!(response.headers.contains(&("Retry-After", "5".to_owned())));
        assert!(!response.text().contains("secret"));
    }
}
