use futures::future::{Either, select};
use futures::pin_mut;

use crate::host::Host;

/// Waits for a call, but no longer than so many milliseconds; `None` when they are over. It may still take effect then.
pub(crate) async fn in_time<T>(call: impl Future<Output = T>, millis: u64, host: &impl Host) -> Option<T> {
    let timeout = host.sleep(millis);
    pin_mut!(call, timeout);
    match select(call, timeout).await {
        Either::Left((answer, _)) => Some(answer),
        Either::Right(((), _)) => None,
    }
}
