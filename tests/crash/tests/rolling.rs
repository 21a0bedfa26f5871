//! Deployments: versions of the two Workers that meet each other's messages, ledgers that are migrated before or after, and
//! processes that are replaced while they work.
//!
//! There is one version of the message and one migration so far. What an older version has left behind is recorded in
//! `fixtures/left_behind`, a ledger and its queue for each migration; a newer version is one of the present messages, changed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crash::{Body, Counts, Decision, Dispatcher, Endpoint, Fault, Gate, Pair, QUEUE, Setup, When};
use serde_json::{Value, json};

const DAY_MS: i64 = 86_400_000;
/// Bystanders of what is recorded, close to its prefix.
const BYSTANDERS: [&str; 3] = ["left/swept", "left/swept.jpg", "left/swept0"];

fn left_behind(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/left_behind").join(name)
}

/// Deletions that nobody has begun, half done, by prefix, and over but for its notice; what is left of them.
fn leave_behind(pair: &Pair) -> Result<()> {
    let done = pair.accept(&["left/done"])?;
    pair.deliver_once(QUEUE)?;
    ensure!(pair.progress(&done)?.0 == "succeeded");
    // Its message says when to look at the notice, and stays.
    let kept: Vec<_> = pair.queue.messages(QUEUE).into_iter().map(|message| message.body).collect();
    let half: Vec<_> = (0..4).map(|at| format!("left/half/{at}")).collect();
    pair.accept(&half)?;
    // It has been claimed and given back.
    pair.bucket.fail("delete", 0, 1, Fault::refused(10_001));
    let batch = pair.queue.take(QUEUE, 2).into_iter().filter(|message| !kept.contains(&message.body));
    pair.dispatcher()?.deliver(QUEUE, &batch.collect::<Vec<_>>())?;
    pair.bucket.heal();
    pair.accept(&["left/new/0", "left/new/\u{e9}\" \u{1f600}"])?;
    let swept =
        pair.call("POST", "/v1/deletions", Some(&json!({"prefixes": ["left/swept/"], "verify": true})))?;
    ensure!(swept.status == 202, "{swept:?}");
    Ok(())
}

/// Writes `fixtures/left_behind` anew for the newest migration. For whoever adds one, or changes the form of a message, before
/// they do: what is in those files must be read for as long as a queue keeps messages.
#[test]
#[ignore = "it records what this version leaves behind; it tests nothing"]
fn record_what_this_version_leaves_behind() -> Result<()> {
    let pair = Pair::start_with_notices(&Endpoint::start()?)?;
    leave_behind(&pair)?;
    let (level, mut sql) = (pair.database.migrations().len(), String::new());
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name";
    for table in pair.database.query(tables, [], |row| row.get::<_, String>(0))? {
        let columns: Vec<String> =
            pair.database.query("SELECT name FROM pragma_table_info(?1)", [&table], |row| row.get(0))?;
        let quoted: Vec<_> = columns.iter().map(|column| format!("quote({column})")).collect();
        let rows = format!("SELECT {} FROM {table}", quoted.join(" || ', ' || "));
        for row in pair.database.query(&rows, [], |row| row.get::<_, String>(0))? {
            writeln!(sql, "INSERT INTO {table} ({}) VALUES ({row});", columns.join(", "))?;
        }
    }
    let messages: Vec<_> = pair.queue.messages(QUEUE).iter().map(|message| message.body.to_text()).collect();
    let plain = |text: &str| text.replace(&pair.canary.namespace(), "");
    std::fs::write(left_behind(&format!("{level:04}.sql")), plain(&sql))?;
    std::fs::write(left_behind(&format!("{level:04}.messages")), plain(&messages.join("\n")))?;
    Ok(())
}

