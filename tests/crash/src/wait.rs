//! Waiting for a condition, with a deadline, in place of sleeping and hoping.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::clock::real_now;

/// Asks `probe` until it answers with a value.
///
/// # Errors
/// When `probe` fails, or has answered `None` until the deadline; the error says `what` was waited for.
#[expect(
    clippy::disallowed_methods,
    reason = "the pause between two looks, not a guess how long something takes"
)]
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Deadline::after(limit);
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if deadline.passed() {
            bail!("waited {limit:?} in vain for {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A moment after which nobody waits any longer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Self {
        Self(real_now() + limit)
    }

    pub(crate) fn passed(self) -> bool {
        real_now() >= self.0
    }
}
