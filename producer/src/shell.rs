//! The Worker: the only file of this crate that names the Workers runtime. It translates bindings, and decides nothing.

use futures::{StreamExt, stream};
use js_sys::{Array, Function, JSON, JsString, Object, Promise, Reflect};
use ledger::{D1, SqlLedger};
use protocol::{Event, Log, QueueError, Severity, Timestamp};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use worker::{Context, Date, Env, Headers, ScheduleContext, ScheduledEvent, event};

use crate::{
    Body, BodyError, Config, Host, Ports, Queue, RateLimiter, Request, Response, ResponseBody, Settings,
    answer, upkeep,
};

/// The fetch handler.
#[event(fetch)]
async fn fetch(request: worker::Request, env: Env, _context: Context) -> worker::Result<worker::Response> {
    let Some((queue, ledger)) = bindings(&env) else {
        return worker::Response::error("A binding of the producer is missing.", 503);
    };
    let limiter = Limiter(binding(&env, "RATE_LIMIT")?.map(JsCast::unchecked_into));
    let config = Config::parse(&settings(&env)?);
    let config = config.as_ref().map_err(String::as_str);
    let ports = Ports { ledger: &ledger, queue: &queue, limiter: &limiter, host: &Runtime, config };
    let response = answer(read(request)?, &ports).await;
    write(response, ledger)
}

/// The cron trigger's handler.
#[event(scheduled)]
async fn scheduled(_event: ScheduledEvent, env: Env, _context: ScheduleContext) {
    if let Some((queue, ledger)) = bindings(&env) {
        upkeep(&ledger, &queue, &Runtime).await;
    }
}

fn bindings(env: &Env) -> Option<(DeletionQueue, SqlLedger<D1>)> {
    match (env.queue("DELETIONS"), env.d1("LEDGER")) {
        (Ok(queue), Ok(ledger)) => Some((DeletionQueue(queue), SqlLedger::new(D1::new(ledger)))),
        (Err(error), _) | (_, Err(error)) => {
            Runtime.emit(&Event::ConfigInvalid { cause: &error.to_string(), r2_code: None });
            None
        }
    }
}

fn settings(env: &Env) -> worker::Result<Settings> {
    Ok(Settings {
        // What is no text is no token: `null` would be one that anybody guesses.
        api_token: binding(env, "API_TOKEN")?.and_then(|token| token.as_string()),
        api_tokens: list(env, "API_TOKENS")?,
        protected_prefixes: list(env, "PROTECTED_PREFIXES")?,
    })
}

/// A setting that is a list in JSON. What wrangler's file gives as a list arrives as one, and counts as its JSON: it must
/// not be taken for a setting that is not there.
fn list(env: &Env, name: &str) -> worker::Result<Option<String>> {
    binding(env, name)?
        .map(|value| value.as_string().map_or_else(|| JSON::stringify(&value).map(String::from), Ok))
        .transpose()
        .map_err(Into::into)
}

fn binding(env: &Env, name: &str) -> worker::Result<Option<JsValue>> {
    let value = Reflect::get(env, &JsValue::from_str(name))?;
    Ok(Some(value).filter(|value| !value.is_undefined()))
}

fn read(request: worker::Request) -> worker::Result<Request<Incoming>> {
    let headers = request.headers();
    Ok(Request {
        method: request.method().to_string(),
        target: target(&request.inner().url()),
        authorization: headers.get("Authorization")?,
        content_type: headers.get("Content-Type")?,
        content_encoding: headers.get("Content-Encoding")?,
        idempotency_key: headers.get("Idempotency-Key")?,
        accept: headers.get("Accept")?,
        body: Incoming(request),
    })
}

/// The path and the query of a URL, as they came.
fn target(url: &str) -> String {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    after_scheme.find('/').and_then(|start| after_scheme.get(start..)).unwrap_or("/").to_owned()
}

