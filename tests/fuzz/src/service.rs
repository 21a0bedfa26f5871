//! The producer on a ledger of its own, asked by one of two tenants.

use std::cell::{Cell, RefCell};

use futures::executor::block_on;
use ledger::{SqlLedger, SqliteDatabase};
use producer::{
    Assets, Body, BodyError, Config, Host, MemoryBudget, Ports, Queue, RateLimiter, Request, Response,
    ResponseBody, Settings,
};
use protocol::{Event, Log, QueueError, QueueMessage, Timestamp};
use sha2::{Digest as _, Sha256};

/// A tenant's token.
pub(crate) const TOKEN: &str = "token-of-tenant-a";
/// Another tenant's.
pub(crate) const OTHER_TOKEN: &str = "token-of-tenant-b";

pub(crate) struct Service {
    pub(crate) config: Config,
    pub(crate) ledger: SqlLedger<SqliteDatabase>,
    queue: Sent,
    host: Machine,
    memory: MemoryBudget,
}

/// What the producer says: the status, and the text of the body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Service {
    /// Where tenant A may delete what begins with `prefix`, and nobody what begins with `protected`.
    pub(crate) fn new(prefix: &str, protected: &str) -> Option<Self> {
        let digest = |token: &str| {
            Sha256::digest(token).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
        };
        let tokens = serde_json::json!([
            {"name": "a", "sha256": digest(TOKEN), "prefixes": [prefix], "roles": ["delete", "sweep", "read"]},
            {"name": "b", "sha256": digest(OTHER_TOKEN), "roles": ["delete", "read"]},
        ]);
        let settings = Settings {
            api_tokens: Some(tokens.to_string()),
            protected_prefixes: Some(serde_json::json!([protected]).to_string()),
            ..Settings::default()
        };
        Some(Self {
            config: Config::parse(&settings).ok()?,
            ledger: SqlLedger::new(SqliteDatabase::in_memory().ok()?),
            queue: Sent::default(),
            host: Machine::default(),
            memory: MemoryBudget::new(100_000_000),
        })
    }

    pub(crate) fn post(&self, content_type: &str, query: &str, body: &[u8]) -> Answer {
        self.ask(Request {
            method: "POST".to_owned(),
            target: format!("/v1/deletions{query}"),
            content_type: Some(content_type.to_owned()),
            ..request(body)
        })
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.ask(Request { target: target.to_owned(), ..request(b"") })
    }

    pub(crate) fn ask(&self, request: Request<Pieces>) -> Answer {
        self.queue.0.borrow_mut().clear();
        let ports = Ports {
            ledger: &self.ledger,
            queue: &self.queue,
            limiter: &Unlimited,
            assets: &Unlimited,
            host: &self.host,
            memory: &self.memory,
            config: Ok(&self.config),
        };
        let Response { status, body, .. } = block_on(producer::answer(request, &ports));
        let text = if let ResponseBody::Text(text) = body { text } else { String::new() };
        Answer { status, text }
    }

    /// The keys that the last request has had sent, in order.
    pub(crate) fn keys_sent(&self) -> Vec<String> {
        let mut keys = Vec::new();
        for body in &*self.queue.0.borrow() {
            match QueueMessage::from_json(body) {
                Ok(QueueMessage::Chunk(chunk)) => {
                    keys.extend(chunk.keys.iter().map(|key| key.as_str().to_owned()));
                }
                other => assert!(other.is_ok(), "a message was sent that nobody can read"),
            }
        }
        keys
    }
}

pub(crate) fn request(body: &[u8]) -> Request<Pieces> {
    Request {
        method: "GET".to_owned(),
        target: "/".to_owned(),
        client_address: None,
        authorization: Some(format!("Bearer {TOKEN}")),
        content_type: None,
        content_length: None,
        content_encoding: None,
        idempotency_key: None,
        accept: None,
        body: Pieces(body.to_vec()),
    }
}

/// A body that comes in a few pieces.
pub(crate) struct Pieces(Vec<u8>);

impl Body for Pieces {
    async fn read(&mut self, buffer: &mut Vec<u8>, room: usize) -> Result<bool, BodyError> {
        let rest = self.0.split_off(self.0.len().min(7.max(self.0.len() / 3)));
        let next = std::mem::replace(&mut self.0, rest);
        if next.len() > room {
            return Err(BodyError::TooLarge);
        }
        buffer.extend_from_slice(&next);
        Ok(!next.is_empty())
    }
}

#[derive(Default)]
struct Sent(RefCell<Vec<String>>);

impl Queue for Sent {
    async fn send(&self, bodies: Vec<String>, _delay_seconds: u32) -> Result<(), QueueError> {
        self.0.borrow_mut().extend(bodies);
        Ok(())
    }

    async fn ping(&self) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Default)]
struct Machine(Cell<u128>);

impl Host for Machine {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_763_930_000_000)
    }

    fn random(&self) -> u128 {
        self.0.set(self.0.get() + 1);
        self.0.get()
    }

    /// The time for a body is never up.
    async fn sleep(&self, _millis: u64) {
        std::future::pending::<()>().await;
    }
}

impl Log for Machine {
    fn emit(&self, event: &Event<'_>) {
        // What is not written to a log can be wrong all the same.
        assert!(serde_json::from_str::<serde_json::Value>(&event.to_json()).is_ok(), "an event is no JSON");
    }
}

struct Unlimited;

impl RateLimiter for Unlimited {
    async fn admit(&self, _key: &str) -> Result<bool, String> {
        Ok(true)
    }
}

impl Assets for Unlimited {
    async fn read(&self, _path: &str) -> Result<String, String> {
        Ok("{}".to_owned())
    }
}
