//! Time, for a tool that measures, and that polls what it cannot be told.
#![expect(clippy::disallowed_methods, reason = "a tool runs on a real machine and reports real time")]

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

/// How often something is looked at that is waited for.
const POLL: Duration = Duration::from_millis(50);

/// Measures from when it was started.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts one.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since then.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Lets a while pass, as an answer has asked for.
pub(crate) fn wait(how_long: Duration) {
    thread::sleep(how_long);
}

/// Lets a moment pass.
pub fn pause() {
    thread::sleep(POLL);
}

/// Looks until `found` finds something. `None` says that it has not after `patience`.
///
/// # Errors
/// Those of `found`, at once.
pub fn wait_for<T>(patience: Duration, found: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    poll_for(POLL, patience, found)
}

/// The same, looking every `poll`.
///
/// # Errors
/// Those of `found`, at once.
pub(crate) fn poll_for<T>(
    poll: Duration,
    patience: Duration,
    mut found: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let watch = Stopwatch::start();
    loop {
        if let Some(found) = found()? {
            return Ok(Some(found));
        }
        if watch.elapsed() > patience {
            return Ok(None);
        }
        thread::sleep(poll);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_appears_is_returned() {
        let mut looks = 0;
        let found = wait_for(Duration::from_mins(1), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), Some(3));
    }

    #[test]
    fn what_does_not_appear_is_given_up() {
        assert_eq!(wait_for::<()>(Duration::ZERO, || Ok(None)).unwrap(), None);
    }

    #[test]
    fn an_error_ends_the_wait() {
        assert!(wait_for::<()>(Duration::from_mins(1), || anyhow::bail!("no")).is_err());
    }
}
