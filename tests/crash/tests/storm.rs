//! Everything at once, at random: faults of every service, duplicates and kills, until the pair has finished its work.
//!
//! A run is one seed. `CRASH_RUNS` says how many runs, `CRASH_SEED` the first seed; a failing run prints its own. `CRASH_REPORT`
//! names a file that gets a line of JSON for each run: what was done in it.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use crash::{Counts, D1Error, Endpoint, Fault, Gate, Pair, QUEUE, QueueError, R2Error, When};
use serde_json::{Value, json};

const RUNS: u64 = 6;
const BYSTANDERS: usize = 200;

/// `SplitMix64`: small, and the same on every machine. It counts what it was drawn for.
struct Random(u64, Told);

/// What was done in a run.
#[derive(Default)]
struct Told {
    /// The runtime was killed in the middle of a delivery.
    kills: u64,
    /// A batch was delivered twice, at once or one after the other.
    doubled: u64,
    /// Faults that were laid for the services' next calls; not all of them are met.
    faults: u64,
    /// Keys that were to be deleted.
    keys: u64,
}

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap_or_default()
    }

    fn when(&mut self) -> When {
        [When::Before, When::Halfway, When::After].into_iter().nth(self.below(3)).unwrap_or(When::Before)
    }

    /// A fault at any point of a call: an error, or a connection that breaks.
    fn fault<E>(&mut self, error: E) -> Fault<E> {
        self.1.faults += 1;
        let when = self.when();
        if self.below(3) == 0 { Fault::dropped(when) } else { Fault { when, ..Fault::refused(error) } }
    }
}

#[test]
fn no_key_is_lost_and_no_bystander_touched_whatever_fails() -> Result<()> {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (first, runs) = (number("CRASH_SEED", 1), number("CRASH_RUNS", RUNS));
    for seed in first..first + runs {
        let mut random = Random(seed, Told::default());
        run(&mut random).with_context(|| format!("CRASH_SEED={seed} CRASH_RUNS=1 repeats this run"))?;
        report(&random.1)?;
    }
    Ok(())
}

fn report(told: &Told) -> Result<()> {
    let Some(path) = std::env::var_os("CRASH_REPORT") else { return Ok(()) };
    let Told { kills, doubled, faults, keys } = told;
    let line = json!({
        "runs": 1, "kills": kills, "deliveries doubled": doubled, "faults laid": faults, "keys": keys,
        "bystanders": BYSTANDERS,
    });
    let mut file = std::fs::File::options().append(true).create(true).open(path)?;
    writeln!(file, "{line}")?;
    Ok(())
}

fn run(random: &mut Random) -> Result<()> {
    let endpoint = Endpoint::start()?;
    let mut pair = Pair::start_with_notices(&endpoint)?;
    pair.bucket.upload((0..BYSTANDERS).map(bystander));
    let (mut deletions, mut uploaded_again) = (Vec::new(), Vec::new());
    for number in 0..3 {
        let (fence, most) = if random.below(2) == 0 { ("auto", 1_500) } else { ("always", 500) };
        let keys: Vec<_> = (0..=random.below(most)).map(|at| format!("storm/{at}/{number}")).collect();
        pair.bucket.upload(keys.clone());
        plan_faults(&pair, random);
        endpoint.fail(random.below(3), random.below(4), random.fault(500_u16));
        let id = accept(&pair, &json!({"objectKeys": keys, "fence": fence}))?;
        for _ in 0..=random.below(3) {
            disturb(&mut pair, random)?;
            // Where the fence looks, what is uploaded between the deliveries stays.
            if fence == "always" {
                let again: Vec<_> =
                    (0..10).filter_map(|_| keys.get(random.below(keys.len()))).cloned().collect();
                pair.bucket.upload(again.clone());
                uploaded_again.extend(again);
            }
        }
        // What is uploaded after the end stays, however often the messages come again.
        if pair.progress(&id)?.0 == "succeeded" {
            let again: Vec<_> = keys.iter().take(50).cloned().collect();
            pair.bucket.upload(again.clone());
            uploaded_again.extend(again);
        }
        deletions.push((id, keys.len() as u64));
    }
    deletions.push(sweep(&mut pair, random, &mut uploaded_again)?);
    finish(&pair)?;
    for (id, total) in deletions {
        random.1.keys += total;
        let (state, counts) = pair.progress(&id)?;
        let skipped = pair.skipped(&id)?.len() as u64;
        let expected = Counts { total, deleted: total - skipped, skipped, ..Counts::default() };
        let is_expected = state == "succeeded" && counts == expected;
        anyhow::ensure!(is_expected, "{}\n{:?}", pair.status(&id)?, pair.failures(&id)?);
    }
    for id in pair.deletions()? {
        // Reading it checks that the counts add up; what was refused and tried again may have been carried out in part.
        let counts = pair.progress(&id)?.1;
        anyhow::ensure!(counts.failed == 0, "{counts:?}");
    }
    every_end_is_told(&pair, &endpoint)?;

    let mut expected: Vec<_> = (0..BYSTANDERS).map(bystander).chain(uploaded_again).collect();
    expected.sort_unstable();
    let left = pair.bucket.keys();
    let (lost, stray): (Vec<_>, Vec<_>) = (differ(&expected, &left), differ(&left, &expected));
    anyhow::ensure!(
        lost.is_empty() && stray.is_empty(),
        "deleted but not asked for: {lost:?}; left: {stray:?}"
    );
    Ok(())
}

