use std::mem;

use ledger::{LedgerError, OUTBOX_PIECE_BYTES_MAX, ProducerLedger};
use protocol::{ChunkRef, Event, ObjectKey, Packed, Packer, Timestamp};

use crate::host::Host;

/// Fills the outbox of a deletion that is not written down yet, key by key, and holds no more of it than one row.
#[derive(Debug)]
pub(crate) struct OutboxWriter<'a, L> {
    ledger: &'a L,
    first_chunk: ChunkRef,
    packer: Packer,
    /// The messages of the row that is open.
    bodies: Vec<String>,
    bytes: usize,
    /// How many rows are written, or may be.
    pieces: usize,
    /// How many keys each chunk has, those of the open row too.
    chunk_keys: Vec<usize>,
}

/// What an outbox has been filled with.
#[derive(Debug)]
pub(crate) struct FilledOutbox {
    /// How many rows it has.
    pub(crate) pieces: usize,
    /// The messages of the last row: they need not be read back to be sent.
    pub(crate) last: Vec<String>,
    /// How many keys each chunk has.
    pub(crate) chunk_keys: Vec<usize>,
}

impl<'a, L: ProducerLedger> OutboxWriter<'a, L> {
    /// Of the messages from this chunk on.
    pub(crate) fn new(first_chunk: ChunkRef, requested_at: Timestamp, ledger: &'a L) -> Self {
        let packer = Packer::new(first_chunk.clone(), requested_at);
        let (bodies, chunk_keys) = (Vec::new(), Vec::new());
        Self { ledger, first_chunk, packer, bodies, bytes: 0, pieces: 0, chunk_keys }
    }

    /// Takes in a key, which MUST NOT have been there before. Whenever a row is full: *await* writes it.
    pub(crate) async fn push(&mut self, key: &ObjectKey<'_>) -> Result<(), LedgerError> {
        match self.packer.push(key) {
            Some(message) => self.add(message).await,
            None => Ok(()),
        }
    }

    /// *await* Writes what is left.
    pub(crate) async fn finish(&mut self) -> Result<FilledOutbox, LedgerError> {
        if let Some(last) = self.packer.finish() {
            self.add(last).await?;
        }
        let last = self.write().await?;
        Ok(FilledOutbox { pieces: self.pieces, last, chunk_keys: mem::take(&mut self.chunk_keys) })
    }

    /// *await* Removes what was written, because the deletion will not be. What fails, upkeep does in a day.
    ///
    /// MUST NOT be called when writing the deletion down failed, because that may yet be carried out.
    pub(crate) async fn discard(self, host: &impl Host) {
        if self.pieces == 0 {
            return;
        }
        if let Err(error) = self.ledger.discard_outbox(&self.first_chunk.deletion).await {
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
        // OK because a request has not a thousand chunks.
        let before = u32::try_from(self.chunk_keys.len() - bodies.len()).unwrap_or(u32::MAX);
        self.bytes = 0;
        self.pieces += 1;
        let ChunkRef { deletion, chunk, .. } = &self.first_chunk;
        self.ledger.fill_outbox(deletion, piece, chunk + before, &bodies).await?;
        Ok(bodies)
    }
}
