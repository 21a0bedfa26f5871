use ledger::{DeletionRecord, ProducerLedger};
use protocol::{DeletionId, NoticeRef, State};

use crate::auth::{Principal, Role};
use crate::host::Host;
use crate::http::Response;
use crate::keys::KeyList;
use crate::ndjson;
use crate::page::Page;
use crate::problem::{Problem, ProblemCode};
use crate::queue::Queue;
use crate::view::{DeletionView, UnreadableView};

/// `GET /v1/deletions/{id}`: 200 with the deletion, and `Retry-After` until it is final; 404.
pub(crate) async fn deletion(
    id: &str,
    principal: Principal<'_>,
    ledger: &impl ProducerLedger,
    host: &impl Host,
) -> Result<Response, Problem> {
    Ok(as_it_is(&find(id, principal, ledger, host).await?, host))
}

fn as_it_is(record: &DeletionRecord, host: &impl Host) -> Response {
    let response = Response::json(200, &DeletionView::from(record));
    if record.state.is_final() {
        return response;
    }
    // Most deletions end within seconds; what has not by then is asked for less often.
    let age_ms = host.now().millis_since(record.requested_at);
    response.with_header("Retry-After", if age_ms < 30_000 { "1" } else { "5" })
}

/// `GET /v1/deletions/{id}/failures` and `/skipped`: 200 with a page of the list, or with all of it as NDJSON; 404; 406; 422
/// for the query.
pub(crate) async fn keys(
    list: KeyList,
    id: &str,
    query: &str,
    principal: Principal<'_>,
    accept: Option<&str>,
    ledger: &impl ProducerLedger,
    host: &impl Host,
) -> Result<Response, Problem> {
    if ndjson::is_preferred(accept)? {
        ndjson::check_query(query)?;
        return Ok(ndjson::stream(list, find(id, principal, ledger, host).await?.id));
    }
    let page = Page::from_query(query)?;
    let after = page.after.map(|after| after.parse().map_err(|()| Page::foreign_token())).transpose()?;
    let DeletionRecord { id, .. } = find(id, principal, ledger, host).await?;
    // One more than asked for tells whether there is another page.
    let found = list.read(&id, after, page.size + 1, ledger).await;
    let mut entries = found.map_err(|error| Problem::ledger(&error))?;
    let more = entries.len() > page.size;
    entries.truncate(page.size);
    let next_page_token = entries
        .last()
        .filter(|_| more)
        .map_or_else(|| "null".to_owned(), |entry| format!("\"{}\"", Page::token(&entry.cursor.to_string())));
    let entries: Vec<&str> = entries.iter().map(|entry| entry.json.as_str()).collect();
    // OK to write by hand because a token holds no character that JSON escapes.
    let page =
        format!("{{\"{}\":[{}],\"next_page_token\":{next_page_token}}}", list.name(), entries.join(","));
    Ok(Response::json_text(200, page))
}

/// `GET /v1/unreadable-messages`: 200 with a page of the messages that could not be carried out; 422 for the query.
pub(crate) async fn unreadable(query: &str, ledger: &impl ProducerLedger) -> Result<Response, Problem> {
    let page = Page::from_query(query)?;
    let found = ledger.list_unreadable(page.after.as_deref(), page.size + 1).await;
    let mut unreadable_messages = found.map_err(|error| Problem::ledger(&error))?;
    let more = unreadable_messages.len() > page.size;
    unreadable_messages.truncate(page.size);
    let last = unreadable_messages.last().filter(|_| more);
    let next_page_token = last.map(|message| Page::token(&message.message_id));
    Ok(Response::json(200, &UnreadableView { unreadable_messages, next_page_token }))
}

/// `POST /v1/deletions/{id}/cancel`: 200 with the deletion, which begins no chunk any more. What is in flight is finished;
/// one that is over already stays as it is, and its state tells. 404.
pub(crate) async fn cancel(
    id: &str,
    principal: Principal<'_>,
    ledger: &impl ProducerLedger,
    queue: &impl Queue,
    host: &impl Host,
) -> Result<Response, Problem> {
    let mut tries = 0;
    loop {
        tries += 1;
        let DeletionRecord { id: deletion, generation, .. } = find(id, principal, ledger, host).await?;
        let cancelled = ledger.cancel_deletion(&deletion, host.now()).await;
        if cancelled.map_err(|error| Problem::ledger(&error))? {
            // Whether anybody wants the notice, the consumer knows. If this fails, upkeep sees to it.
            let _ = queue.send(vec![NoticeRef { deletion, generation }.to_message()], 0).await;
        }
        // One that was over may have been redriven since, and would be said to go on.
        let record = find(id, principal, ledger, host).await?;
        if record.state.is_final() || record.state == State::Cancelling || tries == CANCEL_TRIES {
            return Ok(as_it_is(&record, host));
        }
    }
}

/// How often a deletion is cancelled that a redrive begins again before the answer.
const CANCEL_TRIES: usize = 3;

/// 202 with the deletion as it is now.
pub(crate) async fn accepted(
    id: &DeletionId,
    principal: Principal<'_>,
    ledger: &impl ProducerLedger,
    host: &impl Host,
) -> Result<Response, Problem> {
    let mut response = deletion(id.as_str(), principal, ledger, host).await?;
    response.status = 202;
    Ok(response.with_header("Location", format!("/v1/deletions/{id}")))
}

/// Finds a deletion that somebody has requested themselves, and may change therefore; for them no other exists.
pub(crate) async fn find_own(
    id: &str,
    principal: Principal<'_>,
    ledger: &impl ProducerLedger,
    host: &impl Host,
) -> Result<DeletionRecord, Problem> {
    let found = find(id, principal, ledger, host).await?;
    if found.requested_by == principal.name() { Ok(found) } else { Err(not_found()) }
}

fn not_found() -> Problem {
    Problem::new(ProblemCode::NotFound, "There is no deletion of this id.")
}

/// Finds a deletion that somebody may see: their own, or with the role `operate` any. What they may not see does not exist
/// for them, down to the last byte of the answer.
pub(crate) async fn find(
    id: &str,
    principal: Principal<'_>,
    ledger: &impl ProducerLedger,
    host: &impl Host,
) -> Result<DeletionRecord, Problem> {
    let id: DeletionId = id.parse().map_err(|_| not_found())?;
    let found = ledger.find_deletion(&id, host.now()).await.map_err(|error| Problem::ledger(&error))?;
    let may_see =
        |record: &DeletionRecord| principal.has(Role::Operate) || record.requested_by == principal.name();
    found.filter(may_see).ok_or_else(not_found)
}
