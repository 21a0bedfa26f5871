use std::cell::Cell;

use protocol::limits::{CONNECTIONS_MAX, SUBREQUESTS_MAX};

use crate::call_size::CallSize;

/// Most calls to R2 in one invocation. The rest is the ledger's and the notices': without the
/// ledger's nothing that was done could be recorded.
pub(crate) const R2_CALLS_MAX: usize = SUBREQUESTS_MAX - 50;

/// What the chunks of one invocation share: how large a delete is, the connections, and the calls to R2.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// How many keys a delete takes.
    pub(crate) size: CallSize,
    connections: usize,
    at_work: Cell<usize>,
    calls_left: Cell<usize>,
}

impl Allowance {
    /// The allowance of an invocation with so many chunks, and so many posts to the endpoint beside them: an endpoint that
    /// does not answer has its connection all the while, and a look that waits for one is an old look.
    pub(crate) fn of(chunks: usize, posts: usize) -> Self {
        Self {
            size: CallSize::full(),
            connections: CONNECTIONS_MAX.saturating_sub(posts),
            at_work: Cell::new(chunks),
            calls_left: Cell::new(R2_CALLS_MAX),
        }
    }

    /// How many calls a chunk may have waiting at once: one at least, and more as soon as other chunks are done.
    ///
    /// OK to ask only now and then: chunks become fewer, so that an older answer is never too large.
    pub(crate) fn connections(&self) -> usize {
        (self.connections / self.at_work.get().max(1)).max(1)
    }

    /// A chunk needs nothing any more.
    pub(crate) fn chunk_done(&self) {
        self.at_work.set(self.at_work.get().saturating_sub(1));
    }

    /// Takes the call for a delete, if there is one left.
    pub(crate) fn take_delete(&self) -> bool {
        self.take(0)
    }

    /// Takes the call for a head, if more are left than each chunk needs to delete what it has looked at.
    pub(crate) fn take_head(&self) -> bool {
        self.take(self.at_work.get())
    }

    fn take(&self, reserve: usize) -> bool {
        let left = self.calls_left.get();
        if left <= reserve {
            return false;
        }
        self.calls_left.set(left - 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_share_the_connections_and_take_over_those_of_chunks_that_are_done() {
        for (chunks, posts) in (0..20).flat_map(|chunks| (0..6).map(move |posts| (chunks, posts))) {
            let allowance = Allowance::of(chunks, posts);
            for at_work in (1..=chunks).rev() {
                let connections = allowance.connections();
                assert!(connections >= 1);
                assert!(connections == 1 || at_work * connections + posts <= CONNECTIONS_MAX);
                allowance.chunk_done();
            }
            assert_eq!(allowance.connections(), CONNECTIONS_MAX - posts);
        }
    }

    #[test]
    fn the_last_calls_are_for_deleting_what_was_looked_at() {
        let allowance = Allowance::of(2, 0);
        let heads = std::iter::repeat_with(|| allowance.take_head()).take_while(|&taken| taken).count();
        let deletes = std::iter::repeat_with(|| allowance.take_delete()).take_while(|&taken| taken).count();
        assert_eq!((heads, deletes), (R2_CALLS_MAX - 2, 2));
    }
}
