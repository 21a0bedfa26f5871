use std::collections::HashSet;

use protocol::limits::{REQUEST_KEYS_MAX, UNDO_SECONDS_MAX};
use protocol::{Fence, Labels, ObjectKey};

use crate::fields::text;
use crate::problem::{ERRORS_LISTED_MAX, FieldError, Problem, ProblemCode};
use crate::wire::{Text, WireRequest};

/// What a request asks to delete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DeletionRequest<'a> {
    /// The keys: one at least, no duplicates, in the order asked.
    pub(crate) keys: Vec<ObjectKey<'a>>,
    /// How many duplicates were left out.
    pub(crate) duplicates_removed: usize,
    /// How long nothing is to be done, in seconds: 0 to [`UNDO_SECONDS_MAX`].
    pub(crate) delay_seconds: u32,
    /// Whether what is uploaded since the request is kept.
    pub(crate) fence: Fence,
    /// The caller's names and values.
    pub(crate) labels: Labels,
}

impl<'a> DeletionRequest<'a> {
    /// Reads the JSON body of `POST /v1/deletions`.
    ///
    /// 400 when it is no JSON, 422 with a pointer for each thing that is wrong in it, 413 when it names too many keys;
    /// and what `authorize` says about the keys, which it is shown as they were asked, duplicates and all.
    pub(crate) fn from_json(
        body: &'a [u8],
        authorize: impl FnOnce(&[ObjectKey<'a>]) -> Result<(), Problem>,
    ) -> Result<Self, Problem> {
        let wire =
            WireRequest::from_json(text(body)?).map_err(|(error, pointer)| explain(&error, &pointer))?;
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
        if wire.delay_seconds > UNDO_SECONDS_MAX {
            let error = format!("expected at most {UNDO_SECONDS_MAX} seconds, which is a day");
            return Err(invalid("The delay is too long. Nothing was accepted.", "#/delay_seconds", &error));
        }
        let (delay_seconds, fence) = (wire.delay_seconds, wire.fence);
        let keys = parse_keys(wire.object_keys)?;
        authorize(&keys)?;
        let keys = without_duplicates(keys);
        let duplicates_removed = asked - keys.len();
        Ok(Self { keys, duplicates_removed, delay_seconds, fence, labels })
    }
}

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

/// Says what is wrong with a body that could not be read.
fn explain(error: &serde_json::Error, pointer: &str) -> Problem {
    if error.is_data() {
        let detail = "The body is not a deletion request. Nothing was accepted.";
        return invalid(detail, pointer, &error.to_string());
    }
    let what = if error.is_eof() { "ends early" } else { "is not valid JSON" };
    Problem::new(ProblemCode::MalformedRequest, format!("The body {what}: {error}."))
}

fn invalid(detail: &str, pointer: &str, error: &str) -> Problem {
    Problem::validation(detail, vec![FieldError { pointer: pointer.to_owned(), detail: error.to_owned() }])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(body: &[u8]) -> Result<DeletionRequest<'_>, Problem> {
        DeletionRequest::from_json(body, |_| Ok(()))
    }

    fn problem(body: impl AsRef<[u8]>) -> (ProblemCode, String) {
        let problem = parse(body.as_ref()).unwrap_err();
        let code = problem.code;
        (
            code,
            problem.into_response(&protocol::RequestId::new(protocol::Timestamp::from_millis(0), 0)).text(),
        )
    }

    #[track_caller]
    fn check(body: impl AsRef<[u8]>, code: ProblemCode, says: &[&str]) {
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
        check("[".repeat(100_000), ProblemCode::ValidationFailed, &["an object like"]);
        let deep = format!("{{\"objectKeys\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        check(&deep, ProblemCode::ValidationFailed, &["#/objectKeys/0\""]);
        check(b"{\"objectKeys\":[\"\xff\"]}", ProblemCode::MalformedRequest, &["not UTF-8 from byte 16"]);
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
        check(
            r#"{"objectKeys":["a"],"delay_seconds":86401}"#,
            invalid,
            &["#/delay_seconds\"", "at most 86400"],
        );
        check(r#"{"objectKeys":["a"],"delay_seconds":-1}"#, invalid, &["#/delay_seconds\""]);
        check(r#"{"objectKeys":["a"],"delay_seconds":"5"}"#, invalid, &["#/delay_seconds\""]);
        check(r#"{"objectKeys":["a"],"delay_seconds":1.5}"#, invalid, &["#/delay_seconds\""]);
        for fence in [r#""on""#, r#""AUTO""#, "true", "null", r#"{"auto":null}"#] {
            let body = format!(r#"{{"objectKeys":["a"],"fence":{fence}}}"#);
            check(&body, invalid, &["#/fence\"", "expected"]);
        }
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
        assert_eq!(parse(body.as_bytes()).unwrap().keys.len(), REQUEST_KEYS_MAX);
        let body = format!("{{\"objectKeys\":[{}]}}", keys(REQUEST_KEYS_MAX + 1));
        check(&body, ProblemCode::PayloadTooLarge, &["100001 keys", "at most 100000"]);
    }

    proptest! {
        #[test]
        fn keys_come_through_byte_for_byte_in_order_and_once(texts in prop::collection::vec("\\PC{1,8}|[ab]", 1..60)) {
            let body = serde_json::json!({ "objectKeys": texts }).to_string();
            let request = parse(body.as_bytes()).unwrap();
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
