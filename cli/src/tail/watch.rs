//! The whole of `tail` without a terminal or a clock: bytes in, lines and an exit code out.

use protocol::{DeletionId, Severity, Timestamp, rfc3339};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    event::{self, Seen, What},
    input::{Found, Input},
    totals::Totals,
    words::words,
};

/// What is to be shown.
#[derive(Clone, Debug, Default)]
pub struct Show {
    /// Events as JSON rather than in words.
    pub json: bool,
    /// Only from this severity on; nothing when there is none.
    pub from: Option<Severity>,
    /// The deletion after whose end the watch is over.
    pub until: Option<DeletionId>,
}

/// One line to be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How loud it is.
    pub severity: Severity,
    /// What it says, without its end.
    pub text: String,
}

/// Watches one or more tails.
#[derive(Debug)]
pub struct Watch {
    show: Show,
    inputs: Vec<Input>,
    totals: Totals,
    /// Whether anything was read that a tail has, and anything that it has not.
    is_tail: bool,
    has_noise: bool,
    /// How many have ended.
    ended: usize,
    /// The state in which the deletion that is waited for has ended.
    ended_as: Option<String>,
}

/// The last line of `--json`.
#[derive(Serialize)]
struct Summary<'a> {
    event: &'static str,
    #[serde(flatten)]
    totals: &'a Totals,
    exit_code: u8,
}

/// Input that has no tail in it, or something else that the command cannot do.
pub const UNUSABLE: u8 = 1;

impl Watch {
    /// Begins to watch so many tails.
    pub fn new(show: Show, tails: usize) -> Self {
        let inputs = (0..tails).map(|_| Input::default()).collect();
        Self {
            show,
            inputs,
            totals: Totals::default(),
            is_tail: false,
            has_noise: false,
            ended: 0,
            ended_as: None,
        }
    }

    /// Takes what a tail has said next, at the time it came.
    pub fn push(&mut self, tail: usize, bytes: &[u8], now: Timestamp) -> Vec<Line> {
        let found = self.inputs.get_mut(tail).map(|input| input.push(bytes)).unwrap_or_default();
        self.take(found, now)
    }

    /// Takes that nothing more comes of a tail.
    pub fn end(&mut self, tail: usize, now: Timestamp) -> Vec<Line> {
        let found = self.inputs.get_mut(tail).map(Input::end).unwrap_or_default();
        self.ended += 1;
        self.take(found, now)
    }

    fn take(&mut self, found: Vec<Found>, now: Timestamp) -> Vec<Line> {
        let mut lines = Vec::new();
        for found in found {
            for seen in self.see(&found, now) {
                // Nothing behind the end: the same whether it came with it or later.
                if self.is_over() {
                    return lines;
                }
                lines.extend(self.line(&seen));
                self.totals.add(&seen);
                self.note_end(&seen);
            }
        }
        lines
    }

    fn see(&mut self, found: &Found, now: Timestamp) -> Vec<Seen> {
        let seen = match found {
            Found::Value { value, worker } => event::read(value, worker.as_deref(), now),
            Found::Uncaught => {
                let what = What::Exception { name: None };
                Some(vec![Seen { time: now, worker: None, severity: Severity::Error, what }])
            }
            Found::Noise => None,
        };
        match seen {
            Some(_) => self.is_tail = true,
            None => self.has_noise = true,
        }
        seen.unwrap_or_default()
    }

    fn note_end(&mut self, seen: &Seen) {
        if let (Some(until), What::Event { name, fields, .. }) = (&self.show.until, &seen.what)
            && name == "deletion.finished"
            && fields.text("deletion") == Some(until.as_str())
        {
            self.ended_as = fields.text("state").map(str::to_owned);
        }
    }

    /// Whether the deletion that was waited for has ended.
    pub fn is_over(&self) -> bool {
        self.ended_as.is_some()
    }

    /// Whether nothing that came was a tail's, or nothing came at all.
    pub fn is_no_tail(&self) -> bool {
        !self.is_tail && (self.has_noise || self.ended >= self.inputs.len())
    }

