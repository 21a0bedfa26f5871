use std::cell::{Cell, RefCell};

use futures::executor::block_on;
use ledger::{
    ChunkOutcome, ClaimBatch, ClaimReply, ClaimRequest, ConsumerLedger, FailedKey, Hold, LostPart, PartRef,
    RecordBatch, SqlLedger, SqliteDatabase, UnreadableMessage, UpkeepLedger,
};
use protocol::limits::{REQUEST_BYTES_MAX, SEND_BYTES_MAX};
use protocol::{
    ChunkMessage, ChunkRef, DeletionId, FailureCode, Fence, Log, NoticeRef, QueueError, QueueMessage,
    R2Error, Timestamp, UnreadableReason,
};
use serde_json::{Value, json};

use super::*;
use crate::auth::hex_digest;
use crate::config::Settings;
use crate::http::BodyError;
use crate::openapi::tests::Description;

mod authorization;
mod bodies;
mod cancel;
mod pages;
mod parts;
mod reads;
mod redrive;
mod room;
mod sweeps;
mod visibility;
mod wait;

#[derive(Default)]
struct FakeHost {
    now: Cell<u64>,
    random: Cell<u128>,
    log: RefCell<Vec<String>>,
}

impl Host for FakeHost {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_763_930_000_000 + self.now.get())
    }

    fn random(&self) -> u128 {
        self.random.set(self.random.get() + 1);
        self.random.get()
    }

    async fn sleep(&self, millis: u64) {
        self.now.set(self.now.get() + millis);
    }
}

impl Log for FakeHost {
    fn emit(&self, event: &Event<'_>) {
        self.log.borrow_mut().push(event.to_json());
    }
}

#[derive(Default)]
struct FakeQueue {
    stored: RefCell<Vec<String>>,
    delays: RefCell<Vec<u32>>,
    /// The code that sends fail with, and after how many of them.
    fails: Option<(u32, usize)>,
    sends: Cell<usize>,
}

impl Queue for FakeQueue {
    async fn send(&self, bodies: Vec<String>, delay_seconds: u32) -> Result<(), QueueError> {
        self.sends.set(self.sends.get() + 1);
        assert!(bodies.iter().map(String::len).sum::<usize>() <= SEND_BYTES_MAX);
        self.delays.borrow_mut().push(delay_seconds);
        match self.fails {
            Some((code, after)) if self.sends.get() > after => Err(QueueError { code }),
            _ => {
                self.stored.borrow_mut().extend(bodies);
                Ok(())
            }
        }
    }

    async fn ping(&self) -> Result<(), String> {
        self.fails.map_or(Ok(()), |(code, _)| Err(format!("queue error {code}")))
    }
}

/// A body that comes in a few pieces.
impl Body for Vec<u8> {
    async fn read(&mut self, buffer: &mut Self, room: usize) -> Result<bool, BodyError> {
        let rest = self.split_off(self.len().min(1_000.max(self.len() / 4)));
        let next = std::mem::replace(self, rest);
        if next.len() > room {
            return Err(BodyError::TooLarge);
        }
        buffer.extend_from_slice(&next);
        Ok(!next.is_empty())
    }
}

#[derive(Default)]
struct FakeLimiter {
    /// How many calls of each caller are within the limit.
    limit: Option<usize>,
    broken: bool,
    calls: RefCell<Vec<String>>,
}

impl RateLimiter for FakeLimiter {
    async fn admit(&self, key: &str) -> Result<bool, String> {
        if self.broken {
            return Err("no such limiter".to_owned());
        }
        self.calls.borrow_mut().push(key.to_owned());
        let calls = self.calls.borrow().iter().filter(|counted| *counted == key).count();
        Ok(self.limit.is_none_or(|limit| calls <= limit))
    }
}

/// The files of the deployment, which can lack one.
struct FakeAssets(Option<&'static str>);

impl Assets for FakeAssets {
    async fn read(&self, path: &str) -> Result<String, String> {
        assert_eq!(path, "/openapi.json");
        self.0.map(str::to_owned).ok_or_else(|| "no such file".to_owned())
    }
}

struct World {
    host: FakeHost,
    queue: FakeQueue,
    ledger: SqlLedger<SqliteDatabase>,
    limiter: FakeLimiter,
    assets: FakeAssets,
    memory: MemoryBudget,
    config: Result<Config, String>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }
}

