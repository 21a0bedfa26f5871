//! What is asked of each reader.

use std::cell::RefCell;
use std::collections::HashSet;

use producer::{Config, Request, Settings};
use protocol::limits::{
    DELETE_KEYS_MAX, KEY_BYTES_MAX, MESSAGE_BYTES_MAX, MESSAGE_METADATA_BYTES, SEND_BYTES_MAX,
    SEND_MESSAGES_MAX,
};
use protocol::{
    ChunkMessage, ChunkRef, DeletionId, Fence, ObjectKey, QueueMessage, R2Error, RetryCause, Timestamp,
    group_into_sends, notice_delay_seconds, pack_keys, retry_delay_seconds,
};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use crate::json::Json;
use crate::service::{Answer, OTHER_TOKEN, PREFIX, PROTECTED, Service, TOKEN, post, request};

/// After so many requests a ledger is emptied.
const REQUESTS_PER_LEDGER: usize = 200;

thread_local! {
    // One for all targets of a thread: to make a ledger, with every statement prepared anew, takes longer than most inputs.
    static SERVICE: RefCell<Option<(Service, usize)>> = const { RefCell::new(None) };
}

/// Has a service used whose ledger has little in it: two deletions of tenant B, and those of tenant A of late.
pub(crate) fn with_service<T>(use_it: impl FnOnce(&Service) -> T) -> Option<T> {
    with_ledger(REQUESTS_PER_LEDGER, use_it)
}

/// As [`with_service`], without those of tenant A.
pub(crate) fn with_new_service<T>(use_it: impl FnOnce(&Service) -> T) -> Option<T> {
    with_ledger(0, use_it)
}

fn with_ledger<T>(requests_max: usize, use_it: impl FnOnce(&Service) -> T) -> Option<T> {
    SERVICE.with_borrow_mut(|slot| {
        let (service, mut requests) = match slot.take() {
            Some(used) => used,
            None => (Service::new()?, usize::MAX),
        };
        if requests >= requests_max {
            service.clear()?;
            fill(&service);
            requests = 0;
        }
        let found = use_it(&service);
        *slot = Some((service, requests + 1));
        Some(found)
    })
}

/// Tenant B's, which tenant A must never see.
fn fill(service: &Service) {
    for key in ["secret-of-b-1", "secret-of-b-2"] {
        let body = format!(r#"{{"objectKeys":["{key}"],"labels":{{"of":"secret-of-b"}}}}"#);
        let request = post("/v1/deletions", "application/json", body.as_bytes());
        let request = Request { authorization: Some(format!("Bearer {OTHER_TOKEN}")), ..request };
        assert_eq!(service.ask(request).status, 202);
    }
}

/// What a refusal may be; anything else is a fault of ours.
pub(crate) fn assert_refused(answer: &Answer, why: &str) {
    assert!(
        matches!(answer.status, 400 | 401 | 403 | 404 | 405 | 406 | 409 | 413 | 415 | 422),
        "{}: {why}",
        answer.status
    );
}

pub(crate) fn is_key(text: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&text.len())
}

pub(crate) fn is_allowed(key: &str) -> bool {
    key.as_bytes().starts_with(PREFIX.as_bytes()) && !key.as_bytes().starts_with(PROTECTED.as_bytes())
}

pub(crate) fn without_duplicates(keys: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    keys.into_iter().filter(|key| seen.insert(key.clone())).collect()
}

const MEMBERS: [&str; 11] = [
    "objectKeys",
    "in_parts",
    "delay_seconds",
    "fence",
    "labels",
    "prefixes",
    "project",
    "max_objects",
    "dry_run",
    "verify",
    "plan",
];

