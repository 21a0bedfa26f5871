use std::mem;

use ledger::{LedgerError, OUTBOX_PIECE_BYTES_MAX, OutboxPiece, PartRef, ProducerLedger};
use protocol::{ChunkRef, Event, Fence, ObjectKey, Packed, Packer, RequestId, Timestamp};

use scan::Plain;

use crate::host::Host;

/// Fills the outbox with a part that is not written down yet, key by key, and holds no more of it than one row.
pub(crate) struct OutboxWriter<'a, L> {
    ledger: &'a L,
    upload: &'a RequestId,
    part: &'a PartRef,
    packer: Packer,
    /// The fence is the deletion's, and no request's to say.
    is_fence_given: bool,
    /// The messages of the row that is open.
    bodies: Vec<String>,
    bytes: usize,
    /// How many rows are written, or may be.
    pieces: usize,
    /// How many keys each chunk has, those of the open row too.
    chunk_keys: Vec<usize>,
    /// The messages may be a deletion's.
    is_handed_over: bool,
}

/// What an outbox has been filled with.
pub(crate) struct FilledOutbox {
    /// How many rows it has.
    pub(crate) pieces: usize,
    /// The messages of the last row: they need not be read back to be sent.
    pub(crate) last: Vec<String>,
    /// How many keys each chunk has.
    pub(crate) chunk_keys: Vec<usize>,
}

impl<'a, L: ProducerLedger> OutboxWriter<'a, L> {
    /// Of a part that the request `upload` brings, whose keys are requested at `requested_at`; with this fence if the deletion is
    /// there already, else the request says it.
    pub(crate) fn new(
        upload: &'a RequestId,
        part: &'a PartRef,
        requested_at: Timestamp,
        fence: Option<Fence>,
        ledger: &'a L,
    ) -> Self {
        let PartRef { deletion, generation, .. } = part;
        let first_chunk =
            ChunkRef { deletion: deletion.clone(), generation: *generation, chunk: part.first_chunk() };
        Self {
            ledger,
            upload,
            part,
            packer: Packer::new(first_chunk, requested_at, fence.unwrap_or_default()),
            is_fence_given: fence.is_some(),
            bodies: Vec::new(),
            bytes: 0,
            pieces: 0,
            chunk_keys: Vec::new(),
            is_handed_over: false,
        }
    }

    /// Says which fence the request has, before the first key is taken in. A part's request has none: its keys are kept as those
    /// of the deletion are.
    pub(crate) fn set_fence(&mut self, fence: Fence) {
        if !self.is_fence_given {
            self.packer.set_fence(fence);
        }
    }

    /// Takes in a key, which MUST NOT have been there before. Whenever a row is full: *await* writes it.
    pub(crate) async fn push(&mut self, key: &ObjectKey<'_>) -> Result<(), LedgerError> {
        let full = self.packer.push(key);
        self.add_full(full).await
    }

    /// The same for a key that is known to need no escape.
    pub(crate) async fn push_plain(&mut self, key: Plain<'_>) -> Result<(), LedgerError> {
        let full = self.packer.push_plain(key);
        self.add_full(full).await
    }

    async fn add_full(&mut self, full: Option<Packed>) -> Result<(), LedgerError> {
        match full {
            Some(message) => self.add(message).await,
            None => Ok(()),
        }
    }

    /// Takes in messages that carry no keys, of a part that has none: those that begin its sweeps.
    pub(crate) fn push_messages(&mut self, bodies: impl IntoIterator<Item = String>) {
        self.bodies.extend(bodies);
    }

    /// Whether no key was taken in.
    pub(crate) fn has_no_keys(&self) -> bool {
        self.chunk_keys.is_empty() && self.packer.is_empty()
    }

    /// *await* Writes what is left.
    pub(crate) async fn finish(&mut self) -> Result<FilledOutbox, LedgerError> {
        if let Some(last) = self.packer.finish() {
            self.add(last).await?;
        }
        let last = self.write().await?;
        Ok(FilledOutbox { pieces: self.pieces, last, chunk_keys: mem::take(&mut self.chunk_keys) })
    }

    /// *await* Writes the part down whose messages these are. False when it was not: another request came first.
    pub(crate) async fn hand_over(
        &mut self,
        admission: impl Future<Output = Result<bool, LedgerError>>,
    ) -> Result<bool, LedgerError> {
        // Also when it fails, because then it may yet be carried out.
        self.is_handed_over = true;
        self.is_handed_over = admission.await?;
        Ok(self.is_handed_over)
    }

    /// *await* Removes what was written, unless it was handed over. What fails, upkeep does in a day.
    pub(crate) async fn discard_rest(self, host: &impl Host) {
        if self.pieces == 0 || self.is_handed_over {
            return;
        }
        if let Err(error) = self.ledger.discard_outbox(self.upload).await {
            host.emit(&Event::LedgerFailed { operation: "discard_outbox", cause: &error.cause });
        }
    }

    async fn add(&mut self, message: Packed) -> Result<(), LedgerError> {
        let bytes = message.body.len() + 1;
        if self.bytes + bytes > OUTBOX_PIECE_BYTES_MAX {
            self.write().await?;
        }
        self.bytes += bytes;
        self.chunk_keys.push(message.keys);
        self.bodies.push(message.body);
        Ok(())
    }

    /// Writes the open row, and hands out what is in it.
    async fn write(&mut self) -> Result<Vec<String>, LedgerError> {
        let (bodies, piece) = (mem::take(&mut self.bodies), self.pieces);
        // OK because a part has at most a thousand chunks.
        let before = u32::try_from(self.chunk_keys.len().saturating_sub(bodies.len())).unwrap_or(u32::MAX);
        self.bytes = 0;
        self.pieces += 1;
        let &mut Self { upload, part, .. } = self;
        let first_chunk = part.first_chunk() + before;
        self.ledger.fill_outbox(&OutboxPiece { upload, part, piece, first_chunk, messages: &bodies }).await?;
        Ok(bodies)
    }
}
