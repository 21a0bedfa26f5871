use protocol::limits::RATE_LIMIT_PERIOD_SECONDS;
use protocol::{Event, Log};

use crate::problem::{Problem, ProblemCode};

/// The limit on how often somebody may call.
pub trait RateLimiter {
    /// Counts one call of `name`, and answers whether it is within the limit. Without a limit, every call is.
    ///
    /// # Errors
    ///
    /// Why the call could not be counted.
    fn admit(&self, name: &str) -> impl Future<Output = Result<bool, String>>;
}

/// 429 when `name` has called too often.
///
/// A limiter that does not answer lets the call through: it is there to share the producer out, not to guard it.
pub(crate) async fn check_rate(
    name: &str,
    limiter: &impl RateLimiter,
    log: &impl Log,
) -> Result<(), Problem> {
    let admitted = limiter.admit(name).await.unwrap_or_else(|cause| {
        log.emit(&Event::RateLimiterFailed { cause: &cause });
        true
    });
    if admitted {
        return Ok(());
    }
    let detail = format!("The token {name:?} calls too often. Send the request again later.");
    Err(Problem::new(ProblemCode::RateLimited, detail)
        .with_header("Retry-After", RATE_LIMIT_PERIOD_SECONDS.to_string()))
}
