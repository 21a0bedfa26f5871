//! The producer: takes deletion requests by HTTP and puts their keys on the Queue.
//!
//! # In scope
//!
//! Authorisation, validation, packing, enqueueing, and reading the ledger for whoever asks. [`answer()`] is all of it.
//!
//! # Out of scope
//!
//! Deleting: the producer has no binding to a bucket. Finishing what was left half done and removing what is over: the
//! consumer's upkeep does. What the ledger's queries look like (`ledger`), what a message looks like (`protocol`), and
//! the Workers runtime, which only `shell.rs` and `start.rs` know, on wasm32.

mod accept;
mod assets;
mod auth;
mod body;
mod config;
mod fields;
mod findings;
mod health;
mod hex;
mod host;
mod http;
mod idempotency;
mod intake;
mod keys;
mod labels;
mod lines;
mod list;
mod memory;
mod ndjson;
mod openapi;
mod options;
mod outbox;
mod page;
mod problem;
mod project;
mod put_part;
mod query;
mod queue;
mod rate_limit;
mod read;
mod receipt;
mod redrive;
mod router;
mod scope;
mod seal;
mod sending;
#[cfg(target_arch = "wasm32")]
mod shell;
mod spelling;
#[cfg(target_arch = "wasm32")]
mod start;
mod stats;
mod sweep;
mod view;
mod wait;
mod wire;

pub use assets::Assets;
pub use config::{Config, Settings};
pub use host::Host;
pub use http::{Body, BodyError, Request, Response, ResponseBody};
pub use memory::MemoryBudget;
pub use ndjson::KeyPages;
pub use queue::Queue;
pub use rate_limit::RateLimiter;
pub use router::{Ports, answer};
