use futures::FutureExt as _;

use super::*;

/// Does what a consumer would to every message in the Queue, and takes it out: a key fails with the code that `fails` has for
/// it.
fn consume(world: &World, fails: impl Fn(&str) -> Option<FailureCode>) {
    for body in world.queue.stored.take() {
        let QueueMessage::Chunk(message) = QueueMessage::from_json(&body).unwrap() else { continue };
        let (token, now) = (format!("{:?}", message.chunk), world.host.now());
        let requests = vec![ClaimRequest { chunk: message.chunk, keys: message.keys.len() }];
        let claim = ClaimBatch { token: token.clone(), now, until: now.plus_millis(1), requests };
        let ClaimReply::Granted(grant) = block_on(world.ledger.claim(&claim)).unwrap().remove(0) else {
            continue;
        };
        let (mut deleted, mut failed) = (Vec::new(), Vec::new());
        for (position, key) in message.keys.iter().enumerate() {
            match fails(key.as_str()) {
                Some(code) => failed.push(FailedKey {
                    position,
                    key_json: serde_json::to_string(key).unwrap(),
                    code,
                    error: None,
                }),
                None => deleted.push(position),
            }
        }
        let outcomes = vec![ChunkOutcome::new(grant, deleted, failed, None, 1)];
        block_on(world.ledger.record(&RecordBatch {
            token,
            now,
            outcomes,
            unreadable: Vec::new(),
            owe_notices: false,
        }))
        .unwrap();
    }
}

impl World {
    fn deletion(&self, id: &str) -> Value {
        self.get(&format!("/v1/deletions/{id}")).body
    }

    fn redrive(&self, id: &str) -> Answer {
        self.ask(request("POST", &format!("/v1/deletions/{id}/redrive"), Vec::new()))
    }

    fn redrives(&self, body: &Value) -> Answer {
        self.ask(request("POST", "/v1/redrives", body.to_string().into_bytes()))
    }

    /// A deletion whose keys with an even number have failed, one of them in another way.
    fn half_failed(&self, keys: usize) -> String {
        let id = self.post(keys_body(keys)).body["id"].as_str().unwrap().to_owned();
        consume(self, |key| match key.trim_start_matches("proj_42/").parse::<usize>().unwrap() {
            0 => Some(FailureCode::AttemptsExhausted),
            number if number % 2 == 0 => Some(FailureCode::ObjectLocked),
            _ => None,
        });
        id
    }

    /// The keys in the Queue, in order.
    fn queued(&self) -> Vec<String> {
        let stored = self.queue.stored.borrow();
        let keys = |body: &String| -> Vec<String> {
            let message = ChunkMessage::from_json(body).unwrap();
            message.keys.iter().map(|key| key.as_str().to_owned()).collect()
        };
        stored.iter().flat_map(keys).collect()
    }
}

#[test]
fn a_redrive_sends_what_failed_and_nothing_else_and_ends_with_the_same_total() {
    let world = World::new();
    let id = world.half_failed(5_000);
    assert_eq!(world.deletion(&id)["counts"]["failed"], 2_500);

    let redriven = world.redrive(&id);
    assert_eq!((redriven.status, &redriven.body["generation"]), (202, &json!(1)), "{}", redriven.body);
    let counts = json!({"total": 5_000, "pending": 2_500, "deleted": 2_500, "skipped": 0, "failed": 0, "cancelled": 0});
    assert_eq!((&redriven.body["state"], &redriven.body["counts"]), (&json!("running"), &counts));
    let expected: Vec<String> = (0..2_500).map(|n| format!("proj_42/{:052}", 2 * n)).collect();
    assert_eq!(world.queued(), expected);

    let under_way = world.redrive(&id);
    assert_eq!((under_way.status, &under_way.body["generation"]), (202, &json!(1)));
    assert_eq!(world.queued().len(), 2_500, "nothing is sent twice");
    consume(&world, |_| None);
    let end = world.deletion(&id);
    assert_eq!((&end["state"], &end["counts"]["deleted"]), (&json!("succeeded"), &json!(5_000)));
    let nothing = world.redrive(&id);
    assert_eq!((nothing.status, nothing.body), (200, end));
}

