//! A place where a call waits until the test lets it go on.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};

/// A place where calls wait: the test sees that one has arrived, does something, and opens it.
///
/// Clones share one state. A gate that is dropped by everyone but its waiters stays shut, so the service that waits
/// gives up by itself after [`Gate::LONGEST`].
#[derive(Debug, Clone, Default)]
pub struct Gate {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    arrived: usize,
    open: bool,
}

impl Gate {
    /// The longest time that a call waits, so that a failing test ends.
    pub const LONGEST: Duration = Duration::from_mins(2);

    /// A shut gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until `calls` calls have arrived, whether or not they were let go on since.
    ///
    /// # Errors
    /// When they have not arrived within `deadline`.
    pub fn arrived(&self, calls: usize, deadline: Duration) -> Result<()> {
        let (_, changed) = &*self.shared;
        let (state, _) = changed
            .wait_timeout_while(self.lock(), deadline, |state| state.arrived < calls)
            .unwrap_or_else(PoisonError::into_inner);
        ensure!(
            state.arrived >= calls,
            "{} of {calls} calls arrived at the gate within {deadline:?}",
            state.arrived
        );
        Ok(())
    }

    /// How many calls have arrived.
    pub fn arrivals(&self) -> usize {
        self.lock().arrived
    }

    /// Lets every waiting and every later call go on.
    pub fn open(&self) {
        self.lock().open = true;
        self.shared.1.notify_all();
    }

    /// Waits until the gate is opened, for the services.
    pub(crate) fn pass(&self) {
        self.lock().arrived += 1;
        let (_, changed) = &*self.shared;
        changed.notify_all();
        drop(
            changed
                .wait_timeout_while(self.lock(), Self::LONGEST, |state| !state.open)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
