//! The ledger's promises, on the SQL that both Workers run, against a real SQLite.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::slice;

use futures::executor::block_on;
use ledger::{
    BegunRedrive, ChunkOutcome, ClaimBatch, ClaimReply, ClaimRequest, ConsumerLedger, Database, FailedKey,
    FailureFilter, Grant, Idempotency, LedgerError, LostPart, NewDeletion, NewPart, NewRedrive, NoticeReply,
    OutboxPiece, PartRef, ProducerLedger, RecordBatch, RecordReply, RedrivableDeletion, Row, Sealing,
    Sending, SkippedKey, SqlLedger, SqliteDatabase, Statement, UnreadableMessage, UpkeepLedger,
};
use proptest::prelude::*;
use protocol::{
    ChunkRef, Counts, DeletionId, FailureCode, KeyDigest, NoticeRef, Positions, R2Error, RequestId, State,
    Timestamp, UnreadableReason,
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
    assert!(block_on(ledger.admit_deletion(&deletion(Some(part(7, chunk_keys))))).unwrap());
    ledger
}

fn deletion(part: Option<NewPart>) -> NewDeletion {
    NewDeletion {
        id: id(),
        requested_by: "backend".to_owned(),
        requested_at: at(0),
        not_before: at(0),
        fence: protocol::Fence::Auto,
        part,
        sweep: None,
        verify: false,
        planned_keys: None,
        idempotency: None,
        labels: protocol::Labels::default(),
    }
}

/// A part that the request of this number brings.
fn part(request: u128, chunk_keys: &[usize]) -> NewPart {
    NewPart {
        upload: upload(request),
        chunk_keys: chunk_keys.to_vec(),
        duplicates_removed: 0,
        sending_until: at(LEASE_MS),
    }
}

fn upload(request: u128) -> RequestId {
    RequestId::new(at(0), request)
}

fn fill(ledger: &impl ProducerLedger, upload: &RequestId, part: &PartRef, piece: usize, messages: &[String]) {
    let first_chunk = part.first_chunk() + 8 * u32::try_from(piece).unwrap();
    block_on(ledger.fill_outbox(&OutboxPiece { upload, part, piece, first_chunk, messages })).unwrap();
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
    let batch = RecordBatch {
        token: token.to_owned(),
        now: at(now),
        outcomes,
        unreadable: Vec::new(),
        owe_notices: true,
    };
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

fn newer(position: usize) -> SkippedKey {
    SkippedKey { position, key_json: format!("\"k{position}\\u0000\""), uploaded_at: at(5) }
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
    assert!(reply.outcomes[0].is_some() && reply.ended.finished.is_empty());

    let second = granted(claim(&ledger, "b", 30, &chunk(1), 1));
    let reply = record(&ledger, "b", 40, vec![ChunkOutcome::new(second, [], vec![locked(0)], None, 1)]);
    assert!(reply.outcomes[0].is_some());
    assert_eq!(reply.ended.finished.len(), 1);
    let Counts { deleted, failed, .. } = reply.ended.finished[0].counts;
    assert_eq!((deleted, failed), (2, 1));

    let found = block_on(ledger.find_deletion(&id(), at(50))).unwrap().unwrap();
    assert_eq!(found.state, State::Failed);
    assert_eq!((found.started_at, found.finished_at), (Some(at(10)), Some(at(40))));
    assert_eq!(found.errors.len(), 1);
    assert_eq!(
        (found.errors[0].code, found.errors[0].r2_code),
        (Some(FailureCode::ObjectLocked), Some(10069))
    );
    let failures = block_on(ledger.list_failures(&id(), FailureFilter::default(), None, 10)).unwrap();
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
    assert!(block_on(ledger.list_failures(&id(), FailureFilter::default(), None, 10)).unwrap().is_empty());

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
fn skipped_keys_are_decided_listed_with_their_upload_and_forgotten_with_their_deletion() {
    let ledger = ledger(&[3, 2]);
    let first = granted(claim(&ledger, "a", 0, &chunk(0), 3));
    let lost = ChunkOutcome::new(first.clone(), [0], vec![], None, 1).with_skipped(vec![newer(1)]);
    assert!(record(&ledger, "elsewhere", 10, vec![lost]).outcomes[0].is_none());
    assert!(block_on(ledger.list_skips(&id(), None, 10)).unwrap().is_empty(), "without the claim");

    // What is deleted or failed is not skipped besides.
    let skipped = vec![newer(0), newer(1), newer(2), newer(7)];
    let outcome = ChunkOutcome::new(first, [0], vec![locked(2)], None, 1).with_skipped(skipped);
    assert_eq!((outcome.skipped(), outcome.undecided()), (1, 0));
    assert!(record(&ledger, "a", 20, vec![outcome]).outcomes[0].is_some());
    let second = granted(claim(&ledger, "b", 30, &chunk(1), 2));
    let outcome = ChunkOutcome::new(second, [], vec![], None, 1).with_skipped(vec![newer(0), newer(1)]);
    let finished = record(&ledger, "b", 40, vec![outcome]).ended.finished;
    let Counts { deleted, skipped, failed, .. } = finished[0].counts;
    assert_eq!((deleted, skipped, failed), (1, 3, 1));
    assert_eq!(
        counts(&ledger, 50).0,
        Counts { total: 5, deleted: 1, skipped: 3, failed: 1, ..Counts::default() }
    );

    let (mut listed, mut after) = (Vec::new(), None);
    while let Some(last) = block_on(ledger.list_skips(&id(), after, 2)).unwrap().last() {
        listed.extend(block_on(ledger.list_skips(&id(), after, 2)).unwrap());
        after = Some(last.cursor);
    }
    let listed: Vec<_> =
        listed.iter().map(|skip| (skip.key_json.as_str(), skip.uploaded_at, skip.skipped_at)).collect();
    let key = |position| match position {
        0 => r#""k0\u0000""#,
        _ => r#""k1\u0000""#,
    };
    assert_eq!(listed, [(key(1), at(5), at(20)), (key(0), at(5), at(40)), (key(1), at(5), at(40))]);

    assert_eq!(block_on(ledger.remove_expired(at(1_000), at(1_000), 10)), Ok(1));
    assert!(block_on(ledger.list_skips(&id(), None, 10)).unwrap().is_empty());
}

#[test]
fn recording_twice_counts_once() {
    let ledger = ledger(&[3]);
    let grant = granted(claim(&ledger, "a", 0, &chunk(0), 3));
    let outcome = ChunkOutcome::new(grant, [0, 2], vec![locked(1)], None, 1);
    assert!(record(&ledger, "a", 1, vec![outcome.clone()]).outcomes[0].is_some());
    let again = record(&ledger, "a", 2, vec![outcome]);
    assert!(again.outcomes[0].is_none() && again.ended.finished.is_empty());
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
            owe_notices: false,
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
        let page = block_on(ledger.list_failures(&id(), FailureFilter::default(), after, 300)).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.cursor);
        listed.extend(page.into_iter().map(|failure| failure.key_json));
    }
    assert_eq!(listed, (0..1_000).map(key).collect::<Vec<_>>());
}

