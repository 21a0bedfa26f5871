use ledger::{
    ListedObject, Page, SweepClaim, SweepGrant, SweepReply, SweepState, SweepThen, SweepTurn, SweepTurnReply,
};
use protocol::{KeyDigest, ObjectKey, SweepPhase};

use super::*;

const TEMPLATES: &str = r#"["proj_{id}/", "proj_{id}_", "proj_proj_{id}/"]"#;

/// A world with project templates, and a token `owner` that may delete and sweep.
fn sweeping() -> World {
    let owner = json!([{
        "name": "owner", "sha256": hex_digest("owner-token"), "roles": ["delete", "sweep", "read"]
    }]);
    let config = Config::parse(&Settings {
        api_tokens: Some(owner.to_string()),
        protected_prefixes: Some(r#"["legal/", "proj_7/legal/"]"#.to_owned()),
        project_templates: Some(TEMPLATES.to_owned()),
        ..settings()
    });
    World { config: Ok(config.unwrap()), ..World::new() }
}

impl World {
    fn ask_for(&self, body: &Value) -> Answer {
        self.ask_as("owner-token", request("POST", "/v1/deletions", body.to_string().into_bytes()))
    }

    fn own(&self, id: &Value) -> Value {
        self.ask_as("owner-token", request("GET", &path_of(id), Vec::new())).body
    }

    /// Does what a consumer would to the messages in the Queue, over a bucket of these keys, which it deletes.
    fn sweep(&self, bucket: &mut Vec<String>) {
        while let Some(body) = self.next_message() {
            let message = QueueMessage::from_json(&body).unwrap();
            let QueueMessage::Sweep(sweep) = message else {
                let QueueMessage::Chunk(ChunkMessage { chunk, keys, .. }) = message else { continue };
                let keys: Vec<_> = keys.iter().map(ObjectKey::as_str).collect();
                self.delete_chunk(chunk, &keys, bucket);
                continue;
            };
            let (token, now) = ("consumer".to_owned(), self.host.now());
            let claim = SweepClaim { sweep, token: token.clone(), now, until: now.plus_millis(1_000) };
            let SweepReply::Granted(grant) = block_on(self.ledger.claim_sweep(&claim)).unwrap() else {
                continue;
            };
            let mut state = grant.state.clone();
            let (found, rest): (Vec<_>, Vec<_>) = bucket.drain(..).partition(|key| grant.range.contains(key));
            if grant.phase == SweepPhase::Delete {
                let page = state.plan(state.progress.clone(), found.clone(), Vec::new()).unwrap();
                let planned = turn(&grant, &token, &state, Some(page.clone()), SweepThen::GoOn);
                assert!(block_on(self.ledger.turn_sweep(&planned)).unwrap().goes_on);
                state.take(page);
                state.settle(&(0..found.len()).collect::<Vec<_>>(), &[], &[]).unwrap();
                *bucket = rest;
            } else {
                for key in &found {
                    let object = ListedObject { key: key.clone(), size: 10, uploaded_at: now };
                    state.tally.count(&object, true);
                }
                *bucket = found.into_iter().chain(rest).collect();
            }
            let end = turn(&grant, &token, &state, None, SweepThen::EndPhase);
            let SweepTurnReply { ended, .. } = block_on(self.ledger.turn_sweep(&end)).unwrap();
            self.queue.stored.borrow_mut().extend(ended.due.iter().map(protocol::SweepRef::to_message));
        }
    }

    fn next_message(&self) -> Option<String> {
        self.queue.stored.borrow_mut().pop()
    }

    fn delete_chunk(&self, chunk: ChunkRef, keys: &[&str], bucket: &mut Vec<String>) {
        let (token, now) = ("consumer".to_owned(), self.host.now());
        let requests = vec![ClaimRequest { chunk, keys: keys.len() }];
        let claim = ClaimBatch { token: token.clone(), now, until: now.plus_millis(1), requests };
        let ClaimReply::Granted(grant) = block_on(self.ledger.claim(&claim)).unwrap().remove(0) else {
            return;
        };
        bucket.retain(|key| !keys.contains(&key.as_str()));
        let outcome = ChunkOutcome::new(grant, 0..keys.len(), Vec::new(), None, 1)
            .with_digest(|position| keys.get(position).copied());
        let record =
            RecordBatch { token, now, outcomes: vec![outcome], unreadable: Vec::new(), owe_notices: false };
        let reply = block_on(self.ledger.record(&record)).unwrap();
        self.queue.stored.borrow_mut().extend(reply.ended.due.iter().map(protocol::SweepRef::to_message));
    }
}

/// A turn at the time of the claim.
fn turn<'a>(
    grant: &'a SweepGrant,
    token: &'a str,
    state: &'a SweepState,
    planned: Option<Page>,
    then: SweepThen,
) -> SweepTurn<'a> {
    SweepTurn {
        grant,
        token,
        now: FakeHost::default().now(),
        attempts: 1,
        state,
        failed: Vec::new(),
        skipped: Vec::new(),
        planned,
        split: None,
        then,
        owe_notices: false,
    }
}

