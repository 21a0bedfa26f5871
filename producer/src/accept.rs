use ledger::{LedgerError, NewDeletion, NewPart, PartRef, ProducerLedger};
use protocol::limits::REQUEST_BYTES_MAX;
use protocol::{Counts, DeletionId, Event, ObjectKey, RequestId, State};

use crate::auth::Principal;
use crate::body::DeletionRequest;
use crate::config::ProtectedPrefixes;
use crate::host::Host;
use crate::http::{Body, BodyError, Request, Response};
use crate::idempotency::{self, SENDING_MS, replay};
use crate::outbox::{FilledOutbox, OutboxWriter, discard};
use crate::problem::{Problem, ProblemCode};
use crate::queue::Queue;
use crate::read::release_sending;
use crate::scope::check_keys;
use crate::sending::{SendingError, send_filled};
use crate::view::DeletionView;

/// `POST /v1/deletions`, from somebody who may.
///
/// 1. Look at the media type: 415.
/// 2. Read the body: 413, or 400 when it breaks off.
/// 3. Parse it: 400, 413 or 422; nothing is accepted of a request that is not right as a whole. Look at whether they may
///    delete these keys: 403, and nothing is accepted either.
/// 4. *await* With an Idempotency-Key that has been seen before, answer for what it has made: see
///    [`replay`](crate::idempotency::replay).
/// 5. *await* Pack the keys into messages, and write them into the outbox: 503. They belong to nobody yet.
/// 6. *await* Write the deletion down: 503. From here on its chunks are known, and only they may be deleted.
/// 7. *await* Send every message: 429 or 503. With an Idempotency-Key the next request with it goes on here. Without one the
///    caller will ask anew, so the rest is cancelled; what was sent may be carried out, which is what was asked for.
/// 8. *await* Note that all are stored; as after a failed send when that fails.
/// 9. Say 202.
pub(crate) async fn accept(
    request: Request<impl Body>,
    principal: Principal<'_>,
    protected: &ProtectedPrefixes,
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
    let idempotency =
        request.idempotency_key.as_deref().map(|key| idempotency::parse(key, &body)).transpose()?;
    let DeletionRequest { keys, duplicates_removed, delay_seconds, fence, labels } =
        DeletionRequest::from_json(&body, |keys| check_keys(keys, principal, protected))?;

    // (4) Seen before.
    if let Some(idempotency) = &idempotency {
        let earlier = ledger.find_idempotency_key(principal.name(), &idempotency.key).await;
        if let Some(earlier) = earlier.map_err(|error| Problem::ledger(&error))? {
            return replay(earlier, idempotency, principal, ledger, queue, host).await;
        }
    }

    // (5) Pack.
    let requested_at = host.now();
    let id = DeletionId::new(requested_at, host.random());
    let part = PartRef::request(&id);
    let sent_fence = fence.with_undo_window(delay_seconds);
    let total = keys.len();
    let filled =
        fill(OutboxWriter::new(request_id, &part, requested_at, sent_fence, ledger), &keys, host).await;
    let filled = filled.map_err(|error| Problem::ledger(&error))?;
    drop(keys);
    drop(body);

    // (6) Write down.
    let (not_before, messages) =
        (requested_at.plus_millis(u64::from(delay_seconds) * 1_000), filled.chunk_keys.len());
    let deletion = NewDeletion {
        id: id.clone(),
        requested_by: principal.name().to_owned(),
        requested_at,
        not_before,
        fence,
        part: Some(NewPart {
            upload: request_id.clone(),
            chunk_keys: filled.chunk_keys.clone(),
            duplicates_removed,
            sending_until: requested_at.plus_millis(SENDING_MS),
        }),
        labels,
        idempotency,
    };
    if !ledger.admit_deletion(&deletion).await.map_err(|error| Problem::ledger(&error))? {
        discard(request_id, ledger, host).await;
        return Err(idempotency::in_progress());
    }

    // (7) Send, (8) note.
    let has_key = deletion.idempotency.is_some();
    let sent = match send_filled(&part, filled, not_before, ledger, queue, host).await {
        Ok(()) => ledger.mark_enqueued(&part, host.now()).await.map_err(SendingError::Ledger),
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        if has_key {
            release_sending(&part, ledger, host).await;
        } else if let Err(error) = ledger.cancel_deletion(&id, host.now()).await {
            host.emit(&Event::LedgerFailed { operation: "cancel", cause: &error.cause });
        }
        return Err(error.into_problem(host.now()));
    }

    // (9) Accepted.
    host.emit(&Event::DeletionAccepted {
        deletion: &id,
        request_id,
        requested_by: principal.name(),
        keys: total,
        duplicates_removed,
        messages,
    });
    let view = DeletionView {
        id: &id,
        state: State::Queued,
        generation: 0,
        fence,
        counts: Counts::derive(total as u64, 0, 0, 0, false),
        duplicates_removed: duplicates_removed as u64,
        messages: messages as u64,
        requested_at,
        not_before: Some(deletion.not_before).filter(|&end| end > requested_at),
        started_at: None,
        finished_at: None,
        expires_at: None,
        errors: Vec::new(),
        labels: &deletion.labels,
        requested_by: principal.name(),
    };
    let location = format!("/v1/deletions/{id}");
    Ok(Response::json(202, &view).with_header("Location", location).with_header("Retry-After", "1"))
}

async fn fill<L: ProducerLedger>(
    mut outbox: OutboxWriter<'_, L>,
    keys: &[ObjectKey<'_>],
    host: &impl Host,
) -> Result<FilledOutbox, LedgerError> {
    let filled = async {
        for key in keys {
            outbox.push(key).await?;
        }
        outbox.finish().await
    };
    let filled = filled.await;
    if filled.is_err() {
        outbox.discard(host).await;
    }
    filled
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
