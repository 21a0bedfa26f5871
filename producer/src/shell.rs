//! The Worker: the only file of this crate that the Workers runtime calls with something to do. It translates bindings, and
//! decides nothing.

use js_sys::{Array, Date, Function, JSON, JsString, Object, Promise, Reflect, Uint8Array};
use ledger::{Binding, D1, SqlLedger, object};
use protocol::{Event, Log, QueueError, Severity, Timestamp};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::{JsFuture, future_to_promise};
use web_sys::{
    AbortController, Headers, ReadableStream, ReadableStreamReadResult, ResponseInit, TransformStream,
    WritableStreamDefaultWriter,
};

use crate::{
    Assets, Body, BodyError, Config, Host, KeyPages, MemoryBudget, Ports, Queue, RateLimiter, Request,
    Response, ResponseBody, Settings, answer,
};

/// The fetch handler.
///
/// Exported by hand, because `#[event(fetch)]` brings the crate's own requests, responses and errors, which are a fifth of
/// the wasm. worker-build wires an export of this name.
///
/// # Errors
///
/// None but that the runtime can make no response at all: there is an answer to everything.
#[wasm_bindgen]
#[expect(unreachable_pub, reason = "wasm-bindgen exports only what is public")]
pub fn fetch(request: web_sys::Request, env: JsValue, context: JsValue) -> Result<Promise, JsValue> {
    let waiting = context.clone();
    let answered =
        future_to_promise(async move { respond(request, &env, &context).await.map(JsValue::from) });
    // Whoever asked may go away. The runtime would leave the request where it is then, with the memory that it holds, which
    // nobody would ever give back; so it is let come to its end.
    wait_until(&waiting, &answered)?;
    Ok(answered)
}

async fn respond(
    request: web_sys::Request,
    env: &JsValue,
    context: &JsValue,
) -> Result<web_sys::Response, JsValue> {
    let Some((queue, ledger)) = bindings(env) else {
        return write(text(503, "A binding of the producer is missing."), no_stream);
    };
    let limiter = Limiter(Binding::find_any(env, "RATE_LIMIT"));
    let config = settings(env).and_then(|settings| Config::parse(&settings));
    let config = config.as_ref().map_err(String::as_str);
    let assets = Files(Binding::find_any(env, "ASSETS"));
    let ports = Ports {
        ledger: &ledger,
        queue: &queue,
        limiter: &limiter,
        assets: &assets,
        host: &Runtime,
        memory: &MEMORY,
        config,
    };
    let response = answer(read(request), &ports).await;
    write(response, |pages| stream(pages, ledger, context))
        .or_else(|_| write(text(500, "INTERNAL SERVER ERROR"), no_stream))
}

/// What is left of an isolate's 128 MB by everything else: the Workers' code, what JavaScript holds, and all other calls.
static MEMORY: MemoryBudget = MemoryBudget::new(64_000_000);

fn wait_until(context: &JsValue, promise: &Promise) -> Result<(), JsValue> {
    let wait_until: Function = Reflect::get(context, &JsValue::from_str("waitUntil"))?.dyn_into()?;
    wait_until.call1(context, promise).map(drop)
}

fn bindings(env: &JsValue) -> Option<(DeletionQueue, SqlLedger<D1>)> {
    match (Binding::find(env, "DELETIONS", "WorkerQueue"), D1::find(env, "LEDGER")) {
        (Ok(queue), Ok(ledger)) => Some((DeletionQueue(queue), SqlLedger::new(ledger))),
        (Err(cause), _) | (_, Err(cause)) => {
            Runtime.emit(&Event::ConfigInvalid { cause: &cause, r2_code: None });
            None
        }
    }
}

/// What cannot be read is not what is not there: a key that was to be protected could be deleted.
fn settings(env: &JsValue) -> Result<Settings, String> {
    Ok(Settings {
        // What is no text is no token: `null` would be one that anybody guesses.
        api_token: setting(env, "API_TOKEN")?.and_then(|token| token.as_string()),
        api_tokens: text_or_json(env, "API_TOKENS")?,
        protected_prefixes: text_or_json(env, "PROTECTED_PREFIXES")?,
        project_templates: text_or_json(env, "PROJECT_TEMPLATES")?,
        // wrangler's `true` counts as "true".
        allow_whole_bucket_sweeps: text_or_json(env, "ALLOW_WHOLE_BUCKET_SWEEPS")?,
    })
}

/// A setting as a text. What wrangler's file gives as a list arrives as one, and counts as its JSON: it must not be taken for
/// a setting that is not there.
fn text_or_json(env: &JsValue, name: &str) -> Result<Option<String>, String> {
    let to_json = |value| JSON::stringify(&value).map(String::from).map_err(|_| unreadable(name));
    setting(env, name)?.map(|value| value.as_string().map_or_else(|| to_json(value), Ok)).transpose()
}

