//! Messages as a queue holds them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// A body in the form in which it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    content_type: String,
    bytes: Vec<u8>,
}

impl Body {
    /// A text, as our producer sends it.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new("text", text.into().into_bytes())
    }

    /// A JSON value, which the consumer gets as an object of JavaScript.
    pub fn json(value: &Value) -> Self {
        Self::new("json", value.to_string().into_bytes())
    }

    /// Raw bytes, which the consumer gets as a `Uint8Array`.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new("bytes", bytes.into())
    }

    pub(super) fn new(content_type: &str, bytes: Vec<u8>) -> Self {
        Self { content_type: content_type.to_owned(), bytes }
    }

    /// The body read as text.
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Its size in bytes, as the limits count it.
    #[expect(clippy::len_without_is_empty, reason = "a size, not a collection")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The queue's own id; it stays the same in the dead-letter queue.
    pub id: String,
    /// When it was sent, in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// Deliveries so far; on a message that is delivered, counting this one.
    pub attempts: u16,
    /// What it says.
    pub body: Body,
}

impl Message {
    pub(crate) fn encode(&self) -> Value {
        json!({
            "id": self.id, "timestamp": self.timestamp_ms, "attempts": self.attempts,
            "contentType": self.body.content_type, "body": STANDARD.encode(&self.body.bytes),
        })
    }
}
