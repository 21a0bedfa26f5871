//! The JSON of a request, read by hand rather than by a derived deserializer, for two reasons: it must say where in the body
//! something is wrong, which costs a second parse otherwise, and a derived struct takes an array for an object.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;

use protocol::limits::{PREFIXES_MAX, REQUEST_KEYS_MAX};
use protocol::{DeletionId, Fence};
use scan::{PlainStrings, plain_strings};
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::labels::LabelsJson;

/// What a request says: of the right types, but for the keys, the prefixes and the labels, and nothing more.
#[derive(Default)]
pub(crate) struct WireRequest<'a> {
    /// `None` when they are to be put in parts, or there is only something to sweep.
    pub(crate) object_keys: Option<WireKeys<'a>>,
    pub(crate) delay_seconds: u32,
    pub(crate) fence: Fence,
    pub(crate) labels: LabelsJson<'a>,
    pub(crate) sweep: WireSweep<'a>,
}

/// What a request says about keys that it does not name.
#[derive(Default)]
pub(crate) struct WireSweep<'a> {
    pub(crate) prefixes: Option<WireKeys<'a>>,
    pub(crate) project: Option<Text<'a>>,
    pub(crate) max_objects: Option<u64>,
    pub(crate) dry_run: Option<bool>,
    pub(crate) verify: Option<bool>,
    pub(crate) plan: Option<DeletionId>,
}

/// The elements of `objectKeys` or of `prefixes`, whatever they are.
#[derive(Default)]
pub(crate) struct WireKeys<'a> {
    /// The first of them, no more than are allowed: a body of 16 MB could have millions.
    pub(crate) first: Vec<&'a RawValue>,
    /// How many there are.
    pub(crate) count: usize,
}

const OBJECT_KEYS: &str = "objectKeys";
const IN_PARTS: &str = "in_parts";
const DELAY_SECONDS: &str = "delay_seconds";
const FENCE: &str = "fence";
const LABELS: &str = "labels";
const PREFIXES: &str = "prefixes";
const PROJECT: &str = "project";
const MAX_OBJECTS: &str = "max_objects";
const DRY_RUN: &str = "dry_run";
const VERIFY: &str = "verify";
const PLAN: &str = "plan";
const FIELDS: &[&str] = &[
    OBJECT_KEYS,
    IN_PARTS,
    DELAY_SECONDS,
    FENCE,
    LABELS,
    PREFIXES,
    PROJECT,
    MAX_OBJECTS,
    DRY_RUN,
    VERIFY,
    PLAN,
];

impl<'a> WireRequest<'a> {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// serde's error, and a JSON Pointer to where it was met, as a URI fragment.
    pub(crate) fn from_json(body: &'a str) -> Result<Self, (serde_json::Error, String)> {
        let place = Place::default();
        let mut deserializer = serde_json::Deserializer::from_str(body);
        let request = RequestSeed(&place).deserialize(&mut deserializer);
        request
            .and_then(|request| deserializer.end().map(|()| request))
            .map_err(|error| (error, place.pointer()))
    }
}

/// How much there may be before keys that are read apart, and behind them, in bytes: it is in memory twice.
const BESIDE_KEYS_MAX: usize = 16_384;

impl<'a> WireRequest<'a> {
    /// Reads a body whose keys have no escape, as nearly all bodies are: the keys by themselves, quickly, and what is left without
    /// them, which is put `beside`, as ever. One key is in their place there. `None` for any other body, right or wrong.
    pub(crate) fn from_plain_json(body: &'a str, beside: &'a mut String) -> Option<(Self, PlainStrings<'a>)> {
        let start = keys_start(body)?;
        let (head, keys) = body.split_at_checked(start)?;
        let keys = plain_strings(keys, REQUEST_KEYS_MAX).filter(|keys| keys.rest.len() <= BESIDE_KEYS_MAX)?;
        *beside = [head, "\"\"]", keys.rest].concat();
        let request = Self::from_json(beside).ok()?;
        // That it is what stands in the keys' place, and no member of that name elsewhere, is known by where it is.
        let placed = request.object_keys.as_ref().and_then(|keys| keys.first.first());
        let is_there =
            placed.is_some_and(|key| std::ptr::eq(key.get().as_ptr(), beside.as_ptr().wrapping_add(start)));
        is_there.then_some((request, keys))
    }
}

