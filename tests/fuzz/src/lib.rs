//! Everything that reads bytes from outside, held to readers that are slow and simple.
//!
//! Each [`Target`] takes any bytes and panics when something is not as it should be. `cargo test -p fuzz` replays the
//! corpus, and what a generator makes of it; `cargo run --release -p fuzz` has libFuzzer look for more, led by
//! coverage.
//!
//! # In scope
//!
//! Bodies, targets and headers of requests, tokens, page tokens, keys against scopes, the Queue's messages and what the
//! consumer does with them, the texts of the platform's errors, settings, packing, waits.
//!
//! # Out of scope
//!
//! What the platform reads before we do: HTTP itself. What `shell.rs` hands over, on wasm32.

mod bucket;
mod calls;
mod corpus;
mod deliveries;
mod json;
mod service;
mod targets;
mod texts;

pub use corpus::{escape, read as read_corpus, unescape, write as write_corpus};

/// Something that reads bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// A JSON body of `POST /v1/deletions`.
    Body,
    /// An NDJSON body of it, and its query.
    Lines,
    /// A message of the Queue.
    Message,
    /// The target of a `GET`.
    Target,
    /// `Authorization`.
    Authorization,
    /// A key, and what may be deleted.
    Scope,
    /// Keys, packed.
    Chunks,
    /// Attempts and errors, waited for.
    Delays,
    /// The settings of a deployment.
    Settings,
    /// A part: its number, its query, its body.
    Part,
    /// A body of a seal.
    Seal,
    /// A body of `POST /v1/redrives`, and of a deletion's redrive.
    Redrives,
    /// A body of `POST /`, which waits.
    Wait,
    /// The headers of a `POST`, and `Accept`.
    Headers,
    /// A batch of messages for the consumer.
    Delivery,
    /// The text of an error of R2's or of the Queue's.
    Errors,
    /// Where notices go, and how they are signed.
    Notices,
}

impl Target {
    /// Every target there is.
    pub const ALL: [Self; 17] = [
        Self::Body,
        Self::Lines,
        Self::Message,
        Self::Target,
        Self::Authorization,
        Self::Scope,
        Self::Chunks,
        Self::Delays,
        Self::Settings,
        Self::Part,
        Self::Seal,
        Self::Redrives,
        Self::Wait,
        Self::Headers,
        Self::Delivery,
        Self::Errors,
        Self::Notices,
    ];

    /// Its name, on the command line and of its corpus.
    pub fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Lines => "lines",
            Self::Message => "message",
            Self::Target => "target",
            Self::Authorization => "authorization",
            Self::Scope => "scope",
            Self::Chunks => "chunks",
            Self::Delays => "delays",
            Self::Settings => "settings",
            Self::Part => "part",
            Self::Seal => "seal",
            Self::Redrives => "redrives",
            Self::Wait => "wait",
            Self::Headers => "headers",
            Self::Delivery => "delivery",
            Self::Errors => "errors",
            Self::Notices => "notices",
        }
    }

    /// The target that [`Target::name`] names so.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// Most bytes that are tried.
    pub fn bytes_max(self) -> usize {
        match self {
            Self::Chunks => 30,
            Self::Delays => 12,
            Self::Authorization => 200,
            _ => 1_500,
        }
    }

    /// Has these bytes read.
    ///
    /// # Panics
    ///
    /// When something about that is not as it should be.
    pub fn check(self, input: &[u8]) {
        match self {
            Self::Body => targets::body(input),
            Self::Lines => targets::lines(input),
            Self::Message => targets::message(input),
            Self::Target => targets::target(input),
            Self::Authorization => targets::authorization(input),
            Self::Scope => targets::scope(input),
            Self::Chunks => targets::chunks(input),
            Self::Delays => targets::delays(input),
            Self::Settings => targets::settings(input),
            Self::Part => calls::part(input),
            Self::Seal => calls::seal(input),
            Self::Redrives => calls::redrives(input),
            Self::Wait => calls::wait(input),
            Self::Headers => calls::headers(input),
            Self::Delivery => deliveries::delivery(input),
            Self::Errors => texts::errors(input),
            Self::Notices => texts::notices(input),
        }
    }
}