#[test]
fn of_two_deletions_with_one_idempotency_key_only_the_first_is_written() {
    let ledger = SqlLedger::new(SqliteDatabase::in_memory().unwrap());
    let [first, second] = [1, 2].map(|random| NewDeletion {
        id: DeletionId::new(at(0), random),
        requested_by: "backend".to_owned(),
        requested_at: at(0),
        not_before: at(0),
        fence: protocol::Fence::Auto,
        part: Some(part(random, &[2, 1])),
        sweep: None,
        verify: false,
        planned_keys: None,
        labels: protocol::Labels::default(),
        idempotency: Some(Idempotency { key: "k".to_owned(), fingerprint: "body".to_owned() }),
    });
    assert!(block_on(ledger.admit_deletion(&first)).unwrap());
    assert!(!block_on(ledger.admit_deletion(&second)).unwrap());
    assert!(block_on(ledger.find_deletion(&second.id, at(1))).unwrap().is_none());
    let earlier = block_on(ledger.find_idempotency_key("backend", "k")).unwrap().unwrap();
    assert_eq!((earlier.deletion, earlier.sending), (first.id, Sending::Held { until: at(LEASE_MS) }));
}

#[test]
fn an_outbox_is_read_back_piece_by_piece_and_by_chunk() {
    let ledger = ledger(&[1; 30]);
    let bodies: Vec<String> = (0..30).map(|n| format!("message {n}")).collect();
    for (piece, some) in bodies.chunks(8).enumerate() {
        fill(&ledger, &upload(7), &PartRef::request(&id()), piece, some);
    }
    let part = PartRef::request(&id());
    let pieces = (0..).map_while(|piece| block_on(ledger.read_outbox(&part, piece)).unwrap());
    let all: Vec<String> = pieces.inspect(|piece| assert!(piece.len() <= 8)).flatten().collect();
    assert_eq!(all, bodies);
    let lost = LostPart { part, chunks: vec![0, 8, 29] };
    let pieces = (0..).map_while(|piece| block_on(ledger.read_lost(&lost, piece)).unwrap());
    let wanted = [&bodies[0], &bodies[8], &bodies[29]].map(Clone::clone);
    assert_eq!(pieces.flatten().collect::<Vec<_>>(), wanted);
}

