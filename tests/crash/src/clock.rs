//! The time that the services live by, which a test can move on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

type Listener = Box<dyn Fn(Duration) + Send>;

/// Real time plus what has been skipped.
///
/// The broker skips the delay of a message instead of waiting for it. Whoever else counts time must skip it too, or a
/// retry after two seconds would find the bucket's one-second limit still in force: see [`Clock::on_skip`]. The
/// Workers' own clock is the runtime's and cannot be moved.
#[derive(Clone)]
pub struct Clock {
    shared: Arc<Shared>,
}

struct Shared {
    started: Instant,
    skipped: Mutex<Duration>,
    listeners: Mutex<Vec<Listener>>,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                started: real_now(),
                skipped: Mutex::default(),
                listeners: Mutex::default(),
            }),
        }
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl Clock {
    /// Time since the clock was made, with what has been skipped.
    pub fn now(&self) -> Duration {
        self.shared.started.elapsed() + *self.shared.skipped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the clock on at once and tells those who asked.
    pub fn skip(&self, by: Duration) {
        *self.shared.skipped.lock().unwrap_or_else(PoisonError::into_inner) += by;
        for listener in self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            listener(by);
        }
    }

    /// Calls `listener` with every skipped time, for example to move the expiry of claims in the ledger.
    pub fn on_skip(&self, listener: impl Fn(Duration) + Send + 'static) {
        self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }
}

/// The machine's steady clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the harness waits for processes, and for no longer than it says"
)]
pub(crate) fn real_now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970 by the machine's own clock, which is also the Workers'.
#[expect(clippy::disallowed_methods, reason = "objects are uploaded and messages sent at a time of day")]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
