use futures::future::{Either, select};
use futures::pin_mut;
use protocol::R2Error;

use crate::host::Host;

/// Waits for a call to R2, but no longer than so many milliseconds. It may still take effect then.
pub(crate) async fn in_time<T>(
    call: impl Future<Output = Result<T, R2Error>>,
    millis: u64,
    host: &impl Host,
) -> Result<T, R2Error> {
    let timeout = host.sleep(millis);
    pin_mut!(call, timeout);
    match select(call, timeout).await {
        Either::Left((answer, _)) => answer,
        Either::Right(((), _)) => Err(R2Error::TimedOut),
    }
}
