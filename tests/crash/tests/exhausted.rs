//! What becomes of messages that no attempt could finish: their keys are failures, and the counts add up all the way.

use anyhow::Result;
use crash::{Counts, D1Error, DEAD_LETTERS, Fault, Pair, QUEUE};
use serde_json::json;

#[test]
fn keys_that_r2_never_deletes_end_as_failures_through_the_dead_letter_queue() -> Result<()> {
    let pair = Pair::start()?;
    pair.bucket.upload(["a", "b", "bystander"]);
    pair.bucket.fail_deletes(usize::MAX, Fault::refused(10043));
    let id = pair.accept(&["a", "b"])?;
    let retries = pair.queue.settings(QUEUE).max_retries;
    for attempt in 1..=retries + 1 {
        pair.clock.skip(pair.queue.idle_for().unwrap_or_default());
        let (batch, _) = pair.deliver_once(QUEUE)?;
        assert_eq!(batch[0].attempts, attempt);
        let (state, counts) = pair.progress(&id)?;
        assert_eq!(
            (state.as_str(), counts),
            ("running", Counts { total: 2, pending: 2, ..Counts::default() })
        );
    }
    assert_eq!((pair.queue.messages(QUEUE).len(), pair.queue.messages(DEAD_LETTERS).len()), (0, 1));
    pair.settle()?;

    assert_eq!(
        pair.progress(&id)?,
        ("failed".to_owned(), Counts { total: 2, failed: 2, ..Counts::default() })
    );
    let failures = pair.failures(&id)?;
    let keys: Vec<_> = failures.iter().map(|failure| failure["key"].as_str().unwrap_or_default()).collect();
    assert_eq!(keys, ["a", "b"], "{failures:?}");
    let errors = json!([{"code": "storage_unavailable", "r2_code": 10043, "count": 2}]);
    assert_eq!(pair.status(&id)?["errors"], errors);
    assert_eq!(pair.bucket.keys(), ["a", "b", "bystander"]);
    Ok(())
}

#[test]
fn a_dead_letter_waits_for_a_ledger_that_is_down() -> Result<()> {
    let pair = Pair::start()?;
    pair.bucket.upload(["a"]);
    pair.bucket.fail_deletes(usize::MAX, Fault::refused(10001));
    let id = pair.accept(&["a"])?;
    for _ in 0..=pair.queue.settings(QUEUE).max_retries {
        pair.clock.skip(pair.queue.idle_for().unwrap_or_default());
        pair.deliver_once(QUEUE)?;
    }
    pair.database.fail("consumer", "", 0, 5, Fault::refused(D1Error::reset()));
    let (batch, delivered) = pair.deliver_once(DEAD_LETTERS)?;
    assert!(delivered.decided(&batch[0].id));
    assert_eq!(pair.queue.messages(DEAD_LETTERS).len(), 1, "acknowledged before it was recorded");
    pair.settle()?;
    assert_eq!(
        pair.progress(&id)?,
        ("failed".to_owned(), Counts { total: 1, failed: 1, ..Counts::default() })
    );
    assert_eq!(pair.queue.dropped(), []);
    Ok(())
}

#[test]
fn what_was_deleted_before_the_retries_ended_counts_as_deleted() -> Result<()> {
    let pair = Pair::start()?;
    let keys: Vec<_> = (0..40).map(|at| format!("key {at:02}")).collect();
    pair.bucket.upload(keys.clone());
    // Every call of more than one key fails, and the single keys of the first two attempts succeed.
    pair.bucket.fail("delete", 1, usize::MAX, Fault::half_done(10001));
    let id = pair.accept(&keys)?;
    pair.settle()?;
    let (state, counts) = pair.progress(&id)?;
    assert_eq!((counts.pending, counts.deleted + counts.failed), (0, 40), "{state}");
    assert_eq!(pair.failures(&id)?.len() as u64, counts.failed);
    Ok(())
}
