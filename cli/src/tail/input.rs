//! Bytes, in whatever pieces they come, to values: the JSON of `wrangler tail`, and what `wrangler dev` prints.
//!
//! `wrangler tail --format json` prints each value over many lines. `wrangler dev` prints an event as Node shows an
//! object, behind the Worker's name or a label, among lines of its own:
//!
//! ```text
//! [r2-deletion-consumer] {
//!   event: 'batch.processed',
//!   'messaging.system': 'cloudflare.queues',
//!   ...
//! }
//! ```
//!
//! What comes out does not depend on how the input was divided.

mod object;

use serde_json::{Deserializer, Value};

use self::object::{Parsed, parse_object};

/// More than any value of a tail: the platform gives an invocation 256 KB of log, and wrangler indents it.
const VALUE_BYTES_MAX: usize = 4 << 20;

/// What was found in the input.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    /// A value, and the Worker's name where a label before it says one.
    Value {
        /// The value.
        value: Value,
        /// The name of the label.
        worker: Option<String>,
    },
    /// The local runtime says that an exception was not caught.
    Uncaught,
    /// A line of something else. What it says is nobody's business here: it may hold anything.
    Noise,
}

/// Takes bytes and gives values.
#[derive(Debug, Default)]
pub(super) struct Input {
    buffer: Vec<u8>,
    /// How much of the buffer is done with.
    done: usize,
    /// The label before the object that comes next.
    label: Option<Label>,
    ended: bool,
}

#[derive(Clone, Debug)]
struct Label {
    worker: Option<String>,
}

/// What became of the beginning of the buffer.
enum Step {
    Found(Found),
    /// Something was read that is only a beginning.
    GoOn,
    /// More bytes are needed to tell.
    Wait,
}

impl Input {
    /// Takes the next bytes, and gives what is complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Found> {
        self.buffer.extend_from_slice(bytes);
        let found = self.drain();
        self.buffer.drain(..self.done);
        self.done = 0;
        found
    }

    /// Says that nothing more comes, and gives what there still is.
    pub(super) fn end(&mut self) -> Vec<Found> {
        self.ended = true;
        self.push(&[])
    }

    fn drain(&mut self) -> Vec<Found> {
        let mut all = Vec::new();
        loop {
            match self.step() {
                Step::Found(found) => all.push(found),
                Step::GoOn => {}
                Step::Wait => return all,
            }
        }
    }

    fn step(&mut self) -> Step {
        let blank = self.rest().iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.done += blank;
        match self.rest().first() {
            None => Step::Wait,
            Some(b'{' | b'[') => self.value(),
            Some(_) => self.line(),
        }
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.done..).unwrap_or_default()
    }

    /// As much of the rest as one value or line may have, and whether more could make a difference.
    fn window(&self) -> (&[u8], bool) {
        let rest = self.rest();
        let window = rest.get(..VALUE_BYTES_MAX).unwrap_or(rest);
        (window, !self.ended && window.len() < VALUE_BYTES_MAX)
    }

    /// Something that may be JSON, or an object as Node shows it.
    fn value(&mut self) -> Step {
        let (window, may_grow) = self.window();
        let mut stream = Deserializer::from_slice(window).into_iter::<Value>();
        let read = match stream.next() {
            Some(Ok(value)) => Some((value, stream.byte_offset())),
            Some(Err(error)) if error.is_eof() && may_grow => return Step::Wait,
            _ => match parse_object(window) {
                Parsed::Whole(value, length) => Some((value, length)),
                Parsed::Unfinished if may_grow => return Step::Wait,
                Parsed::Unfinished | Parsed::Other => None,
            },
        };
        let Some((value, length)) = read else {
            return self.line();
        };
        self.done += length;
        let worker = self.label.take().and_then(|label| label.worker);
        Step::Found(Found::Value { value, worker })
    }

    /// A line that does not begin with a value; an object may follow a label in it.
    fn line(&mut self) -> Step {
        let (window, may_grow) = self.window();
        let end = window.iter().position(|&byte| byte == b'\n');
        if end.is_none() && may_grow {
            return Step::Wait;
        }
        let length = end.unwrap_or(window.len());
        let line = window.get(..length).unwrap_or_default();
        // A label that no object has followed was none.
        let label = if self.label.is_some() { None } else { label(line) };
        let found = if says_uncaught(line) { Found::Uncaught } else { Found::Noise };
        self.label = None;
        if let Some((label, before)) = label {
            self.label = Some(label);
            self.done += before;
            return Step::GoOn;
        }
        self.done += length;
        Step::Found(found)
    }
}

