//! Sweeps between services that fail: whatever dies and whatever is refused, what was there goes, what came since
//! stays, and the counts are exact.

#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use crash::{Counts, Decision, Fault, Gate, Neighbours, Pair, QUEUE, R2Error, When, until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// Close to the prefix `sweep/`, and not within: what a wrong bound of a range would reach first.
const BYSTANDERS: [&str; 5] = ["swee", "sweep", "sweep.jpg", "sweep0", "sweep\u{10ffff}/a"];

/// Four pages, too few for the range to be divided.
const FEW: usize = 3_500;

/// Behind four pages the range is divided, and what is left of it is done in less than a step.
const DIVIDED: usize = 12_000;

/// A step does ten pages before it hands on.
const HANDED_ON: usize = 10_500;

fn key(at: usize) -> String {
    format!("sweep/k{at:05}")
}

/// A pair whose bucket holds `count` objects to sweep, and bystanders.
fn filled(count: usize) -> Result<Pair> {
    let pair = Pair::start()?;
    pair.bucket.upload((0..count).map(key));
    pair.bucket.upload(BYSTANDERS);
    Ok(pair)
}

/// Asks for the deletion, and gives its id.
fn accept(pair: &Pair, body: &Value) -> Result<String> {
    let reply = pair.call("POST", "/v1/deletions", Some(body))?;
    let id = reply.body["id"].as_str().filter(|_| reply.status == 202);
    Ok(id.with_context(|| format!("not accepted: {reply:?}"))?.to_owned())
}

/// Delivers until the deletion is final, and says how many rounds of upkeep that took.
fn finish(pair: &Pair, id: &str) -> Result<usize> {
    for rounds in 0..4 {
        pair.settle()?;
        if !pair.status(id)?["finished_at"].is_null() {
            return Ok(rounds);
        }
        pair.clock.skip(Duration::from_mins(11));
        pair.dispatcher()?.cron()?;
    }
    bail!("not final after four rounds of upkeep: {}\n{}", pair.status(id)?, pair.log())
}

fn assert_left(pair: &Pair, uploaded_since: &[String]) {
    let left: BTreeSet<String> = pair.bucket.keys().into_iter().collect();
    let expected = BYSTANDERS.iter().map(|&key| key.to_owned()).chain(uploaded_since.iter().cloned());
    assert_eq!(left, expected.collect());
}

/// Has the range swept by one consumer alone, which hands it on then: nobody finds out where it could be divided, neither after
/// four pages nor after eight.
fn leave_whole(pair: &Pair) {
    for listed in [4, 10] {
        pair.bucket.fail("list", listed, 2, Fault::refused(10_001));
    }
}

/// When the consumer dies.
struct Death {
    /// In words.
    when: &'static str,
    /// How many objects there are.
    count: usize,
    /// Has the call wait at the gate that it dies in.
    plan: fn(&Pair, &Gate),
    /// What the ledger must know by then, so that it was that moment: how many ranges there are, the step of the first,
    /// and how many keys are found.
    then: [u32; 3],
    /// And how many calls have deleted.
    deletes: usize,
    /// Which object is uploaded again while nobody works.
    again: usize,
    /// How many of the two objects that come meanwhile the sweep still finds, and leaves alone.
    skipped: u64,
    /// Whether a message is lost with the dead, so that upkeep has to help.
    loses_message: bool,
}

/// What is in each turn of a sweep, and in nothing else that the consumer asks of the ledger while it sweeps.
const TURN: &str = "UPDATE sweeps";

impl Default for Death {
    fn default() -> Self {
        Self {
            when: "it deletes the second page",
            count: FEW,
            plan: |_, _| (),
            then: [1, 0, 2_000],
            deletes: 2,
            again: 1_500,
            skipped: 2,
            loses_message: false,
        }
    }
}