/// `POST /v1/deletions` with JSON: what is accepted is what a slow reader finds in it, and what a slow reader finds
/// right is accepted, as far as it knows.
pub(crate) fn body(input: &[u8]) {
    with_service(|service| {
        let answer = service.post("application/json", "", input);
        let json = Json::read(input);
        let members = json.as_ref().and_then(Json::members);
        let keys = members.and_then(|members| Json::member(members, "objectKeys")).and_then(Json::list);
        let keys: Option<Vec<String>> =
            keys.and_then(|keys| keys.iter().map(|key| key.text().map(str::to_owned)).collect());
        let are_right =
            |keys: &Vec<String>| !keys.is_empty() && keys.iter().all(|key| is_key(key) && is_allowed(key));
        if answer.status != 202 {
            assert_refused(&answer, "a body");
            let is_plain = members.is_some_and(|members| members.len() == 1);
            assert!(
                !(is_plain && keys.as_ref().is_some_and(are_right)),
                "refused, and right: {}",
                answer.text
            );
            return;
        }
        let Some(members) = members else { panic_with("accepted, and no object with each member once") };
        assert!(
            members.iter().all(|(name, _)| MEMBERS.contains(&name.as_str())),
            "an unknown member was accepted"
        );
        let sent = service.keys_sent();
        assert_swept(service, &answer);
        let is_dry = matches!(Json::member(members, "dry_run"), Some(Json::Bool(true)));
        match keys {
            Some(keys) => {
                assert!(are_right(&keys), "a key was accepted that is none, or not theirs");
                let expected = if is_dry { Vec::new() } else { without_duplicates(keys) };
                assert_eq!(sent, expected);
            }
            None => assert!(sent.is_empty()),
        }
        if !sent.is_empty() {
            // Written once more it is the same request.
            let again = serde_json::json!({ "objectKeys": sent }).to_string();
            assert_eq!(service.post("application/json", "", again.as_bytes()).status, 202);
            assert_eq!(service.keys_sent(), sent);
        }
    });
}

/// What is swept may be swept: it begins as the token's keys do, and nothing that is protected begins so.
fn assert_swept(service: &Service, answer: &Answer) {
    let Ok(accepted) = serde_json::from_str::<Value>(&answer.text) else {
        panic_with("an answer is no JSON")
    };
    let id = accepted.get("id").and_then(Value::as_str).unwrap_or_default();
    let read = service.get(&format!("/v1/deletions/{id}"));
    assert_eq!(read.status, 200);
    let view: Value = serde_json::from_str(&read.text).unwrap_or_default();
    for prefix in view.get("prefixes").and_then(Value::as_array).into_iter().flatten() {
        let prefix = prefix.as_str().unwrap_or_default();
        assert!(prefix.starts_with(PREFIX) && is_allowed(prefix) && !PROTECTED.starts_with(prefix));
    }
}

/// `POST /v1/deletions` with NDJSON, the query before the first line feed: likewise.
pub(crate) fn lines(input: &[u8]) {
    let at = input.iter().position(|&byte| byte == b'\n').unwrap_or_default();
    let (query, rest) = input.split_at(at);
    let lines = rest.strip_prefix(b"\n").unwrap_or(rest);
    let Ok(query) = std::str::from_utf8(query) else { return };
    with_service(|service| {
        let target = if query.is_empty() { String::new() } else { format!("?{query}") };
        let answer = service.post("application/x-ndjson", &target, lines);
        let written = lines.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let keys: Option<Vec<String>> =
            written.map(|line| Some(Json::read(line)?.text()?.to_owned())).collect();
        let right =
            keys.filter(|keys| !keys.is_empty() && keys.iter().all(|key| is_key(key) && is_allowed(key)));
        if answer.status != 202 {
            assert_refused(&answer, "lines");
            assert!(!(query.is_empty() && right.is_some()), "refused, and right: {}", answer.text);
            return;
        }
        let sent = service.keys_sent();
        assert_swept(service, &answer);
        let Some(keys) = right else { panic_with("lines were accepted that are no keys, or not theirs") };
        assert!(sent == without_duplicates(keys) || sent.is_empty() && query.contains("dry_run"));
    });
}

/// A message of the Queue: what is read is what is there, and reads the same when it is written again; what is not is
/// unreadable.
pub(crate) fn message(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let read = QueueMessage::from_json(text);
    let json = Json::read(input);
    match &read {
        Ok(QueueMessage::Chunk(message)) => {
            let members = json.as_ref().and_then(Json::members);
            let Some(members) = members else { panic_with("read, and no object with each member once") };
            let names = ["v", "deletion", "chunk", "generation", "requested_at", "fence", "keys"];
            assert!(
                members.len() == names.len()
                    && members.iter().all(|(name, _)| names.contains(&name.as_str()))
            );
            let number = |name| Json::member(members, name).and_then(Json::whole);
            assert_eq!(number("v"), Some(1.0));
            assert_eq!(number("chunk"), Some(f64::from(message.chunk.chunk)));
            assert_eq!(number("generation"), Some(f64::from(message.chunk.generation)));
            let texts = Json::member(members, "keys").and_then(Json::list).unwrap_or_default();
            let keys: Vec<&str> = texts.iter().filter_map(Json::text).collect();
            assert_eq!(keys, message.keys.iter().map(ObjectKey::as_str).collect::<Vec<_>>());
            assert!(keys.iter().all(|key| is_key(key)) && (1..=DELETE_KEYS_MAX).contains(&keys.len()));
            rewrite(message);
        }
        Ok(QueueMessage::Notice(notice)) => assert_eq!(notice.to_message(), text),
        Ok(QueueMessage::Sweep(sweep)) => assert_eq!(sweep.to_message(), text),
        Err(reason) => {
            // What a slow reader finds right is read.
            let is_ours = json.as_ref().and_then(Json::members).is_some_and(is_a_chunk);
            assert!(!is_ours, "unreadable, and right: {}", reason.as_str());
        }
    }
}