/// Where the first array begins that is called as the one of keys, behind its bracket.
fn keys_start(body: &str) -> Option<usize> {
    const NAME: &[u8] = b"\"objectKeys\"";
    let bytes = body.as_bytes();
    let name = bytes.windows(NAME.len()).take(BESIDE_KEYS_MAX).position(|window| window == NAME)?;
    let mut at = name + NAME.len();
    let mut token = |token: u8| {
        let rest = bytes.get(at..)?;
        at += rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
        at += 1;
        (bytes.get(at - 1) == Some(&token)).then_some(at)
    };
    token(b':')?;
    token(b'[')
}

/// Where the reader is.
#[derive(Default)]
struct Place {
    /// In this field, or in none.
    field: RefCell<Option<String>>,
    /// At this element of it, or at none.
    element: Cell<Option<usize>>,
}

impl Place {
    fn pointer(&self) -> String {
        let mut pointer = "#".to_owned();
        if let Some(field) = self.field.borrow().as_ref() {
            pointer.push('/');
            pointer.push_str(&field.replace('~', "~0").replace('/', "~1"));
        }
        if let Some(element) = self.element.get() {
            pointer.push('/');
            pointer.push_str(&element.to_string());
        }
        pointer
    }
}

struct RequestSeed<'p>(&'p Place);

impl<'de> DeserializeSeed<'de> for RequestSeed<'_> {
    type Value = WireRequest<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RequestSeed<'_> {
    type Value = WireRequest<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object like {\"objectKeys\": [\"proj_42/a.jpg\"]}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Self(place) = self;
        let (mut object_keys, mut in_parts) = (None, None);
        let (mut delay_seconds, mut fence, mut labels) = (None, None, None);
        let mut sweep = WireSweep::default();
        while let Some(Text(field)) = map.next_key()? {
            place.field.replace(Some(field.to_string()));
            match field.as_ref() {
                OBJECT_KEYS if object_keys.is_none() => {
                    object_keys = Some(map.next_value_seed(KeysSeed(place, REQUEST_KEYS_MAX))?);
                }
                IN_PARTS if in_parts.is_none() => in_parts = Some(map.next_value()?),
                DELAY_SECONDS if delay_seconds.is_none() => {
                    let Whole(seconds) = map.next_value()?;
                    delay_seconds = Some(u32::try_from(seconds).unwrap_or(u32::MAX));
                }
                FENCE if fence.is_none() => fence = Some(map.next_value()?),
                LABELS if labels.is_none() => labels = Some(map.next_value()?),
                PREFIXES if sweep.prefixes.is_none() => {
                    sweep.prefixes = Some(map.next_value_seed(KeysSeed(place, PREFIXES_MAX))?);
                }
                PROJECT if sweep.project.is_none() => sweep.project = Some(map.next_value()?),
                MAX_OBJECTS if sweep.max_objects.is_none() => {
                    let Whole(objects) = map.next_value()?;
                    sweep.max_objects = Some(objects);
                }
                DRY_RUN if sweep.dry_run.is_none() => sweep.dry_run = Some(map.next_value()?),
                VERIFY if sweep.verify.is_none() => sweep.verify = Some(map.next_value()?),
                PLAN if sweep.plan.is_none() => {
                    let Text(id) = map.next_value()?;
                    sweep.plan = Some(id.parse().map_err(A::Error::custom)?);
                }
                field => {
                    return Err(match FIELDS.iter().find(|&&known| known == field) {
                        Some(known) => A::Error::duplicate_field(known),
                        None => A::Error::unknown_field(field, FIELDS),
                    });
                }
            }
            place.field.replace(None);
        }
        let sweeps = sweep.prefixes.is_some() || sweep.project.is_some() || sweep.plan.is_some();
        match (object_keys.is_some() || sweeps, in_parts.unwrap_or_default()) {
            (false, false) => return Err(A::Error::missing_field(OBJECT_KEYS)),
            (true, true) => {
                place.field.replace(Some(IN_PARTS.to_owned()));
                let detail = if sweeps {
                    "expected no prefixes, project or plan beside it: what is put in parts is keys"
                } else {
                    "expected no objectKeys beside it: they are put in parts"
                };
                return Err(A::Error::custom(detail));
            }
            (true, false) | (false, true) => {}
        }
        Ok(WireRequest {
            object_keys,
            delay_seconds: delay_seconds.unwrap_or_default(),
            fence: fence.unwrap_or_default(),
            labels: labels.unwrap_or_default(),
            sweep,
        })
    }
}

