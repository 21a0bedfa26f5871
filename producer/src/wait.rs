use ledger::{DeletionRecord, FailureFilter, LedgerError, ProducerLedger};
use protocol::{DeletionId, RequestId, State};
use scan::KeySet;
use serde_json::value::RawValue;

use crate::accept::{Enqueued, enqueue};
use crate::assets::Assets;
use crate::body::Takes;
use crate::host::Host;
use crate::http::{Body, Request, Response, ResponseBody};
use crate::intake::read_key;
use crate::problem::Problem;
use crate::queue::Queue;
use crate::rate_limit::RateLimiter;
use crate::router::Ports;
use crate::scope::Scope;
use crate::view::{DeletionView, failure_message};
use crate::wire::WireRequest;

/// How long a caller waits for the end of its deletion, in milliseconds: many clients, and proxies on the way, give up after
/// 30 seconds.
const WAIT_MS_MAX: u64 = 25_000;

/// The ledger is asked at growing intervals: most deletions end within a second.
const PAUSE_MS_MIN: u64 = 100;
const PAUSE_MS_MAX: u64 = 2_000;

/// `POST /`, which the first clients call: it answers with what became of each key.
///
/// 1. *await* Accept the deletion, as `POST /v1/deletions` does: all that it refuses. From here on the answer is 200 or 202.
/// 2. *await* Wait until the deletion is final. Where it is not after [`WAIT_MS_MAX`], or its undo window is longer, so that
///    nobody need wait for that, or the ledger does not say: 202 with the deletion, which goes on.
/// 3. *await* Read which keys have failed, and say of each key that was asked for, in that order, what became of it: 200.
pub(crate) async fn delete_and_wait(
    request: Request<impl Body>,
    query: &str,
    scope: Scope<'_>,
    request_id: &RequestId,
    ports: &Ports<'_, impl ProducerLedger, impl Queue, impl RateLimiter, impl Assets, impl Host>,
) -> Result<Response, Problem> {
    let &Ports { ledger, host, memory, .. } = ports;
    // (1) Accept.
    let Enqueued { id, response: accepted, body, mut reservation } =
        enqueue(request, query, Takes::Json, scope, request_id, ports).await?;
    reservation.shrink(body.len());

    // (2) Wait.
    let record = match wait_for_end(&id, ledger, host).await {
        Ok(Some(record)) if record.state.is_final() => record,
        Ok(Some(record)) => return Ok(Response { body: view(&record), ..accepted }),
        Ok(None) | Err(_) => return Ok(accepted),
    };

    // (3) Answer, which is as large as the body, and is copied once on its way out.
    let room = memory.reserve(body.len() * 3, host).await;
    let undeleted = Undeleted::of(&record, host.random(), ledger).await;
    let (Ok(_room), Ok(Some(undeleted))) = (room, undeleted) else {
        return Ok(Response { body: view(&record), ..accepted });
    };
    let headers =
        accepted.headers.into_iter().filter(|(name, _)| !["Location", "Retry-After"].contains(name));
    Ok(Response {
        status: 200,
        headers: headers.collect(),
        body: ResponseBody::Text(results(&body, &undeleted)),
    })
}

/// *await* The deletion when it is final, or as it is when that takes too long or is known to.
async fn wait_for_end(
    id: &DeletionId,
    ledger: &impl ProducerLedger,
    host: &impl Host,
) -> Result<Option<DeletionRecord>, LedgerError> {
    let started_at = host.now();
    let mut pause_ms = PAUSE_MS_MIN;
    loop {
        let found = ledger.find_deletion(id, host.now()).await?;
        let deadline = started_at.plus_millis(WAIT_MS_MAX);
        let is_settled = |record: &DeletionRecord| record.state.is_final() || record.not_before > deadline;
        if found.as_ref().is_none_or(is_settled) || host.now().plus_millis(pause_ms) > deadline {
            return Ok(found);
        }
        host.sleep(pause_ms).await;
        pause_ms = PAUSE_MS_MAX.min(pause_ms * 2);
    }
}

