//! `POST /`, the first clients' call: what became of each key, or 202 where that takes too long.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use crash::{D1Error, Fault, Neighbours, Pair, QUEUE, Reply, until};
use serde_json::{Value, json};

/// Calls, and lets the consumer work as soon as there is something to do.
fn delete_and_wait(pair: &Pair, keys: &[&str]) -> Result<Reply> {
    thread::scope(|scope| {
        let call = scope.spawn(|| pair.call("POST", "/", Some(&json!({ "objectKeys": keys }))));
        until("a message", Duration::from_secs(30), || {
            Ok((!pair.queue.messages(QUEUE).is_empty()).then_some(()))
        })?;
        pair.settle()?;
        call.join().unwrap_or_else(|_| bail!("the caller panicked"))
    })
}

#[test]
fn each_key_is_told_in_the_order_asked_and_one_that_is_locked_fails_alone() -> Result<()> {
    let pair = Pair::start()?;
    pair.bucket.upload(["a", "b", "c", "bystander"]);
    pair.bucket.lock(["b"], Neighbours::Deleted);
    let answer = delete_and_wait(&pair, &["c", "b", "missing", "c", "a", "b"])?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let told: Vec<_> = answer.body["results"]
        .as_array()
        .context("no results")?
        .iter()
        .map(|result| (result["key"].as_str().unwrap_or_default(), result["success"] == true))
        .collect();
    assert_eq!(told, [("c", true), ("b", false), ("missing", true), ("c", true), ("a", true), ("b", false)]);
    let error = answer.body["results"][1]["error"].as_str().context("no error")?;
    assert!(error.contains("lock rule"), "{error}");
    assert_eq!(answer.body["results"][0], json!({"key": "c", "success": true}));
    assert_eq!(pair.bucket.keys(), ["b", "bystander"]);
    Ok(())
}

/// The consumer gets no message: as when it is down.
#[test]
fn what_takes_too_long_is_answered_with_the_deletion_which_goes_on() -> Result<()> {
    let pair = Pair::start()?;
    pair.bucket.upload(["a", "bystander"]);
    let answer = pair.call("POST", "/", Some(&json!({ "objectKeys": ["a"] })))?;
    assert_eq!((answer.status, &answer.body["state"]), (202, &json!("queued")), "{answer:?}");
    let id = answer.body["id"].as_str().context("no id")?;
    assert_eq!(answer.headers["location"], format!("/v1/deletions/{id}"));
    pair.settle()?;
    assert_eq!(pair.status(id)?["state"], "succeeded");
    assert_eq!(pair.bucket.keys(), ["bystander"]);
    Ok(())
}

#[test]
fn a_ledger_that_fails_meanwhile_does_not_take_back_what_was_accepted() -> Result<()> {
    let pair = Pair::start()?;
    pair.database.fail(
        "producer",
        "FROM deletions AS d LEFT JOIN chunks",
        0,
        1,
        Fault::refused(D1Error::reset()),
    );
    let answer = pair.call("POST", "/", Some(&json!({ "objectKeys": ["a"] })))?;
    assert_eq!(answer.status, 202, "{answer:?}");
    pair.database.heal();
    pair.settle()?;
    assert_eq!(pair.status(answer.body["id"].as_str().unwrap_or_default())?["state"], "succeeded");
    Ok(())
}

/// Three rows of messages. 1. The second is refused. 2. The last key is wrong. Neither leaves anything behind.
#[test]
fn what_was_written_of_a_request_that_is_refused_is_removed_at_once() -> Result<()> {
    let pair = Pair::start()?;
    let mut keys: Vec<_> = (0..3_000).map(|at| format!("{at:01000}")).collect();
    let left = |table: &str| {
        pair.database.query(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get::<_, i64>(0))
    };
    pair.database.fail("producer", "INSERT INTO outbox", 1, 1, Fault::done_but_refused(D1Error::reset()));
    assert_eq!(pair.post_deletion(&keys)?.status, 503);
    pair.database.heal();
    keys.push(String::new());
    let refused = pair.post_deletion(&keys)?;
    assert_eq!(
        (refused.status, &refused.body["errors"][0]["pointer"]),
        (422, &Value::from("#/objectKeys/3000"))
    );
    let written = pair.database.requests().iter().filter(|sql| sql.contains("INSERT INTO outbox")).count();
    assert!(written >= 4, "{written} rows were written");
    assert_eq!((left("outbox")?, left("deletions")?), (vec![0], vec![0]));
    assert!(pair.queue.messages(QUEUE).is_empty());

    keys.pop();
    let id = pair.accept(&keys)?;
    pair.settle()?;
    assert_eq!(pair.status(&id)?["state"], "succeeded");
    Ok(())
}
