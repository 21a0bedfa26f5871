//! A client of the gateway: what a test or the demo does behind the API's back. `xtask/stack/gateway.js` is its other end.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ureq::Agent;

use super::http::{Answer, agent, query_value};

/// Reaches the bucket, the queues and the ledger of a stack.
#[derive(Debug, Clone)]
pub struct Gateway {
    agent: Agent,
    url: String,
}

/// An object in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Object {
    /// Its name.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was uploaded, as RFC 3339.
    pub uploaded: String,
}

/// A message to put on a queue as it is, so that it can be one that no producer of ours would send.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// `"deletions"` or `"deadLetters"`.
    pub queue: &'static str,
    /// What it says: text for `"text"`, anything for `"json"` and `"v8"`.
    pub body: Value,
    /// `"text"`, `"json"` or `"v8"`.
    pub content_type: &'static str,
    /// How long the queue holds it back.
    pub delay_seconds: u32,
}

impl Message {
    /// A text for the deletions' queue, at once: as the producer's messages are.
    pub fn text(body: impl Into<String>) -> Self {
        Self { queue: "deletions", body: Value::String(body.into()), content_type: "text", delay_seconds: 0 }
    }
}

#[derive(Deserialize)]
struct Listing {
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Deleted {
    deleted: usize,
}

#[derive(Deserialize)]
struct Rows {
    rows: Vec<Value>,
}

impl Gateway {
    /// A client of the stack at `url`.
    pub fn new(url: &str) -> Self {
        Self { agent: agent(), url: format!("{url}/__dev") }
    }

    /// Puts an object of `size` bytes under every key.
    ///
    /// # Errors
    /// When the stack does not do it.
    pub fn put(&self, keys: &[String], size: usize) -> Result<()> {
        let _: Value = self.post("objects", &json!({ "keys": keys, "size": size }))?;
        Ok(())
    }

    /// Every object whose key begins with `prefix`, in the order of their keys.
    ///
    /// # Errors
    /// When the stack does not do it.
    pub fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let url = format!("{}/objects?prefix={}", self.url, query_value(prefix));
        let listing: Listing = Answer::read(self.agent.get(url).call()?)?.expect(200)?;
        Ok(listing.objects)
    }

    /// Deletes every object whose key begins with `prefix`, and returns how many there were.
    ///
    /// # Errors
    /// When the stack does not do it.
    pub fn delete(&self, prefix: &str) -> Result<usize> {
        let url = format!("{}/objects?prefix={}", self.url, query_value(prefix));
        let deleted: Deleted = Answer::read(self.agent.delete(url).call()?)?.expect(200)?;
        Ok(deleted.deleted)
    }

    /// Puts a message on a queue.
    ///
    /// # Errors
    /// When the stack does not do it.
    pub fn send(&self, message: &Message) -> Result<()> {
        let _: Value = self.post("messages", message)?;
        Ok(())
    }

    /// Runs one statement on the ledger and returns its rows.
    ///
    /// # Errors
    /// When the ledger refuses it.
    pub fn sql(&self, sql: &str, params: &[Value]) -> Result<Vec<Value>> {
        let rows: Rows = self.post("sql", &json!({ "sql": sql, "params": params }))?;
        Ok(rows.rows)
    }

    fn post<T: serde::de::DeserializeOwned>(&self, route: &str, body: &impl Serialize) -> Result<T> {
        let response = self.agent.post(format!("{}/{route}", self.url)).send_json(body)?;
        Answer::read(response)?.expect(200).with_context(|| format!("the gateway did not do {route}"))
    }
}
