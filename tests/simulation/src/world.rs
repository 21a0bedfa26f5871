//! One schedule: both Workers' cores, what they stand on, and who uses them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use consumer::{NoticeConfig, upkeep};
use futures::FutureExt as _;
use ledger::{
    DeletionFilter, DeletionPage, FailureFilter, LedgerError, MemoryLedger, ProducerLedger as _, SqlLedger,
    SqliteDatabase,
};
use producer::{Config, MemoryBudget};
use protocol::{RETENTION_FAILED_MS, State, Timestamp};
use serde_json::Value;

use crate::bucket::{BucketState, Object};
use crate::client::{LookingHost, client, read, redrive_all, trespass};
use crate::counts::{Count, Outcome};
use crate::fault::{Fault, Rates};
use crate::oracle::Oracle;
use crate::plant::Plant;
use crate::queue::{QueueState, SimQueue};
use crate::services::SimHost;
use crate::sim::{BEGINS_AT, Sim, mortal};
use crate::sim_ledger::{SimDatabase, SimLedger, SimMemory, Timing};
use crate::workload::{BYSTANDER, Workload};
use crate::{LedgerKind, Mode, Settings};

pub(crate) const TOKEN: &str = "s3cret";

/// The tokens `narrow` and `reader`.
const TOKENS: &str = r#"[
    {"name": "narrow", "sha256": "5eda958e9ddee7721fb71e7a7618c64dbf20cc77b06ba4e4d2269d6c3e50655b", "prefixes": ["a/"]},
    {"name": "reader", "sha256": "3d0941964aa3ebdcb00ccef58b1bb399f9f898465e9886d5aec7f31090a0fb30", "roles": ["read"]}
]"#;

/// How long after the last fault upkeep has to see to it that everything is over, in milliseconds: a message is taken for lost
/// after 19 hours, a request for abandoned after 24, and one can follow the other.
const CONVERGENCE_MS: u64 = 5 * 86_400_000;

pub(crate) struct World {
    pub(crate) sim: Rc<Sim>,
    pub(crate) mode: Mode,
    pub(crate) plant: Option<Plant>,
    pub(crate) ledger: SimLedger,
    pub(crate) direct: SimLedger,
    pub(crate) bucket: BucketState,
    pub(crate) queue: QueueState,
    pub(crate) oracle: Oracle,
    pub(crate) config: Rc<Config>,
    pub(crate) notices: Option<NoticeConfig>,
    pub(crate) memory: MemoryBudget,
    /// What was last looked at, as the ledger has it, and which state of it that was.
    picture: RefCell<Option<DeletionPage>>,
    version: Cell<Option<(usize, usize)>>,
}

impl World {
    /// Looks at every deletion, if the ledger shows another picture than the last time.
    pub(crate) fn look(&self) {
        let (all, now) = (DeletionFilter::default(), Timestamp::from_millis(self.sim.now()));
        let version = match &self.direct {
            SimLedger::Memory(memory) => Some(memory.ledger.version(now)),
            SimLedger::Sql(_) => None,
        };
        if version.is_some() && self.version.replace(version) == version {
            return self.oracle.close(&self.sim);
        }
        let page = self.direct.list_deletions(&all, None, 100, now).now_or_never().and_then(Result::ok);
        let Some(page) = page else {
            return self.sim.violate(|| "the ledger does not say which deletions there are".to_owned());
        };
        if self.picture.borrow().as_ref() != Some(&page) {
            if self.sim.draw(fastrand::Rng::f64) < 0.1 {
                self.look_through_the_api();
            } else {
                page.deletions.iter().for_each(|deletion| self.oracle.see_record(deletion, self));
            }
            self.picture.replace(Some(page));
        }
        self.oracle.close(&self.sim);
    }

    /// As anybody could. It takes ten times as long as the rest of a look, and so is left to one look in ten, the last one, and
    /// every answer.
    fn look_through_the_api(&self) {
        let Some((200, page)) = self.read("/v1/deletions?page_size=100") else {
            return self.sim.violate(|| "the deletions cannot be listed".to_owned());
        };
        for view in page.get("deletions").and_then(Value::as_array).into_iter().flatten() {
            self.oracle.see(view, self);
        }
    }

    /// Looks at some moments: a look costs more than the rest.
    pub(crate) fn look_now_and_then(&self) {
        if self.sim.draw(fastrand::Rng::f64) < 0.3 {
            self.look();
        }
    }

    pub(crate) fn read(&self, target: &str) -> Option<(u16, Value)> {
        read(self, &LookingHost { world: self, drawn: RefCell::default() }, target)
    }