/// A page that fails breaks the stream, and the runtime then breaks the connection: the reader sees that it is not whole.
fn write(response: Response, ledger: SqlLedger<D1>) -> worker::Result<worker::Response> {
    let headers = Headers::new();
    for (name, value) in &response.headers {
        headers.set(name, value)?;
    }
    let written = match response.body {
        ResponseBody::Text(text) => worker::Response::from_bytes(text.into_bytes()),
        ResponseBody::Pages(pages) => {
            worker::Response::from_stream(stream::try_unfold((pages, ledger), |(mut pages, ledger)| async {
                let page = pages.next(&ledger, &Runtime).await.map_err(|error| error.to_string())?;
                Ok::<_, worker::Error>(page.map(|page| (page.into_bytes(), (pages, ledger))))
            }))
        }
    };
    Ok(written?.with_headers(headers).with_status(response.status))
}

struct Incoming(worker::Request);

impl Body for Incoming {
    async fn read(mut self, limit: usize) -> Result<Vec<u8>, BodyError> {
        // A request without a body has no stream.
        let Ok(mut stream) = self.0.stream() else { return Ok(Vec::new()) };
        let mut body = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| BodyError::Broken)?;
            if body.len() + chunk.len() > limit {
                return Err(BodyError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

struct DeletionQueue(worker::Queue);

impl Queue for DeletionQueue {
    async fn send(&self, bodies: Vec<String>, delay_seconds: u32) -> Result<(), QueueError> {
        let messages =
            bodies.iter().map(|body| to_message(body, delay_seconds)).collect::<Result<Vec<_>, _>>();
        let sent =
            async { self.call("sendBatch", &Array::of1(&messages?.into_iter().collect::<Array>())).await };
        sent.await.map(drop).map_err(|error| QueueError::from_message(&to_text(&error)))
    }

    /// The crate has no `metrics()`; the runtime has had it since April 2026.
    async fn ping(&self) -> Result<(), String> {
        self.call("metrics", &Array::new()).await.map(drop).map_err(|error| to_text(&error))
    }
}

impl DeletionQueue {
    /// Calls a method of the binding as the JavaScript object that it is: the crate's way through serde-wasm-bindgen is ten
    /// kilobytes of wasm.
    async fn call(&self, method: &str, arguments: &Array) -> Result<JsValue, JsValue> {
        let queue: &JsValue = self.0.as_ref();
        let method: Function = Reflect::get(queue, &JsValue::from_str(method))?.dyn_into()?;
        JsFuture::from(method.apply(queue, arguments)?.dyn_into::<Promise>()?).await
    }
}

/// A message as `sendBatch` takes it: its fields are flat, whatever the documentation's page shows.
fn to_message(body: &str, delay_seconds: u32) -> Result<JsValue, JsValue> {
    let message = Object::new();
    Reflect::set(&message, &JsValue::from_str("body"), &JsValue::from_str(body))?;
    Reflect::set(&message, &JsValue::from_str("contentType"), &JsValue::from_str("text"))?;
    Reflect::set(&message, &JsValue::from_str("delaySeconds"), &JsValue::from(delay_seconds))?;
    Ok(message.into())
}

/// The platform's rate limiter, where one is bound.
struct Limiter(Option<worker::RateLimiter>);

impl RateLimiter for Limiter {
    async fn admit(&self, name: &str) -> Result<bool, String> {
        let Some(limiter) = &self.0 else { return Ok(true) };
        limiter.limit(name.to_owned()).await.map(|outcome| outcome.success).map_err(|error| error.to_string())
    }
}

struct Runtime;

impl Host for Runtime {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(Date::now().as_millis())
    }

    fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        // The runtime's source of randomness does not fail; ids would still be unique by their time if it did.
        let _ = getrandom::fill(&mut bytes);
        u128::from_le_bytes(bytes)
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

fn to_text(error: &JsValue) -> String {
    let message = Reflect::get(error, &JsValue::from_str("message")).unwrap_or_default();
    message.dyn_into::<JsString>().map_or_else(|_| "unknown error".to_owned(), String::from)
}
