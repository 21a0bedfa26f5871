use ledger::ProducerLedger;
use protocol::{Event, RequestId};

use crate::accept::accept;
use crate::assets::Assets;
use crate::auth::Role;
use crate::config::Config;
use crate::health::{healthz, readyz};
use crate::host::Host;
use crate::http::{Body, Request, Response};
use crate::keys::KeyList;
use crate::list;
use crate::memory::MemoryBudget;
use crate::openapi::read_description;
use crate::problem::{Problem, ProblemCode};
use crate::put_part::put_part;
use crate::queue::Queue;
use crate::rate_limit::{Caller, RateLimiter, check_rate};
use crate::read;
use crate::receipt::receipt;
use crate::redrive;
use crate::scope::Scope;
use crate::seal::seal;
use crate::stats;
use crate::wait::delete_and_wait;

/// What the producer stands on.
#[derive(Debug)]
pub struct Ports<'a, L, Q, R, A, H> {
    /// The ledger.
    pub ledger: &'a L,
    /// The Queue.
    pub queue: &'a Q,
    /// The limit on calls.
    pub limiter: &'a R,
    /// The files that are deployed with the Worker.
    pub assets: &'a A,
    /// The machine.
    pub host: &'a H,
    /// The memory that all requests share.
    pub memory: &'a MemoryBudget,
    /// The configuration, or what is wrong with it.
    pub config: Result<&'a Config, &'a str>,
}

/// A call of the API.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    /// Its path, where `{id}` and its like stand for any one segment. The log and the API's description know it by this.
    pub(crate) pattern: &'static str,
    pub(crate) access: Access,
}

/// Who may make a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access {
    /// Anybody: the probes of a load balancer have no token, and learn nothing.
    Open(OpenCall),
    /// Whoever has a token with one of these roles.
    AnyOf(&'static [Role], Call),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum OpenCall {
    Healthz,
    ReadDescription,
    Readyz,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    CancelDeletion,
    DeleteAndWait,
    CreateDeletion,
    ListDeletions,
    ListKeys(KeyList),
    ListUnreadableMessages,
    PutPart,
    ReadDeletion,
    ReadReceipt,
    ReadStats,
    RedriveDeletion,
    RedriveFailures,
    SealDeletion,
}

/// Every call there is. A test holds the API's description to it, and it to the description.
#[rustfmt::skip]
pub(crate) const ROUTES: &[Route] = &[
    route("GET", "/v1/deletions", Access::AnyOf(&[Role::Read], Call::ListDeletions)),
    route("POST", "/v1/deletions", Access::AnyOf(&[Role::Delete, Role::Sweep], Call::CreateDeletion)),
    route("GET", "/v1/deletions/{id}", Access::AnyOf(&[Role::Read], Call::ReadDeletion)),
    route("POST", "/v1/deletions/{id}/cancel", Access::AnyOf(&[Role::Delete, Role::Sweep, Role::Operate], Call::CancelDeletion)),
    route("POST", "/v1/deletions/{id}/redrive", Access::AnyOf(&[Role::Operate], Call::RedriveDeletion)),
    route("PUT", "/v1/deletions/{id}/parts/{number}", Access::AnyOf(&[Role::Delete], Call::PutPart)),
    route("POST", "/v1/deletions/{id}/seal", Access::AnyOf(&[Role::Delete], Call::SealDeletion)),
    route("GET", "/v1/deletions/{id}/receipt", Access::AnyOf(&[Role::Read], Call::ReadReceipt)),
    route("GET", "/v1/deletions/{id}/failures", Access::AnyOf(&[Role::Read], Call::ListKeys(KeyList::Failures))),
    route("GET", "/v1/deletions/{id}/skipped", Access::AnyOf(&[Role::Read], Call::ListKeys(KeyList::Skipped))),
    route("POST", "/v1/redrives", Access::AnyOf(&[Role::Operate], Call::RedriveFailures)),
    route("GET", "/v1/stats", Access::AnyOf(&[Role::Read], Call::ReadStats)),
    route("GET", "/v1/unreadable-messages", Access::AnyOf(&[Role::Operate], Call::ListUnreadableMessages)),
    route("POST", "/", Access::AnyOf(&[Role::Delete], Call::DeleteAndWait)),
    route("GET", "/openapi.json", Access::Open(OpenCall::ReadDescription)),
    route("GET", "/healthz", Access::Open(OpenCall::Healthz)),
    route("GET", "/readyz", Access::Open(OpenCall::Readyz)),
];

const fn route(method: &'static str, pattern: &'static str, access: Access) -> Route {
    Route { method, pattern, access }
}

/// The segments of a path that its pattern leaves open; no pattern has more of them.
type Variables<'a> = [&'a str; 2];

/// A route, and what stands in the path for the variables of its pattern.
type Match<'a> = (&'static Route, Variables<'a>);

