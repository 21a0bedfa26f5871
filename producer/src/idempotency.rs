use ledger::{EarlierRequest, Idempotency, PartRef, ProducerLedger, Sending};

use crate::assets::Assets;
use crate::auth::Principal;
use crate::host::Host;
use crate::http::Response;
use crate::problem::{Problem, ProblemCode};
use crate::queue::Queue;
use crate::rate_limit::RateLimiter;
use crate::read;
use crate::router::Ports;
use crate::sending::resume;

/// How long a request holds the sending of its messages for itself, in milliseconds: longer than the Queue has been seen to
/// hang (57 s, cloudflare/workerd issue 6053).
pub(crate) const SENDING_MS: u64 = 120_000;

const KEY_BYTES_MAX: usize = 255;

/// Reads an `Idempotency-Key`: 1 to 255 printable ASCII characters, bare as most clients send it, or quoted as the draft
/// standard has it (draft-ietf-httpapi-idempotency-key-header). Both spellings are one key.
///
/// 400 for anything else.
pub(crate) fn parse(header: &str) -> Result<String, Problem> {
    let invalid = || {
        let detail = format!(
            "The Idempotency-Key is not 1 to {KEY_BYTES_MAX} printable ASCII characters, bare or quoted."
        );
        Problem::new(ProblemCode::MalformedRequest, detail)
    };
    let header = header.trim();
    let key = match header.strip_prefix('"') {
        Some(rest) => unquote(rest).ok_or_else(invalid)?,
        None => header.to_owned(),
    };
    let printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if key.is_empty() || key.len() > KEY_BYTES_MAX || !printable {
        return Err(invalid());
    }
    Ok(key)
}

/// The text of a structured field's string, after its first quote. Only quotes and backslashes are escaped in one.
fn unquote(rest: &str) -> Option<String> {
    let (mut text, mut characters) = (String::new(), rest.chars());
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(text),
            '\\' => text.push(characters.next().filter(|escaped| ['"', '\\'].contains(escaped))?),
            other => text.push(other),
        }
    }
}

/// Answers a request whose Idempotency-Key has been seen before.
///
/// 1. Made of another body: 422.
/// 2. Every message stored: 202 with the deletion as it is now.
/// 3. Another request is sending them: 409, to be asked again.
/// 4. That request has died, or the Queue refused it: *await* take its place, *await* send every message from the outbox;
///    those that were stored before are delivered twice, which is harmless. 202.
pub(crate) async fn replay(
    earlier: EarlierRequest,
    idempotency: &Idempotency,
    principal: Principal<'_>,
    ports: &Ports<'_, impl ProducerLedger, impl Queue, impl RateLimiter, impl Assets, impl Host>,
) -> Result<Response, Problem> {
    let &Ports { ledger, host, .. } = ports;
    let EarlierRequest { deletion: id, fingerprint, sending } = earlier;
    // (1) Another body.
    if fingerprint != idempotency.fingerprint {
        let detail = "This Idempotency-Key was used with another body. Use a new key for another deletion.";
        return Err(Problem::new(ProblemCode::IdempotencyKeyReused, detail));
    }
    match sending {
        // (2) Stored.
        Sending::Done => {}
        // (3) Being sent.
        Sending::Held { until } if until > host.now() => return Err(in_progress()),
        // (4) Given up.
        Sending::Held { .. } => {
            if !resume(&PartRef::request(&id), ports).await? {
                return Err(in_progress());
            }
        }
    }
    Ok(read::accepted(&id, principal, ledger, host).await?.with_header("Idempotent-Replayed", "true"))
}

/// 409: the first of these requests is still at work.
pub(crate) fn in_progress() -> Problem {
    let detail = "The same request is being carried out. Send it again in a moment.";
    Problem::new(ProblemCode::RequestInProgress, detail).with_header("Retry-After", "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_bare_or_quoted() {
        for (header, key) in [
            ("project-42", "project-42"),
            ("\"project-42\"", "project-42"),
            (" a b ", "a b"),
            (r#""say \"x\" \\""#, r#"say "x" \"#),
            (r#"a"b"#, r#"a"b"#),
        ] {
            assert_eq!(parse(header), Ok(key.to_owned()), "{header}");
        }
        assert!(parse(&"k".repeat(255)).is_ok());
        for header in ["", "  ", "\"\"", "\"a", "\"a\"b", r#""a\b""#, "é", "a\tb", &"k".repeat(256)] {
            assert!(parse(header).is_err(), "{header}");
        }
    }
}
