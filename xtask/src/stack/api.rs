//! A client of the producer's API, as a backend would write it.

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::{Agent, http::Request};

use super::http::{Answer, agent};

/// Speaks to the producer with a token.
#[derive(Debug, Clone)]
pub struct Api {
    agent: Agent,
    url: String,
    token: String,
}

/// What the API says of a deletion.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Deletion {
    /// Its id.
    pub id: String,
    /// `accepting`, `queued`, `running`, `cancelling`, or final: `succeeded`, `failed`, `cancelled`, `planned`.
    pub state: String,
    /// Where its keys are.
    pub counts: Counts,
    /// How many keys the request named more than once.
    pub duplicates_removed: u64,
    /// How many messages it was sent in.
    pub messages: u64,
    /// When it was requested, as RFC 3339.
    pub requested_at: String,
    /// When the first of its keys was worked on.
    pub started_at: Option<String>,
    /// When the last of its keys was settled.
    pub finished_at: Option<String>,
    /// How the keys begin that it deletes besides those that were named.
    pub prefixes: Option<Vec<String>>,
    /// How many keys were found that begin so.
    pub found_by_prefix: u64,
    /// What a dry run has counted.
    pub plan: Option<Plan>,
    /// What was left at the end, where that was asked for.
    pub verification: Option<Verification>,
}

impl Deletion {
    /// Whether its state can still change.
    pub fn is_final(&self) -> bool {
        ["succeeded", "failed", "cancelled", "planned"].contains(&self.state.as_str())
    }
}

/// What a dry run has counted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Plan {
    /// Keys that were named.
    pub keys: u64,
    /// Objects under the prefixes that are older than the request.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects under the prefixes that were uploaded since.
    pub uploaded_since: u64,
}

/// What was left under the prefixes when everything was decided.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Verification {
    /// Objects that are older than the request.
    pub objects_left: u64,
    /// Objects that were uploaded since.
    pub uploaded_since: u64,
}

/// How many keys of a deletion are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Counts {
    /// All of them.
    pub total: u64,
    /// Not settled yet.
    pub pending: u64,
    /// Confirmed absent.
    pub deleted: u64,
    /// Left alone, since they were uploaded after the request.
    pub skipped: u64,
    /// Undeleted, with a reason.
    pub failed: u64,
    /// Left alone, since the deletion was cancelled.
    pub cancelled: u64,
}

/// A key that ended undeleted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Failure {
    /// The key.
    pub key: String,
    /// Why, for a program.
    pub code: String,
    /// Why, for a person.
    pub message: String,
    /// How often it was tried.
    pub attempts: u64,
    /// When it was given up, as RFC 3339.
    pub failed_at: String,
}

/// A page of failures.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FailurePage {
    /// The failures.
    pub failures: Vec<Failure>,
    /// Asks for the next page, when there is one.
    pub next_page_token: Option<String>,
}

/// A key that was left alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Skip {
    /// The key.
    pub key: String,
    /// When its object was uploaded, as RFC 3339.
    pub uploaded_at: String,
}

/// A page of keys that were left alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SkippedPage {
    /// The keys.
    pub skipped: Vec<Skip>,
    /// Asks for the next page, when there is one.
    pub next_page_token: Option<String>,
}

/// A message that the consumer could not read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct UnreadableMessage {
    /// The queue's id of it.
    pub message_id: String,
    /// The queue it was on.
    pub queue: String,
    /// What was wrong with it.
    pub reason: String,
    /// What it said.
    pub body: String,
    /// How often it was delivered.
    pub attempts: u64,
    /// When it was recorded, as RFC 3339.
    pub received_at: String,
}

/// A page of messages that the consumer could not read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct UnreadablePage {
    /// The messages.
    pub unreadable_messages: Vec<UnreadableMessage>,
    /// Asks for the next page, when there is one.
    pub next_page_token: Option<String>,
}

impl Api {
    /// A client of the producer at `url`, with `token`.
    pub fn new(url: &str, token: &str) -> Self {
        Self { agent: agent(), url: url.to_owned(), token: token.to_owned() }
    }

    /// The same with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// Asks for `keys` to be deleted.
    ///
    /// # Errors
    /// When the answer is another than 202.
    pub fn delete(&self, keys: &[String]) -> Result<Deletion> {
        self.request(&json!({ "objectKeys": keys }))
    }

    /// Asks for a deletion in any other way.
    ///
    /// # Errors
    /// When the answer is another than 202.
    pub fn request(&self, body: &Value) -> Result<Deletion> {
        let json = &[("content-type", "application/json")];
        self.send("POST", "/v1/deletions", json, &body.to_string())?.expect(202)
    }

    /// What has become of a deletion.
    ///
    /// # Errors
    /// When the answer is another than 200.
    pub fn deletion(&self, id: &str) -> Result<Deletion> {
        self.get(&format!("/v1/deletions/{id}"))?.expect(200)
    }

    /// The keys of a deletion that ended undeleted: the first page.
    ///
    /// # Errors
    /// When the answer is another than 200.
    pub fn failures(&self, id: &str) -> Result<FailurePage> {
        self.get(&format!("/v1/deletions/{id}/failures"))?.expect(200)
    }

    /// The keys of a deletion that were left alone: the first page.
    ///
    /// # Errors
    /// When the answer is another than 200.
    pub fn skipped(&self, id: &str) -> Result<SkippedPage> {
        self.get(&format!("/v1/deletions/{id}/skipped"))?.expect(200)
    }

    /// The messages that the consumer could not read: the first page.
    ///
    /// # Errors
    /// When the answer is another than 200.
    pub fn unreadable_messages(&self) -> Result<UnreadablePage> {
        self.get("/v1/unreadable-messages")?.expect(200)
    }

    /// Whether the producer answers.
    pub fn is_healthy(&self) -> bool {
        self.get("/healthz").is_ok_and(|answer| answer.status == 200)
    }

    /// Gets `path` with the token.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.send("GET", path, &[], "")
    }

    /// Sends any request with the token and exactly these further headers.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
        let authorization = format!("Bearer {}", self.token);
        let headers = [&[("authorization", authorization.as_str())], headers].concat();
        self.send_bare(method, path, &headers, body)
    }

    /// Sends any request with exactly these headers.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn send_bare(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = if body.is_empty() {
            self.agent.run(request.body(())?)
        } else {
            self.agent.run(request.body(body.to_owned())?)
        };
        Answer::read(response?)
    }
}
