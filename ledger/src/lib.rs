//! The ledger: what was asked for and what is recorded of it, in D1.
//!
//! # In scope
//!
//! The schema (`migrations/`) and every query of both Workers, written against a small [`Database`] so that the same SQL
//! runs on D1, and in tests on a SQLite of our own.
//!
//! # Out of scope
//!
//! Every decision: who may ask, what is deleted, what is tried again. The ledger answers and records.

mod admission;
#[cfg(target_arch = "wasm32")]
mod binding;
mod claim;
mod cursor;
#[cfg(target_arch = "wasm32")]
mod d1;
mod database;
mod deletion;
mod failure;
mod listing;
#[cfg(feature = "memory")]
mod memory;
mod notice;
mod outbox;
mod part;
mod record;
mod redrive;
mod row;
mod skip;
mod sql_ledger;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stats;
mod sweep;
mod unreadable;
mod upkeep;
mod view;

pub use admission::{EarlierRequest, Idempotency, NewDeletion, NewSweep, Sending};
#[cfg(target_arch = "wasm32")]
pub use binding::{Binding, long_text, object, settled};
pub use claim::{ClaimBatch, ClaimReply, ClaimRequest, Grant, Settled};
pub use cursor::KeyCursor;
#[cfg(target_arch = "wasm32")]
pub use d1::D1;
pub use database::{Database, LedgerError, Row, Statement, Value};
pub use deletion::{DeletionRecord, ErrorCount, Plan, Verification};
pub use failure::FailureRecord;
pub use listing::{DeletionFilter, DeletionPage};
#[cfg(feature = "memory")]
pub use memory::MemoryLedger;
pub use notice::{DueNotice, NoticeOutcome, NoticeReply};
pub use outbox::{OUTBOX_PIECE_BYTES_MAX, OutboxPiece};
pub use part::{Hold, NewPart, PartRecord, PartRef, Sealing};
pub use record::{ChunkOutcome, Ended, FailedKey, FinishedDeletion, RecordBatch, RecordReply, SkippedKey};
pub use redrive::{BegunRedrive, FailureFilter, NewRedrive, RedrivableDeletion};
pub use skip::SkipRecord;
pub use sql_ledger::{ConsumerLedger, ProducerLedger, SqlLedger, UpkeepLedger};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteDatabase;
pub use stats::{LedgerStats, NoticeStats, UnfinishedDeletion};
pub use sweep::{
    Cursor, ListedObject, Page, PageKey, SweepClaim, SweepGrant, SweepProgress, SweepReply, SweepState,
    SweepTally, SweepThen, SweepTurn, SweepTurnReply,
};
pub use unreadable::{UnreadableMessage, UnreadableRecord};
pub use upkeep::LostPart;
pub use view::{DeletionView, ErrorView, PlanView, VerificationView, code_text};
