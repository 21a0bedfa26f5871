//! Each end of a deletion is told to the operator's endpoint, once and signed.

use anyhow::{Context, Result};
use crash::{Endpoint, NOTICE_SECRETS, NOTICE_URL_CANARY, Notice};
use e2e::{Pair, eventually};
use serde_json::{Value, json};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// A pair whose consumer tells the endpoint.
fn pair_with(endpoint: &Endpoint) -> Result<Pair> {
    Pair::start_with(|options| {
        let secrets = &mut options.configs.consumer_secrets;
        // The URL as well: wrangler would print a variable.
        secrets.insert("NOTICE_URL".to_owned(), endpoint.url());
        secrets.insert("NOTICE_SECRETS".to_owned(), NOTICE_SECRETS.join(" "));
    })
}

/// The notices once there are as many; the endpoint has verified them.
fn notices(endpoint: &Endpoint, count: usize) -> Result<Vec<Notice>> {
    eventually("the notices arrive", || Ok(Some(endpoint.received()?).filter(|all| all.len() >= count)))
}

/// 1. A deletion of several chunks that is carried out. 2. One that is cancelled in its undo window. 3. One notice of each,
///    with the deletion as the API shows it and no key. 4. Nothing is owed any more, and no more notices come.
#[test]
fn a_deletions_end_is_told_once_whether_it_was_carried_out_or_cancelled() -> Result<()> {
    let endpoint = Endpoint::start()?;
    let pair = pair_with(&endpoint)?;
    let api = pair.api();
    let keys: Vec<String> = (0..2_500).map(|n| format!("canary-4711/{n}")).collect();
    pair.gateway().put(keys.get(..1_000).context("keys")?, 1)?;
    let body = json!({"objectKeys": keys, "labels": {"reason": "test"}}).to_string();
    let carried_out: Value = api.send("POST", "/v1/deletions", JSON, &body)?.expect(202)?;
    let body = json!({"objectKeys": ["kept"], "delay_seconds": 3_600}).to_string();
    let cancelled: Value = api.send("POST", "/v1/deletions", JSON, &body)?.expect(202)?;
    let id = |deletion: &Value| deletion["id"].as_str().map(str::to_owned).context("an id");
    let (carried_out, cancelled) = (id(&carried_out)?, id(&cancelled)?);
    api.send("POST", &format!("/v1/deletions/{cancelled}/cancel"), &[], "")?.expect::<Value>(200)?;
    pair.settle(&carried_out)?;

    let received = notices(&endpoint, 2)?;
    for (deletion, state) in [(&carried_out, "succeeded"), (&cancelled, "cancelled")] {
        let webhook_id = format!("{deletion}_0");
        let notice = received.iter().find(|notice| notice.id == webhook_id).context("a notice of each")?;
        let shown: Value = api.get(&format!("/v1/deletions/{deletion}"))?.expect(200)?;
        assert_eq!(shown["state"], state);
        let expected = json!({"type": "deletion.finished", "timestamp": shown["finished_at"], "data": shown});
        assert_eq!(notice.body, expected);
        assert!(!notice.body.to_string().contains("canary-4711"), "a key in a notice");
    }

    eventually("nothing is owed", || {
        let stats: Value = api.get("/v1/stats")?.expect(200)?;
        Ok((stats["notices"] == json!({"owed": 0, "failed": 0})).then_some(()))
    })?;
    // A third deletion's notice comes after whatever else was on its way.
    let last = api.delete(&["last".to_owned()])?;
    eventually("the last notice arrives", || {
        Ok(endpoint.received()?.iter().any(|notice| notice.id == format!("{}_0", last.id)).then_some(()))
    })?;
    assert_eq!(endpoint.received()?.len(), 3);

    let log = pair.log()?;
    assert!(log.contains("notice.delivered"));
    for secret in ["canary-4711", NOTICE_URL_CANARY, NOTICE_SECRETS[0], NOTICE_SECRETS[1]] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    Ok(())
}

#[test]
fn a_notice_that_the_endpoint_refuses_comes_again_after_seconds() -> Result<()> {
    let endpoint = Endpoint::start()?;
    let pair = pair_with(&endpoint)?;
    endpoint.fail(0, 1, crash::Fault::refused(503_u16));
    let deletion = pair.api().delete(&["a".to_owned()])?;
    let received = notices(&endpoint, 2)?;
    assert!(received.iter().all(|notice| notice.id == format!("{}_0", deletion.id)));
    eventually("it is delivered", || Ok(pair.log()?.contains("notice.delivered").then_some(())))
}
