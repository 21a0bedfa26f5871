//! What a caller of the producer sees.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::pair::{Pair, TOKEN};

/// An answer of the producer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers, by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The body; `null` when it is not JSON.
    pub body: Value,
}

/// The counts of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct Counts {
    /// Keys accepted.
    pub total: u64,
    /// Keys that nothing is decided about.
    pub pending: u64,
    /// Keys confirmed absent.
    pub deleted: u64,
    /// Keys kept because their object is newer than the request.
    pub skipped: u64,
    /// Keys that ended undeleted.
    pub failed: u64,
    /// Keys that were cancelled.
    pub cancelled: u64,
}

impl Counts {
    /// The counts of a deletion all of whose keys are gone.
    pub fn all_deleted(total: u64) -> Self {
        Self { total, deleted: total, ..Self::default() }
    }

    fn add_up(self) -> bool {
        self.total == self.pending + self.deleted + self.skipped + self.failed + self.cancelled
    }
}

/// How long the producer may take to answer.
const PATIENCE: Duration = Duration::from_mins(1);

impl Pair {
    /// Calls the producer with the right token.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Reply> {
        self.call_with_key(method, path, None, body)
    }

    /// The same with an `Idempotency-Key`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn call_with_key(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Reply> {
        let url = format!("http://{}{path}", self.workerd.address("producer")?);
        let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
        let agent = ureq::Agent::from(agent.build());
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(&url)
            .header("authorization", format!("Bearer {TOKEN}"));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let sent = match body {
            Some(body) => {
                agent.run(request.header("content-type", "application/json").body(body.to_string())?)
            }
            None => agent.run(request.body(())?),
        };
        let mut response = sent.with_context(|| format!("{method} {path}; workerd said:\n{}", self.log()))?;
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let status = response.status().as_u16();
        let body = response.body_mut().read_to_string()?;
        Ok(Reply { status, headers, body: serde_json::from_str(&body).unwrap_or_default() })
    }

    /// Asks for the deletion of the keys, whatever the answer.
    ///
    /// # Errors
    /// When the producer does not answer.
    pub fn post_deletion<K: AsRef<str>>(&self, keys: &[K]) -> Result<Reply> {
        self.post_fenced_deletion(keys, "auto")
    }

    /// The same with a fence: `auto`, `always` or `off`.
    ///
    /// # Errors
    /// When the producer does not answer.
    pub fn post_fenced_deletion<K: AsRef<str>>(&self, keys: &[K], fence: &str) -> Result<Reply> {
        let keys: Vec<_> = keys.iter().map(AsRef::as_ref).collect();
        self.call("POST", "/v1/deletions", Some(&json!({ "objectKeys": keys, "fence": fence })))
    }

    /// Asks for the deletion of the keys and gives its id.
    ///
    /// # Errors
    /// When it is not accepted.
    pub fn accept<K: AsRef<str>>(&self, keys: &[K]) -> Result<String> {
        self.accept_fenced(keys, "auto")
    }

    /// The same with a fence.
    ///
    /// # Errors
    /// When it is not accepted.
    pub fn accept_fenced<K: AsRef<str>>(&self, keys: &[K], fence: &str) -> Result<String> {
        let reply = self.post_fenced_deletion(keys, fence)?;
        ensure!(reply.status == 202, "not accepted: {reply:?}\nworkerd said:\n{}", self.log());
        Ok(reply
            .body
            .get("id")
            .and_then(Value::as_str)
            .context("an accepted deletion without an id")?
            .to_owned())
    }

    /// The deletion as the producer tells it.
    ///
    /// # Errors
    /// When it tells nothing, or the counts do not add up.
    pub fn status(&self, id: &str) -> Result<Value> {
        let status = self.read(&format!("/v1/deletions/{id}"))?;
        let counts: Counts = serde_json::from_value(status.get("counts").cloned().unwrap_or_default())
            .with_context(|| format!("no counts in {status}"))?;
        ensure!(counts.add_up(), "the counts do not add up: {status}");
        Ok(status)
    }

    /// The state and the counts of a deletion.
    ///
    /// # Errors
    /// As [`Pair::status`].
    pub fn progress(&self, id: &str) -> Result<(String, Counts)> {
        let mut status = self.status(id)?;
        let state = status.get("state").and_then(Value::as_str).unwrap_or_default().to_owned();
        let counts = status.get_mut("counts").map(Value::take).unwrap_or_default();
        Ok((state, serde_json::from_value(counts)?))
    }

    /// The ids of all deletions that the ledger knows, also of those that were not accepted.
    ///
    /// # Errors
    /// When the ledger's schema has changed.
    pub fn deletions(&self) -> Result<Vec<String>> {
        self.database.query("SELECT id FROM deletions ORDER BY id", [], |row| row.get(0))
    }

    /// The keys that ended undeleted.
    ///
    /// # Errors
    /// When the producer does not tell them.
    pub fn failures(&self, id: &str) -> Result<Vec<Value>> {
        self.read_all(&format!("/v1/deletions/{id}/failures"), "failures")
    }

    /// The keys that were left alone.
    ///
    /// # Errors
    /// When the producer does not tell them.
    pub fn skipped(&self, id: &str) -> Result<Vec<Value>> {
        self.read_all(&format!("/v1/deletions/{id}/skipped"), "skipped")
    }

    /// The messages that could not be read.
    ///
    /// # Errors
    /// When the producer does not tell them.
    pub fn unreadable_messages(&self) -> Result<Vec<Value>> {
        self.read_all("/v1/unreadable-messages", "unreadable_messages")
    }

    /// Every page of a list.
    fn read_all(&self, path: &str, field: &str) -> Result<Vec<Value>> {
        let (mut all, mut token) = (Vec::new(), None::<String>);
        loop {
            let query = token.map_or(String::new(), |token| format!("?page_token={token}"));
            let page = self.read(&format!("{path}{query}"))?;
            let entries = page.get(field).and_then(Value::as_array);
            all.extend(entries.with_context(|| format!("{path} has no {field}: {page}"))?.clone());
            token = page.get("next_page_token").and_then(Value::as_str).map(str::to_owned);
            if token.is_none() {
                return Ok(all);
            }
        }
    }

    fn read(&self, path: &str) -> Result<Value> {
        let reply = self.call("GET", path, None)?;
        ensure!(reply.status == 200, "GET {path}: {reply:?}\nworkerd said:\n{}", self.log());
        Ok(reply.body)
    }
}