#[test]
fn only_messages_that_were_brought_for_nothing_are_discarded() {
    let ledger = ledger(&[1]);
    let part = PartRef::request(&id());
    for request in [7, 8] {
        fill(&ledger, &upload(request), &part, 0, &[format!("message of {request}")]);
    }
    for request in [7, 8] {
        block_on(ledger.discard_outbox(&upload(request))).unwrap();
    }
    let kept = block_on(ledger.read_outbox(&part, 0)).unwrap();
    assert_eq!(kept, Some(vec!["message of 7".to_owned()]));
    // The other's are gone, so that they could be written again.
    fill(&ledger, &upload(8), &part, 0, &["message of 8".to_owned()]);
}

/// A ledger with a deletion that is put in parts.
fn open_ledger() -> SqlLedger<SqliteDatabase> {
    let ledger = SqlLedger::new(SqliteDatabase::in_memory().unwrap());
    assert!(block_on(ledger.admit_deletion(&deletion(None))).unwrap());
    assert_eq!(counts(&ledger, 0), (Counts::default(), State::Accepting));
    ledger
}

/// Puts a part of these chunks and sends it.
fn put(ledger: &impl ProducerLedger, number: u32, chunk_keys: &[usize]) -> bool {
    let at_part = PartRef { part: number, ..PartRef::request(&id()) };
    let part = part(number.into(), chunk_keys);
    let is_put = block_on(ledger.admit_part(&at_part, &part, "body")).unwrap();
    block_on(ledger.mark_enqueued(&at_part, at(0))).unwrap();
    is_put
}

fn delete_all(ledger: &impl ConsumerLedger, chunk: &ChunkRef, keys: usize, now: u64) -> RecordReply {
    let token = format!("{chunk:?}");
    let grant = granted(claim(ledger, &token, now, chunk, keys));
    record(ledger, &token, now, vec![ChunkOutcome::new(grant, 0..keys, vec![], None, 1)])
}

#[test]
fn a_deletion_in_parts_ends_when_it_is_sealed_and_every_part_is_decided() {
    for sealed_first in [true, false] {
        let ledger = open_ledger();
        assert!(put(&ledger, 2, &[1]) && put(&ledger, 1, &[3, 2]));
        assert_eq!(delete_all(&ledger, &chunk(2_000), 1, 1).ended.finished.len(), 0);
        assert_eq!(delete_all(&ledger, &chunk(1_000), 3, 2).ended.finished.len(), 0);
        let expected = Counts { total: 6, pending: 2, deleted: 4, ..Counts::default() };
        assert_eq!(counts(&ledger, 3), (expected, State::Accepting));

        let seal = || block_on(ledger.seal_deletion(&id(), 2, 6, at(4))).unwrap();
        let finish = || delete_all(&ledger, &chunk(1_001), 2, 5).ended.finished;
        let finished = if sealed_first {
            assert_eq!(seal().ended.finished, []);
            assert_eq!(counts(&ledger, 4).1, State::Running);
            finish()
        } else {
            assert_eq!(finish(), []);
            assert_eq!(counts(&ledger, 5).1, State::Accepting, "more may come");
            seal().ended.finished
        };
        assert_eq!(
            (finished.len(), finished[0].counts),
            (1, Counts { total: 6, deleted: 6, ..Counts::default() })
        );
        assert_eq!(counts(&ledger, 6).1, State::Succeeded);
        let notice = block_on(ledger.find_notice(&finished[0].notice(), at(6))).unwrap();
        assert!(matches!(notice, NoticeReply::Due(_)), "{notice:?}");
        let again = seal();
        assert!(again.is_sealed && again.ended.finished.is_empty());
        assert!(!put(&ledger, 3, &[1]), "it is sealed");
    }
}