/// Whether these are the members of a chunk's message, each of its type and within its limits.
pub(crate) fn is_a_chunk(members: &[(String, Json)]) -> bool {
    let small = |name| {
        let number = Json::member(members, name).and_then(Json::whole);
        number.filter(|&number| number <= f64::from(u32::MAX))
    };
    let text = |name| Json::member(members, name).and_then(Json::text);
    let keys = Json::member(members, "keys").and_then(Json::list).unwrap_or_default();
    members.len() == 7
        && small("v") == Some(1.0)
        && text("deletion").is_some_and(|id| id.parse::<DeletionId>().is_ok())
        && small("chunk").is_some()
        && small("generation").is_some()
        && small("requested_at").is_some()
        && text("fence").is_some_and(|fence| ["auto", "always", "off"].contains(&fence))
        && (1..=DELETE_KEYS_MAX).contains(&keys.len())
        && keys.iter().all(|key| key.text().is_some_and(is_key))
}

fn rewrite(message: &ChunkMessage<'_>) {
    let ChunkRef { deletion, generation, .. } = &message.chunk;
    let packed = pack_keys(deletion, *generation, message.requested_at, message.fence, &message.keys);
    let mut keys = Vec::new();
    for packed in &packed {
        // The packer counts from 0, or from wherever its caller does; all else is the same.
        let Ok(again) = ChunkMessage::from_json(&packed.body) else {
            panic_with("what was packed cannot be read")
        };
        assert_eq!((&again.chunk.deletion, again.chunk.generation), (deletion, *generation));
        assert_eq!((again.requested_at, again.fence), (message.requested_at, message.fence));
        keys.extend(again.keys.iter().map(|key| key.as_str().to_owned()));
    }
    assert_eq!(keys, message.keys.iter().map(|key| key.as_str().to_owned()).collect::<Vec<_>>());
}

/// The target of a `GET`, page tokens and all: no answer is a fault of ours, and none has anything of another tenant.
pub(crate) fn target(input: &[u8]) {
    let Ok(target) = std::str::from_utf8(input) else { return };
    with_service(|service| {
        let answer = service.get(target);
        assert!(
            answer.status == 200 || answer.status == 503 && target.contains("readyz") || {
                assert_refused(&answer, target);
                true
            }
        );
        // A refusal may say what was asked for.
        assert!(
            answer.status != 200 || !answer.text.contains("secret-of-b"),
            "another tenant's deletion is shown"
        );
        let Ok(Value::Object(list)) = serde_json::from_str(&answer.text) else { return };
        if let Some(token) = list.get("next_page_token").and_then(Value::as_str) {
            let path = target.split('?').next().unwrap_or_default();
            let others = target.split_once('?').map_or("", |(_, query)| query).split('&');
            let others: Vec<&str> = others.filter(|parameter| !parameter.starts_with("page_token")).collect();
            let next = format!("{path}?{}&page_token={token}", others.join("&"));
            assert_eq!(service.get(&next).status, 200, "a token that was given is not taken");
        }
    });
}

