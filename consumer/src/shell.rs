//! The Worker: the only file of this crate that names the Workers runtime. It translates bindings, and decides nothing.

use std::time::Duration;

use js_sys::{Array, Function, JSON, JsString, Promise, Reflect};
use ledger::{Binding, D1, ListedObject, SqlLedger, long_text, object, settled};
use protocol::{
    Event, Log, ObjectKey, QueueError, R2Error, RetryCause, Severity, Timestamp, retry_delay_seconds,
};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, Response};
use worker::worker_sys::{Context, Message, MessageBatch};
use worker::{Date, Delay, Env};

use crate::{
    Body, Bucket, DeleteCall, Delivery, Endpoint, Group, Host, ListCall, Listing, NoticeConfig, Notices,
    Queue, Settlement, Settlements, Webhook, handle, upkeep,
};

/// The queue handler.
///
/// Exported by hand, because `#[event(queue)]` panics when its handler returns an error, and hides a message's attempts.
/// worker-build wires an export of this name. The promise is never rejected: a rejection would take back decisions.
#[wasm_bindgen]
#[expect(unreachable_pub, reason = "wasm-bindgen exports only what is public")]
pub fn queue(batch: MessageBatch, env: Env, _context: Context) -> Promise {
    wasm_bindgen_futures::future_to_promise(async move {
        let queue = batch.queue().map(String::from).unwrap_or_default();
        let messages: Vec<Message> = batch
            .messages()
            .map(|messages| messages.iter().map(Message::unchecked_from_js).collect())
            .unwrap_or_default();
        let settlements = process(&queue, &messages, &env).await;
        for (index, message) in messages.iter().enumerate() {
            settle(message, settlements.of(index));
        }
        Ok(JsValue::UNDEFINED)
    })
}

/// The cron trigger's handler.
///
/// Exported by hand as [`queue`] is, and never rejected either.
#[wasm_bindgen]
#[expect(unreachable_pub, reason = "wasm-bindgen exports only what is public")]
pub async fn scheduled(_event: JsValue, env: Env, _context: JsValue) {
    match (Binding::find(&env, "DELETIONS", "WorkerQueue"), D1::find(&env, "LEDGER")) {
        (Ok(queue), Ok(ledger)) => upkeep(&SqlLedger::new(ledger), &QueueOut(Some(queue)), &Runtime).await,
        (Err(cause), _) | (_, Err(cause)) => {
            Runtime.emit(&Event::ConfigInvalid { cause: &cause, r2_code: None });
        }
    }
}

async fn process(queue: &str, messages: &[Message], env: &Env) -> Settlements {
    let (bucket, ledger) = match (Binding::find(env, "BUCKET", "R2Bucket"), D1::find(env, "LEDGER")) {
        (Ok(binding), Ok(ledger)) => {
            let bodies = messages.iter().map(|message| message.body().unwrap_or_default()).collect();
            (R2 { binding, bodies }, SqlLedger::new(ledger))
        }
        (Err(cause), _) | (_, Err(cause)) => {
            Runtime.emit(&Event::ConfigInvalid { cause: &cause, r2_code: None });
            let delay_seconds = retry_delay_seconds(RetryCause::Misconfigured, 1, Runtime.random());
            return Settlements::retry_all(messages.len(), delay_seconds);
        }
    };
    let (queue_out, config) = way_out(env);
    let config = config.as_ref().map(Option::as_ref).map_err(String::as_str);
    let notices = Notices { config, queue: &queue_out, endpoint: &Internet };
    let deliveries: Vec<Delivery> =
        messages.iter().zip(&bucket.bodies).map(|(message, body)| read(message, body)).collect();
    handle(queue, &deliveries, &bucket, &ledger, &notices, &Runtime).await
}

/// What notices are sent with. Whoever wants none needs no binding for them.
fn way_out(env: &Env) -> (QueueOut, Result<Option<NoticeConfig>, String>) {
    let setting = |name| Reflect::get(env, &JsValue::from_str(name)).ok()?.as_string();
    let config = NoticeConfig::parse(setting("NOTICE_URL").as_deref(), setting("NOTICE_SECRETS").as_deref());
    match (Binding::find(env, "DELETIONS", "WorkerQueue"), config) {
        (Err(cause), Ok(Some(_))) => (QueueOut(None), Err(cause)),
        (queue, config) => (QueueOut(queue.ok()), config),
    }
}