/// 1. The consumer is killed in the middle of a sweep. 2. While nobody works, an object of it is uploaded again, and
///    one comes at its end. 3. The runtime starts again, and what messages there are come again.
///
/// What was there is gone and counted once; the two that came stay, and are told as far as they were found.
#[test]
fn a_consumer_that_dies_in_the_middle_of_a_sweep_loses_nothing_and_counts_nothing_twice() -> Result<()> {
    let deletes = |plan| Death { plan, ..Death::default() };
    for death in [
        Death {
            when: "it lists the first page",
            plan: |pair, gate| pair.bucket.fail("list", 0, 1, Fault::stalled(When::Before, gate)),
            then: [1, 0, 0],
            deletes: 0,
            ..Death::default()
        },
        Death {
            when: "it lists the second page",
            plan: |pair, gate| pair.bucket.fail("list", 1, 1, Fault::stalled(When::Before, gate)),
            then: [1, 0, 1_000],
            deletes: 1,
            ..Death::default()
        },
        Death {
            when: "it has written down the second page",
            plan: |pair, gate| pair.database.fail("consumer", TURN, 1, 1, Fault::stalled(When::After, gate)),
            then: [1, 0, 2_000],
            deletes: 1,
            ..Death::default()
        },
        deletes(|pair, gate| pair.bucket.fail("delete", 1, 1, Fault::stalled(When::Before, gate))),
        deletes(|pair, gate| pair.bucket.fail("delete", 1, 1, Fault::stalled(When::Halfway, gate))),
        deletes(|pair, gate| pair.bucket.fail("delete", 1, 1, Fault::stalled(When::After, gate))),
        Death {
            when: "it has divided the range, and sent no message of the other",
            count: DIVIDED,
            plan: |pair, gate| {
                let fault = Fault::stalled(When::After, gate);
                pair.database.fail("consumer", "INSERT INTO sweeps", 0, 1, fault);
            },
            then: [2, 0, 5_000],
            deletes: 4,
            again: 4_500,
            loses_message: true,
            ..Death::default()
        },
        Death {
            when: "it has handed on, and not sent the message",
            count: HANDED_ON,
            plan: |pair, gate| {
                leave_whole(pair);
                pair.database.fail("consumer", TURN, 10, 1, Fault::stalled(When::After, gate));
            },
            then: [1, 1, 10_000],
            deletes: 10,
            skipped: 1,
            loses_message: true,
            ..Death::default()
        },
        Death {
            when: "it has handed on, and the message is sent",
            count: HANDED_ON,
            plan: |pair, gate| {
                leave_whole(pair);
                pair.queue.fail_sends(0, 1, Fault::stalled(When::After, gate));
            },
            then: [1, 1, 10_000],
            deletes: 10,
            skipped: 1,
            ..Death::default()
        },
        Death {
            when: "it has ended the sweep, and does not know it",
            plan: |pair, gate| pair.database.fail("consumer", TURN, 4, 1, Fault::stalled(When::After, gate)),
            then: [1, 0, 3_500],
            deletes: 4,
            skipped: 0,
            ..Death::default()
        },
    ] {
        dies(&death).with_context(|| format!("the consumer dies when {}", death.when))?;
    }
    Ok(())
}