#[test]
fn what_is_not_as_it_was_said_is_not_sealed() {
    let ledger = open_ledger();
    let sealed = |parts, keys| block_on(ledger.seal_deletion(&id(), parts, keys, at(1))).unwrap().is_sealed;
    assert!(!sealed(0, 0));
    let unsent = PartRef { part: 1, ..PartRef::request(&id()) };
    assert!(block_on(ledger.admit_part(&unsent, &part(1, &[3]), "body")).unwrap());
    assert!(!sealed(1, 3), "it is not sent");
    assert!(put(&ledger, 3, &[1]));
    block_on(ledger.mark_enqueued(&unsent, at(0))).unwrap();
    assert!(!sealed(2, 4), "part 2 is missing");
    assert!(!sealed(3, 4), "part 2 is missing");
    assert!(put(&ledger, 2, &[2]));
    assert!(!sealed(3, 5) && !sealed(2, 6) && !sealed(4, 6));
    assert!(sealed(3, 6));
    let Sealing { parts, .. } = block_on(ledger.seal_deletion(&id(), 9, 9, at(2))).unwrap();
    assert_eq!(parts.iter().map(|part| (part.part, part.keys)).collect::<Vec<_>>(), [(1, 3), (2, 2), (3, 1)]);
}

/// A database whose steps are counted.
struct Counted<'a>(&'a SqliteDatabase);

impl Database for Counted<'_> {
    async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, LedgerError> {
        self.0.batch(statements).await
    }
}

/// The steps of each record of a sealed deletion of so many parts of ten chunks, delivered in this order.
fn steps_of_records(parts: u32, order: impl Fn(&mut Vec<u32>)) -> Vec<u64> {
    let database = SqliteDatabase::in_memory().unwrap();
    let ledger = SqlLedger::new(Counted(&database));
    assert!(block_on(ledger.admit_deletion(&deletion(None))).unwrap());
    for number in 1..=parts {
        let at_part = PartRef { part: number, ..PartRef::request(&id()) };
        assert!(block_on(ledger.admit_part(&at_part, &part(number.into(), &[1; 10]), "body")).unwrap());
        block_on(ledger.mark_enqueued(&at_part, at(0))).unwrap();
    }
    assert!(block_on(ledger.seal_deletion(&id(), parts, u64::from(parts) * 10, at(0))).unwrap().is_sealed);
    let mut chunks: Vec<u32> = (1..=parts).flat_map(|part| (0..10).map(move |n| part * 1_000 + n)).collect();
    order(&mut chunks);
    let steps = chunks.into_iter().map(|number| {
        let grant = granted(claim(&ledger, "a", 1, &chunk(number), 1));
        let before = database.steps();
        record(&ledger, "a", 2, vec![ChunkOutcome::new(grant, [0], Vec::new(), None, 1)]);
        database.steps() - before
    });
    let steps = steps.collect();
    assert_eq!(counts(&ledger, 3).1, State::Succeeded);
    steps
}

/// Steps, so that it shows on any machine. The last record sums all chunks up, as it must.
#[test]
fn a_record_costs_no_more_the_more_chunks_its_deletion_has() {
    let in_order = |parts| {
        let mut steps = steps_of_records(parts, |_| {});
        let last = steps.pop().unwrap_or_default();
        (steps.into_iter().max().unwrap_or_default(), last)
    };
    let ((few, last_of_few), (many, last_of_many)) = (in_order(4), in_order(200));
    assert!(many <= few + few / 10, "{many} steps with 2,000 chunks, {few} with 40");
    assert!(last_of_many > 10 * last_of_few, "it is steps that are counted");

    // As if at random: nothing is delivered like that, and yet few sum up before the end.
    let shuffled = |parts| {
        let steps =
            steps_of_records(parts, |chunks| chunks.sort_by_key(|n| u64::from(*n) * 2_654_435_761 % 4_093));
        steps.iter().sum::<u64>() / steps.len() as u64
    };
    let (few, many) = (shuffled(4), shuffled(200));
    assert!(many < 3 * few, "{many} steps with 2,000 chunks, {few} with 40");
}

#[test]
fn a_part_is_put_once_and_never_into_what_takes_none() {
    let ledger = open_ledger();
    assert!(put(&ledger, 1, &[3]));
    let again = PartRef { part: 1, ..PartRef::request(&id()) };
    assert!(!block_on(ledger.admit_part(&again, &part(9, &[4]), "other")).unwrap());
    let found = block_on(ledger.find_part(&id(), 1)).unwrap().unwrap();
    assert_eq!((found.keys, found.fingerprint.as_str(), found.sending), (3, "body", Sending::Done));
    assert_eq!(block_on(ledger.find_part(&id(), 2)).unwrap(), None);
    assert!(matches!(claim(&ledger, "a", 0, &chunk(1_000), 4), ClaimReply::NotAccepted(_)));

    block_on(ledger.cancel_deletion(&id(), at(1))).unwrap();
    let expected = Counts { total: 3, cancelled: 3, ..Counts::default() };
    assert_eq!(counts(&ledger, 2), (expected, State::Cancelled));
    assert!(!put(&ledger, 2, &[1]), "it is cancelled");
    let whole = self::ledger(&[1]);
    assert!(!put(&whole, 1, &[1]), "it came as a whole");
}

