//! A broker behind the Queue binding, which delivers when the test says so and fails on demand.

mod broker;
mod message;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;

use crate::clock::Clock;
use crate::config::Binding;
use crate::delivery::Delivered;
use crate::faults::{Fault, Faults, Met};
use crate::http::Server;
use broker::Broker;
pub use message::{Body, Message};

/// An error as Queues answers a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueError {
    code: u32,
}

impl From<u32> for QueueError {
    fn from(code: u32) -> Self {
        Self { code }
    }
}

/// How the consumer of a queue is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSettings {
    /// Messages in one delivery.
    pub max_batch_size: usize,
    /// Deliveries after the first, before a message is given up.
    pub max_retries: u16,
    /// Where messages go that are given up; without one they are lost.
    pub dead_letter_queue: Option<String>,
    /// Seconds before a retry that names no delay.
    pub retry_delay: u64,
}

impl Default for QueueSettings {
    /// Cloudflare's defaults.
    fn default() -> Self {
        Self { max_batch_size: 10, max_retries: 3, dead_letter_queue: None, retry_delay: 0 }
    }
}

/// All queues of the pair. Clones share them.
#[derive(Debug, Clone)]
pub struct Queue {
    server: Server,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    broker: Mutex<Broker>,
    faults: Faults<QueueError>,
    clock: Clock,
}

impl Queue {
    /// Starts a broker with these consumers.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(clock: &Clock, settings: impl IntoIterator<Item = (String, QueueSettings)>) -> Result<Self> {
        let broker = Broker::new(settings);
        let shared =
            Arc::new(Shared { broker: Mutex::new(broker), faults: Faults::default(), clock: clock.clone() });
        let served = Arc::clone(&shared);
        Ok(Self { server: Server::start(move |request| served.answer(&request))?, shared })
    }

    /// What binds the queue of this name to a Worker.
    pub fn binding(&self, queue: &str) -> Binding {
        Binding::Queue(self.server.address, queue.to_owned())
    }

    /// The queues that have a consumer.
    pub fn names(&self) -> Vec<String> {
        self.shared.broker().settings.keys().cloned().collect()
    }

    /// How the queue's consumer is set up.
    pub fn settings(&self, queue: &str) -> QueueSettings {
        self.shared.broker().settings.get(queue).cloned().unwrap_or_default()
    }

    /// Changes how a queue's consumer is set up.
    pub fn configure(&self, queue: &str, settings: QueueSettings) {
        self.shared.broker().settings.insert(queue.to_owned(), settings);
    }

    /// Sends a message past the producer, for example one that cannot be read.
    pub fn send(&self, queue: &str, body: Body) {
        let now = self.shared.clock.now();
        self.shared.broker().store(queue, body, now);
    }

    /// Everything that a queue holds, also what is delayed or being delivered.
    pub fn messages(&self, queue: &str) -> Vec<Message> {
        self.shared.broker().messages(queue)
    }

    /// Messages that were given up without a dead-letter queue.
    pub fn dropped(&self) -> Vec<Message> {
        self.shared.broker().dropped.clone()
    }

    /// Starts a delivery of up to `max` messages that are due: each counts an attempt, and nobody else gets them
    /// until [`Queue::settle`]. Bring them to the consumer with [`crate::Dispatcher::deliver`].
    pub fn take(&self, queue: &str, max: usize) -> Vec<Message> {
        self.shared.broker().take(queue, max, self.shared.clock.now())
    }

    /// Ends a delivery by what the consumer decided.
    pub fn settle(&self, queue: &str, batch: &[Message], delivered: &Delivered) {
        self.shared.broker().settle(queue, batch, delivered, self.shared.clock.now());
    }

    /// How long until a message is due, without those that are being delivered; `None` when there is none.
    pub fn idle_for(&self) -> Option<Duration> {
        self.shared.broker().next_due().map(|due| due.saturating_sub(self.shared.clock.now()))
    }

    /// Spares the first `spare` sends, then the next `times` suffer `fault`: a call is one send, whatever it carries,
    /// and a send that is half done has stored every other message.
    pub fn fail_sends(&self, spare: usize, times: usize, fault: Fault<QueueError>) {
        self.shared.faults.plan(&[], spare, times, fault);
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.server.is_busy()
    }

    pub(crate) fn met(&self) -> Met {
        self.shared.faults.met()
    }

    /// Forgets the faults that were planned and have not struck.
    pub fn heal(&self) {
        self.shared.faults.clear();
    }
}

impl Shared {
    fn broker(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
