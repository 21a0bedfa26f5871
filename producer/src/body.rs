use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use protocol::limits::REQUEST_KEYS_MAX;
use protocol::{Labels, ObjectKey};
use serde::de::{Error, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};

use crate::labels::LabelsJson;
use crate::problem::{FieldError, Problem, ProblemCode};

/// What a request asks to delete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DeletionRequest<'a> {
    /// The keys: one at least, no duplicates, in the order asked.
    pub(crate) keys: Vec<ObjectKey<'a>>,
    /// How many duplicates were left out.
    pub(crate) duplicates_removed: usize,
    /// The caller's names and values.
    pub(crate) labels: Labels,
}

impl<'a> DeletionRequest<'a> {
    /// Reads the JSON body of `POST /v1/deletions`.
    ///
    /// 400 when it is no JSON, 422 with a pointer for each thing that is wrong in it, 413 when it names too many keys.
    pub(crate) fn from_json(body: &'a [u8]) -> Result<Self, Problem> {
        check_is_object(body)?;
        let wire: WireRequest<'a> = serde_json::from_slice(body).map_err(|error| explain(body, &error))?;
        let labels = wire.labels.parse()?;
        let asked = wire.object_keys.len();
        if asked == 0 {
            return Err(invalid("The request names no key.", "#/objectKeys", "name at least one key"));
        }
        if asked > REQUEST_KEYS_MAX {
            let detail = format!(
                "The request names {asked} keys, and one request takes at most {REQUEST_KEYS_MAX}. Send several requests."
            );
            return Err(Problem::new(ProblemCode::PayloadTooLarge, detail));
        }
        let keys = without_duplicates(parse_keys(wire.object_keys)?);
        let duplicates_removed = asked - keys.len();
        Ok(Self { keys, duplicates_removed, labels })
    }
}

/// How many things that are wrong one answer lists.
const ERRORS_LISTED_MAX: usize = 20;

