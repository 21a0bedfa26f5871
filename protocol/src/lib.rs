//! What the producer and the consumer agree on, and no runtime is needed for.
//!
//! # In scope
//!
//! The limits of the platform, object keys, the message on the Queue and how keys are packed into it, the classes of
//! R2's and the Queue's errors, the retry policy, the schedule of completion notices, the fence, the ranges of sweeps, the states
//! and counts of a deletion, and the events of the log.
//!
//! # Out of scope
//!
//! Anything that does I/O, reads a clock or draws a random number: those are arguments here.

mod counts;
mod digest;
mod event;
mod failure;
mod fence;
mod id;
mod json;
mod key;
mod labels;
pub mod limits;
mod message;
mod notice;
mod pack;
mod positions;
mod queue_error;
mod r2_error;
mod retry;
mod sweep;
mod time;
mod trailing_code;
mod ulid;

pub use counts::{Counts, Progress, RETENTION_FAILED_MS, RETENTION_MS, State};
pub use digest::{InvalidKeyDigest, KeyDigest};
pub use event::{Event, Log, NoticeAttempt, Severity};
pub use failure::FailureCode;
pub use fence::{Fence, InvalidFence};
pub use id::{DeletionId, InvalidDeletionId, RequestId};
pub use json::{keys_array, plain_text};
pub use key::{InvalidKey, ObjectKey};
pub use labels::Labels;
pub use message::{ChunkMessage, ChunkRef, UnreadableReason};
pub use notice::{NoticeRef, QueueMessage, notice_delay_seconds};
pub use pack::{Packed, Packer, group_into_sends, pack_keys};
pub use positions::{InvalidPositions, Positions};
pub use queue_error::{QueueError, QueueErrorClass};
pub use r2_error::{R2Error, R2ErrorClass};
pub use retry::{MESSAGE_LIFE_SECONDS_MAX, RETRIES_MAX, RetryCause, retry_delay_seconds};
pub use sweep::{SWEEP_CHUNKS_FROM, SweepPhase, SweepRange, SweepRef};
pub use time::{Timestamp, rfc3339};

/// How the name of a dead-letter queue ends; the consumer tells its two queues apart by it.
///
/// A test holds `wrangler.consumer.toml` to it.
pub const DEAD_LETTER_QUEUE_SUFFIX: &str = "-dlq";
