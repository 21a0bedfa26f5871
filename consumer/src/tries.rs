use ledger::LedgerError;
use protocol::Timestamp;

use crate::host::Host;

/// How often a write of what was done is tried, and how long between two tries, in milliseconds.
pub(crate) const RECORD_TRIES: u64 = 3;
pub(crate) const RECORD_PAUSE_MS: u64 = 1_000;

/// Tries a write until the ledger takes it, each time with the time that it is then. OK for what may be written twice only.
pub(crate) async fn in_tries<T>(
    host: &impl Host,
    mut write: impl AsyncFnMut(Timestamp) -> Result<T, LedgerError>,
) -> Result<T, LedgerError> {
    for _ in 1..RECORD_TRIES {
        if let Ok(answer) = write(host.now()).await {
            return Ok(answer);
        }
        host.sleep(RECORD_PAUSE_MS).await;
    }
    write(host.now()).await
}
