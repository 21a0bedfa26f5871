use ledger::{
    BegunRedrive, DeletionRecord, FailureFilter, FailureRecord, Hold, KeyCursor, LedgerError, NewPart,
    NewRedrive, PartRef, ProducerLedger, RedrivableDeletion,
};
use protocol::limits::{DELETE_KEYS_MAX, KEY_BYTES_MAX, MESSAGE_BODY_BYTES_MAX, PART_CHUNKS_MAX};
use protocol::{Counts, DeletionId, Event, FailureCode, ObjectKey, RequestId, State, Timestamp, rfc3339};

use crate::assets::Assets;
use crate::auth::Principal;
use crate::fields::{Fields, read_small};
use crate::host::Host;
use crate::http::{Body, Request, Response};
use crate::idempotency::SENDING_MS;
use crate::outbox::{FilledOutbox, OutboxWriter};
use crate::page::refuse_all;
use crate::problem::{Problem, ProblemCode};
use crate::queue::Queue;
use crate::rate_limit::RateLimiter;
use crate::read;
use crate::router::Ports;
use crate::sending::{Unsent, note_sent, resume, send_part, take_over};
use crate::view::{RedriveView, RedrivesView};

/// Most failures that one redrive of a deletion takes, and most bytes of their keys as JSON: they must fit into one part.
const KEYS_MAX: usize = 500_000;
const BYTES_MAX: usize = 60_000_000;
const _: () = assert!(
    KEYS_MAX / DELETE_KEYS_MAX + BYTES_MAX / (MESSAGE_BODY_BYTES_MAX - KEY_BYTES_MAX * 6 - 1_000) + 1
        < PART_CHUNKS_MAX as usize
);

/// How many failures are read at once.
const FAILURES_AT_ONCE: usize = 2_000;

/// Most deletions that one call redrives.
const DELETIONS_MAX: usize = 100;

const CODE: &str = "code";
const FAILED_BEFORE: &str = "failed_before";
const DRY_RUN: &str = "dry_run";

/// `POST /v1/deletions/{id}/redrive`: sends the failures of a deletion again.
///
/// 1. The call takes nothing: 422 for a query or a field, which could be one that was meant to narrow it.
/// 2. *await* Find the deletion: 404. One whose redrive is under way is finished sending and answered as it is, 202; one
///    without failures of keys is answered as it is, 200. 409 for one that is not over, or that was cancelled.
/// 3. *await* Send the failures again, see [`send_again`]; 202.
pub(crate) async fn deletion(
    id: &str,
    query: &str,
    body: impl Body,
    principal: Principal<'_>,
    request_id: &RequestId,
    ports: &Ports<'_, impl ProducerLedger, impl Queue, impl RateLimiter, impl Assets, impl Host>,
) -> Result<Response, Problem> {
    let Ports { ledger, host, .. } = ports;
    // (1) Nothing.
    refuse_all(query, "no parameter: this call takes none")?;
    Fields::from_json(&read_small(body).await?, &[])?;

    // (2) Find.
    let record = read::find(id, principal, *ledger, *host).await?;
    match record {
        DeletionRecord { state: State::Failed, .. } => {
            // (3) Send.
            let sent = send_again(&record, FailureFilter::default(), request_id, ports).await?;
            // Nothing was sent: somebody else was first, or what has failed is a prefix.
            if sent == 0 && read::find(id, principal, *ledger, *host).await?.state.is_final() {
                return read::deletion(id, principal, *ledger, *host).await;
            }
        }
        DeletionRecord { state: State::Queued | State::Running, generation: 1.., .. } => {
            let DeletionRecord { id, generation, .. } = &record;
            let part = PartRef { deletion: id.clone(), generation: *generation, part: 0 };
            if !resume(&part, ports).await? {
                return Err(not_over(
                    "Its failures are being sent again by another request. Ask again in a moment.",
                ));
            }
        }
        DeletionRecord { state: State::Cancelled, counts: Counts { failed: 1.., .. }, .. } => {
            let detail = "The deletion was cancelled. Request what is still to be deleted anew.";
            return Err(Problem::new(ProblemCode::DeletionCancelled, detail));
        }
        _ if record.state.is_final() => return read::deletion(id, principal, *ledger, *host).await,
        _ => {
            return Err(not_over("The deletion is not over. What fails can be redriven when it is."));
        }
    }
    read::accepted(&record.id, principal, *ledger, *host).await
}