fn read(message: &Message, body: &JsValue) -> Delivery {
    let attempts =
        Reflect::get(message, &JsValue::from_str("attempts")).ok().and_then(|attempts| attempts.as_f64());
    let sent_at = message.timestamp().map(|date| date.get_time()).unwrap_or_default();
    Delivery {
        message_id: message.id().map(String::from).unwrap_or_default(),
        attempts: attempts.map_or(1, to_u32),
        sent_at: Timestamp::from_millis(to_u64(sent_at)),
        body: match body.dyn_ref::<JsString>() {
            Some(text) => Body::Text(long_text(text)),
            None => Body::Other(to_json(body)),
        },
    }
}

/// A refused call leaves the message as it is: it is delivered again.
fn settle(message: &Message, settlement: &Settlement) {
    let answer = match settlement {
        Settlement::Acknowledge(_) => message.ack(),
        Settlement::Retry { delay_seconds } => retry(message, *delay_seconds),
    };
    if answer.is_err() {
        Runtime
            .emit(&Event::ConfigInvalid { cause: "the runtime refused to settle a message", r2_code: None });
    }
}

fn retry(message: &Message, delay_seconds: u32) -> Result<(), JsValue> {
    let options = js_sys::Object::new();
    Reflect::set(&options, &JsValue::from_str("delaySeconds"), &JsValue::from(delay_seconds))?;
    message.retry(options.into())
}

struct R2 {
    binding: Binding,
    /// The bodies of the batch's messages.
    bodies: Vec<JsValue>,
}

#[wasm_bindgen]
extern "C" {
    type Deleting;

    #[wasm_bindgen(method, catch, js_name = delete)]
    fn delete_keys(this: &Deleting, keys: &JsValue) -> Result<Promise, JsValue>;

    /// A text that is the runtime's already.
    #[wasm_bindgen(catch, js_namespace = JSON, js_name = parse)]
    fn parse_json(text: &JsValue) -> Result<JsValue, JsValue>;
}

impl R2 {
    /// The keys of a message that the core has read and found right, as the runtime reads it; `None` when it reads another number
    /// of them, which it never does.
    fn keys_of(&self, delivery: usize, count: usize) -> Option<JsValue> {
        let message = parse_json(self.bodies.get(delivery)?).ok()?;
        let keys: Array = Reflect::get(&message, &JsValue::from_str("keys")).ok()?.dyn_into().ok()?;
        (keys.length() as usize == count).then(|| keys.into())
    }

    fn keys(&self, call: &DeleteCall<'_>) -> Result<JsValue, JsValue> {
        let whole = call.delivery().and_then(|delivery| self.keys_of(delivery, call.keys().len()));
        // One long string across the border, for the runtime to take apart: a string for each key would cost ten times as much.
        whole.map_or_else(|| JSON::parse(&call.keys_json()), Ok)
    }
}

impl Bucket for R2 {
    async fn delete(&self, call: DeleteCall<'_>) -> Result<(), R2Error> {
        let keys = self.keys(&call).map_err(|_| R2Error::Other(0))?;
        let deleted = settled(self.binding.of::<Deleting>().delete_keys(&keys)).await;
        deleted.map(drop).map_err(|message| R2Error::from_message(&message))
    }

    async fn uploaded_at(&self, key: &ObjectKey<'_>) -> Result<Option<Timestamp>, R2Error> {
        let found = self.binding.call("head", &Array::of1(&JsValue::from_str(key.as_str()))).await;
        let object = found.map_err(|message| R2Error::from_message(&message))?;
        if object.is_null() { Ok(None) } else { uploaded_at(&object).map(Some) }
    }

