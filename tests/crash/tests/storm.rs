//! Everything at once, at random: faults of every service, messages that cannot be read, duplicates, traps of the wasm, processes
//! that are replaced, and kills, until the pair has finished its work.
//!
//! A run is one seed: it draws what is done, and in which order; what of it meets what depends on the processes' own time too.
//! `CRASH_RUNS` says how many runs, `CRASH_SEED` the first seed, `CRASH_JOBS` how many at once; a failing run prints its own.
//! `CRASH_REPORT` names a file that gets a line of JSON for each run: what was done in it, and what came of it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use crash::{
    Body, Counts, D1Error, Endpoint, Fault, Gate, Pair, QUEUE, QueueError, R2Error, Setup, Trap, When,
};
use serde_json::{Value, json};

const RUNS: u64 = 6;
const JOBS: u64 = 3;
const BYSTANDERS: usize = 200;
/// A message that has been delivered so often gets no more of what goes wrong: at 21 deliveries it would rightly fail.
const ATTEMPTS_DISTURBED_MAX: u16 = 12;

/// `SplitMix64`: small, and the same on every machine. It counts what it was drawn for.
struct Random(u64, Told);

/// What was done in a run, and what came of it, by name.
#[derive(Default)]
struct Told(BTreeMap<String, u64>);

impl Told {
    fn add(&mut self, what: &str, count: impl TryInto<u64>) {
        *self.0.entry(what.to_owned()).or_default() += count.try_into().unwrap_or(u64::MAX);
    }
}

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap_or_default()
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> Result<&'a T> {
        of.get(self.below(of.len().max(1))).context("nothing to pick from")
    }

    fn when(&mut self) -> When {
        [When::Before, When::Halfway, When::After].into_iter().nth(self.below(3)).unwrap_or(When::Before)
    }

    /// A fault at any point of a call: an error, or a connection that breaks.
    fn fault<E>(&mut self, error: E) -> Fault<E> {
        let when = self.when();
        if self.one_in(3) { Fault::dropped(when) } else { Fault { when, ..Fault::refused(error) } }
    }
}

#[test]
fn no_key_is_lost_and_no_bystander_touched_whatever_fails() -> Result<()> {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (first, runs) = (number("CRASH_SEED", 1), number("CRASH_RUNS", RUNS));
    let (next, report) = (AtomicU64::new(first), Mutex::new(()));
    let worker = || -> Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + runs {
                return Ok(());
            }
            let mut random = Random(seed, Told::default());
            let outcome = run(&mut random);
            if outcome.is_err() {
                random.1.add("runs that failed", 1_u64);
            }
            let written = report.lock().map_err(|_| anyhow::anyhow!("another run has panicked"));
            written.and_then(|_| write_report(&random.1))?;
            outcome.with_context(|| format!("CRASH_SEED={seed} CRASH_RUNS=1 repeats this run")).inspect_err(
                // At once, and not when all other runs are over.
                |error| drop(writeln!(std::io::stderr(), "{error:#}")),
            )?;
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..number("CRASH_JOBS", JOBS)).map(|_| scope.spawn(worker)).collect();
        let ended =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| bail!("a run panicked")));
        let failed: Vec<_> = ended.filter_map(Result::err).map(|error| format!("{error:#}")).collect();
        ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
        Ok(())
    })
}

fn write_report(told: &Told) -> Result<()> {
    let Some(path) = std::env::var_os("CRASH_REPORT") else { return Ok(()) };
    let line = serde_json::to_string(&told.0)?;
    let mut file = std::fs::File::options().append(true).create(true).open(path)?;
    writeln!(file, "{line}")?;
    Ok(())
}

/// A deletion that was accepted.
struct Accepted {
    id: String,
    /// How many keys it was to delete.
    keys: u64,
    /// Whether another deletion may have found some of them first: of a request by prefix that died, and was made again.
    may_find_less: bool,
}

fn run(random: &mut Random) -> Result<()> {
    let endpoint = Endpoint::start()?;
    let traps = draw_traps(random);
    let setup = Setup { endpoint: Some(endpoint.clone()), traps, ..Setup::default() };
    let mut pair = Pair::set_up(setup)?;
    pair.bucket.upload((0..BYSTANDERS).map(bystander));
    random.1.add("runs", 1_u64);
    let (mut deletions, mut uploaded_again, mut poison) = (Vec::new(), Vec::new(), 0);
    for number in 0..3 {
        deletions.push(delete(&mut pair, &endpoint, random, number, &mut uploaded_again)?);
        poison += send_poison(&pair, random, &deletions)?;
    }
    deletions.push(sweep(&mut pair, &endpoint, random, &mut uploaded_again)?);
    finish(&pair)?;
    tell(&pair, random);
    judge(&pair, random, &deletions, uploaded_again)?;
    let kept = pair.unreadable_messages()?.len();
    ensure!(kept == poison, "{poison} messages could not be read, and {kept} are kept");
    every_end_is_told(&pair, &endpoint)
}

