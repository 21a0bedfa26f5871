//! Runs the shipped Workers on bare `workerd` between services that fail on demand.
//!
//! Everything that the two Workers talk to is ours and lives in the test's own process: the bucket, the ledger's
//! database, the queue and the endpoint that notices go to. So a test decides what each of them answers and when, which message is delivered how
//! often, and it can kill the runtime at any point between an effect and its answer.
//!
//! # In scope
//! - The wire protocols that `workerd` speaks behind its R2, D1 and Queue bindings, with production's limits.
//! - The documented semantics of Queues: at least once, attempts, delays, dead letters.
//!
//! # Out of scope
//! - What production does beyond its documentation, and its speed.
//! - Durability of the services themselves: they live as long as the test.

mod api;
mod bucket;
mod canary;
mod clock;
mod config;
mod database;
mod delivery;
mod endpoint;
mod faults;
mod gate;
mod http;
mod pair;
mod process;
mod queue;
mod settle;
mod trap;
mod wait;
mod workerd;
mod wrangler;

pub use api::{Counts, Reply};
pub use bucket::{Bucket, BucketCall, Locked, Neighbours, R2Error};
pub use canary::Canary;
pub use clock::Clock;
pub use config::{Binding, Config, WorkerConfig};
pub use database::{D1Error, Database};
pub use delivery::{Decision, Delivered, Dispatcher};
pub use endpoint::{Endpoint, NOTICE_SECRETS, NOTICE_URL_CANARY, Notice};
pub use faults::{Fault, How, Met, When};
pub use gate::Gate;
pub use pair::{DEAD_LETTERS, Pair, QUEUE, Setup};
pub use queue::{Body, Message, Queue, QueueError, QueueSettings};
pub use trap::Trap;
pub use wait::until;
pub use workerd::Workerd;
pub use wrangler::Wrangler;
