//! The pair on one ledger and a bucket in memory: a producer that is asked, and a consumer that is given messages.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::LazyLock;

use consumer::{Body as MessageBody, Delivery, Endpoint, Notices, Settlements, Webhook};
use futures::executor::block_on;
use ledger::{Database, LedgerError, Row, SqlLedger, SqliteDatabase, Statement};
use producer::{
    Assets, Body, BodyError, Config, Host, MemoryBudget, Ports, Queue, RateLimiter, Request, Response,
    ResponseBody, Settings,
};
use protocol::{Event, Log, QueueError, QueueMessage, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::bucket::Objects;

/// A tenant's token.
pub(crate) const TOKEN: &str = "token-of-tenant-a";
/// Another tenant's.
pub(crate) const OTHER_TOKEN: &str = "token-of-tenant-b";
/// An operator's, who deletes nothing.
pub(crate) const OPERATOR_TOKEN: &str = "token-of-operator";

/// What tenant A may delete, and what nobody may.
pub(crate) const PREFIX: &str = "a/";
pub(crate) const PROTECTED: &str = "a/keep/";

/// The queue, and where what it gives up goes.
pub(crate) const QUEUE: &str = "r2-deletions";
pub(crate) const DEAD_LETTERS: &str = "r2-deletions-dlq";

/// When it is, until somebody waits.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_763_930_000_000);

/// The tokens' digests, in the order of [`TOKEN`], [`OTHER_TOKEN`] and [`OPERATOR_TOKEN`].
static DIGESTS: LazyLock<[String; 3]> = LazyLock::new(|| {
    [TOKEN, OTHER_TOKEN, OPERATOR_TOKEN]
        .map(|token| Sha256::digest(token).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")))
});

pub(crate) struct Service {
    config: Config,
    database: Rc<SqliteDatabase>,
    ledger: SqlLedger<Shared>,
    queue: Sent,
    host: Machine,
    memory: MemoryBudget,
    pub(crate) bucket: Objects,
    /// Ids of deletions that a target has left for its next input, by what they are.
    left: RefCell<BTreeMap<&'static str, String>>,
}

/// What the producer says: the status, and the text of the body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

impl Service {
    /// Where tenant A may delete what begins with `a/`, and nobody what begins with `a/keep/`.
    pub(crate) fn new() -> Option<Self> {
        let database = Rc::new(SqliteDatabase::in_memory().ok()?);
        Some(Self {
            config: config(PREFIX, PROTECTED)?,
            ledger: SqlLedger::new(Shared(Rc::clone(&database))),
            database,
            queue: Sent::default(),
            host: Machine::default(),
            memory: MemoryBudget::new(100_000_000),
            bucket: Objects::default(),
            left: RefCell::default(),
        })
    }

    /// Forgets everything. The ids of what is asked for from here on are the same every time.
    pub(crate) fn clear(&self) -> Option<()> {
        self.host.clear();
        self.bucket.clear();
        self.queue.0.borrow_mut().clear();
        self.left.borrow_mut().clear();
        self.database.clear().ok()
    }

    /// The deletion of that kind that an earlier input has left as it was, or a new one.
    pub(crate) fn left_or(&self, kind: &'static str, make: impl FnOnce() -> String) -> String {
        let left = self.left.borrow_mut().remove(kind);
        left.unwrap_or_else(make)
    }

    pub(crate) fn leave(&self, kind: &'static str, id: String) {
        self.left.borrow_mut().insert(kind, id);
    }

    /// The same service where something else may be deleted; `None` where that is no configuration.
    pub(crate) fn with_scope<T>(
        &self,
        prefix: &str,
        protected: &str,
        ask: impl FnOnce(&dyn Fn(&[u8]) -> Answer) -> T,
    ) -> Option<T> {
        let config = config(prefix, protected)?;
        Some(ask(&|body| {
            self.ask_with(post("/v1/deletions", "application/json", body), &config, &self.queue)
        }))
    }

    pub(crate) fn post(&self, content_type: &str, query: &str, body: &[u8]) -> Answer {
        self.ask(post(&format!("/v1/deletions{query}"), content_type, body))
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.ask(Request { target: target.to_owned(), ..request(b"") })
    }

    pub(crate) fn ask(&self, request: Request<Pieces>) -> Answer {
        self.ask_with(request, &self.config, &self.queue)
    }

    /// Asks a producer whose messages are delivered before it hears that they are stored.
    pub(crate) fn ask_and_deliver(&self, request: Request<Pieces>) -> Answer {
        self.ask_with(request, &self.config, &AtOnce(self))
    }

    fn ask_with(&self, request: Request<Pieces>, config: &Config, queue: &impl Queue) -> Answer {
        self.queue.0.borrow_mut().clear();
        let ports = Ports {
            ledger: &self.ledger,
            queue,
            limiter: &Unlimited,
            assets: &Unlimited,
            host: &self.host,
            memory: &self.memory,
            config: Ok(config),
        };
        let Response { status, body, .. } = block_on(producer::answer(request, &ports));
        let text = if let ResponseBody::Text(text) = body { text } else { String::new() };
        Answer { status, text }
    }

    /// The messages that the last request has had sent, in order.
    pub(crate) fn sent(&self) -> Vec<String> {
        self.queue.0.borrow().clone()
    }

    /// The keys in them.
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

    /// Delivers messages of these bodies to the consumer, as one batch of that queue.
    pub(crate) fn deliver(&self, queue: &str, bodies: &[String]) -> Settlements {
        block_on(self.consume(queue, bodies))
    }

    async fn consume(&self, queue: &str, bodies: &[String]) -> Settlements {
        let deliveries: Vec<Delivery> = (0..)
            .zip(bodies)
            .map(|(number, body)| Delivery {
                message_id: format!("message-{number:04}"),
                attempts: 1,
                sent_at: NOW,
                body: MessageBody::Text(body.clone()),
            })
            .collect();
        let notices = Notices { config: Ok(None), queue: &self.queue, endpoint: &Unlimited };
        consumer::handle(queue, &deliveries, &self.bucket, &self.ledger, &notices, &self.host).await
    }
}

fn config(prefix: &str, protected: &str) -> Option<Config> {
    let [a, b, operator] = &*DIGESTS;
    let tokens = serde_json::json!([
        {"name": "a", "sha256": a, "prefixes": [prefix], "roles": ["delete", "sweep", "read"]},
        {"name": "b", "sha256": b, "roles": ["delete", "read"]},
        {"name": "operator", "sha256": operator, "roles": ["operate", "read"]},
    ]);
    let settings = Settings {
        api_tokens: Some(tokens.to_string()),
        protected_prefixes: Some(serde_json::json!([protected]).to_string()),
        ..Settings::default()
    };
    Config::parse(&settings).ok()
}

/// A request of tenant A's: a `GET`, without any header that is not needed.
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

/// A `POST` of tenant A's.
pub(crate) fn post(target: &str, content_type: &str, body: &[u8]) -> Request<Pieces> {
    Request {
        method: "POST".to_owned(),
        target: target.to_owned(),
        content_type: Some(content_type.to_owned()),
        ..request(body)
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

/// The ledger's database, which the service empties.
struct Shared(Rc<SqliteDatabase>);

impl Database for Shared {
    async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, LedgerError> {
        self.0.batch(statements).await
    }
}

/// The queue as both Workers send to it.
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

impl consumer::Queue for Sent {
    async fn send(&self, bodies: Vec<String>, _delay_seconds: u32) -> Result<(), QueueError> {
        self.0.borrow_mut().extend(bodies);
        Ok(())
    }
}

/// A queue that delivers before it says that it has stored.
struct AtOnce<'a>(&'a Service);

impl Queue for AtOnce<'_> {
    async fn send(&self, bodies: Vec<String>, _delay_seconds: u32) -> Result<(), QueueError> {
        self.0.consume(QUEUE, &bodies).await;
        self.0.queue.0.borrow_mut().extend(bodies);
        Ok(())
    }

    async fn ping(&self) -> Result<(), String> {
        Ok(())
    }
}

/// A machine whose clock moves when somebody waits, and only then.
#[derive(Default)]
struct Machine {
    drawn: Cell<u128>,
    waited_ms: Cell<u64>,
}

impl Machine {
    fn clear(&self) {
        self.drawn.set(0);
        self.waited_ms.set(0);
    }

    fn draw(&self) -> u128 {
        self.drawn.set(self.drawn.get() + 1);
        self.drawn.get()
    }

    fn time(&self) -> Timestamp {
        NOW.plus_millis(self.waited_ms.get())
    }

    fn wait(&self, millis: u64) {
        self.waited_ms.set(self.waited_ms.get() + millis);
    }
}

impl Host for Machine {
    fn now(&self) -> Timestamp {
        self.time()
    }

    fn random(&self) -> u128 {
        self.draw()
    }

    async fn sleep(&self, millis: u64) {
        self.wait(millis);
    }
}

impl consumer::Host for Machine {
    fn now(&self) -> Timestamp {
        self.time()
    }

    fn random(&self) -> f64 {
        0.5
    }

    fn token(&self) -> String {
        self.draw().to_string()
    }

    async fn sleep(&self, millis: u64) {
        self.wait(millis);
    }
}

impl Log for Machine {
    fn emit(&self, event: &Event<'_>) {
        // What is not written to a log can be wrong all the same.
        let json = event.to_json();
        assert!(serde_json::from_str::<serde::de::IgnoredAny>(&json).is_ok(), "an event is no JSON");
        assert!(!json.contains(TOKEN), "an event has a token in it");
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

impl Endpoint for Unlimited {
    async fn post(&self, _webhook: &Webhook<'_>) -> Option<u16> {
        Some(204)
    }
}