#[test]
fn what_was_never_sealed_is_cancelled_and_never_looks_whole() {
    let ledger = open_ledger();
    assert!(put(&ledger, 1, &[3]));
    delete_all(&ledger, &chunk(1_000), 3, 1);
    assert_eq!(block_on(ledger.cancel_abandoned(at(LEASE_MS - 1), at(LEASE_MS))).unwrap(), 0, "just put");
    assert_eq!(block_on(ledger.cancel_abandoned(at(LEASE_MS), at(LEASE_MS))).unwrap(), 1);
    let expected = Counts { total: 3, deleted: 3, ..Counts::default() };
    assert_eq!(counts(&ledger, LEASE_MS), (expected, State::Cancelled));
}

/// What a redrive of the deletion as it is now would do, with its first `limit` failures.
fn redrive(ledger: &impl ProducerLedger, request: u128, limit: usize) -> Option<NewRedrive> {
    let found = block_on(ledger.find_deletion(&id(), at(0))).unwrap().unwrap();
    let failures = block_on(ledger.list_failures(&id(), FailureFilter::default(), None, limit)).unwrap();
    Some(NewRedrive {
        deletion: id(),
        generation: found.generation + 1,
        filter: FailureFilter::default(),
        last: failures.last()?.cursor,
        part: part(request, &[failures.len()]),
    })
}

/// A ledger with a deletion of three keys of which two have failed.
fn failed_ledger() -> SqlLedger<SqliteDatabase> {
    let ledger = ledger(&[3]);
    let grant = granted(claim(&ledger, "a", 0, &chunk(0), 3));
    let slow = FailedKey { code: FailureCode::AttemptsExhausted, error: None, ..locked(2) };
    record(&ledger, "a", 1, vec![ChunkOutcome::new(grant, [0], vec![locked(1), slow], None, 1)]);
    assert_eq!(counts(&ledger, 1).1, State::Failed);
    ledger
}

#[test]
fn a_redrive_opens_the_deletion_again_and_its_counts_stay_whole() {
    let ledger = failed_ledger();
    assert!(block_on(ledger.admit_redrive(&redrive(&ledger, 1, 10).unwrap())).unwrap());
    assert_eq!(
        counts(&ledger, 2),
        (Counts { total: 3, pending: 2, deleted: 1, ..Counts::default() }, State::Running)
    );
    assert!(redrive(&ledger, 2, 10).is_none(), "no failure is left");
    // A late delivery of the first generation's message.
    assert!(matches!(claim(&ledger, "late", 2, &chunk(0), 3), ClaimReply::NothingToDo(_)));

    let again = ChunkRef { generation: 1, ..chunk(0) };
    let grant = granted(claim(&ledger, "b", 3, &again, 2));
    let reply = record(&ledger, "b", 4, vec![ChunkOutcome::new(grant, [0, 1], vec![], None, 1)]);
    assert_eq!((reply.ended.finished.len(), reply.ended.finished[0].generation), (1, 1));
    assert_eq!(counts(&ledger, 5), (Counts { total: 3, deleted: 3, ..Counts::default() }, State::Succeeded));
}

#[test]
fn a_redrive_by_code_leaves_the_other_failures_as_they_are() {
    let ledger = failed_ledger();
    let filter = FailureFilter { code: Some(FailureCode::AttemptsExhausted), failed_before: Some(at(2)) };
    let redrivable = block_on(ledger.list_redrivable(filter, 10)).unwrap();
    assert_eq!((redrivable.len(), redrivable[0].failures), (1, 1));
    let earlier = FailureFilter { failed_before: Some(at(1)), ..filter };
    assert!(block_on(ledger.list_redrivable(earlier, 10)).unwrap().is_empty());

    let all = redrive(&ledger, 1, 10).unwrap();
    assert!(block_on(ledger.admit_redrive(&NewRedrive { filter, part: part(1, &[1]), ..all })).unwrap());
    let expected = Counts { total: 3, pending: 1, deleted: 1, failed: 1, ..Counts::default() };
    assert_eq!(counts(&ledger, 2), (expected, State::Running));
    let left = block_on(ledger.list_failures(&id(), FailureFilter::default(), None, 10)).unwrap();
    assert_eq!(
        left.iter().map(|failure| failure.code).collect::<Vec<_>>(),
        [Some(FailureCode::ObjectLocked)]
    );
}

