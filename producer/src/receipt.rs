use ledger::ProducerLedger;
use protocol::{KeyDigest, Timestamp, rfc3339};
use serde::Serialize;

use crate::auth::Principal;
use crate::host::Host;
use crate::http::Response;
use crate::page::refuse_all;
use crate::problem::{Problem, ProblemCode};
use crate::read;
use crate::view::DeletionView;

/// What a deletion has done, to be kept when the ledger has forgotten it.
#[derive(Debug, Serialize)]
struct ReceiptView<'a> {
    #[serde(serialize_with = "rfc3339::serialize")]
    issued_at: Timestamp,
    deletion: DeletionView<'a>,
    /// Of the keys deleted, where it was asked for.
    deleted_keys_digest: Option<DigestView>,
}

#[derive(Debug, Serialize)]
struct DigestView {
    algorithm: &'static str,
    keys: u64,
    value: String,
}

/// How the digest is made, in a name: see [`KeyDigest`].
const ALGORITHM: &str = "sha256-sum";

/// `GET /v1/deletions/{id}/receipt`: 200 with what has become of a deletion that is over, to be kept; 404; 409 while it is not
/// over, since it could still say otherwise.
pub(crate) async fn receipt(
    id: &str,
    query: &str,
    principal: Principal<'_>,
    ledger: &impl ProducerLedger,
    host: &impl Host,
) -> Result<Response, Problem> {
    refuse_all(query, "no parameter: this call takes none")?;
    let record = read::find(id, principal, ledger, host).await?;
    if !record.state.is_final() {
        let detail =
            format!("The deletion is {}: there is a receipt when it is over.", record.state.as_str());
        return Err(Problem::new(ProblemCode::DeletionNotFinal, detail).with_header("Retry-After", "5"));
    }
    let digest = ledger.sum_digests(&record.id).await.map_err(|error| Problem::ledger(&error))?;
    let view = |digest: KeyDigest| DigestView {
        algorithm: ALGORITHM,
        keys: record.counts.deleted,
        value: digest.to_string(),
    };
    let receipt = ReceiptView {
        issued_at: host.now(),
        deletion: DeletionView::from(&record),
        deleted_keys_digest: digest.map(view),
    };
    let file = format!("attachment; filename=\"{}.json\"", record.id);
    Ok(Response::json(200, &receipt).with_header("Content-Disposition", file))
}
