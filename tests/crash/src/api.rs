//! What a caller of the producer sees.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::gate::Gate;
use crate::pair::Pair;

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

/// An answer as it came.
struct Answered {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
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
        let answered = self.request(method, path, key, body)?();
        self.read_reply(path, answered.with_context(|| format!("{method} {path}\n{}", self.log()))?)
    }

    /// Calls, and kills the runtime as soon as a call to a service waits at the gate; then opens it, so that the service
    /// finishes what the dead had asked for, and starts the runtime again. Says whether there was a kill, and gives the answer,
    /// where there is one: the request came to no gate, or was refused while one of its calls was there.
    ///
    /// # Errors
    /// When the request neither ends nor comes to the gate, or was accepted although a call of it was there.
    pub fn kill_call_at(
        &mut self,
        gate: &Gate,
        (method, path): (&str, &str),
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<(bool, Option<Reply>)> {
        let request = self.request(method, path, key, body)?;
        let (killed, answered) = self.kill_during(gate, request)?;
        if !killed {
            return Ok((false, Some(self.read_reply(path, answered?)?)));
        }
        self.workerd.restart()?;
        let reply = answered.ok().map(|answered| self.read_reply(path, answered)).transpose()?;
        ensure!(reply.as_ref().is_none_or(|reply| reply.status >= 400), "accepted by the dead: {reply:?}");
        Ok((true, reply))
    }

    /// What makes the request, anywhere. Keys, prefixes, labels and the Idempotency-Key get the pair's canary.
    fn request(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<impl FnOnce() -> Result<Answered> + Send + 'static> {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
        let agent = ureq::Agent::from(agent.build());
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.workerd.address("producer")?))
            .header("authorization", format!("Bearer {}", self.canary.token()));
        if let Some(key) = key {
            request = request.header("idempotency-key", self.canary.idempotency_key(key));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or(String::new(), |body| self.canary.dress(body).to_string());
        let request = request.body(body)?;
        Ok(move || {
            let mut response = agent.run(request)?;
            let headers = response
                .headers()
                .iter()
                .map(|(name, value)| {
                    (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                })
                .collect();
            let status = response.status().as_u16();
            Ok(Answered { status, headers, body: response.body_mut().read_to_string()? })
        })
    }

    /// The answer in the test's own names, if it tells nothing that it should not.
    fn read_reply(&self, path: &str, Answered { status, headers, body }: Answered) -> Result<Reply> {
        self.canary.check_told(path, &body)?;
        for (name, value) in &headers {
            self.canary.check_told(name, value)?;
        }
        let body = serde_json::from_str(&self.canary.undress(&body)).unwrap_or_default();
        Ok(Reply { status, headers, body })
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
        let mut reply = self.call("GET", path, None)?;
        // A request of it may be the one at which the wasm runs into a trap.
        for _ in 0..if self.has_traps() { 3 } else { 0 } {
            if reply.status != 500 {
                break;
            }
            reply = self.call("GET", path, None)?;
        }
        ensure!(reply.status == 200, "GET {path}: {reply:?}\nworkerd said:\n{}", self.log());
        Ok(reply.body)
    }
}