/// It is open, and has a failure of another code: what can be redriven of it is what was begun, until that is sent.
#[test]
fn a_redrive_that_is_begun_is_listed_by_filters_that_let_through_all_that_it_has_taken() {
    let ledger = failed_ledger();
    let filter = FailureFilter { code: Some(FailureCode::AttemptsExhausted), failed_before: Some(at(2)) };
    let all = redrive(&ledger, 1, 10).unwrap();
    let new = NewRedrive { filter, part: part(1, &[1]), ..all };
    assert!(block_on(ledger.admit_redrive(&new)).unwrap());
    let begun = BegunRedrive { generation: 1, sending_until: new.part.sending_until };
    let begun = RedrivableDeletion { id: id(), failures: 1, begun: Some(begun) };
    let listed = |filter| block_on(ledger.list_redrivable(filter, 10)).unwrap();
    let (none, later) = (FailureFilter::default(), Some(at(3)));
    for wider in
        [none, filter, FailureFilter { failed_before: later, ..none }, FailureFilter { code: None, ..filter }]
    {
        assert_eq!(listed(wider), slice::from_ref(&begun), "{wider:?}");
    }
    for other in [
        FailureFilter { code: Some(FailureCode::ObjectLocked), ..none },
        FailureFilter { failed_before: Some(at(1)), ..filter },
    ] {
        assert_eq!(listed(other), [], "{other:?}");
    }
    block_on(ledger.mark_enqueued(&new.part_ref(), at(3))).unwrap();
    assert_eq!(listed(none), [], "it is sent");
}

#[test]
fn of_two_redrives_at_once_one_comes_first_and_the_other_changes_nothing() {
    let ledger = failed_ledger();
    let [first, second] = [1, 2].map(|request| redrive(&ledger, request, 10).unwrap());
    assert!(block_on(ledger.admit_redrive(&first)).unwrap());
    assert!(!block_on(ledger.admit_redrive(&second)).unwrap());
    assert!(block_on(ledger.admit_redrive(&first)).unwrap(), "an answer that was lost is given again");
    assert_eq!(counts(&ledger, 2).0, Counts { total: 3, pending: 2, deleted: 1, ..Counts::default() });
}

/// The cancellation came when every chunk was in flight: it cancelled nothing, and must not cancel what is redriven.
#[test]
fn a_cancellation_that_came_too_late_does_not_cancel_a_redrive() {
    let ledger = ledger(&[2]);
    let grant = granted(claim(&ledger, "a", 0, &chunk(0), 2));
    block_on(ledger.cancel_deletion(&id(), at(1))).unwrap();
    record(&ledger, "a", 2, vec![ChunkOutcome::new(grant, [0], vec![locked(1)], None, 1)]);
    assert_eq!(counts(&ledger, 3).1, State::Failed);
    assert!(block_on(ledger.admit_redrive(&redrive(&ledger, 1, 10).unwrap())).unwrap());
    assert_eq!(counts(&ledger, 4).1, State::Running);
    granted(claim(&ledger, "b", 5, &ChunkRef { generation: 1, ..chunk(0) }, 1));
}

#[test]
fn no_failure_is_taken_that_is_not_sent() {
    let ledger = failed_ledger();
    let two = redrive(&ledger, 1, 10).unwrap();
    for keys in [1, 3] {
        let other = NewRedrive { part: part(2, &[keys]), ..two.clone() };
        assert!(!block_on(ledger.admit_redrive(&other)).unwrap(), "{keys}");
    }
    assert_eq!(counts(&ledger, 2).0.failed, 2);
    assert!(block_on(ledger.admit_redrive(&two)).unwrap());
}

