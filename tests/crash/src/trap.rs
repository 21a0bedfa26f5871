//! Traps of the shipped wasm, in the middle of its work.
//!
//! No line of the Workers is there for it. The harness puts a main module of its own before the shipped script
//! (`trap/trap.js`), which knows the wasm instance that the script makes and stands between it and the platform's methods. At a
//! chosen call it does one of two things, beneath the frames of the wasm that calls:
//! - It asks the wasm's own allocator for more than there can be. Rust aborts, by the instruction `unreachable` that a panic
//!   ends in too, and the trap unwinds through the wasm.
//! - It has the platform refuse a timer, which the crate `worker` takes for impossible: a real panic, with its hook.

use serde_json::{Value, json};

/// One trap, which happens once in the life of a process.
#[derive(Debug, Clone)]
pub struct Trap {
    worker: &'static str,
    method: &'static str,
    after: Option<&'static str>,
    spare: usize,
}

impl Trap {
    /// At the first call of `method` by `worker`: `delete`, `head`, `list` of the bucket, `batch` of the ledger, `sendBatch` of
    /// the queue, `ack`, `retry` of a message, and `setTimeout`, where it is a panic.
    pub fn at(worker: &'static str, method: &'static str) -> Self {
        Self { worker, method, after: None, spare: 0 }
    }

    /// Not before `method` has been called.
    #[must_use]
    pub fn after(self, method: &'static str) -> Self {
        Self { after: Some(method), ..self }
    }

    /// Not at the first `spare` calls.
    #[must_use]
    pub fn sparing(self, spare: usize) -> Self {
        Self { spare, ..self }
    }

    pub(crate) fn is_of(&self, worker: &str) -> bool {
        self.worker == worker
    }

    pub(crate) fn encode(&self) -> Value {
        json!({"method": self.method, "after": self.after, "spare": self.spare})
    }
}

/// What the harness's module prints when it has one happen.
pub(crate) const TRAPPED: &str = "trap: ";
