use ledger::{NewPart, PartRecord, PartRef, ProducerLedger, Sending};
use protocol::limits::PARTS_MAX;
use protocol::{Event, RequestId, Timestamp};
use sha2::{Digest, Sha256};

use crate::assets::Assets;
use crate::body::{Incoming, Received, Takes, WORKING_BYTES_MAX};
use crate::host::Host;
use crate::http::{Body, Request, Response};
use crate::idempotency::{SENDING_MS, in_progress};
use crate::memory::Reservation;
use crate::options::Options;
use crate::outbox::OutboxWriter;
use crate::problem::{Problem, ProblemCode};
use crate::queue::Queue;
use crate::rate_limit::RateLimiter;
use crate::read;
use crate::router::Ports;
use crate::scope::Scope;
use crate::sending::{Unsent, note_sent, resume, send_part};
use crate::view::PartView;

/// `PUT /v1/deletions/{id}/parts/{number}`: puts a part of a deletion that was begun in parts. Putting it again is answered the
/// same way, so that a part can be sent until it is answered with 202.
///
/// 1. Look at the number: 404 when it is none. *await* Find the deletion: 404, or 409 when it takes no parts.
/// 2. Look at what is said about the body, and *await* room in memory: 413, 415, 422 or 503.
/// 3. *await* Read the body, take in its keys, and write their messages into the outbox, as a deletion's own: they belong to
///    nobody yet.
/// 4. *await* A part of this number that is there already is answered for, see [`replay`].
/// 5. *await* Write the part down, unless it was put or the deletion closed in the meantime. From here on its keys are to be
///    deleted.
/// 6. *await* Send every message, and note it: 429 or 503. The next request with the part goes on here.
/// 7. Say 202.
pub(crate) async fn put_part(
    id: &str,
    number: &str,
    request: Request<impl Body>,
    query: &str,
    scope: Scope<'_>,
    request_id: &RequestId,
    ports: &Ports<'_, impl ProducerLedger, impl Queue, impl RateLimiter, impl Assets, impl Host>,
) -> Result<Response, Problem> {
    let &Ports { ledger, host, memory, .. } = ports;
    // (1) Deletion.
    let number = parse_number(number)?;
    let deletion = read::find_own(id, scope.principal, ledger, host).await?;
    if !deletion.takes_parts() {
        return Err(closed());
    }
    let part = PartRef { part: number, ..PartRef::request(&deletion.id) };

    // (2) Form and room.
    let incoming = Incoming::new(request, query, Takes::JsonOrNdjson, Some(Sha256::new()))?;
    let mut reservation = memory.reserve(incoming.memory_bytes(), host).await?;

    // (3) to (7); and whatever comes of it, no message stays that is no part's. The fence keeps what is newer than the request
    // that has named it, and that is this one.
    let requested_at = host.now().max(deletion.requested_at);
    let mut outbox = OutboxWriter::new(request_id, &part, requested_at, Some(deletion.sent_fence()), ledger);
    let begun = Begun { part: &part, not_before: deletion.not_before, request_id };
    let put = fill_and_send(incoming, scope, begun, &mut outbox, &mut reservation, ports).await;
    outbox.discard_rest(host).await;
    put
}

/// A part in the making: its name, the end of its deletion's undo window, and the request that puts it.
struct Begun<'a> {
    part: &'a PartRef,
    not_before: Timestamp,
    request_id: &'a RequestId,
}