/// Which keys of a deletion that is over were not deleted, and why.
struct Undeleted {
    /// For each reason the keys that have it.
    by_reason: Vec<(&'static str, KeySet)>,
    /// The reason of all other keys, if they were not deleted either.
    others: Option<&'static str>,
}

/// How many keys are read at once.
const KEYS_AT_ONCE: usize = 2_500;

const SKIPPED: &str = "The object was uploaded after the deletion was requested. It was left alone.";

const CANCELLED: &str = "The deletion was cancelled. The object may have been deleted before that.";

impl Undeleted {
    /// *await* Reads them; `None` when they are not all there, so that nothing can be said of any key.
    async fn of(
        record: &DeletionRecord,
        secret: u128,
        ledger: &impl ProducerLedger,
    ) -> Result<Option<Self>, LedgerError> {
        let mut undeleted = Self { by_reason: Vec::new(), others: None };
        let (mut left, mut after) = (record.counts.failed, None);
        while left > 0 {
            let found =
                ledger.list_failures(&record.id, FailureFilter::default(), after, KEYS_AT_ONCE).await?;
            let Some(last) = found.last() else { return Ok(None) };
            after = Some(last.cursor);
            left = left.saturating_sub(found.len() as u64);
            for failure in &found {
                if undeleted.add(&failure.key_json, failure_message(failure.code), secret).is_none() {
                    return Ok(None);
                }
            }
        }
        (left, after) = (record.counts.skipped, None);
        while left > 0 {
            let found = ledger.list_skips(&record.id, after, KEYS_AT_ONCE).await?;
            let Some(last) = found.last() else { return Ok(None) };
            after = Some(last.cursor);
            left = left.saturating_sub(found.len() as u64);
            for skip in &found {
                if undeleted.add(&skip.key_json, SKIPPED, secret).is_none() {
                    return Ok(None);
                }
            }
        }
        undeleted.others = (record.state == State::Cancelled).then_some(CANCELLED);
        Ok(Some(undeleted))
    }

    /// Adds a key, which is JSON; `None` when it is no key.
    fn add(&mut self, key_json: &str, reason: &'static str, secret: u128) -> Option<()> {
        let key = read_key(key_json).ok()?;
        if self.by_reason.iter().all(|(found, _)| *found != reason) {
            self.by_reason.push((reason, KeySet::new(secret)));
        }
        for (_, keys) in self.by_reason.iter_mut().filter(|(found, _)| *found == reason) {
            keys.insert(key.as_str());
        }
        Some(())
    }

    /// Why the key, which is JSON, was not deleted; `None` when it was.
    fn reason(&self, json: &str) -> Option<&'static str> {
        let found = || {
            let key = read_key(json).ok()?;
            self.by_reason.iter().find(|(_, keys)| keys.contains(key.as_str())).map(|(reason, _)| *reason)
        };
        if self.by_reason.is_empty() { self.others } else { found().or(self.others) }
    }
}

/// What became of each key of a body, which has been accepted, in its order: a key that is there twice twice.
fn results(body: &[u8], undeleted: &Undeleted) -> String {
    let request = str::from_utf8(body).ok().and_then(|text| WireRequest::from_json(text).ok());
    let keys = request.and_then(|request| request.object_keys).map(|keys| keys.first).unwrap_or_default();
    let mut json = String::with_capacity(body.len() + keys.len() * 25);
    json.push_str("{\"results\":[");
    for (at, key) in keys.into_iter().map(RawValue::get).enumerate() {
        json.push_str(if at == 0 { "{\"key\":" } else { ",{\"key\":" });
        json.push_str(key);
        match undeleted.reason(key) {
            None => json.push_str(",\"success\":true}"),
            Some(reason) => {
                json.push_str(",\"success\":false,\"error\":\"");
                // OK because no reason has a character in it that JSON escapes.
                json.push_str(reason);
                json.push_str("\"}");
            }
        }
    }
    json.push_str("]}");
    json
}

fn view(record: &DeletionRecord) -> ResponseBody {
    Response::json(202, &DeletionView::from(record)).body
}
