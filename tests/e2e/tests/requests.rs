//! Every wrong request is refused with an answer that says what is right, and nothing is accepted of it.
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use anyhow::Result;
use e2e::Pair;
use serde_json::Value;
use xtask::project::{Project, Worker};
use xtask::stack::Answer;

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// Checks what every problem has in common, and answers with its code.
fn problem(answer: &Answer) -> Result<(u16, String)> {
    let body: Value = answer.json()?;
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(body["status"], answer.status);
    assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"));
    assert!(
        body["retryable"].is_boolean() && body["detail"].as_str().is_some_and(|detail| detail.len() > 10)
    );
    Ok((answer.status, body["code"].as_str().unwrap_or_default().to_owned()))
}

#[test]
fn a_wrong_body_is_refused_with_a_pointer_to_what_is_wrong() -> Result<()> {
    let pair = Pair::start()?;
    let too_long = format!(r#"{{"objectKeys":["a","{}"]}}"#, "k".repeat(1_025));
    let too_large = format!(r#"{{"objectKeys":["{}"]}}"#, "k".repeat(16_000_000));
    let too_many = format!(r#"{{"objectKeys":[{}]}}"#, vec!["\"k\""; 100_001].join(","));
    for (body, status, code, says) in [
        ("", 400, "malformed_request", "ends early"),
        (r#"{"objectKeys":["a""#, 400, "malformed_request", "ends early"),
        ("not json", 400, "malformed_request", "not valid JSON"),
        ("[]", 422, "validation_failed", "\"#\""),
        (r#"{"objectKeys":["a"],"dryrun":true}"#, 422, "validation_failed", "\"#/dryrun\""),
        (r#"{"objectKeys":["a",5]}"#, 422, "validation_failed", "\"#/objectKeys/1\""),
        (r#"{"objectKeys":"a"}"#, 422, "validation_failed", "\"#/objectKeys\""),
        (r#"{"objectKeys":[]}"#, 422, "validation_failed", "\"#/objectKeys\""),
        (r#"{"objectKeys":["a",""]}"#, 422, "validation_failed", "\"#/objectKeys/1\""),
        (too_long.as_str(), 422, "validation_failed", "1025 bytes"),
        (too_large.as_str(), 413, "payload_too_large", "16000000 bytes"),
        (too_many.as_str(), 413, "payload_too_large", "100001 keys"),
    ] {
        let answer = pair.api().send("POST", "/v1/deletions", JSON, body)?;
        let start: String = body.chars().take(40).collect();
        assert_eq!(problem(&answer)?, (status, code.to_owned()), "{start}");
        assert!(answer.body.contains(says), "{start}: {}", answer.body);
    }
    assert!(pair.gateway().sql("SELECT id FROM deletions", &[])?.is_empty());
    Ok(())
}

#[test]
fn a_request_without_the_token_or_of_the_wrong_form_is_refused() -> Result<()> {
    let pair = Pair::start()?;
    let (api, body) = (pair.api(), r#"{"objectKeys":["a"]}"#);
    let missing = api.send_bare("POST", "/v1/deletions", JSON, body)?;
    assert_eq!(problem(&missing)?, (401, "unauthenticated".to_owned()));
    assert_eq!(missing.header("www-authenticate"), Some("Bearer realm=\"r2-deletion-queue\""));
    let wrong = api.with_token("guess").send("POST", "/v1/deletions", JSON, body)?;
    assert_eq!(problem(&wrong)?, (401, "invalid_token".to_owned()));
    assert!(wrong.header("www-authenticate").is_some_and(|challenge| challenge.contains("invalid_token")));

    let method = api.send("PUT", "/v1/deletions", JSON, body)?;
    assert_eq!((problem(&method)?.0, method.header("allow")), (405, Some("GET, POST")));
    for headers in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
    ] {
        let answer = api.send("POST", "/v1/deletions", headers, body)?;
        assert_eq!(problem(&answer)?, (415, "unsupported_media_type".to_owned()), "{headers:?}");
    }
    for path in
        ["/v1/deletions/del_01kaszq5m00000000000000000", "/v1/deletions/x/failures", "/v1", "/v2/deletions"]
    {
        assert_eq!(problem(&api.get(path)?)?, (404, "not_found".to_owned()), "{path}");
    }
    assert_eq!(problem(&api.get("/v1/unreadable-messages?page_size=0")?)?.0, 422);
    assert!(pair.gateway().sql("SELECT id FROM deletions", &[])?.is_empty());
    Ok(())
}

#[test]
fn the_description_of_the_api_is_served_as_it_is_in_the_repository_without_a_token() -> Result<()> {
    let pair = Pair::start()?;
    let answer = pair.api().send_bare("GET", "/openapi.json", &[], "")?;
    let file = Project::locate()?.worker_crate(Worker::Producer).join("assets/openapi.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(answer.body, std::fs::read_to_string(file)?);
    let post = pair.api().send_bare("POST", "/openapi.json", &[], "{}")?;
    assert_eq!((problem(&post)?.0, post.header("allow")), (405, Some("GET")));
    // No other way leads to the file.
    for path in ["/openapi", "/openapi.json/", "/index.html"] {
        assert_eq!(problem(&pair.api().send_bare("GET", path, &[], "")?)?.0, 404, "{path}");
    }
    Ok(())
}

#[test]
fn the_probes_answer_without_a_token() -> Result<()> {
    let pair = Pair::start()?;
    for path in ["/healthz", "/readyz"] {
        let answer = pair.api().send_bare("GET", path, &[], "")?;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    Ok(())
}
