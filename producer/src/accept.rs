use ledger::{Idempotency, NewDeletion, NewPart, PartRef, ProducerLedger};
use protocol::{Counts, DeletionId, Event, RequestId, State, SweepRef, Timestamp};
use sha2::{Digest, Sha256};

use crate::assets::Assets;
use crate::body::{Incoming, Received, Takes, WORKING_BYTES_MAX};
use crate::host::Host;
use crate::http::{Body, Request, Response};
use crate::idempotency::{self, SENDING_MS, replay};
use crate::intake::Taken;
use crate::memory::Reservation;
use crate::options::Options;
use crate::outbox::OutboxWriter;
use crate::problem::Problem;
use crate::queue::Queue;
use crate::rate_limit::RateLimiter;
use crate::read;
use crate::router::Ports;
use crate::scope::Scope;
use crate::sending::{Unsent, note_sent, send_part};
use crate::view::DeletionView;

/// `POST /v1/deletions`, from somebody who may: see [`enqueue`].
pub(crate) async fn accept(
    request: Request<impl Body>,
    query: &str,
    scope: Scope<'_>,
    request_id: &RequestId,
    ports: &Ports<'_, impl ProducerLedger, impl Queue, impl RateLimiter, impl Assets, impl Host>,
) -> Result<Response, Problem> {
    Ok(enqueue(request, query, Takes::JsonOrNdjson, scope, request_id, ports).await?.response)
}

/// A deletion whose messages are all stored, by this request or by an earlier one.
pub(crate) struct Enqueued<'m> {
    /// Its id.
    pub(crate) id: DeletionId,
    /// 202.
    pub(crate) response: Response,
    /// The request's body, for a call that takes [`Takes::Json`].
    pub(crate) body: Vec<u8>,
    /// The memory that the request holds.
    pub(crate) reservation: Reservation<'m>,
}

/// Takes a request in and sends its messages.
///
/// 1. Look at what is said about the body: 413, 415, or 422 for the query; 400 for the Idempotency-Key.
/// 2. *await* Wait for room in memory: 503.
/// 3. *await* Read the body, take in its keys, and write their messages into the outbox, a row at a time: 400, 408, 413, 422, 403
///    or 503. The messages belong to nobody yet, and are removed when anything is wrong; upkeep removes what is left all the
///    same.
/// 4. *await* With an Idempotency-Key that has been seen before, answer for what it has made: see
///    [`replay`](crate::idempotency::replay).
/// 5. *await* Write the last row: 503.
/// 6. *await* Write the deletion down: 503. From here on its chunks are known, and only they may be deleted.
/// 7. *await* Send every message: 429 or 503. With an Idempotency-Key the next request with it goes on here. Without one the
///    caller will ask anew, so the rest is cancelled; what was sent may be carried out, which is what was asked for.
/// 8. *await* Note that all are stored; as after a failed send when that fails.
/// 9. Say 202.
pub(crate) async fn enqueue<'m>(
    request: Request<impl Body>,
    query: &str,
    takes: Takes,
    scope: Scope<'_>,
    request_id: &RequestId,
    ports: &Ports<'m, impl ProducerLedger, impl Queue, impl RateLimiter, impl Assets, impl Host>,
) -> Result<Enqueued<'m>, Problem> {
    let &Ports { ledger, host, memory, .. } = ports;
    // (1) Form.
    let key = request.idempotency_key.as_deref().map(idempotency::parse).transpose()?;
    let incoming = Incoming::new(request, query, takes, key.as_ref().map(|_| Sha256::new()))?;

    // (2) Room.
    let mut reservation = memory.reserve(incoming.memory_bytes(), host).await?;

    // (3) to (9); and whatever comes of it, no message stays that is no deletion's.
    let requested_at = host.now();
    let part = PartRef::request(&DeletionId::new(requested_at, host.random()));
    let mut outbox = OutboxWriter::new(request_id, &part, requested_at, None, ledger);
    let begun = Begun { part: &part, requested_at, request_id };
    let enqueued = fill_and_send(incoming, key, scope, begun, &mut outbox, &mut reservation, ports).await;
    outbox.discard_rest(host).await;
    let (response, body, id) = enqueued?;
    Ok(Enqueued { id, response, body, reservation })
}

/// A deletion in the making: its part, when it was requested, and by which request.
struct Begun<'a> {
    part: &'a PartRef,
    requested_at: Timestamp,
    request_id: &'a RequestId,
}

/// 202, the body for a call that takes [`Takes::Json`], and the deletion.
type Sent = (Response, Vec<u8>, DeletionId);