/// A trap somewhere in each process's first calls, in one run of two.
fn draw_traps(random: &mut Random) -> Vec<Trap> {
    let mut traps = Vec::new();
    if random.one_in(2) {
        let methods = ["batch", "delete", "head", "list", "ack", "retry", "setTimeout"];
        for _ in 0..=random.below(2) {
            let method = methods.into_iter().nth(random.below(methods.len())).unwrap_or("batch");
            traps.push(Trap::at("consumer", method).sparing(random.below(10)));
        }
        traps.push(
            Trap::at("producer", if random.one_in(2) { "sendBatch" } else { "batch" })
                .sparing(random.below(20)),
        );
    }
    traps
}

/// A deletion by keys that goes wrong.
fn delete(
    pair: &mut Pair,
    endpoint: &Endpoint,
    random: &mut Random,
    number: usize,
    uploaded_again: &mut Vec<String>,
) -> Result<Accepted> {
    let (fence, count) = match random.below(4) {
        0 => ("auto", 1 + random.below(1_500)),
        1 => ("always", 1 + random.below(300)),
        // Several sends, with the long names.
        _ => ("auto", 1_200 + random.below(600)),
    };
    let stem = if count < 1_200 { "storm".to_owned() } else { format!("storm/{}", "long".repeat(50)) };
    let keys: Vec<_> = (0..count).map(|at| format!("{stem}/{at}/{number}")).collect();
    pair.bucket.upload(keys.clone());
    plan_faults(pair, random);
    endpoint.fail(random.below(3), random.below(4), random.fault(500_u16));
    let (id, is_alone) = accept(pair, random, &json!({"objectKeys": keys, "fence": fence}))?;
    for _ in 0..2 + random.below(4) {
        disturb(pair, endpoint, random)?;
        // Where the fence looks, what is uploaded between the deliveries stays.
        if fence == "always" {
            upload_again(pair, random, &keys, uploaded_again)?;
        }
    }
    // What is uploaded after the end stays, however often the messages come again. A request that died without an
    // Idempotency-Key and was made a second time is two deletions, and one of them may not have begun.
    if is_alone && pair.progress(&id)?.0 == "succeeded" {
        let again: Vec<_> = keys.iter().take(50).cloned().collect();
        pair.bucket.upload(again.clone());
        uploaded_again.extend(again);
    }
    Ok(Accepted { id, keys: keys.len() as u64, may_find_less: false })
}

/// A deletion by prefix that goes wrong, and how many keys it finds. What is uploaded between the deliveries stays: each of its
/// keys is either deleted or left alone, once.
fn sweep(
    pair: &mut Pair,
    endpoint: &Endpoint,
    random: &mut Random,
    uploaded_again: &mut Vec<String>,
) -> Result<Accepted> {
    let keys: Vec<_> = (0..=random.below(3_000)).map(|at| format!("storm/swept/{at}")).collect();
    pair.bucket.upload(keys.clone());
    plan_faults(pair, random);
    let (id, is_alone) = accept(pair, random, &json!({"prefixes": ["storm/swept/"]}))?;
    for _ in 0..2 + random.below(4) {
        disturb(pair, endpoint, random)?;
        upload_again(pair, random, &keys, uploaded_again)?;
    }
    Ok(Accepted { id, keys: keys.len() as u64, may_find_less: !is_alone })
}

fn upload_again(pair: &Pair, random: &mut Random, keys: &[String], all: &mut Vec<String>) -> Result<()> {
    for _ in 0..10 {
        let key = random.pick(keys)?.clone();
        pair.bucket.upload([key.clone()]);
        all.push(key);
    }
    Ok(())
}

/// Messages that are not ours: of another version, forged, or nothing at all. Their keys are the bystanders'.
fn send_poison(pair: &Pair, random: &mut Random, deletions: &[Accepted]) -> Result<usize> {
    let count = random.below(3);
    let id = &random.pick(deletions)?.id;
    for _ in 0..count {
        let key = pair.canary.key(&bystander(random.below(BYSTANDERS)));
        let forged = |version: u32, chunk: u32| {
            json!({
                "v": version, "deletion": id, "chunk": chunk, "generation": 0, "requested_at": 1, "fence": "off",
                "keys": [key],
            })
        };
        pair.queue.send(
            QUEUE,
            match random.below(4) {
                0 => Body::text(forged(2, 0).to_string()),
                1 => Body::text(forged(1, 900).to_string()),
                2 => Body::json(&forged(1, 0)),
                _ => Body::text(format!("[{key}")),
            },
        );
    }
    random.1.add("poison messages", count);
    Ok(count)
}

