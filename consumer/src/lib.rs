//! The consumer: takes chunks from the Queue and deletes their keys from R2.
//!
//! # In scope
//!
//! Decoding messages one by one, claiming chunks, looking at objects where the fence does, deleting in bulk, finding
//! the keys that cannot be deleted, deciding what is tried again and when, recording, telling the operator's endpoint
//! of a deletion's end, and settling every message: [`handle()`] is all of that. And [`upkeep()`], which finishes what
//! was left half done and removes what is over.
//!
//! # Out of scope
//!
//! What the ledger's queries look like (`ledger`), what a message looks like (`protocol`), and the Workers runtime, which
//! only `shell.rs` knows, on wasm32.

mod allowance;
mod batch;
mod bucket;
mod call_size;
mod delete;
mod delivery;
mod handle;
mod host;
mod look;
mod notice;
mod queue;
mod settlement;
#[cfg(target_arch = "wasm32")]
mod shell;
mod sweep;
#[cfg(test)]
mod testing;
mod time_limit;
mod tries;
mod upkeep;
mod work;

pub use bucket::{Bucket, DeleteCall, Group, ListCall, Listing};
pub use delivery::{Body, Delivery};
pub use handle::{CLAIM_MS, handle};
pub use host::Host;
pub use notice::{Endpoint, NoticeConfig, Notices, POST_MS_MAX, Webhook};
pub use queue::Queue;
pub use settlement::{Settlement, Settlements};
pub use upkeep::upkeep;
