//! What a step decides by itself: when it divides its range and where, when it asks what is known, and that it stops when
//! the sweep is in other hands.

use super::listings::BeforeSecondListing;
use super::*;

type TestStep<'a, 'h> = Step<'a, FakeBucket<'h>, FailingLedger<'a>, WayOut, WayOut, FakeHost>;

fn claim_of(sweep: &SweepRef, token: &str, now: Timestamp) -> SweepClaim {
    let (sweep, token) = (sweep.clone(), token.to_owned());
    SweepClaim { sweep, token, now, until: now.plus_millis(CLAIM_MS) }
}

/// Has something done in a step of a sweep that was granted so, over a ledger whose coming calls fail so.
fn in_step<'h, T>(
    world: &World<'h>,
    sweep: &SweepRef,
    change: impl FnOnce(&mut SweepGrant),
    faults: Vec<Option<bool>>,
    act: impl FnOnce(&mut TestStep<'_, 'h>) -> T,
) -> T {
    let claim = claim_of(sweep, "t", world.host.now());
    let SweepReply::Granted(mut grant) = block_on(world.ledger.claim_sweep(&claim)).unwrap() else {
        panic!("not granted")
    };
    change(&mut grant);
    let ledger = FailingLedger { ledger: &world.ledger, faults: RefCell::new(faults) };
    let (notices, allowance) = (world.out.unused(), Allowance::of(1, 0));
    let ports = Ports {
        bucket: &world.bucket,
        ledger: &ledger,
        notices: &notices,
        host: world.host,
        allowance: &allowance,
        deadline: world.host.now().plus_millis(CLAIM_MS),
    };
    act(&mut Step::new(*grant, "t".to_owned(), 1, &ports))
}

#[test]
fn a_range_is_divided_in_its_first_pass_after_four_pages_and_into_no_more_than_there_may_be() {
    let (count, delete, verify) = (SweepPhase::Count, SweepPhase::Delete, SweepPhase::Verify);
    for (phase, passes, ranges, pages, others) in [
        (delete, 0, 1, 4, Some(5)),
        (count, 0, 1, 5, Some(5)),
        (verify, 0, 1, 4, None),
        (delete, 1, 1, 4, None),
        (delete, 0, 1, 3, None),
        (delete, 0, SWEEP_RANGES_MAX - 1, 4, Some(1)),
        (delete, 0, SWEEP_RANGES_MAX, 4, None),
    ] {
        let host = FakeHost::default();
        let world = World::new(&host, (0..6).map(|folder| format!("p/{folder}/a")));
        let sweep = SweepRef::first(&world.accept(&Asked::prefixes(["p/"])), 0);
        let change = |grant: &mut SweepGrant| (grant.phase, grant.ranges) = (phase, ranges);
        let cursor = Some(Cursor("p/0/a".to_owned()));
        let mut progress = SweepProgress { cursor, passes, pages, ..SweepProgress::default() };
        let split = in_step(&world, &sweep, change, Vec::new(), |step| block_on(step.divide(&mut progress)));
        assert_eq!(split.map(|(_, others)| others.len()), others, "{phase:?} {passes} {ranges} {pages}");
    }
}

#[test]
fn a_step_knows_how_many_ranges_there_are_when_it_has_divided_its_own() {
    let host = FakeHost::default();
    let mut world = World::new(&host, (0..54).map(|n| format!("p/{}/{n:02}", n / 9)));
    world.bucket.list_max = 7;
    let sweep = SweepRef::first(&world.accept(&Asked::prefixes(["p/"])), 0);
    let known = in_step(
        &world,
        &sweep,
        |_| {},
        Vec::new(),
        |step| {
            let then = block_on(step.work());
            block_on(step.finish(then));
            step.grant.ranges
        },
    );
    let next = SweepRef { sweep: 1, ..sweep };
    assert!(known > 2, "{known}");
    in_step(&world, &next, |_| {}, Vec::new(), |step| assert_eq!(step.grant.ranges, known));
}

/// The last key listed is a folder's own object: the folder is at hand already.
#[test]
fn no_range_is_cut_where_it_is_at() {
    let host = FakeHost::default();
    let bucket = FakeBucket::new(&host, ["p/0/", "p/0/a", "p/1/a", "p/2/a"].map(str::to_owned));
    let (range, deadline) = (SweepRange::of("p/"), host.now().plus_millis(CLAIM_MS));
    let allowance = Allowance::of(1, 0);
    let (cuts, _) = block_on(divide(&range, "p/0/", 8, deadline, &allowance, &bucket, &host));
    assert_eq!(cuts, ["p/1/", "p/2/"]);
}

/// It is asked by a ledger that refuses to say.
#[test]
fn what_is_known_is_asked_when_there_may_be_some_and_there_are_keys_to_ask_for() {
    for (has_known_keys, skipped, failed, [is_old, is_newer], asks) in [
        (false, 0, 0, [true, true], false),
        (true, 0, 0, [true, true], true),
        (false, 0, 1, [true, true], true),
        (false, 1, 0, [true, true], true),
        (true, 0, 0, [true, false], true),
        (true, 0, 0, [false, true], true),
        (true, 1, 1, [false, false], false),
    ] {
        let host = FakeHost::default();
        let world = World::new(&host, []);
        let sweep = SweepRef::first(&world.accept(&Asked::prefixes(["a/"])), 0);
        let change = |grant: &mut SweepGrant| grant.has_known_keys = has_known_keys;
        let mut old: Vec<_> = is_old.then(|| "a/1".to_owned()).into_iter().collect();
        let mut newer: Vec<_> = is_newer.then(|| ("a/2".to_owned(), host.now())).into_iter().collect();
        let asked = in_step(&world, &sweep, change, vec![Some(false)], |step| {
            step.report = SweepReport { skipped, failed, ..SweepReport::default() };
            block_on(step.leave_out_known(&mut old, &mut newer)).is_err()
        });
        assert_eq!(asked, asks, "{has_known_keys} {skipped} {failed} {is_old} {is_newer}");
    }
}

/// Who claims it is a machine whose clock is ahead.
#[test]
fn a_sweep_that_another_has_claimed_between_two_pages_deletes_no_further_page() {
    let host = FakeHost::default();
    let mut world = World::new(&host, numbered("a/", 30));
    world.bucket.list_max = 10;
    let sweep = SweepRef::first(&world.accept(&Asked::prefixes(["a/"])), 0);
    let happens = async || {
        let now = world.host.now().plus_millis(CLAIM_MS + MINUTE_MS);
        let reply = world.ledger.claim_sweep(&claim_of(&sweep, "another", now)).await.unwrap();
        assert!(matches!(reply, SweepReply::Granted(_)));
    };
    let settlements = world.handle_first(&BeforeSecondListing { bucket: &world.bucket, happens });
    assert!(matches!(settlements.of(0), Settlement::Retry { .. }));
    assert_eq!((world.objects().len(), world.bucket.calls.borrow().as_slice()), (20, &[10][..]));
}