async fn fill_and_send<L: ProducerLedger>(
    incoming: Incoming<'_, impl Body>,
    scope: Scope<'_>,
    Begun { part, not_before, request_id }: Begun<'_>,
    outbox: &mut OutboxWriter<'_, L>,
    reservation: &mut Reservation<'_>,
    ports: &Ports<'_, L, impl Queue, impl RateLimiter, impl Assets, impl Host>,
) -> Result<Response, Problem> {
    let &Ports { ledger, queue, host, .. } = ports;
    // (3) Read.
    let Received { options, taken, fingerprint, .. } = incoming.receive(scope, outbox, host).await?;
    let taken = taken.filter(|_| options == Options::default()).ok_or_else(|| {
        let detail = "A part has keys only. What else is said of a deletion is said when it is begun.";
        Problem::new(ProblemCode::ValidationFailed, detail)
    })?;
    let fingerprint = fingerprint.unwrap_or_default();

    // (4) Put before.
    if let Some(earlier) = find(part, ledger).await? {
        return replay(part, &earlier, &fingerprint, ports).await;
    }
    let filled = outbox.finish().await.map_err(|error| Problem::ledger(&error))?;
    reservation.shrink(WORKING_BYTES_MAX);

    // (5) Write down.
    let new = NewPart {
        upload: request_id.clone(),
        chunk_keys: filled.chunk_keys.clone(),
        duplicates_removed: taken.duplicates,
        sending_until: host.now().plus_millis(SENDING_MS),
    };
    let is_put = outbox.hand_over(ledger.admit_part(part, &new, &fingerprint)).await;
    if !is_put.map_err(|error| Problem::ledger(&error))? {
        return match find(part, ledger).await? {
            Some(earlier) => replay(part, &earlier, &fingerprint, ports).await,
            None => Err(closed()),
        };
    }

    // (6) Send, (7) say.
    let view = PartView {
        part: part.part,
        keys: new.keys() as u64,
        duplicates_removed: new.duplicates_removed as u64,
        messages: new.chunk_keys.len() as u64,
    };
    let sent = send_part(part, Unsent::Filled(filled), not_before, ledger, queue, host).await;
    note_sent(part, sent, ledger, host).await?;
    host.emit(&Event::PartAccepted {
        deletion: &part.deletion,
        part: part.part,
        request_id,
        keys: taken.keys,
        duplicates_removed: taken.duplicates,
        messages: new.chunk_keys.len(),
    });
    Ok(Response::json(202, &view))
}

/// Answers for a part that is there already.
///
/// 1. Made of another body: 409.
/// 2. Every message stored: 202.
/// 3. Another request is sending them: 409, to be asked again.
/// 4. That request has died, or the Queue refused it: *await* take its place, *await* send every message from the outbox. 202.
async fn replay(
    part: &PartRef,
    earlier: &PartRecord,
    fingerprint: &str,
    ports: &Ports<'_, impl ProducerLedger, impl Queue, impl RateLimiter, impl Assets, impl Host>,
) -> Result<Response, Problem> {
    if earlier.fingerprint != fingerprint {
        let detail = format!("Part {} was put with another body. It stays as it was first.", part.part);
        return Err(Problem::new(ProblemCode::PartDiffers, detail));
    }
    let is_done = match earlier.sending {
        Sending::Done => true,
        Sending::Held { until } if until > ports.host.now() => false,
        Sending::Held { .. } => resume(part, ports).await?,
    };
    if !is_done {
        return Err(in_progress());
    }
    let PartRecord { part, keys, duplicates_removed, messages, .. } = *earlier;
    Ok(Response::json(202, &PartView { part, keys, duplicates_removed, messages }))
}

async fn find(part: &PartRef, ledger: &impl ProducerLedger) -> Result<Option<PartRecord>, Problem> {
    ledger.find_part(&part.deletion, part.part).await.map_err(|error| Problem::ledger(&error))
}

/// 404 for what is no number of a part, spelled in the one way: `01` would be another path to part 1.
fn parse_number(text: &str) -> Result<u32, Problem> {
    let number = text.parse().ok().filter(|number| (1..=PARTS_MAX).contains(number));
    number.filter(|number| number.to_string() == text).ok_or_else(|| {
        let detail = format!("There is no such part: parts are numbered from 1 to {PARTS_MAX}.");
        Problem::new(ProblemCode::NotFound, detail)
    })
}

fn closed() -> Problem {
    let detail = "The deletion takes no parts: it came as a whole, or was sealed or cancelled.";
    Problem::new(ProblemCode::PartsClosed, detail)
}
