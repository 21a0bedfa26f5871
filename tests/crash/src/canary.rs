//! Values that occur nowhere else, to find out where they get to.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// What one pair is given to keep to itself. Every key and prefix of its test begins with [`Canary::namespace`], which the
/// bucket and the calls of the API put before the test's own names and take away again: no test has to think of it.
///
/// The values are of letters and digits only, which JSON and percent encoding leave as they are.
#[derive(Debug, Clone)]
pub struct Canary {
    id: String,
}

/// Where a value may be that is nobody's business elsewhere: members of the API's JSON that its description says have keys or
/// names of the caller's in them.
const TELLING_MEMBERS: [&str; 2] = ["prefixes", "labels"];
/// And lists that are nothing but keys, or messages with keys in them.
const TELLING_PATHS: [&str; 3] = ["/failures", "/skipped", "/unreadable-messages"];

impl Canary {
    /// One that no other test has.
    pub(crate) fn new() -> Self {
        let random = RandomState::new().build_hasher().finish();
        // 12 digits of base 36, so that the longest keys of the tests are within R2's limit still.
        let digits = (0..12).scan(random, |left, _| {
            let digit = char::from_digit(u32::try_from(*left % 36).unwrap_or_default(), 36);
            *left /= 36;
            digit
        });
        Self { id: digits.collect() }
    }

    /// What all keys and prefixes begin with.
    pub fn namespace(&self) -> String {
        format!("k{}/", self.id)
    }

    /// A key as it is in the bucket and in messages, for what a test writes past the API.
    pub fn key(&self, name: &str) -> String {
        self.namespace() + name
    }

    pub(crate) fn token(&self) -> String {
        format!("crash-test-t{}", self.id)
    }

    pub(crate) fn idempotency_key(&self, name: &str) -> String {
        format!("i{}{name}", self.id)
    }

    fn label(&self) -> String {
        format!("l{}", self.id)
    }

    /// What is given away nowhere, with what it is.
    pub(crate) fn secrets(&self) -> Vec<(&'static str, String)> {
        // Of the token and of a key that part is looked for which is this test's alone.
        vec![
            ("a token", format!("t{}", self.id)),
            ("a key or prefix", format!("k{}", self.id)),
            ("an Idempotency-Key", format!("i{}", self.id)),
            ("a label", self.label()),
        ]
    }

    /// The request's body with the canary in its keys, prefixes and labels. The empty prefix stays: it is the whole bucket.
    pub(crate) fn dress(&self, body: &Value) -> Value {
        let mut body = body.clone();
        for member in ["objectKeys", "prefixes"] {
            for name in body.get_mut(member).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(text) = name.as_str().filter(|text| !text.is_empty()) {
                    *name = self.key(text).into();
                }
            }
        }
        for label in body.get_mut("labels").and_then(Value::as_object_mut).into_iter().flatten() {
            if let Some(text) = label.1.as_str() {
                *label.1 = (self.label() + text).into();
            }
        }
        body
    }

    /// The text without the canary.
    pub(crate) fn undress(&self, text: &str) -> String {
        text.replace(&self.namespace(), "").replace(&self.label(), "")
    }

    /// Checks that an answer of the API, or a notice, tells only what it is there to tell. `POST /` answers with the keys that
    /// its caller has named.
    pub(crate) fn check_told(&self, path: &str, text: &str) -> Result<()> {
        let is_telling = path == "/" || TELLING_PATHS.iter().any(|telling| path.contains(telling));
        let mut body: Value = serde_json::from_str(text).unwrap_or_else(|_| text.into());
        without_members(&mut body);
        let text = body.to_string();
        for (what, value) in self.secrets() {
            let is_name = what == "a key or prefix" || what == "a label";
            ensure!((is_telling && is_name) || !text.contains(&value), "{path} tells {what}: {text}");
        }
        Ok(())
    }
}

fn without_members(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !TELLING_MEMBERS.contains(&name.as_str()));
            members.values_mut().for_each(without_members);
        }
        Value::Array(values) => values.iter_mut().for_each(without_members),
        _ => {}
    }
}

