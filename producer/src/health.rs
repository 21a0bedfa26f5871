use ledger::ProducerLedger;
use serde::Serialize;

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

/// `GET /readyz`: 200 when the ledger and the Queue answer, 503 when one does not.
pub(crate) async fn readyz(ledger: &impl ProducerLedger, queue: &impl Queue) -> Result<Response, Problem> {
    let not_ready = |what: &str, cause: String| {
        let detail = format!("The {what} does not answer.");
        Problem::new(ProblemCode::NotReady, detail).with_cause(cause).with_header("Retry-After", "5")
    };
    ledger.ping().await.map_err(|error| not_ready("ledger", error.cause))?;
    queue.ping().await.map_err(|cause| not_ready("queue", cause))?;
    Ok(Response::json(200, &Health { status: "ready" }))
}
