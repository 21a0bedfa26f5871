use std::cell::Cell;

use protocol::limits::DELETE_KEYS_MAX;

/// How many keys a delete call takes at the moment, for all chunks of one invocation.
///
/// Large deletes have failed on R2 with 10001: each such failure halves the size, and eight successes in a row double it
/// again. A new invocation starts at the full size.
#[derive(Debug)]
pub(crate) struct CallSize {
    keys: Cell<usize>,
    successes: Cell<u32>,
}

/// Successes in a row after which calls grow again.
const GROW_AFTER: u32 = 8;

impl CallSize {
    pub(crate) fn full() -> Self {
        Self { keys: Cell::new(DELETE_KEYS_MAX), successes: Cell::new(0) }
    }

    pub(crate) fn keys(&self) -> usize {
        self.keys.get()
    }

    pub(crate) fn succeeded(&self) {
        self.successes.set(self.successes.get() + 1);
        if self.successes.get() >= GROW_AFTER {
            self.successes.set(0);
            self.keys.set((self.keys.get() * 2).min(DELETE_KEYS_MAX));
        }
    }

    /// A call of `keys` was too large.
    pub(crate) fn halve(&self, keys: usize) {
        self.successes.set(0);
        self.keys.set(self.keys.get().min(keys / 2).max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_halved_by_failures_and_grow_back_after_eight_successes() {
        let size = CallSize::full();
        size.halve(1_000);
        // A second chunk fails with the size it had begun with: that is no news.
        size.halve(1_000);
        assert_eq!(size.keys(), 500);
        size.halve(500);
        for _ in 0..7 {
            size.succeeded();
        }
        assert_eq!(size.keys(), 250);
        size.succeeded();
        assert_eq!(size.keys(), 500);
        for _ in 0..80 {
            size.succeeded();
        }
        assert_eq!(size.keys(), DELETE_KEYS_MAX);
        size.halve(1);
        assert_eq!(size.keys(), 1);
    }
}