fn dies(death: &Death) -> Result<()> {
    let &Death { count, plan, then, deletes, again, skipped, .. } = death;
    let mut pair = filled(count)?;
    let id = accept(&pair, &json!({"prefixes": ["sweep/"]}))?;
    let gate = Gate::new();
    plan(&pair, &gate);
    ensure!(pair.kill_at(&gate, QUEUE)?, "it was not killed");
    // What the dead had asked for is carried out all the same.
    until("the dead's calls", PATIENCE, || Ok((pair.bucket.deletes().len() == deletes).then_some(())))?;
    let sql = "SELECT (SELECT COUNT(*) FROM sweeps), (SELECT step FROM sweeps WHERE sweep = 0), SUM(keys) FROM chunks";
    let known: Vec<[u32; 3]> =
        pair.database.query(sql, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?;
    ensure!(known == [then], "it died at another moment: {known:?}");

    let uploaded = [key(again), "sweep/last".to_owned()];
    pair.bucket.upload(uploaded.clone());
    let rounds = finish(&pair, &id)?;
    ensure!(rounds == usize::from(death.loses_message), "it took {rounds} rounds of upkeep");
    let total = count as u64 + skipped.min(1);
    let counts = Counts { total, deleted: total - skipped, skipped, ..Counts::default() };
    ensure!(pair.progress(&id)? == ("succeeded".to_owned(), counts), "{}", pair.status(&id)?);
    ensure!(told(&pair, &id)? == uploaded[2 - usize::try_from(skipped)?..], "{:?}", told(&pair, &id)?);
    assert_left(&pair, &uploaded);
    Ok(())
}

/// The keys that were left alone, in the order of their names.
fn told(pair: &Pair, id: &str) -> Result<Vec<String>> {
    let skipped = pair.skipped(id)?;
    let mut keys: Vec<_> = skipped.iter().filter_map(|skip| Some(skip["key"].as_str()?.to_owned())).collect();
    keys.sort_unstable();
    Ok(keys)
}

/// 1. A sweep waits to delete its first page. 2. Meanwhile an object of its third is uploaded again, and two come
///    before and behind all. 3. They stay, and the two that it still comes to are told.
#[test]
fn what_is_uploaded_during_a_sweep_stays() -> Result<()> {
    let pair = filled(FEW)?;
    let id = accept(&pair, &json!({"prefixes": ["sweep/"], "verify": true}))?;
    let gate = Gate::new();
    pair.bucket.fail("delete", 0, 1, Fault::stalled(When::Before, &gate));
    let uploaded = ["sweep/a".to_owned(), key(2_500), "sweep/last".to_owned()];
    thread::scope(|scope| {
        let delivery = scope.spawn(|| pair.deliver_once(QUEUE));
        gate.arrived(1, PATIENCE)?;
        pair.bucket.upload(uploaded.clone());
        gate.open();
        let Ok(delivered) = delivery.join() else { bail!("the delivery panicked") };
        delivered.map(drop)
    })?;
    assert_eq!(finish(&pair, &id)?, 0);
    let counts = Counts { total: 3_501, deleted: 3_499, skipped: 2, ..Counts::default() };
    assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), counts));
    assert_eq!(told(&pair, &id)?, uploaded[1..]);
    let verification = &pair.status(&id)?["verification"];
    assert_eq!((&verification["objects_left"], &verification["uploaded_since"]), (&json!(0), &json!(3)));
    assert_left(&pair, &uploaded);
    Ok(())
}

/// One is within the other, so that each finds objects that the other is about to delete.
#[test]
fn two_sweeps_of_the_same_objects_at_once_both_succeed_and_touch_nothing_else() -> Result<()> {
    let pair = filled(0)?;
    let inner: Vec<_> = (0..5_500).map(|at| format!("sweep/inner/{at:05}")).collect();
    let outer: Vec<_> = (0..2_500).map(|at| format!("sweep/outer{at:05}")).collect();
    pair.bucket.upload(inner.iter().chain(&outer).cloned());
    let ids = [json!(["sweep/"]), json!(["sweep/inner/"])]
        .map(|prefixes| accept(&pair, &json!({ "prefixes": prefixes })));
    let gate = Gate::new();
    // Neither goes on before the other has begun.
    pair.bucket.fail("list", 0, 2, Fault::stalled(When::Before, &gate));
    thread::scope(|scope| {
        let deliveries = scope.spawn(|| pair.settle());
        gate.arrived(2, PATIENCE)?;
        gate.open();
        let Ok(delivered) = deliveries.join() else { bail!("the delivery panicked") };
        delivered
    })?;
    let mut found = Vec::new();
    for id in ids {
        let id = id?;
        assert_eq!(finish(&pair, &id)?, 0);
        let (state, counts) = pair.progress(&id)?;
        assert_eq!((state.as_str(), counts), ("succeeded", Counts::all_deleted(counts.total)));
        found.push(usize::try_from(counts.total)?);
    }
    assert!(found[0] >= outer.len() && found[0] <= outer.len() + inner.len(), "{found:?}");
    assert!(found[1] > 0 && found[1] <= inner.len(), "{found:?}");
    assert!(found[0] + found[1] >= inner.len() + outer.len(), "{found:?}");
    assert_left(&pair, &[]);
    Ok(())
}

