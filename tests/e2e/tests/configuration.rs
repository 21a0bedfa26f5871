//! The wrangler files say what the code relies on: nobody else would notice before production does.

use std::fs;

use anyhow::{Context, Result};
use protocol::limits::{CONNECTIONS_MAX, RATE_LIMIT_PERIOD_SECONDS};
use protocol::{DEAD_LETTER_QUEUE_SUFFIX, RETRIES_MAX};
use toml::{Table, Value};
use xtask::project::{Project, Worker};

fn config(worker: Worker) -> Result<Table> {
    Ok(fs::read_to_string(Project::locate()?.wrangler_config(worker))?.parse()?)
}

fn tables(value: Option<&Value>) -> Vec<&Table> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table).collect()
}

#[test]
fn the_consumer_takes_both_queues_as_the_code_expects() -> Result<()> {
    let (producer, consumer) = (config(Worker::Producer)?, config(Worker::Consumer)?);
    let consumers = tables(consumer["queues"].get("consumers"));
    let [deletions, dead_letters] = consumers.as_slice() else { panic!("not two queues: {consumers:?}") };

    for sender in [&producer, &consumer] {
        let [to] = tables(sender["queues"].get("producers"))[..] else { panic!("not one queue") };
        assert_eq!((to["binding"].as_str(), &to["queue"]), (Some("DELETIONS"), &deletions["queue"]));
    }
    assert_eq!(deletions["max_retries"].as_integer(), Some(RETRIES_MAX.into()));
    assert_eq!(deletions["dead_letter_queue"], dead_letters["queue"]);
    assert!(dead_letters["queue"].as_str().context("a name")?.ends_with(DEAD_LETTER_QUEUE_SUFFIX));
    assert!(!deletions["queue"].as_str().context("a name")?.ends_with(DEAD_LETTER_QUEUE_SUFFIX));
    assert!(!dead_letters.contains_key("dead_letter_queue"));
    for queue in consumers {
        let batch = usize::try_from(queue["max_batch_size"].as_integer().context("a number")?)?;
        assert!((1..=CONNECTIONS_MAX).contains(&batch), "a chunk of the batch would wait for a connection");
        assert_eq!(queue["max_batch_timeout"].as_integer(), Some(0));
    }
    Ok(())
}

#[test]
fn both_workers_use_one_ledger_and_a_date_that_shows_the_codes_of_the_queue() -> Result<()> {
    let (producer, consumer) = (config(Worker::Producer)?, config(Worker::Consumer)?);
    assert_eq!(producer["d1_databases"], consumer["d1_databases"]);
    for config in [&producer, &consumer] {
        // `queue_expose_error_codes` is on from this date.
        assert!(config["compatibility_date"].as_str().context("a date")? >= "2026-03-12");
    }
    Ok(())
}

#[test]
fn the_producer_cannot_reach_a_bucket_and_no_secret_is_written_down() -> Result<()> {
    assert!(!config(Worker::Producer)?.contains_key("r2_buckets"));
    for worker in Worker::ALL {
        let config = config(worker)?;
        let vars = config.get("vars").and_then(Value::as_table);
        for secret in ["API_TOKEN", "API_TOKENS", "NOTICE_SECRETS"] {
            assert!(!vars.is_some_and(|vars| vars.contains_key(secret)), "{secret}");
        }
    }
    Ok(())
}

#[test]
fn the_rate_limit_has_the_name_and_the_period_that_the_code_knows() -> Result<()> {
    let producer = config(Worker::Producer)?;
    let limits = tables(producer.get("ratelimits"));
    let [limit] = limits.as_slice() else { panic!("not one rate limit: {limits:?}") };
    assert_eq!(limit["name"].as_str(), Some("RATE_LIMIT"));
    assert_eq!(limit["simple"]["period"].as_integer(), Some(RATE_LIMIT_PERIOD_SECONDS.into()));
    Ok(())
}

#[test]
fn upkeep_is_set_off_on_the_worker_that_does_it() -> Result<()> {
    let crons = config(Worker::Consumer)?["triggers"]["crons"].clone();
    assert_eq!(crons.as_array().map(Vec::len), Some(1), "{crons}");
    assert!(!config(Worker::Producer)?.contains_key("triggers"), "it would call a handler that is not there");
    Ok(())
}

#[test]
fn the_platforms_traces_which_show_keys_are_off() -> Result<()> {
    for worker in Worker::ALL {
        let config = config(worker)?;
        assert!(!config["observability"].as_table().context("a table")?.contains_key("traces"));
    }
    Ok(())
}

/// Else a request to a zone of ours would go past what stands before its origin, and one to a Worker of ours nowhere.
#[test]
fn the_consumer_reaches_its_endpoint_as_anybody_would() -> Result<()> {
    let flags = config(Worker::Consumer)?["compatibility_flags"].clone();
    assert!(
        flags.as_array().context("flags")?.contains(&Value::from("global_fetch_strictly_public")),
        "{flags}"
    );
    Ok(())
}
