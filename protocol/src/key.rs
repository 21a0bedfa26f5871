use std::borrow::Cow;
use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::KEY_BYTES_MAX;

/// The key of an object in the bucket: 1 to 1,024 bytes of UTF-8, taken as they are.
///
/// Nothing is decoded, normalised or trimmed: `a/../b`, `/a` and `%2F` name the objects that are called so.
/// Keys are personal data, so `Debug` shows a key's length and never the key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ObjectKey<'a>(Cow<'a, str>);

impl<'a> ObjectKey<'a> {
    /// Takes `text` as a key.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] when it is empty or longer than [`KEY_BYTES_MAX`].
    pub fn parse(text: impl Into<Cow<'a, str>>) -> Result<Self, InvalidKey> {
        let text = text.into();
        match text.len() {
            0 => Err(InvalidKey::Empty),
            bytes if bytes > KEY_BYTES_MAX => Err(InvalidKey::TooLong { bytes }),
            _ => Ok(Self(text)),
        }
    }

    /// The key itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ObjectKey<'a> {
    /// Borrows from the input wherever the key has no escape in it, which serde's own `Cow` never does.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = ObjectKey<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object key of 1 to {KEY_BYTES_MAX} bytes")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        ObjectKey::parse(text).map_err(E::custom)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        ObjectKey::parse(text.to_owned()).map_err(E::custom)
    }
}

impl fmt::Debug for ObjectKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectKey({} bytes)", self.0.len())
    }
}

/// Why a text is no object key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// R2 has no object with an empty key.
    #[error("the key is empty; an object key has 1 to {KEY_BYTES_MAX} bytes")]
    Empty,
    /// R2 refuses longer keys with 10020.
    #[error("the key is {bytes} bytes long; an object key has 1 to {KEY_BYTES_MAX} bytes of UTF-8")]
    TooLong {
        /// The key's length in UTF-8 bytes.
        bytes: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_1_to_1024_bytes_not_characters() {
        assert_eq!(ObjectKey::parse(""), Err(InvalidKey::Empty));
        assert!(ObjectKey::parse("k".repeat(1_024)).is_ok());
        assert_eq!(ObjectKey::parse("k".repeat(1_025)), Err(InvalidKey::TooLong { bytes: 1_025 }));
        assert!(ObjectKey::parse("é".repeat(512)).is_ok());
        assert_eq!(ObjectKey::parse("é".repeat(513)), Err(InvalidKey::TooLong { bytes: 1_026 }));
    }

    #[test]
    fn what_is_no_text_is_told_what_a_key_is() {
        let error = serde_json::from_str::<ObjectKey<'_>>("7").unwrap_err().to_string();
        assert!(error.contains("expected an object key of 1 to 1024 bytes"), "{error}");
    }

    #[test]
    fn debug_output_never_shows_the_key() {
        let key = ObjectKey::parse("users/alice.jpg").unwrap();
        assert_eq!(format!("{key:?}"), "ObjectKey(15 bytes)");
    }
}
