//! JSON strings of keys, written without looking at what needs no escape byte by byte: nearly no key does.

use scan::Plain;

use crate::ObjectKey;

/// The text in a JSON string that has it as it is; `None` for any other JSON, right or wrong.
pub fn plain_text(json: &str) -> Option<&str> {
    json.strip_prefix('"')?.strip_suffix('"').and_then(Plain::of).map(Plain::as_str)
}

/// A key as a JSON string, as serde writes it.
pub(crate) enum KeyJson<'a> {
    /// Between quotes as it is.
    Plain(Plain<'a>),
    /// The whole string.
    Escaped(String),
}

impl<'a> KeyJson<'a> {
    pub(crate) fn of(key: &'a ObjectKey<'_>) -> Self {
        if let Some(plain) = Plain::of(key.as_str()) {
            return Self::Plain(plain);
        }
        // A text always serializes; the fallback cannot be reached, and would only make JSON that is refused.
        Self::Escaped(serde_json::to_string(key).unwrap_or_default())
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Plain(text) => text.as_str().len() + 2,
            Self::Escaped(json) => json.len(),
        }
    }

    pub(crate) fn append_to(&self, json: &mut String) {
        match self {
            Self::Plain(text) => text.append_to(json),
            Self::Escaped(escaped) => json.push_str(escaped),
        }
    }
}

/// A JSON array of keys.
pub fn keys_array<'a>(keys: impl IntoIterator<Item = &'a ObjectKey<'a>>) -> String {
    let mut json = String::from("[");
    for key in keys {
        if json.len() > 1 {
            json.push(',');
        }
        KeyJson::of(key).append_to(&mut json);
    }
    json.push(']');
    json
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_plain_just_when_serde_writes_it_as_it_is(text in "([a-z/]{0,9}|[\\x00-\\x30\\x5b-\\x5d\\x7f]|\\PC){0,9}") {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(Plain::of(&text).is_some(), json == format!("\"{text}\""));
            prop_assert_eq!(plain_text(&json), Plain::of(&text).is_some().then_some(text.as_str()));
        }

        #[test]
        fn keys_are_written_as_serde_writes_them(keys in prop::collection::vec("\\PC{1,20}|[\\x00-\\x5d]{1,20}", 0..5)) {
            let parsed: Vec<_> = keys.iter().map(|key| ObjectKey::parse(key.as_str()).unwrap()).collect();
            prop_assert_eq!(keys_array(&parsed), serde_json::to_string(&keys).unwrap());
        }
    }

    #[test]
    fn what_is_no_plain_string_has_no_plain_text() {
        for json in ["", "\"", "\"\"\"", "\"a\\\"", " \"a\"", "1", "\"a\nb\""] {
            assert_eq!(plain_text(json), None, "{json}");
        }
        assert_eq!(plain_text("\"\""), Some(""));
    }
}