    async fn list(&self, call: &ListCall<'_>) -> Result<Listing, R2Error> {
        let optional = |text: Option<&str>| text.map_or(JsValue::UNDEFINED, JsValue::from_str);
        let options = object(&[
            ("prefix", JsValue::from_str(call.prefix)),
            ("startAfter", optional(call.start_after)),
            ("delimiter", optional(call.delimiter)),
            ("limit", JsValue::from(call.limit)),
        ]);
        let listed = self.binding.call("list", &Array::of1(&options)).await;
        let listed = listed.map_err(|message| R2Error::from_message(&message))?;
        let field = |of: &JsValue, name| Reflect::get(of, &JsValue::from_str(name)).unwrap_or_default();
        let objects = Array::from(&field(&listed, "objects"));
        let objects = objects.iter().map(|object| {
            Ok(ListedObject {
                key: field(&object, "key").as_string().ok_or(R2Error::Other(0))?,
                size: to_u64(field(&object, "size").as_f64().unwrap_or_default()),
                uploaded_at: uploaded_at(&object)?,
            })
        });
        let groups = Array::from(&field(&listed, "delimitedPrefixes"));
        Ok(Listing {
            objects: objects.collect::<Result<_, R2Error>>()?,
            groups: groups.iter().filter_map(|group| group.as_string().map(Group)).collect(),
            // What does not say that it is whole is not.
            truncated: field(&listed, "truncated").as_bool().ok_or(R2Error::Other(0))?,
        })
    }
}

/// When an object was uploaded; what is of no known age must not be taken for old.
fn uploaded_at(object: &JsValue) -> Result<Timestamp, R2Error> {
    let uploaded = Reflect::get(object, &JsValue::from_str("uploaded")).unwrap_or_default();
    let millis = uploaded.dyn_ref::<js_sys::Date>().map(js_sys::Date::get_time);
    let known = millis.filter(|millis| *millis >= 0.0).ok_or(R2Error::Other(0))?;
    Ok(Timestamp::from_millis(to_u64(known)))
}

/// The queue that messages are sent to, where it is bound.
struct QueueOut(Option<Binding>);

impl Queue for QueueOut {
    async fn send(&self, bodies: Vec<String>, delay_seconds: u32) -> Result<(), QueueError> {
        match &self.0 {
            Some(queue) => queue.send_batch(&bodies, delay_seconds).await,
            None => Err(QueueError { code: 0 }),
        }
    }
}

struct Internet;

impl Endpoint for Internet {
    async fn post(&self, webhook: &Webhook<'_>) -> Option<u16> {
        // Whoever stops waiting drops this, and with it the request.
        let request = Abort(AbortController::new().ok()?);
        let headers: Vec<_> =
            webhook.headers.iter().map(|(name, value)| (*name, JsValue::from_str(value))).collect();
        let init = object(&[
            ("method", JsValue::from_str("POST")),
            ("redirect", JsValue::from_str("manual")),
            ("headers", object(&headers).into()),
            ("body", JsValue::from_str(&webhook.body)),
            ("signal", request.0.signal().into()),
        ]);
        let fetch: Function =
            Reflect::get(&js_sys::global(), &JsValue::from_str("fetch")).ok()?.dyn_into().ok()?;
        let answer = fetch.call2(&JsValue::UNDEFINED, &JsValue::from_str(webhook.url), &init).ok()?;
        let answer = JsFuture::from(answer.dyn_into::<Promise>().ok()?).await.ok()?;
        Some(answer.unchecked_into::<Response>().status())
    }
}

/// A request to the endpoint, which ends with this: one that nobody waits for, and an answer's body that nobody reads.
struct Abort(AbortController);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Runtime;

impl Host for Runtime {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(Date::now().as_millis())
    }

    fn random(&self) -> f64 {
        js_sys::Math::random()
    }

    fn token(&self) -> String {
        // A clock and a float are plenty to tell 250 invocations apart; the token guards no secret.
        format!("{:x}-{:x}", self.now().as_millis(), self.random().to_bits())
    }

    async fn sleep(&self, millis: u64) {
        Delay::from(Duration::from_millis(millis)).await;
    }
}

impl Log for Runtime {
    /// Passes the event as an object, so that its fields are indexed; a string would be one blob.
    fn emit(&self, event: &Event<'_>) {
        let json = event.to_json();
        let line = JSON::parse(&json).unwrap_or_else(|_| JsValue::from_str(&json));
        match event.severity() {
            Severity::Info => web_sys::console::log_1(&line),
            Severity::Warn => web_sys::console::warn_1(&line),
            Severity::Error => web_sys::console::error_1(&line),
        }
    }
}

fn to_json(body: &JsValue) -> String {
    JSON::stringify(body).map_or_else(|_| "null".to_owned(), String::from)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the runtime counts attempts in 16 bits"
)]
fn to_u32(number: f64) -> u32 {
    number as u32
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "milliseconds since the epoch fit 53 bits"
)]
fn to_u64(number: f64) -> u64 {
    number as u64
}