/// Delivers until all is done. A record that did not get through leaves its claim, and what is left is done as if nothing had
/// happened; the message of a sweep that was lost takes a round of upkeep, and a request that has died and that nobody has made
/// again a day.
fn finish(pair: &Pair) -> Result<()> {
    let unfinished = "SELECT COUNT(*) FROM sweeps JOIN deletions ON id = deletion
        WHERE sweeps.finished_at IS NULL AND cancelled_at IS NULL";
    let abandoned = "UPDATE deletions SET requested_at = requested_at - 2 * 86400000
        WHERE finished_at IS NULL AND NOT EXISTS (SELECT 1 FROM parts WHERE deletion = id AND enqueued_at IS NOT NULL)";
    pair.bucket.heal();
    pair.database.heal();
    pair.queue.heal();
    pair.settle()?;
    pair.database.execute(abandoned, [])?;
    pair.database.execute("UPDATE parts SET sending_until = 0", [])?;
    for round in 0..5 {
        if round > 0 && pair.database.query(unfinished, [], |row| row.get::<_, i64>(0))? == [0] {
            return Ok(());
        }
        upkeep(pair)?;
    }
    bail!("a sweep is not over after five rounds of upkeep:\n{}", pair.log())
}

/// Two rounds, because in one the wasm may run into a trap.
fn upkeep(pair: &Pair) -> Result<()> {
    pair.clock.skip(Duration::from_mins(11));
    let dispatcher = pair.dispatcher()?;
    dispatcher.cron().or_else(|_| dispatcher.cron()).or_else(|_| dispatcher.cron())?;
    pair.settle()
}

/// What the services have seen.
fn tell(pair: &Pair, random: &mut Random) {
    let met = pair.faults_met();
    random.1.add("errors of services", met.errors);
    random.1.add("connections broken", met.resets);
    random.1.add("calls stalled", met.stalls);
    random.1.add("done in part", met.in_part);
    random.1.add("traps of the wasm", pair.trapped());
    random.1.add("objects", pair.bucket.uploads());
    random.1.add("bystanders", BYSTANDERS);
}

