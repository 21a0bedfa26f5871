use ledger::{FailureFilter, KeyCursor, LedgerError, ProducerLedger};
use protocol::DeletionId;
use serde::Serialize;

use crate::view::{FailureView, SkipView};

/// A list of those keys of a deletion that were not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyList {
    /// Those that ended undeleted.
    Failures,
    /// Those that the fence has kept.
    Skipped,
}

/// One key of a list.
pub(crate) struct Entry {
    /// The key and what is said about it, as JSON: an element of a page and a line of NDJSON alike.
    pub(crate) json: String,
    /// Its place in the list.
    pub(crate) cursor: KeyCursor,
}

impl KeyList {
    /// The list's name, in the path and in the answer.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Skipped => "skipped",
        }
    }

    /// The operation that streams it, in the log.
    pub(crate) fn streaming(self) -> &'static str {
        match self {
            Self::Failures => "stream failures",
            Self::Skipped => "stream skipped",
        }
    }

    /// At most `limit` entries that come after `after`.
    pub(crate) async fn read(
        self,
        deletion: &DeletionId,
        after: Option<KeyCursor>,
        limit: usize,
        ledger: &impl ProducerLedger,
    ) -> Result<Vec<Entry>, LedgerError> {
        match self {
            Self::Failures => {
                let found = ledger.list_failures(deletion, FailureFilter::default(), after, limit).await?;
                found.iter().map(|record| entry(FailureView::new(record), record.cursor)).collect()
            }
            Self::Skipped => {
                let found = ledger.list_skips(deletion, after, limit).await?;
                found.iter().map(|record| entry(SkipView::new(record), record.cursor)).collect()
            }
        }
    }
}

/// Fails where there is no view: leaving the key out would make the list look whole.
fn entry(view: Option<impl Serialize>, cursor: KeyCursor) -> Result<Entry, LedgerError> {
    let json = view.and_then(|view| serde_json::to_string(&view).ok());
    json.map(|json| Entry { json, cursor })
        .ok_or_else(|| LedgerError { cause: "a listed key has no JSON".to_owned() })
}