    /// One line for now, `idle_ms` after the latest event.
    pub fn status(&self, idle_ms: u64) -> String {
        self.totals.status(idle_ms)
    }

    /// The lines at the end.
    pub fn summary(&self) -> Vec<String> {
        if !self.show.json {
            let apart = self.show.from.map(|_| String::new());
            return apart.into_iter().chain(self.totals.summary()).collect();
        }
        let summary = Summary { event: "summary", totals: &self.totals, exit_code: self.exit_code() };
        // Counts and names always serialize.
        vec![serde_json::to_string(&summary).unwrap_or_default()]
    }

    /// What the command ends with.
    pub fn exit_code(&self) -> u8 {
        match (&self.show.until, self.ended_as.as_deref()) {
            (_, None) if self.is_no_tail() => UNUSABLE,
            (None, _) => self.totals.exit_code(),
            (Some(_), Some("succeeded" | "planned")) => 0,
            (Some(_), Some("cancelled")) => 4,
            (Some(_), Some(_)) => 2,
            (Some(_), None) => UNUSABLE,
        }
    }

    fn line(&self, seen: &Seen) -> Option<Line> {
        let from = self.show.from?;
        if loudness(seen.severity) < loudness(from) {
            return None;
        }
        let text = if self.show.json { as_json(seen) } else { in_words(seen) };
        Some(Line { severity: seen.severity, text })
    }
}

fn loudness(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 0,
        Severity::Warn => 1,
        Severity::Error => 2,
    }
}

/// What it is called: the event's own name, or one of ours for what no Worker calls an event.
fn name(what: &What) -> &str {
    match what {
        What::Event { name, .. } => name,
        What::Unstructured => "tail.unstructured",
        What::Exception { .. } => "tail.exception",
        What::Outcome(_) => "tail.outcome",
        What::Incomplete(_) => "tail.incomplete",
    }
}

fn in_words(seen: &Seen) -> String {
    let level = match seen.severity {
        Severity::Info => "     ",
        Severity::Warn => "WARN ",
        Severity::Error => "ERROR",
    };
    let time = rfc3339_of(seen.time);
    let clock = time.get(11..).unwrap_or_default();
    let worker = seen.worker.as_deref().unwrap_or("?");
    // All of ours begin so; the rest of the line is worth more.
    let worker = worker.strip_prefix("r2-deletion-").unwrap_or(worker);
    let deletion = match &seen.what {
        What::Event { fields, .. } => fields.text("deletion").map(|id| format!("{id}  ")),
        _ => None,
    };
    let line = format!(
        "{clock}  {level}  {worker:<8}  {:<19}  {}{}",
        name(&seen.what),
        deletion.unwrap_or_default(),
        words(&seen.what)
    );
    line.trim_end().to_owned()
}

fn as_json(seen: &Seen) -> String {
    let mut line = Map::new();
    match &seen.what {
        What::Event { fields, .. } => {
            line.extend(fields.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        What::Unstructured => {}
        What::Exception { name } => drop(line.insert("error.type".to_owned(), name.clone().into())),
        What::Outcome(outcome) => drop(line.insert("outcome".to_owned(), outcome.clone().into())),
        What::Incomplete(why) => drop(line.insert("cause".to_owned(), (*why).into())),
    }
    // A severity always serializes.
    let severity = serde_json::to_value(seen.severity).unwrap_or_default();
    let ours: [(&str, Value); 4] = [
        ("event", name(&seen.what).into()),
        ("time", rfc3339_of(seen.time).into()),
        ("worker", seen.worker.clone().into()),
        ("severity", severity),
    ];
    // Last, so that no field stands in for one of them.
    line.extend(ours.map(|(name, value)| (name.to_owned(), value)));
    Value::Object(line).to_string()
}

fn rfc3339_of(time: Timestamp) -> String {
    let text = rfc3339::serialize(&time, serde_json::value::Serializer);
    // A time always serializes.
    text.ok().and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
}
