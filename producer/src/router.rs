use ledger::ProducerLedger;
use protocol::{Event, RequestId};

use crate::accept::accept;
use crate::auth::Role;
use crate::config::Config;
use crate::health::{healthz, readyz};
use crate::host::Host;
use crate::http::{Body, Request, Response};
use crate::list;
use crate::problem::{Problem, ProblemCode};
use crate::queue::Queue;
use crate::rate_limit::{RateLimiter, check_rate};
use crate::read;
use crate::stats;

/// What the producer stands on.
#[derive(Debug)]
pub struct Ports<'a, L, Q, R, H> {
    /// The ledger.
    pub ledger: &'a L,
    /// The Queue.
    pub queue: &'a Q,
    /// The limit on calls.
    pub limiter: &'a R,
    /// The machine.
    pub host: &'a H,
    /// The configuration, or what is wrong with it.
    pub config: Result<&'a Config, &'a str>,
}

/// Everything that can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'a> {
    /// Open to anybody: the probes of a load balancer have no token, and learn nothing.
    Probe(Probe),
    /// For whoever has a token.
    Call(Call<'a>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Healthz,
    Readyz,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call<'a> {
    CreateDeletion,
    ListDeletions,
    ReadDeletion { id: &'a str },
    CancelDeletion { id: &'a str },
    ListFailures { id: &'a str },
    ListUnreadableMessages,
    ReadStats,
}

impl<'a> Route<'a> {
    fn find(method: &str, path: &'a str) -> Option<Self> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        match segments.as_slice() {
            ["v1", "deletions"] if method == "GET" => Some(Self::Call(Call::ListDeletions)),
            ["v1", "deletions"] => Some(Self::Call(Call::CreateDeletion)),
            ["v1", "deletions", id] => Some(Self::Call(Call::ReadDeletion { id })),
            ["v1", "deletions", id, "cancel"] => Some(Self::Call(Call::CancelDeletion { id })),
            ["v1", "deletions", id, "failures"] => Some(Self::Call(Call::ListFailures { id })),
            ["v1", "unreadable-messages"] => Some(Self::Call(Call::ListUnreadableMessages)),
            ["v1", "stats"] => Some(Self::Call(Call::ReadStats)),
            ["healthz"] => Some(Self::Probe(Probe::Healthz)),
            ["readyz"] => Some(Self::Probe(Probe::Readyz)),
            _ => None,
        }
    }

    /// The pattern of its path, for the log.
    fn pattern(self) -> &'static str {
        match self {
            Self::Probe(Probe::Healthz) => "/healthz",
            Self::Probe(Probe::Readyz) => "/readyz",
            Self::Call(Call::CreateDeletion | Call::ListDeletions) => "/v1/deletions",
            Self::Call(Call::ReadDeletion { .. }) => "/v1/deletions/{id}",
            Self::Call(Call::CancelDeletion { .. }) => "/v1/deletions/{id}/cancel",
            Self::Call(Call::ListFailures { .. }) => "/v1/deletions/{id}/failures",
            Self::Call(Call::ListUnreadableMessages) => "/v1/unreadable-messages",
            Self::Call(Call::ReadStats) => "/v1/stats",
        }
    }

    /// The methods that its path takes, for `Allow`.
    fn allow(self) -> &'static str {
        match self {
            Self::Call(Call::CreateDeletion | Call::ListDeletions) => "GET, POST",
            Self::Probe(_) | Self::Call(_) => self.method(),
        }
    }

    /// The method that it takes; each takes one.
    fn method(self) -> &'static str {
        match self {
            Self::Call(Call::CreateDeletion | Call::CancelDeletion { .. }) => "POST",
            Self::Probe(_) | Self::Call(_) => "GET",
        }
    }
}

