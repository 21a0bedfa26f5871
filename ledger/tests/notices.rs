//! Notices: owed once for each end of a deletion, in the transaction that ends it, until they are delivered or given up.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use futures::executor::block_on;
use ledger::{
    ChunkOutcome, ClaimBatch, ClaimReply, ClaimRequest, ConsumerLedger, FailedKey, FailureFilter,
    NewDeletion, NewPart, NewRedrive, NoticeOutcome, NoticeReply, NoticeStats, ProducerLedger, RecordBatch,
    SqlLedger, SqliteDatabase, UpkeepLedger,
};
use protocol::{ChunkRef, DeletionId, FailureCode, Fence, NoticeRef, RequestId, State, Timestamp};

const LEASE_MS: u64 = 60_000;

type Ledger = SqlLedger<SqliteDatabase>;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_763_930_000_000 + millis)
}

fn id(number: u128) -> DeletionId {
    DeletionId::new(at(0), number)
}

fn notice(number: u128, generation: u32) -> NoticeRef {
    NoticeRef { deletion: id(number), generation }
}

/// A ledger with deletions of these numbers, of one key each.
fn ledger(numbers: &[u128]) -> Ledger {
    let ledger = SqlLedger::new(SqliteDatabase::in_memory().unwrap());
    for &number in numbers {
        let deletion = NewDeletion {
            id: id(number),
            requested_by: format!("backend {number}"),
            requested_at: at(0),
            not_before: at(0),
            fence: Fence::Auto,
            part: Some(part(number)),
            sweep: None,
            verify: false,
            planned_keys: None,
            idempotency: None,
            labels: protocol::Labels::default(),
        };
        assert!(block_on(ledger.admit_deletion(&deletion)).unwrap());
    }
    ledger
}

fn part(request: u128) -> NewPart {
    let upload = RequestId::new(at(0), request);
    NewPart { upload, chunk_keys: vec![1], duplicates_removed: 0, sending_until: at(LEASE_MS) }
}

fn claim(ledger: &Ledger, number: u128, generation: u32, now: u64) -> ClaimReply {
    let chunk = ChunkRef { deletion: id(number), generation, chunk: 0 };
    let requests = vec![ClaimRequest { chunk, keys: 1 }];
    let batch = ClaimBatch { token: "a".to_owned(), now: at(now), until: at(now + LEASE_MS), requests };
    block_on(ledger.claim(&batch)).unwrap().remove(0)
}

/// Ends a chunk that is claimed, with its one key deleted or failed.
fn record(ledger: &Ledger, claimed: ClaimReply, now: u64, fails: bool, owe_notices: bool) {
    let ClaimReply::Granted(grant) = claimed else { panic!("not granted: {claimed:?}") };
    let failed =
        FailedKey { position: 0, key_json: "\"k\"".to_owned(), code: FailureCode::ObjectLocked, error: None };
    let outcome = if fails {
        ChunkOutcome::new(grant, [], vec![failed], None, 1)
    } else {
        ChunkOutcome::new(grant, [0], Vec::new(), None, 1)
    };
    let batch = RecordBatch {
        token: "a".to_owned(),
        now: at(now),
        outcomes: vec![outcome],
        unreadable: Vec::new(),
        owe_notices,
    };
    block_on(ledger.record(&batch)).unwrap();
}

fn finish(ledger: &Ledger, number: u128, now: u64) {
    record(ledger, claim(ledger, number, 0, now), now, false, true);
}

fn find(ledger: &Ledger, notice: &NoticeRef, now: u64) -> NoticeReply {
    block_on(ledger.find_notice(notice, at(now))).unwrap()
}

fn note(ledger: &Ledger, notice: &NoticeRef, outcome: NoticeOutcome) {
    block_on(ledger.record_notice(notice, outcome)).unwrap();
}

