//! The little HTTP that the two clients share.

use std::{net::TcpListener, time::Duration};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use ureq::{Agent, Body, http::Response};

/// A request of the demo may put a thousand objects.
const REQUEST_MAX: Duration = Duration::from_mins(2);

/// No answer of ours is larger: a listing of 100,000 keys of 1,024 bytes is.
const ANSWER_BYTES_MAX: u64 = 200_000_000;

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body as text.
    pub body: String,
}

impl Answer {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.body).with_context(|| format!("not what was expected: {}", self.body))
    }

    /// The body as JSON, if the status is `status`.
    ///
    /// # Errors
    /// When it is not.
    pub fn expect<T: DeserializeOwned>(&self, status: u16) -> Result<T> {
        if self.status != status {
            bail!("status {} in place of {status}: {}", self.status, self.body);
        }
        self.json()
    }

    pub(super) fn read(mut response: Response<Body>) -> Result<Self> {
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let headers = headers.collect();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
        Ok(Self { status: response.status().as_u16(), headers, body })
    }
}

/// A port of the loopback interface that nobody has. Somebody may take it before it is used: whoever starts then says so.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Where a status is an answer rather than an error.
pub(super) fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).timeout_global(Some(REQUEST_MAX)).build().into()
}

/// `text` for a place in a query.
pub(super) fn query_value(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::query_value;

    #[test]
    fn what_a_query_cannot_hold_is_escaped() {
        assert_eq!(query_value("a/b c&é"), "a%2Fb%20c%26%C3%A9");
    }
}
