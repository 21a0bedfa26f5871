//! Values to events, with only what may be shown.

use protocol::{Severity, Timestamp};
use serde_json::{Map, Value};

use super::catalogue::{Kind, Known, known};

/// What a person is told of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    /// When it happened; when it was read, where the input does not say it.
    pub(super) time: Timestamp,
    /// The Worker's name, where it is known.
    pub(super) worker: Option<String>,
    /// How loud it is.
    pub(super) severity: Severity,
    /// What it is.
    pub(super) what: What,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    /// An event of a Worker. Of an event that is not known, only what cannot be a key.
    Event {
        /// Its name.
        name: String,
        /// Its fields that may be shown.
        fields: Fields,
        /// Whether it is one of ours.
        is_known: bool,
    },
    /// Something was logged that is no event, such as the words of a panic. They may have a key in them.
    Unstructured,
    /// A Worker ended by an exception, whose words may have a key in them.
    Exception {
        /// The exception's class.
        name: Option<String>,
    },
    /// An invocation ended in another way than it should.
    Outcome(String),
    /// The tail leaves out events, so that what is counted is less than what was done.
    Incomplete(&'static str),
}

/// The fields of an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// A number, or 0.
    pub(super) fn number(&self, name: &str) -> u64 {
        self.0.get(name).and_then(Value::as_u64).unwrap_or_default()
    }

    /// Text, where it is there.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// Whether it is there and true.
    pub(super) fn is(&self, name: &str) -> bool {
        self.0.get(name) == Some(&Value::Bool(true))
    }

    /// Whether it is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }
}

/// Outcomes that the caller has brought about by going away.
const GONE_AWAY: [&str; 2] = ["canceled", "responseStreamDisconnected"];

/// Reads what a value tells of. Nothing, where it is neither a tail's nor an event.
pub(super) fn read(value: &Value, worker: Option<&str>, arrived: Timestamp) -> Option<Vec<Seen>> {
    match value {
        // As a Tail Worker is given them.
        Value::Array(items) => {
            let read: Vec<_> =
                items.iter().filter_map(|item| read_object(item.as_object()?, worker, arrived)).collect();
            (!read.is_empty()).then(|| read.concat())
        }
        Value::Object(object) => read_object(object, worker, arrived),
        _ => None,
    }
}

fn read_object(object: &Map<String, Value>, worker: Option<&str>, arrived: Timestamp) -> Option<Vec<Seen>> {
    if object.contains_key("outcome") && object.contains_key("logs") {
        return Some(read_invocation(object, arrived));
    }
    object.get("event").and_then(Value::as_str)?;
    Some(vec![read_event(object, worker, arrived, None)?])
}

/// What `wrangler tail` shows of one invocation.
fn read_invocation(item: &Map<String, Value>, arrived: Timestamp) -> Vec<Seen> {
    let worker = item.get("scriptName").and_then(Value::as_str).map(legible);
    let began = item.get("eventTimestamp").and_then(Value::as_u64).map_or(arrived, Timestamp::from_millis);
    let seen = |time, severity, what| Seen { time, worker: worker.clone(), severity, what };
    let mut all = Vec::new();
    for line in array(item, "logs") {
        let time = timestamp(line).unwrap_or(began);
        all.push(read_line(line, worker.as_deref(), time));
    }
    let exceptions = array(item, "exceptions");
    for exception in exceptions {
        let name =
            exception.get("name").and_then(Value::as_str).filter(|name| is_name(name)).map(str::to_owned);
        all.push(seen(timestamp(exception).unwrap_or(began), Severity::Error, What::Exception { name }));
    }
    match item.get("outcome").and_then(Value::as_str) {
        Some("ok") => {}
        // Said already, with its class.
        Some("exception") if !exceptions.is_empty() => {}
        Some(outcome) => {
            let severity = if GONE_AWAY.contains(&outcome) { Severity::Warn } else { Severity::Error };
            let outcome = if is_name(outcome) { outcome } else { "unknown" };
            all.push(seen(began, severity, What::Outcome(outcome.to_owned())));
        }
        None if is_overload(item) => {
            all.push(seen(began, Severity::Warn, What::Incomplete("the tail is sampled")));
        }
        None => {}
    }
    if item.get("truncated") == Some(&Value::Bool(true)) {
        all.push(seen(began, Severity::Warn, What::Incomplete("the log of one invocation is cut off")));
    }
    all
}

