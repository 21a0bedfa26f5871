use ledger::{DeletionFilter, DeletionPage, ProducerLedger};
use protocol::{DeletionId, State};

use crate::auth::{Principal, digest};
use crate::host::Host;
use crate::http::Response;
use crate::labels;
use crate::page::{Page, invalid};
use crate::problem::Problem;
use crate::query;
use crate::view::{DeletionView, DeletionsView};

/// `GET /v1/deletions`: 200 with a page of the deletions that the caller may see, newest first; 422 for the query.
///
/// A page may be short, or even empty: the end is where there is no `next_page_token`.
pub(crate) async fn deletions(
    query: &str,
    principal: Principal<'_>,
    ledger: &impl ProducerLedger,
    host: &impl Host,
) -> Result<Response, Problem> {
    let (mut filter, page) = parse(query)?;
    filter.requested_by = principal.sees_only();
    let before = page.after.map(|token| read_token(&token, &filter)).transpose()?;
    let found = ledger.list_deletions(&filter, before.as_ref(), SIZE_MAX.min(page.size), host.now()).await;
    let DeletionPage { deletions, next } = found.map_err(|error| Problem::ledger(&error))?;
    let view = DeletionsView {
        deletions: deletions.iter().map(DeletionView::from).collect(),
        next_page_token: next.map(|id| Page::token(&format!("{}.{id}", fingerprint(&filter)))),
    };
    Ok(Response::json(200, &view))
}

/// Each deletion of a page costs the reading of its chunks and failures, of which it can have thousands.
pub(crate) const SIZE_MAX: usize = 100;

const PARAMETERS: &str = "no parameter of this call; it takes state, label.NAME, page_size and page_token";

/// Reads `state`, any number of `label.NAME` and the page out of a query; each at most once.
fn parse(query: &str) -> Result<(DeletionFilter<'_>, Page), Problem> {
    let (mut filter, mut page) = (DeletionFilter::default(), Page::default());
    query::read(query, &mut |name, value| {
        match name {
            "state" => {
                let state = State::from_text(value).ok_or_else(|| invalid(name, STATES))?;
                filter.state = Some(state);
            }
            _ if labels::take_parameter(name, value, &mut filter.labels)? => {}
            _ if page.take(name, value)? => {}
            _ => return Err(invalid(name, PARAMETERS)),
        }
        Ok(())
    })?;
    Ok((filter, page))
}

const STATES: &str =
    "one of accepting, queued, running, cancelling, succeeded, failed, cancelled and planned";

fn read_token(token: &str, filter: &DeletionFilter<'_>) -> Result<DeletionId, Problem> {
    let (given_for, id) = token.split_once('.').ok_or_else(Page::foreign_token)?;
    let id = id.parse().map_err(|_| Page::foreign_token())?;
    if given_for == fingerprint(filter) {
        return Ok(id);
    }
    Err(invalid("page_token", "the state and the labels that the page before was asked for with"))
}

/// What tells a filter from every other in a page's token. It protects from mistakes only: a token grants nothing, since
/// whoever sends it sees what they may see.
fn fingerprint(filter: &DeletionFilter<'_>) -> String {
    let DeletionFilter { requested_by, state, labels } = filter;
    let parts = [*requested_by, state.map(State::as_str)];
    let text = format!("{parts:?} {}", serde_json::to_string(labels).unwrap_or_default());
    let start = digest(&text).into_iter().take(8).fold(0_u64, |bits, byte| (bits << 8) | u64::from(byte));
    format!("{start:016x}")
}

#[cfg(test)]
mod tests {
    use protocol::Labels;

    use super::*;

    #[test]
    fn a_filter_is_read_from_the_query() {
        let query =
            "state=failed&label.reason=gdpr+%2B%20%C3%A9%26&label%2Eproject=42&label.empty=&page_size=7";
        let (filter, page) = parse(query).unwrap();
        let labels = [("empty", ""), ("project", "42"), ("reason", "gdpr + é&")];
        let labels: Labels =
            labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert_eq!((filter.state, filter.labels, page.size), (Some(State::Failed), labels, 7));
        let (filter, page) = parse("").unwrap();
        assert_eq!((filter.state, filter.labels.len(), page.size), (None, 0, 100));
    }

    #[test]
    fn everything_else_in_a_query_is_refused() {
        let too_long = format!("label.a={}", "v".repeat(513));
        for query in [
            "state=done",
            "state=",
            "state=FAILED",
            "state=failed&state=failed",
            "label.=x",
            "label.a%20b=x",
            "label.a=x&label.a=y",
            "label.a=%FF",
            "%FF=a",
            "label=x",
            "labels.a=x",
            "page_size=0",
            "page_token=%",
            "limit=5",
            &too_long,
        ] {
            assert!(parse(query).is_err(), "{query}");
        }
    }

    #[test]
    fn no_two_filters_have_one_fingerprint() {
        let of_value = |n: u32| {
            let query = format!("label.a={n}");
            fingerprint(&parse(&query).unwrap().0)
        };
        let all: std::collections::BTreeSet<String> = (0..400).map(of_value).collect();
        assert_eq!(all.len(), 400);
    }

    #[test]
    fn whoever_asks_for_no_state_is_told_every_state() {
        for state in State::ALL {
            let is_named = STATES.split([',', ' ']).any(|word| word == state.as_str());
            assert!(is_named, "{} is not in: {STATES}", state.as_str());
        }
    }
}