fn path_of(id: &Value) -> String {
    format!("/v1/deletions/{}", id.as_str().unwrap())
}

fn texts(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|&key| key.to_owned()).collect()
}

fn many(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}

#[test]
fn a_project_is_its_tracked_keys_and_whatever_else_begins_as_its_templates_say() {
    let world = sweeping();
    let mut bucket =
        texts(&["proj_42/a", "proj_42/b", "proj_42_c", "proj_proj_42/d", "proj_421/e", "proj_4/f"]);
    let accepted = world.ask_for(&json!({"objectKeys": ["proj_42/a"], "project": "42", "verify": true}));
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    let prefixes = json!(["proj_42/", "proj_42_", "proj_proj_42/"]);
    assert_eq!((&accepted.body["prefixes"], &accepted.body["state"]), (&prefixes, &json!("queued")));
    assert_eq!(world.queue.stored.borrow().len(), 1, "the sweeps wait for the keys");
    world.sweep(&mut bucket);
    let end = world.own(&accepted.body["id"]);
    assert_eq!((&end["state"], &end["found_by_prefix"]), (&json!("succeeded"), &json!(3)), "{end}");
    assert_eq!((&end["counts"]["total"], &end["counts"]["deleted"]), (&json!(4), &json!(4)));
    assert_eq!(bucket, texts(&["proj_421/e", "proj_4/f"]));
    assert_eq!(end["verification"]["objects_left"], 0);

    // The receipt says which keys they were to whoever knows them.
    let receipt = format!("{}/receipt", path_of(&end["id"]));
    let receipt = world.ask_as("owner-token", request("GET", &receipt, Vec::new()));
    let keys = ["proj_proj_42/d", "proj_42/a", "proj_42/b", "proj_42_c"];
    let digest = keys.into_iter().fold(KeyDigest::default(), KeyDigest::with).to_string();
    assert_eq!((receipt.status, &receipt.body["deletion"]), (200, &end), "{}", receipt.body);
    assert_eq!(
        receipt.body["deleted_keys_digest"],
        json!({"algorithm": "sha256-sum", "keys": 4, "value": digest})
    );
    let file = format!("attachment; filename=\"{}.json\"", end["id"].as_str().unwrap());
    assert_eq!(receipt.header("Content-Disposition"), Some(file.as_str()));
}

#[test]
fn there_is_no_receipt_before_the_end_and_no_digest_that_was_not_asked_for() {
    let world = sweeping();
    let id = world.ask_for(&json!({"prefixes": ["a/"]})).body["id"].clone();
    let receipt =
        || world.ask_as("owner-token", request("GET", &format!("{}/receipt", path_of(&id)), Vec::new()));
    let early = receipt();
    assert_eq!((early.status, &early.body["code"]), (409, &json!("deletion_not_final")));
    assert!(early.header("Retry-After").is_some());
    world.sweep(&mut texts(&["a/b"]));
    let late = receipt();
    assert_eq!((late.status, &late.body["deleted_keys_digest"]), (200, &Value::Null), "{}", late.body);
    let query = format!("{}/receipt?format=pdf", path_of(&id));
    assert_eq!(world.ask_as("owner-token", request("GET", &query, Vec::new())).status, 422);
}

