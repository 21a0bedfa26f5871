//! What becomes of messages, by the documented semantics of Queues and not by miniflare's.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Body, Message, QueueSettings};
use crate::clock::unix_ms;
use crate::delivery::{Decision, Delivered};

/// All queues and what they hold.
#[derive(Debug, Default)]
pub(super) struct Broker {
    pub(super) settings: BTreeMap<String, QueueSettings>,
    held: BTreeMap<String, Vec<Held>>,
    sent: u64,
    pub(super) dropped: Vec<Message>,
}

#[derive(Debug)]
struct Held {
    message: Message,
    due: Duration,
    in_flight: bool,
}

impl Broker {
    pub(super) fn new(settings: impl IntoIterator<Item = (String, QueueSettings)>) -> Self {
        Self { settings: settings.into_iter().collect(), ..Self::default() }
    }

    /// Stores a new message, which may be delivered once its delay is over.
    pub(super) fn store(&mut self, queue: &str, body: Body, due: Duration) {
        self.sent += 1;
        let id = format!("{:032x}", self.sent);
        let message = Message { id, timestamp_ms: unix_ms(), attempts: 0, body };
        self.hold(queue, message, due);
    }

    fn hold(&mut self, queue: &str, message: Message, due: Duration) {
        self.held.entry(queue.to_owned()).or_default().push(Held { message, due, in_flight: false });
    }

    /// Everything that a queue holds, with the messages that are delayed or being delivered.
    pub(super) fn messages(&self, queue: &str) -> Vec<Message> {
        self.held.get(queue).into_iter().flatten().map(|held| held.message.clone()).collect()
    }

    /// Starts a delivery of up to `max` messages that are due: each counts an attempt and is in flight from here on.
    pub(super) fn take(&mut self, queue: &str, max: usize, now: Duration) -> Vec<Message> {
        let held = self.held.get_mut(queue).into_iter().flatten();
        let ready = held.filter(|held| !held.in_flight && held.due <= now).take(max);
        ready
            .map(|held| {
                held.in_flight = true;
                held.message.attempts += 1;
                held.message.clone()
            })
            .collect()
    }

    /// The first moment at which a message of any queue is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.held.values().flatten().filter(|held| !held.in_flight).map(|held| held.due).min()
    }

    /// Ends a delivery: what was acknowledged goes, what was not comes back, and what comes back too often goes to
    /// the dead-letter queue under the same id, where its attempts start again.
    pub(super) fn settle(&mut self, queue: &str, batch: &[Message], delivered: &Delivered, now: Duration) {
        let settings = self.settings.get(queue).cloned().unwrap_or_default();
        for message in batch {
            let decision = delivered.decision(&message.id);
            let held = self.held.entry(queue.to_owned()).or_default();
            let Some(at) = held.iter().position(|held| held.message.id == message.id) else { continue };
            let Some(found) = held.get_mut(at) else { continue };
            let exhausted = found.message.attempts > settings.max_retries;
            match decision {
                Decision::Retried { delay } if !exhausted => {
                    let delay =
                        delay.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(settings.retry_delay);
                    found.due = now + Duration::from_secs(delay);
                    found.in_flight = false;
                }
                decision => {
                    let mut gone = held.remove(at).message;
                    if decision == Decision::Acked {
                        continue;
                    }
                    match &settings.dead_letter_queue {
                        Some(dead) => {
                            gone.attempts = 0;
                            self.hold(dead, gone, now);
                        }
                        None => self.dropped.push(gone),
                    }
                }
            }
        }
    }
}