/// The place, and how many elements are kept.
struct KeysSeed<'p>(&'p Place, usize);

impl<'de> DeserializeSeed<'de> for KeysSeed<'_> {
    type Value = WireKeys<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for KeysSeed<'_> {
    type Value = WireKeys<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut keys = WireKeys::default();
        self.0.element.set(Some(0));
        while let Some(key) = sequence.next_element()? {
            if keys.count < self.1 {
                keys.first.push(key);
            }
            keys.count += 1;
            self.0.element.set(Some(keys.count));
        }
        self.0.element.set(None);
        Ok(keys)
    }
}

/// A whole number, also where it is written `3600.0`: JSON does not tell the two apart, and a client that calculates with
/// fractions writes it so.
pub(crate) struct Whole(pub(crate) u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(WholeVisitor)
    }
}

struct WholeVisitor;

impl Visitor<'_> for WholeVisitor {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Whole, E> {
        Ok(Whole(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Whole, E> {
        if number < 0.0 || number.fract() != 0.0 {
            return Err(E::invalid_value(Unexpected::Float(number), &self));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole, positive, and `as` stops at the maximum"
        )]
        Ok(Whole(number as u64))
    }
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

    /// The keys of a body that were read by themselves, as the elements that serde reads.
    fn read_apart(body: &str) -> Option<Vec<String>> {
        let mut beside = String::new();
        let (_, keys) = WireRequest::from_plain_json(body, &mut beside)?;
        assert_eq!(keys.first.len(), keys.count);
        Some(keys.first.iter().map(|key| format!("\"{}\"", key.as_str())).collect())
    }

    fn read_by_serde(body: &str) -> Option<Vec<String>> {
        let keys = WireRequest::from_json(body).ok()?.object_keys?;
        Some(keys.first.iter().map(|key| key.get().to_owned()).collect())
    }

    #[test]
    fn keys_are_read_apart_wherever_the_body_has_them() {
        for body in [
            r#"{"objectKeys":["a","b/é"]}"#,
            " {\n \"fence\" : \"off\", \"objectKeys\" : [ \"a\" , \"b\" ] , \"dry_run\" : true } ",
            r#"{"labels":{"objectKeys":"x","y":"\"objectKeys\":["},"objectKeys":["a"]}"#,
            r#"{"labels":"\"objectKeys\":[\"a\"]","objectKeys":["b"]}"#,
            r#"{"objectKeys":[]}"#,
        ] {
            let keys = read_by_serde(body).unwrap();
            assert!(read_apart(body).is_none_or(|apart| apart == keys), "{body}");
        }
        assert!(read_apart(r#"{"fence":"off","objectKeys":["a"],"verify":false}"#).is_some());
        assert_eq!(read_apart(r#"{"objectKeys":["a","\u00e9"]}"#), None);
    }

    #[test]
    fn no_other_array_is_taken_for_the_keys() {
        for body in [
            r#"{"labels":{"objectKeys":["a"]},"objectKeys":["b"]}"#,
            r#"{"labels":{"objectKeys":["a"]},"objectKeys":[]}"#,
            r#"{"labels":[{"objectKeys":["a"]}],"objectKeys":[""]}"#,
            r#"[{"objectKeys":["a"]}]"#,
            r#"{"objectKeys":["a"],"objectKeys":["b"]}"#,
            r#"{"objectKeys":["a"]}}"#,
            r#"{"objectKeys":["a"],}"#,
            r#""objectKeys":["a"]"#,
        ] {
            assert_eq!(read_apart(body), None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_apart_serde_reads_alike(
            tokens in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"objectKeys\"", "\"labels\"", "\"a\"", "\"\"", "\"\\n\"", " ", "\"verify\"", "true",
                "{\"objectKeys\":[", "\"x\",\"y\"]", "\"labels\":{\"objectKeys\":[", "]}", "]},", "\"objectKeys\":[\"b\"]}",
            ]), 0..9),
        ) {
            let body = tokens.concat();
            if let Some(keys) = read_apart(&body) {
                prop_assert_eq!(read_by_serde(&body), Some(keys));
            }
        }
    }
}
