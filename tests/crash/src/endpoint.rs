//! The endpoint that completion notices go to: it verifies and keeps what it gets, and fails on demand.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use standardwebhooks::Webhook;

use crate::faults::{Fault, Faults, How, Met};
use crate::http::{Answer, Request, Server};

/// A receiver of Standard Webhooks on the loopback interface. Clones share it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    server: Server,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    faults: Faults<u16>,
    received: Mutex<Vec<std::result::Result<Notice, String>>>,
    signatures: Mutex<Vec<String>>,
}

/// A notice as the endpoint got it, its signatures verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// The header `webhook-id`.
    pub id: String,
    /// The body.
    pub body: Value,
}

/// The secrets that notices must be signed with, each of them: the old one and the new one of a rotation.
pub const NOTICE_SECRETS: [&str; 2] =
    ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"];

/// A part of the endpoint's URL that is nobody else's business.
pub const NOTICE_URL_CANARY: &str = "canary-in-the-url";

impl Endpoint {
    /// Starts one.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let served = Arc::clone(&shared);
        Ok(Self { server: Server::start(move |request| served.answer(&request))?, shared })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}/{NOTICE_URL_CANARY}?token={NOTICE_URL_CANARY}", self.server.address)
    }

    /// What is nobody's business but the endpoint's, with what it is.
    pub(crate) fn secrets(&self) -> Vec<(&'static str, String)> {
        let signatures = self.shared.signatures.lock().unwrap_or_else(PoisonError::into_inner);
        let signatures = signatures.iter().filter(|signature| !signature.is_empty()).cloned();
        let secrets = NOTICE_SECRETS.map(|secret| secret.trim_start_matches("whsec_").to_owned());
        let mut found = vec![("the endpoint's URL", NOTICE_URL_CANARY.to_owned())];
        found.extend(secrets.map(|secret| ("a signing secret", secret)));
        found.extend(signatures.map(|signature| ("a signature", signature)));
        found
    }

    /// Spares the first `spare` notices, then the next `times` suffer `fault`, whose error is a status.
    pub fn fail(&self, spare: usize, times: usize, fault: Fault<u16>) {
        self.shared.faults.plan(&[], spare, times, fault);
    }

    pub(crate) fn met(&self) -> Met {
        self.shared.faults.met()
    }

    /// Every notice that it has got, also those that it did not take.
    ///
    /// # Errors
    /// When one of them is none, or is not signed with each secret.
    pub fn received(&self) -> Result<Vec<Notice>> {
        let received = self.shared.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.iter().map(|notice| notice.clone().map_err(anyhow::Error::msg)).collect()
    }
}

impl Shared {
    fn answer(&self, request: &Request) -> Answer {
        let signatures =
            request.header("webhook-signature").unwrap_or_default().split(' ').map(str::to_owned);
        self.signatures.lock().unwrap_or_else(PoisonError::into_inner).extend(signatures);
        let notice = verify(request).map_err(|error| format!("{error:#}: {request:?}"));
        self.received.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
        match self.faults.strike("").map(|fault| fault.how) {
            None => status(204, Vec::new()),
            Some(How::Refused(301)) => status(301, vec![("location", "/elsewhere".to_owned())]),
            Some(How::Refused(code)) => status(code, Vec::new()),
            Some(How::Dropped) => Answer::Dropped,
            Some(How::Stalled(gate)) => {
                gate.pass();
                status(204, Vec::new())
            }
        }
    }
}

fn status(status: u16, headers: Vec<(&'static str, String)>) -> Answer {
    Answer::Response { status, headers, body: Vec::new() }
}

fn verify(request: &Request) -> Result<Notice> {
    let header = |name| request.header(name).with_context(|| format!("no {name}"));
    ensure!(request.method == "POST" && header("content-type")? == "application/json", "not a POST of JSON");
    for secret in NOTICE_SECRETS {
        let webhook = Webhook::new(secret).context("the secret")?;
        webhook.verify(&request.body, &request.headers).context("not signed with a secret")?;
    }
    Ok(Notice { id: header("webhook-id")?.to_owned(), body: serde_json::from_slice(&request.body)? })
}