impl World {
    fn new() -> Self {
        Self {
            host: FakeHost::default(),
            queue: FakeQueue::default(),
            ledger: SqlLedger::new(SqliteDatabase::in_memory().unwrap()),
            limiter: FakeLimiter::default(),
            assets: FakeAssets(Some(r#"{"openapi":"3.1.1","info":{},"paths":{}}"#)),
            memory: MemoryBudget::new(24_000_000),
            config: Config::parse(&settings()),
        }
    }

    fn ports(&self) -> Ports<'_, SqlLedger<SqliteDatabase>, FakeQueue, FakeLimiter, FakeAssets, FakeHost> {
        Ports {
            ledger: &self.ledger,
            queue: &self.queue,
            limiter: &self.limiter,
            assets: &self.assets,
            host: &self.host,
            memory: &self.memory,
            config: self.config.as_ref().map_err(String::as_str),
        }
    }

    /// What a request is answered, which must be as the API's description says.
    fn send(&self, request: Request<Vec<u8>>) -> Response {
        let method = request.method.clone();
        let path = request.target.split('?').next().unwrap().to_owned();
        let response = block_on(answer(request, &self.ports()));
        let pattern = Route::of(&path).first().map_or("unmatched", |(route, _)| route.pattern);
        let text = response.clone().text();
        Description::read().check((&method, pattern), response.status, &response.headers, &text);
        response
    }

    fn ask(&self, request: Request<Vec<u8>>) -> Answer {
        let response = self.send(request);
        let (status, headers) = (response.status, response.headers.clone());
        Answer { status, headers, body: serde_json::from_str(&response.text()).unwrap() }
    }

    fn ask_as(&self, token: &str, mut request: Request<Vec<u8>>) -> Answer {
        request.authorization = Some(format!("Bearer {token}"));
        self.ask(request)
    }

    fn get(&self, target: &str) -> Answer {
        self.ask(request("GET", target, Vec::new()))
    }

    fn post_with_key(&self, key: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.ask(Request {
            idempotency_key: Some(key.to_owned()),
            ..request("POST", "/v1/deletions", body.into())
        })
    }

    fn post(&self, body: impl Into<Vec<u8>>) -> Answer {
        self.ask(request("POST", "/v1/deletions", body.into()))
    }

    /// Does to the first chunk what a consumer would: fails every second key.
    fn consume(&self, id: &str, keys: usize) {
        self.consume_chunk(id, 0, keys);
    }

    fn consume_chunk(&self, id: &str, chunk: u32, keys: usize) {
        let chunk = ChunkRef { deletion: id.parse().unwrap(), generation: 0, chunk };
        let (token, now) = ("consumer".to_owned(), self.host.now());
        let requests = vec![ClaimRequest { chunk, keys }];
        let claim = ClaimBatch { token: token.clone(), now, until: now.plus_millis(1), requests };
        let ClaimReply::Granted(grant) = block_on(self.ledger.claim(&claim)).unwrap().remove(0) else {
            panic!()
        };
        let failed = (0..keys).step_by(2).map(|position| FailedKey {
            position,
            key_json: format!("\"k{position}\\u0000\""),
            code: FailureCode::ObjectLocked,
            error: Some(R2Error::ObjectLocked),
        });
        let unreadable = ["a", "b", "c"].map(|id| UnreadableMessage {
            message_id: id.to_owned(),
            queue: "r2-deletions".to_owned(),
            reason: UnreadableReason::NotJson,
            body: "half a mess".to_owned(),
            attempts: 1,
        });
        let outcomes = vec![ChunkOutcome::new(grant, (1..keys).step_by(2), failed.collect(), None, 1)];
        block_on(self.ledger.record(&RecordBatch {
            token,
            now,
            outcomes,
            unreadable: unreadable.to_vec(),
            owe_notices: true,
        }))
        .unwrap();
    }
}

fn settings() -> Settings {
    Settings { api_token: Some("s3cret".to_owned()), ..Settings::default() }
}

/// A world with these tokens too: their names, with `-token` behind it the tokens, and what else is said about them.
fn world_with(tokens: &[(&str, Value)]) -> World {
    let listed = tokens.iter().map(|(name, more)| {
        let mut token = json!({ "name": name, "sha256": hex_digest(&format!("{name}-token")) });
        token.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        token
    });
    let api_tokens = Some(listed.collect::<Value>().to_string());
    let protected_prefixes = Some(r#"["legal/"]"#.to_owned());
    let config = Config::parse(&Settings { api_tokens, protected_prefixes, ..settings() });
    World { config, ..World::new() }
}

fn request(method: &str, target: &str, body: Vec<u8>) -> Request<Vec<u8>> {
    Request { content_length: Some(body.len()), ..request_of(method, target, body) }
}

/// A request that does not say how long its body is.
fn request_of<B>(method: &str, target: &str, body: B) -> Request<B> {
    Request {
        method: method.to_owned(),
        target: target.to_owned(),
        client_address: None,
        authorization: Some("Bearer s3cret".to_owned()),
        content_type: Some("application/json; charset=utf-8".to_owned()),
        content_length: None,
        content_encoding: None,
        idempotency_key: None,
        accept: None,
        body,
    }
}

fn keys_body(count: usize) -> String {
    let keys: Vec<String> = (0..count).map(|n| format!("proj_42/{n:052}")).collect();
    json!({ "objectKeys": keys }).to_string()
}

#[test]
fn a_deletion_is_accepted_when_every_message_is_stored_and_can_be_read_back() {
    let world = World::new();
    let accepted = world.post(keys_body(25_000));
    assert_eq!(accepted.status, 202);
    let id = accepted.body["id"].as_str().unwrap();
    assert_eq!(accepted.header("Location"), Some(format!("/v1/deletions/{id}").as_str()));
    assert_eq!(accepted.header("Retry-After"), Some("1"));
    assert!(accepted.header("X-Request-Id").unwrap().starts_with("req_"));
    assert_eq!(accepted.body["messages"], 25);
    let pending =
        json!({"total": 25_000, "pending": 25_000, "deleted": 0, "skipped": 0, "failed": 0, "cancelled": 0});
    assert_eq!(accepted.body["counts"], pending);

    let stored = world.queue.stored.borrow();
    let keys: usize = stored.iter().map(|message| ChunkMessage::from_json(message).unwrap().keys.len()).sum();
    assert_eq!((stored.len(), keys), (25, 25_000));
    assert_eq!(world.queue.sends.get(), 7);

    let read = world.get(&format!("/v1/deletions/{id}"));
    assert_eq!((read.status, &read.body), (200, &accepted.body));
}

#[test]
fn duplicates_are_left_out_and_said() {
    let world = World::new();
    let accepted = world.post(r#"{"objectKeys":["a","b","a","a"]}"#);
    assert_eq!((accepted.status, &accepted.body["counts"]["total"]), (202, &json!(2)));
    assert_eq!(accepted.body["duplicates_removed"], 2);
}

#[test]
fn the_fence_is_in_the_messages_and_said_and_an_undo_window_makes_it_look() {
    for (asked, said, sent) in [
        ("", Fence::Auto, Fence::Auto),
        (r#","fence":"always""#, Fence::Always, Fence::Always),
        (r#","fence":"off","delay_seconds":5"#, Fence::Off, Fence::Off),
        (r#","delay_seconds":5"#, Fence::Auto, Fence::Always),
    ] {
        let world = World::new();
        let accepted = world.post(format!(r#"{{"objectKeys":["a"]{asked}}}"#));
        assert_eq!((accepted.status, &accepted.body["fence"]), (202, &json!(said)), "{asked}");
        assert_eq!(ChunkMessage::from_json(&world.queue.stored.borrow()[0]).unwrap().fence, sent, "{asked}");
        let read = world.get(accepted.header("Location").unwrap());
        assert_eq!(read.body["fence"], json!(said), "{asked}");
    }
}

#[test]
fn failures_are_read_in_pages() {
    let world = World::new();
    let accepted = world.post(keys_body(10));
    let id = accepted.body["id"].as_str().unwrap();
    world.consume(id, 10);
    let read = world.get(&format!("/v1/deletions/{id}"));
    assert_eq!((&read.body["state"], read.header("Retry-After")), (&json!("failed"), None));
    assert_eq!(read.body["errors"], json!([{"code": "object_locked", "r2_code": 10069, "count": 5}]));
    assert_eq!(read.body["finished_at"], "2025-11-23T20:33:20.000Z");

    let (mut listed, mut token) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/v1/deletions/{id}/failures?page_size=2{token}"));
        listed.extend(page.body["failures"].as_array().unwrap().clone());
        match page.body["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => break,
        }
    }
    assert_eq!(
        listed.iter().map(|failure| failure["key"].as_str().unwrap()).collect::<Vec<_>>(),
        ["k0\0", "k2\0", "k4\0", "k6\0", "k8\0"]
    );
    assert_eq!((&listed[0]["code"], &listed[0]["attempts"]), (&json!("object_locked"), &json!(1)));
    assert_eq!(world.get(&format!("/v1/deletions/{id}/failures?page_token=302e31")).status, 422);

    let page = world.get("/v1/unreadable-messages?page_size=2");
    assert_eq!(page.body["unreadable_messages"].as_array().unwrap().len(), 2);
    let next = page.body["next_page_token"].as_str().unwrap();
    let page = world.get(&format!("/v1/unreadable-messages?page_size=2&page_token={next}"));
    assert_eq!(page.body["unreadable_messages"][0]["message_id"], "c");
    assert_eq!(page.body["unreadable_messages"][0]["body"], "half a mess");
    assert_eq!(page.body["next_page_token"], Value::Null);
}

#[test]
fn what_the_queue_refuses_is_never_accepted_and_the_rest_is_cancelled() {
    for (code, status, problem, retry_after) in [
        (10250, 429, "queue_overloaded", "5"),
        (10251, 503, "queue_unavailable", "60"),
        (10253, 503, "queue_unavailable", "12400"),
        (15000, 503, "queue_unavailable", "5"),
        (0, 503, "queue_unavailable", "5"),
    ] {
        let mut world = World::new();
        world.queue.fails = Some((code, 1));
        let refused = world.post(keys_body(10_000));
        assert_eq!((refused.status, refused.body["code"].as_str()), (status, Some(problem)), "{code}");
        assert_eq!(refused.body["retryable"], true);
        assert_eq!(refused.header("Retry-After"), Some(retry_after), "{code}");
        let message = world.queue.stored.borrow()[0].clone();
        let id = ChunkMessage::from_json(&message).unwrap().chunk.deletion;
        let read = world.get(&format!("/v1/deletions/{id}"));
        assert_eq!(
            (&read.body["state"], &read.body["counts"]["cancelled"]),
            (&json!("cancelled"), &json!(10_000))
        );
    }
}

#[test]
fn the_same_request_with_the_same_key_makes_one_deletion() {
    let world = World::new();
    let first = world.post_with_key("project-42", keys_body(1_500));
    assert_eq!((first.status, first.header("Idempotent-Replayed")), (202, None));
    for key in ["project-42", "\"project-42\""] {
        let again = world.post_with_key(key, keys_body(1_500));
        assert_eq!((again.status, again.header("Idempotent-Replayed")), (202, Some("true")));
        assert_eq!((&again.body, again.header("Location")), (&first.body, first.header("Location")));
    }
    assert_eq!(world.queue.stored.borrow().len(), 2);

    let reused = world.post_with_key("project-42", keys_body(1_501));
    assert_eq!((reused.status, &reused.body["code"]), (422, &json!("idempotency_key_reused")));
    let other = world.post_with_key("project-43", keys_body(1_500));
    assert_ne!(other.body["id"], first.body["id"]);
    let invalid = world.post_with_key("é", keys_body(1));
    assert_eq!((invalid.status, &invalid.body["code"]), (400, &json!("malformed_request")));
}

#[test]
fn a_request_that_the_queue_refused_is_finished_by_the_same_request_and_never_doubled() {
    let mut world = World::new();
    world.queue.fails = Some((15000, 1));
    let refused = world.post_with_key("k", keys_body(10_000));
    assert_eq!((refused.status, &refused.body["retryable"]), (503, &json!(true)));
    let stored = world.queue.stored.borrow()[0].clone();
    let id = ChunkMessage::from_json(&stored).unwrap().chunk.deletion;
    let counts = world.get(&format!("/v1/deletions/{id}")).body["counts"].clone();
    assert_eq!(
        (&counts["pending"], &counts["cancelled"]),
        (&json!(10_000), &json!(0)),
        "waits to be asked again"
    );

    world.queue.fails = None;
    world.host.now.set(5_000);
    let finished = world.post_with_key("k", keys_body(10_000));
    assert_eq!((finished.status, &finished.body["id"]), (202, &json!(id.as_str())));
    let mut bodies = world.queue.stored.borrow().clone();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 10, "every message, and none of another deletion");
}

#[test]
fn while_the_first_request_is_sending_the_second_is_told_to_ask_again() {
    let mut world = World::new();
    world.queue.fails = Some((15000, 0));
    world.post_with_key("k", keys_body(10));
    // As it stands while a request is at work, or after one has died.
    let stored = world.get("/v1/deletions/x").status;
    assert_eq!(stored, 404);
    let id = block_on(world.ledger.find_idempotency_key("api_token", "k")).unwrap().unwrap().deletion;
    let until = world.host.now().plus_millis(120_000);
    let held = block_on(world.ledger.hold_sending(&PartRef::request(&id), world.host.now(), until)).unwrap();
    assert_eq!(held, Hold::Taken { not_before: world.host.now() });
    world.queue.fails = None;
    let busy = world.post_with_key("k", keys_body(10));
    assert_eq!((busy.status, &busy.body["code"]), (409, &json!("request_in_progress")));
    assert_eq!((&busy.body["retryable"], busy.header("Retry-After")), (&json!(true), Some("1")));
    world.host.now.set(120_000);
    assert_eq!(world.post_with_key("k", keys_body(10)).status, 202);
    assert_eq!(world.queue.stored.borrow().len(), 1);
}

#[test]
fn an_undo_window_delays_every_message_and_can_be_used() {
    let world = World::new();
    let mut body: Value = serde_json::from_str(&keys_body(1_001)).unwrap();
    body["delay_seconds"] = json!(3_600);
    let accepted = world.post(body.to_string());
    assert_eq!(accepted.body["not_before"], "2025-11-23T21:33:20.000Z");
    assert_eq!(*world.queue.delays.borrow(), [3_600]);

    let id = accepted.body["id"].as_str().unwrap();
    let cancelled = world.ask(request("POST", &format!("/v1/deletions/{id}/cancel"), Vec::new()));
    assert_eq!((cancelled.status, &cancelled.body["state"]), (200, &json!("cancelled")));
    assert_eq!(cancelled.body["counts"]["cancelled"], 1_001);
    assert_eq!(cancelled.body["expires_at"], "2025-11-30T20:33:20.000Z");
    let again = world.ask(request("POST", &format!("/v1/deletions/{id}/cancel"), Vec::new()));
    assert_eq!(again.body, cancelled.body);
    assert_eq!(world.ask(request("POST", "/v1/deletions/del_x/cancel", Vec::new())).status, 404);
}

#[test]
fn a_cancelled_deletions_notice_is_looked_at_at_once() {
    let mut world = World::new();
    let ids: Vec<String> =
        (0..2).map(|_| world.post(keys_body(1)).body["id"].as_str().unwrap().to_owned()).collect();
    let message = |id: &str| NoticeRef { deletion: id.parse().unwrap(), generation: 0 }.to_message();
    let cancel = |world: &World, id: &str| {
        let cancelled = world.ask(request("POST", &format!("/v1/deletions/{id}/cancel"), Vec::new()));
        assert_eq!((cancelled.status, &cancelled.body["state"]), (200, &json!("cancelled")));
    };
    world.queue.stored.take();
    cancel(&world, &ids[0]);
    cancel(&world, &ids[0]);
    assert_eq!(*world.queue.stored.borrow(), [message(&ids[0])], "once, however often it is asked for");
    // The Queue refuses: the deletion is cancelled all the same, and its notice owed.
    world.queue.fails = Some((10250, 0));
    cancel(&world, &ids[1]);
    assert_eq!(world.get("/v1/stats").body["notices"], json!({"owed": 2, "failed": 0}));
}

#[test]
fn nobody_is_let_in_without_the_token_and_nothing_of_theirs_is_read() {
    let world = World::new();
    for target in
        ["/v1/deletions", "/v1/deletions/del_x", "/v1/deletions/del_x/failures", "/v1/unreadable-messages"]
    {
        let method = if target == "/v1/deletions" { "POST" } else { "GET" };
        for (authorization, challenge) in [
            (None, "Bearer realm=\"r2-deletion-queue\""),
            (Some("Bearer wrong"), "Bearer realm=\"r2-deletion-queue\", error=\"invalid_token\""),
        ] {
            let mut request = request(method, target, vec![b'x'; REQUEST_BYTES_MAX + 1]);
            request.authorization = authorization.map(str::to_owned);
            let refused = world.ask(request);
            assert_eq!(
                (refused.status, refused.header("WWW-Authenticate")),
                (401, Some(challenge)),
                "{target}"
            );
            assert_eq!(refused.header("Content-Type"), Some("application/problem+json"));
            assert!(refused.body["request_id"].as_str().unwrap().starts_with("req_"));
        }
    }
}

/// One line a call, one column a caller: what each is answered.
#[test]
fn everybody_may_do_what_their_roles_say_with_what_is_theirs() {
    let world = world_with(&[
        ("owner", json!({})),
        ("other", json!({})),
        ("delete", json!({"roles": ["delete"]})),
        ("sweep", json!({"roles": ["sweep"]})),
        ("operate", json!({"roles": ["operate"]})),
        ("read", json!({"roles": ["read"]})),
        ("support", json!({"roles": ["operate", "read"]})),
        ("nothing", json!({"roles": []})),
    ]);
    let accepted = world.ask_as("owner-token", request("POST", "/v1/deletions", keys_body(1).into()));
    assert_eq!(accepted.body["requested_by"], "owner");
    let deletion = format!("/v1/deletions/{}", accepted.body["id"].as_str().unwrap());
    let (failures, skipped) = (format!("{deletion}/failures"), format!("{deletion}/skipped"));
    let cancel = format!("{deletion}/cancel");

    let callers = [
        "owner-token",
        "other-token",
        "delete-token",
        "sweep-token",
        "operate-token",
        "read-token",
        "support-token",
        "nothing-token",
        "s3cret",
        "wrong",
        "",
    ];
    let sweep = json!({"prefixes": ["a/"]}).to_string();
    for (method, target, role, statuses) in [
        ("POST", "/v1/deletions", "delete", [202, 202, 202, 403, 403, 403, 403, 403, 202, 401, 401]),
        ("POST", "/v1/deletions", "sweep", [403, 403, 403, 202, 403, 403, 403, 403, 202, 401, 401]),
        ("GET", &deletion, "read", [200, 404, 403, 403, 403, 404, 200, 403, 200, 401, 401]),
        ("GET", &failures, "read", [200, 404, 403, 403, 403, 404, 200, 403, 200, 401, 401]),
        ("GET", &skipped, "read", [200, 404, 403, 403, 403, 404, 200, 403, 200, 401, 401]),
        ("POST", &cancel, "delete sweep operate", [200, 404, 404, 404, 200, 403, 200, 403, 200, 401, 401]),
        (
            "GET",
            "/v1/unreadable-messages",
            "operate",
            [403, 403, 403, 403, 200, 403, 200, 403, 200, 401, 401],
        ),
    ] {
        for (token, status) in callers.into_iter().zip(statuses) {
            let what = format!("{method} {target} as {token:?}");
            let body = if role == "sweep" { sweep.clone() } else { keys_body(1) };
            let answer = world.ask_as(token, request(method, target, body.into()));
            assert_eq!(answer.status, status, "{what}: {}", answer.body);
            if status == 403 {
                // What a request needs is known when it is read; who may make none is not read.
                let may_ask = ["owner-token", "other-token", "delete-token", "sweep-token"].contains(&token);
                let role = if target == "/v1/deletions" && !may_ask { "delete sweep" } else { role };
                assert_eq!(
                    (&answer.body["code"], &answer.body["retryable"]),
                    (&json!("insufficient_scope"), &json!(false)),
                    "{what}"
                );
                let challenge = format!(
                    "Bearer realm=\"r2-deletion-queue\", error=\"insufficient_scope\", scope=\"{role}\""
                );
                assert_eq!(answer.header("WWW-Authenticate"), Some(challenge.as_str()), "{what}");
            }
        }
    }
    // One of the owner, four of the others, two that begin a sweep, and one that has the notice of the cancelled one looked at.
    assert_eq!(world.queue.stored.borrow().len(), 1 + 4 + 2 + 1);
}

#[test]
fn an_idempotency_key_belongs_to_its_token() {
    let world = world_with(&[("owner", json!({})), ("other", json!({}))]);
    let ids = ["owner-token", "other-token"].map(|token| {
        let request = Request {
            idempotency_key: Some("k".to_owned()),
            ..request("POST", "/v1/deletions", keys_body(1).into())
        };
        let accepted = world.ask_as(token, request);
        assert_eq!((accepted.status, accepted.header("Idempotent-Replayed")), (202, None));
        accepted.body["id"].clone()
    });
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn what_belongs_to_another_token_is_answered_like_what_does_not_exist() {
    let world = world_with(&[("owner", json!({})), ("other", json!({}))]);
    let accepted = world.ask_as("owner-token", request("POST", "/v1/deletions", keys_body(1).into()));
    let id = accepted.body["id"].as_str().unwrap();
    let answers = |id: &str| {
        ["", "/failures", "/skipped", "/failures?page_size=0", "/skipped?page_token=x"].map(|rest| {
            let request = request("GET", &format!("/v1/deletions/{id}{rest}"), Vec::new());
            let mut answer = world.ask_as("other-token", request);
            let request_id = answer.body.as_object_mut().unwrap().remove("request_id").unwrap();
            answer.headers.retain(|(_, value)| *value != request_id);
            (answer.status, answer.headers, answer.body.to_string())
        })
    };
    assert_eq!(answers(id).map(|(status, ..)| status), [404, 404, 404, 422, 422]);
    assert_eq!(answers(id), answers(DeletionId::new(Timestamp::from_millis(5), 5).as_str()));
    assert_eq!(answers(id)[..3], answers("del_x")[..3]);
}

#[test]
fn a_token_deletes_under_its_prefixes_only_and_nobody_what_is_protected() {
    let world = world_with(&[
        ("project", json!({"prefixes": ["proj_42/", "legal/42/"]})),
        ("nowhere", json!({"prefixes": []})),
    ]);
    let ask = |token: &str, keys: &[&str]| {
        let body = json!({ "objectKeys": keys }).to_string();
        world.ask_as(token, request("POST", "/v1/deletions", body.into()))
    };
    for (token, keys, code, positions) in [
        (
            "project-token",
            &["proj_42/a", "proj_421/a", "proj_42/b", "proj_421/a"][..],
            "key_not_allowed",
            &[1, 3][..],
        ),
        ("project-token", &["proj_42"], "key_not_allowed", &[0]),
        ("project-token", &["proj_42%2Fa", "/proj_42/a"], "key_not_allowed", &[0, 1]),
        ("nowhere-token", &["proj_42/a"], "key_not_allowed", &[0]),
        ("s3cret", &["a", "legal/a"], "key_protected", &[1]),
        ("project-token", &["legal/42/a"], "key_protected", &[0]),
        // What nobody may delete is said first.
        ("project-token", &["other", "legal/42/a"], "key_protected", &[1]),
    ] {
        let refused = ask(token, keys);
        assert_eq!((refused.status, refused.body["code"].as_str()), (403, Some(code)), "{keys:?}");
        let errors = refused.body["errors"].as_array().unwrap();
        let pointers: Vec<&str> = errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect();
        let expected: Vec<String> = positions.iter().map(|at| format!("#/objectKeys/{at}")).collect();
        assert_eq!(pointers, expected, "{keys:?}");
        assert_eq!(refused.header("WWW-Authenticate").is_some(), code == "key_not_allowed");
    }
    let many: Vec<String> = (0..1_000).map(|n| format!("other/{n}")).collect();
    let refused = ask("project-token", &many.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(refused.body["errors"].as_array().unwrap().len(), 20);
    assert!(refused.body["detail"].as_str().unwrap().starts_with("1000 of the keys"), "{}", refused.body);
    assert!(world.queue.stored.borrow().is_empty());

    assert_eq!(ask("project-token", &["proj_42/a", "proj_42/../b"]).status, 202);
    assert_eq!(ask("s3cret", &["a", "legal", "Legal/a"]).status, 202);
}

#[test]
fn whoever_calls_too_often_is_told_when_to_come_back_before_the_body_is_read() {
    let mut world = world_with(&[("other", json!({}))]);
    world.limiter.limit = Some(2);
    assert_eq!(world.get("/v1/unreadable-messages").status, 200);
    assert_eq!(world.post(keys_body(1)).status, 202);
    let limited = world.post(vec![b' '; REQUEST_BYTES_MAX + 1]);
    assert_eq!((limited.status, &limited.body["code"]), (429, &json!("rate_limited")));
    assert_eq!((&limited.body["retryable"], limited.header("Retry-After")), (&json!(true), Some("60")));
    assert!(limited.body["detail"].as_str().unwrap().contains("token api_token"), "{}", limited.body);
    // Another token has its own count, and the probes are not counted.
    assert_eq!(
        world.ask_as("other-token", request("POST", "/v1/deletions", keys_body(1).into())).status,
        202
    );
    assert_eq!(world.get("/healthz").status, 200);
    let counted = ["token api_token", "token api_token", "token api_token", "token other"];
    assert_eq!(*world.limiter.calls.borrow(), counted);
}

#[test]
fn whoever_guesses_tokens_is_limited_by_their_address_and_shuts_nobody_out() {
    let address = "2001:db8::1";
    let mut world = world_with(&[(address, json!({}))]);
    world.limiter.limit = Some(2);
    let ask = |token: &str, from: &str| {
        let request =
            Request { client_address: Some(from.to_owned()), ..request("GET", "/v1/deletions", vec![]) };
        world.ask_as(token, request).status
    };
    assert_eq!(["a", "", "c", "d"].map(|guess| ask(guess, address)), [401, 401, 429, 429]);
    // Not the right token from the same address, not even one that is named like it, and no other address.
    assert_eq!(ask("s3cret", address), 200);
    assert_eq!(ask(&format!("{address}-token"), address), 200);
    assert_eq!(ask("a", "192.0.2.7"), 401);
    // Where the platform says no address there is nothing to count by.
    assert_eq!(
        (0..4).map(|_| world.ask_as("a", request("GET", "/v1/deletions", vec![])).status).max(),
        Some(401)
    );
}

#[test]
fn a_limiter_that_does_not_answer_lets_everybody_through_and_is_in_the_log() {
    let mut world = World::new();
    world.limiter.broken = true;
    assert_eq!(world.post(keys_body(1)).status, 202);
    let log = world.host.log.borrow().join("\n");
    assert!(log.contains("rate_limiter.failed") && log.contains("no such limiter"), "{log}");
}

#[test]
fn with_a_wrong_configuration_everything_is_refused_and_nothing_is_ready() {
    for (wrong, says) in [
        (Settings::default(), "no token"),
        (Settings { api_tokens: Some("[".to_owned()), ..settings() }, "API_TOKENS: "),
        (Settings { protected_prefixes: Some("legal/".to_owned()), ..settings() }, "PROTECTED_PREFIXES: "),
    ] {
        let world = World { config: Config::parse(&wrong), ..World::new() };
        for refused in
            [world.post(keys_body(1)), world.get("/v1/unreadable-messages"), world.get("/v1/deletions/x")]
        {
            assert_eq!((refused.status, &refused.body["code"]), (503, &json!("not_configured")), "{says}");
            assert_eq!(refused.body["retryable"], false);
            assert!(!refused.body.to_string().contains(says), "{}", refused.body);
        }
        assert_eq!(world.get("/healthz").status, 200);
        let ready = world.get("/readyz");
        assert_eq!((ready.status, &ready.body["code"]), (503, &json!("not_ready")), "{says}");
        let log = world.host.log.borrow().join("\n");
        assert_eq!(log.matches(&format!(r#""event":"config.invalid","cause":"{says}"#)).count(), 3, "{log}");
        assert!(!log.contains("s3cret"), "{log}");
    }
}

#[test]
fn a_request_of_the_wrong_form_is_told_what_is_right() {
    let world = World::new();
    let ask = |method: &str, target: &str| world.ask(request(method, target, Vec::new()));
    for (method, target, allow) in [
        ("PUT", "/v1/deletions", "GET, POST"),
        ("DELETE", "/v1/deletions/del_x", "GET"),
        ("POST", "/healthz", "GET"),
        ("GET", "/", "POST"),
    ] {
        let refused = ask(method, target);
        assert_eq!((refused.status, refused.header("Allow")), (405, Some(allow)), "{method} {target}");
    }
    for target in [
        "/v1",
        "/v1/deletions/",
        "/v1/deletions/a/b",
        "/V1/deletions",
        "//v1/deletions",
        "/v1/deletions/del_x",
    ] {
        assert_eq!(ask("GET", target).status, 404, "{target}");
    }
    for (content_type, encoding) in [
        (None, None),
        (Some("text/plain"), None),
        (Some("application/jsonx"), None),
        (Some("application/json"), Some("gzip")),
    ] {
        let mut request = request("POST", "/v1/deletions", keys_body(1).into());
        request.content_type = content_type.map(str::to_owned);
        request.content_encoding = encoding.map(str::to_owned);
        assert_eq!(world.ask(request).status, 415, "{content_type:?} {encoding:?}");
    }
    assert_eq!(world.post(vec![b' '; REQUEST_BYTES_MAX + 1]).status, 413);
    assert!(world.queue.stored.borrow().is_empty());
}

#[test]
fn the_description_of_the_api_is_open_and_its_absence_is_told() {
    let mut world = World::new();
    let ask = |world: &World, method| {
        world.ask(Request { authorization: None, ..request(method, "/openapi.json", Vec::new()) })
    };
    let described = ask(&world, "GET");
    assert_eq!((described.status, &described.body["openapi"]), (200, &json!("3.1.1")));
    assert_eq!(described.header("Content-Type"), Some("application/json"));
    assert!(described.header("X-Request-Id").is_some());
    assert_eq!(ask(&world, "POST").header("Allow"), Some("GET"));
    world.assets = FakeAssets(None);
    let absent = ask(&world, "GET");
    assert_eq!((absent.status, &absent.body["code"]), (503, &json!("not_ready")));
    assert!(world.host.log.borrow().join("\n").contains("no such file"));
}

#[test]
fn the_probes_are_open_and_tell_when_something_does_not_answer() {
    let mut world = World::new();
    let probe = |world: &World, target| {
        let mut request = request("GET", target, Vec::new());
        request.authorization = None;
        world.ask(request).status
    };
    assert_eq!((probe(&world, "/healthz"), probe(&world, "/readyz")), (200, 200));
    world.queue.fails = Some((10252, 0));
    assert_eq!((probe(&world, "/healthz"), probe(&world, "/readyz")), (200, 503));
}

#[test]
fn the_log_has_no_key_no_token_and_no_path() {
    let world = World::new();
    world.post(r#"{"objectKeys":["users/alice.jpg"]}"#);
    world.post(r#"{"objectKeys":["users/alice.jpg", ""]}"#);
    world.get("/v1/deletions/users-alice?page_token=alice");
    let log = world.host.log.borrow().join("\n");
    assert!(!log.contains("alice") && !log.contains("s3cret"), "{log}");
    assert_eq!(log.matches("request.finished").count(), 3);
    assert_eq!(log.matches("deletion.accepted").count(), 1);
}
