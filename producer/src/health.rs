use ledger::ProducerLedger;
use serde::Serialize;

use crate::config::Config;
use crate::http::Response;
use crate::problem::{Problem, ProblemCode};
use crate::queue::Queue;

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

/// `GET /healthz`: 200, the Worker runs.
pub(crate) fn healthz() -> Response {
    Response::json(200, &Health { status: "ok" })
}

/// `GET /readyz`: 200 when the configuration is right and the ledger and the Queue answer, else 503: then no other call
/// would do what it is for.
pub(crate) async fn readyz(
    config: Result<&Config, &str>,
    ledger: &impl ProducerLedger,
    queue: &impl Queue,
) -> Result<Response, Problem> {
    let not_ready = |detail: &str, cause: &str| {
        Problem::new(ProblemCode::NotReady, detail).with_cause(cause).with_header("Retry-After", "5")
    };
    config.map_err(|cause| not_ready("The producer is not configured.", cause))?;
    ledger.ping().await.map_err(|error| not_ready("The ledger does not answer.", &error.cause))?;
    queue.ping().await.map_err(|cause| not_ready("The Queue does not answer.", &cause))?;
    Ok(Response::json(200, &Health { status: "ready" }))
}