fn not_over(detail: &str) -> Problem {
    Problem::new(ProblemCode::DeletionNotFinal, detail).with_header("Retry-After", "5")
}

/// `POST /v1/redrives`: sends the failures of all deletions that are over again, those that the filter lets through: 202. With
/// `dry_run` it says which they would be: 200. 422 for a wrong field.
///
/// 1. *await* Find the deletions that have such failures, and those whose redrive of such failures was begun and not sent
///    whole: the same call again goes on where it was refused or died.
/// 2. *await* Send the failures of each, see [`send_again`], or *await* finish the sending: 429 or 503. What another
///    request is sending is left to it, and the caller told to ask again.
pub(crate) async fn failures(
    query: &str,
    request: Request<impl Body>,
    request_id: &RequestId,
    ports: &Ports<'_, impl ProducerLedger, impl Queue, impl RateLimiter, impl Assets, impl Host>,
) -> Result<Response, Problem> {
    refuse_all(query, "no parameter: this call takes its filter in the body")?;
    let body = read_small(request.body).await?;
    let fields = Fields::from_json(&body, &[CODE, FAILED_BEFORE, DRY_RUN])?;
    let filter = FailureFilter { code: code(&fields)?, failed_before: failed_before(&fields)? };
    let dry_run = fields.get::<bool>(DRY_RUN, "true or false")?.unwrap_or_default();

    // (1) Find.
    let found = ports.ledger.list_redrivable(filter, DELETIONS_MAX + 1).await;
    let mut found = found.map_err(|error| Problem::ledger(&error))?;
    let mut more = found.len() > DELETIONS_MAX;
    found.truncate(DELETIONS_MAX);

    // (2) Send.
    let mut redrives = Vec::new();
    for RedrivableDeletion { id, failures, begun } in found {
        let sent = match begun {
            Some(begun) if dry_run => (begun.sending_until <= ports.host.now()).then_some(failures),
            Some(begun) => finish(&id, begun, failures, ports).await?,
            None if dry_run => Some(failures),
            None => Some(send_again_by_id(&id, filter, request_id, ports).await?),
        };
        match sent {
            // Somebody else was first.
            Some(0) => {}
            Some(keys) => redrives.push(RedriveView { deletion: id, keys }),
            None => more = true,
        }
    }
    let keys = redrives.iter().map(|redrive| redrive.keys).sum();
    let view = RedrivesView { dry_run, redrives, keys, more };
    Ok(Response::json(if dry_run { 200 } else { 202 }, &view))
}

fn code(fields: &Fields<'_>) -> Result<Option<FailureCode>, Problem> {
    let names = FailureCode::ALL.map(FailureCode::as_str).join(", ");
    let expected = format!("one of {names}");
    let Some(name) = fields.get::<String>(CODE, &expected)? else { return Ok(None) };
    FailureCode::from_text(&name).map(Some).ok_or_else(|| Fields::wrong(CODE, &expected))
}

fn failed_before(fields: &Fields<'_>) -> Result<Option<Timestamp>, Problem> {
    let expected = "a time like 2026-11-24T09:00:00Z";
    let Some(text) = fields.get::<String>(FAILED_BEFORE, expected)? else { return Ok(None) };
    rfc3339::parse(&text).map(Some).ok_or_else(|| Fields::wrong(FAILED_BEFORE, expected))
}

/// Sends a deletion's failures again, unless somebody else was first. Answers with how many.
async fn send_again_by_id(
    id: &DeletionId,
    filter: FailureFilter,
    request_id: &RequestId,
    ports: &Ports<'_, impl ProducerLedger, impl Queue, impl RateLimiter, impl Assets, impl Host>,
) -> Result<u64, Problem> {
    let found = ports.ledger.find_deletion(id, ports.host.now()).await;
    match found.map_err(|error| Problem::ledger(&error))? {
        Some(record) if record.state == State::Failed => send_again(&record, filter, request_id, ports).await,
        _ => Ok(0),
    }
}

