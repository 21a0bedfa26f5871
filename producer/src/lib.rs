//! The producer: takes deletion requests by HTTP and puts their keys on the Queue.
//!
//! # In scope
//!
//! Authorisation, validation, packing, enqueueing, and reading the ledger for whoever asks. [`answer()`] is all of it.
//!
//! # Out of scope
//!
//! Deleting: the producer has no binding to a bucket. What the ledger's queries look like (`ledger`), what a message looks
//! like (`protocol`), and the Workers runtime, which only `shell.rs` knows, on wasm32.

mod accept;
mod auth;
mod body;
mod health;
mod host;
mod http;
mod labels;
mod list;
mod ndjson;
mod page;
mod problem;
mod queue;
mod read;
mod router;
#[cfg(target_arch = "wasm32")]
mod shell;
mod stats;
mod view;

pub use auth::Tokens;
pub use host::Host;
pub use http::{Body, BodyError, Request, Response, ResponseBody};
pub use ndjson::FailurePages;
pub use queue::Queue;
pub use router::{Ports, answer};
