//! What the ledger promises of sweeps, on the SQL that both Workers run, against a real SQLite. What follows from it for the bucket
//! is in the consumer's tests.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use futures::executor::block_on;
use ledger::{
    ChunkOutcome, ClaimBatch, ClaimReply, ClaimRequest, ConsumerLedger, DeletionRecord, FailedKey,
    FailureFilter, NewDeletion, NewPart, NewRedrive, NewSweep, PartRef, ProducerLedger, RecordBatch,
    SqlLedger, SqliteDatabase, SweepClaim, SweepGrant, SweepReply, SweepState, SweepThen, SweepTurn,
    SweepTurnReply, UpkeepLedger,
};
use protocol::{
    ChunkRef, Counts, DeletionId, FailureCode, Fence, Labels, RequestId, State, SweepRange, SweepRef,
    Timestamp, UnreadableReason,
};

const LEASE_MS: u64 = 1_000;

type Ledger = SqlLedger<SqliteDatabase>;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_763_930_000_000 + millis)
}

fn id() -> DeletionId {
    DeletionId::new(at(0), 7)
}

/// A ledger with one deletion of these prefixes.
fn ledger(prefixes: &[&str]) -> Ledger {
    ledger_with(prefixes, Vec::new(), false)
}

/// And of a chunk of so many keys each.
fn ledger_with(prefixes: &[&str], chunk_keys: Vec<usize>, verify: bool) -> Ledger {
    let ledger = SqlLedger::new(SqliteDatabase::in_memory().unwrap());
    let deletion = NewDeletion {
        id: id(),
        requested_by: "backend".to_owned(),
        requested_at: at(0),
        not_before: at(0),
        fence: Fence::Auto,
        part: Some(NewPart {
            upload: RequestId::new(at(0), 7),
            chunk_keys,
            duplicates_removed: 0,
            sending_until: at(0),
        }),
        sweep: Some(NewSweep {
            ranges: prefixes.iter().copied().map(SweepRange::of).collect(),
            max_objects: None,
        }),
        verify,
        planned_keys: None,
        labels: Labels::default(),
        idempotency: None,
    };
    assert!(block_on(ledger.admit_deletion(&deletion)).unwrap());
    ledger
}

fn step(step: u32) -> SweepRef {
    SweepRef { step, ..SweepRef::first(&id(), 0) }
}

fn claim(ledger: &Ledger, token: &str, now: u64, sweep: SweepRef) -> SweepReply {
    let claim = SweepClaim { sweep, token: token.to_owned(), now: at(now), until: at(now + LEASE_MS) };
    block_on(ledger.claim_sweep(&claim)).unwrap()
}

fn granted(reply: SweepReply) -> SweepGrant {
    match reply {
        SweepReply::Granted(grant) => *grant,
        other => panic!("not granted: {other:?}"),
    }
}

/// A turn that plans `keys`, at the time given, and cuts the range at `cuts`.
fn turn(
    ledger: &Ledger,
    (grant, token, now): (&SweepGrant, &str, u64),
    state: &SweepState,
    (keys, cuts): (&[&str], &[&str]),
    then: SweepThen,
) -> SweepTurnReply {
    let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
    let planned = (!keys.is_empty()).then(|| state.plan(state.progress.clone(), keys, Vec::new()).unwrap());
    let mut range = grant.range.clone();
    let others = range.split(cuts.iter().map(|&cut| cut.to_owned()));
    let turn = SweepTurn {
        grant,
        token,
        now: at(now),
        attempts: 1,
        state,
        failed: Vec::new(),
        skipped: Vec::new(),
        planned,
        split: (!others.is_empty()).then_some((range, others)),
        then,
        owe_notices: false,
    };
    block_on(ledger.turn_sweep(&turn)).unwrap()
}

fn find(ledger: &Ledger) -> DeletionRecord {
    block_on(ledger.find_deletion(&id(), at(5_000))).unwrap().unwrap()
}

#[test]
fn a_turn_that_is_written_twice_because_nobody_heard_of_the_first_changes_nothing_more() {
    let ledger = ledger(&["a/"]);
    let grant = granted(claim(&ledger, "t", 10, step(0)));
    let go_on = || {
        turn(&ledger, (&grant, "t", 20), &grant.state, (&["a/1", "a/2"], &["a/5", "a/7"]), SweepThen::GoOn)
    };
    let first = go_on();
    assert!(first.is_recorded && first.goes_on && first.proof.is_none());
    assert_eq!(first.ended.due.iter().map(|due| due.sweep).collect::<Vec<_>>(), [1, 2]);
    let again = go_on();
    assert!(again.goes_on);
    assert_eq!(again.ended.due, [], "the ranges that were cut off are not cut off again");
    assert_eq!(find(&ledger).counts, Counts { total: 2, pending: 2, ..Counts::default() });
    // What was cut off is somebody else's.
    assert!(granted(claim(&ledger, "u", 30, SweepRef::first(&id(), 1))).range.contains("a/6"));
    assert!(granted(claim(&ledger, "u", 30, SweepRef::first(&id(), 2))).range.contains("a/8"));
}