/// Finishes the sending of a redrive of so many failures. Answers with how many this request has sent: none when another has
/// finished it, and `None` when another is at it.
async fn finish(
    id: &DeletionId,
    begun: BegunRedrive,
    failures: u64,
    ports: &Ports<'_, impl ProducerLedger, impl Queue, impl RateLimiter, impl Assets, impl Host>,
) -> Result<Option<u64>, Problem> {
    let part = PartRef { deletion: id.clone(), generation: begun.generation, part: 0 };
    Ok(match take_over(&part, ports).await? {
        Hold::Taken { .. } => Some(failures),
        Hold::Sent => Some(0),
        Hold::Elsewhere => None,
    })
}

/// Sends failures of a deletion that is over again, as its next generation. Answers with how many; 0 when somebody else was
/// first.
///
/// 1. *await* Read the failures and write their messages into the outbox, where they belong to nobody. Stopped here, upkeep
///    removes them, and the failures are still failures.
/// 2. *await* Make the failures a part of the deletion, which is open again then: all or nothing, and of two at once one.
///    From here on they are sent, by this request, by the next one, or by upkeep.
/// 3. *await* Send every message: 429 or 503. *await* Note that all are stored.
async fn send_again(
    record: &DeletionRecord,
    filter: FailureFilter,
    request_id: &RequestId,
    Ports { ledger, queue, host, .. }: &Ports<
        '_,
        impl ProducerLedger,
        impl Queue,
        impl RateLimiter,
        impl Assets,
        impl Host,
    >,
) -> Result<u64, Problem> {
    // (1) Write.
    let generation = record.generation + 1;
    let part = PartRef { deletion: record.id.clone(), generation, part: 0 };
    let mut outbox = OutboxWriter::new(request_id, &part, record.requested_at, Some(record.fence), *ledger);
    let (last, filled) = match fill(&mut outbox, record, filter, *ledger).await {
        Ok(Some(filled)) => filled,
        Ok(None) => return Ok(0),
        Err(error) => {
            outbox.discard_rest(*host).await;
            return Err(Problem::ledger(&error));
        }
    };

    // (2) Make a part of them.
    let redrive = NewRedrive {
        deletion: record.id.clone(),
        generation,
        filter,
        last,
        part: NewPart {
            upload: request_id.clone(),
            chunk_keys: filled.chunk_keys.clone(),
            duplicates_removed: 0,
            sending_until: host.now().plus_millis(SENDING_MS),
        },
    };
    let is_first = outbox.hand_over(ledger.admit_redrive(&redrive)).await;
    if !is_first.map_err(|error| Problem::ledger(&error))? {
        outbox.discard_rest(*host).await;
        return Ok(0);
    }
    let (keys, messages) = (redrive.part.keys(), filled.chunk_keys.len());
    host.emit(&Event::RedriveStarted { deletion: &record.id, request_id, generation, keys, messages });

    // (3) Send.
    let sent = send_part(&part, Unsent::Filled(filled), host.now(), *ledger, *queue, *host).await;
    note_sent(&part, sent, *ledger, *host).await?;
    Ok(keys as u64)
}

/// Fills the outbox with failures. Answers with the last of them; `None` when there is none.
async fn fill<L: ProducerLedger>(
    outbox: &mut OutboxWriter<'_, L>,
    record: &DeletionRecord,
    filter: FailureFilter,
    ledger: &L,
) -> Result<Option<(KeyCursor, FilledOutbox)>, LedgerError> {
    let (mut last, mut keys, mut bytes) = (None, 0, 0);
    loop {
        let page = ledger.list_failures(&record.id, filter, last, FAILURES_AT_ONCE).await?;
        for FailureRecord { key_json, code, cursor, .. } in &page {
            // Nothing is deleted by the name of a prefix.
            if code.is_some_and(FailureCode::is_of_a_prefix) {
                continue;
            }
            bytes += key_json.len();
            if keys == KEYS_MAX || bytes > BYTES_MAX {
                break;
            }
            let key: ObjectKey<'_> = serde_json::from_str(key_json)
                .map_err(|_| LedgerError { cause: "a failure's key is no key".to_owned() })?;
            outbox.push(&key).await?;
            keys += 1;
            last = Some(*cursor);
        }
        if page.len() < FAILURES_AT_ONCE || keys == KEYS_MAX || bytes > BYTES_MAX {
            break;
        }
    }
    let Some(last) = last else { return Ok(None) };
    Ok(Some((last, outbox.finish().await?)))
}
