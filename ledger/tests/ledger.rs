//! The ledger's promises, on the SQL that both Workers run, against a real SQLite.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use futures::executor::block_on;
use ledger::{
    ChunkOutcome, ClaimBatch, ClaimReply, ClaimRequest, ConsumerLedger, FailedKey, Grant, Idempotency,
    NewDeletion, ProducerLedger, RecordBatch, RecordReply, Sending, SqlLedger, SqliteDatabase,
    UnreadableMessage,
};
use proptest::prelude::*;
use protocol::{
    ChunkRef, Counts, DeletionId, FailureCode, Packed, Positions, R2Error, State, Timestamp, UnreadableReason,
};

const REQUESTED_AT: u64 = 1_763_930_000_000;
const LEASE_MS: u64 = 1_000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(REQUESTED_AT + millis)
}

fn id() -> DeletionId {
    DeletionId::new(at(0), 7)
}

fn chunk(number: u32) -> ChunkRef {
    ChunkRef { deletion: id(), generation: 0, chunk: number }
}

/// A ledger with one deletion of these chunks.
fn ledger(chunk_keys: &[usize]) -> SqlLedger<SqliteDatabase> {
    let ledger = SqlLedger::new(SqliteDatabase::in_memory().unwrap());
    let deletion = NewDeletion {
        id: id(),
        requested_by: "backend".to_owned(),
        requested_at: at(0),
        not_before: at(0),
        sending_until: at(LEASE_MS),
        duplicates_removed: 0,
        messages: messages(chunk_keys),
        idempotency: None,
        labels: protocol::Labels::default(),
    };
    assert!(block_on(ledger.admit_deletion(&deletion)).unwrap());
    ledger
}

fn messages(chunk_keys: &[usize]) -> Vec<Packed> {
    chunk_keys.iter().enumerate().map(|(n, &keys)| Packed { body: format!("message {n}"), keys }).collect()
}

fn claim(ledger: &impl ConsumerLedger, token: &str, now: u64, chunk: &ChunkRef, keys: usize) -> ClaimReply {
    let requests = vec![ClaimRequest { chunk: chunk.clone(), keys }];
    let batch = ClaimBatch { token: token.to_owned(), now: at(now), until: at(now + LEASE_MS), requests };
    block_on(ledger.claim(&batch)).unwrap().remove(0)
}

fn granted(reply: ClaimReply) -> Grant {
    match reply {
        ClaimReply::Granted(grant) => grant,
        other => panic!("not granted: {other:?}"),
    }
}

fn record(ledger: &impl ConsumerLedger, token: &str, now: u64, outcomes: Vec<ChunkOutcome>) -> RecordReply {
    let batch = RecordBatch { token: token.to_owned(), now: at(now), outcomes, unreadable: Vec::new() };
    block_on(ledger.record(&batch)).unwrap()
}

fn locked(position: usize) -> FailedKey {
    FailedKey {
        position,
        key_json: format!("\"k{position}\""),
        code: FailureCode::ObjectLocked,
        error: Some(R2Error::ObjectLocked),
    }
}

fn counts(ledger: &impl ProducerLedger, now: u64) -> (Counts, State) {
    let found = block_on(ledger.find_deletion(&id(), at(now))).unwrap().unwrap();
    (found.counts, found.state)
}

#[test]
fn a_deletion_walks_from_queued_to_its_end_and_is_told_finished_once() {
    let ledger = ledger(&[2, 1]);
    assert_eq!(counts(&ledger, 0), (Counts { total: 3, pending: 3, ..Counts::default() }, State::Queued));

    let first = granted(claim(&ledger, "a", 10, &chunk(0), 2));
    assert_eq!(first.undecided, Positions::all(2));
    assert_eq!(counts(&ledger, 10).1, State::Running);
    let reply = record(&ledger, "a", 20, vec![ChunkOutcome::new(first, [0, 1], vec![], None, 1)]);
    assert!(reply.outcomes[0].is_some() && reply.finished.is_empty());

    let second = granted(claim(&ledger, "b", 30, &chunk(1), 1));
    let reply = record(&ledger, "b", 40, vec![ChunkOutcome::new(second, [], vec![locked(0)], None, 1)]);
    assert!(reply.outcomes[0].is_some());
    assert_eq!(reply.finished.len(), 1);
    assert_eq!((reply.finished[0].deleted, reply.finished[0].failed), (2, 1));

    let found = block_on(ledger.find_deletion(&id(), at(50))).unwrap().unwrap();
    assert_eq!(found.state, State::Failed);
    assert_eq!((found.started_at, found.finished_at), (Some(at(10)), Some(at(40))));
    assert_eq!(found.errors.len(), 1);
    assert_eq!(
        (found.errors[0].code, found.errors[0].r2_code),
        (Some(FailureCode::ObjectLocked), Some(10069))
    );
    let failures = block_on(ledger.list_failures(&id(), None, 10)).unwrap();
    assert_eq!((failures[0].key_json.as_str(), failures[0].attempts), ("\"k0\"", 1));
}

