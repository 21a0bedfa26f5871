use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::http::{Body, BodyError};
use crate::problem::{FieldError, Problem, ProblemCode};
use crate::wire::Text;

/// Largest body of a call that takes a few fields, in bytes.
const BYTES_MAX: usize = 65_536;

/// Reads the body of a call that takes a few fields: 413 when it is far too long, 400 when it broke off.
pub(crate) async fn read_small(mut body: impl Body) -> Result<Vec<u8>, Problem> {
    let mut buffer = Vec::new();
    loop {
        let room = BYTES_MAX - buffer.len();
        match body.read(&mut buffer, room).await {
            Ok(true) => {}
            Ok(false) => return Ok(buffer),
            Err(BodyError::TooLarge) => {
                let detail =
                    format!("The body has more than {BYTES_MAX} bytes. This call takes a few fields.");
                return Err(Problem::new(ProblemCode::PayloadTooLarge, detail));
            }
            Err(BodyError::Broken) => {
                let detail = "The body broke off. Send the request again.";
                return Err(Problem::new(ProblemCode::MalformedRequest, detail));
            }
        }
    }
}

/// A body as text. All JSON is read as text here: a deserializer for bytes would be another one in the wasm.
pub(crate) fn text(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|error| {
        let detail = format!("The body is not UTF-8 from byte {} on.", error.valid_up_to());
        Problem::new(ProblemCode::MalformedRequest, detail)
    })
}

/// The fields of a small request, each still JSON. An empty body has none.
pub(crate) struct Fields<'a>(Vec<(Text<'a>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Reads a body that has some of the fields `names`, each once at most: 400 when it is no JSON, 422 when it is no object,
    /// or one with other fields.
    pub(crate) fn from_json(body: &'a [u8], names: &[&str]) -> Result<Self, Problem> {
        if body.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let object: JsonObject<'a, FIELDS_MAX> = serde_json::from_str(text(body)?).map_err(|error| {
            if error.is_data() {
                return invalid("#", "expected an object".to_owned());
            }
            Problem::new(
                ProblemCode::MalformedRequest,
                format!("The body is not whole, valid JSON: {error}."),
            )
        })?;
        for (position, (Text(name), _)) in object.first.iter().enumerate() {
            let known = names.contains(&name.as_ref());
            let repeated = object.first.iter().take(position).any(|(Text(earlier), _)| earlier == name);
            if !known || repeated {
                let detail = match names {
                    _ if repeated => "the field is there twice".to_owned(),
                    [] => "this call takes no field".to_owned(),
                    names => format!("unknown field, expected {}", names.join(" or ")),
                };
                return Err(invalid(&pointer("#", name), detail));
            }
        }
        Ok(Self(object.first))
    }

    /// The value of a field, or 422 that says what was `expected`; `None` when it is not there.
    pub(crate) fn get<T: Deserialize<'a>>(&self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        let Some((_, json)) = self.0.iter().find(|(Text(found), _)| found == name) else { return Ok(None) };
        let value = serde_json::from_str(json.get());
        value.map(Some).map_err(|_| Self::wrong(name, expected))
    }

    /// 422 for a field whose value is not what was `expected`.
    pub(crate) fn wrong(name: &str, expected: &str) -> Problem {
        invalid(&format!("#/{name}"), format!("expected {expected}"))
    }
}

// One more than any call takes, so that the one too many is seen.
const FIELDS_MAX: usize = 8;

fn invalid(pointer: &str, detail: String) -> Problem {
    let error = FieldError { pointer: pointer.to_owned(), detail };
    Problem::validation("The body is not what this call takes. Nothing was done.", vec![error])
}

/// The longest part of a name that an answer repeats, in characters: it must not be as long as the request.
const NAME_CHARACTERS_MAX: usize = 64;

/// The JSON Pointer to the member `name` of what `parent` points at.
pub(crate) fn pointer(parent: &str, name: &str) -> String {
    let mut characters = name.chars();
    let start: String = characters.by_ref().take(NAME_CHARACTERS_MAX).collect();
    let cut = if characters.next().is_some() { "…" } else { "" };
    format!("{parent}/{}{cut}", start.replace('~', "~0").replace('/', "~1"))
}

/// A JSON object, its values still JSON: no more of its members than `MAX`, because a request of 16 MB could have millions.
pub(crate) struct JsonObject<'a, const MAX: usize> {
    /// The first of them, in order.
    pub(crate) first: Vec<(Text<'a>, &'a RawValue)>,
    /// How many there are.
    pub(crate) count: usize,
}

impl<'de: 'a, 'a, const MAX: usize> Deserialize<'de> for JsonObject<'a, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor<const MAX: usize>;

impl<'de, const MAX: usize> Visitor<'de> for ObjectVisitor<MAX> {
    type Value = JsonObject<'de, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = JsonObject { first: Vec::new(), count: 0 };
        while let Some(member) = map.next_entry()? {
            object.count += 1;
            if object.count <= MAX {
                object.first.push(member);
            }
        }
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    use protocol::{RequestId, Timestamp};

    use super::*;

    fn refused(body: &str) -> String {
        let problem = Fields::from_json(body.as_bytes(), &["code", "dry_run"]).err().unwrap();
        problem.into_response(&RequestId::new(Timestamp::from_millis(0), 0)).text()
    }

    #[test]
    fn a_field_that_is_not_known_or_there_twice_is_refused() {
        for (body, says) in [
            (r#"{"dryrun":true}"#, "#/dryrun\",\"detail\":\"unknown field, expected code or dry_run"),
            (r#"{"code":"a","code":"b"}"#, "#/code\",\"detail\":\"the field is there twice"),
            (r#"{"a/b":1}"#, "#/a~1b"),
            ("[]", "expected an object"),
            ("null", "expected an object"),
            (r#"{"code":"#, "malformed_request"),
            ("{} {}", "malformed_request"),
        ] {
            assert!(refused(body).contains(says), "{body}: {}", refused(body));
        }
        let many =
            format!("{{{}}}", (0..100_000).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(","));
        assert!(refused(&many).len() < 500);
    }

    #[test]
    fn a_value_is_read_or_said_to_be_wrong() {
        let fields = Fields::from_json(br#"{"dry_run":true,"code":5}"#, &["code", "dry_run"]).unwrap();
        assert_eq!(fields.get::<bool>("dry_run", "true or false").unwrap(), Some(true));
        assert!(fields.get::<&str>("code", "a code").is_err());
        assert_eq!(fields.get::<bool>("other", "").unwrap(), None);
        assert!(Fields::from_json(b"", &[]).is_ok());
    }
}