/// The platform says that it leaves out events because there are too many.
fn is_overload(item: &Map<String, Value>) -> bool {
    item.get("event").and_then(|event| event.get("type")).and_then(Value::as_str) == Some("overload")
}

fn array<'a>(item: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    item.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn timestamp(of: &Value) -> Option<Timestamp> {
    of.get("timestamp").and_then(Value::as_u64).map(Timestamp::from_millis)
}

fn read_line(line: &Value, worker: Option<&str>, time: Timestamp) -> Seen {
    let level = line.get("level").and_then(Value::as_str);
    let first = line.get("message").and_then(|message| message.get(0).or(Some(message)));
    // Where the runtime could not take the object, a Worker logs it as text.
    let reread = first.and_then(Value::as_str).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let event = reread.as_ref().or(first).and_then(Value::as_object);
    event.and_then(|event| read_event(event, worker, time, level)).unwrap_or_else(|| Seen {
        time,
        worker: worker.map(str::to_owned),
        severity: of_level(level),
        what: What::Unstructured,
    })
}

fn read_event(
    object: &Map<String, Value>,
    worker: Option<&str>,
    time: Timestamp,
    level: Option<&str>,
) -> Option<Seen> {
    let name = object.get("event").and_then(Value::as_str)?;
    let known = known(name);
    let mut fields = Fields::default();
    for (name, value) in object.iter().filter(|(name, _)| !["event", "severity"].contains(&name.as_str())) {
        if let Some(value) = showable(known, name, value) {
            fields.0.insert(name.clone(), value);
        }
    }
    let severity = object.get("severity").and_then(Value::as_str).and_then(severity);
    let by_kind = known.map(|known| known.severity).filter(|_| level.is_none());
    Some(Seen {
        time,
        worker: worker
            .map(legible)
            .or_else(|| known.and_then(|known| known.emitter.worker()).map(str::to_owned)),
        severity: severity.or(by_kind).unwrap_or_else(|| of_level(level)),
        what: What::Event {
            name: if is_name(name) { name.to_owned() } else { "unnamed".to_owned() },
            fields,
            is_known: known.is_some(),
        },
    })
}

/// What of a field may be shown: of what is not known, no text but an id of ours.
fn showable(known: Option<&Known>, name: &str, value: &Value) -> Option<Value> {
    let kind =
        known.and_then(|known| known.fields.iter().find(|(field, _)| *field == name)).map(|(_, kind)| *kind);
    match (kind, value) {
        (Some(Kind::Text), Value::String(text)) => Some(Value::String(legible(text))),
        (Some(Kind::Number) | None, Value::Number(_)) | (Some(Kind::Bool) | None, Value::Bool(_)) => {
            is_name(name).then(|| value.clone())
        }
        (None, Value::String(text)) => (is_name(name) && is_id(text)).then(|| value.clone()),
        _ => None,
    }
}

fn severity(text: &str) -> Option<Severity> {
    match text {
        "INFO" => Some(Severity::Info),
        "WARN" => Some(Severity::Warn),
        "ERROR" => Some(Severity::Error),
        _ => None,
    }
}

fn of_level(level: Option<&str>) -> Severity {
    match level {
        Some("error") => Severity::Error,
        Some("warn") => Severity::Warn,
        _ => Severity::Info,
    }
}

/// Whether it is a word of a program, too short and too plain to be anybody's key.
fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
    (1..=48).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(is_part)
}

/// Whether it is the id of a deletion or of a request.
fn is_id(text: &str) -> bool {
    let of_deletion = text.strip_prefix("req_").map_or_else(|| text.to_owned(), |ulid| format!("del_{ulid}"));
    of_deletion.parse::<protocol::DeletionId>().is_ok()
}