fn stats(ledger: &Ledger, requested_by: Option<&str>) -> (u64, u64) {
    let NoticeStats { owed, failed } = block_on(ledger.stats(requested_by, at(0))).unwrap().notices;
    (owed, failed)
}

fn attempts(reply: NoticeReply) -> u32 {
    match reply {
        NoticeReply::Due(due) => due.attempts,
        other => panic!("not due: {other:?}"),
    }
}

fn is_done_with(reply: &NoticeReply) -> bool {
    matches!(reply, NoticeReply::NothingToDo(_))
}

#[test]
fn a_notice_is_owed_from_the_end_of_a_deletion_until_it_is_delivered() {
    let ledger = ledger(&[1, 2]);
    assert!(is_done_with(&find(&ledger, &notice(1, 0), 5)), "owed before the end");
    finish(&ledger, 1, 10);
    let NoticeReply::Due(due) = find(&ledger, &notice(1, 0), 10) else { panic!("not due") };
    assert_eq!((due.attempts, due.deletion.state), (0, State::Succeeded));
    assert_eq!((stats(&ledger, None), stats(&ledger, Some("backend 2"))), ((1, 0), (0, 0)));
    note(&ledger, &notice(1, 0), NoticeOutcome::Done);
    assert!(is_done_with(&find(&ledger, &notice(1, 0), 20)));
    assert_eq!(stats(&ledger, None), (0, 0));
}

#[test]
fn nothing_is_written_when_nobody_wants_notices() {
    let ledger = ledger(&[1]);
    record(&ledger, claim(&ledger, 1, 0, 10), 10, false, false);
    assert_eq!(block_on(ledger.find_deletion(&id(1), at(10))).unwrap().unwrap().state, State::Succeeded);
    assert_eq!(stats(&ledger, None), (0, 0));
}

#[test]
fn a_cancelled_deletion_owes_its_notice_when_nothing_of_it_is_in_flight_any_more() {
    let ledger = ledger(&[1, 2]);
    let in_flight = claim(&ledger, 1, 0, 0);
    for number in [1, 2] {
        assert!(block_on(ledger.cancel_deletion(&id(number), at(10))).unwrap());
        assert!(!block_on(ledger.cancel_deletion(&id(number), at(11))).unwrap(), "cancelled twice");
    }
    assert_eq!(attempts(find(&ledger, &notice(2, 0), 10)), 0);
    assert!(matches!(find(&ledger, &notice(1, 0), 10), NoticeReply::NotFinal));
    // What was in flight is the last of it: the deletion ends a second time, as succeeded, and owes no second notice.
    record(&ledger, in_flight, 20, false, true);
    let NoticeReply::Due(due) = find(&ledger, &notice(1, 0), 20) else { panic!("not due") };
    assert_eq!(due.deletion.state, State::Succeeded);
    assert_eq!(stats(&ledger, None), (2, 0));
    // Or it died, and its claim ends.
    let ledger = self::ledger(&[1]);
    claim(&ledger, 1, 0, 0);
    block_on(ledger.cancel_deletion(&id(1), at(10))).unwrap();
    assert!(matches!(find(&ledger, &notice(1, 0), LEASE_MS - 1), NoticeReply::NotFinal));
    assert_eq!(attempts(find(&ledger, &notice(1, 0), LEASE_MS)), 0);
}

#[test]
fn what_upkeep_cancels_is_told_too() {
    let ledger = ledger(&[1]);
    let day = 86_400_000;
    assert_eq!(block_on(ledger.cancel_abandoned(at(day / 2), at(day))).unwrap(), 1);
    let NoticeReply::Due(due) = find(&ledger, &notice(1, 0), day) else { panic!("not due") };
    assert_eq!(due.deletion.state, State::Cancelled);
}

