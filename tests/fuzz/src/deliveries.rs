//! What is asked of the consumer, given messages that anybody may have written.

use std::collections::HashSet;

use consumer::Settlement;
use producer::Request;
use protocol::{ChunkMessage, ChunkRef, Fence, ObjectKey, QueueMessage};
use serde_json::Value;

use crate::bucket::LOCKED;
use crate::service::{DEAD_LETTERS, NOW, OPERATOR_TOKEN, QUEUE, Service, request};
use crate::targets::with_new_service;

/// What is in the bucket, uploaded a second before anything was asked for.
const OBJECTS: [&str; 9] =
    ["a/1", "a/2", "a/3", "a/4", "a/p/1", "a/p/2", "a/d/1", "a/keep/1", "secret-of-b-1"];

/// What is asked for: keys, a prefix, a dry run of another, and a key that is cancelled. A message names the first as `$1`.
const ASKED: [&str; 4] = [
    r#"{"objectKeys":["a/1","a/2","a/3"]}"#,
    r#"{"prefixes":["a/p/"]}"#,
    r#"{"prefixes":["a/d/"],"dry_run":true}"#,
    r#"{"objectKeys":["a/4"]}"#,
];

/// The chunk of the first, and how many keys it has.
const KEYS: usize = 3;

/// How far the fence may be off for the clocks that it compares, in milliseconds.
const SKEW_MS: u64 = 10_000;

/// A batch of messages, one a line, the first line saying which queue they came by: nothing is gone but the keys of a chunk
/// that the ledger has, under a message with as many, and what a sweep finds that was asked for. What the ledger does not
/// know is kept, and acknowledged. What was asked for is deleted all the same.
pub(crate) fn delivery(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    with_new_service(|service| {
        for key in OBJECTS {
            service.bucket.put(key, NOW.minus_millis(1_000));
        }
        let mut genuine = Vec::new();
        let ids = ASKED.map(|body| {
            let answer = service.post("application/json", "", body.as_bytes());
            assert_eq!(answer.status, 202);
            genuine.push(service.sent());
            answer.json().get("id").and_then(Value::as_str).unwrap_or_default().to_owned()
        });
        let [keys, prefix, _, cancelled] = &ids;
        let cancel = format!("/v1/deletions/{cancelled}/cancel");
        let cancel = Request { method: "POST".to_owned(), target: cancel, ..request(b"") };
        assert!([200, 202].contains(&service.ask(cancel).status));

        let named = (1..).zip(&ids).fold(text.to_owned(), |text, (n, id)| text.replace(&format!("${n}"), id));
        let mut lines = named.split('\n');
        let is_dead_letter = lines.next() == Some("dlq");
        let bodies: Vec<String> = lines.take(8).map(str::to_owned).collect();
        let settlements = service.deliver(if is_dead_letter { DEAD_LETTERS } else { QUEUE }, &bodies);

        let read: Vec<_> = bodies.iter().map(|body| QueueMessage::from_json(body).ok()).collect();
        let mut seen = HashSet::new();
        let kept = kept(service);
        let mut granted = None;
        for (index, (body, read)) in bodies.iter().zip(&read).enumerate() {
            let is_unknown = match read {
                None => true,
                Some(QueueMessage::Chunk(message)) if !seen.insert(message.chunk.clone()) => continue,
                Some(QueueMessage::Chunk(message)) if is_of(message, keys) => {
                    granted = Some(message);
                    false
                }
                Some(QueueMessage::Chunk(message)) => message.chunk.deletion.as_str() != cancelled,
                // A sweep that is there twice is taken once.
                Some(QueueMessage::Sweep(_)) if bodies.iter().take(index).any(|earlier| earlier == body) => {
                    continue;
                }
                Some(QueueMessage::Sweep(sweep)) => !ids.iter().any(|id| id == sweep.deletion.as_str()),
                Some(QueueMessage::Notice(_)) => false,
            };
            if is_unknown {
                let is_kept = kept.contains(&(format!("message-{index:04}"), body.clone()));
                let is_settled = matches!(settlements.of(index), Settlement::Acknowledge(_));
                assert!(is_kept && is_settled, "unknown, and not kept");
            }
        }
        let is_swept = bodies.iter().any(|body| body.contains("sweep") && body.contains(prefix.as_str()));
        assert_deleted(service, granted.filter(|_| !is_dead_letter), is_swept && !is_dead_letter);
        assert_counted(service, &ids);

        // What was asked for is done, unless somebody has taken its place.
        if granted.is_none() {
            service.deliver(QUEUE, genuine.first().map_or(&[], Vec::as_slice));
            assert!(
                !["a/1", "a/2", "a/3"].iter().any(|key| service.bucket.has(key)),
                "asked for, and still there"
            );
        }
    });
}

/// Whether it is the one chunk of a deletion, with as many keys.
fn is_of(message: &ChunkMessage<'_>, id: &str) -> bool {
    let ChunkRef { deletion, generation, chunk } = &message.chunk;
    (deletion.as_str(), *generation, *chunk, message.keys.len()) == (id, 0, 0, KEYS)
}

/// The ids and the bodies of the messages that were kept.
fn kept(service: &Service) -> HashSet<(String, String)> {
    let authorization = Some(format!("Bearer {OPERATOR_TOKEN}"));
    let target = "/v1/unreadable-messages?page_size=1000".to_owned();
    let answer = service.ask(Request { target, authorization, ..request(b"") });
    assert_eq!(answer.status, 200);
    let view = answer.json();
    let messages = view.get("unreadable_messages").and_then(Value::as_array);
    let text =
        |message: &Value, name| message.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    messages
        .into_iter()
        .flatten()
        .map(|message| (text(message, "message_id"), text(message, "body")))
        .collect()
}

fn assert_deleted(service: &Service, granted: Option<&ChunkMessage<'_>>, is_swept: bool) {
    let named: HashSet<&str> =
        granted.iter().flat_map(|message| &message.keys).map(ObjectKey::as_str).collect();
    for key in OBJECTS {
        let is_gone = !service.bucket.has(key);
        let may_be = named.contains(key) && !key.starts_with(LOCKED) || is_swept && key.starts_with("a/p/");
        assert!(may_be || !is_gone, "deleted, and nobody has asked for it");
        let Some(message) = granted.filter(|_| named.contains(key) && !is_swept) else { continue };
        let uploaded_at = NOW.minus_millis(1_000);
        match message.fence {
            Fence::Off => assert!(is_gone, "asked for, and still there"),
            Fence::Always if message.requested_at.plus_millis(SKEW_MS) < uploaded_at => {
                assert!(!is_gone, "newer than the request, and deleted");
            }
            Fence::Always if message.requested_at > uploaded_at.plus_millis(SKEW_MS) => {
                assert!(is_gone, "older than the request, and still there");
            }
            Fence::Always | Fence::Auto => {}
        }
    }
}

/// The counts of each deletion are its total.
fn assert_counted(service: &Service, ids: &[String]) {
    for id in ids {
        let answer = service.get(&format!("/v1/deletions/{id}"));
        assert_eq!(answer.status, 200);
        let view = answer.json();
        let count =
            |name: &str| view.get("counts").and_then(|counts| counts.get(name)?.as_u64()).unwrap_or_default();
        let parts = ["pending", "deleted", "skipped", "failed", "cancelled"].map(count);
        assert_eq!(parts.iter().sum::<u64>(), count("total"));
    }
}