#[test]
fn what_fails_again_can_be_redriven_again() {
    let world = World::new();
    let id = world.half_failed(10);
    world.redrive(&id);
    consume(&world, |_| Some(FailureCode::ObjectLocked));
    let failed = world.deletion(&id);
    assert_eq!((&failed["state"], &failed["counts"]["failed"]), (&json!("failed"), &json!(5)));
    assert_eq!(failed["errors"], json!([{"code": "object_locked", "r2_code": null, "count": 5}]));
    assert_eq!(world.redrive(&id).body["generation"], 2);
    consume(&world, |_| None);
    assert_eq!(world.deletion(&id)["counts"]["deleted"], 10);
}

#[test]
fn a_redrive_that_the_queue_refused_is_finished_by_the_next() {
    let mut world = World::new();
    let id = world.half_failed(10_000);
    world.queue.fails = Some((15000, world.queue.sends.get()));
    let refused = world.redrive(&id);
    assert_eq!((refused.status, &refused.body["retryable"]), (503, &json!(true)));
    assert_eq!(world.deletion(&id)["state"], "running", "it is written down");

    world.queue.fails = None;
    for _ in 0..2 {
        assert_eq!(world.redrive(&id).status, 202);
        assert_eq!(world.queued().len(), 5_000, "once");
    }
    consume(&world, |_| None);
    assert_eq!(world.deletion(&id)["counts"]["deleted"], 10_000);
}

#[test]
fn while_another_request_sends_a_redrive_nobody_is_told_that_it_is_sent() {
    let mut world = World::new();
    let id = world.half_failed(10);
    world.queue.fails = Some((15000, 0));
    assert_eq!(world.redrive(&id).status, 503);
    // As it stands while a request is at work, or after one has died.
    let part = PartRef { deletion: id.parse().unwrap(), generation: 1, part: 0 };
    let until = world.host.now().plus_millis(120_000);
    block_on(world.ledger.hold_sending(&part, world.host.now(), until)).unwrap();
    world.queue.fails = None;
    world.queue.stored.take();
    let busy = world.redrive(&id);
    assert_eq!((busy.status, &busy.body["code"]), (409, &json!("deletion_not_final")));
    assert_eq!((&busy.body["retryable"], busy.header("Retry-After")), (&json!(true), Some("5")));
    world.host.now.set(120_000);
    for _ in 0..2 {
        assert_eq!((world.redrive(&id).status, world.queued().len()), (202, 5));
    }
}