#[test]
fn a_dry_run_is_a_plan_that_a_deletion_can_name() {
    let world = sweeping();
    let mut bucket = [many("a/", 30), many("b/", 30)].concat();
    let asked = json!({"objectKeys": ["x", "y", "x"], "prefixes": ["a/", "b/"], "dry_run": true});
    let planned = world.ask_for(&asked);
    assert_eq!((planned.status, &planned.body["dry_run"]), (202, &json!(true)), "{}", planned.body);
    let early = world.ask_for(&json!({"plan": planned.body["id"]}));
    assert_eq!((early.status, &early.body["errors"][0]["pointer"]), (422, &json!("#/plan")), "not over yet");
    world.sweep(&mut bucket);
    let plan = world.own(&planned.body["id"]);
    assert_eq!((&plan["state"], &plan["counts"]["total"], bucket.len()), (&json!("planned"), &json!(0), 60));
    assert_eq!((&plan["plan"]["keys"], &plan["plan"]["objects"]), (&json!(2), &json!(60)));
    assert_eq!((&plan["plan"]["bytes"], plan["plan"]["sample"].as_array().unwrap().len()), (&json!(600), 20));

    for (body, detail) in [
        (json!({"plan": plan["id"], "prefixes": ["a/"]}), "same prefixes"),
        (json!({"plan": plan["id"], "prefixes": ["a/", "c/"]}), "same prefixes"),
        (json!({"plan": "del_01kaszq5m0zzzzzzzzzzzzzzzz"}), "the id of a dry run"),
    ] {
        let refused = world.ask_for(&body);
        assert_eq!(refused.status, 422, "{}", refused.body);
        assert!(refused.body["errors"][0]["detail"].as_str().unwrap().contains(detail), "{}", refused.body);
    }
    // Ten more than it has seen are let through, and eleven are not.
    for (more, state, left) in [(11, "failed", 71), (10, "succeeded", 0)] {
        let mut bucket = [many("a/", 30), many("b/", 30 + more)].concat();
        let deletion = world.ask_for(&json!({"plan": plan["id"]}));
        assert_eq!((deletion.status, &deletion.body["prefixes"]), (202, &json!(["a/", "b/"])));
        world.sweep(&mut bucket);
        let end = world.own(&deletion.body["id"]);
        assert_eq!((&end["state"], bucket.len()), (&json!(state), left), "{end}");
        let code = end["errors"].get(0).map(|error| error["code"].clone());
        assert_eq!(code, (left > 0).then(|| json!("max_objects_exceeded")));
        let redriven = world.ask(request("POST", &format!("{}/redrive", path_of(&end["id"])), Vec::new()));
        assert_eq!((redriven.status, &redriven.body["generation"]), (200, &json!(0)), "no key is redriven");
    }
    // Somebody else's plan is none.
    let foreign = world.post(json!({"plan": plan["id"]}).to_string());
    assert_eq!((foreign.status, &foreign.body["errors"][0]["pointer"]), (422, &json!("#/plan")));
}

#[test]
fn a_dry_run_of_keys_alone_is_over_at_once_and_sends_nothing() {
    let world = sweeping();
    let planned = world.ask_for(&json!({"objectKeys": ["a", "b", "a"], "dry_run": true}));
    assert_eq!((planned.status, &planned.body["state"]), (202, &json!("planned")), "{}", planned.body);
    assert_eq!((&planned.body["plan"]["keys"], &planned.body["duplicates_removed"]), (&json!(2), &json!(1)));
    assert_eq!((&planned.body["counts"]["total"], world.queue.stored.borrow().len()), (&json!(0), 0));
    assert!(planned.header("Retry-After").is_none());
}

#[test]
fn what_is_protected_is_reached_by_no_sweep_whoever_asks() {
    let world = sweeping();
    for (body, pointer) in [
        (json!({"prefixes": ["a/", "legal/42/"]}), "#/prefixes/1"),
        (json!({"prefixes": ["legal/"]}), "#/prefixes/0"),
        (json!({"prefixes": ["l"], "max_objects": 5}), "#/prefixes/0"),
        (json!({"project": "7"}), "#/project"),
        (json!({"objectKeys": ["a"], "project": "7", "dry_run": true}), "#/project"),
    ] {
        for token in ["owner-token", "s3cret"] {
            let refused =
                world.ask_as(token, request("POST", "/v1/deletions", body.to_string().into_bytes()));
            assert_eq!((refused.status, &refused.body["code"]), (403, &json!("key_protected")), "{body}");
            assert_eq!(refused.body["errors"][0]["pointer"], pointer);
        }
    }
    assert!(world.queue.stored.borrow().is_empty());
    assert_eq!(world.get("/v1/deletions").body["deletions"], json!([]));
}