/// The lines that have one of the values in them, in whatever form, with what that is.
pub(crate) fn leaks<'a>(
    lines: &'a [String],
    secrets: &[(&'static str, String)],
) -> BTreeMap<&'a str, &'static str> {
    let forms: Vec<_> = secrets
        .iter()
        .flat_map(|(what, value)| forms(value).into_iter().map(move |form| (*what, form)))
        .collect();
    let found = lines.iter().filter_map(|line| {
        let (what, _) = forms.iter().find(|(_, form)| line.contains(form))?;
        Some((line.as_str(), *what))
    });
    found.collect()
}

/// A text as it is, escaped as JSON and for URLs, in base64 wherever it begins, in hexadecimal, and as a list of bytes, as Rust
/// shows them.
fn forms(text: &str) -> Vec<String> {
    let joined =
        |separator: &str, one: fn(u8) -> String| text.bytes().map(one).collect::<Vec<_>>().join(separator);
    let percent = |kept: fn(u8) -> bool| {
        text.bytes()
            .map(|byte| if kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect::<String>()
    };
    let mut forms = vec![
        text.to_owned(),
        Value::from(text).to_string().trim_matches('"').to_owned(),
        percent(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)),
        percent(|byte| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte)),
        joined("", |byte| format!("{byte:02x}")),
        joined("", |byte| format!("{byte:02X}")),
        joined(", ", |byte| byte.to_string()),
    ];
    // However many bytes are before it; the characters at both ends depend on what is beside, and are left out.
    for (before, first) in [("", 0), ("-", 2), ("--", 3)] {
        let bytes = [before, text].concat();
        let last = bytes.len() * 8 / 6;
        for encoded in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            forms.extend(encoded.get(first..last).map(str::to_owned));
        }
    }
    forms.sort_unstable();
    forms.dedup();
    forms
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;

    /// As a log could have it: by itself, within a text, and encoded with whatever is beside it.
    #[test]
    fn a_value_is_found_in_every_form_and_nothing_else_is() {
        let value = "http://127.0.0.1/c\"é?token=x1y2z3";
        let url: String = "http%3A%2F%2F127.0.0.1%2Fc%22%C3%A9%3Ftoken%3Dx1y2z3".to_owned();
        let mut lines = vec![
            format!("before {value} behind"),
            json!({ "message": value }).to_string(),
            format!("/v1?next={url}"),
            format!("{:?}", value.as_bytes()),
        ];
        for beside in ["", "a", "ab", "abc"] {
            let text = format!("{beside}{value}{beside}");
            lines.extend([STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text)]);
            lines.push(text.bytes().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")));
        }
        let secrets = [("a URL", value.to_owned())];
        for line in &lines {
            assert_eq!(leaks(std::slice::from_ref(line), &secrets).len(), 1, "{line}");
        }
        assert!(leaks(&["http://127.0.0.1/c?token=x1y2z4".to_owned()], &secrets).is_empty());
    }

    #[test]
    fn an_answer_may_tell_keys_only_where_the_api_says_so() {
        let canary = Canary::new();
        let key = canary.key("a");
        let told = |path: &str, body: Value| canary.check_told(path, &body.to_string()).is_ok();
        assert!(told("/v1/deletions/x/failures", json!({"failures": [{ "key": key }]})));
        assert!(told("/v1/deletions/x", json!({"id": "x", "prefixes": [key]})));
        assert!(!told("/v1/deletions/x", json!({"id": "x", "detail": key})));
        assert!(!told("/v1/deletions/x/failures", json!({"detail": canary.token()})));
        let body = json!({"objectKeys": ["a", ""], "prefixes": [""], "labels": {"reason": "test"}});
        let dressed = canary.dress(&body);
        assert_eq!(dressed["objectKeys"], json!([key, ""]));
        assert_eq!(canary.undress(&dressed.to_string()), body.to_string());
    }
}
