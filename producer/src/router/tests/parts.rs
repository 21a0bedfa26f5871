use super::*;

impl World {
    /// Begins a deletion in parts.
    fn begin(&self) -> String {
        let begun = self.post(r#"{"in_parts":true,"labels":{"project":"42"}}"#);
        assert_eq!((begun.status, &begun.body["state"]), (202, &json!("accepting")), "{}", begun.body);
        begun.body["id"].as_str().unwrap().to_owned()
    }

    fn put(&self, id: &str, number: u32, keys: &[String]) -> Answer {
        let body = json!({ "objectKeys": keys }).to_string().into_bytes();
        self.ask(request("PUT", &format!("/v1/deletions/{id}/parts/{number}"), body))
    }

    fn seal(&self, id: &str, parts: u32, total_keys: usize) -> Answer {
        let body = json!({ "parts": parts, "total_keys": total_keys }).to_string().into_bytes();
        self.ask(request("POST", &format!("/v1/deletions/{id}/seal"), body))
    }
}

fn keys(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("proj_42/{n}")).collect()
}

fn errors(answer: &Answer) -> Vec<&str> {
    answer.body["errors"].as_array().unwrap().iter().map(|error| error["detail"].as_str().unwrap()).collect()
}

#[test]
fn a_deletion_in_parts_is_one_deletion_with_one_status() {
    let world = World::new();
    let id = world.begin();
    let mut second = keys(2_500..3_000);
    second.push("proj_42/2500".to_owned());
    let put = world.put(&id, 2, &second);
    assert_eq!(
        (put.status, put.body),
        (202, json!({"part": 2, "keys": 500, "duplicates_removed": 1, "messages": 1}))
    );
    assert_eq!(world.put(&id, 1, &keys(0..2_500)).body["messages"], 3);
    let chunks: Vec<u32> = world
        .queue
        .stored
        .borrow()
        .iter()
        .map(|body| ChunkMessage::from_json(body).unwrap().chunk.chunk)
        .collect();
    assert_eq!(chunks, [2_000, 1_000, 1_001, 1_002]);

    let sealed = world.seal(&id, 2, 3_001);
    assert_eq!((sealed.status, &sealed.body["state"]), (202, &json!("queued")), "{}", sealed.body);
    assert_eq!((&sealed.body["counts"]["total"], &sealed.body["messages"]), (&json!(3_000), &json!(4)));
    assert_eq!(world.seal(&id, 2, 3_001).body, sealed.body);
    let closed = world.put(&id, 3, &keys(0..1));
    assert_eq!((closed.status, &closed.body["code"]), (409, &json!("parts_closed")));
}