impl Route {
    /// The routes of a path, one for each method that it takes.
    fn of(path: &str) -> Vec<Match<'_>> {
        ROUTES.iter().filter_map(|route| Some((route, route.variables(path)?))).collect()
    }

    /// The route of a method: 404 when the path has no route, 405 when it has none of this method.
    fn choose<'a>(of_path: &[Match<'a>], method: &str) -> Result<Match<'a>, Problem> {
        if let Some(found) = of_path.iter().find(|(route, _)| route.method == method) {
            return Ok(*found);
        }
        let Some((route, _)) = of_path.first() else {
            return Err(Problem::new(ProblemCode::NotFound, "There is no such resource."));
        };
        let allow = of_path.iter().map(|(route, _)| route.method).collect::<Vec<_>>().join(", ");
        let detail = format!("{} takes {allow} only.", route.pattern);
        Err(Problem::new(ProblemCode::MethodNotAllowed, detail).with_header("Allow", allow))
    }

    /// What stands in the path for the pattern's variables; `None` when it is another path.
    fn variables<'a>(&self, path: &'a str) -> Option<Variables<'a>> {
        let (mut variables, mut found) = (Variables::default(), 0);
        let mut segments = path.split('/');
        for expected in self.pattern.split('/') {
            let segment = segments.next()?;
            if expected.starts_with('{') {
                *variables.get_mut(found)? = segment;
                found += 1;
            } else if segment != expected {
                return None;
            }
        }
        segments.next().is_none().then_some(variables)
    }
}

/// Answers one request, and writes it to the log. There is an answer to everything.
pub async fn answer<L, Q, R, A, H, B>(request: Request<B>, ports: &Ports<'_, L, Q, R, A, H>) -> Response
where
    L: ProducerLedger,
    Q: Queue,
    R: RateLimiter,
    A: Assets,
    H: Host,
    B: Body,
{
    let host = ports.host;
    let started_at = host.now();
    let request_id = RequestId::new(started_at, host.random());
    let (method, target) = (request.method.clone(), request.target.clone());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let routes = Route::of(path);

    let result = match Route::choose(&routes, &method) {
        Ok(found) => dispatch(found, query, request, &request_id, ports).await,
        Err(problem) => Err(problem),
    };
    let (error_type, cause) = match &result {
        Ok(_) => (None, None),
        Err(problem) => (Some(problem.code.as_str()), problem.cause.clone()),
    };
    let response = result.unwrap_or_else(|problem| problem.into_response(&request_id));
    host.emit(&Event::RequestFinished {
        request_id: &request_id,
        method: &method,
        route: routes.first().map_or("unmatched", |(route, _)| route.pattern),
        status: response.status,
        error_type,
        cause: cause.as_deref(),
        duration_ms: host.now().millis_since(started_at),
    });
    response.with_header("X-Request-Id", request_id.as_str()).with_header("Cache-Control", "no-store")
}

async fn dispatch<L, Q, R, A, H, B>(
    (route, [id, number]): Match<'_>,
    query: &str,
    request: Request<B>,
    request_id: &RequestId,
    ports: &Ports<'_, L, Q, R, A, H>,
) -> Result<Response, Problem>
where
    L: ProducerLedger,
    Q: Queue,
    R: RateLimiter,
    A: Assets,
    H: Host,
    B: Body,
{
    let Ports { ledger, queue, limiter, assets, host, config, .. } = ports;
    let (roles, call) = match route.access {
        Access::Open(OpenCall::Healthz) => return Ok(healthz()),
        Access::Open(OpenCall::ReadDescription) => return read_description(*assets).await,
        Access::Open(OpenCall::Readyz) => return readyz(*config, *ledger, *queue).await,
        Access::AnyOf(roles, call) => (roles, call),
    };
    let Config { tokens, protected, sweeps } = config.map_err(|cause| not_configured(cause, *host))?;
    let principal = match (tokens.authenticate(request.authorization.as_deref()), &request.client_address) {
        (Ok(principal), _) => principal,
        (Err(refused), None) => return Err(refused),
        (Err(refused), Some(address)) => {
            check_rate(Caller::Stranger(address), *limiter, *host).await?;
            return Err(refused);
        }
    };
    check_rate(Caller::Token(principal.name()), *limiter, *host).await?;
    principal.require_any(roles)?;
    let scope = Scope { principal, protected, sweeps };
    match call {
        Call::DeleteAndWait => delete_and_wait(request, query, scope, request_id, ports).await,
        Call::CreateDeletion => accept(request, query, scope, request_id, ports).await,
        Call::ListDeletions => list::deletions(query, principal, *ledger, *host).await,
        Call::ReadDeletion => read::deletion(id, principal, *ledger, *host).await,
        Call::ReadReceipt => receipt(id, query, principal, *ledger, *host).await,
        Call::CancelDeletion => read::cancel(id, principal, *ledger, *queue, *host).await,
        Call::ListKeys(list) => {
            read::keys(list, id, query, principal, request.accept.as_deref(), *ledger, *host).await
        }
        Call::RedriveDeletion => {
            redrive::deletion(id, query, request.body, principal, request_id, ports).await
        }
        Call::RedriveFailures => redrive::failures(query, request, request_id, ports).await,
        Call::PutPart => put_part(id, number, request, query, scope, request_id, ports).await,
        Call::SealDeletion => seal(id, query, request.body, principal, *ledger, *queue, *host).await,
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