/// For each migration: a ledger as it was then and the messages of then, the later migrations, and the present Workers.
#[test]
fn what_an_older_version_has_left_in_the_ledger_and_the_queue_is_finished() -> Result<()> {
    let migrations = Pair::start()?.database.migrations().len();
    for level in 1..=migrations {
        let read = |ending: &str| {
            let path = left_behind(&format!("{level:04}.{ending}"));
            std::fs::read_to_string(&path).with_context(|| format!("{}: record it first", path.display()))
        };
        let endpoint = Endpoint::start()?;
        let setup = Setup { endpoint: Some(endpoint.clone()), unmigrated: true, ..Setup::default() };
        let pair = Pair::set_up(setup)?;
        let dressed = |text: String| text.replace("left/", &pair.canary.key("left/"));
        let mut applied = 0;
        let rows = dressed(read("sql")?);
        let restore =
            || -> Result<()> { rows.lines().try_for_each(|row| pair.database.execute(row, []).map(drop)) };
        pair.database.migrate_by_steps(|| {
            applied += 1;
            if applied == level + 1 { restore() } else { Ok(()) }
        })?;
        if level == migrations {
            restore()?;
        }
        // They were there before the requests, and are deleted although the requests are long past.
        pair.bucket.upload_at(0, (0..4).map(|at| format!("left/half/{at}")));
        pair.bucket
            .upload_at(0, ["left/new/0", "left/new/\u{e9}\" \u{1f600}", "left/swept/0", "left/swept/1"]);
        pair.bucket.upload_at(0, BYSTANDERS);
        for message in dressed(read("messages")?).lines() {
            pair.queue.send(QUEUE, Body::text(message));
        }
        pair.settle()?;
        let mut ended = Vec::new();
        for id in pair.deletions()? {
            let (state, counts) = pair.progress(&id)?;
            ensure!(counts == Counts::all_deleted(counts.total), "{level}: {}", pair.status(&id)?);
            ended.push((counts.total, state));
        }
        ended.sort_unstable();
        let all = [1, 2, 2, 4].map(|total| (total, "succeeded".to_owned()));
        assert_eq!(ended, all, "{level}");
        assert_eq!(
            (pair.bucket.keys(), pair.unreadable_messages()?),
            (BYSTANDERS.map(str::to_owned).to_vec(), vec![])
        );
        assert_eq!(endpoint.received()?.len(), 4, "{level}: each end is told");
    }
    Ok(())
}