#[test]
fn what_is_not_over_or_was_cancelled_is_not_redriven() {
    let world = World::new();
    let id = world.post(keys_body(10)).body["id"].as_str().unwrap().to_owned();
    let early = world.redrive(&id);
    assert_eq!((early.status, &early.body["code"]), (409, &json!("deletion_not_final")));
    assert_eq!((&early.body["retryable"], early.header("Retry-After")), (&json!(true), Some("5")));
    world.ask(request("POST", &format!("/v1/deletions/{id}/cancel"), Vec::new()));
    assert_eq!(world.redrive(&id).status, 200, "it has no failures");
    assert_eq!(world.redrive("del_x").status, 404);

    let id = world.half_failed(10);
    for (target, body) in [("?code=x", ""), ("", r#"{"dry_run":true}"#)] {
        let target = format!("/v1/deletions/{id}/redrive{target}");
        let refused = world.ask(request("POST", &target, body.as_bytes().to_vec()));
        assert_eq!((refused.status, &refused.body["code"]), (422, &json!("validation_failed")), "{target}");
    }
    assert_eq!(world.deletion(&id)["generation"], 0);
}

#[test]
fn a_redrive_over_a_filter_says_first_what_it_would_send() {
    let world = World::new();
    let ids = [world.half_failed(10), world.half_failed(6)];
    world.post(keys_body(10));
    world.queue.stored.take();

    let planned = world.redrives(&json!({"dry_run": true}));
    let redrives = json!([{"deletion": ids[0], "keys": 5}, {"deletion": ids[1], "keys": 3}]);
    assert_eq!(
        (planned.status, planned.body),
        (200, json!({"dry_run": true, "redrives": redrives, "keys": 8, "more": false}))
    );
    assert!(world.queued().is_empty() && world.deletion(&ids[0])["generation"] == 0);

    let early = world.redrives(&json!({"failed_before": "2025-11-23T20:33:20Z"}));
    assert_eq!((early.status, &early.body["keys"]), (202, &json!(0)));
    let by_code =
        world.redrives(&json!({"code": "attempts_exhausted", "failed_before": "2025-11-24T00:00:00+01:00"}));
    assert_eq!((by_code.status, &by_code.body["keys"]), (202, &json!(2)));
    assert_eq!(world.queued(), vec![format!("proj_42/{:052}", 0); 2]);
    let counts = world.deletion(&ids[0])["counts"].clone();
    assert_eq!((&counts["pending"], &counts["failed"], &counts["total"]), (&json!(1), &json!(4), &json!(10)));
    consume(&world, |_| None);
    assert_eq!(world.redrives(&json!({})).body["keys"], 6);
    consume(&world, |_| None);
    assert_eq!(world.deletion(&ids[1])["state"], "succeeded");
}

/// Refused midway, the same call again sends what the first has begun, and says so.
#[test]
fn a_redrive_over_a_filter_goes_on_where_it_was_refused() {
    let mut world = World::new();
    let ids = [world.half_failed(10), world.half_failed(6), world.half_failed(4)];
    let ask = json!({"code": "object_locked", "failed_before": "2030-01-01T00:00:00Z"});
    let planned = |world: &World, ask: &Value| {
        let mut ask = ask.clone();
        ask["dry_run"] = json!(true);
        world.redrives(&ask).body["redrives"].clone()
    };
    let sent = |at: usize, keys: u64| json!({"deletion": ids[at], "keys": keys});
    assert_eq!(planned(&world, &ask), json!([sent(0, 4), sent(1, 2), sent(2, 1)]));

    // The second of three is begun and not sent.
    world.queue.fails = Some((15000, world.queue.sends.get() + 1));
    let refused = world.redrives(&ask);
    assert_eq!((refused.status, &refused.body["retryable"]), (503, &json!(true)));
    world.queue.fails = None;
    assert_eq!(world.queued().len(), 4);
    assert_eq!(planned(&world, &ask), json!([sent(1, 2), sent(2, 1)]));
    // What was begun is of this code, and of failures before that time: of others nothing was.
    for (other, keys) in [
        (json!({}), json!([sent(1, 2), sent(2, 2)])),
        (json!({"code": "attempts_exhausted"}), json!([sent(2, 1)])),
        (json!({"code": "object_locked", "failed_before": "2029-12-31T00:00:00Z"}), json!([sent(2, 1)])),
    ] {
        assert_eq!(planned(&world, &other), keys, "{other}");
    }

    let again = world.redrives(&ask);
    let redrives = json!([sent(1, 2), sent(2, 1)]);
    let expected = json!({"dry_run": false, "redrives": redrives, "keys": 3, "more": false});
    assert_eq!((again.status, again.body), (202, expected));
    assert_eq!(world.queued().len(), 7, "each once");
    assert_eq!(world.redrives(&ask).body["keys"], 0);
    consume(&world, |_| None);
    assert_eq!(world.redrives(&json!({})).body["keys"], 3, "those that had failed in another way");
    consume(&world, |_| None);
    assert!(ids.iter().all(|id| world.deletion(id)["state"] == "succeeded"));
}

#[test]
fn what_another_request_is_sending_of_a_redrive_is_left_to_it_and_to_be_asked_for_again() {
    let mut world = World::new();
    let id = world.half_failed(10);
    world.queue.fails = Some((15000, world.queue.sends.get()));
    assert_eq!(world.redrives(&json!({})).status, 503);
    world.queue.fails = None;
    // As it stands while a request is at work, or after one has died.
    let part = PartRef { deletion: id.parse().unwrap(), generation: 1, part: 0 };
    let until = world.host.now().plus_millis(120_000);
    block_on(world.ledger.hold_sending(&part, world.host.now(), until)).unwrap();
    for body in [json!({"dry_run": true}), json!({})] {
        let busy = world.redrives(&body).body;
        assert_eq!((&busy["redrives"], &busy["more"]), (&json!([]), &json!(true)), "{body}");
    }
    assert!(world.queued().is_empty());
    world.host.now.set(120_000);
    let sent = world.redrives(&json!({})).body;
    assert_eq!((&sent["keys"], &sent["more"], world.queued().len()), (&json!(5), &json!(false), 5));
}

#[test]
fn a_filter_that_is_wrong_sends_nothing() {
    let world = World::new();
    let id = world.half_failed(10);
    for (body, pointer) in [
        (json!({"code": "locked"}), "#/code"),
        (json!({"code": null}), "#/code"),
        (json!({"failed_before": "yesterday"}), "#/failed_before"),
        (json!({"dry_run": "false"}), "#/dry_run"),
        (json!({"dryrun": true}), "#/dryrun"),
        (json!([]), "#"),
    ] {
        let refused = world.redrives(&body);
        assert_eq!((refused.status, &refused.body["errors"][0]["pointer"]), (422, &json!(pointer)), "{body}");
    }
    assert_eq!(world.ask(request("POST", "/v1/redrives", b"{".to_vec())).status, 400);
    assert_eq!(world.ask(request("POST", "/v1/redrives", vec![b' '; 70_000])).status, 413);
    assert_eq!(world.deletion(&id)["generation"], 0);
}

#[test]
fn only_an_operator_redrives() {
    let world = world_with(&[("backend", json!({"roles": ["delete", "read"]}))]);
    let id = world.half_failed(10);
    for target in [format!("/v1/deletions/{id}/redrive"), "/v1/redrives".to_owned()] {
        assert_eq!(world.ask_as("backend-token", request("POST", &target, Vec::new())).status, 403);
    }
}

/// A clock that has something happen when it is read for the so-many-th time.
struct Interrupted<'a> {
    world: &'a World,
    left: Cell<u32>,
    by: &'a dyn Fn(),
}

