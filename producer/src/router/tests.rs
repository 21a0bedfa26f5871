use std::cell::{Cell, RefCell};

use futures::executor::block_on;
use ledger::{
    ChunkOutcome, ClaimBatch, ClaimReply, ClaimRequest, ConsumerLedger, FailedKey, RecordBatch, SqlLedger,
    SqliteDatabase, UnreadableMessage,
};
use protocol::limits::{REQUEST_BYTES_MAX, SEND_BYTES_MAX};
use protocol::{
    ChunkMessage, ChunkRef, FailureCode, Log, Packed, QueueError, R2Error, Timestamp, UnreadableReason,
};
use serde_json::{Value, json};

use super::*;
use crate::http::BodyError;

mod reads;

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
}

impl Log for FakeHost {
    fn emit(&self, event: &Event<'_>) {
        self.log.borrow_mut().push(event.to_json());
    }
}

#[derive(Default)]
struct FakeQueue {
    stored: RefCell<Vec<Packed>>,
    /// The code that sends fail with, and after how many of them.
    fails: Option<(u32, usize)>,
    sends: Cell<usize>,
}

impl Queue for FakeQueue {
    async fn send(&self, messages: Vec<Packed>) -> Result<(), QueueError> {
        self.sends.set(self.sends.get() + 1);
        assert!(messages.iter().map(|message| message.body.len()).sum::<usize>() <= SEND_BYTES_MAX);
        match self.fails {
            Some((code, after)) if self.sends.get() > after => Err(QueueError { code }),
            _ => {
                self.stored.borrow_mut().extend(messages);
                Ok(())
            }
        }
    }

    async fn ping(&self) -> Result<(), String> {
        self.fails.map_or(Ok(()), |(code, _)| Err(format!("queue error {code}")))
    }
}

impl Body for Vec<u8> {
    async fn read(self, limit: usize) -> Result<Self, BodyError> {
        if self.len() > limit { Err(BodyError::TooLarge) } else { Ok(self) }
    }
}

struct World {
    host: FakeHost,
    queue: FakeQueue,
    ledger: SqlLedger<SqliteDatabase>,
    tokens: Tokens,
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
            tokens: Tokens::new(Some("s3cret")),
        }
    }

    fn ask(&self, request: Request<Vec<u8>>) -> Answer {
        let ports =
            Ports { ledger: &self.ledger, queue: &self.queue, host: &self.host, tokens: &self.tokens };
        let response = block_on(answer(request, &ports));
        let (status, headers) = (response.status, response.headers.clone());
        let body = serde_json::from_str(&response.text()).unwrap();
        Answer { status, headers, body }
    }

    fn get(&self, target: &str) -> Answer {
        self.ask(request("GET", target, Vec::new()))
    }

    fn post(&self, body: impl Into<Vec<u8>>) -> Answer {
        self.ask(request("POST", "/v1/deletions", body.into()))
    }

    /// Does to the first chunk what a consumer would: fails every second key.
    fn consume(&self, id: &str, keys: usize) {
        let chunk = ChunkRef { deletion: id.parse().unwrap(), generation: 0, chunk: 0 };
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
        block_on(self.ledger.record(&RecordBatch { token, now, outcomes, unreadable: unreadable.to_vec() }))
            .unwrap();
    }
}

fn request(method: &str, target: &str, body: Vec<u8>) -> Request<Vec<u8>> {
    Request {
        method: method.to_owned(),
        target: target.to_owned(),
        authorization: Some("Bearer s3cret".to_owned()),
        content_type: Some("application/json; charset=utf-8".to_owned()),
        content_encoding: None,
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
    let keys: usize =
        stored.iter().map(|message| ChunkMessage::from_json(&message.body).unwrap().keys.len()).sum();
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
    assert_eq!(world.get(&format!("/v1/deletions/{id}/failures?page_token=MC4x")).status, 422);

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
        let message = world.queue.stored.borrow()[0].body.clone();
        let id = ChunkMessage::from_json(&message).unwrap().chunk.deletion;
        let read = world.get(&format!("/v1/deletions/{id}"));
        assert_eq!(
            (&read.body["state"], &read.body["counts"]["cancelled"]),
            (&json!("cancelled"), &json!(10_000))
        );
    }
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

#[test]
fn a_request_of_the_wrong_form_is_told_what_is_right() {
    let world = World::new();
    let ask = |method: &str, target: &str| world.ask(request(method, target, Vec::new()));
    for (method, target, allow) in [
        ("PUT", "/v1/deletions", "GET, POST"),
        ("DELETE", "/v1/deletions/del_x", "GET"),
        ("POST", "/healthz", "GET"),
    ] {
        let refused = ask(method, target);
        assert_eq!((refused.status, refused.header("Allow")), (405, Some(allow)), "{method} {target}");
    }
    for target in [
        "/",
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
