//! Listing deletions and the totals of the ledger, held against what each deletion says of itself.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use futures::executor::block_on;
use ledger::{
    ChunkOutcome, ClaimBatch, ClaimReply, ClaimRequest, ConsumerLedger, Database, DeletionFilter,
    DeletionRecord, FailedKey, FailureFilter, LedgerError, NewDeletion, NewPart, NewRedrive, OutboxPiece,
    PartRef, ProducerLedger, RecordBatch, Row, SqlLedger, SqliteDatabase, Statement, UnreadableMessage,
};
use proptest::prelude::*;
use protocol::{
    ChunkRef, Counts, DeletionId, FailureCode, Labels, R2Error, RequestId, State, Timestamp, UnreadableReason,
};

const LEASE_MS: u64 = 1_000;
const REQUESTED_BY: [&str; 2] = ["backend", "other"];

type Ledger = SqlLedger<SqliteDatabase>;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_763_930_000_000 + millis)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn empty() -> Ledger {
    SqlLedger::new(SqliteDatabase::in_memory().unwrap())
}

/// How far a deletion of two chunks of two keys has come.
#[derive(Clone, Copy, Debug)]
enum Course {
    Queued,
    Running,
    HalfFailed,
    Succeeded,
    Failed,
    Cancelled,
    Cancelling,
    CancelledTooLate,
    Redriven,
    RedrivenToItsEnd,
    Accepting,
    NeverSealed,
}

const COURSES: [Course; 12] = [
    Course::Queued,
    Course::Running,
    Course::HalfFailed,
    Course::Succeeded,
    Course::Failed,
    Course::Cancelled,
    Course::Cancelling,
    Course::CancelledTooLate,
    Course::Redriven,
    Course::RedrivenToItsEnd,
    Course::Accepting,
    Course::NeverSealed,
];

/// Puts a deletion into the ledger that was requested at `now` and has gone that way.
fn add(ledger: &SqlLedger<impl Database>, now: u64, requested_by: &str, labels: Labels, course: Course) {
    let id = DeletionId::new(at(now), u128::from(now));
    let upload = RequestId::new(at(now), u128::from(now));
    let deletion = NewDeletion {
        id: id.clone(),
        requested_by: requested_by.to_owned(),
        requested_at: at(now),
        fence: protocol::Fence::Auto,
        not_before: at(now),
        part: match course {
            Course::Accepting | Course::NeverSealed => None,
            _ => Some(NewPart {
                upload: upload.clone(),
                chunk_keys: vec![2, 2],
                duplicates_removed: 0,
                sending_until: at(now),
            }),
        },
        idempotency: None,
        sweep: None,
        verify: false,
        planned_keys: None,
        labels,
    };
    let (part, messages) = (PartRef::request(&id), ["first", "second"].map(str::to_owned));
    let piece = OutboxPiece { upload: &upload, part: &part, piece: 0, first_chunk: 0, messages: &messages };
    block_on(ledger.fill_outbox(&piece)).unwrap();
    assert!(block_on(ledger.admit_deletion(&deletion)).unwrap());
    let begin_of =
        |generation, chunk| begin(ledger, ChunkRef { deletion: id.clone(), generation, chunk }, now);
    let begin = |chunk| begin_of(0, chunk);
    let cancel = || assert!(block_on(ledger.cancel_deletion(&id, at(now))).unwrap());
    match course {
        Course::Queued | Course::Accepting => {}
        Course::Running => drop(begin(0)),
        Course::HalfFailed => begin(1)(1),
        Course::Succeeded => [0, 1].into_iter().for_each(|chunk| begin(chunk)(0)),
        Course::Failed => [0, 1].into_iter().for_each(|chunk| begin(chunk)(2)),
        Course::Cancelled | Course::NeverSealed => cancel(),
        Course::Redriven | Course::RedrivenToItsEnd => {
            begin(0)(1);
            begin(1)(2);
            redrive(ledger, &id, now);
            if matches!(course, Course::RedrivenToItsEnd) {
                begin_of(1, 0)(1);
            }
        }
        Course::Cancelling => {
            let in_flight = begin(0);
            cancel();
            drop(in_flight);
        }
        Course::CancelledTooLate => {
            let in_flight = [begin(0), begin(1)];
            cancel();
            for finish in in_flight {
                finish(0);
            }
        }
    }
}

/// Sends two of three failures again.
fn redrive(ledger: &SqlLedger<impl Database>, id: &DeletionId, now: u64) {
    let failures = block_on(ledger.list_failures(id, FailureFilter::default(), None, 2)).unwrap();
    let upload = RequestId::new(at(now), u128::MAX - u128::from(now));
    let redrive = NewRedrive {
        deletion: id.clone(),
        generation: 1,
        filter: FailureFilter::default(),
        last: failures.last().unwrap().cursor,
        part: NewPart { upload, chunk_keys: vec![2], duplicates_removed: 0, sending_until: at(now) },
    };
    assert!(block_on(ledger.admit_redrive(&redrive)).unwrap());
}

