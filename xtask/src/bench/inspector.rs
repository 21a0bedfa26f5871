//! A client of V8's inspector, as far as looking at a Worker's memory needs.

use std::{net::TcpStream, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, stream::MaybeTlsStream};

use crate::clock::{self, wait_for};

/// How long it may take to get an inspector that answers.
const CONNECT_MAX: Duration = Duration::from_secs(30);
const ENABLE_MAX: Duration = Duration::from_secs(2);

/// How long an isolate may be busy before it answers.
const ANSWER_MAX: Duration = Duration::from_mins(1);

/// A connection to one isolate.
#[derive(Debug)]
pub(super) struct Inspector {
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    last_id: u64,
    /// The isolate's one context, in which code can be run.
    context: Option<Value>,
}

impl Inspector {
    /// Connects to an isolate, which must have been at work once.
    ///
    /// # Errors
    /// When nobody answers.
    pub(super) fn connect(url: &str) -> Result<Self> {
        // An isolate has one inspector. Where that is wrangler's, the first to come after it ends it, and gets no answer.
        drop(tungstenite::connect(url));
        clock::pause();
        let connected = wait_for(CONNECT_MAX, || Ok(Self::try_connect(url).ok()))?;
        connected.with_context(|| format!("no inspector answers at {url}"))
    }

    fn try_connect(url: &str) -> Result<Self> {
        let (socket, _) = tungstenite::connect(url)?;
        let mut inspector = Self { socket, last_id: 0, context: None };
        inspector.set_patience(ENABLE_MAX)?;
        inspector.call("Runtime.enable", &json!({}))?;
        inspector.set_patience(ANSWER_MAX)?;
        Ok(inspector)
    }

    fn set_patience(&mut self, patience: Duration) -> Result<()> {
        if let MaybeTlsStream::Plain(stream) = self.socket.get_mut() {
            stream.set_read_timeout(Some(patience))?;
        }
        Ok(())
    }

    /// The bytes that JavaScript holds, what nobody needs any more and is not collected yet included.
    ///
    /// # Errors
    /// When the runtime does not say.
    pub(super) fn js_bytes(&mut self) -> Result<u64> {
        let usage = self.call("Runtime.getHeapUsage", &json!({}))?;
        let parts = ["usedSize", "embedderHeapUsedSize", "backingStorageSize"];
        // OK because no isolate has 2^53 bytes.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers of bytes")]
        let bytes = |part: &&str| usage.get(part).and_then(Value::as_f64).map(|bytes| bytes as u64);
        parts.iter().map(bytes).sum::<Option<u64>>().context("the heap's usage has not its parts")
    }

    /// The bytes of all wasm memories, which never become fewer. V8 collects its garbage for it, to find them; being asked for a
    /// collection by itself it would wait for the isolate's next request.
    ///
    /// # Errors
    /// When the runtime does not say.
    pub(super) fn wasm_bytes(&mut self) -> Result<u64> {
        let context = self.context.clone();
        let expression = json!({"expression": "WebAssembly.Memory.prototype", "contextId": context});
        let prototype = self.call("Runtime.evaluate", &expression)?;
        let prototype = json!({"prototypeObjectId": prototype.pointer("/result/objectId")});
        let memories = self.call("Runtime.queryObjects", &prototype)?;
        let sum = json!({
            "objectId": memories.pointer("/objects/objectId"),
            "functionDeclaration":
                "function () { return this.reduce((sum, memory) => sum + memory.buffer.byteLength, 0); }",
            "returnByValue": true,
        });
        let sum = self.call("Runtime.callFunctionOn", &sum)?;
        sum.pointer("/result/value").and_then(Value::as_u64).context("the memories have no size")
    }

    fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.last_id += 1;
        let call = json!({"id": self.last_id, "method": method, "params": params});
        self.socket
            .send(Message::text(call.to_string()))
            .with_context(|| format!("{method} cannot be asked"))?;
        loop {
            let message = self.socket.read().with_context(|| format!("{method} has no answer"))?;
            let Message::Text(text) = message else { continue };
            let mut message: Value = serde_json::from_str(&text)?;
            if let Some(context) = message.pointer("/params/context/id") {
                self.context = Some(context.clone());
            }
            if message.get("id") != Some(&json!(self.last_id)) {
                continue;
            }
            match message.get_mut("result") {
                Some(result) => return Ok(result.take()),
                None => bail!("{method}: {message}"),
            }
        }
    }
}