/// `text` without what would steer a terminal.
fn legible(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEY: &str = "proj_42/a.jpg";

    fn read_all(value: &Value) -> Vec<Seen> {
        read(value, None, Timestamp::from_millis(7)).unwrap()
    }

    fn invocation(outcome: &str, exceptions: &Value, message: &Value) -> Value {
        json!({
            "outcome": outcome, "scriptName": "r2-deletion-consumer", "exceptions": exceptions, "eventTimestamp": 1,
            "logs": [{ "level": "error", "message": message, "timestamp": 2 }],
            "event": { "queue": "r2-deletions", "batchSize": 1 },
        })
    }

    #[test]
    fn no_text_is_kept_that_could_be_a_key() {
        for value in [
            json!({ "event": "new.event", "key": KEY, "list": [KEY], KEY: 1, "count": 1 }),
            json!({ "event": "batch.processed", "key": KEY, "acked": KEY, "list": { "key": KEY } }),
            json!({ "event": KEY, "severity": KEY }),
            invocation(
                "exception",
                &json!([{ "name": "Error", "message": KEY, "stack": KEY }]),
                &json!([KEY]),
            ),
            invocation(KEY, &json!([{ "name": KEY }]), &json!([{ "key": KEY }, KEY])),
        ] {
            let seen = format!("{:?}", read_all(&value));
            assert!(!seen.contains("proj_42"), "{seen}");
        }
    }

    #[test]
    fn nothing_that_is_shown_steers_a_terminal() {
        let mut value = invocation(
            "ok",
            &json!([]),
            &json!([{ "event": "ledger.failed", "cause": "\u{1b}[2J\u{9b}2J" }]),
        );
        value["scriptName"] = json!("a\rb");
        let Seen { worker: Some(worker), what: What::Event { fields, .. }, .. } = &read_all(&value)[0] else {
            panic!("{value}");
        };
        assert!(
            !worker.contains(char::is_control) && !fields.text("cause").unwrap().contains(char::is_control)
        );
    }

    #[test]
    fn of_an_unknown_event_what_cannot_be_a_key_is_kept() {
        let id = protocol::DeletionId::new(Timestamp::from_millis(1), 1);
        let seen = read_all(
            &json!({ "event": "new.event", "deletion": id, "count": 1, "is_new": true, "word": "x" }),
        );
        let What::Event { name, fields, is_known: false } = &seen[0].what else {
            panic!("{seen:?}");
        };
        assert_eq!(name, "new.event");
        assert_eq!(Value::Object(fields.0.clone()), json!({ "deletion": id, "count": 1, "is_new": true }));
    }

    #[test]
    fn an_invocation_tells_of_its_events_its_exceptions_and_its_outcome() {
        let event = json!({ "event": "batch.processed", "acked": 1, "severity": "INFO" });
        let kinds = |value: &Value| -> Vec<_> {
            read_all(value)
                .into_iter()
                .map(|seen| (seen.time.as_millis(), seen.severity, seen.what))
                .collect()
        };
        let fields = Fields(json!({ "acked": 1 }).as_object().unwrap().clone());
        let batch = What::Event { name: "batch.processed".to_owned(), fields, is_known: true };
        let exception = What::Exception { name: Some("TypeError".to_owned()) };
        assert_eq!(
            kinds(&invocation(
                "exception",
                &json!([{ "name": "TypeError", "timestamp": 3 }]),
                &json!([event])
            )),
            [(2, Severity::Info, batch.clone()), (3, Severity::Error, exception)]
        );
        assert_eq!(
            kinds(&invocation("exceededMemory", &json!([]), &json!([event.to_string()]))),
            [(2, Severity::Info, batch), (1, Severity::Error, What::Outcome("exceededMemory".to_owned()))]
        );
        assert_eq!(
            kinds(&invocation("canceled", &json!([]), &json!(["panicked at"]))),
            [
                (2, Severity::Error, What::Unstructured),
                (1, Severity::Warn, What::Outcome("canceled".to_owned()))
            ]
        );
    }

    #[test]
    fn a_tail_that_leaves_out_events_says_so() {
        let overload = json!({
            "outcome": null, "scriptName": null, "logs": [], "exceptions": [], "eventTimestamp": 1,
            "event": { "type": "overload", "message": "" },
        });
        assert_eq!(read_all(&overload)[0].what, What::Incomplete("the tail is sampled"));
        let mut cut = invocation("ok", &json!([]), &json!([]));
        cut["truncated"] = json!(true);
        assert!(read_all(&cut).iter().any(|seen| matches!(seen.what, What::Incomplete(_))));
    }

    #[test]
    fn other_values_are_no_part_of_a_tail() {
        for other in
            [json!(1), json!({ "level": "info" }), json!([{ "a": 1 }]), json!({ "event": { "type": "x" } })]
        {
            assert_eq!(read(&other, None, Timestamp::default()), None, "{other}");
        }
    }
}