    /// All entries of a list, page by page.
    pub(crate) fn read_list(&self, id: &str, name: &str) -> Vec<Value> {
        let (mut entries, mut token) = (Vec::new(), String::new());
        if self.is_list_empty(id, name) {
            return entries;
        }
        loop {
            let Some((200, page)) = self.read(&format!("/v1/deletions/{id}/{name}?page_size=7{token}"))
            else {
                self.sim.violate(|| format!("{id}: {name} cannot be read"));
                return entries;
            };
            let list = if name == "skipped" { "skipped" } else { "failures" };
            entries.extend(page.get(list).and_then(Value::as_array).into_iter().flatten().cloned());
            match page.get("next_page_token").and_then(Value::as_str) {
                Some(next) => token = format!("&page_token={next}"),
                None => return entries,
            }
        }
    }

    /// Whether the ledger has nothing in a list. Most are empty, and to be told so by the API takes twenty times as long.
    fn is_list_empty(&self, id: &str, name: &str) -> bool {
        let Ok(id) = id.parse() else { return false };
        let (all, ledger) = (FailureFilter::default(), &self.direct);
        let entries = if name == "skipped" {
            ledger.list_skips(&id, None, 1).now_or_never().map(|list| list.map(|list| list.len()))
        } else {
            ledger.list_failures(&id, all, None, 1).now_or_never().map(|list| list.map(|list| list.len()))
        };
        matches!(entries, Some(Ok(0)))
    }

    /// What has become of a deletion, for a client to go by; the oracle does not.
    pub(crate) fn state_of(&self, id: &str) -> Option<State> {
        let now = Timestamp::from_millis(self.sim.now());
        let found = self.direct.find_deletion(&id.parse().ok()?, now).now_or_never()?;
        Some(found.ok()??.state)
    }

    fn check_unreadable(&self) {
        let found = self.direct.list_unreadable(None, 1_000).now_or_never().and_then(Result::ok);
        for message in found.into_iter().flatten() {
            let reason = message.reason;
            if reason == "unknown_deletion" || reason == "not_in_deletion" {
                self.sim.violate(|| format!("a message of ours is kept as {reason}"));
            }
        }
    }
}

/// Goes round until everything is over.
async fn look_after(world: Rc<World>, healed_at: u64) {
    let sim = Rc::clone(&world.sim);
    let mut was_over = false;
    while sim.now() < healed_at + CONVERGENCE_MS {
        let is_healed = sim.now() >= healed_at;
        let wait = match (is_healed, was_over) {
            // Once more a day later, for what only then is overdue: a notice.
            (true, true) => 86_400_000,
            (true, false) => sim.between(900_000, 5 * 3_600_000),
            (false, _) => sim.between(900_000, 3_600_000),
        };
        sim.sleep(wait).await;
        let life = sim.fails(Fault::UpkeepDies).then(|| sim.draw_fault(|rng| rng.u32(0..20)));
        let (queue, host) = (SimQueue::of_consumer(&world), SimHost { world: Rc::clone(&world) });
        sim.count(Count::UpkeepRounds);
        mortal(&sim, life, upkeep(&world.ledger, &queue, &host)).await;
        world.look();
        let is_over = is_healed && world.oracle.is_all_over();
        if is_over && was_over {
            break;
        }
        was_over = is_over;
    }
}

/// Lets the longest retention pass: whatever is over is removed, and all that belonged to it.
fn outlive_retention(world: &Rc<World>) {
    let deletions = world.oracle.is_all_over().then(|| world.oracle.deletions());
    let looking = Rc::clone(world);
    world.sim.spawn(async move {
        for _ in 0..3 {
            looking.sim.sleep(RETENTION_FAILED_MS / 2 + 1).await;
            let (queue, host) = (SimQueue::of_consumer(&looking), SimHost { world: Rc::clone(&looking) });
            upkeep(&looking.ledger, &queue, &host).await;
        }
    });
    world.sim.run();
    let left =
        world.read("/v1/deletions").and_then(|(_, page)| page.get("deletions")?.as_array().map(Vec::len));
    let is_empty = match &world.direct {
        SimLedger::Memory(SimMemory { ledger, .. }) => ledger.is_empty(),
        SimLedger::Sql(_) => true,
    };
    if left != Some(0) || !is_empty {
        world
            .sim
            .violate(|| format!("after the retention {left:?} deletions are left, nothing else: {is_empty}"));
    }
    world.sim.count_many(Count::Expired, deletions.unwrap_or_default() as u64);
}

/// Longer than any claim lasts, in milliseconds.
const CLAIMS_END_MS: u64 = 3_600_000;