#[test]
fn a_cancellation_in_the_middle_of_a_step_lets_no_further_page_be_planned() {
    let ledger = ledger(&["a/"]);
    let grant = granted(claim(&ledger, "t", 10, step(0)));
    let first = turn(&ledger, (&grant, "t", 20), &grant.state, (&["a/1"], &[]), SweepThen::GoOn);
    assert!(first.goes_on);
    let mut state = grant.state.clone();
    let page = state.plan(state.progress.clone(), vec!["a/1".to_owned()], Vec::new()).unwrap();
    state.take(page);
    assert!(block_on(ledger.cancel_deletion(&id(), at(25))).unwrap());
    state.settle(&[0], &[], &[]).unwrap();
    let next = turn(&ledger, (&grant, "t", 30), &state, (&["a/2", "a/3"], &["a/5"]), SweepThen::GoOn);
    assert!(next.is_recorded && !next.goes_on && next.proof.is_some());
    assert_eq!(next.ended.due, []);
    let found = find(&ledger);
    assert_eq!(
        (found.state, found.counts),
        (State::Cancelled, Counts { total: 1, deleted: 1, ..Counts::default() })
    );
}

/// The first write's answer is lost, and the deletion is cancelled before the second: what the first has left alone is in the
/// list, and so it is in the counts.
#[test]
fn what_a_turn_has_left_alone_stays_so_when_the_turn_is_written_again_after_a_cancellation() {
    let ledger = ledger(&["a/"]);
    let grant = granted(claim(&ledger, "t", 10, step(0)));
    let go_on = || {
        let (old, newer) = (vec!["a/1".to_owned()], vec![("a/2".to_owned(), at(5))]);
        let turn = SweepTurn {
            grant: &grant,
            token: "t",
            now: at(20),
            attempts: 1,
            state: &grant.state,
            failed: Vec::new(),
            skipped: Vec::new(),
            planned: Some(grant.state.plan(grant.state.progress.clone(), old, newer).unwrap()),
            split: None,
            then: SweepThen::GoOn,
            owe_notices: false,
        };
        block_on(ledger.turn_sweep(&turn)).unwrap()
    };
    assert!(go_on().goes_on);
    assert!(block_on(ledger.cancel_deletion(&id(), at(25))).unwrap());
    assert!(!go_on().goes_on);
    assert_eq!(find(&ledger).counts, Counts { total: 1, skipped: 1, ..Counts::default() });
    assert_eq!(block_on(ledger.list_skips(&id(), None, 10)).unwrap().len(), 1);
}

#[test]
fn nothing_is_planned_or_recorded_without_the_claim() {
    let ledger = ledger(&["a/"]);
    let grant = granted(claim(&ledger, "t", 10, step(0)));
    // Its claim has ended, and another has taken over.
    let late = 10 + LEASE_MS;
    let other = granted(claim(&ledger, "u", late, step(0)));
    assert_eq!(other.state, grant.state);
    for (token, now) in [("t", 20), ("t", late + 1), ("u", late + LEASE_MS)] {
        for then in [SweepThen::GoOn, SweepThen::HandOn, SweepThen::EndPhase] {
            let lost = turn(&ledger, (&grant, token, now), &grant.state, (&["a/1"], &["a/5"]), then);
            assert!(!lost.is_recorded && !lost.goes_on && lost.proof.is_none(), "{token} {now}");
            assert_eq!((lost.ended.due, lost.ended.finished), (vec![], vec![]));
        }
    }
    let found = find(&ledger);
    assert_eq!((found.state, found.counts), (State::Running, Counts::default()));
    let after = granted(claim(&ledger, "v", late + LEASE_MS, step(0)));
    assert_eq!((after.state, after.range), (grant.state, grant.range));
}

#[test]
fn a_message_of_a_step_that_is_over_or_unheard_of_gets_nothing() {
    let ledger = ledger(&["a/"]);
    let nothing = |reply| matches!(reply, SweepReply::NothingToDo(_));
    assert!(nothing(claim(&ledger, "t", 10, step(1))), "not yet");
    let grant = granted(claim(&ledger, "t", 10, step(0)));
    assert!(
        matches!(claim(&ledger, "u", 20, step(0)), SweepReply::ClaimedElsewhere { until } if until == at(10 + LEASE_MS))
    );
    let handed = turn(&ledger, (&grant, "t", 30), &grant.state, (&[], &[]), SweepThen::HandOn);
    assert!(handed.proof.is_some());
    assert_eq!(handed.ended.due, [step(1)]);
    assert!(nothing(claim(&ledger, "t", 40, step(0))), "over");
    let grant = granted(claim(&ledger, "t", 50, step(1)));
    assert!(turn(&ledger, (&grant, "t", 60), &grant.state, (&[], &[]), SweepThen::EndPhase).proof.is_some());
    assert!(nothing(claim(&ledger, "t", 70, step(1))), "the sweep is over");
    for (sweep, reason) in [
        (SweepRef { sweep: 1, ..step(0) }, UnreadableReason::NotInDeletion),
        (SweepRef::first(&DeletionId::new(at(0), 8), 0), UnreadableReason::UnknownDeletion),
    ] {
        assert!(matches!(claim(&ledger, "t", 80, sweep), SweepReply::NotAccepted(found) if found == reason));
    }
}