impl Host for Interrupted<'_> {
    fn now(&self) -> Timestamp {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        if left == 1 {
            (self.by)();
        }
        self.world.host.now()
    }

    fn random(&self) -> u128 {
        self.world.host.random()
    }

    async fn sleep(&self, millis: u64) {
        self.world.host.sleep(millis).await;
    }
}

impl Log for Interrupted<'_> {
    fn emit(&self, event: &Event<'_>) {
        self.world.host.emit(event);
    }
}

#[test]
fn a_cancellation_is_never_answered_with_a_deletion_that_goes_on() {
    let mut states = Vec::new();
    for at in 1..12 {
        let world = World::new();
        let id = world.half_failed(4);
        let redrive = || assert_eq!(world.redrive(&id).status, 202);
        let host = Interrupted { world: &world, left: Cell::new(at), by: &redrive };
        let Ports { ledger, queue, limiter, assets, memory, config, .. } = world.ports();
        let ports = Ports { host: &host, ledger, queue, limiter, assets, memory, config };
        let cancel = request("POST", &format!("/v1/deletions/{id}/cancel"), Vec::new());
        // Not in an executor of its own, because the redrive is in one.
        let answered = answer(cancel, &ports).now_or_never().unwrap();
        let view: Value = serde_json::from_str(&answered.text()).unwrap();
        states.push(view["state"].as_str().unwrap().to_owned());
    }
    // Redriven before it is cancelled, and after it was found to be over.
    assert!(states.contains(&"cancelled".to_owned()) && states.contains(&"failed".to_owned()), "{states:?}");
    assert!(states.iter().all(|state| ["cancelled", "failed"].contains(&state.as_str())), "{states:?}");
}

#[test]
fn a_redrive_over_a_filter_takes_a_hundred_deletions_and_says_when_there_are_more() {
    let world = World::new();
    let dry_run = || {
        let answer =
            world.ask(request("POST", "/v1/redrives", json!({"dry_run": true}).to_string().into_bytes()));
        (answer.body["redrives"].as_array().unwrap().len(), answer.body["more"].as_bool().unwrap())
    };
    for count in 1..=101 {
        let id = world.post(keys_body(1)).body["id"].as_str().unwrap().to_owned();
        world.consume(&id, 1);
        if count >= 100 {
            assert_eq!(dry_run(), (100, count > 100));
        }
    }
}