#[test]
fn a_chunk_in_other_hands_is_not_granted_until_the_claim_has_ended() {
    let ledger = ledger(&[1]);
    granted(claim(&ledger, "a", 0, &chunk(0), 1));
    match claim(&ledger, "b", LEASE_MS - 1, &chunk(0), 1) {
        ClaimReply::ClaimedElsewhere { until } => assert_eq!(until, at(LEASE_MS)),
        other => panic!("{other:?}"),
    }
    granted(claim(&ledger, "b", LEASE_MS, &chunk(0), 1));
}

#[test]
fn a_record_after_the_claim_was_lost_changes_nothing_and_settles_nothing() {
    let ledger = ledger(&[2]);
    let slow = granted(claim(&ledger, "slow", 0, &chunk(0), 2));
    let quick = granted(claim(&ledger, "quick", LEASE_MS, &chunk(0), 2));

    let late = ChunkOutcome::new(slow, [0], vec![locked(1)], None, 1);
    assert!(record(&ledger, "slow", LEASE_MS + 1, vec![late.clone()]).outcomes[0].is_none());
    assert_eq!(counts(&ledger, LEASE_MS + 1).0.pending, 2);
    assert!(block_on(ledger.list_failures(&id(), None, 10)).unwrap().is_empty());

    assert!(
        record(&ledger, "quick", LEASE_MS + 2, vec![ChunkOutcome::new(quick, [0, 1], vec![], None, 1)])
            .outcomes[0]
            .is_some()
    );
    assert!(record(&ledger, "slow", LEASE_MS + 3, vec![late]).outcomes[0].is_none());
    assert_eq!(
        counts(&ledger, LEASE_MS + 3),
        (Counts { total: 2, deleted: 2, ..Counts::default() }, State::Succeeded)
    );
}

#[test]
fn an_expired_claim_cannot_record_even_when_nobody_took_the_chunk() {
    let ledger = ledger(&[1]);
    let grant = granted(claim(&ledger, "a", 0, &chunk(0), 1));
    assert!(
        record(&ledger, "a", LEASE_MS, vec![ChunkOutcome::new(grant, [0], vec![], None, 1)]).outcomes[0]
            .is_none()
    );
    assert_eq!(counts(&ledger, LEASE_MS).0.pending, 1);
}

#[test]
fn recording_twice_counts_once() {
    let ledger = ledger(&[3]);
    let grant = granted(claim(&ledger, "a", 0, &chunk(0), 3));
    let outcome = ChunkOutcome::new(grant, [0, 2], vec![locked(1)], None, 1);
    assert!(record(&ledger, "a", 1, vec![outcome.clone()]).outcomes[0].is_some());
    let again = record(&ledger, "a", 2, vec![outcome]);
    assert!(again.outcomes[0].is_none() && again.finished.is_empty());
    let expected = Counts { total: 3, deleted: 2, failed: 1, ..Counts::default() };
    assert_eq!(counts(&ledger, 3), (expected, State::Failed));
    assert!(matches!(claim(&ledger, "b", 3, &chunk(0), 3), ClaimReply::NothingToDo(_)));
}