#[test]
fn a_sweep_that_was_asked_for_twice_with_one_key_is_one_deletion() {
    let world = World { queue: FakeQueue { fails: Some((10250, 0)), ..FakeQueue::default() }, ..sweeping() };
    let body = json!({"prefixes": ["a/"], "delay_seconds": 60}).to_string();
    let refused = world.post_with_key("k", body.clone());
    assert_eq!((refused.status, refused.body["retryable"].clone()), (429, json!(true)), "{}", refused.body);
    let world = World { queue: FakeQueue::default(), ..world };
    let ids = [(); 2].map(|()| {
        let accepted = world.post_with_key("k", body.clone());
        assert_eq!(accepted.status, 202, "{}", accepted.body);
        accepted.body["id"].clone()
    });
    assert_eq!(ids[0], ids[1]);
    assert_eq!(world.queue.stored.borrow().len(), 1, "finished by the first, and not sent by the second");
    assert_eq!(*world.queue.delays.borrow(), [60]);
    world.sweep(&mut texts(&["a/b"]));
    assert_eq!(world.get(&path_of(&ids[0])).body["counts"]["deleted"], 1);
}

#[test]
fn a_deletion_in_parts_can_be_verified_and_has_a_receipt() {
    let world = sweeping();
    let id = world.ask_for(&json!({"in_parts": true, "verify": true})).body["id"].clone();
    let part = format!("{}/parts/1", path_of(&id));
    let put = world.ask_as("owner-token", request("PUT", &part, br#"{"objectKeys":["a","b"]}"#.to_vec()));
    assert_eq!(put.status, 202, "{}", put.body);
    world.sweep(&mut texts(&["a", "b"]));
    let said = json!({"parts": 1, "total_keys": 2}).to_string().into_bytes();
    let sealed = world.ask_as("owner-token", request("POST", &format!("{}/seal", path_of(&id)), said));
    assert_eq!((sealed.status, &sealed.body["state"]), (202, &json!("succeeded")));
    let receipt = format!("{}/receipt", path_of(&id));
    let receipt = world.ask_as("owner-token", request("GET", &receipt, Vec::new()));
    let digest = KeyDigest::default().with("b").with("a").to_string();
    assert_eq!(receipt.body["deleted_keys_digest"]["value"], digest);
}

#[test]
fn a_plan_is_of_its_prefixes_in_any_order_and_lets_a_tenth_more_through() {
    let world = sweeping();
    let mut bucket = [many("a/", 200), many("b/", 100)].concat();
    let planned = world.ask_for(&json!({"prefixes": ["a/", "b/"], "dry_run": true}));
    world.sweep(&mut bucket);
    let plan = &planned.body["id"];
    let more = world.ask_for(&json!({"plan": plan, "prefixes": ["a/", "b/", "c/"]}));
    assert_eq!(more.status, 422, "{}", more.body);
    for (more, state) in [(31, "failed"), (30, "succeeded")] {
        let mut bucket = [many("a/", 200), many("b/", 100 + more)].concat();
        let deletion = world.ask_for(&json!({"plan": plan, "prefixes": ["b/", "a/"]}));
        assert_eq!(deletion.status, 202, "{}", deletion.body);
        world.sweep(&mut bucket);
        assert_eq!(world.own(&deletion.body["id"])["state"], state, "{more} more");
    }
}

#[test]
fn the_call_that_answers_for_each_key_deletes_by_key_only() {
    let world = sweeping();
    for (name, value) in [
        ("prefixes", json!(["a/"])),
        ("project", json!("42")),
        ("max_objects", json!(5)),
        ("dry_run", json!(true)),
        ("verify", json!(true)),
        ("plan", json!("del_01kaszq5m0zzzzzzzzzzzzzzzz")),
    ] {
        let body = json!({"objectKeys": ["k"], name: value}).to_string();
        let refused = world.ask_as("owner-token", request("POST", "/", body.into_bytes()));
        let error = &refused.body["errors"][0];
        assert_eq!((refused.status, &error["pointer"]), (422, &json!(format!("#/{name}"))), "{name}");
        assert!(error["detail"].as_str().unwrap().contains("by key only"), "{error}");
    }
    assert!(world.queue.stored.borrow().is_empty());
}

#[test]
fn a_prefix_may_be_as_long_as_a_key() {
    for (bytes, status) in [(1_024, 202), (1_025, 422)] {
        let prefix = format!("{}/", "p".repeat(bytes - 1));
        assert_eq!(sweeping().ask_for(&json!({"prefixes": [prefix]})).status, status, "{bytes}");
    }
}