/// The label that `line` begins with, and where the object behind it begins.
fn label(line: &[u8]) -> Option<(Label, usize)> {
    let brace = line.iter().position(|&byte| byte == b'{')?;
    let before = plain(line.get(..brace)?);
    let before = before.trim();
    if before.ends_with("[ERROR]") || before.ends_with("[WARNING]") {
        return Some((Label { worker: None }, brace));
    }
    let name = before.strip_prefix('[')?.strip_suffix(']')?;
    Some((Label { worker: Some(name.to_owned()) }, brace))
}

fn says_uncaught(line: &[u8]) -> bool {
    plain(line).contains("[ERROR] Uncaught")
}

/// `line` without the terminal's colours.
fn plain(line: &[u8]) -> String {
    let mut rest = line;
    let mut text = Vec::new();
    while let Some((&first, behind)) = rest.split_first() {
        let colour = object::colour_length(rest);
        if colour == 0 {
            text.push(first);
            rest = behind;
        } else {
            rest = rest.get(colour..).unwrap_or_default();
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &[u8]) -> Vec<Found> {
        let mut input = Input::default();
        let mut found = input.push(text);
        found.extend(input.end());
        found
    }

    fn value(value: Value) -> Found {
        Found::Value { value, worker: None }
    }

    #[test]
    fn values_may_be_broken_into_lines_in_any_way() {
        let expected = vec![value(json!({ "a": [1, { "b": "}\n{" }] })), value(json!({ "c": null }))];
        for text in [
            "{\"a\":[1,{\"b\":\"}\\n{\"}]}{\"c\":null}",
            "{\"a\":[1,{\"b\":\"}\\n{\"}]}\n\n{\"c\":null}\n",
            "{\n  \"a\":\n [1, {\"b\": \"}\\n{\"}\n]\n}\n {\"c\"\n:null\n}",
        ] {
            assert_eq!(read(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn objects_of_the_local_runtime_are_read_with_the_name_of_their_worker() {
        let text = "[wrangler:info] Ready on http://127.0.0.1:1\n\
                    [r2-deletion-consumer] {\n  event: 'batch.processed',\n  'messaging.system': 'it\\'s',\n  \
                    acked: 1\n}\n\
                    \x1b[31m✘ \x1b[41;31m[\x1b[41;97mERROR\x1b[41;31m]\x1b[0m \x1b[1m{\x1b[0m\n\n    event: 'x',\n  \
                    }\n\n";
        assert_eq!(
            read(text.as_bytes()),
            [
                Found::Noise,
                Found::Value {
                    value: json!({ "event": "batch.processed", "messaging.system": "it's", "acked": 1 }),
                    worker: Some("r2-deletion-consumer".to_owned()),
                },
                value(json!({ "event": "x" })),
            ]
        );
    }

    #[test]
    fn a_label_that_no_object_follows_names_no_later_one() {
        assert_eq!(read(b"[a] {} [b] { c\n{ d: 1 }\n")[1..], [Found::Noise, value(json!({ "d": 1 }))]);
    }

    #[test]
    fn a_value_that_never_ends_loses_no_value_behind_its_lines() {
        let text = b"{\"a\": 1,\n{\"b\": 2}\n[\n{\"c\": 3}\n";
        assert_eq!(
            read(text),
            [Found::Noise, value(json!({ "b": 2 })), Found::Noise, value(json!({ "c": 3 }))]
        );
    }

    #[test]
    fn an_exception_of_the_local_runtime_is_seen_and_its_text_is_not() {
        assert_eq!(read("✘ [ERROR] Uncaught Error: proj_42/a.jpg\n".as_bytes()), [Found::Uncaught]);
    }

    /// Bytes that look more like a log than chance makes them.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..6),
            prop::sample::select(vec![
                "{",
                "}",
                "[",
                "]",
                "\n",
                ",",
                ":",
                "'",
                "\"",
                "\\",
                "`",
                " + ",
                "\x1b[1m",
                "\x1b",
                "é",
                "[a] {",
                "[ERROR] {",
                "event: 'x'",
                "\"event\":\"x\"",
                "1",
                "-",
                "1e999",
                "null",
                "[ERROR] Uncaught",
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_is_found_does_not_depend_on_how_the_input_was_divided(
            bytes in bytes(),
            sizes in proptest::collection::vec(1_usize..9, 1..9),
        ) {
            let whole = read(&bytes);
            let mut input = Input::default();
            let (mut found, mut rest) = (Vec::new(), bytes.as_slice());
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, behind) = rest.split_at(rest.len().min(*size));
                found.extend(input.push(piece));
                rest = behind;
            }
            found.extend(input.end());
            prop_assert_eq!(found, whole);
        }
    }
}
