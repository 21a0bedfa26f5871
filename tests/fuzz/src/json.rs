//! A slow and simple reader of JSON, which the fast ones are compared with.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A value of JSON, with members as they were written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// A whole number of 0 or more, written without a point and an exponent.
    Whole(f64),
    /// Any other.
    Number(f64),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Json {
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_str(std::str::from_utf8(bytes).ok()?).ok()
    }

    /// Its members, if it is an object that has each once.
    pub(crate) fn members(&self) -> Option<&[(String, Self)]> {
        let Self::Object(members) = self else { return None };
        let once = |(at, (name, _)): (usize, &(String, Self))| {
            members.iter().take(at).all(|(other, _)| other != name)
        };
        members.iter().enumerate().all(once).then_some(members)
    }

    pub(crate) fn member<'a>(members: &'a [(String, Self)], name: &str) -> Option<&'a Self> {
        members.iter().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(crate) fn list(&self) -> Option<&[Self]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    /// A whole number of 0 or more, however it is written.
    pub(crate) fn count(&self) -> Option<f64> {
        match self {
            Self::Whole(number) => Some(*number),
            Self::Number(number) => Some(*number).filter(|number| *number >= 0.0 && number.fract() == 0.0),
            _ => None,
        }
    }

    /// A whole number of 0 or more, written as one.
    pub(crate) fn whole(&self) -> Option<f64> {
        if let Self::Whole(number) = self { Some(*number) } else { None }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "only about how large it is")]
    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Whole(value as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "only about how large it is")]
    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut found = Vec::new();
        while let Some(element) = list.next_element()? {
            found.push(element);
        }
        Ok(Json::List(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut found = Vec::new();
        while let Some(member) = map.next_entry()? {
            found.push(member);
        }
        Ok(Json::Object(found))
    }
}