/// Claims a chunk; what it returns records it, with that many keys failed.
fn begin(ledger: &SqlLedger<impl Database>, chunk: ChunkRef, now: u64) -> impl FnOnce(usize) {
    let token = format!("{chunk:?}");
    let requests = vec![ClaimRequest { chunk, keys: 2 }];
    let batch = ClaimBatch { token: token.clone(), now: at(now), until: at(now + LEASE_MS), requests };
    let ClaimReply::Granted(grant) = block_on(ledger.claim(&batch)).unwrap().remove(0) else { panic!() };
    move |failed| {
        let failed_keys = (0..failed).map(|position| FailedKey {
            position,
            key_json: format!("\"k{position}\""),
            code: if position == 0 { FailureCode::ObjectLocked } else { FailureCode::StorageUnavailable },
            error: (position == 0).then_some(R2Error::ObjectLocked),
        });
        let outcomes = vec![ChunkOutcome::new(grant, failed..2, failed_keys.collect(), None, 1)];
        let batch = RecordBatch { token, now: at(now), outcomes, unreadable: Vec::new(), owe_notices: false };
        block_on(ledger.record(&batch)).unwrap();
    }
}

/// Every page of a list, put together.
fn list(ledger: &Ledger, filter: &DeletionFilter<'_>, limit: usize, now: u64) -> Vec<DeletionRecord> {
    let (mut listed, mut before) = (Vec::new(), None);
    loop {
        let page = block_on(ledger.list_deletions(filter, before.as_ref(), limit, at(now))).unwrap();
        assert!(page.deletions.len() <= limit);
        listed.extend(page.deletions);
        match page.next {
            Some(next) => before = Some(next),
            None => return listed,
        }
    }
}

#[test]
fn labels_are_kept_and_found_by_whatever_they_say() {
    let ledger = empty();
    let mine =
        labels(&[("reason", "erasure"), ("project", "42' OR 1=1 --"), ("__proto__", "é \"\\\u{1F600}\n\0")]);
    add(&ledger, 1, "backend", mine.clone(), Course::Queued);
    add(&ledger, 2, "backend", labels(&[("reason", "erasure"), ("project", "43")]), Course::Queued);
    for (name, value) in mine.iter() {
        let filter = DeletionFilter { labels: labels(&[(name, value)]), ..DeletionFilter::default() };
        let listed = list(&ledger, &filter, 1, 2);
        assert_eq!(listed.last().unwrap().labels, mine, "{name}");
        assert_eq!(listed.len(), if name == "reason" { 2 } else { 1 });
    }
    let all = DeletionFilter { labels: mine, ..DeletionFilter::default() };
    assert_eq!(list(&ledger, &all, 5, 2).len(), 1);
    for (name, value) in [("reason", "ERASURE"), ("Reason", "erasure"), ("reason", ""), ("project", "4")] {
        let filter = DeletionFilter { labels: labels(&[(name, value)]), ..DeletionFilter::default() };
        assert_eq!(list(&ledger, &filter, 5, 2), [], "{name}={value}");
    }
}

/// A database whose steps are counted.
struct Counted<'a>(&'a SqliteDatabase);

impl Database for Counted<'_> {
    async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, LedgerError> {
        self.0.batch(statements).await
    }
}

/// Steps, so that it shows on any machine.
#[test]
fn what_is_asked_for_is_found_without_a_look_at_all_that_is_over() {
    let asked = labels(&[("ticket", "42")]);
    for (course, state, labels) in [
        (Course::Succeeded, None, asked),
        (Course::Running, Some(State::Running), Labels::default()),
        (Course::Cancelled, Some(State::Cancelled), Labels::default()),
        (Course::Failed, Some(State::Failed), Labels::default()),
    ] {
        let steps_among = |others: u64| {
            let database = SqliteDatabase::in_memory().unwrap();
            let ledger = SqlLedger::new(Counted(&database));
            add(&ledger, 0, "backend", labels.clone(), course);
            (1..=others).for_each(|now| add(&ledger, now, "backend", Labels::default(), Course::Succeeded));
            let filter = DeletionFilter { state, labels: labels.clone(), requested_by: None };
            let before = database.steps();
            let page = block_on(ledger.list_deletions(&filter, None, 1, at(500))).unwrap();
            assert_eq!((page.deletions.len(), page.next), (1, None));
            database.steps() - before
        };
        let (few, many) = (steps_among(10), steps_among(200));
        assert!(many <= few + few / 10, "{state:?}: {many} steps among 200 others, {few} among 10");
    }
}

