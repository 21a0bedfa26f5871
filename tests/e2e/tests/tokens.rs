//! Each token may do what it was given and sees what is its own, as often as the limit allows; and nobody may do anything
//! where the configuration is not understood.
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use anyhow::{Context, Result};
use e2e::Pair;
use serde_json::{Value, json};
use toml::Table;
use xtask::stack::{Answer, Api};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// The digests of the tokens `e2e-backend-token` and so on, as README's command prints them.
const BACKEND: &str = "0f01c67366ae8bd8ec351ff4bd9c0a5408d203824427c1b081568a3e5347e28e";
const BACKEND_BEFORE: &str = "77c4e4825ef3caef1a8afb15bb146d7e73c3a82322ba04d1316a4ac12b913d19";
const PROJECT: &str = "ef0262aa48a6ceaa9ff9146dd394f9fd762a3c33650f1dfe22d0b0a072d1b540";
const UNICODE: &str = "1080c48e3330f8bb7b40e0ed755922270b1bef5ec86050f1ceed2f446dfc518f";
const SUPPORT: &str = "fdee6dc8f42c80217cdf72268543b35a301688e3db2a064bd11382a4e0a86f19";

fn start_with(tokens: &Value, vars: &[(&str, toml::Value)]) -> Result<Pair> {
    let vars: Table = vars.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Pair::start_with(|options| {
        options.configs.secrets.insert("API_TOKENS".to_owned(), tokens.to_string());
        options.configs.producer.insert("vars".to_owned(), vars.into());
    })
}

fn post(api: &Api, keys: &[&str]) -> Result<Answer> {
    api.send("POST", "/v1/deletions", JSON, &json!({ "objectKeys": keys }).to_string())
}

/// The status, the code and what it points at.
fn refusal(answer: &Answer) -> Result<(u16, String, Vec<String>)> {
    let body: Value = answer.json()?;
    let errors = body["errors"].as_array().into_iter().flatten();
    let pointers = errors.map(|error| error["pointer"].as_str().unwrap_or_default().to_owned()).collect();
    Ok((answer.status, body["code"].as_str().unwrap_or_default().to_owned(), pointers))
}

/// 1. Five tokens beside the simple one, two of which are one caller's: its new and its old one.
/// 2. What a token may not delete, or nobody may, is refused as a whole, and pointed at, however it is spelt.
/// 3. A deletion is seen by both tokens of its caller and by whoever operates; to the other it is not there.
/// 4. In the bucket only what was allowed is gone, and no token is in the log.
#[test]
fn each_token_may_do_what_it_was_given_and_sees_what_is_its_own() -> Result<()> {
    // (1)
    let tokens = json!([
        {"name": "backend", "sha256": [BACKEND, BACKEND_BEFORE]},
        {"name": "project", "sha256": PROJECT, "prefixes": ["proj_42/"]},
        {"name": "unicode", "sha256": UNICODE, "prefixes": ["\u{212A}/\u{e9}/", "caf"]},
        {"name": "support", "sha256": SUPPORT, "roles": ["operate", "read"]},
    ]);
    // As wrangler's file says it: the runtime gives the Worker a list, and no text.
    let protected = toml::Value::from(vec!["legal-hold/", "café/"]);
    let pair = start_with(&tokens, &[("PROTECTED_PREFIXES", protected)])?;
    let [backend, before, project, unicode, support] =
        ["backend", "backend-token-before", "project", "unicode", "support"].map(|name| {
            let token =
                if name.contains("token") { format!("e2e-{name}") } else { format!("e2e-{name}-token") };
            pair.api().with_token(&token)
        });
    let objects = ["proj_42/a", "proj_421/a", "legal-hold/a", "café/a"].map(str::to_owned);
    pair.gateway().put(&objects, 1)?;

    // (2)
    let pointers = |pointers: &[&str]| pointers.iter().map(|&pointer| pointer.to_owned()).collect::<Vec<_>>();
    let refused = refusal(&post(&project, &["proj_42/a", "proj_421/a"])?)?;
    assert_eq!(refused, (403, "key_not_allowed".to_owned(), pointers(&["#/objectKeys/1"])));
    for api in [&pair.api(), &backend, &project] {
        let refused = refusal(&post(api, &["legal-hold/a", "proj_42/a"])?)?;
        assert_eq!(refused, (403, "key_protected".to_owned(), pointers(&["#/objectKeys/0"])));
    }
    // The runtime of the Worker normalises: U+0301 behind the e is the é, and U+212A is the K.
    for (api, key, code) in [
        (&pair.api(), "cafe\u{301}/a", "key_protected"),
        (&unicode, "caf\u{e9}/a", "key_protected"),
        (&unicode, "cafe\u{301}/a", "key_protected"),
        (&unicode, "k/a", "key_not_allowed"),
    ] {
        let refused = refusal(&post(api, &["K/e\u{301}/a", key])?)?;
        assert_eq!(refused, (403, code.to_owned(), pointers(&["#/objectKeys/1"])), "{key}");
    }
    let refused = post(&support, &["proj_42/a"])?;
    assert_eq!(refusal(&refused)?.1, "insufficient_scope");
    assert!(
        refused
            .header("www-authenticate")
            .is_some_and(|challenge| challenge.ends_with("scope=\"delete sweep\""))
    );
    assert!(pair.gateway().sql("SELECT id FROM deletions", &[])?.is_empty());

    // (3)
    let accepted: Value = post(&unicode, &["\u{212A}/\u{e9}/a", "K/e\u{301}/a"])?.expect(202)?;
    pair.settle(accepted["id"].as_str().context("an id")?)?;
    let accepted: Value = post(&before, &["proj_42/a"])?.expect(202)?;
    assert_eq!(accepted["requested_by"], "backend");
    let id = accepted["id"].as_str().context("an id")?;
    pair.settle(id)?;
    for api in [&before, &backend, &support] {
        assert_eq!(api.deletion(id)?.state, "succeeded");
        assert!(api.failures(id)?.failures.is_empty());
    }
    let another = "del_01kaszq5m00000000000000000";
    for rest in ["", "/failures"] {
        let [theirs, nobodys] = [id, another].map(|id| {
            let answer = project.get(&format!("/v1/deletions/{id}{rest}"))?;
            let mut body: Value = answer.json()?;
            body.as_object_mut().context("an object")?.remove("request_id");
            anyhow::Ok((answer.status, body.to_string()))
        });
        assert_eq!(theirs?, nobodys?);
    }
    assert_eq!(project.get("/v1/unreadable-messages")?.status, 403);
    assert_eq!(support.get("/v1/unreadable-messages")?.status, 200);
    assert_eq!(pair.api().with_token(BACKEND).get("/v1/unreadable-messages")?.status, 401);

    // (4)
    assert_eq!(pair.keys()?, ["café/a", "legal-hold/a", "proj_421/a"]);
    assert!(!pair.log()?.contains("-token"));
    Ok(())
}

