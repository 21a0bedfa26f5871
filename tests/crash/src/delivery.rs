//! Delivering batches to the consumer, and what it decided about each message.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{Binding, WorkerConfig};
use crate::pair::root;
use crate::queue::Message;

/// What becomes of a message by the documented rules, after the consumer has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is never delivered again.
    Acked,
    /// It comes again, after a delay if one was asked for.
    Retried {
        /// Seconds, as the consumer gave them; `None` leaves it to the queue.
        delay: Option<i64>,
    },
}

/// What the runtime reports of one delivered batch.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Delivered {
    /// `ok`, `exception` and the like; empty when the connection broke, so that nobody knows.
    pub outcome: String,
    ack_all: bool,
    retry_batch: RetryBatch,
    explicit_acks: Vec<String>,
    retry_messages: Vec<RetryMessage>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RetryBatch {
    retry: bool,
    delay_seconds: Option<i64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RetryMessage {
    msg_id: String,
    delay_seconds: Option<i64>,
}

impl Delivered {
    /// Whether the runtime died or closed the connection before it reported.
    pub fn lost(&self) -> bool {
        self.outcome.is_empty()
    }

    /// Whether the consumer itself said what becomes of the message, in place of leaving it to a default.
    pub fn decided(&self, id: &str) -> bool {
        self.explicit_acks.iter().any(|acked| acked == id)
            || self.retry_messages.iter().any(|retry| retry.msg_id == id)
    }

    /// What becomes of the message.
    ///
    /// An acknowledgement by name holds whatever happens to the handler afterwards; a call on one message beats a
    /// call on the batch; what nobody decided is acknowledged when the handler succeeded and retried otherwise.
    /// Source: Cloudflare's pages "Batching, retries and delays" and "JavaScript APIs" of Queues.
    pub fn decision(&self, id: &str) -> Decision {
        if self.explicit_acks.iter().any(|acked| acked == id) {
            return Decision::Acked;
        }
        if let Some(retry) = self.retry_messages.iter().find(|retry| retry.msg_id == id) {
            return Decision::Retried { delay: retry.delay_seconds };
        }
        if self.ack_all || (self.outcome == "ok" && !self.retry_batch.retry) {
            return Decision::Acked;
        }
        Decision::Retried { delay: self.retry_batch.delay_seconds }
    }
}

/// The way to the consumer's queue handler: a Worker of a few lines beside it.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    agent: ureq::Agent,
    url: String,
}

/// How long a delivery may take: the consumer's own time budget is far below.
const PATIENCE: Duration = Duration::from_mins(4);

impl Dispatcher {
    /// The dispatcher that listens at `address`.
    pub fn new(address: SocketAddr) -> Self {
        let agent =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build();
        Self { agent: agent.into(), url: format!("http://{address}/") }
    }

    /// The Worker itself, which hands batches to the Worker `consumer` of the same process, sets off its cron trigger, and
    /// prints what it gets as the tail of another Worker.
    ///
    /// # Errors
    /// When the crate is not in its repository.
    pub fn worker(consumer: &str) -> Result<WorkerConfig> {
        Ok(WorkerConfig {
            name: "dispatcher".to_owned(),
            modules: vec![root()?.join("tests/crash/src/dispatcher.js")],
            compatibility_date: "2026-11-01".to_owned(),
            compatibility_flags: vec!["service_binding_extra_handlers".to_owned()],
            bindings: vec![("CONSUMER".to_owned(), Binding::Worker(consumer.to_owned()))],
            tail: None,
        })
    }

    /// Sets off the consumer's cron trigger, and waits until it is done.
    ///
    /// # Errors
    /// When it fails.
    pub fn cron(&self) -> Result<()> {
        let mut response = self.agent.post(format!("{}cron", self.url)).send_empty()?;
        let outcome: Value = serde_json::from_str(&response.body_mut().read_to_string()?)?;
        ensure!(outcome.get("outcome").and_then(Value::as_str) == Some("ok"), "the cron trigger: {outcome}");
        Ok(())
    }

    /// Delivers the messages in one batch, as they are: what the broker holds is not asked and not changed.
    ///
    /// A runtime that dies meanwhile is not an error: see [`Delivered::lost`].
    ///
    /// # Errors
    /// When the batch cannot be delivered for another reason.
    pub fn deliver(&self, queue: &str, messages: &[Message]) -> Result<Delivered> {
        let messages: Vec<Value> = messages.iter().map(Message::encode).collect();
        let request = json!({"queue": queue, "messages": messages}).to_string();
        let answered = self.agent.post(&self.url).send(request);
        let answered =
            answered.and_then(|mut response| Ok((response.status(), response.body_mut().read_to_string()?)));
        match answered {
            Ok((status, body)) if status.is_success() => {
                serde_json::from_str(&body).with_context(|| format!("the dispatcher answered {body}"))
            }
            Ok((status, body)) => bail!("the dispatcher answered {status}: {body}"),
            Err(ureq::Error::Timeout(which)) => bail!("the consumer took longer than {PATIENCE:?} ({which})"),
            Err(_) => Ok(Delivered::default()),
        }
    }
}