/// A deletion by prefix that goes wrong, and how many keys it finds. What is uploaded between the deliveries stays: each of its
/// keys is either deleted or left alone, once.
fn sweep(pair: &mut Pair, random: &mut Random, uploaded_again: &mut Vec<String>) -> Result<(String, u64)> {
    let keys: Vec<_> = (0..=random.below(3_000)).map(|at| format!("storm/swept/{at}")).collect();
    pair.bucket.upload(keys.clone());
    plan_faults(pair, random);
    let id = accept(pair, &json!({"prefixes": ["storm/swept/"]}))?;
    for _ in 0..=random.below(4) {
        disturb(pair, random)?;
        let again: Vec<_> = (0..10).filter_map(|_| keys.get(random.below(keys.len()))).cloned().collect();
        pair.bucket.upload(again.clone());
        uploaded_again.extend(again);
    }
    Ok((id, keys.len() as u64))
}

/// Delivers until all is done. A record that did not get through leaves its claim, and what is left is done as if nothing had
/// happened; the message of a sweep that was lost takes a round of upkeep.
fn finish(pair: &Pair) -> Result<()> {
    let unfinished = "SELECT COUNT(*) FROM sweeps JOIN deletions ON id = deletion
        WHERE sweeps.finished_at IS NULL AND cancelled_at IS NULL";
    pair.settle()?;
    for _ in 0..4 {
        if pair.database.query(unfinished, [], |row| row.get::<_, i64>(0))? == [0] {
            return Ok(());
        }
        pair.queue.heal();
        pair.clock.skip(Duration::from_mins(11));
        pair.dispatcher()?.cron()?;
        pair.settle()?;
    }
    anyhow::bail!("a sweep is not over after four rounds of upkeep:\n{}", pair.log())
}

/// Whatever was lost on the way, two rounds of upkeep later: of each deletion at least one notice, and each of how it ended.
fn every_end_is_told(pair: &Pair, endpoint: &Endpoint) -> Result<()> {
    pair.queue.heal();
    for _ in 0..2 {
        pair.clock.skip(Duration::from_mins(11));
        pair.dispatcher()?.cron()?;
        pair.settle()?;
    }
    let received = endpoint.received()?;
    for id in pair.deletions()? {
        let (webhook_id, end) = (format!("{id}_0"), pair.status(&id)?);
        let mut told = received.iter().filter(|notice| notice.id == webhook_id).peekable();
        anyhow::ensure!(told.peek().is_some(), "not told: {end}\n{}", pair.log());
        for notice in told {
            let data = notice.body.get("data");
            anyhow::ensure!(data == Some(&end), "told {data:?}, and it ended as {end}");
        }
    }
    let owed = pair.database.query("SELECT COUNT(*) FROM notices", [], |row| row.get::<_, i64>(0))?;
    anyhow::ensure!(owed == [0], "{owed:?} notices are owed still");
    Ok(())
}

