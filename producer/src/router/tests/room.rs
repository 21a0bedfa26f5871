//! What a request takes of memory and of the outbox, and what it gives back.

use std::rc::Rc;

use futures::FutureExt;
use ledger::{Database, LedgerError, Row, Statement};

use super::*;
use crate::body::WORKING_BYTES_MAX;

const BUDGET: usize = 30_000_000;

/// How much of a budget is free: what can be had, and not a byte more.
fn free(memory: &MemoryBudget) -> usize {
    let host = FakeHost::default();
    // Not in an executor of its own, because it is asked within one.
    let is_free = |bytes: usize| memory.reserve(bytes, &host).now_or_never().unwrap().is_ok();
    let (mut low, mut high) = (0, BUDGET + 1);
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if is_free(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// A queue that looks at how much memory is free whenever something is sent.
struct Watching<'a> {
    memory: &'a MemoryBudget,
    free: RefCell<Vec<usize>>,
}

impl Queue for Watching<'_> {
    async fn send(&self, _: Vec<String>, _: u32) -> Result<(), QueueError> {
        self.free.borrow_mut().push(free(self.memory));
        Ok(())
    }

    async fn ping(&self) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn a_request_that_is_read_keeps_what_it_works_with_and_its_body_only_where_it_is_answered_by_it() {
    let body = keys_body(10);
    // Nobody says how long the body is: as long as one can be, until it is there.
    for (target, kept) in [("/v1/deletions", 0), ("/", body.len())] {
        let world = World { memory: MemoryBudget::new(BUDGET), ..World::new() };
        let queue = Watching { memory: &world.memory, free: RefCell::default() };
        let ports = world.ports();
        let ports = Ports {
            ledger: ports.ledger,
            queue: &queue,
            limiter: ports.limiter,
            assets: ports.assets,
            host: ports.host,
            memory: ports.memory,
            config: ports.config,
        };
        let request = request_of("POST", target, body.clone().into_bytes());
        assert_eq!(block_on(answer(request, &ports)).status, 202, "{target}");
        assert_eq!(*queue.free.borrow(), [BUDGET - WORKING_BYTES_MAX - kept], "{target}");
        assert_eq!(free(&world.memory), BUDGET, "{target}");
    }
}

#[test]
fn what_is_reserved_can_shrink_and_comes_back_whole() {
    let (memory, host) = (MemoryBudget::new(BUDGET), FakeHost::default());
    {
        let mut held = block_on(memory.reserve(1_000, &host)).unwrap();
        held.shrink(2_000);
        assert_eq!(free(&memory), BUDGET - 1_000, "it does not grow");
        held.shrink(300);
        assert_eq!(free(&memory), BUDGET - 300);
    }
    assert_eq!((free(&memory), host.now.get()), (BUDGET, 0));
}

/// A host that notes how long each pause is.
#[derive(Default)]
struct Pausing(FakeHost, RefCell<Vec<u64>>);

impl Log for Pausing {
    fn emit(&self, event: &Event<'_>) {
        self.0.emit(event);
    }
}

impl Host for Pausing {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn random(&self) -> u128 {
        self.0.random()
    }

    async fn sleep(&self, millis: u64) {
        self.1.borrow_mut().push(millis);
        self.0.sleep(millis).await;
    }
}

#[test]
fn whoever_waits_for_room_looks_less_and_less_often_for_ten_seconds() {
    let (memory, host) = (MemoryBudget::new(10), Pausing::default());
    let refused = block_on(memory.reserve(11, &host)).map(drop);
    assert!(refused.is_err());
    let pauses = host.1.take();
    assert_eq!(pauses[..6], [25, 50, 100, 200, 400, 400]);
    assert!(pauses[5..].iter().all(|&pause| pause == 400), "{pauses:?}");
    assert!((10_000..10_400).contains(&pauses.iter().sum::<u64>()), "{pauses:?}");
}

/// A ledger's database that can be looked into.
struct Open(Rc<SqliteDatabase>);

impl Database for Open {
    async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, LedgerError> {
        self.0.batch(statements).await
    }
}

/// Sends a request, and answers with its status and with how many rows the outbox has then.
fn rows_after(request: Request<Vec<u8>>) -> (u16, usize) {
    let world = World::new();
    let database = Rc::new(SqliteDatabase::in_memory().unwrap());
    let ledger = SqlLedger::new(Open(Rc::clone(&database)));
    let ports = world.ports();
    let ports = Ports {
        ledger: &ledger,
        queue: ports.queue,
        limiter: ports.limiter,
        assets: ports.assets,
        host: ports.host,
        memory: ports.memory,
        config: ports.config,
    };
    let status = block_on(answer(request, &ports)).status;
    let count = Statement { sql: "SELECT piece FROM outbox", parameters: Vec::new() };
    let rows = block_on(database.batch(vec![count])).unwrap();
    (status, rows[0].len())
}

#[test]
fn the_outbox_has_a_row_for_each_megabyte_and_none_of_a_request_that_is_refused() {
    // Three megabytes of keys, a row for each that is full and one for the rest.
    let keys: Vec<String> = (0..3_000).map(|n| format!("{n:01000}")).collect();
    let whole = json!({ "objectKeys": keys }).to_string();
    let (status, rows) = rows_after(request("POST", "/v1/deletions", whole.clone().into_bytes()));
    assert_eq!((status, rows), (202, 4));

    // Wrong at its end, when three rows are written.
    let mut wrong = keys;
    wrong.push(String::new());
    let wrong = json!({ "objectKeys": wrong }).to_string().into_bytes();
    assert_eq!(rows_after(request("POST", "/v1/deletions", wrong)), (422, 0));
    // Small enough for one row, which is written when nothing is wrong any more.
    let small = request("POST", "/v1/deletions", keys_body(10).into_bytes());
    assert_eq!(rows_after(small), (202, 1));
    let broken = request("POST", "/v1/deletions", whole.into_bytes()[..2_900_000].to_vec());
    assert_eq!(rows_after(broken), (400, 0));
}

/// A ledger's database that has lost what is in the outbox.
struct Losing(SqliteDatabase);

impl Database for Losing {
    async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, LedgerError> {
        let reads = |statement: &Statement| {
            statement.sql.starts_with("SELECT") && statement.sql.contains("FROM outbox")
        };
        if statements.iter().any(reads) {
            return Ok(statements.iter().map(|_| Vec::new()).collect());
        }
        self.0.batch(statements).await
    }
}

#[test]
fn nobody_is_told_202_for_messages_that_are_not_in_the_outbox_any_more() {
    let world = World::new();
    let ledger = SqlLedger::new(Losing(SqliteDatabase::in_memory().unwrap()));
    let Ports { queue, limiter, assets, host, memory, config, .. } = world.ports();
    let ports = Ports { ledger: &ledger, queue, limiter, assets, host, memory, config };
    // One row is at hand, two are to be read back.
    let keys: Vec<String> = (0..2_500).map(|n| format!("{n:01000}")).collect();
    let body = json!({ "objectKeys": keys }).to_string().into_bytes();
    assert_eq!(block_on(answer(request("POST", "/v1/deletions", body), &ports)).status, 503);
}

#[test]
fn a_request_that_says_how_long_it_is_takes_five_times_that() {
    let body = keys_body(10);
    let takes = body.len() * 5;
    for (budget, status) in [(takes, 202), (takes - 1, 503)] {
        let world = World { memory: MemoryBudget::new(budget), ..World::new() };
        assert_eq!(world.post(body.clone()).status, status, "{budget}");
    }
}

#[test]
fn whoever_waits_for_the_end_of_a_deletion_asks_less_and_less_often() {
    let (world, host) = (World::new(), Pausing::default());
    let Ports { ledger, queue, limiter, assets, memory, config, .. } = world.ports();
    let ports = Ports { host: &host, ledger, queue, limiter, assets, memory, config };
    let waited = block_on(answer(request("POST", "/", keys_body(1).into_bytes()), &ports));
    assert_eq!(waited.status, 202);
    let pauses = host.1.take();
    assert_eq!(pauses[..6], [100, 200, 400, 800, 1_600, 2_000], "{pauses:?}");
    assert!(pauses[5..].iter().all(|&pause| pause == 2_000), "{pauses:?}");
}

/// A host that notes how much room there is when it is asked for a random number.
struct Looking<'a>(&'a World, RefCell<Vec<usize>>);