fn setting(env: &JsValue, name: &str) -> Result<Option<JsValue>, String> {
    let value = Reflect::get(env, &JsValue::from_str(name)).map_err(|_| unreadable(name))?;
    Ok(Some(value).filter(|value| !value.is_undefined()))
}

fn unreadable(name: &str) -> String {
    format!("{name}: it cannot be read")
}

fn read(request: web_sys::Request) -> Request<Incoming> {
    let headers = request.headers();
    // Fails only for a name that is none.
    let header = |name| headers.get(name).ok().flatten();
    let bytes = header("Content-Length").and_then(|length| length.parse().ok());
    Request {
        method: request.method(),
        target: target(&request.url()),
        client_address: header("CF-Connecting-IP"),
        authorization: header("Authorization"),
        content_type: header("Content-Type"),
        content_length: bytes,
        content_encoding: header("Content-Encoding"),
        idempotency_key: header("Idempotency-Key"),
        accept: header("Accept"),
        body: Incoming { request, bytes, reader: None },
    }
}

/// The path and the query of a URL, as they came.
fn target(url: &str) -> String {
    // Behind the two slashes of the scheme.
    let start = url.match_indices('/').nth(2);
    start.and_then(|(start, _)| url.get(start..)).unwrap_or("/").to_owned()
}

fn write(
    response: Response,
    stream: impl FnOnce(KeyPages) -> Result<ReadableStream, JsValue>,
) -> Result<web_sys::Response, JsValue> {
    let headers = Headers::new()?;
    for (name, value) in &response.headers {
        headers.set(name, value)?;
    }
    let init = ResponseInit::new();
    init.set_status(response.status);
    init.set_headers(&headers);
    match response.body {
        // Bytes, because a text would bring a Content-Type of its own.
        ResponseBody::Text(text) => {
            let body = Uint8Array::from(text.as_bytes());
            web_sys::Response::new_with_opt_buffer_source_and_init(Some(&body), &init)
        }
        ResponseBody::Pages(pages) => {
            web_sys::Response::new_with_opt_readable_stream_and_init(Some(&stream(pages)?), &init)
        }
    }
}

/// A stream of pages, each read when the one before has been taken. The runtime is told to wait until the last one is.
fn stream(pages: KeyPages, ledger: SqlLedger<D1>, context: &JsValue) -> Result<ReadableStream, JsValue> {
    let pipe = TransformStream::new()?;
    let writer = pipe.writable().get_writer()?;
    let written = future_to_promise(async move {
        write_pages(pages, &ledger, &writer).await;
        Ok(JsValue::UNDEFINED)
    });
    wait_until(context, &written)?;
    Ok(pipe.readable())
}

/// A page that fails breaks the stream, and the runtime then breaks the connection: the reader sees that it is not whole.
async fn write_pages(mut pages: KeyPages, ledger: &SqlLedger<D1>, writer: &WritableStreamDefaultWriter) {
    loop {
        let written = match pages.next(ledger, &Runtime).await {
            Ok(Some(page)) => {
                JsFuture::from(writer.write_with_chunk(&Uint8Array::from(page.as_bytes()))).await
            }
            Ok(None) => return drop(JsFuture::from(writer.close()).await),
            Err(error) => {
                let reason = JsValue::from_str(&error.to_string());
                return drop(JsFuture::from(writer.abort_with_reason(&reason)).await);
            }
        };
        // Whoever asked has gone away.
        if written.is_err() {
            return;
        }
    }
}

fn text(status: u16, body: &str) -> Response {
    Response { status, headers: Vec::new(), body: ResponseBody::Text(body.to_owned()) }
}

/// For an answer that is a text.
fn no_stream(_: KeyPages) -> Result<ReadableStream, JsValue> {
    Err(JsValue::NULL)
}

struct Incoming {
    request: web_sys::Request,
    /// As `Content-Length` says.
    bytes: Option<usize>,
    /// Of the body's stream, from the first read to the end of the body.
    reader: Option<BodyReader>,
}

/// How much of a body is read at once, in bytes. Each read costs as much as parsing some kilobytes does, and the runtime by
/// itself hands out 4.
const READ_BYTES: usize = 262_144;

#[wasm_bindgen]
extern "C" {
    type BodyStream;

    #[wasm_bindgen(method, catch, js_name = getReader)]
    fn get_reader(this: &BodyStream, options: &Object) -> Result<BodyReader, JsValue>;

    type BodyReader;

    /// An extension of the Workers runtime. docs: workers/runtime-apis/streams/readablestreambyobreader.
    #[wasm_bindgen(method, js_name = readAtLeast)]
    fn read_at_least(this: &BodyReader, bytes: usize, into: Uint8Array) -> Promise;

    #[wasm_bindgen(method)]
    fn cancel(this: &BodyReader) -> Promise;
}