fn bystander(at: usize) -> String {
    // Every other is close to the prefix that is swept.
    if at.is_multiple_of(2) { format!("storm/{at}/bystander") } else { format!("storm/swept-{at}/bystander") }
}

/// What is in the one and not in the other.
fn differ(one: &[String], other: &[String]) -> Vec<String> {
    one.iter().filter(|key| other.binary_search(key).is_err()).cloned().collect()
}

/// A few faults for the next calls of each service.
fn plan_faults(pair: &Pair, random: &mut Random) {
    for (method, most) in [("delete", 6), ("head", 100), ("list", 8)] {
        for _ in 0..random.below(4) {
            let code = [10_001, 10_043, 10_054, 10_058].into_iter().nth(random.below(4)).unwrap_or(10_001);
            let error = if random.below(6) == 0 { R2Error::BARE } else { code.into() };
            pair.bucket.fail(method, random.below(most), 1 + random.below(2), random.fault(error));
        }
    }
    for _ in 0..random.below(3) {
        pair.database.fail(
            "consumer",
            "",
            random.below(8),
            1 + random.below(2),
            random.fault(D1Error::reset()),
        );
    }
    if random.below(2) == 0 {
        let code = [10_250, 10_251, 15_000].into_iter().nth(random.below(3)).unwrap_or(15_000);
        pair.queue.fail_sends(random.below(2), 1, random.fault(QueueError::from(code)));
    }
}

/// Asks until it is accepted, as a client would.
fn accept(pair: &Pair, body: &Value) -> Result<String> {
    for _ in 0..8 {
        let reply = pair.call("POST", "/v1/deletions", Some(body))?;
        if let Some(id) = reply.body.get("id").and_then(|id| id.as_str()).filter(|_| reply.status == 202) {
            return Ok(id.to_owned());
        }
        anyhow::ensure!(matches!(reply.status, 429 | 503), "{reply:?}");
    }
    anyhow::bail!("not accepted in eight requests")
}

/// A delivery that goes wrong: twice, twice at once, or cut short by a kill.
fn disturb(pair: &mut Pair, random: &mut Random) -> Result<()> {
    if pair.queue.idle_for().is_none() {
        return Ok(());
    }
    pair.clock.skip(pair.queue.idle_for().unwrap_or_default());
    let gate = Gate::new();
    match random.below(4) {
        0 => kill(pair, random, &gate)?,
        1 => {
            random.1.doubled += 1;
            let batch = pair.queue.take(QUEUE, 1 + random.below(10));
            let dispatcher = pair.dispatcher()?;
            let (first, second) = thread::scope(|scope| {
                let first = scope.spawn(|| dispatcher.deliver(QUEUE, &batch));
                let second = dispatcher.deliver(QUEUE, &batch);
                (first.join(), second)
            });
            let Ok(first) = first else { anyhow::bail!("a delivery panicked") };
            second?;
            pair.queue.settle(QUEUE, &batch, &first?);
        }
        2 => {
            random.1.doubled += 1;
            let (batch, _) = pair.deliver_once(QUEUE)?;
            pair.dispatcher()?.deliver(QUEUE, &batch)?;
        }
        _ => drop(pair.deliver_once(QUEUE)?),
    }
    Ok(())
}

/// A kill at a delete, a listing, a claim or a record of the next delivery, if that delivery comes so far.
fn kill(pair: &mut Pair, random: &mut Random, gate: &Gate) -> Result<()> {
    pair.bucket.heal();
    pair.database.heal();
    let stalled = random.when();
    match random.below(4) {
        0 => pair.bucket.fail_deletes(1, Fault::stalled(stalled, gate)),
        1 => pair.bucket.fail("list", random.below(3), 1, Fault::stalled(stalled, gate)),
        2 => pair.database.fail("consumer", "INSERT INTO chunks", 0, 1, Fault::stalled(stalled, gate)),
        _ => pair.database.fail("consumer", "UPDATE chunks", 0, 1, Fault::stalled(stalled, gate)),
    }
    random.1.kills += u64::from(pair.kill_at(gate, QUEUE)?);
    pair.bucket.heal();
    pair.database.heal();
    Ok(())
}