impl Log for Looking<'_> {
    fn emit(&self, event: &Event<'_>) {
        self.0.host.emit(event);
    }
}

impl Host for Looking<'_> {
    fn now(&self) -> Timestamp {
        self.0.host.now()
    }

    fn random(&self) -> u128 {
        self.1.borrow_mut().push(free(&self.0.memory));
        self.0.host.random()
    }

    async fn sleep(&self, millis: u64) {
        self.0.host.sleep(millis).await;
    }
}

/// The body, and three times as much for the answer. The last random number is drawn for it.
#[test]
fn an_answer_about_every_key_takes_four_times_the_body() {
    let body = keys_body(10);
    let ask = || Request {
        idempotency_key: Some("k".to_owned()),
        ..request("POST", "/", body.clone().into_bytes())
    };
    let world = World::new();
    let id = world.ask(ask()).body["id"].as_str().unwrap().to_owned();
    world.consume(&id, 10);
    let (host, before) = (Looking(&world, RefCell::default()), free(&world.memory));
    let Ports { ledger, queue, limiter, assets, memory, config, .. } = world.ports();
    let ports = Ports { host: &host, ledger, queue, limiter, assets, memory, config };
    assert_eq!(block_on(answer(ask(), &ports)).status, 200);
    assert_eq!(host.1.take().last(), Some(&(before - body.len() * 4)));
    assert_eq!(free(&world.memory), before);
}
