//! What a deletion's record says of itself.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use futures::executor::block_on;
use ledger::{DeletionRecord, NewDeletion, NewPart, ProducerLedger, SqlLedger, SqliteDatabase};
use protocol::{DeletionId, Fence, Labels, RequestId, Timestamp};

const NOW: Timestamp = Timestamp::from_millis(1_763_930_000_000);

/// Writes down a deletion whose undo window is so long, whole or to be put in parts.
fn admit(ledger: &impl ProducerLedger, is_whole: bool, window_ms: u64) -> DeletionRecord {
    let id = DeletionId::new(NOW, window_ms.into());
    let part = NewPart {
        upload: RequestId::new(NOW, 1),
        chunk_keys: vec![3],
        duplicates_removed: 0,
        sending_until: NOW,
    };
    let deletion = NewDeletion {
        id: id.clone(),
        requested_by: "backend".to_owned(),
        requested_at: NOW,
        not_before: NOW.plus_millis(window_ms),
        fence: Fence::Auto,
        part: is_whole.then_some(part),
        idempotency: None,
        sweep: None,
        verify: false,
        planned_keys: None,
        labels: Labels::default(),
    };
    assert!(block_on(ledger.admit_deletion(&deletion)).unwrap());
    find(ledger, &id)
}

fn find(ledger: &impl ProducerLedger, id: &DeletionId) -> DeletionRecord {
    block_on(ledger.find_deletion(id, NOW)).unwrap().unwrap()
}

#[test]
fn a_deletion_takes_parts_until_it_is_cancelled_and_none_when_it_came_whole() {
    let ledger = SqlLedger::new(SqliteDatabase::in_memory().unwrap());
    assert!(!admit(&ledger, true, 0).takes_parts());
    let in_parts = admit(&ledger, false, 1);
    assert!(in_parts.takes_parts());
    assert!(block_on(ledger.cancel_deletion(&in_parts.id, NOW)).unwrap());
    assert!(!find(&ledger, &in_parts.id).takes_parts());
}

#[test]
fn the_fence_that_is_sent_looks_at_everything_where_there_was_an_undo_window() {
    let ledger = SqlLedger::new(SqliteDatabase::in_memory().unwrap());
    assert_eq!(admit(&ledger, true, 0).sent_fence(), Fence::Auto);
    assert_eq!(admit(&ledger, true, 5_000).sent_fence(), Fence::Always);
}