#[test]
fn what_one_attempt_has_decided_is_not_given_to_the_next() {
    let ledger = ledger(&[5]);
    let first = granted(claim(&ledger, "a", 0, &chunk(0), 5));
    let outcome = ChunkOutcome::new(first, [0, 1], vec![locked(3)], Some(R2Error::Internal), 1);
    assert!(record(&ledger, "a", 1, vec![outcome]).outcomes[0].is_none());
    assert_eq!(
        counts(&ledger, 1).0,
        Counts { total: 5, pending: 2, deleted: 2, failed: 1, ..Counts::default() }
    );

    let second = granted(claim(&ledger, "b", 2, &chunk(0), 5));
    assert_eq!(second.undecided, [2, 4].into_iter().collect());
    assert_eq!(second.last_error, Some(R2Error::Internal));
    assert!(
        record(&ledger, "b", 3, vec![ChunkOutcome::new(second, [2, 4], vec![], None, 2)]).outcomes[0]
            .is_some()
    );
    assert_eq!(counts(&ledger, 3).0, Counts { total: 5, deleted: 4, failed: 1, ..Counts::default() });
}

#[test]
fn a_chunk_that_was_not_accepted_is_never_granted() {
    let ledger = ledger(&[2, 1]);
    let foreign = ChunkRef { deletion: DeletionId::new(at(0), 8), ..chunk(0) };
    let later = ChunkRef { generation: 1, ..chunk(0) };
    for (chunk, keys, reason) in [
        (foreign, 2, UnreadableReason::UnknownDeletion),
        (chunk(2), 1, UnreadableReason::NotInDeletion),
        (chunk(0), 1, UnreadableReason::NotInDeletion),
        (chunk(1), 2, UnreadableReason::NotInDeletion),
        (later, 2, UnreadableReason::NotInDeletion),
    ] {
        match claim(&ledger, "a", 0, &chunk, keys) {
            ClaimReply::NotAccepted(said) => assert_eq!(said, reason, "{chunk:?}"),
            other => panic!("{chunk:?}: {other:?}"),
        }
    }
    assert_eq!(counts(&ledger, 0).1, State::Queued);
}

#[test]
fn a_batch_of_requests_is_answered_in_order() {
    let ledger = ledger(&[1; 12]);
    granted(claim(&ledger, "other", 0, &chunk(3), 1));
    let requests = (0..13).rev().map(|number| ClaimRequest { chunk: chunk(number), keys: 1 }).collect();
    let batch = ClaimBatch { token: "a".to_owned(), now: at(1), until: at(LEASE_MS), requests };
    for (reply, number) in block_on(ledger.claim(&batch)).unwrap().into_iter().zip((0..13).rev()) {
        match reply {
            ClaimReply::Granted(grant) => assert_eq!(grant.chunk, chunk(number)),
            ClaimReply::ClaimedElsewhere { .. } => assert_eq!(number, 3),
            ClaimReply::NotAccepted(_) => assert_eq!(number, 12),
            ClaimReply::NothingToDo(_) => panic!("{number}"),
        }
    }
}

#[test]
fn cancelling_lets_what_is_in_flight_finish_and_cancels_the_rest() {
    let ledger = ledger(&[2, 2, 2]);
    let in_flight = granted(claim(&ledger, "a", 0, &chunk(0), 2));
    block_on(ledger.cancel_deletion(&id(), at(1))).unwrap();
    assert_eq!(counts(&ledger, 2), (Counts { total: 6, pending: 6, ..Counts::default() }, State::Cancelling));
    assert!(matches!(claim(&ledger, "b", 2, &chunk(1), 2), ClaimReply::NothingToDo(_)));

    assert!(
        record(&ledger, "a", 3, vec![ChunkOutcome::new(in_flight, [0, 1], vec![], None, 1)]).outcomes[0]
            .is_some()
    );
    let expected = Counts { total: 6, deleted: 2, cancelled: 4, ..Counts::default() };
    assert_eq!(counts(&ledger, 4), (expected, State::Cancelled));
    let found = block_on(ledger.find_deletion(&id(), at(4))).unwrap().unwrap();
    assert_eq!(found.finished_at, Some(at(3)));
}

#[test]
fn a_claim_that_died_does_not_keep_a_cancelled_deletion_open() {
    let ledger = ledger(&[2]);
    let died = granted(claim(&ledger, "a", 0, &chunk(0), 2));
    block_on(ledger.cancel_deletion(&id(), at(1))).unwrap();
    assert_eq!(
        counts(&ledger, LEASE_MS),
        (Counts { total: 2, cancelled: 2, ..Counts::default() }, State::Cancelled)
    );
    assert!(
        record(&ledger, "a", LEASE_MS, vec![ChunkOutcome::new(died, [0, 1], vec![], None, 1)]).outcomes[0]
            .is_none()
    );
    assert_eq!(counts(&ledger, LEASE_MS + 1).1, State::Cancelled);
}

