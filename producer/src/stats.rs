use ledger::ProducerLedger;

use crate::auth::Principal;
use crate::host::Host;
use crate::http::Response;
use crate::page::refuse_all;
use crate::problem::Problem;
use crate::view::StatsView;

/// `GET /v1/stats`: 200 with the totals over the deletions that the caller may see; 422 for the query, which has nothing
/// to say.
pub(crate) async fn read(
    query: &str,
    principal: Principal<'_>,
    ledger: &impl ProducerLedger,
    host: &impl Host,
) -> Result<Response, Problem> {
    refuse_all(query, "no parameter: this call takes none")?;
    let stats = ledger.stats(principal.sees_only(), host.now()).await;
    Ok(Response::json(200, &StatsView::from(&stats.map_err(|error| Problem::ledger(&error))?)))
}
