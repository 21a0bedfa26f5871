//! The protocol behind the Queue binding.
//!
//! Read from `workerd`'s `src/workerd/api/queue.c++`. `send` is a POST of the body to `/message`, its type in
//! `X-Msg-Fmt` and its delay in `X-Msg-Delay-Secs`; `sendBatch` a POST of JSON to `/batch` with every body in base64;
//! `metrics` a GET of `/metrics`. An error is any status but 200, with its code and text in the headers
//! `CF-Queues-Error-Code` and `CF-Queues-Error-Cause`. Limits and codes: Cloudflare's pages "Limits" and "Error
//! codes" of Queues.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Body, QueueError, Shared};
use crate::faults::{How, When};
use crate::http::{Answer, Request};

#[derive(Debug, Deserialize)]
struct Batch {
    messages: Vec<Outgoing>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outgoing {
    body: String,
    content_type: Option<String>,
    delay_secs: Option<i64>,
}

/// A message that was accepted: its body and its delay in seconds.
type Accepted = (Body, u64);

/// Bytes of a message, with about a hundred of metadata that count too.
const MESSAGE_BYTES_MAX: usize = 128_000 - 100;
const BATCH_BYTES_MAX: usize = 256_000;
const BATCH_MESSAGES_MAX: usize = 100;
const DELAY_SECONDS_MAX: i64 = 86_400;

const BATCH_DELAY_INVALID: QueueError = QueueError { code: 10_202 };
const MESSAGE_SIZE: QueueError = QueueError { code: 10_204 };
const BATCH_SIZE: QueueError = QueueError { code: 10_205 };
const BATCH_COUNT: QueueError = QueueError { code: 10_206 };
const MALFORMED: QueueError = QueueError { code: 10_208 };

impl Shared {
    pub(super) fn answer(&self, request: &Request) -> Answer {
        if request.path == "/metrics" {
            return Answer::json(&self.metrics(request));
        }
        match parse(request).map_err(Some).and_then(|messages| self.send(queue(request), messages)) {
            Ok(()) => Answer::json(&json!({"metadata": {"metrics": self.metrics(request)}})),
            Err(Some(failure)) => error(failure),
            Err(None) => Answer::Dropped,
        }
    }

    /// Stores the messages, as many as the fault that is due lets through.
    fn send(&self, queue: &str, messages: Vec<Accepted>) -> Result<(), Option<QueueError>> {
        let Some(fault) = self.faults.strike("") else {
            self.store(queue, messages);
            return Ok(());
        };
        let (mut stored, mut left) = (Vec::new(), Vec::new());
        for (at, message) in messages.into_iter().enumerate() {
            let now = fault.when == When::After || (fault.when == When::Halfway && at % 2 == 0);
            if now { stored.push(message) } else { left.push(message) }
        }
        self.store(queue, stored);
        match fault.how {
            How::Refused(error) => Err(Some(error)),
            How::Dropped => Err(None),
            How::Stalled(gate) => {
                gate.pass();
                self.store(queue, left);
                Ok(())
            }
        }
    }

    fn store(&self, queue: &str, messages: Vec<Accepted>) {
        let now = self.clock.now();
        let mut broker = self.broker();
        for (body, delay) in messages {
            broker.store(queue, body, now + Duration::from_secs(delay));
        }
    }

    fn metrics(&self, request: &Request) -> Value {
        let held = self.broker().messages(queue(request));
        json!({
            "backlogCount": held.len(),
            "backlogBytes": held.iter().map(|message| message.body.len()).sum::<usize>(),
            "oldestMessageTimestamp": held.iter().map(|message| message.timestamp_ms).min().unwrap_or(0),
        })
    }
}

/// The queue's name, which the runtime adds for us: see `config`.
fn queue(request: &Request) -> &str {
    request.header("x-queue").unwrap_or_default()
}

fn parse(request: &Request) -> Result<Vec<Accepted>, QueueError> {
    let default_delay = request.header("x-msg-delay-secs").and_then(|delay| delay.parse().ok());
    let messages = if request.path == "/message" {
        let content_type = request.header("x-msg-fmt").unwrap_or("v8");
        vec![accept(Body::new(content_type, request.body.to_vec()), default_delay)?]
    } else {
        let batch: Batch = serde_json::from_slice(&request.body).map_err(|_| MALFORMED)?;
        batch.messages.into_iter().map(|message| decode(&message, default_delay)).collect::<Result<_, _>>()?
    };
    if !(1..=BATCH_MESSAGES_MAX).contains(&messages.len()) {
        return Err(BATCH_COUNT);
    }
    if messages.iter().map(|(body, _)| body.len()).sum::<usize>() > BATCH_BYTES_MAX {
        return Err(BATCH_SIZE);
    }
    Ok(messages)
}

fn decode(message: &Outgoing, default_delay: Option<i64>) -> Result<Accepted, QueueError> {
    let bytes = STANDARD.decode(&message.body).map_err(|_| MALFORMED)?;
    accept(
        Body::new(message.content_type.as_deref().unwrap_or("v8"), bytes),
        message.delay_secs.or(default_delay),
    )
}

fn accept(body: Body, delay: Option<i64>) -> Result<Accepted, QueueError> {
    if body.len() > MESSAGE_BYTES_MAX {
        return Err(MESSAGE_SIZE);
    }
    let delay = delay.unwrap_or(0);
    let in_bounds = (0..=DELAY_SECONDS_MAX).contains(&delay);
    Ok((body, u64::try_from(delay).ok().filter(|_| in_bounds).ok_or(BATCH_DELAY_INVALID)?))
}

fn error(error: QueueError) -> Answer {
    let (status, cause) = match error.code {
        10_250 => (429, "Queue is overloaded. Please back off."),
        10_251 => (429, "Queue storage limit exceeded"),
        10_252 => (429, "Queue is disabled"),
        10_253 => (429, "Free tier limit exceeded"),
        10_104 => (404, "Queue not found"),
        10_200..=10_249 => (400, "The request is not valid"),
        _ => (500, "Unknown internal error"),
    };
    Answer::Response {
        status,
        headers: vec![
            ("cf-queues-error-code", error.code.to_string()),
            ("cf-queues-error-cause", cause.to_owned()),
        ],
        body: Vec::new(),
    }
}