#[test]
fn stats_of_an_empty_ledger_are_zeros() {
    let stats = block_on(empty().stats(None, at(0))).unwrap();
    assert_eq!(stats.states, State::ALL.map(|state| (state, 0)));
    assert_eq!((stats.keys, stats.oldest_unfinished), (Counts::default(), None));
    assert_eq!((stats.failures.len(), stats.unreadable_messages), (0, 0));
}

#[test]
fn stats_count_failures_by_code_and_unreadable_messages() {
    let ledger = empty();
    add(&ledger, 1, "backend", Labels::default(), Course::HalfFailed);
    add(&ledger, 2, "backend", Labels::default(), Course::Failed);
    let unreadable = vec![UnreadableMessage {
        message_id: "m".to_owned(),
        queue: "r2-deletions".to_owned(),
        reason: UnreadableReason::NotJson,
        body: String::new(),
        attempts: 1,
    }];
    let batch = RecordBatch {
        token: String::new(),
        now: at(3),
        outcomes: Vec::new(),
        unreadable,
        owe_notices: false,
    };
    block_on(ledger.record(&batch)).unwrap();
    let stats = block_on(ledger.stats(Some("backend"), at(3))).unwrap();
    let failures: Vec<_> =
        stats.failures.iter().map(|error| (error.code, error.r2_code, error.count)).collect();
    let expected =
        [(Some(FailureCode::ObjectLocked), Some(10069), 3), (Some(FailureCode::StorageUnavailable), None, 2)];
    assert_eq!(failures, expected);
    assert_eq!(stats.unreadable_messages, 1);
    assert!(block_on(ledger.stats(Some("other"), at(3))).unwrap().failures.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is in the ledger and whatever is asked: the pages together are exactly the deletions that say so of
    /// themselves, newest first, and the totals are the sums over them.
    #[test]
    fn lists_and_totals_say_what_the_deletions_say(
        deletions in prop::collection::vec((0..COURSES.len(), 0_usize..2, 0_usize..3, 0_usize..2), 0..14),
        limit in 1_usize..5,
        later in prop::sample::select(vec![0, LEASE_MS]),
    ) {
        let ledger = empty();
        for (now, &(course, by, project, reason)) in deletions.iter().enumerate() {
            let (project, reason) = (project.to_string(), reason.to_string());
            let pairs = [("project", project.as_str()), ("reason", reason.as_str())];
            let pairs: Vec<_> = pairs.into_iter().filter(|(_, value)| *value != "0").collect();
            let labels = labels(&pairs);
            add(&ledger, now as u64, REQUESTED_BY[by], labels, COURSES[course]);
        }
        let now = deletions.len() as u64 + later;
        let all: Vec<DeletionRecord> = (0..deletions.len() as u64).rev().map(|n| {
            block_on(ledger.find_deletion(&DeletionId::new(at(n), u128::from(n)), at(now))).unwrap().unwrap()
        }).collect();

        for state in State::ALL.map(Some).into_iter().chain([None]) {
            for requested_by in [None, Some("backend"), Some("nobody")] {
                for labels in [&[][..], &[("project", "1")], &[("project", "1"), ("reason", "1")]].map(labels) {
                    let filter = DeletionFilter { requested_by, state, labels };
                    let expected: Vec<&DeletionRecord> = all.iter().filter(|deletion| {
                        state.is_none_or(|state| deletion.state == state)
                            && requested_by.is_none_or(|name| deletion.requested_by == name)
                            && filter.labels.iter().all(|(name, value)| deletion.labels.get(name) == Some(value))
                    }).collect();
                    let listed = list(&ledger, &filter, limit, now);
                    prop_assert_eq!(listed.iter().collect::<Vec<_>>(), expected, "{:?}", filter);
                }
            }
        }
        for requested_by in [None, Some("backend")] {
            let stats = block_on(ledger.stats(requested_by, at(now))).unwrap();
            let seen: Vec<&DeletionRecord> =
                all.iter().filter(|deletion| requested_by.is_none_or(|name| deletion.requested_by == name)).collect();
            for (state, count) in stats.states {
                prop_assert_eq!(count, seen.iter().filter(|deletion| deletion.state == state).count() as u64);
            }
            prop_assert_eq!(stats.keys, seen.iter().fold(Counts::default(), |sum, deletion| sum.plus(deletion.counts)));
            let oldest = seen.iter().rev().find(|deletion| !deletion.state.is_final()).map(|deletion| &deletion.id);
            prop_assert_eq!(stats.oldest_unfinished.as_ref().map(|deletion| &deletion.id), oldest);
            let failed: u64 = stats.failures.iter().map(|error| error.count).sum();
            prop_assert_eq!(failed, stats.keys.failed);
        }
    }
}