#[test]
fn a_message_that_cannot_be_read_is_kept_once_with_every_byte() {
    let ledger = ledger(&[1]);
    let body = "{\"half\": \"a \u{0}mess \u{1F600}".to_owned();
    let message = UnreadableMessage {
        message_id: "m1".to_owned(),
        queue: "r2-deletions".to_owned(),
        reason: UnreadableReason::NotJson,
        body: body.clone(),
        attempts: 1,
    };
    for now in [1, 2] {
        let batch = RecordBatch {
            token: "a".to_owned(),
            now: at(now),
            outcomes: Vec::new(),
            unreadable: vec![message.clone()],
        };
        assert_eq!(block_on(ledger.record(&batch)).unwrap().unreadable.len(), 1);
    }
    let kept = block_on(ledger.list_unreadable(None, 10)).unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(
        (kept[0].body.as_str(), kept[0].reason.as_str(), kept[0].received_at),
        (body.as_str(), "not_json", at(1))
    );
    assert!(block_on(ledger.list_unreadable(Some("m1"), 10)).unwrap().is_empty());
}

#[test]
fn failures_are_listed_in_pages_and_keep_every_byte_of_a_key() {
    let ledger = ledger(&[1_000]);
    let grant = granted(claim(&ledger, "a", 0, &chunk(0), 1_000));
    let key =
        |position: usize| serde_json::to_string(&format!("{position}\0\"\\\u{7f} 😀 __proto__")).unwrap();
    let failed =
        (0..1_000).map(|position| FailedKey { key_json: key(position), ..locked(position) }).collect();
    record(&ledger, "a", 1, vec![ChunkOutcome::new(grant, [], failed, None, 1)]);

    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = block_on(ledger.list_failures(&id(), after, 300)).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.cursor);
        listed.extend(page.into_iter().map(|failure| failure.key_json));
    }
    assert_eq!(listed, (0..1_000).map(key).collect::<Vec<_>>());
}

#[test]
fn of_two_deletions_with_one_idempotency_key_only_the_first_leaves_anything() {
    let ledger = SqlLedger::new(SqliteDatabase::in_memory().unwrap());
    let [first, second] = [1, 2].map(|random| NewDeletion {
        id: DeletionId::new(at(0), random),
        requested_by: "backend".to_owned(),
        requested_at: at(0),
        not_before: at(0),
        sending_until: at(LEASE_MS),
        duplicates_removed: 0,
        messages: messages(&[2, 1]),
        labels: protocol::Labels::default(),
        idempotency: Some(Idempotency { key: "k".to_owned(), fingerprint: "body".to_owned() }),
    });
    assert!(block_on(ledger.admit_deletion(&first)).unwrap());
    assert!(!block_on(ledger.admit_deletion(&second)).unwrap());
    assert!(block_on(ledger.find_deletion(&second.id, at(1))).unwrap().is_none());
    assert_eq!(block_on(ledger.read_outbox(&second.id, 0, None)).unwrap(), None);
    let sent = block_on(ledger.read_outbox(&first.id, 0, None)).unwrap().unwrap();
    assert_eq!(sent, ["message 0", "message 1"]);
    let earlier = block_on(ledger.find_idempotency_key("backend", "k")).unwrap().unwrap();
    assert_eq!((earlier.deletion, earlier.sending), (first.id, Sending::Held { until: at(LEASE_MS) }));
}

#[test]
fn a_large_outbox_is_read_back_piece_by_piece_and_by_chunk() {
    let ledger = SqlLedger::new(SqliteDatabase::in_memory().unwrap());
    let bodies: Vec<String> = (0..30).map(|n| format!("{n}{}", "m".repeat(120_000))).collect();
    let deletion = NewDeletion {
        id: id(),
        requested_by: "backend".to_owned(),
        requested_at: at(0),
        not_before: at(0),
        sending_until: at(0),
        duplicates_removed: 0,
        messages: bodies.iter().map(|body| Packed { body: body.clone(), keys: 1 }).collect(),
        labels: protocol::Labels::default(),
        idempotency: None,
    };
    assert!(block_on(ledger.admit_deletion(&deletion)).unwrap());
    let read = |wanted: Option<&[u32]>| -> Vec<String> {
        let piece = |piece| block_on(ledger.read_outbox(&id(), piece, wanted)).unwrap();
        (0..).map_while(piece).inspect(|piece| assert!(piece.len() <= 8)).flatten().collect()
    };
    assert_eq!(read(None), bodies);
    let wanted = [0, 8, 29];
    assert_eq!(read(Some(&wanted)), [&bodies[0], &bodies[8], &bodies[29]].map(Clone::clone));
}

