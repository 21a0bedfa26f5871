//! Every limit of the platform that this project meets, each written once, with its source.
//!
//! `docs:` names a page of developers.cloudflare.com as it stood in November 2026.

/// Longest object key, in UTF-8 bytes. docs: r2/platform/limits; R2 answers 10020 beyond it.
pub const KEY_BYTES_MAX: usize = 1_024;

/// Most keys that one bucket delete takes; R2 answers 10027 outside 1 to this.
/// docs: r2/api/workers/workers-api-reference. The local simulator does not check it.
pub const DELETE_KEYS_MAX: usize = 1_000;

/// Largest queue message, in bytes, with the metadata that counts toward it. docs: queues/platform/limits (1 KB = 1000 B).
pub const MESSAGE_BYTES_MAX: usize = 128_000;

/// What the platform may add to a message's own bytes: "up to 100 bytes", docs: queues/platform/limits.
pub const MESSAGE_METADATA_BYTES: usize = 100;

/// Largest body that we put into a message.
pub const MESSAGE_BODY_BYTES_MAX: usize = MESSAGE_BYTES_MAX - MESSAGE_METADATA_BYTES;

/// Most messages in one `sendBatch`. docs: queues/platform/limits.
pub const SEND_MESSAGES_MAX: usize = 100;

/// Most bytes in one `sendBatch`, metadata included. docs: queues/platform/limits.
pub const SEND_BYTES_MAX: usize = 256_000;

/// Connections that one invocation may have waiting at once; further ones queue inside the runtime.
/// docs: workers/platform/limits, "Simultaneous open connections".
pub const CONNECTIONS_MAX: usize = 6;

/// Most calls to R2, D1 and the Queue that one invocation may make on the plan that allows fewest, the free one; the paid one
/// allows 10,000 and more. docs: workers/platform/limits, "Subrequests". Each further call fails, the ledger's too.
pub const SUBREQUESTS_MAX: usize = 1_000;

/// Longest delay of a message, in seconds. The newest pages say 24 hours, older ones 12: we stay under both.
pub const DELAY_SECONDS_MAX: u32 = 43_200;

/// Longest undo window of a deletion, in seconds: the longest delay that a message can be sent with. docs:
/// queues/platform/limits, in its newest form; a queue that takes only 12 hours refuses a longer one, and the request with it.
pub const UNDO_SECONDS_MAX: u32 = 86_400;

/// How long R2 wants between two writes to one key, in milliseconds: one write a second, else 10058.
/// docs: r2/platform/limits. A tenth is added for the clocks' disagreement.
pub const SAME_KEY_SPACING_MS: u64 = 1_100;

/// Longest time that the platform lets one consumer invocation run, in seconds. docs: queues/platform/limits.
pub const CONSUMER_WALL_SECONDS: u32 = 900;

/// The shortest retention that a queue can have by its plan, in seconds: 24 hours on the free plan, fixed.
/// docs: queues/platform/pricing. Paid queues keep 4 days by default and at most 14.
pub const RETENTION_SECONDS_MIN: u32 = 86_400;

/// Most keys in one request. Ours: what an isolate of 128 MB handles with room for requests beside it.
pub const REQUEST_KEYS_MAX: usize = 100_000;

/// Most prefixes in one request, those that its project stands for among them. Ours: each is listed on its own, and they are
/// compared with each other.
pub const PREFIXES_MAX: usize = 100;

/// Largest request body, in bytes. Ours, for the same reason.
pub const REQUEST_BYTES_MAX: usize = 16_000_000;

/// Most chunks in one part of a deletion: the chunks of part `p` are numbered from `p` times this. Ours; a redrive takes as many
/// failures as fit.
pub const PART_CHUNKS_MAX: u32 = 1_000;

/// Most parts that a deletion can be put in, numbered from 1: a hundred million keys. Ours: what D1's 10 GB hold of their
/// messages until the deletion is over.
pub const PARTS_MAX: u32 = 1_000;

/// Most objects that one `list` of a bucket answers with. docs: r2/api/workers/workers-api-reference.
pub const LIST_OBJECTS_MAX: usize = 1_000;

/// Most ranges that the sweeps of one deletion are divided into, to be swept side by side: as many as the platform runs
/// invocations of a consumer at once. docs: queues/configuration/consumer-concurrency.
pub const SWEEP_RANGES_MAX: usize = 250;

/// The period that the producer's rate limit counts over, in seconds: 10 or 60.
/// docs: workers/runtime-apis/bindings/rate-limit. A test holds `wrangler.producer.toml` to it.
pub const RATE_LIMIT_PERIOD_SECONDS: u32 = 60;

// One key always fits into one message: JSON grows a byte to at most 6 (`\u00XX`), and 1,000 bytes hold the rest.
const _: () = assert!(KEY_BYTES_MAX * 6 + 1_000 < MESSAGE_BODY_BYTES_MAX);
// One request always fits into one part: a message is closed when it has no room for the longest key.
const _: () = assert!(
    REQUEST_KEYS_MAX / DELETE_KEYS_MAX
        + REQUEST_BYTES_MAX / (MESSAGE_BODY_BYTES_MAX - KEY_BYTES_MAX * 6 - 1_000)
        < PART_CHUNKS_MAX as usize
);
// One message always fits into one send.
const _: () = assert!(MESSAGE_BYTES_MAX <= SEND_BYTES_MAX);