#[test]
fn a_failed_attempt_is_not_due_before_its_time_and_counts_once() {
    let ledger = ledger(&[1]);
    finish(&ledger, 1, 0);
    let retry = NoticeOutcome::Retry { attempts: 1, due_at: at(300_000) };
    note(&ledger, &notice(1, 0), retry);
    assert!(is_done_with(&find(&ledger, &notice(1, 0), 290_000)), "due too early");
    // A message that comes a moment too early, by another machine's clock, is in time.
    assert_eq!(attempts(find(&ledger, &notice(1, 0), 299_000)), 1);
    // Two messages at once have tried it a second time each.
    note(&ledger, &notice(1, 0), NoticeOutcome::Retry { attempts: 2, due_at: at(900_000) });
    note(&ledger, &notice(1, 0), NoticeOutcome::Retry { attempts: 2, due_at: at(800_000) });
    assert_eq!(attempts(find(&ledger, &notice(1, 0), 900_000)), 2);
    // One that is late with its news changes nothing.
    note(&ledger, &notice(1, 0), retry);
    assert_eq!(attempts(find(&ledger, &notice(1, 0), 900_000)), 2);
}

#[test]
fn a_notice_that_is_given_up_is_kept_and_counted_until_the_deletion_is_forgotten() {
    let ledger = ledger(&[1]);
    finish(&ledger, 1, 0);
    note(&ledger, &notice(1, 0), NoticeOutcome::Failed { attempts: 12, failed_at: at(100) });
    assert!(is_done_with(&find(&ledger, &notice(1, 0), 100)));
    assert_eq!(block_on(ledger.wake_notices(at(LEASE_MS), at(LEASE_MS), 10)).unwrap(), []);
    assert_eq!(stats(&ledger, None), (0, 1));
    assert_eq!(block_on(ledger.remove_expired(at(1), at(1), 10)).unwrap(), 1);
    assert_eq!(stats(&ledger, None), (0, 0));
}

#[test]
fn overdue_notices_are_woken_longest_overdue_first_and_then_left_alone_for_a_while() {
    let ledger = ledger(&[1, 2, 3, 4]);
    for (number, now) in [(3, 10), (1, 20), (2, 30), (4, 500)] {
        finish(&ledger, number, now);
    }
    let wake = |before, now, limit| block_on(ledger.wake_notices(at(before), at(now), limit)).unwrap();
    assert_eq!(wake(9, 500, 10), []);
    // A statement's rows come in no order; which they are is what counts.
    let mut first = wake(400, 500, 2);
    first.sort();
    assert_eq!(first, [notice(1, 0), notice(3, 0)]);
    assert_eq!(wake(400, 500, 2), [notice(2, 0)]);
    assert_eq!(wake(400, 500, 2), []);
    assert_eq!(wake(500, 900, 10).len(), 4);
}

#[test]
fn a_deletion_that_is_redriven_is_told_once_more_at_its_next_end_and_no_more_of_the_one_before() {
    let ledger = ledger(&[1]);
    record(&ledger, claim(&ledger, 1, 0, 10), 10, true, true);
    assert_eq!(attempts(find(&ledger, &notice(1, 0), 10)), 0);
    let last = block_on(ledger.list_failures(&id(1), FailureFilter::default(), None, 1)).unwrap()[0].cursor;
    let redrive =
        NewRedrive { deletion: id(1), generation: 1, filter: FailureFilter::default(), last, part: part(8) };
    assert!(block_on(ledger.admit_redrive(&redrive)).unwrap());
    assert_eq!(stats(&ledger, None), (0, 0));
    assert!(is_done_with(&find(&ledger, &notice(1, 0), 20)));
    assert!(is_done_with(&find(&ledger, &notice(1, 1), 20)));
    record(&ledger, claim(&ledger, 1, 1, 30), 30, false, true);
    assert_eq!(attempts(find(&ledger, &notice(1, 1), 30)), 0);
    assert!(is_done_with(&find(&ledger, &notice(1, 0), 30)));
    assert_eq!(stats(&ledger, None), (1, 0));
}