fn parse_keys(texts: Vec<Text<'_>>) -> Result<Vec<ObjectKey<'_>>, Problem> {
    let mut keys = Vec::with_capacity(texts.len());
    let (mut errors, mut wrong) = (Vec::new(), 0);
    for (position, Text(text)) in texts.into_iter().enumerate() {
        match ObjectKey::parse(text) {
            Ok(key) => keys.push(key),
            Err(error) => {
                wrong += 1;
                if errors.len() < ERRORS_LISTED_MAX {
                    errors.push(FieldError {
                        pointer: format!("#/objectKeys/{position}"),
                        detail: error.to_string(),
                    });
                }
            }
        }
    }
    match wrong {
        0 => Ok(keys),
        1 => Err(Problem::validation("1 key is invalid. Nothing was accepted.", errors)),
        _ if wrong > errors.len() => {
            let detail =
                format!("{wrong} keys are invalid, the first {} listed. Nothing was accepted.", errors.len());
            Err(Problem::validation(detail, errors))
        }
        _ => Err(Problem::validation(format!("{wrong} keys are invalid. Nothing was accepted."), errors)),
    }
}

fn without_duplicates(mut keys: Vec<ObjectKey<'_>>) -> Vec<ObjectKey<'_>> {
    let first: Vec<bool> = {
        let mut seen = HashSet::with_capacity(keys.len());
        keys.iter().map(|key| seen.insert(key.as_str())).collect()
    };
    let mut first = first.into_iter();
    keys.retain(|_| first.next().unwrap_or(true));
    keys
}

/// Refuses JSON that is no object: serde would read an array for a struct, its elements in the order of the fields.
fn check_is_object(body: &[u8]) -> Result<(), Problem> {
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
        return Ok(());
    }
    match serde_json::from_slice::<IgnoredAny>(body) {
        Ok(_) => Err(not_a_request("#", "expected an object like {\"objectKeys\": [\"proj_42/a.jpg\"]}")),
        Err(error) => Err(explain(body, &error)),
    }
}

/// Says what is wrong with a body that could not be read. It is read a second time for that, this time keeping track of
/// the place, which would cost the good requests their speed.
fn explain(body: &[u8], error: &serde_json::Error) -> Problem {
    if !error.is_data() {
        let what = if error.is_eof() { "ends early" } else { "is not valid JSON" };
        let detail = format!("The body {what}: {error}.");
        return Problem::new(ProblemCode::MalformedRequest, detail);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let pointer = match serde_path_to_error::deserialize::<_, WireRequest<'_>>(&mut deserializer) {
        Err(error) => to_pointer(error.path()),
        Ok(_) => "#".to_owned(),
    };
    not_a_request(&pointer, &error.to_string())
}

fn to_pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = "#".to_owned();
    for segment in path {
        pointer.push('/');
        match segment {
            Segment::Seq { index } => pointer.push_str(&index.to_string()),
            Segment::Map { key } => pointer.push_str(&key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => pointer.push_str(variant),
            Segment::Unknown => pointer.push('?'),
        }
    }
    pointer
}

fn not_a_request(pointer: &str, error: &str) -> Problem {
    invalid("The body is not a deletion request. Nothing was accepted.", pointer, error)
}

fn invalid(detail: &str, pointer: &str, error: &str) -> Problem {
    Problem::validation(detail, vec![FieldError { pointer: pointer.to_owned(), detail: error.to_owned() }])
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRequest<'a> {
    #[serde(rename = "objectKeys", borrow)]
    object_keys: Vec<Text<'a>>,
    #[serde(default, borrow)]
    labels: LabelsJson<'a>,
}

/// A string, borrowed from the body wherever it has no escape in it, which serde's own `Cow` never is.
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem(body: &str) -> (ProblemCode, String) {
        let problem = DeletionRequest::from_json(body.as_bytes()).unwrap_err();
        let code = problem.code;
        (
            code,
            problem.into_response(&protocol::RequestId::new(protocol::Timestamp::from_millis(0), 0)).text(),
        )
    }

    #[track_caller]
    fn check(body: &str, code: ProblemCode, says: &[&str]) {
        let (found, answer) = problem(body);
        assert_eq!(found, code, "{answer}");
        for part in says {
            assert!(answer.contains(part), "{part} is not in {answer}");
        }
    }

    #[test]
    fn a_body_that_is_no_json_is_malformed() {
        check("", ProblemCode::MalformedRequest, &["ends early"]);
        check(r#"{"objectKeys":["a""#, ProblemCode::MalformedRequest, &["ends early"]);
        check("objectKeys=a", ProblemCode::MalformedRequest, &["not valid JSON", "line 1 column 1"]);
        check(r#"{"objectKeys":["a"]} x"#, ProblemCode::MalformedRequest, &["trailing characters"]);
        check(r#"{"objectKeys":["\ud800"]}"#, ProblemCode::MalformedRequest, &[]);
        check(&"[".repeat(100_000), ProblemCode::MalformedRequest, &["ends early"]);
        let deep = format!("{{\"objectKeys\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        check(&deep, ProblemCode::ValidationFailed, &["#/objectKeys/0\""]);
        let invalid_utf8 = DeletionRequest::from_json(b"{\"objectKeys\":[\"\xff\"]}").unwrap_err();
        assert_eq!(invalid_utf8.code, ProblemCode::MalformedRequest);
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        let invalid = ProblemCode::ValidationFailed;
        check(r#"{"objectKeys":[]}"#, invalid, &["#/objectKeys\"", "at least one"]);
        check(r#"{"objectKeys":["a",5]}"#, invalid, &["#/objectKeys/1\"", "expected a string"]);
        check(r#"{"objectKeys":["a",null]}"#, invalid, &["#/objectKeys/1\""]);
        check(r#"{"objectKeys":"a"}"#, invalid, &["#/objectKeys\"", "expected a sequence"]);
        check(r#"{"objectKeys":["a"],"dryrun":true}"#, invalid, &["#/dryrun\"", "unknown field `dryrun`"]);
        check(r#"{"objectKeys":["a"],"objectKeys":["b"]}"#, invalid, &["duplicate field"]);
        check("{}", invalid, &["missing field `objectKeys`"]);
        check("null", invalid, &["an object like"]);
        check(r#"[["a"]]"#, invalid, &["an object like"]);
        check(r#"{"objectKeys":["","a",""]}"#, invalid, &["2 keys", "#/objectKeys/0\"", "#/objectKeys/2\""]);
    }

    #[test]
    fn at_most_twenty_wrong_keys_are_listed_and_all_are_counted() {
        let body = format!("{{\"objectKeys\":[{}]}}", vec!["\"\""; 5_000].join(","));
        let (_, answer) = problem(&body);
        assert_eq!(answer.matches("pointer").count(), 20);
        assert!(answer.contains("5000 keys are invalid, the first 20 listed"), "{answer}");
    }

    #[test]
    fn a_request_takes_100_000_keys_and_not_one_more() {
        let keys = |count: usize| (0..count).map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(",");
        let body = format!("{{\"objectKeys\":[{}]}}", keys(REQUEST_KEYS_MAX));
        assert_eq!(DeletionRequest::from_json(body.as_bytes()).unwrap().keys.len(), REQUEST_KEYS_MAX);
        let body = format!("{{\"objectKeys\":[{}]}}", keys(REQUEST_KEYS_MAX + 1));
        check(&body, ProblemCode::PayloadTooLarge, &["100001 keys", "at most 100000"]);
    }

    proptest! {
        #[test]
        fn keys_come_through_byte_for_byte_in_order_and_once(texts in prop::collection::vec("\\PC{1,8}|[ab]", 1..60)) {
            let body = serde_json::json!({ "objectKeys": texts }).to_string();
            let request = DeletionRequest::from_json(body.as_bytes()).unwrap();
            let mut expected: Vec<&String> = Vec::new();
            for text in &texts {
                if !expected.contains(&text) {
                    expected.push(text);
                }
            }
            prop_assert_eq!(request.keys.iter().map(ObjectKey::as_str).collect::<Vec<_>>(), expected);
            prop_assert_eq!(request.keys.len() + request.duplicates_removed, texts.len());
        }
    }
}