async fn fill_and_send<L: ProducerLedger>(
    incoming: Incoming<'_, impl Body>,
    key: Option<String>,
    scope: Scope<'_>,
    Begun { part, requested_at, request_id }: Begun<'_>,
    outbox: &mut OutboxWriter<'_, L>,
    reservation: &mut Reservation<'_>,
    ports: &Ports<'_, L, impl Queue, impl RateLimiter, impl Assets, impl Host>,
) -> Result<Sent, Problem> {
    let &Ports { ledger, queue, host, .. } = ports;
    // (3) Read.
    let received = incoming.receive(scope, outbox, host).await?;
    let Received { options, place, prefixes, taken, fingerprint, body } = received;
    let Options { delay_seconds, fence, labels, sweep } = options;
    reservation.shrink(WORKING_BYTES_MAX + body.len());

    // (4) Seen before.
    let idempotency = key.zip(fingerprint).map(|(key, fingerprint)| Idempotency { key, fingerprint });
    if let Some(idempotency) = &idempotency {
        let earlier = ledger.find_idempotency_key(scope.principal.name(), &idempotency.key).await;
        if let Some(earlier) = earlier.map_err(|error| Problem::ledger(&error))? {
            let id = earlier.deletion.clone();
            let response = replay(earlier, idempotency, scope.principal, ports).await?;
            return Ok((response, body, id));
        }
    }

    // (5) Write the last row, (6) write down.
    let (dry_run, verify) = (sweep.dry_run, sweep.verify);
    let sweep = sweep.resolve(prefixes, scope, place, ledger, host).await?;
    if let Some(sweep) = sweep.as_ref().filter(|_| outbox.has_no_keys()) {
        let begin =
            (0..).zip(&sweep.ranges).map(|(number, _)| SweepRef::first(&part.deletion, number).to_message());
        outbox.push_messages(begin);
    }
    let filled = match taken {
        Some(_) => Some(outbox.finish().await.map_err(|error| Problem::ledger(&error))?),
        None => None,
    };
    let admitted_at = host.now();
    let not_before = match delay_seconds {
        0 => requested_at,
        // A window begins when the caller can know of it.
        seconds => admitted_at.plus_millis(u64::from(seconds) * 1_000),
    };
    let deletion = NewDeletion {
        id: part.deletion.clone(),
        requested_by: scope.principal.name().to_owned(),
        requested_at,
        not_before,
        fence,
        part: taken.zip(filled.as_ref()).map(|(taken, filled)| NewPart {
            upload: request_id.clone(),
            chunk_keys: filled.chunk_keys.clone(),
            duplicates_removed: taken.duplicates,
            sending_until: admitted_at.plus_millis(SENDING_MS),
        }),
        sweep,
        verify,
        planned_keys: taken.filter(|_| dry_run).map(|taken| taken.keys),
        labels,
        idempotency,
    };
    if !outbox.hand_over(ledger.admit_deletion(&deletion)).await.map_err(|error| Problem::ledger(&error))? {
        return Err(idempotency::in_progress());
    }

    // (7) Send, (8) note.
    if let Some(filled) = filled {
        let sent = send_part(part, Unsent::Filled(filled), not_before, ledger, queue, host).await;
        if let Err(problem) = note_sent(part, sent, ledger, host).await {
            if deletion.idempotency.is_none()
                && let Err(error) = ledger.cancel_deletion(&deletion.id, host.now()).await
            {
                host.emit(&Event::LedgerFailed { operation: "cancel", cause: &error.cause });
            }
            return Err(problem);
        }
    }

    // (9) Accepted.
    let Taken { keys, duplicates: duplicates_removed } = taken.unwrap_or_default();
    host.emit(&Event::DeletionAccepted {
        deletion: &deletion.id,
        request_id,
        requested_by: &deletion.requested_by,
        keys,
        duplicates_removed,
        messages: deletion.part.as_ref().map_or(0, |part| part.chunk_keys.len()),
        prefixes: deletion.sweep.as_ref().map_or(0, |sweep| sweep.ranges.len()),
        dry_run,
    });
    let response = if deletion.sweep.is_none() && !dry_run {
        accepted(&deletion)
    } else {
        read::accepted(&deletion.id, scope.principal, ledger, host).await?
    };
    Ok((response, body, deletion.id))
}

/// 202 with a deletion that has just been accepted.
fn accepted(deletion: &NewDeletion) -> Response {
    let NewDeletion { id, requested_at, not_before, fence, part, .. } = deletion;
    let (state, [total, duplicates_removed, messages]) = match part {
        Some(part) => (State::Queued, [part.keys(), part.duplicates_removed, part.chunk_keys.len()]),
        None => (State::Accepting, [0; 3]),
    };
    let view = DeletionView {
        id,
        state,
        generation: 0,
        fence: *fence,
        counts: Counts::derive(total as u64, 0, 0, 0, false),
        duplicates_removed: duplicates_removed as u64,
        messages: messages as u64,
        requested_at: *requested_at,
        not_before: Some(*not_before).filter(|end| end > requested_at),
        started_at: None,
        finished_at: None,
        expires_at: None,
        errors: Vec::new(),
        labels: &deletion.labels,
        requested_by: &deletion.requested_by,
        dry_run: false,
        prefixes: None,
        found_by_prefix: 0,
        plan: None,
        verification: None,
    };
    let location = format!("/v1/deletions/{id}");
    Response::json(202, &view).with_header("Location", location).with_header("Retry-After", "1")
}
