//! What the Workers are given to keep to themselves is looked for in all that the runtime prints, at the end of every pair. These
//! tests are about that search: it finds what is there, and has everything to search.

use std::time::Duration;

use anyhow::Result;
use crash::{Endpoint, Pair, until};
use serde_json::json;

/// Has the Worker beside the two print a text, as one of them could.
fn say(pair: &Pair, text: String) -> Result<()> {
    ureq::post(format!("http://{}/say", pair.workerd.address("dispatcher")?)).send(text)?;
    Ok(())
}

#[test]
#[should_panic(expected = "a key or prefix")]
fn a_key_that_a_worker_prints_fails_its_test() {
    let pair = Pair::start().unwrap();
    say(&pair, json!({"failed": [pair.canary.key("a")]}).to_string()).unwrap();
}

#[test]
#[should_panic(expected = "a signing secret")]
fn a_signing_secret_that_a_worker_prints_fails_its_test() {
    let pair = Pair::start_with_notices(&Endpoint::start().unwrap()).unwrap();
    say(&pair, format!("signed with {}", crash::NOTICE_SECRETS[1])).unwrap();
}

/// The names of a test's objects are namesakes of no other test's, and each log line is in the output and in a tail event.
#[test]
fn every_key_has_the_canary_and_every_line_is_searched() -> Result<()> {
    let mut pair = Pair::start()?;
    pair.bucket.upload(["a", "bystander"]);
    let id = pair.accept(&["a"])?;
    assert!(pair.queue.messages(crash::QUEUE)[0].body.to_text().contains(&pair.canary.key("a")));
    pair.settle()?;
    assert_eq!(pair.bucket.keys(), ["bystander"]);
    // The output outlives a kill.
    pair.workerd.kill()?;
    pair.workerd.restart()?;
    pair.progress(&id)?;
    until("the tail events of the request and of the batch", Duration::from_secs(30), || {
        let output = pair.workerd.output();
        let is_told =
            |event: &str| output.iter().any(|line| line.starts_with("tail: ") && line.contains(event));
        Ok((is_told("batch.processed") && is_told("request.finished")).then_some(()))
    })?;
    assert!(pair.log().contains("batch.processed") && pair.log().contains("request.finished"));
    Ok(())
}
