use protocol::Labels;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::fields::{JsonObject, pointer};
use crate::page::invalid as parameter_invalid;
use crate::problem::{FieldError, Problem};
use crate::wire::Text;

pub(crate) const LABELS_MAX: usize = 16;
pub(crate) const NAME_CHARACTERS_MAX: usize = 64;
pub(crate) const VALUE_BYTES_MAX: usize = 512;

/// Whether a text can be the name of a label: 1 to 64 characters of `[A-Za-z0-9_.-]`.
fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=NAME_CHARACTERS_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// What is wrong with a text as the value of a label, if anything is.
fn wrong_value(text: &str) -> Option<String> {
    (text.len() > VALUE_BYTES_MAX)
        .then(|| format!("the value has {} bytes, and a label's has at most {VALUE_BYTES_MAX}", text.len()))
}

/// Takes in a parameter of a query that names a label, `label.NAME`; `false` when it is none. 422 for a label that is none.
pub(crate) fn take_parameter(parameter: &str, value: &str, labels: &mut Labels) -> Result<bool, Problem> {
    let Some(name) = parameter.strip_prefix("label.") else { return Ok(false) };
    if !is_name(name) {
        return Err(parameter_invalid(
            parameter,
            "a label's name of 1 to 64 characters of A-Z a-z 0-9 _ . -",
        ));
    }
    if wrong_value(value).is_some() {
        return Err(parameter_invalid(parameter, "a value of at most 512 bytes"));
    }
    labels.insert(name.to_owned(), value.to_owned());
    Ok(true)
}

/// What is wrong with so many labels, if anything is.
pub(crate) fn too_many(count: usize) -> Option<String> {
    (count > LABELS_MAX).then(|| format!("{count} labels, and a deletion has at most {LABELS_MAX}"))
}

/// The labels of a request as they came, whatever they are.
#[derive(Default)]
pub(crate) struct LabelsJson<'a>(Option<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for LabelsJson<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|json| Self(Some(json)))
    }
}

impl LabelsJson<'_> {
    /// The labels, or 422 with a pointer to each that is wrong.
    pub(crate) fn parse(&self) -> Result<Labels, Problem> {
        let Some(json) = self.0 else { return Ok(Labels::default()) };
        let mut errors = Vec::new();
        let Ok(JsonObject::<LABELS_MAX> { first, count }) = serde_json::from_str(json.get()) else {
            errors.push(error("#/labels".to_owned(), "expected an object of strings"));
            return Err(invalid(errors));
        };
        if let Some(detail) = too_many(count) {
            errors.push(error("#/labels".to_owned(), detail));
        }
        let mut labels = Labels::default();
        for (Text(name), value) in first {
            match parse_value(&name, value) {
                Err(detail) => errors.push(error(pointer("#/labels", &name), detail)),
                Ok(value) => {
                    if !labels.insert(name.to_string(), value) {
                        errors.push(error(pointer("#/labels", &name), "the name is there twice"));
                    }
                }
            }
        }
        if errors.is_empty() { Ok(labels) } else { Err(invalid(errors)) }
    }
}

fn error(pointer: String, detail: impl Into<String>) -> FieldError {
    FieldError { pointer, detail: detail.into() }
}

fn invalid(errors: Vec<FieldError>) -> Problem {
    Problem::validation("The labels are invalid. Nothing was accepted.", errors)
}

fn parse_value(name: &str, value: &RawValue) -> Result<String, String> {
    if !is_name(name) {
        return Err(format!("a label's name has 1 to {NAME_CHARACTERS_MAX} characters of A-Z a-z 0-9 _ . -"));
    }
    let Ok(Text(value)) = serde_json::from_str(value.get()) else {
        return Err("expected a string as the label's value".to_owned());
    };
    wrong_value(&value).map_or_else(|| Ok(value.into_owned()), Err)
}

#[cfg(test)]
mod tests {
    use protocol::{RequestId, Timestamp};
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::WireRequest;

    fn parse(body: &str) -> Result<Labels, Problem> {
        WireRequest::from_json(body).map_err(|(error, _)| error).unwrap().labels.parse()
    }

    /// What is said of labels, written as JSON: pairs of pointer and detail.
    fn errors(labels: &str) -> Vec<(String, String)> {
        let body = format!("{{\"labels\":{labels},\"objectKeys\":[\"a\"]}}");
        let problem = parse(&body).unwrap_err();
        let text = problem.into_response(&RequestId::new(Timestamp::from_millis(0), 0)).text();
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["status"], 422, "{answer}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let errors = answer["errors"].as_array().unwrap();
        errors.iter().map(|error| (text(&error["pointer"]), text(&error["detail"]))).collect()
    }

    #[test]
    fn labels_come_through_and_may_be_left_out() {
        let longest = ("n".repeat(64), "é".repeat(256));
        let labels =
            json!({"reason": "erasure", "A.b_c-9": "", "__proto__": "\0 \"\u{1F600}", &longest.0: longest.1});
        let body = json!({"objectKeys": ["a"], "labels": labels}).to_string();
        assert_eq!(serde_json::to_value(parse(&body).unwrap()).unwrap(), labels);
        for body in [r#"{"objectKeys":["a"]}"#, r#"{"objectKeys":["a"],"labels":{}}"#] {
            assert!(parse(body).unwrap().is_empty());
        }
    }

    #[test]
    fn each_label_that_is_wrong_is_pointed_at() {
        let long_value = format!("{{\"v\":\"{}\"}}", "é".repeat(257));
        let long_name = format!("{{\"{}\":\"v\"}}", "n".repeat(65));
        let cut = format!("#/labels/{}…", "n".repeat(64));
        for (labels, pointer, says) in [
            ("null", "#/labels", "expected an object of strings"),
            ("[]", "#/labels", "expected an object of strings"),
            (r#"{"a/b~":"v"}"#, "#/labels/a~1b~0", "1 to 64 characters"),
            (r#"{"":"v"}"#, "#/labels/", "1 to 64 characters"),
            (r#"{"ü":"v"}"#, "#/labels/ü", "1 to 64 characters"),
            (&long_name, cut.as_str(), "1 to 64 characters"),
            (&long_value, "#/labels/v", "514 bytes"),
            (r#"{"n":1}"#, "#/labels/n", "expected a string"),
            (r#"{"n":null}"#, "#/labels/n", "expected a string"),
            (r#"{"n":{"a":["b"]}}"#, "#/labels/n", "expected a string"),
            (r#"{"n":"a","m":"b","n":"a"}"#, "#/labels/n", "twice"),
            (r#"{"n":"a","\u006e":"b"}"#, "#/labels/n", "twice"),
        ] {
            let errors = errors(labels);
            assert_eq!((errors.len(), errors[0].0.as_str()), (1, pointer), "{labels}: {errors:?}");
            assert!(errors[0].1.contains(says), "{labels}: {errors:?}");
        }
        assert_eq!(errors(r#"{"n":1,"m":2,"good":"v"}"#).len(), 2);
    }

    #[test]
    fn a_deletion_has_16_labels_and_not_one_more() {
        let labels = |count: usize| (0..count).map(|n| (format!("n{n}"), "v".to_owned())).collect::<Labels>();
        let body = json!({"objectKeys": ["a"], "labels": labels(16)}).to_string();
        assert_eq!(parse(&body).unwrap().len(), 16);
        let errors = errors(&json!(labels(17)).to_string());
        assert_eq!(errors, [("#/labels".to_owned(), "17 labels, and a deletion has at most 16".to_owned())]);
    }
}