#[test]
fn parts_have_the_fence_of_their_deletion() {
    for (asked, sent) in [
        ("", Fence::Auto),
        (r#","fence":"always""#, Fence::Always),
        (r#","fence":"off""#, Fence::Off),
        (r#","delay_seconds":60"#, Fence::Always),
    ] {
        let world = World::new();
        let begun = world.post(format!(r#"{{"in_parts":true{asked}}}"#));
        let id = begun.body["id"].as_str().unwrap();
        assert_eq!(world.put(id, 1, &keys(0..1)).status, 202);
        let lines = Request {
            content_type: Some("application/x-ndjson".to_owned()),
            ..request("PUT", &format!("/v1/deletions/{id}/parts/2"), b"\"proj_42/1\"\n".to_vec())
        };
        assert_eq!(world.ask(lines).status, 202);
        let stored = world.queue.stored.borrow();
        let fences: Vec<_> = stored.iter().map(|body| ChunkMessage::from_json(body).unwrap().fence).collect();
        assert_eq!(fences, [sent; 2], "{asked}");
    }
}

/// What is uploaded before a key is named is what it was named for, whenever its deletion was begun.
#[test]
fn a_key_is_requested_by_whoever_puts_its_part_first() {
    let mut world = World::new();
    let begun_at = 1_000_000;
    world.host.now.set(begun_at);
    let (id, begun) = (world.begin(), world.host.now());
    world.host.now.set(begun_at + 120_000);
    assert_eq!(world.put(&id, 1, &keys(0..1)).status, 202);
    // One that was not sent is sent later, and is as old as it was.
    world.host.now.set(begun_at + 180_000);
    world.queue.fails = Some((15000, 0));
    assert_eq!(world.put(&id, 2, &keys(1..2)).status, 503);
    world.queue.fails = None;
    world.host.now.set(begun_at + 600_000);
    assert_eq!(world.put(&id, 2, &keys(1..2)).status, 202);
    // A clock that is behind makes no key older than its deletion.
    world.host.now.set(begun_at - 1);
    assert_eq!(world.put(&id, 3, &keys(2..3)).status, 202);

    let stored = world.queue.stored.borrow();
    let times = stored.iter().map(|body| ChunkMessage::from_json(body).unwrap().requested_at);
    assert_eq!(times.collect::<Vec<_>>(), [120_000, 180_000, 0].map(|millis| begun.plus_millis(millis)));
}

#[test]
fn the_notice_of_a_deletion_that_ends_as_it_is_sealed_is_looked_at_at_once() {
    let world = World::new();
    let id = world.begin();
    world.put(&id, 1, &keys(0..2));
    world.consume_chunk(&id, 1_000, 2);
    world.queue.stored.take();
    assert_eq!(world.seal(&id, 1, 2).body["state"], "failed");
    assert_eq!(world.seal(&id, 1, 2).status, 202);
    let notice = NoticeRef { deletion: id.parse().unwrap(), generation: 0 };
    assert_eq!(*world.queue.stored.borrow(), [notice.to_message()], "once, however often it is sealed");
    assert_eq!(world.get("/v1/stats").body["notices"], json!({"owed": 1, "failed": 0}));
}

#[test]
fn a_part_is_taken_once_however_often_it_is_put() {
    let mut world = World::new();
    let id = world.begin();
    world.queue.fails = Some((15000, 1));
    let refused = world.put(&id, 1, &keys(0..20_000));
    assert_eq!((refused.status, &refused.body["retryable"]), (503, &json!(true)));
    let unsent = world.seal(&id, 1, 20_000);
    assert_eq!(errors(&unsent), ["part 1 is not stored whole, put it again"]);

    world.queue.fails = None;
    for _ in 0..2 {
        assert_eq!(world.put(&id, 1, &keys(0..20_000)).body["keys"], 20_000);
    }
    let mut stored = world.queue.stored.borrow().clone();
    stored.sort();
    stored.dedup();
    assert_eq!(stored.len(), 20);
    let other = world.put(&id, 1, &keys(0..3));
    assert_eq!((other.status, &other.body["code"]), (409, &json!("part_differs")));
    assert_eq!(world.seal(&id, 1, 20_000).status, 202);
}

#[test]
fn what_is_not_as_it_was_said_is_not_sealed_and_says_why() {
    let world = World::new();
    let id = world.begin();
    world.put(&id, 1, &keys(0..10));
    world.put(&id, 4, &keys(10..20));
    let missing = world.seal(&id, 3, 20);
    assert_eq!((missing.status, &missing.body["code"]), (409, &json!("parts_incomplete")));
    assert_eq!(errors(&missing), ["part 2 is missing", "part 3 is missing", "part 4 is there too"]);
    assert_eq!(errors(&world.seal(&id, 1_000, 20)).len(), 20);
    // The one that is too many would be the twenty-first.
    world.put(&id, 30, &keys(0..1));
    assert_eq!(errors(&world.seal(&id, 29, 20)).len(), 20);
    let world = World::new();
    let id = world.begin();
    for (number, keys) in [(1, keys(0..10)), (4, keys(10..20))] {
        world.put(&id, number, &keys);
    }
    world.put(&id, 2, &keys(20..21));
    world.put(&id, 3, &keys(20..21));
    assert_eq!(errors(&world.seal(&id, 4, 21)), ["the parts have 22 keys"]);
    for (body, pointer) in [
        (json!({"parts": 0, "total_keys": 1}), "#/parts"),
        (json!({"parts": 1_001, "total_keys": 1}), "#/parts"),
        (json!({"total_keys": 1}), "#/parts"),
        (json!({"parts": 1, "total_keys": 1.5}), "#/total_keys"),
        (json!({"parts": 1, "total_keys": "1"}), "#/total_keys"),
        (json!({"parts": 1, "total_keys": 1, "force": true}), "#/force"),
    ] {
        let target = format!("/v1/deletions/{id}/seal");
        let refused = world.ask(request("POST", &target, body.to_string().into_bytes()));
        assert_eq!((refused.status, &refused.body["errors"][0]["pointer"]), (422, &json!(pointer)), "{body}");
    }
    let body = json!({"parts": 4.0, "total_keys": 22.0}).to_string();
    assert_eq!(world.ask(request("POST", &format!("/v1/deletions/{id}/seal"), body.into())).status, 202);
    assert_eq!(world.seal(&id, 4, 22).status, 202);
}

#[test]
fn a_request_in_parts_names_no_keys_and_a_part_nothing_else() {
    let world = World::new();
    let both = world.post(r#"{"in_parts":true,"objectKeys":["a"]}"#);
    assert_eq!((both.status, &both.body["errors"][0]["pointer"]), (422, &json!("#/in_parts")));
    assert_eq!(world.post(r#"{"in_parts":false}"#).status, 422);
    assert_eq!(world.post(r#"{"in_parts":false,"objectKeys":["a"]}"#).body["state"], "queued");
    let id = world.begin();
    for body in [r#"{"objectKeys":["a"],"delay_seconds":5}"#, r#"{"in_parts":true}"#, r#"{"objectKeys":[]}"#]
    {
        let target = format!("/v1/deletions/{id}/parts/1");
        let refused = world.ask(request("PUT", &target, body.as_bytes().to_vec()));
        assert_eq!((refused.status, &refused.body["code"]), (422, &json!("validation_failed")), "{body}");
    }
    for number in ["0", "01", "1001", "-1", "x", "1.0"] {
        let target = format!("/v1/deletions/{id}/parts/{number}");
        assert_eq!(
            world.ask(request("PUT", &target, br#"{"objectKeys":["a"]}"#.to_vec())).status,
            404,
            "{number}"
        );
    }
    let whole = world.post(keys_body(3)).body["id"].as_str().unwrap().to_owned();
    assert_eq!(world.put(&whole, 1, &keys(0..1)).body["code"], "parts_closed");
    assert_eq!(world.seal(&whole, 1, 3).body["code"], "parts_incomplete");
}

#[test]
fn what_is_cancelled_or_somebody_elses_takes_no_parts() {
    let world = world_with(&[("backend", json!({"prefixes": ["proj_42/"]}))]);
    let id = world.begin();
    let body = || br#"{"objectKeys":["proj_42/a"]}"#.to_vec();
    let target = format!("/v1/deletions/{id}/parts/1");
    assert_eq!(world.ask_as("backend-token", request("PUT", &target, body())).status, 404);
    let theirs =
        world.ask_as("backend-token", request("POST", "/v1/deletions", br#"{"in_parts":true}"#.to_vec()));
    let target = format!("/v1/deletions/{}/parts/1", theirs.body["id"].as_str().unwrap());
    let outside = br#"{"objectKeys":["proj_421/a"]}"#.to_vec();
    assert_eq!(
        world.ask_as("backend-token", request("PUT", &target, outside)).body["code"],
        "key_not_allowed"
    );
    assert_eq!(world.ask_as("backend-token", request("PUT", &target, body())).status, 202);
    assert_eq!(
        world.ask(request("PUT", &target, body())).status,
        404,
        "an operator sees it and adds nothing to it"
    );

    world.put(&id, 1, &keys(0..5));
    let cancelled = world.ask(request("POST", &format!("/v1/deletions/{id}/cancel"), Vec::new()));
    assert_eq!(
        (&cancelled.body["state"], &cancelled.body["counts"]["cancelled"]),
        (&json!("cancelled"), &json!(5))
    );
    assert_eq!(world.put(&id, 2, &keys(0..1)).body["code"], "parts_closed");
    assert_eq!(world.seal(&id, 1, 5).body["code"], "deletion_cancelled");
}

#[test]
fn a_seal_says_how_many_keys_there_are_as_a_number_that_can_be() {
    let world = World::new();
    let begun = world.post(r#"{"in_parts":true}"#);
    let target = format!("/v1/deletions/{}/seal", begun.body["id"].as_str().unwrap());
    let most = (1_u64 << 53) - 1;
    for (keys, status) in [(0, 422), (1, 409), (most, 409), (most + 1, 422), (u64::MAX, 422)] {
        let said = json!({"parts": 1, "total_keys": keys}).to_string();
        let answer = world.ask(request("POST", &target, said.into_bytes()));
        assert_eq!(answer.status, status, "{keys}: {}", answer.body);
    }
}
