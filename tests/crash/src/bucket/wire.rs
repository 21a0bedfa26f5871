//! R2's protocol behind the binding.
//!
//! Read from `workerd`'s `src/workerd/api/r2-rpc.c++`, `r2-bucket.c++` and `r2-api.capnp`. Reading calls are a GET
//! whose header `cf-r2-request` is the request in JSON. Writing calls are a PUT whose body begins with the request in
//! JSON, of as many bytes as `cf-r2-metadata-size` says. An error is a status of 400 or more with the error in JSON
//! in the header `cf-r2-error`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::objects::{Object, Objects};
use super::{BucketCall, R2Error, Shared};
use crate::faults::{How, When};
use crate::http::{Answer, Request};

/// Every request in one: which fields are there depends on the method.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    method: String,
    object: Option<String>,
    objects: Option<Vec<String>>,
    #[serde(default)]
    prefix: String,
    limit: Option<usize>,
    cursor: Option<String>,
    start_after: Option<String>,
    #[serde(default)]
    delimiter: String,
}

/// What becomes of a call: the answer's JSON, an error, or no answer.
type Outcome = Result<Value, Option<R2Error>>;

impl Shared {
    pub(super) fn answer(&self, request: &Request) -> Answer {
        let Some(call) = parse(request) else { return error(R2Error::NOT_IMPLEMENTED, "") };
        let keys: Vec<_> = call.objects.iter().flatten().chain(&call.object).cloned().collect();
        let at = self.clock.now();
        let outcome = if call.method == "delete" { self.delete(&keys) } else { self.read(&call) };
        let named = keys.first().or(Some(&call.prefix)).cloned().unwrap_or_default();
        self.record(BucketCall {
            method: call.method,
            keys,
            at,
            error: outcome.as_ref().err().and_then(|error| error.map(|error| error.code)),
            answered: !matches!(outcome, Err(None)),
        });
        match outcome {
            Ok(answer) => success(&answer),
            Err(Some(failure)) => error(failure, &named),
            Err(None) => Answer::Dropped,
        }
    }

    fn delete(&self, keys: &[String]) -> Outcome {
        let fault = self.faults.strike("delete");
        let (when, how) = fault.map_or((When::Before, None), |fault| (fault.when, Some(fault.how)));
        if when == When::Before {
            suffer(how.as_ref())?;
        }
        let admitted = self.objects().admit(keys, self.clock.now());
        let half = if when == When::Halfway { admitted.removed.len() / 2 } else { admitted.removed.len() };
        let (first, rest) = admitted.removed.split_at(half);
        self.objects().remove(first);
        if when != When::Before && admitted.error.is_none() {
            suffer(how.as_ref())?;
        }
        self.objects().remove(rest);
        admitted.error.map_or(Ok(Value::Null), |error| Err(Some(error)))
    }

    fn read(&self, call: &Call) -> Outcome {
        // Nothing changes, so it does not matter when the fault strikes.
        suffer(self.faults.strike(&call.method).map(|fault| fault.how).as_ref())?;
        let objects = self.objects();
        match (call.method.as_str(), &call.object) {
            ("head", Some(key)) => {
                let object = objects.stored.get(key).ok_or(Some(R2Error::NO_SUCH_KEY))?;
                Ok(describe(key, object))
            }
            ("list", _) => Ok(list(&objects, call)),
            _ => Err(Some(R2Error::NOT_IMPLEMENTED)),
        }
    }
}

/// Ends the call by the fault, or lets it go on after a stall.
fn suffer(how: Option<&How<R2Error>>) -> Result<(), Option<R2Error>> {
    match how {
        None => Ok(()),
        Some(How::Refused(error)) => Err(Some(*error)),
        Some(How::Dropped) => Err(None),
        Some(How::Stalled(gate)) => {
            gate.pass();
            Ok(())
        }
    }
}

fn parse(request: &Request) -> Option<Call> {
    if request.method == "GET" {
        return serde_json::from_str(request.header("cf-r2-request")?).ok();
    }
    let size = request.header("cf-r2-metadata-size")?.parse().ok()?;
    serde_json::from_slice(request.body.get(..size)?).ok()
}

fn success(answer: &Value) -> Answer {
    let body = if answer.is_null() { String::new() } else { answer.to_string() };
    Answer::Response {
        status: 200,
        headers: vec![("cf-r2-metadata-size", body.len().to_string())],
        body: body.into_bytes(),
    }
}

/// The message names the key, as R2's own could: it must not get into the log.
fn error(error: R2Error, named: &str) -> Answer {
    let status = match error.code {
        10_007 | 10_006 => 404,
        10_003 | 10_042 | 10_069 => 403,
        10_020 | 10_027 | 10_054 => 400,
        10_043 => 503,
        10_058 => 429,
        _ => 500,
    };
    let named: String = named.chars().filter(char::is_ascii_graphic).collect();
    let header =
        json!({"version": 1, "v4code": error.code, "message": format!("made for {named}")}).to_string();
    let headers = if error.bare { Vec::new() } else { vec![("cf-r2-error", header)] };
    Answer::Response { status, headers, body: Vec::new() }
}

/// `R2HeadResponse` of `r2-api.capnp`.
fn describe(key: &str, object: &Object) -> Value {
    let version = format!("{:032x}", object.version);
    json!({
        "name": key, "version": version, "etag": version, "size": 7, "uploaded": object.uploaded_ms,
        "httpFields": {}, "customFields": [], "checksums": {}, "storageClass": "Standard",
    })
}

/// `R2ListResponse`: keys in order, at most `limit` objects and common prefixes together.
fn list(objects: &Objects, call: &Call) -> Value {
    let limit = call.limit.unwrap_or(LIST_MAX).min(LIST_MAX);
    let cursor = call.cursor.as_ref().and_then(|cursor| STANDARD.decode(cursor).ok());
    let cursor = cursor.and_then(|cursor| String::from_utf8(cursor).ok());
    let after = cursor.max(call.start_after.clone()).unwrap_or_default();
    let (mut listed, mut prefixes) = (Vec::new(), Vec::<&str>::new());
    let mut last = None;
    for (key, object) in objects.stored.range(after.clone()..) {
        let Some(rest) = key.strip_prefix(&call.prefix).filter(|_| *key != after) else { continue };
        let common = rest
            .split_once(&call.delimiter)
            .filter(|_| !call.delimiter.is_empty())
            .and_then(|(name, _)| key.get(..call.prefix.len() + name.len() + call.delimiter.len()));
        if common.is_some() && prefixes.last().copied() == common {
            last = Some(key);
            continue;
        }
        if listed.len() + prefixes.len() == limit {
            let cursor = STANDARD.encode(last.map_or("", String::as_str));
            return json!({
                "objects": listed, "delimitedPrefixes": prefixes, "truncated": true, "cursor": cursor,
            });
        }
        match common {
            Some(common) => prefixes.push(common),
            None => listed.push(describe(key, object)),
        }
        last = Some(key);
    }
    json!({ "objects": listed, "delimitedPrefixes": prefixes, "truncated": false })
}

/// Entries in one answer to `list`, by R2's documented limits.
const LIST_MAX: usize = 1_000;
