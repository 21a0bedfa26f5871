//! What the producer says when the Queue refuses or half-stores: never 202, and when to come back.

#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use anyhow::Result;
use crash::{Counts, D1Error, Fault, Pair, QUEUE, QueueError, Reply, When};

/// A problem of RFC 9457 with this status, that says when to come back.
fn assert_refused(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.headers["content-type"], "application/problem+json", "{reply:?}");
    assert_eq!(reply.body["retryable"], true, "{reply:?}");
    let seconds: u32 =
        reply.headers.get("retry-after").and_then(|text| text.parse().ok()).unwrap_or_default();
    assert!(seconds > 0, "no Retry-After: {reply:?}");
}

#[test]
fn a_queue_that_refuses_is_told_with_the_time_to_come_back() -> Result<()> {
    let pair = Pair::start()?;
    for (code, status) in [(10250, 429), (10251, 503), (10252, 503), (10253, 503), (15000, 503)] {
        pair.queue.fail_sends(0, 1, Fault::refused(code));
        assert_refused(&pair.post_deletion(&["a"])?, status);
        assert_eq!(pair.queue.messages(QUEUE), [], "{code}");
    }
    pair.queue.fail_sends(0, 1, Fault::dropped(When::Before));
    assert_refused(&pair.post_deletion(&["a"])?, 503);
    pair.accept(&["a"])?;
    Ok(())
}

#[test]
fn a_send_that_was_stored_in_part_is_not_accepted() -> Result<()> {
    let pair = Pair::start()?;
    let keys: Vec<_> = (0..3_000).map(|at| format!("part/{at}")).collect();
    pair.bucket.upload(keys.clone());
    pair.bucket.upload(["bystander"]);
    for fault in
        [Fault::half_done(15000), Fault::done_but_refused(15000), Fault::<QueueError>::dropped(When::After)]
    {
        pair.queue.fail_sends(0, 1, fault);
        assert_refused(&pair.post_deletion(&keys)?, 503);
        assert!(!pair.queue.messages(QUEUE).is_empty());
        // What was stored is harmless: its keys were asked for.
        pair.settle()?;
    }
    for id in pair.deletions()? {
        let state = pair.progress(&id)?.0;
        assert!(
            matches!(state.as_str(), "cancelled" | "succeeded"),
            "a refused deletion is {state} for ever"
        );
    }
    let id = pair.accept(&keys)?;
    pair.settle()?;
    assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(3_000)));
    assert_eq!(pair.bucket.keys(), ["bystander"]);
    Ok(())
}

#[test]
fn a_ledger_that_is_down_is_told_and_sends_nothing() -> Result<()> {
    let pair = Pair::start()?;
    for fault in [Fault::refused(D1Error::reset()), Fault::dropped(When::Before)] {
        pair.database.fail("producer", "INSERT INTO deletions", 0, usize::MAX, fault);
        assert_refused(&pair.post_deletion(&["a"])?, 503);
        assert_eq!(pair.queue.messages(QUEUE), []);
        pair.database.heal();
    }
    Ok(())
}
