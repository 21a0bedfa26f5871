use std::sync::atomic::{AtomicUsize, Ordering};

use crate::host::Host;
use crate::problem::{Problem, ProblemCode};

/// What the requests of an isolate may hold in memory at once: an isolate that takes more than 128 MB is killed, with every
/// request in it.
///
/// Memory that wasm has taken is never given back, so it is the peak that counts, and what would be over it has to wait
/// outside. Nothing wakes who waits: a promise of another request must not be waited for on Workers, so each looks again.
#[derive(Debug)]
pub struct MemoryBudget {
    free: AtomicUsize,
}

/// How long a request waits for room, in milliseconds: longer than most requests take, and short enough for the caller, who
/// is told to come back.
const WAIT_MS_MAX: u64 = 10_000;
const PAUSE_MS_MIN: u64 = 25;
const PAUSE_MS_MAX: u64 = 400;

impl MemoryBudget {
    /// A budget of so many bytes.
    pub const fn new(bytes: usize) -> Self {
        Self { free: AtomicUsize::new(bytes) }
    }

    /// *await* Takes `bytes` of it, or 503 when there is no room for too long.
    pub(crate) async fn reserve(&self, bytes: usize, host: &impl Host) -> Result<Reservation<'_>, Problem> {
        let (mut waited_ms, mut pause_ms) = (0, PAUSE_MS_MIN);
        while !self.take(bytes) {
            if waited_ms >= WAIT_MS_MAX {
                let detail = "Too many large requests are being read at the moment. Send the request again.";
                return Err(Problem::new(ProblemCode::Overloaded, detail).with_header("Retry-After", "2"));
            }
            host.sleep(pause_ms).await;
            waited_ms += pause_ms;
            pause_ms = PAUSE_MS_MAX.min(pause_ms * 2);
        }
        Ok(Reservation { budget: self, bytes })
    }

    fn take(&self, bytes: usize) -> bool {
        self.free.try_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.free.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A part of a budget, which is given back when this is dropped, whatever became of the request.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    budget: &'a MemoryBudget,
    bytes: usize,
}

impl Reservation<'_> {
    /// Keeps no more than `bytes` of it.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let kept = self.bytes.min(bytes);
        self.budget.give_back(self.bytes - kept);
        self.bytes = kept;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}