impl Incoming {
    fn reader(&mut self) -> Result<Option<&BodyReader>, JsValue> {
        if self.reader.is_none() {
            // A request without a body has no stream.
            let Some(stream) = self.request.body() else { return Ok(None) };
            let stream: BodyStream = JsValue::from(stream).unchecked_into();
            self.reader = Some(stream.get_reader(&object(&[("mode", JsValue::from_str("byob"))]))?);
        }
        Ok(self.reader.as_ref())
    }

    async fn next(&mut self) -> Result<Option<Uint8Array>, JsValue> {
        let at_once = self.bytes.unwrap_or(READ_BYTES).clamp(1, READ_BYTES);
        let Some(reader) = self.reader()? else { return Ok(None) };
        let chunk = next_chunk(reader, at_once).await?;
        if chunk.is_none() {
            self.reader = None;
        }
        Ok(chunk)
    }
}

impl Body for Incoming {
    async fn read(&mut self, buffer: &mut Vec<u8>, room: usize) -> Result<bool, BodyError> {
        let chunk = self.next().await.map_err(|_| BodyError::Broken)?;
        let Some(chunk) = chunk else { return Ok(false) };
        if chunk.length() as usize > room {
            return Err(BodyError::TooLarge);
        }
        buffer.extend_from_slice(&chunk.to_vec());
        Ok(true)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            // Nobody waits for it, and that it may fail is heard by the future, or the runtime would log it.
            drop(JsFuture::from(reader.cancel()));
        }
    }
}

async fn next_chunk(reader: &BodyReader, bytes: usize) -> Result<Option<Uint8Array>, JsValue> {
    // OK because it is no more than `READ_BYTES`.
    let length = u32::try_from(bytes).unwrap_or(u32::MAX);
    let read = reader.read_at_least(bytes, Uint8Array::new_with_length(length));
    let read: ReadableStreamReadResult = JsFuture::from(read).await?.unchecked_into();
    if read.get_done() == Some(true) {
        return Ok(None);
    }
    read.get_value().dyn_into().map(Some)
}

struct DeletionQueue(Binding);

impl Queue for DeletionQueue {
    async fn send(&self, bodies: Vec<String>, delay_seconds: u32) -> Result<(), QueueError> {
        self.0.send_batch(&bodies, delay_seconds).await
    }

    async fn ping(&self) -> Result<(), String> {
        self.0.call("metrics", &Array::new()).await.map(drop)
    }
}

/// The platform's rate limiter, where one is bound.
struct Limiter(Option<Binding>);

impl RateLimiter for Limiter {
    async fn admit(&self, key: &str) -> Result<bool, String> {
        let Some(limiter) = &self.0 else { return Ok(true) };
        let outcome = limiter.call("limit", &Array::of1(&object(&[("key", JsValue::from_str(key))]))).await?;
        let success = Reflect::get(&outcome, &JsValue::from_str("success")).ok();
        success.and_then(|success| success.as_bool()).ok_or_else(|| "its answer has no `success`".to_owned())
    }
}

/// The static assets of the Worker, where they are bound.
struct Files(Option<Binding>);

impl Assets for Files {
    async fn read(&self, path: &str) -> Result<String, String> {
        let Some(files) = &self.0 else { return Err("Binding `ASSETS` is undefined.".to_owned()) };
        // The host is only there to make it a URL.
        let url = JsValue::from_str(&format!("https://assets{path}"));
        let file = files.call("fetch", &Array::of1(&url)).await?;
        let file: web_sys::Response = file.unchecked_into();
        if file.status() != 200 {
            return Err(format!("status {} for {path}", file.status()));
        }
        let text = async { JsFuture::from(file.text()?).await };
        text.await.ok().and_then(|text| text.as_string()).ok_or_else(|| format!("{path} broke off"))
    }
}

/// A text in a normalisation form of Unicode, by the form's name.
pub(crate) fn normalize(text: &str, form: &str) -> String {
    JsString::from(text).normalize(form).into()
}

struct Runtime;

impl Host for Runtime {
    fn now(&self) -> Timestamp {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "OK because it is past 1970"
        )]
        let millis = Date::now() as u64;
        Timestamp::from_millis(millis)
    }

    fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        // The runtime's source of randomness does not fail; ids would still be unique by their time if it did.
        let _ = getrandom::fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }

    async fn sleep(&self, millis: u64) {
        // Where the runtime has no such thing there is no pause.
        let scheduler = Binding::find_any(&js_sys::global(), "scheduler");
        let Some((scheduler, controller)) = scheduler.zip(AbortController::new().ok()) else { return };
        let options = object(&[("signal", controller.signal().into())]);
        let _pause = Pause(controller);
        #[expect(clippy::cast_precision_loss, reason = "pauses are shorter than 2^53 milliseconds")]
        let arguments = Array::of2(&JsValue::from(millis as f64), &options);
        drop(scheduler.call("wait", &arguments).await);
    }
}

/// A pause, which ends with this. While one is under way, the runtime takes an invocation that has failed for one that waits, and
/// its caller gets no answer.
struct Pause(AbortController);

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.abort();
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
