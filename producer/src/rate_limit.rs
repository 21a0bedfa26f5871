use protocol::limits::RATE_LIMIT_PERIOD_SECONDS;
use protocol::{Event, Log};

use crate::problem::{Problem, ProblemCode};

/// The limit on how often somebody may call.
pub trait RateLimiter {
    /// Counts one call under `key`, and answers whether it is within the limit. Without a limit, every call is.
    ///
    /// # Errors
    ///
    /// Why the call could not be counted.
    fn admit(&self, key: &str) -> impl Future<Output = Result<bool, String>>;
}

/// Who is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Caller<'a> {
    /// Whoever has the token of this name.
    Token(&'a str),
    /// Whoever has no token, by the address that they call from: so that nobody can guess without end. Whoever has one is
    /// never counted so, whatever comes from their address.
    Stranger(&'a str),
}

/// 429 when somebody has called too often.
///
/// A limiter that does not answer lets the call through: it is there to share the producer out, not to guard it.
pub(crate) async fn check_rate(
    caller: Caller<'_>,
    limiter: &impl RateLimiter,
    log: &impl Log,
) -> Result<(), Problem> {
    // A name can be anything, an address too.
    let key = match caller {
        Caller::Token(name) => format!("token {name}"),
        Caller::Stranger(address) => format!("address {address}"),
    };
    let admitted = limiter.admit(&key).await.unwrap_or_else(|cause| {
        log.emit(&Event::RateLimiterFailed { cause: &cause });
        true
    });
    if admitted {
        return Ok(());
    }
    let detail = format!("Too many calls came from the {key}. Send the request again later.");
    Err(Problem::new(ProblemCode::RateLimited, detail)
        .with_header("Retry-After", RATE_LIMIT_PERIOD_SECONDS.to_string()))
}