/// Runs one schedule.
pub(crate) fn run(seed: u64, settings: Settings) -> Outcome {
    let Settings { mode, ledger: kind, plant, is_traced, without } = settings;
    let rng = &mut fastrand::Rng::with_seed(seed ^ 0x0DD0_F00D);
    let workload = Workload::draw(rng, mode, without);
    let rates = Rates::draw(rng, mode, workload.has_sweeps).without(without);
    let healed_at = rates.healed_at;
    let sim = Sim::new(seed, rates, is_traced);
    let (Ok(tables), Some(config), Ok(notices)) = (
        Tables::empty(kind),
        config(),
        NoticeConfig::parse(
            workload.wants_notices.then_some("https://example.com/notices"),
            workload.wants_notices.then_some("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
        ),
    ) else {
        sim.violate(|| "the world cannot be set up".to_owned());
        return outcome(&sim);
    };
    let ledger = |is_direct| {
        let timing = Timing { sim: Rc::clone(&sim), is_direct };
        match &tables {
            Tables::Sql(database) => {
                let database = Rc::clone(database);
                SimLedger::Sql(SqlLedger::new(SimDatabase { database, plant, timing }))
            }
            Tables::Memory(ledger) => SimLedger::Memory(SimMemory { ledger: Rc::clone(ledger), timing }),
        }
    };
    let Workload { cases, objects, uploads, locked, are_locks_lifted, call_max, list_max, .. } = workload;
    let Workload { redrives_all_at, trespasses_at, outlives_retention, ahead_ms, .. } = workload;
    let world = Rc::new(World {
        ledger: ledger(false),
        direct: ledger(true),
        mode,
        plant,
        bucket: BucketState {
            locked,
            unlocked_at: if are_locks_lifted { healed_at } else { u64::MAX },
            call_max,
            list_max,
            ahead_ms,
            ..BucketState::default()
        },
        queue: QueueState::default(),
        oracle: Oracle::default(),
        config,
        notices,
        memory: MemoryBudget::new(24_000_000),
        picture: RefCell::default(),
        version: Cell::default(),
        sim,
    });
    let sim = &world.sim;
    for key in objects.into_iter().chain([BYSTANDER.to_owned()]) {
        let at = BEGINS_AT - 1_000_000;
        world.bucket.objects.borrow_mut().insert(key, Object { uploaded_at: at, shown_at: at });
    }
    for case in cases {
        let case = Rc::new(case);
        world.oracle.cases.borrow_mut().push(Rc::clone(&case));
        sim.spawn(client(Rc::clone(&world), case));
    }
    if let Some(at) = redrives_all_at {
        sim.spawn(redrive_all(Rc::clone(&world), at));
    }
    for at in trespasses_at {
        sim.spawn(trespass(Rc::clone(&world), at));
    }
    for (at, key) in uploads {
        let world = Rc::clone(&world);
        sim.spawn(async move {
            world.sim.sleep(at - world.sim.now()).await;
            world.bucket.upload(&key, &world.sim);
        });
    }
    if mode == Mode::SelfHealing {
        sim.spawn(look_after(Rc::clone(&world), healed_at));
    }
    sim.run();
    // A claim of somebody who died ends by itself, and a cancelled deletion with it.
    let last = Rc::clone(sim);
    sim.spawn(async move { last.sleep(CLAIMS_END_MS).await });
    sim.run();
    if sim.violation().is_none() {
        world.look_through_the_api();
        world.oracle.close(sim);
        world.oracle.finish(&world);
        world.check_unreadable();
        if mode == Mode::SelfHealing && outlives_retention {
            outlive_retention(&world);
        }
    }
    // One whose schedule has panicked is not used again.
    if let Tables::Sql(database) = tables {
        DATABASE.set(Some(database));
    }
    count_cases(&world);
    outcome(sim)
}

fn count_cases(world: &World) {
    let cases = world.oracle.cases.borrow();
    world.sim.count_many(Count::DeletionsAskedFor, cases.len() as u64);
    let accepted = cases.iter().filter(|case| case.progress.borrow().is_accepted);
    world.sim.count_many(Count::Accepted, accepted.count() as u64);
}

fn outcome(sim: &Sim) -> Outcome {
    Outcome { violation: sim.violation(), hash: sim.hash(), totals: sim.totals() }
}

thread_local! {
    static DATABASE: Cell<Option<Rc<SqliteDatabase>>> = const { Cell::new(None) };
    static CONFIG: Option<Rc<Config>> = Config::parse(&producer::Settings {
        api_token: Some(TOKEN.to_owned()),
        api_tokens: Some(TOKENS.to_owned()),
        ..producer::Settings::default()
    }).ok().map(Rc::new);
}

/// The producer's settings, read once: no request changes them.
fn config() -> Option<Rc<Config>> {
    CONFIG.with(Option::clone)
}

/// What the ledger of one schedule holds.
enum Tables {
    Sql(Rc<SqliteDatabase>),
    Memory(Rc<MemoryLedger>),
}

impl Tables {
    /// The thread's database, emptied, because to prepare every statement anew took longer than to run it; or a new ledger in
    /// memory.
    fn empty(kind: LedgerKind) -> Result<Self, LedgerError> {
        if kind == LedgerKind::Memory {
            return Ok(Self::Memory(Rc::default()));
        }
        match DATABASE.take() {
            Some(database) => database.clear().map(|()| Self::Sql(database)),
            None => SqliteDatabase::in_memory().map(|database| Self::Sql(Rc::new(database))),
        }
    }
}