impl Call<'_> {
    /// What a token needs for it: any of these.
    fn roles(self) -> &'static [Role] {
        match self {
            Call::CreateDeletion => &[Role::Delete],
            Call::CancelDeletion { .. } => &[Role::Delete, Role::Operate],
            Call::ReadDeletion { .. } | Call::ListDeletions | Call::ListFailures { .. } | Call::ReadStats => {
                &[Role::Read]
            }
            Call::ListUnreadableMessages => &[Role::Operate],
        }
    }
}

/// Answers one request, and writes it to the log. There is an answer to everything.
pub async fn answer<L, Q, R, H, B>(request: Request<B>, ports: &Ports<'_, L, Q, R, H>) -> Response
where
    L: ProducerLedger,
    Q: Queue,
    R: RateLimiter,
    H: Host,
    B: Body,
{
    let host = ports.host;
    let started_at = host.now();
    let request_id = RequestId::new(started_at, host.random());
    let (method, target) = (request.method.clone(), request.target.clone());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let route = Route::find(&method, path);

    let result = match route {
        Some(route) => dispatch(route, query, request, &request_id, ports).await,
        None => Err(Problem::new(ProblemCode::NotFound, "There is no such resource.")),
    };
    let (error_type, cause) = match &result {
        Ok(_) => (None, None),
        Err(problem) => (Some(problem.code.as_str()), problem.cause.clone()),
    };
    let response = result.unwrap_or_else(|problem| problem.into_response(&request_id));
    host.emit(&Event::RequestFinished {
        request_id: &request_id,
        method: &method,
        route: route.map_or("unmatched", Route::pattern),
        status: response.status,
        error_type,
        cause: cause.as_deref(),
        duration_ms: host.now().millis_since(started_at),
    });
    response.with_header("X-Request-Id", request_id.as_str()).with_header("Cache-Control", "no-store")
}

async fn dispatch<L, Q, R, H, B>(
    route: Route<'_>,
    query: &str,
    request: Request<B>,
    request_id: &RequestId,
    Ports { ledger, queue, limiter, host, config }: &Ports<'_, L, Q, R, H>,
) -> Result<Response, Problem>
where
    L: ProducerLedger,
    Q: Queue,
    R: RateLimiter,
    H: Host,
    B: Body,
{
    if request.method != route.method() {
        let detail = format!("{} takes {} only.", route.pattern(), route.allow());
        return Err(Problem::new(ProblemCode::MethodNotAllowed, detail).with_header("Allow", route.allow()));
    }
    let call = match route {
        Route::Probe(Probe::Healthz) => return Ok(healthz()),
        Route::Probe(Probe::Readyz) => return readyz(*ledger, *queue).await,
        Route::Call(call) => call,
    };
    let Config { tokens, protected } = config.map_err(|cause| not_configured(cause, *host))?;
    let principal = tokens.authenticate(request.authorization.as_deref())?;
    check_rate(principal.name(), *limiter, *host).await?;
    principal.require_any(call.roles())?;
    match call {
        Call::CreateDeletion => {
            accept(request, principal, protected, request_id, *ledger, *queue, *host).await
        }
        Call::ListDeletions => list::deletions(query, principal, *ledger, *host).await,
        Call::ReadDeletion { id } => read::deletion(id, principal, *ledger, *host).await,
        Call::CancelDeletion { id } => read::cancel(id, principal, *ledger, *queue, *host).await,
        Call::ListFailures { id } => {
            read::failures(id, query, principal, request.accept.as_deref(), *ledger, *host).await
        }
        Call::ReadStats => stats::read(query, principal, *ledger, *host).await,
        Call::ListUnreadableMessages => read::unreadable(query, *ledger).await,
    }
}

/// Tells the operator what is wrong, and the caller whom to tell.
fn not_configured(cause: &str, host: &impl Host) -> Problem {
    host.emit(&Event::ConfigInvalid { cause, r2_code: None });
    let detail = "The producer is not configured, so every request is refused. Its operator finds the reason in its log, \
                  as config.invalid.";
    Problem::new(ProblemCode::NotConfigured, detail)
}

#[cfg(test)]
mod tests;