#[test]
fn only_sweeps_of_accepted_deletions_that_nobody_goes_on_with_are_woken() {
    let ledger = ledger(&["a/", "b/"]);
    let wake = |before, now| block_on(ledger.wake_sweeps(at(before), at(now), 10)).unwrap();
    assert_eq!(wake(100, 100), [], "nobody was told 202");
    block_on(ledger.mark_enqueued(&PartRef::request(&id()), at(5))).unwrap();
    let grant = granted(claim(&ledger, "t", 50, step(0)));
    assert_eq!(wake(100, 100), [SweepRef::first(&id(), 1)], "the other is at work");
    assert_eq!(wake(99, 200), [], "woken just now");
    let due_at = at(9_000);
    turn(&ledger, (&grant, "t", 60), &grant.state, (&[], &[]), SweepThen::Retry { due_at });
    assert_eq!(wake(8_999, 9_100), [SweepRef::first(&id(), 1)], "it comes back by itself");
    assert_eq!(wake(9_050, 9_200), [step(0)]);
    assert!(block_on(ledger.cancel_deletion(&id(), at(9_300))).unwrap());
    assert_eq!(wake(20_000, 20_000), []);
}

/// What became of the only key of a chunk: it is deleted, or it has failed. The sweeps that are due then.
fn decide(ledger: &Ledger, generation: u32, now: u64, is_deleted: bool) -> Vec<SweepRef> {
    let chunk = ChunkRef { deletion: id(), generation, chunk: 0 };
    let (token, requests) = ("t".to_owned(), vec![ClaimRequest { chunk, keys: 1 }]);
    let batch = ClaimBatch { token: token.clone(), now: at(now), until: at(now + LEASE_MS), requests };
    let Some(ClaimReply::Granted(grant)) = block_on(ledger.claim(&batch)).unwrap().pop() else {
        panic!("not granted")
    };
    let key_json = "\"k\"".to_owned();
    let failed = FailedKey { position: 0, key_json, code: FailureCode::ObjectLocked, error: None };
    let failed = if is_deleted { Vec::new() } else { vec![failed] };
    let outcomes = vec![ChunkOutcome::new(grant, [0], failed, None, 1)];
    let batch = RecordBatch { token, now: at(now), outcomes, unreadable: Vec::new(), owe_notices: false };
    block_on(ledger.record(&batch)).unwrap().ended.due
}

/// The request died before it noted that all was sent, and all that it had sent was done all the same.
#[test]
fn a_sweep_of_a_redriven_deletion_is_woken_although_nobody_was_told_202_for_the_request() {
    let ledger = ledger_with(&["a/"], vec![1], true);
    let end_phase = |step: SweepRef, now| {
        let grant = granted(claim(&ledger, "t", now, step));
        turn(&ledger, (&grant, "t", now), &grant.state, (&[], &[]), SweepThen::EndPhase).ended
    };
    let [deletes] = decide(&ledger, 0, 10, false).try_into().unwrap();
    let [verifies] = end_phase(deletes, 20).due.try_into().unwrap();
    assert_eq!(end_phase(verifies, 30).finished.len(), 1);

    let failures = block_on(ledger.list_failures(&id(), FailureFilter::default(), None, 10)).unwrap();
    let redrive = NewRedrive {
        deletion: id(),
        generation: 1,
        filter: FailureFilter::default(),
        last: failures[0].cursor,
        part: NewPart {
            upload: RequestId::new(at(40), 8),
            chunk_keys: vec![1],
            duplicates_removed: 0,
            sending_until: at(40),
        },
    };
    assert!(block_on(ledger.admit_redrive(&redrive)).unwrap());
    let due = decide(&ledger, 1, 50, true);
    assert_eq!(due.len(), 1);
    assert_eq!(block_on(ledger.wake_sweeps(at(100), at(100), 10)).unwrap(), due, "its message was lost");
}

#[test]
fn what_is_left_is_said_when_every_prefix_was_listed_for_it_and_not_before() {
    let ledger = ledger_with(&["a/", "b/"], Vec::new(), true);
    let end_phase = |sweep: SweepRef, now| {
        let grant = granted(claim(&ledger, "t", now, sweep));
        turn(&ledger, (&grant, "t", now), &grant.state, (&[], &[]), SweepThen::EndPhase).ended
    };
    let [first, second] = [0, 1].map(|sweep| SweepRef::first(&id(), sweep));
    assert!(end_phase(first, 10).due.is_empty());
    let verifies = end_phase(second, 20).due;
    assert_eq!((verifies.len(), find(&ledger).verification), (2, None));
    for (sweep, now, verified_at) in [(0, 30, None), (1, 40, Some(at(40)))] {
        end_phase(verifies[sweep].clone(), now);
        let found = find(&ledger);
        assert_eq!(found.verification.map(|verification| verification.verified_at), verified_at);
        assert_eq!(found.state.is_final(), verified_at.is_some());
    }
}