/// `Authorization`: nobody is let in but by a token, as it is.
pub(crate) fn authorization(input: &[u8]) {
    let Ok(header) = std::str::from_utf8(input) else { return };
    with_service(|service| {
        let ask = |authorization: &str| {
            let (target, authorization) = ("/v1/deletions".to_owned(), Some(authorization.to_owned()));
            service.ask(Request { target, authorization, ..request(b"") })
        };
        let answer = ask(header);
        let token = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let is_known = token.is_some_and(|(_, token)| [TOKEN, OTHER_TOKEN].contains(&token.trim()));
        assert_eq!(answer.status, if is_known { 200 } else { 401 });
        if !is_known {
            // Nothing of it is repeated: the answer is one of two.
            let detail = |answer: &Answer| {
                let problem: Value = serde_json::from_str(&answer.text).unwrap_or_default();
                problem.get("detail").and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let known = ["", "Bearer of-nobody"].map(|header| detail(&ask(header)));
            assert!(known.contains(&detail(&answer)), "a token is repeated");
        }
    });
}

/// A prefix, a protected prefix and a key, one a line: the key is taken where R2's object of that name begins with the one, and
/// neither it nor the key, in any form, with the other.
pub(crate) fn scope(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.splitn(3, '\n');
    let (Some(prefix), Some(protected), Some(key)) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    if prefix.is_empty() || protected.is_empty() {
        return;
    }
    let check = |ask: &dyn Fn(&[u8]) -> Answer| {
        let answer = ask(serde_json::json!({ "objectKeys": [key] }).to_string().as_bytes());
        let is_within = nfc(key).starts_with(&nfc(prefix));
        let is_protected =
            [nfc, nfd, str::to_owned].iter().any(|form| form(key).starts_with(&form(protected)));
        let expected = is_key(key) && is_within && !is_protected;
        assert_eq!(answer.status == 202, expected, "{}", answer.text);
        if !expected {
            assert_refused(&answer, "a key");
        }
        // A sweep is refused as soon as one such key could be in it.
        let answer = ask(serde_json::json!({ "prefixes": [key], "dry_run": true }).to_string().as_bytes());
        let overlaps = [nfc, nfd, str::to_owned].iter().any(|form| form(protected).starts_with(&form(key)));
        let is_swept = answer.status == 202;
        assert!(!is_swept || is_within && !is_protected && !overlaps, "a sweep of more than is allowed");
    };
    with_service(|service| service.with_scope(prefix, protected, check));
}

fn nfc(text: &str) -> String {
    text.nfc().collect()
}

fn nfd(text: &str) -> String {
    text.nfd().collect()
}

/// Most keys that are packed, and most bytes of them: more than one message of either, and quick all the same.
const PACKED_KEYS_MAX: usize = 1_100;
const PACKED_BYTES_MAX: usize = 150_000;

/// Most bytes that are grouped into sends: several.
const GROUPED_BYTES_MAX: usize = 600_000;

/// Mostly few, so that most inputs are quick, and up to all of `max`.
fn few(byte: u8, max: usize) -> usize {
    if byte < 192 { usize::from(byte) / 8 } else { max - usize::from(u8::MAX - byte) * max / 64 }
}

/// Keys of these lengths and letters, packed: each is there once and in order, and every send is within the limits.
pub(crate) fn chunks(input: &[u8]) {
    // Three bytes say how many, how long each is, and of what: what JSON makes one byte of, two or six.
    let runs = input
        .chunks_exact(3)
        .filter_map(|run| if let [many, long, kind] = run { Some((*many, *long, *kind)) } else { None });
    let (mut keys, mut bytes) = (Vec::new(), 0);
    for (many, long, kind) in runs.clone() {
        let letter = ["k", "\u{1}", "\"", "é", "😀"].get(usize::from(kind % 5)).copied().unwrap_or("k");
        let long = few(long, KEY_BYTES_MAX) + usize::from(kind / 5);
        for _ in 0..=few(many, PACKED_KEYS_MAX) {
            let number = keys.len().to_string();
            let rest = long.min(KEY_BYTES_MAX).saturating_sub(number.len()) / letter.len();
            let key = format!("{number}{}", letter.repeat(rest));
            bytes += key.len();
            if bytes > PACKED_BYTES_MAX || keys.len() == PACKED_KEYS_MAX {
                break;
            }
            keys.push(key);
        }
    }
    packed(&keys);

    let (mut bodies, mut bytes) = (Vec::new(), 0);
    for (many, long, _) in runs {
        let long = 1 + few(long, MESSAGE_BYTES_MAX - MESSAGE_METADATA_BYTES - 1);
        for _ in 0..=few(many, SEND_MESSAGES_MAX * 2) {
            bytes += long;
            if bytes > GROUPED_BYTES_MAX {
                break;
            }
            bodies.push("x".repeat(long));
        }
    }
    grouped(&bodies);
}

/// Packs keys, and groups the messages.
fn packed(keys: &[String]) {
    let parsed: Vec<ObjectKey<'_>> =
        keys.iter().filter_map(|key| ObjectKey::parse(key.as_str()).ok()).collect();
    assert_eq!(parsed.len(), keys.len());
    let now = Timestamp::from_millis(1_763_930_000_000);
    let packed = pack_keys(&DeletionId::new(now, 7), 0, now, Fence::Always, &parsed);
    let mut unpacked = Vec::new();
    for (number, message) in (0..).zip(&packed) {
        assert!(message.body.len() + MESSAGE_METADATA_BYTES <= MESSAGE_BYTES_MAX);
        let Ok(read) = ChunkMessage::from_json(&message.body) else {
            panic_with("what was packed cannot be read")
        };
        assert!(
            read.chunk.chunk == number && read.keys.len() == message.keys && message.keys <= DELETE_KEYS_MAX
        );
        unpacked.extend(read.keys.iter().map(|key| key.as_str().to_owned()));
    }
    assert_eq!(unpacked, keys);
    grouped(&packed.into_iter().map(|message| message.body).collect::<Vec<_>>());
}

/// Groups messages into sends: all of them, in order, and none more than a send takes.
fn grouped(bodies: &[String]) {
    let sends = group_into_sends(bodies.to_vec());
    for send in &sends {
        let bytes: usize = send.iter().map(|body| body.len() + MESSAGE_METADATA_BYTES).sum();
        assert!((1..=SEND_MESSAGES_MAX).contains(&send.len()) && bytes <= SEND_BYTES_MAX);
    }
    assert_eq!(sends.concat(), bodies);
}

/// How long anything waits: within what the Queue takes, and with luck or bad luck never less for a later attempt's
/// longest.
pub(crate) fn delays(input: &[u8]) {
    let mut input = input.iter().copied();
    let mut number =
        || (0..4).fold(0_u32, |number, _| number << 8 | u32::from(input.next().unwrap_or_default()));
    let (attempt, code, random) = (number(), number(), f64::from(number()) / f64::from(u32::MAX));
    let error = R2Error::from_code(code);
    let causes = [
        RetryCause::R2(error),
        RetryCause::LedgerUnavailable,
        RetryCause::ClaimedElsewhere { seconds: code },
        RetryCause::OutOfTime,
        RetryCause::OutOfCalls,
        RetryCause::Misconfigured,
        RetryCause::NotFinal,
    ];
    for cause in causes {
        let delay = retry_delay_seconds(cause, attempt, random);
        assert!((1..=protocol::limits::DELAY_SECONDS_MAX).contains(&delay));
        let longest = |attempt| retry_delay_seconds(cause, attempt, 1.0);
        assert!(delay <= longest(attempt) && longest(attempt) <= longest(attempt.saturating_add(1)));
        assert!(!cause.as_str().is_empty());
    }
    if let Some(delay) = notice_delay_seconds(attempt, random) {
        assert!((1..=protocol::limits::DELAY_SECONDS_MAX).contains(&delay) && attempt > 0);
    }
}

/// The settings of a deployment, one a line: what cannot be understood is said so, and no secret with it.
pub(crate) fn settings(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n').map(|line| (!line.is_empty()).then(|| line.to_owned()));
    let mut next = || lines.next().flatten();
    let settings = Settings {
        api_token: next(),
        api_tokens: next(),
        protected_prefixes: next(),
        project_templates: next(),
        allow_whole_bucket_sweeps: next(),
    };
    let Err(said) = Config::parse(&settings) else { return };
    // A secret that is no JSON is not repeated, not even in part: the error is the one that any such text has.
    let tokens = settings.api_tokens.as_deref().filter(|tokens| !tokens.trim().is_empty());
    if tokens.is_some_and(|tokens| serde_json::from_str::<serde::de::IgnoredAny>(tokens).is_err()) {
        let other = Settings { api_tokens: Some("!".to_owned()), ..settings };
        let letters = |said: &str| said.chars().filter(|letter| !letter.is_ascii_digit()).collect::<String>();
        assert_eq!(Config::parse(&other).map_err(|said| letters(&said)).err(), Some(letters(&said)));
    }
}

#[expect(clippy::panic, reason = "how a target fails")]
pub(crate) fn panic_with(what: &str) -> ! {
    panic!("{what}")
}
