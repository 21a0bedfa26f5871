use futures::stream::{self, TryStreamExt};
use ledger::{NewDeletion, ProducerLedger};
use protocol::limits::{CONNECTIONS_MAX, REQUEST_BYTES_MAX};
use protocol::{
    Counts, DeletionId, Event, Packed, QueueError, RequestId, State, group_into_sends, pack_keys,
};

use crate::auth::Principal;
use crate::body::DeletionRequest;
use crate::host::Host;
use crate::http::{Body, BodyError, Request, Response};
use crate::problem::{Problem, ProblemCode};
use crate::queue::Queue;
use crate::view::DeletionView;

/// `POST /v1/deletions`, from somebody who may.
///
/// 1. Look at the media type: 415.
/// 2. Read the body: 413, or 400 when it breaks off.
/// 3. Parse it: 400, 413 or 422; nothing is accepted of a request that is not right as a whole.
/// 4. Pack the keys into messages.
/// 5. *await* Write the deletion down: 503. From here on its chunks are known, and only they may be deleted.
/// 6. *await* Send every message: 429 or 503. What was sent may be carried out, which is what was asked for; the rest is
///    cancelled, so that the deletion ends, and the caller asks again.
/// 7. Say 202.
pub(crate) async fn accept(
    request: Request<impl Body>,
    principal: &Principal,
    request_id: &RequestId,
    ledger: &impl ProducerLedger,
    queue: &impl Queue,
    host: &impl Host,
) -> Result<Response, Problem> {
    // (1) Media type.
    check_media_type(&request)?;

    // (2) Read.
    let body = request.body.read(REQUEST_BYTES_MAX).await.map_err(|error| match error {
        BodyError::TooLarge => {
            let detail = format!("The body has more than {REQUEST_BYTES_MAX} bytes. Send several requests.");
            Problem::new(ProblemCode::PayloadTooLarge, detail)
        }
        BodyError::Broken => {
            Problem::new(ProblemCode::MalformedRequest, "The body broke off. Send the request again.")
        }
    })?;

    // (3) Parse.
    let DeletionRequest { keys, duplicates_removed, labels } = DeletionRequest::from_json(&body)?;

    // (4) Pack.
    let requested_at = host.now();
    let id = DeletionId::new(requested_at, host.random());
    let packed = pack_keys(&id, 0, requested_at, &keys);
    let (total, messages) = (keys.len(), packed.len());
    drop(keys);
    drop(body);

    // (5) Write down.
    let deletion = NewDeletion {
        id: id.clone(),
        requested_by: principal.name.to_owned(),
        requested_at,
        duplicates_removed,
        chunk_keys: packed.iter().map(|message| message.keys).collect(),
        labels,
    };
    ledger.insert_deletion(&deletion).await.map_err(|error| Problem::ledger(&error))?;

    // (6) Send.
    if let Err(error) = send_all(packed, queue).await {
        if let Err(error) = ledger.cancel_deletion(&id, host.now()).await {
            host.emit(&Event::LedgerFailed { operation: "cancel", cause: &error.cause });
        }
        return Err(Problem::queue(error, host.now()));
    }

    // (7) Accepted.
    host.emit(&Event::DeletionAccepted {
        deletion: &id,
        request_id,
        requested_by: principal.name,
        keys: total,
        duplicates_removed,
        messages,
    });
    let view = DeletionView {
        id: &id,
        state: State::Queued,
        generation: 0,
        counts: Counts::derive(total as u64, 0, 0, 0, false),
        duplicates_removed: duplicates_removed as u64,
        messages: messages as u64,
        requested_at,
        started_at: None,
        finished_at: None,
        errors: Vec::new(),
        labels: &deletion.labels,
        requested_by: principal.name,
    };
    let location = format!("/v1/deletions/{id}");
    Ok(Response::json(202, &view).with_header("Location", location).with_header("Retry-After", "1"))
}

fn check_media_type<B>(request: &Request<B>) -> Result<(), Problem> {
    let unsupported = |detail| Err(Problem::new(ProblemCode::UnsupportedMediaType, detail));
    if request.content_encoding.as_deref().is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity"))
    {
        return unsupported("The body is encoded. Send it without a Content-Encoding.");
    }
    let media_type =
        request.content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default();
    if media_type.trim().eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    unsupported("The body must be JSON. Send the header `Content-Type: application/json`.")
}

async fn send_all(messages: Vec<Packed>, queue: &impl Queue) -> Result<(), QueueError> {
    stream::iter(group_into_sends(messages).into_iter().map(Ok))
        .try_for_each_concurrent(CONNECTIONS_MAX, |send| queue.send(send))
        .await
}
