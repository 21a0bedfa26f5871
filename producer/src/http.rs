use crate::ndjson::KeyPages;

/// A request, as far as the producer looks at it.
#[derive(Debug)]
pub struct Request<B> {
    /// `GET`, `POST`, …
    pub method: String,
    /// The path and, behind a `?`, the query.
    pub target: String,
    /// Where it came from: `CF-Connecting-IP`, which the platform sets, whatever the caller has sent.
    pub client_address: Option<String>,
    /// `Authorization`.
    pub authorization: Option<String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Length`: none where the body comes in pieces of unknown number.
    pub content_length: Option<usize>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// `Accept`.
    pub accept: Option<String>,
    /// The body, not read yet: nobody's is before they are known.
    pub body: B,
}

/// A body that can be read once. Whoever sends it is told that nobody wants the rest when it is dropped before its end.
pub trait Body {
    /// Puts its next bytes behind what is in `buffer`; `false` at its end.
    ///
    /// # Errors
    ///
    /// [`BodyError`], also when the next bytes are more than `room`: none of them are put there then.
    fn read(&mut self, buffer: &mut Vec<u8>, room: usize) -> impl Future<Output = Result<bool, BodyError>>;
}

/// Why a body could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It has more bytes than there is room for.
    TooLarge,
    /// The connection broke, or the client stopped sending.
    Broken,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: ResponseBody,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseBody {
    /// All of it.
    Text(String),
    /// What is too large to be held at once: whoever writes the answer takes page after page. When one fails, the answer
    /// MUST break off, so that its reader does not take it for whole.
    Pages(KeyPages),
}

impl Response {
    /// An answer of JSON.
    pub(crate) fn json<T: serde::Serialize>(status: u16, body: &T) -> Self {
        // Our views are strings and numbers, which always serialize.
        Self::json_text(status, serde_json::to_string(body).unwrap_or_default())
    }

    /// An answer that is JSON already.
    pub(crate) fn json_text(status: u16, json: String) -> Self {
        let headers = vec![("Content-Type", "application/json".to_owned())];
        Self { status, headers, body: ResponseBody::Text(json) }
    }

    #[must_use]
    pub(crate) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The body of an answer that has it all.
    #[cfg(test)]
    pub(crate) fn text(self) -> String {
        match self.body {
            ResponseBody::Text(text) => text,
            ResponseBody::Pages(_) => String::new(),
        }
    }
}
