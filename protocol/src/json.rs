//! JSON strings of keys, written without looking at what needs no escape byte by byte: nearly no key does.

use crate::ObjectKey;

/// Whether a text is in a JSON string as it is: without a quote, a backslash and a control character.
fn is_plain(text: &str) -> bool {
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    !words.iter().any(|&word| has_escaped(u64::from_le_bytes(word)))
        && !rest.iter().any(|&byte| is_escaped(byte))
}

/// The text in a JSON string that has it as it is; `None` for any other JSON, right or wrong.
pub fn plain_text(json: &str) -> Option<&str> {
    json.strip_prefix('"')?.strip_suffix('"').filter(|text| is_plain(text))
}

/// A key as a JSON string, as serde writes it.
pub(crate) enum KeyJson<'a> {
    /// Between quotes as it is.
    Plain(&'a str),
    /// The whole string.
    Escaped(String),
}

impl<'a> KeyJson<'a> {
    pub(crate) fn of(key: &'a ObjectKey<'_>) -> Self {
        if is_plain(key.as_str()) {
            return Self::Plain(key.as_str());
        }
        // A text always serializes; the fallback cannot be reached, and would only make JSON that is refused.
        Self::Escaped(serde_json::to_string(key).unwrap_or_default())
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Plain(text) => text.len() + 2,
            Self::Escaped(json) => json.len(),
        }
    }

    pub(crate) fn append_to(&self, json: &mut String) {
        match self {
            Self::Plain(text) => {
                json.push('"');
                json.push_str(text);
                json.push('"');
            }
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

const ONES: u64 = u64::MAX / 255;
const HIGHS: u64 = ONES * 0x80;

/// Whether one of eight bytes [is escaped](is_escaped), found for all of them at once.
///
/// `(word - n * ONES) & !word & HIGHS` is not zero just when some byte is less than `n`, up to 128: "Bit Twiddling Hacks" by
/// Sean Eron Anderson, "Determine if a word has a byte less than n".
fn has_escaped(word: u64) -> bool {
    let less_than = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGHS;
    let is = |byte: u8| less_than(word ^ (ONES * u64::from(byte)), 1);
    less_than(word, 0x20) | is(b'"') | is(b'\\') != 0
}

/// Whether JSON must write a byte of a text as an escape.
fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_plain_just_when_serde_writes_it_as_it_is(text in "([a-z/]{0,9}|[\\x00-\\x30\\x5b-\\x5d\\x7f]|\\PC){0,9}") {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(is_plain(&text), json == format!("\"{text}\""));
            prop_assert_eq!(plain_text(&json), is_plain(&text).then_some(text.as_str()));
        }

        #[test]
        fn keys_are_written_as_serde_writes_them(keys in prop::collection::vec("\\PC{1,20}|[\\x00-\\x5d]{1,20}", 0..5)) {
            let parsed: Vec<_> = keys.iter().map(|key| ObjectKey::parse(key.as_str()).unwrap()).collect();
            prop_assert_eq!(keys_array(&parsed), serde_json::to_string(&keys).unwrap());
        }
    }

    #[test]
    fn each_byte_is_seen_wherever_it_is() {
        for byte in 0..=0x7f_u8 {
            for at in 0..20 {
                let mut text = ["x"; 20].concat().into_bytes();
                text[at] = byte;
                assert_eq!(
                    is_plain(std::str::from_utf8(&text).unwrap()),
                    !is_escaped(byte),
                    "{byte} at {at}"
                );
            }
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