/// One thing that may happen to a deletion of three chunks, in any order, any number of times.
#[derive(Clone, Debug)]
enum Step {
    Claim { by: usize, chunk: usize },
    Record { by: usize, deleted: Vec<usize>, skipped: Vec<usize>, failed: Vec<usize> },
    RecordAgain { by: usize },
    Wait,
    Cancel,
    PlanRedrive { by: usize, limit: usize },
    Redrive { by: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let positions = || prop::collection::vec(0_usize..6, 0..5);
    let step = prop_oneof![
        8 => (0_usize..3, 0_usize..100).prop_map(|(by, chunk)| Step::Claim { by, chunk }),
        8 => (0_usize..3, positions(), positions(), positions())
            .prop_map(|(by, deleted, skipped, failed)| Step::Record { by, deleted, skipped, failed }),
        2 => (0_usize..3).prop_map(|by| Step::RecordAgain { by }),
        2 => Just(Step::Wait),
        1 => Just(Step::Cancel),
        2 => (0_usize..3, 1_usize..4).prop_map(|(by, limit)| Step::PlanRedrive { by, limit }),
        2 => (0_usize..3).prop_map(|by| Step::Redrive { by }),
    ];
    prop::collection::vec(step, 1..100)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the order of claims, records, repeats, expiries, redrives and a cancellation: the counts add up after every
    /// step, what is deleted never becomes less, what failed only by a redrive, a final deletion changes by nothing else, and
    /// no chunk has two holders.
    #[test]
    fn counts_add_up_and_never_go_back_whatever_happens(steps in steps()) {
        const CHUNK_KEYS: [usize; 3] = [5, 1, 3];
        let ledger = ledger(&CHUNK_KEYS);
        let mut chunks: Vec<(ChunkRef, usize)> = (0..).map(chunk).zip(CHUNK_KEYS).collect();
        let mut now = 0;
        // Three invocations at a time, each claim with a token of its own.
        let mut held: [Option<(Grant, u64, String)>; 3] = [None, None, None];
        let mut last: [Option<(ChunkOutcome, String)>; 3] = [None, None, None];
        let mut planned: [Option<NewRedrive>; 3] = [None, None, None];
        let (mut before, mut finished, mut redrives) = (counts(&ledger, now).0, 0, 0_usize);
        let mut final_counts = None;
        for step in steps {
            now += 1;
            let mut redriven = 0;
            match step {
                Step::Claim { by, chunk } => {
                    let token = format!("{by} at {now}");
                    let (chunk, keys) = &chunks[chunk % chunks.len()];
                    if let ClaimReply::Granted(grant) = claim(&ledger, &token, now, chunk, *keys) {
                        let in_other_hands = |(other, until, _): &&(Grant, u64, String)| {
                            other.chunk == grant.chunk && *until > now
                        };
                        prop_assert_eq!(held.iter().flatten().filter(in_other_hands).count(), 0);
                        held[by] = Some((grant, now + LEASE_MS, token));
                    }
                }
                Step::Record { by, deleted, skipped, failed } => {
                    if let Some((grant, _, token)) = held[by].take() {
                        let failed = failed.into_iter().map(locked).collect();
                        let skipped = skipped.into_iter().map(newer).collect();
                        let outcome =
                            ChunkOutcome::new(grant, deleted, failed, None, 1).with_skipped(skipped);
                        finished += record(&ledger, &token, now, vec![outcome.clone()]).ended.finished.len();
                        last[by] = Some((outcome, token));
                    }
                }
                Step::RecordAgain { by } => {
                    if let Some((outcome, token)) = last[by].clone() {
                        finished += record(&ledger, &token, now, vec![outcome]).ended.finished.len();
                    }
                }
                Step::Wait => now += LEASE_MS,
                Step::Cancel => drop(block_on(ledger.cancel_deletion(&id(), at(now))).unwrap()),
                // Of a deletion that is over, as the producer does: more may fail of one that is not.
                Step::PlanRedrive { by, limit } if final_counts.is_some() => {
                    planned[by] = redrive(&ledger, u128::from(now), limit);
                }
                Step::PlanRedrive { .. } => {}
                Step::Redrive { by } => {
                    if let Some(redrive) = planned[by].take() && block_on(ledger.admit_redrive(&redrive)).unwrap() {
                        prop_assert!(final_counts.take().is_some(), "it was over");
                        redriven = redrive.part.keys() as u64;
                        redrives += 1;
                        chunks.push((ChunkRef { generation: redrive.generation, ..chunk(0) }, redrive.part.keys()));
                    }
                }
            }
            let (after, state) = counts(&ledger, now);
            let Counts { total, pending, deleted, skipped, failed, cancelled } = after;
            prop_assert_eq!(total, pending + deleted + skipped + failed + cancelled);
            prop_assert_eq!(total, 9);
            prop_assert!(deleted >= before.deleted && skipped >= before.skipped);
            prop_assert!( failed + redriven >= before.failed);
            if redriven > 0 {
                prop_assert_eq!((pending, failed), (redriven, before.failed - redriven));
            }
            let listed = block_on(ledger.list_failures(&id(), FailureFilter::default(), None, 100)).unwrap().len();
            prop_assert_eq!(listed as u64, failed);
            let listed = block_on(ledger.list_skips(&id(), None, 100)).unwrap().len();
            prop_assert_eq!(listed as u64, skipped);
            if let Some(end) = final_counts {
                prop_assert_eq!(after, end);
            }
            let generation = u32::try_from(redrives).unwrap();
            let notice = NoticeRef { deletion: id(), generation };
            let is_due = matches!(block_on(ledger.find_notice(&notice, at(now))).unwrap(), NoticeReply::Due(_));
            prop_assert_eq!(is_due, state.is_final(), "a notice is owed of an end, and of nothing else");
            if state.is_final() {
                final_counts = Some(after);
            }
            before = after;
        }
        prop_assert!(finished <= 1 + redrives);
        if matches!(counts(&ledger, now).1, State::Succeeded | State::Failed) {
            prop_assert_eq!(finished, 1 + redrives);
        }
    }
}

#[test]
fn the_digest_of_a_verified_deletion_is_of_all_keys_deleted_in_whatever_attempts() {
    let keys = ["a", "b", "c", "d"];
    let ledger = SqlLedger::new(SqliteDatabase::in_memory().unwrap());
    let verified = NewDeletion { verify: true, ..deletion(Some(part(7, &[3, 1]))) };
    assert!(block_on(ledger.admit_deletion(&verified)).unwrap());
    let sum = || block_on(ledger.sum_digests(&id())).unwrap();
    assert_eq!(sum(), None, "nothing is recorded yet");
    let digest = |keys: &[&str]| keys.iter().fold(KeyDigest::default(), |digest, key| digest.with(key));
    for (token, at, number, offset, deleted, so_far) in [
        ("a", 10, 0, 0, &[2][..], &["c"][..]),
        ("b", 20, 1, 3, &[0], &["c", "d"]),
        // What is not the attempt's to decide is in no digest.
        ("c", 30, 0, 0, &[0, 2, 9], &["a", "c", "d"]),
        ("d", 40, 0, 0, &[1], &keys),
    ] {
        let grant = granted(claim(&ledger, token, at, &chunk(number), if number == 0 { 3 } else { 1 }));
        let outcome = ChunkOutcome::new(grant, deleted.iter().copied(), Vec::new(), None, 1)
            .with_digest(|position| keys.get(offset + position).copied());
        record(&ledger, token, at + 1, vec![outcome]);
        assert_eq!(sum(), Some(digest(so_far)), "{token}");
    }
    assert_eq!(counts(&ledger, 50).1, State::Succeeded);
}

/// They are read five thousand at once: one more, and the last is on a page of its own.
#[test]
fn the_digest_of_a_deletion_of_many_chunks_is_of_all_of_them() {
    let ledger = SqlLedger::new(SqliteDatabase::in_memory().unwrap());
    assert!(block_on(ledger.admit_deletion(&NewDeletion { verify: true, ..deletion(None) })).unwrap());
    let mut all = KeyDigest::default();
    for (number, chunks) in [(1, 1_000), (2, 1_000), (3, 1_000), (4, 1_000), (5, 1_000), (6, 1)] {
        assert!(put(&ledger, number, &vec![1; chunks]));
        let numbers = (number * 1_000..).take(chunks);
        let requests = numbers.map(|number| ClaimRequest { chunk: chunk(number), keys: 1 }).collect();
        let (token, now, until) = ("a".to_owned(), at(0), at(LEASE_MS));
        let replies = block_on(ledger.claim(&ClaimBatch { token, now, until, requests })).unwrap();
        let outcomes = replies.into_iter().zip(0..).map(|(reply, at)| {
            let key = format!("{number}/{at}");
            all = all.with(&key);
            ChunkOutcome::new(granted(reply), [0], Vec::new(), None, 1).with_digest(|_| Some(key.as_str()))
        });
        record(&ledger, "a", 1, outcomes.collect());
        assert_eq!(block_on(ledger.sum_digests(&id())).unwrap(), Some(all));
    }
}

#[test]
fn the_chunks_that_are_lost_of_a_part_have_the_numbers_that_its_messages_have() {
    let ledger = open_ledger();
    assert!(put(&ledger, 1, &[1]) && put(&ledger, 2, &[1, 1, 1]));
    assert!(block_on(ledger.seal_deletion(&id(), 2, 4, at(1))).unwrap().is_sealed);
    delete_all(&ledger, &chunk(2_001), 1, 2);
    let lost = |part, chunks: &[u32]| LostPart {
        part: PartRef { part, ..PartRef::request(&id()) },
        chunks: chunks.to_vec(),
    };
    let found = block_on(ledger.list_lost(at(10), at(10), 10)).unwrap();
    assert_eq!(found, [lost(1, &[1_000]), lost(2, &[2_000, 2_002])]);
}
