//! What comes after a cancellation, and what does not.

use ledger::{Database, LedgerError, Row, Statement};

use super::*;

/// A ledger's database that cancels nothing, as if a redrive had always begun the deletion again.
struct Deaf {
    database: SqliteDatabase,
    asked: Cell<usize>,
}

impl Database for &Deaf {
    async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, LedgerError> {
        if statements.iter().any(|statement| statement.sql.contains("SET cancelled_at")) {
            self.asked.set(self.asked.get() + 1);
            assert!(self.asked.get() < 100, "it never ends");
            return Ok(statements.iter().map(|_| Vec::new()).collect());
        }
        self.database.batch(statements).await
    }
}

#[test]
fn a_cancellation_that_is_always_too_late_is_given_up() {
    let world = World::new();
    let deaf = Deaf { database: SqliteDatabase::in_memory().unwrap(), asked: Cell::new(0) };
    let ledger = SqlLedger::new(&deaf);
    let Ports { queue, limiter, assets, host, memory, config, .. } = world.ports();
    let ports = Ports { ledger: &ledger, queue, limiter, assets, host, memory, config };
    let ask = |method: &str, target: &str, body: String| -> Value {
        let response = block_on(answer(request(method, target, body.into_bytes()), &ports));
        serde_json::from_str(&response.text()).unwrap()
    };
    let accepted = ask("POST", "/v1/deletions", keys_body(1));
    let target = format!("/v1/deletions/{}/cancel", accepted["id"].as_str().unwrap());
    assert_eq!(ask("POST", &target, String::new())["state"], "queued");
    assert_eq!(deaf.asked.get(), 3);
}

#[test]
fn the_failures_of_a_cancelled_deletion_are_not_redriven() {
    let world = World::new();
    let id = world.post(keys_body(2_000)).body["id"].as_str().unwrap().to_owned();
    world.consume(&id, 1_000);
    let post = |call: &str| world.ask(request("POST", &format!("/v1/deletions/{id}/{call}"), Vec::new()));
    assert_eq!(post("cancel").body["counts"]["failed"], 500);
    world.host.now.set(world.host.now.get() + 1_000);
    let sent = world.queue.stored.borrow().len();
    let refused = post("redrive");
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("deletion_cancelled")));
    assert_eq!(world.queue.stored.borrow().len(), sent);
}