/// The local runtime counts as the platform does, over a fixed minute: seven calls meet a limit of three in one or two.
#[test]
fn whoever_calls_too_often_is_told_when_to_come_back() -> Result<()> {
    let pair = Pair::start_with(|options| {
        let limit: Table = [("limit", 3), ("period", 60)]
            .map(|(name, value)| (name.to_owned(), toml::Value::from(value)))
            .into_iter()
            .collect();
        let limits = options.configs.producer.get_mut("ratelimits").and_then(toml::Value::as_array_mut);
        let first = limits.and_then(|limits| limits.first_mut()).and_then(toml::Value::as_table_mut);
        first.expect("the producer has a rate limit").insert("simple".to_owned(), limit.into());
    })?;
    let answers: Vec<Answer> =
        (0..7).map(|_| pair.api().get("/v1/unreadable-messages")).collect::<Result<_>>()?;
    assert_eq!(answers[0].status, 200);
    let limited: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!(!limited.is_empty());
    for answer in limited {
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("60")), "{}", answer.body);
        assert_eq!(answer.json::<Value>()?["code"], "rate_limited");
    }
    assert!(pair.api().is_healthy());
    // Guesses are counted by the address that they come from, which is the right token's too.
    let guesses: Vec<u16> =
        (0..7).map(|_| Ok(pair.api().with_token("guess").get("/v1/stats")?.status)).collect::<Result<_>>()?;
    assert_eq!((guesses[0], guesses.contains(&429)), (401, true), "{guesses:?}");
    Ok(())
}

#[test]
fn where_the_configuration_is_not_understood_nothing_is_ready_and_everything_is_refused() -> Result<()> {
    let wrong = toml::Value::from("legal-hold/");
    let pair = start_with(&json!([]), &[("PROTECTED_PREFIXES", wrong)])?;
    assert_eq!(refusal(&post(&pair.api(), &["a"])?)?.1, "not_configured");
    assert_eq!(pair.api().get("/v1/unreadable-messages")?.status, 503);
    assert_eq!(pair.api().send_bare("GET", "/healthz", &[], "")?.status, 200);
    assert_eq!(refusal(&pair.api().send_bare("GET", "/readyz", &[], "")?)?.1, "not_ready");
    let log = e2e::eventually("the log says what is wrong", || {
        Ok(Some(pair.log()?).filter(|log| log.contains("PROTECTED_PREFIXES: expected JSON like")))
    })?;
    assert!(log.contains("config.invalid") && !log.contains(pair.token()));
    Ok(())
}