/// Each key that was asked for is counted once and gone, or has been uploaded since; everything else is there.
fn judge(
    pair: &Pair,
    random: &mut Random,
    deletions: &[Accepted],
    uploaded_again: Vec<String>,
) -> Result<()> {
    let mut expected: Vec<_> = (0..BYSTANDERS).map(bystander).chain(uploaded_again).collect();
    expected.sort_unstable();
    let left = pair.bucket.keys();
    let (stray, mut lost) = (differ(&expected, &left), differ(&left, &expected).len() as u64);
    let (mut twice, mut wrong) = (0, Vec::new());
    for Accepted { id, keys, may_find_less } in deletions {
        let (state, counts) = pair.progress(id)?;
        let total = if *may_find_less { counts.total.min(*keys) } else { *keys };
        let skipped = pair.skipped(id)?.len() as u64;
        let outcomes = counts.deleted + counts.skipped + counts.failed + counts.cancelled;
        twice += outcomes.saturating_sub(total);
        lost += total.saturating_sub(outcomes);
        let exact = Counts { total, deleted: total - skipped, skipped, ..Counts::default() };
        if state != "succeeded" || counts != exact {
            wrong.push(format!("{} {:?}", pair.status(id)?, pair.failures(id)?));
        }
        random.1.add("keys", *keys);
    }
    random.1.add("lost", lost);
    random.1.add("stray", stray.len());
    random.1.add("counted twice", twice);
    for id in pair.deletions()? {
        // Reading it checks that the counts add up; what was refused and tried again may have been carried out in part.
        let (state, counts) = pair.progress(&id)?;
        if counts.failed > 0 || !matches!(state.as_str(), "succeeded" | "cancelled") {
            wrong.push(format!("{id} is {state}: {counts:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}\n{}", pair.log());
    ensure!(
        lost == 0 && stray.is_empty() && twice == 0,
        "lost {lost}, counted twice {twice}, stray: {stray:?}"
    );
    Ok(())
}

/// Whatever was lost on the way, two rounds of upkeep later: of each deletion at least one notice, and each of how it ended.
fn every_end_is_told(pair: &Pair, endpoint: &Endpoint) -> Result<()> {
    for _ in 0..2 {
        upkeep(pair)?;
    }
    let received = endpoint.received()?;
    for id in pair.deletions()? {
        let (webhook_id, end) = (format!("{id}_0"), pair.status(&id)?);
        let mut told = received.iter().filter(|notice| notice.id == webhook_id).peekable();
        ensure!(told.peek().is_some(), "not told: {end}\n{}", pair.log());
        for notice in told {
            let data = pair.in_own_names(notice.body.get("data").unwrap_or(&Value::Null));
            ensure!(data == end, "told {data}, and it ended as {end}");
        }
    }
    let owed = pair.database.query("SELECT COUNT(*) FROM notices", [], |row| row.get::<_, i64>(0))?;
    ensure!(owed == [0], "{owed:?} notices are owed still");
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

/// A few faults for the next calls of each service, and sometimes a ledger that is down for a whole delivery.
fn plan_faults(pair: &Pair, random: &mut Random) {
    for (method, most) in [("delete", 6), ("head", 100), ("list", 8)] {
        for _ in 0..random.below(4) {
            let code = [10_001, 10_043, 10_054, 10_058].into_iter().nth(random.below(4)).unwrap_or(10_001);
            let error = if random.one_in(6) { R2Error::BARE } else { code.into() };
            pair.bucket.fail(method, random.below(most), 1 + random.below(2), random.fault(error));
        }
    }
    for _ in 0..random.below(3) {
        let times = if random.one_in(5) { 12 } else { 1 + random.below(2) };
        pair.database.fail("consumer", "", random.below(8), times, random.fault(D1Error::reset()));
    }
    if random.one_in(3) {
        pair.database.fail("producer", "INSERT INTO", random.below(3), 1, random.fault(D1Error::reset()));
    }
    if random.one_in(2) {
        let code = [10_250, 10_251, 15_000].into_iter().nth(random.below(3)).unwrap_or(15_000);
        pair.queue.fail_sends(random.below(2), 1, random.fault(QueueError::from(code)));
    }
}

/// Asks until it is accepted, as a client would, with an Idempotency-Key or without; the first request may be killed. Says
/// whether there is one deletion of it, and no other of a request that has come to nothing.
fn accept(pair: &mut Pair, random: &mut Random, body: &Value) -> Result<(String, bool)> {
    let key = format!("storm-{}", random.below(1 << 30));
    let key = random.one_in(2).then_some(key.as_str());
    let mut kills = usize::from(!random.one_in(3));
    for tried in 0..12 {
        let reply = if kills > 0 {
            kills -= 1;
            kill_producer(pair, random, key, body)?
        } else {
            // A producer at which the wasm runs into a trap answers 500; whoever is cut off asks again as well.
            Some(pair.call_with_key("POST", "/v1/deletions", key, Some(body))?)
        };
        let Some(reply) = reply else { continue };
        if let Some(id) = reply.body.get("id").and_then(|id| id.as_str()).filter(|_| reply.status == 202) {
            return Ok((id.to_owned(), tried == 0 || key.is_some()));
        }
        ensure!(matches!(reply.status, 409 | 429 | 500 | 503), "{reply:?}");
        if reply.status == 409 {
            // As it is when the dead one's hold has ended.
            pair.database.execute("UPDATE parts SET sending_until = 0", [])?;
        }
    }
    bail!("not accepted in twelve requests")
}

/// A kill of the producer in the middle of a request, at one of its sends or of its writes.
fn kill_producer(
    pair: &mut Pair,
    random: &mut Random,
    key: Option<&str>,
    body: &Value,
) -> Result<Option<crash::Reply>> {
    let gate = Gate::new();
    let stalled = Fault::stalled(random.when(), &gate);
    let moment = match random.below(5) {
        0 => {
            pair.queue.fail_sends(0, 1, Fault::stalled(random.when(), &gate));
            "a request's first send"
        }
        1 | 2 => {
            pair.queue.fail_sends(1, 1, Fault::stalled(When::Before, &gate));
            "between two sends"
        }
        3 => {
            pair.database.fail("producer", "INSERT INTO deletions", 0, 1, stalled);
            "a deletion's first write"
        }
        _ => {
            pair.database.fail("producer", "UPDATE parts SET enqueued_at", 0, 1, stalled);
            "between the last send and the answer"
        }
    };
    let before = pair.queue.messages(QUEUE).len();
    let (killed, reply) = pair.kill_call_at(&gate, ("POST", "/v1/deletions"), key, Some(body))?;
    if killed && reply.is_some() {
        random.1.add("kills", 1_u64);
        random.1.add("killed: at a call of a request that was refused meanwhile", 1_u64);
    } else if killed {
        random.1.add("kills", 1_u64);
        let is_between = moment != "between two sends" || pair.queue.messages(QUEUE).len() > before;
        random
            .1
            .add(&format!("killed: {}", if is_between { moment } else { "a request's first send" }), 1_u64);
    }
    // What was laid for a call that never came is not for others.
    pair.queue.heal();
    pair.database.heal();
    Ok(reply)
}

/// A delivery that goes wrong: twice, twice at once, to a process that is being replaced, or cut short by a kill.
fn disturb(pair: &mut Pair, endpoint: &Endpoint, random: &mut Random) -> Result<()> {
    let Some(idle) = pair.queue.idle_for() else { return Ok(()) };
    pair.clock.skip(idle);
    if pair.queue.messages(QUEUE).iter().any(|message| message.attempts > ATTEMPTS_DISTURBED_MAX) {
        return pair.settle();
    }
    match random.below(8) {
        0..=3 => kill_consumer(pair, endpoint, random)?,
        4 => {
            random.1.add("deliveries doubled", 1_u64);
            let batch = pair.queue.take(QUEUE, 1 + random.below(10));
            let dispatcher = pair.dispatcher()?;
            let (first, second) = thread::scope(|scope| {
                let first = scope.spawn(|| dispatcher.deliver(QUEUE, &batch));
                let second = dispatcher.deliver(QUEUE, &batch);
                (first.join(), second)
            });
            let Ok(first) = first else { bail!("a delivery panicked") };
            second?;
            pair.queue.settle(QUEUE, &batch, &first?);
        }
        5 => {
            random.1.add("deliveries doubled", 1_u64);
            let (batch, _) = pair.deliver_once(QUEUE)?;
            pair.dispatcher()?.deliver(QUEUE, &batch)?;
        }
        6 => replace(pair, random)?,
        _ => drop(pair.deliver_once(QUEUE)?),
    }
    Ok(())
}

/// The process is replaced by another, as a deployment does, in the middle of a delivery, and both serve for a while.
fn replace(pair: &mut Pair, random: &mut Random) -> Result<()> {
    pair.bucket.heal();
    let gate = Gate::new();
    pair.bucket.fail_deletes(1, Fault::stalled(random.when(), &gate));
    let is_killed = random.one_in(2);
    pair.replace(&gate, is_killed)?;
    pair.bucket.heal();
    if is_killed {
        random.1.add("kills", 1_u64);
        random.1.add("killed: while another process serves", 1_u64);
    } else {
        random.1.add("processes replaced", 1_u64);
    }
    Ok(())
}

/// A kill at one of the next delivery's calls, if that delivery comes so far; sometimes at one of upkeep's.
fn kill_consumer(pair: &mut Pair, endpoint: &Endpoint, random: &mut Random) -> Result<()> {
    pair.bucket.heal();
    pair.database.heal();
    let gate = Gate::new();
    let (bucket, database) = (pair.bucket.clone(), pair.database.clone());
    let delete = |when, spare| bucket.fail("delete", spare, 1, Fault::stalled(when, &gate));
    let write =
        |sql: &str, when, spare| database.fail("consumer", sql, spare, 1, Fault::stalled(when, &gate));
    let spare = random.below(2);
    let moment = match random.below(14) {
        0 => {
            delete(When::Before, spare);
            "before a delete"
        }
        1 => {
            delete(When::Halfway, spare);
            "in a delete that is half done"
        }
        2..=4 => {
            delete(When::After, spare);
            "after the delete, before its answer"
        }
        5 => {
            bucket.fail("head", random.below(20), 1, Fault::stalled(When::Before, &gate));
            "a look"
        }
        6 => {
            bucket.fail("list", random.below(3), 1, Fault::stalled(When::Before, &gate));
            "a listing"
        }
        7 => {
            write("INSERT INTO chunks", When::After, 0);
            "after the claim"
        }
        8 => {
            write("UPDATE chunks", When::Before, 0);
            "after the answer, before the record"
        }
        9..=11 => {
            write("UPDATE chunks", When::After, 0);
            "after the record, before the acknowledgement"
        }
        12 => {
            endpoint.fail(0, 1, Fault::stalled(When::After, &gate));
            "a notice"
        }
        _ => {
            write("", random.when(), random.below(5));
            "upkeep"
        }
    };
    let killed = if moment == "upkeep" { pair.kill_cron_at(&gate)? } else { pair.kill_at(&gate, QUEUE)? };
    if killed {
        random.1.add("kills", 1_u64);
        random.1.add(&format!("killed: {moment}"), 1_u64);
    }
    bucket.heal();
    database.heal();
    Ok(())
}