/// One thing that may happen to a deletion of three chunks, in any order, any number of times.
#[derive(Clone, Debug)]
enum Step {
    Claim { by: usize, chunk: u32 },
    Record { by: usize, deleted: Vec<usize>, failed: Vec<usize> },
    RecordAgain { by: usize },
    Wait,
    Cancel,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let positions = || prop::collection::vec(0_usize..6, 0..5);
    let step = prop_oneof![
        4 => (0_usize..3, 0_u32..3).prop_map(|(by, chunk)| Step::Claim { by, chunk }),
        4 => (0_usize..3, positions(), positions()).prop_map(|(by, deleted, failed)| Step::Record { by, deleted, failed }),
        1 => (0_usize..3).prop_map(|by| Step::RecordAgain { by }),
        1 => Just(Step::Wait),
        1 => Just(Step::Cancel),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the order of claims, records, repeats, expiries and a cancellation: the counts add up after every step,
    /// what is deleted or failed never becomes less, a final deletion never changes, and no chunk has two holders.
    #[test]
    fn counts_add_up_and_never_go_back_whatever_happens(steps in steps()) {
        const CHUNK_KEYS: [usize; 3] = [5, 1, 3];
        let ledger = ledger(&CHUNK_KEYS);
        let mut now = 0;
        // Three invocations at a time, each claim with a token of its own.
        let mut held: [Option<(Grant, u64, String)>; 3] = [None, None, None];
        let mut last: [Option<(ChunkOutcome, String)>; 3] = [None, None, None];
        let (mut before, mut finished) = (counts(&ledger, now).0, 0);
        let mut final_counts = None;
        for step in steps {
            now += 1;
            match step {
                Step::Claim { by, chunk: number } => {
                    let token = format!("{by} at {now}");
                    let reply = claim(&ledger, &token, now, &chunk(number), CHUNK_KEYS[number as usize]);
                    if let ClaimReply::Granted(grant) = reply {
                        let in_other_hands = |(other, until, _): &&(Grant, u64, String)| {
                            other.chunk == grant.chunk && *until > now
                        };
                        prop_assert_eq!(held.iter().flatten().filter(in_other_hands).count(), 0);
                        held[by] = Some((grant, now + LEASE_MS, token));
                    }
                }
                Step::Record { by, deleted, failed } => {
                    if let Some((grant, _, token)) = held[by].take() {
                        let failed = failed.into_iter().map(locked).collect();
                        let outcome = ChunkOutcome::new(grant, deleted, failed, None, 1);
                        finished += record(&ledger, &token, now, vec![outcome.clone()]).finished.len();
                        last[by] = Some((outcome, token));
                    }
                }
                Step::RecordAgain { by } => {
                    if let Some((outcome, token)) = last[by].clone() {
                        finished += record(&ledger, &token, now, vec![outcome]).finished.len();
                    }
                }
                Step::Wait => now += LEASE_MS,
                Step::Cancel => block_on(ledger.cancel_deletion(&id(), at(now))).unwrap(),
            }
            let (after, state) = counts(&ledger, now);
            let Counts { total, pending, deleted, skipped, failed, cancelled } = after;
            prop_assert_eq!(total, pending + deleted + skipped + failed + cancelled);
            prop_assert_eq!(total, 9);
            prop_assert!(deleted >= before.deleted && failed >= before.failed);
            let listed = block_on(ledger.list_failures(&id(), None, 100)).unwrap().len();
            prop_assert_eq!(listed as u64, failed);
            if let Some(end) = final_counts {
                prop_assert_eq!(after, end);
            }
            if state.is_final() {
                final_counts = Some(after);
            }
            before = after;
        }
        prop_assert!(finished <= 1);
        if matches!(counts(&ledger, now).1, State::Succeeded | State::Failed) {
            prop_assert_eq!(finished, 1);
        }
    }
}
