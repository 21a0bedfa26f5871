//! The Worker: the only file of this crate that names the Workers runtime. It translates bindings, and decides nothing.

use futures::{StreamExt, stream};
use js_sys::{Function, JSON, JsString, Promise, Reflect};
use ledger::{D1, SqlLedger};
use protocol::{Event, Log, Packed, QueueError, Severity, Timestamp};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use worker::{
    BatchMessageBuilder, Context, Date, Env, Headers, QueueContentType, RawMessageBuilder, Result,
    SendMessage, event,
};

use crate::{Body, BodyError, Host, Ports, Queue, Request, Response, ResponseBody, Tokens, answer};

/// The fetch handler.
#[event(fetch)]
async fn fetch(request: worker::Request, env: Env, _context: Context) -> Result<worker::Response> {
    let ports = (env.queue("DELETIONS"), env.d1("LEDGER"));
    let (queue, ledger) = match ports {
        (Ok(queue), Ok(ledger)) => (DeletionQueue(queue), SqlLedger::new(D1::new(ledger))),
        (Err(error), _) | (_, Err(error)) => {
            Runtime.emit(&Event::ConfigInvalid { cause: &error.to_string(), r2_code: None });
            return worker::Response::error("A binding of the producer is missing.", 503);
        }
    };
    let token = env.secret("API_TOKEN").map(|secret| secret.to_string()).ok();
    let tokens = Tokens::new(token.as_deref());
    let ports = Ports { ledger: &ledger, queue: &queue, host: &Runtime, tokens: &tokens };
    let response = answer(read(request)?, &ports).await;
    write(response, ledger)
}

fn read(request: worker::Request) -> Result<Request<Incoming>> {
    let headers = request.headers();
    Ok(Request {
        method: request.method().to_string(),
        target: target(&request.inner().url()),
        authorization: headers.get("Authorization")?,
        content_type: headers.get("Content-Type")?,
        content_encoding: headers.get("Content-Encoding")?,
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
fn write(response: Response, ledger: SqlLedger<D1>) -> Result<worker::Response> {
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
    async fn read(mut self, limit: usize) -> std::result::Result<Vec<u8>, BodyError> {
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
    async fn send(&self, messages: Vec<Packed>) -> std::result::Result<(), QueueError> {
        let messages: Vec<SendMessage<JsValue>> = messages
            .into_iter()
            .map(|message| {
                let body = JsValue::from_str(&message.body);
                RawMessageBuilder::new(body).build_with_content_type(QueueContentType::Text)
            })
            .collect();
        let batch = BatchMessageBuilder::new().messages(messages).build();
        self.0.send_raw_batch(batch).await.map_err(|error| QueueError::from_message(&error.to_string()))
    }

    /// The crate has no `metrics()`; the runtime has had it since April 2026.
    async fn ping(&self) -> std::result::Result<(), String> {
        let queue: &JsValue = self.0.as_ref();
        let answer = async {
            let metrics: Function = Reflect::get(queue, &JsValue::from_str("metrics"))?.dyn_into()?;
            let promise: Promise = metrics.call0(queue)?.dyn_into()?;
            JsFuture::from(promise).await
        };
        answer.await.map(drop).map_err(|error| to_text(&error))
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
