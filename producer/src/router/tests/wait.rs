//! `POST /`: what became of each key, once the deletion is final.

use ledger::SkippedKey;

use super::*;

impl World {
    /// Asks with an Idempotency-Key, so that it can be asked for again what has been carried out meanwhile.
    fn delete_and_wait(&self, body: &Value) -> Answer {
        let request = request("POST", "/", body.to_string().into_bytes());
        self.ask(Request { idempotency_key: Some("k".to_owned()), ..request })
    }
}

/// Keys that a consumer here fails every second of, the first of them asked for twice.
fn body() -> Value {
    let keys = ["k0\0", "k1\0", "k0\0", "k2\0", "k3\0", "k1\0"];
    json!({ "objectKeys": keys })
}

fn locked(key: &str) -> Value {
    json!({"key": key, "success": false, "error": FailureCode::ObjectLocked.message()})
}

fn deleted(key: &str) -> Value {
    json!({"key": key, "success": true})
}

#[test]
fn a_deletion_that_does_not_end_in_time_is_accepted_and_is_told_of_when_it_has() {
    let world = World::new();
    let accepted = world.delete_and_wait(&body());
    assert_eq!((accepted.status, &accepted.body["state"]), (202, &json!("queued")));
    let id = accepted.body["id"].as_str().unwrap();
    assert_eq!(accepted.header("Location"), Some(format!("/v1/deletions/{id}").as_str()));
    assert_eq!(accepted.header("Retry-After"), Some("1"));
    assert!((20_000..=25_000).contains(&world.host.now.get()), "{}", world.host.now.get());

    world.consume(id, 4);
    let answer = world.delete_and_wait(&body());
    assert_eq!((answer.status, answer.header("Idempotent-Replayed")), (200, Some("true")));
    assert_eq!((answer.header("Location"), answer.header("Retry-After")), (None, None));
    let (k0, k1) = (locked("k0\0"), deleted("k1\0"));
    let results = json!({ "results": [k0, k1, k0, locked("k2\0"), deleted("k3\0"), k1] });
    assert_eq!(answer.body, results);
}

#[test]
fn nobody_waits_for_the_end_of_an_undo_window_that_is_longer_than_they_would() {
    for (delay_seconds, waited_ms) in [(86_400, 0..=0), (26, 0..=0), (25, 20_000..=25_000)] {
        let world = World::new();
        let accepted = world.delete_and_wait(&json!({"objectKeys": ["a"], "delay_seconds": delay_seconds}));
        assert_eq!(accepted.status, 202);
        assert!(waited_ms.contains(&world.host.now.get()), "{delay_seconds}: {}", world.host.now.get());
    }
}

#[test]
fn of_a_cancelled_deletion_nothing_is_said_to_be_deleted() {
    let world = World::new();
    let id = world.delete_and_wait(&body()).body["id"].as_str().unwrap().to_owned();
    world.ask(request("POST", &format!("/v1/deletions/{id}/cancel"), Vec::new()));
    let answer = world.delete_and_wait(&body());
    let results = answer.body["results"].as_array().unwrap();
    assert_eq!((answer.status, results.len()), (200, 6));
    for result in results {
        assert_eq!(result["success"], false);
        assert!(result["error"].as_str().unwrap().contains("cancelled"), "{result}");
    }
}

#[test]
fn each_key_is_told_its_own_reason_whatever_the_others_have() {
    let world = World::new();
    let body = json!({"objectKeys": ["locked", "newer", "gone", "refused", "locked too"]});
    let id = world.delete_and_wait(&body).body["id"].as_str().unwrap().parse().unwrap();
    let (token, now) = ("consumer".to_owned(), world.host.now());
    let requests = vec![ClaimRequest { chunk: ChunkRef { deletion: id, generation: 0, chunk: 0 }, keys: 5 }];
    let claim = ClaimBatch { token: token.clone(), now, until: now.plus_millis(1), requests };
    let Some(ClaimReply::Granted(grant)) = block_on(world.ledger.claim(&claim)).unwrap().pop() else {
        panic!("not granted")
    };
    let failed = [
        (0, "locked", FailureCode::ObjectLocked),
        (3, "refused", FailureCode::AttemptsExhausted),
        (4, "locked too", FailureCode::ObjectLocked),
    ];
    let failed = failed.map(|(position, key, code)| FailedKey {
        position,
        key_json: json!(key).to_string(),
        code,
        error: None,
    });
    let newer = SkippedKey { position: 1, key_json: json!("newer").to_string(), uploaded_at: now };
    let outcome = ChunkOutcome::new(grant, [2], failed.to_vec(), None, 1).with_skipped(vec![newer]);
    let (unreadable, owe_notices) = (Vec::new(), false);
    let batch = RecordBatch { token, now, outcomes: vec![outcome], unreadable, owe_notices };
    block_on(world.ledger.record(&batch)).unwrap();

    let answer = world.delete_and_wait(&body);
    let results = answer.body["results"].as_array().unwrap();
    assert_eq!((answer.status, results.len()), (200, 5));
    assert_eq!(results[0], locked("locked"));
    assert_eq!(results[2], deleted("gone"));
    assert_eq!(results[4], locked("locked too"));
    assert_eq!(results[3]["error"], FailureCode::AttemptsExhausted.message());
    assert_eq!((&results[1]["key"], &results[1]["success"]), (&json!("newer"), &json!(false)));
    let error = results[1]["error"].as_str().unwrap();
    assert!(error.contains("uploaded after the deletion was requested"), "{error}");
}

#[test]
fn it_refuses_what_a_deletion_refuses_and_takes_json_only() {
    let world = world_with(&[("reader", json!({"roles": ["read"]}))]);
    let ask = |token: &str, content_type: &str, body: &str| {
        let mut request = request("POST", "/", body.as_bytes().to_vec());
        request.content_type = Some(content_type.to_owned());
        world.ask_as(token, request)
    };
    let json = "application/json";
    for (token, content_type, body, status, code) in [
        ("guess", json, r#"{"objectKeys":["a"]}"#, 401, "invalid_token"),
        ("reader-token", json, r#"{"objectKeys":["a"]}"#, 403, "insufficient_scope"),
        ("s3cret", json, r#"{"objectKeys":["legal/a"]}"#, 403, "key_protected"),
        ("s3cret", json, r#"{"objectKeys":["a",""]}"#, 422, "validation_failed"),
        ("s3cret", json, r#"{"objectKeys":["a"],"dryrun":true}"#, 422, "validation_failed"),
        ("s3cret", "application/x-ndjson", "\"a\"\n", 415, "unsupported_media_type"),
    ] {
        let refused = ask(token, content_type, body);
        assert_eq!((refused.status, refused.body["code"].as_str()), (status, Some(code)), "{body}");
    }
    assert!(world.queue.stored.borrow().is_empty());
}

/// They are put between quotes as they are.
#[test]
fn no_reason_has_a_character_that_json_escapes() {
    for code in FailureCode::ALL {
        assert_eq!(json!(code.message()).to_string(), format!("\"{}\"", code.message()));
    }
}