/// 1. A later producer sends what this consumer does not know. 2. It deletes nothing, keeps the message with its reason, and goes
///    on with the others. 3. While it is the old one, sending it again changes nothing. 4. Once it is known, upkeep sends it a day
///    later, and the deletion ends with exact counts.
#[test]
fn a_message_of_a_later_version_is_kept_and_its_deletion_is_finished_by_the_later_consumer() -> Result<()> {
    let pair = Pair::start()?;
    pair.bucket.upload(["a", "b", "c", "bystander"]);
    let id = pair.accept(&["a", "b"])?;
    let later = |text: &str| text.replacen(r#"{"v":1,"#, r#"{"v":2,"urgent":true,"#, 1);
    let sent = pair.queue.take(QUEUE, 1);
    let text = later(&sent[0].body.to_text());
    // The queue takes the present message for acknowledged, which nobody has seen, and holds the later one.
    let unseen = json!({"outcome": "ok", "ackAll": true, "retryBatch": {"retry": false}, "explicitAcks": [], "retryMessages": []});
    pair.queue.settle(QUEUE, &sent, &serde_json::from_value(unseen)?);
    pair.queue.send(QUEUE, Body::text(&text));
    pair.database.execute(
        r#"UPDATE outbox SET messages = replace(messages, '{"v":1,', '{"v":2,"urgent":true,')"#,
        [],
    )?;
    let other = pair.accept(&["c"])?;
    pair.settle()?;
    assert_eq!(pair.progress(&other)?, ("succeeded".to_owned(), Counts::all_deleted(1)));
    assert_eq!(pair.progress(&id)?.1, Counts { total: 2, pending: 2, ..Counts::default() });
    let kept = |pair: &Pair, count: usize| -> Result<()> {
        let kept = pair.unreadable_messages()?;
        assert!(
            kept.len() == count && kept.iter().all(|kept| kept["reason"] == "unsupported_version"),
            "{kept:?}"
        );
        let is_whole =
            |kept: &Value| kept["body"].as_str().is_some_and(|body| body.contains(r#""keys":["a","b"]"#));
        assert!(kept.iter().all(is_whole), "{kept:?}");
        Ok(())
    };
    kept(&pair, 1)?;
    assert!(pair.log().contains("unsupported_version"), "nobody is told");

    let a_day_later = || -> Result<()> {
        pair.database.execute(
            "UPDATE parts SET enqueued_at = enqueued_at - ?1, resent_at = resent_at - ?1",
            [DAY_MS],
        )?;
        pair.database.execute("UPDATE deletions SET not_before = not_before - ?1", [DAY_MS])?;
        pair.dispatcher()?.cron()?;
        pair.settle()
    };
    a_day_later()?;
    kept(&pair, 2)?;
    assert_eq!((pair.progress(&id)?.1.pending, pair.bucket.keys().len()), (2, 3));

    // The later consumer, which knows that version: here by having it say what this one knows.
    pair.database.execute(
        r#"UPDATE outbox SET messages = replace(messages, '{"v":2,"urgent":true,', '{"v":1,')"#,
        [],
    )?;
    a_day_later()?;
    assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(2)));
    assert_eq!(pair.bucket.keys(), ["bystander"]);
    Ok(())
}

fn assert_not_ready(pair: &Pair) -> Result<()> {
    let ready = pair.call("GET", "/readyz", None)?;
    ensure!(ready.status == 503 && ready.body.get("code") == Some(&json!("not_ready")), "{ready:?}");
    let refused = pair.post_deletion(&["a"])?;
    ensure!(refused.status == 503 && refused.headers.contains_key("retry-after"), "{refused:?}");
    Ok(())
}

/// The new code comes before the migration: it says so, takes nothing, and what comes to it by the queue waits.
#[test]
fn on_a_ledger_that_is_not_migrated_the_pair_is_not_ready_and_loses_nothing() -> Result<()> {
    let other = Pair::start()?;
    let id = other.accept(&["a"])?;
    let message = other.queue.take(QUEUE, 1).remove(0);

    let pair = Pair::set_up(Setup { unmigrated: true, ..Setup::default() })?;
    pair.bucket.upload(["a", "bystander"]);
    pair.queue.send(QUEUE, message.body);
    // Before each migration there is: a later one must be asked for by `/readyz` too.
    pair.database.migrate_by_steps(|| {
        assert_not_ready(&pair)?;
        pair.clock.skip(pair.queue.idle_for().unwrap_or_default());
        let (batch, delivered) = pair.deliver_once(QUEUE)?;
        let decision = delivered.decision(&batch[0].id);
        ensure!(matches!(decision, Decision::Retried { delay: Some(1..) }), "{decision:?}");
        // Upkeep has nothing to do, and fails at nothing.
        pair.dispatcher()?.cron()
    })?;
    assert_eq!(pair.call("GET", "/readyz", None)?.status, 200);
    let accepted = pair.accept(&["a"])?;
    pair.settle()?;
    assert_eq!(pair.progress(&accepted)?, ("succeeded".to_owned(), Counts::all_deleted(1)));
    // The message was of a ledger that this one does not know.
    let kept = pair.unreadable_messages()?;
    assert_eq!((kept.len(), &kept[0]["reason"]), (1, &json!("unknown_deletion")));
    assert!(kept[0]["body"].as_str().is_some_and(|body| body.contains(&id)));
    assert_eq!(pair.bucket.keys(), ["bystander"]);
    Ok(())
}

/// The migration comes before the new code: whatever it adds, the old code goes on.
#[test]
fn a_ledger_with_columns_and_tables_of_a_later_migration_serves_the_old_code() -> Result<()> {
    let endpoint = Endpoint::start()?;
    let pair = Pair::start_with_notices(&endpoint)?;
    let keys: Vec<_> = (0..1_500).map(|at| format!("before/{at}")).collect();
    pair.bucket.upload(keys.clone());
    pair.bucket.upload(["before", "swept/1", "swept/2", "locked"]);
    let before = pair.accept(&keys)?;
    pair.deliver_once(QUEUE)?;
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table'";
    for table in pair.database.query(tables, [], |row| row.get::<_, String>(0))? {
        pair.database.execute(&format!("ALTER TABLE {table} ADD COLUMN later TEXT"), [])?;
        pair.database.execute(&format!("CREATE INDEX {table}_later ON {table} (later)"), [])?;
    }
    pair.database.execute("CREATE TABLE later (id TEXT PRIMARY KEY)", [])?;

    pair.bucket.lock(["locked"], crash::Neighbours::Kept);
    let failing = pair.accept(&["locked"])?;
    let swept = pair.call("POST", "/v1/deletions", Some(&json!({"prefixes": ["swept/"]})))?;
    pair.settle()?;
    pair.bucket.unlock();
    assert_eq!(pair.call("POST", &format!("/v1/deletions/{failing}/redrive"), None)?.status, 202);
    pair.queue.send(QUEUE, Body::text("half a mess"));
    pair.settle()?;
    pair.dispatcher()?.cron()?;
    let swept = swept.body["id"].as_str().context("not accepted")?;
    for (id, total) in [(before.as_str(), 1_500), (&failing, 1), (swept, 2)] {
        assert_eq!(pair.progress(id)?, ("succeeded".to_owned(), Counts::all_deleted(total)));
        let webhook_id = format!("{id}_{}", u32::from(id == failing));
        assert!(endpoint.received()?.iter().any(|notice| notice.id == webhook_id), "{webhook_id}");
    }
    assert_eq!((pair.bucket.keys(), pair.unreadable_messages()?.len()), (vec!["before".to_owned()], 1));
    Ok(())
}

/// A gradual deployment of other settings: two processes on one ledger and one queue, each consuming what the other has sent.
///
/// 1. Each producer accepts by its own settings. 2. The consumers take turns, so that both are at each deletion's messages. 3. The
///    old one is asked to end in the middle of a delete. 4. The new one finishes all.
#[test]
fn two_processes_with_different_settings_share_the_work_until_one_is_left() -> Result<()> {
    let endpoint = Endpoint::start()?;
    let mut pair = Pair::start_with_notices(&endpoint)?;
    let mut ids = Vec::new();
    for (number, total) in [(0, 2_500), (1, 3_500)] {
        let keys: Vec<_> = (0..total).map(|at| format!("rolling/{number}/{at}")).collect();
        pair.bucket.upload(keys.clone());
        ids.push((pair.accept(&keys)?, total));
    }
    pair.bucket.upload(["rolling/bystander", "legal-hold/a"]);
    let protected = json!([pair.canary.key("legal-hold/")]).to_string();
    let url = format!("{}&of=the-new-one", endpoint.url());
    let changes =
        [("producer", "PROTECTED_PREFIXES", protected.as_str()), ("consumer", "NOTICE_URL", url.as_str())];
    let new = pair.start_beside(&changes)?;

    // In turns, a message each.
    let dispatchers = [pair.dispatcher()?, Dispatcher::new(new.address("dispatcher")?)];
    for dispatcher in dispatchers.iter().cycle().take(4) {
        let batch = pair.queue.take(QUEUE, 1);
        let delivered = dispatcher.deliver(QUEUE, &batch)?;
        assert!(delivered.outcome == "ok" && delivered.decided(&batch[0].id), "{delivered:?}");
        pair.queue.settle(QUEUE, &batch, &delivered);
    }
    // One is in the middle of a delete of the old one when that is asked to end. It may finish: nothing comes twice.
    let gate = Gate::new();
    pair.bucket.fail_deletes(1, Fault::stalled(When::After, &gate));
    let [old, _] = &dispatchers;
    let batch = pair.queue.take(QUEUE, 1);
    let (given, old) = (batch.clone(), old.clone());
    let delivery = std::thread::spawn(move || old.deliver(QUEUE, &given));
    gate.arrived(1, Duration::from_secs(30))?;
    pair.workerd.terminate()?;
    gate.open();
    let delivered = delivery.join().map_err(|_| anyhow::anyhow!("the delivery panicked"))??;
    pair.queue.settle(QUEUE, &batch, &delivered);
    pair.workerd.wait()?;
    pair.succeed(new)?;
    pair.settle()?;
    for (id, total) in ids {
        assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(total)));
        assert!(endpoint.received()?.iter().any(|notice| notice.id == format!("{id}_0")));
    }
    assert_eq!(pair.post_deletion(&["legal-hold/a"])?.status, 403);
    assert_eq!(pair.bucket.keys(), ["legal-hold/a", "rolling/bystander"]);
    assert_eq!(pair.unreadable_messages()?, Vec::<Value>::new());
    Ok(())
}
