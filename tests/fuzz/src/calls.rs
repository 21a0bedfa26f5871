//! What is asked of the calls that are not `POST /v1/deletions`, and of the headers of that.

use chrono::DateTime;
use producer::Request;
use protocol::FailureCode;
use protocol::limits::PARTS_MAX;
use serde_json::{Value, json};

use crate::bucket::LOCKED;
use crate::json::Json;
use crate::service::{DEAD_LETTERS, NOW, OPERATOR_TOKEN, Service, post, request};
use crate::targets::{
    assert_refused, is_allowed, is_key, panic_with, with_new_service, with_service, without_duplicates,
};

/// The id in an answer.
fn id_of(answer: &Value) -> String {
    answer.get("id").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Begins a deletion in parts.
fn begin(service: &Service) -> String {
    let answer = service.post("application/json", "", br#"{"in_parts":true}"#);
    assert_eq!(answer.status, 202);
    id_of(&answer.json())
}

fn put(service: &Service, id: &str, number: &str, content_type: &str, body: &[u8]) -> crate::service::Answer {
    let target = format!("/v1/deletions/{id}/parts/{number}");
    service.ask(Request { method: "PUT".to_owned(), ..post(&target, content_type, body) })
}

fn seal_with(service: &Service, id: &str, body: &[u8]) -> crate::service::Answer {
    service.ask(post(&format!("/v1/deletions/{id}/seal"), "application/json", body))
}

/// The number of a part, query and all, before the first line feed, and its body, JSON or NDJSON by how it begins: what is
/// put is what a slow reader finds, it can be put again and not differently, and the seal counts it.
pub(crate) fn part(input: &[u8]) {
    let at = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    let (number, body) = input.split_at(at);
    let body = body.strip_prefix(b"\n").unwrap_or(body);
    let Ok(number) = std::str::from_utf8(number) else { return };
    with_service(|service| {
        let is_json = body.trim_ascii_start().starts_with(b"{");
        let content_type = if is_json { "application/json" } else { "application/x-ndjson" };
        let keys = if is_json { keys_of_object(body) } else { keys_of_lines(body) };
        let right =
            keys.filter(|keys| !keys.is_empty() && keys.iter().all(|key| is_key(key) && is_allowed(key)));
        let id = begin(service);
        let answer = put(service, &id, number, content_type, body);
        let sent = service.keys_sent();
        let is_number =
            |text: &str| (1..=PARTS_MAX).any(|number| text.len() <= 4 && number.to_string() == text);
        if answer.status != 202 {
            assert_refused(&answer, "a part");
            assert!(sent.is_empty(), "refused, and sent");
            assert!(!(is_number(number) && right.is_some()), "refused, and right: {}", answer.text);
            assert_eq!(seal_with(service, &id, br#"{"parts":1,"total_keys":1}"#).status, 409);
            return;
        }
        let Some(keys) = right else { panic_with("a part was put that has no keys, or not theirs") };
        let (number, query) = number.split_once('?').unwrap_or((number, ""));
        assert!(is_number(number), "a part of another number was put");
        let unique = without_duplicates(keys.clone());
        assert_eq!(sent, unique);
        let view = answer.json();
        let said = ["part", "keys", "duplicates_removed"].map(|name| view.get(name).and_then(Value::as_u64));
        let counted =
            [number.parse().ok(), Some(unique.len() as u64), Some((keys.len() - unique.len()) as u64)];
        assert_eq!(said, counted);

        let target = format!("{number}?{query}").trim_end_matches('?').to_owned();
        let again = put(service, &id, &target, content_type, body);
        assert!(again.status == 202 && again.text == answer.text && service.sent().is_empty(), "put again");
        let other = put(service, &id, number, "application/json", br#"{"objectKeys":["a/another part"]}"#);
        assert!(other.status == 409 && service.sent().is_empty(), "another part of this number");
        let sealed =
            seal_with(service, &id, json!({"parts": 1, "total_keys": keys.len()}).to_string().as_bytes());
        assert_eq!(sealed.status, if number == "1" { 202 } else { 409 });
    });
}

/// The keys of `{"objectKeys": [...]}`, which has nothing else.
fn keys_of_object(body: &[u8]) -> Option<Vec<String>> {
    let json = Json::read(body)?;
    let members = json.members().filter(|members| members.len() == 1)?;
    Json::member(members, "objectKeys")?.list()?.iter().map(|key| key.text().map(str::to_owned)).collect()
}

/// The keys of lines, each a string of JSON.
fn keys_of_lines(body: &[u8]) -> Option<Vec<String>> {
    let written = body.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    written.map(|line| Some(Json::read(line)?.text()?.to_owned())).collect()
}

/// The body of a seal, of a deletion of two parts with four keys, one of them twice: it is sealed by what is so, and by
/// nothing else.
pub(crate) fn seal(input: &[u8]) {
    with_service(|service| {
        let parted = || {
            let id = begin(service);
            for (number, keys) in [("1", r#"["a/1","a/1","a/2"]"#), ("2", r#"["a/3"]"#)] {
                let body = format!(r#"{{"objectKeys":{keys}}}"#);
                assert_eq!(put(service, &id, number, "application/json", body.as_bytes()).status, 202);
            }
            id
        };
        // One that was not sealed is still there.
        let id = service.left_or("parted", parted);
        let answer = seal_with(service, &id, input);
        let json = Json::read(input);
        let members = json.as_ref().and_then(Json::members).filter(|members| members.len() == 2);
        let number = |name| Json::member(members?, name)?.count();
        match (number("parts"), number("total_keys")) {
            (Some(2.0), Some(4.0)) => assert_eq!(answer.status, 202, "right: {}", answer.text),
            (Some(parts), Some(keys))
                if (1.0..=f64::from(PARTS_MAX)).contains(&parts) && (1.0..9e15).contains(&keys) =>
            {
                assert_eq!(answer.status, 409, "something else: {}", answer.text);
            }
            (Some(_), Some(keys)) if keys >= 9e15 => assert!([409, 422].contains(&answer.status)),
            _ => assert!([400, 413, 422].contains(&answer.status), "{}: {}", answer.status, answer.text),
        }
        if answer.status != 202 {
            service.leave("parted", id);
        }
    });
}

/// A body of `POST /v1/redrives`, where three keys have failed: they are sent again if the filter lets them through, and
/// nothing is by anything else. The same body for one deletion is refused, unless it says nothing.
pub(crate) fn redrives(input: &[u8]) {
    with_service(|service| {
        let id = service.left_or("failed", || fail_three(service));
        let ask = |target: &str| {
            let request = post(target, "application/json", input);
            service.ask(Request { authorization: Some(format!("Bearer {OPERATOR_TOKEN}")), ..request })
        };
        let answer = ask("/v1/redrives");
        let sent = service.sent();
        let keys = service.keys_sent();
        let filter = Filter::read(input);
        match &filter {
            None => assert!([400, 413, 422].contains(&answer.status), "wrong, and {}", answer.status),
            Some(filter) => {
                assert_eq!(answer.status, if filter.dry_run { 200 } else { 202 }, "right: {}", answer.text);
                let said = answer.json().get("keys").and_then(Value::as_u64);
                assert_eq!(said, Some(if filter.lets_through { 3 } else { 0 }), "{}", answer.text);
            }
        }
        let is_sent = filter.as_ref().is_some_and(|filter| filter.lets_through && !filter.dry_run);
        let failed = if is_sent { vec!["a/1", "a/2", "a/3"] } else { Vec::new() };
        assert_eq!(keys, failed);
        // They fail again.
        service.deliver(DEAD_LETTERS, &sent);

        let one = ask(&format!("/v1/deletions/{id}/redrive"));
        let is_empty =
            input.is_empty() || Json::read(input).is_some_and(|json| json == Json::Object(Vec::new()));
        if is_empty {
            assert_eq!((one.status, service.keys_sent().len()), (202, 3));
            let sent = service.sent();
            service.deliver(DEAD_LETTERS, &sent);
        } else {
            assert!([400, 413, 422].contains(&one.status) && service.sent().is_empty(), "{}", one.status);
        }
        service.leave("failed", id);
    });
}

/// A deletion of three keys that have all failed.
fn fail_three(service: &Service) -> String {
    let answer = service.post("application/json", "", br#"{"objectKeys":["a/1","a/2","a/3"]}"#);
    let sent = service.sent();
    service.deliver(DEAD_LETTERS, &sent);
    id_of(&answer.json())
}

/// A body of `POST /v1/redrives` as a slow reader finds it.
struct Filter {
    dry_run: bool,
    /// Keys whose attempts have come to an end, at [`NOW`] or a little later.
    lets_through: bool,
}

impl Filter {
    fn read(body: &[u8]) -> Option<Self> {
        if body.is_empty() {
            return Some(Self { dry_run: false, lets_through: true });
        }
        let json = Json::read(body)?;
        let members = json.members()?;
        let (mut dry_run, mut lets_through) = (false, true);
        for (name, value) in members {
            match name.as_str() {
                "dry_run" => dry_run = if let Json::Bool(dry_run) = value { *dry_run } else { return None },
                "code" => {
                    let code =
                        FailureCode::ALL.into_iter().find(|code| Some(code.as_str()) == value.text())?;
                    lets_through &= code == FailureCode::AttemptsExhausted;
                }
                "failed_before" => {
                    let time = DateTime::parse_from_rfc3339(value.text()?).ok()?;
                    lets_through &= time.timestamp_millis() > i64::try_from(NOW.as_millis()).ok()?;
                }
                _ => return None,
            }
        }
        Some(Self { dry_run, lets_through })
    }
}

/// A body of `POST /`, whose messages are delivered at once: the answer says of each key, in order and as often as it is
/// there, what became of it, and that is so.
pub(crate) fn wait(input: &[u8]) {
    with_new_service(|service| {
        for key in ["a/1", "a/2", "a/locked/1", "a/keep/1", "b/1"] {
            service.bucket.put(key, NOW.minus_millis(1_000));
        }
        let there = service.bucket.keys();
        let answer = service.ask_and_deliver(post("/", "application/json", input));
        let json = Json::read(input);
        let members = json.as_ref().and_then(Json::members);
        let keys = members.and_then(|members| Json::member(members, "objectKeys")).and_then(Json::list);
        let keys: Option<Vec<&str>> = keys.and_then(|keys| keys.iter().map(Json::text).collect());
        let right =
            keys.filter(|keys| !keys.is_empty() && keys.iter().all(|key| is_key(key) && is_allowed(key)));
        let left = service.bucket.keys();
        if ![200, 202].contains(&answer.status) {
            assert_refused(&answer, "a body");
            assert_eq!(left, there, "refused, and something is gone");
            let is_plain = members.is_some_and(|members| members.len() == 1);
            assert!(!(is_plain && right.is_some()), "refused, and right: {}", answer.text);
            return;
        }
        let Some(keys) = right else { panic_with("keys were accepted that are none, or not theirs") };
        let expected = there.iter().filter(|key| key.starts_with(LOCKED) || !keys.contains(&key.as_str()));
        assert!(left.iter().eq(expected), "other keys are gone than were asked for");
        if answer.status == 202 {
            return;
        }
        let view = answer.json();
        let results = view.get("results").and_then(Value::as_array);
        let said = results
            .into_iter()
            .flatten()
            .map(|result| Some((result.get("key")?.as_str()?, result.get("success")?.as_bool()?)));
        let said: Option<Vec<(&str, bool)>> = said.collect();
        let are: Vec<(&str, bool)> = keys.iter().map(|key| (*key, !key.starts_with(LOCKED))).collect();
        assert_eq!(said, Some(are), "{}", answer.text);
    });
}

/// `Idempotency-Key`, `Content-Type`, `Content-Encoding`, `Content-Length` and `Accept`, one a line, an empty line for one
/// that is not there.
pub(crate) fn headers(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n').map(|line| (!line.is_empty()).then(|| line.to_owned()));
    let mut next = || lines.next().flatten();
    let (idempotency_key, content_type, content_encoding) = (next(), next(), next());
    let content_length = next().and_then(|length| length.parse().ok());
    let accept = next();
    with_service(|service| {
        let ask = |body: &[u8], idempotency_key: Option<String>| {
            service.ask(Request {
                idempotency_key,
                content_type: content_type.clone(),
                content_encoding: content_encoding.clone(),
                content_length,
                accept: accept.clone(),
                ..post("/v1/deletions", "", body)
            })
        };
        let key = idempotency_key.as_deref().map(read_idempotency_key);
        let media_type = content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default();
        let media_type = media_type.trim().to_ascii_lowercase();
        let is_plain =
            content_encoding.as_deref().is_none_or(|encoding| encoding.eq_ignore_ascii_case("identity"));
        let is_small = content_length.is_none_or(|length| length <= 16_000_000);
        let is_right = key != Some(None) && is_plain && is_small;
        let body = match media_type.as_str() {
            "application/json" => r#"{"objectKeys":["a/1"]}"#,
            _ => "\"a/1\"\n",
        };
        let is_known = ["application/json", "application/x-ndjson"].contains(&media_type.as_str());
        let answer = ask(body.as_bytes(), idempotency_key.clone());
        if !(is_right && is_known) {
            assert!([400, 413, 415].contains(&answer.status), "wrong, and {}", answer.status);
            assert!(service.sent().is_empty());
            return;
        }
        let Some(Some(key)) = key else {
            assert_eq!(answer.status, 202);
            return;
        };
        // However it is spelt, it is the same key, and of this body only; what an earlier input has made with it is there.
        assert!(answer.status == 202 || answer.status == 422, "{}", answer.status);
        if answer.status == 202 {
            let quoted = format!("\"{}\"", key.replace('\\', r"\\").replace('"', "\\\""));
            let again = ask(body.as_bytes(), Some(quoted));
            assert_eq!((again.status, id_of(&again.json())), (202, id_of(&answer.json())));
            assert!(service.sent().is_empty());
            let other = ask(body.replace("a/1", "a/2").as_bytes(), Some(idempotency_key.unwrap_or_default()));
            assert!(other.status == 422 && service.sent().is_empty(), "another body");
        }
    });
    with_service(|service| {
        let id = service.left_or("failed", || fail_three(service));
        let target = format!("/v1/deletions/{id}/failures");
        let answer = service.ask(Request { target, accept: accept.clone(), ..request(b"") });
        assert!([200, 406].contains(&answer.status), "{}", answer.status);
        assert!(accept.is_some() || answer.status == 200);
        service.leave("failed", id);
    });
}

/// An Idempotency-Key as a slow reader finds it: bare, or a structured field's string.
fn read_idempotency_key(header: &str) -> Option<String> {
    let header = header.trim();
    let mut key = String::new();
    if header.starts_with('"') {
        let inner = header.strip_prefix('"')?.strip_suffix('"')?;
        let mut characters = inner.chars();
        while let Some(character) = characters.next() {
            match character {
                '"' => return None,
                '\\' => key.push(characters.next().filter(|escaped| "\\\"".contains(*escaped))?),
                other => key.push(other),
            }
        }
    } else {
        key.push_str(header);
    }
    let is_printable = key.chars().all(|character| (' '..='~').contains(&character));
    (is_printable && (1..=255).contains(&key.len())).then_some(key)
}