#[test]
fn a_listing_that_fails_for_a_while_is_asked_for_again() -> Result<()> {
    let faults = [10_001, 10_043, 10_058].map(Fault::refused);
    for fault in faults.into_iter().chain([Fault::refused(R2Error::BARE), Fault::dropped(When::Before)]) {
        let pair = filled(FEW)?;
        let id = accept(&pair, &json!({"prefixes": ["sweep/"]}))?;
        pair.bucket.fail("list", 2, 3, fault);
        assert_eq!(finish(&pair, &id)?, 0);
        assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(FEW as u64)));
        assert_left(&pair, &[]);
    }
    Ok(())
}

/// Takes as long as the consumer waits for one call, half a minute.
#[test]
fn a_listing_that_is_not_answered_in_time_is_given_up_and_asked_for_again() -> Result<()> {
    let pair = filled(FEW)?;
    let gate = Gate::new();
    pair.bucket.fail("list", 1, 1, Fault::stalled(When::Before, &gate));
    let id = accept(&pair, &json!({"prefixes": ["sweep/"]}))?;
    let (batch, delivered) = pair.deliver_once(QUEUE)?;
    let decision = delivered.decision(&batch[0].id);
    assert!(matches!(decision, Decision::Retried { delay: Some(1..) }), "{decision:?}");
    gate.open();
    assert_eq!(pair.progress(&id)?.1, Counts { total: 1_000, deleted: 1_000, ..Counts::default() });
    assert_eq!(finish(&pair, &id)?, 0);
    assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(FEW as u64)));
    assert_left(&pair, &[]);
    Ok(())
}

/// What was found until then is deleted; that the rest is not known is a failure of the prefix.
#[test]
fn a_bucket_that_cannot_be_listed_fails_the_prefix_when_the_attempts_are_over() -> Result<()> {
    let pair = filled(FEW)?;
    let id = accept(&pair, &json!({"prefixes": ["sweep/"]}))?;
    pair.bucket.fail("list", 2, usize::MAX, Fault::refused(10_001));
    assert_eq!(finish(&pair, &id)?, 0);
    let counts = Counts { total: 2_001, deleted: 2_000, failed: 1, ..Counts::default() };
    assert_eq!(pair.progress(&id)?, ("failed".to_owned(), counts));
    let failures = pair.failures(&id)?;
    assert_eq!((&failures[0]["key"], &failures[0]["code"]), (&json!("sweep/"), &json!("sweep_incomplete")));
    assert_eq!(pair.bucket.keys().len(), FEW - 2_000 + BYSTANDERS.len());
    Ok(())
}

/// A locked object is found by each pass and told once, and is what a look at the end finds.
#[test]
fn a_locked_object_fails_alone_and_is_what_is_left() -> Result<()> {
    let pair = filled(FEW)?;
    let locked = key(1_234);
    pair.bucket.lock([locked.clone()], Neighbours::Kept);
    let id = accept(&pair, &json!({"prefixes": ["sweep/"], "verify": true}))?;
    assert_eq!(finish(&pair, &id)?, 0);
    let counts = Counts { total: 3_500, deleted: 3_499, failed: 1, ..Counts::default() };
    assert_eq!(pair.progress(&id)?, ("failed".to_owned(), counts));
    let failures = pair.failures(&id)?;
    assert_eq!((&failures[0]["key"], &failures[0]["code"]), (&json!(locked), &json!("object_locked")));
    let verification = &pair.status(&id)?["verification"];
    assert_eq!((&verification["objects_left"], &verification["uploaded_since"]), (&json!(1), &json!(0)));
    assert_left(&pair, &[locked]);
    Ok(())
}

/// Nothing is deleted before all is counted, and what cannot be counted is not deleted.
#[test]
fn a_bucket_that_cannot_be_listed_deletes_nothing_where_it_is_counted_first() -> Result<()> {
    let pair = filled(FEW)?;
    let id = accept(&pair, &json!({"prefixes": ["sweep/", "sweep."], "max_objects": 10_000}))?;
    // One page of each prefix, and then all attempts of the first to go on.
    pair.bucket.fail("list", 2, 21, Fault::refused(10_001));
    assert_eq!(finish(&pair, &id)?, 0);
    assert_eq!(pair.progress(&id)?.0, "failed");
    assert_eq!(pair.failures(&id)?[0]["code"], "sweep_incomplete");
    assert_eq!(pair.bucket.deletes().len(), 0);
    Ok(())
}
