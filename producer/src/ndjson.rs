use ledger::{KeyCursor, LedgerError, ProducerLedger};
use protocol::{DeletionId, Event, Log};

use crate::http::{Response, ResponseBody};
use crate::keys::KeyList;
use crate::page::refuse_all;
use crate::problem::{Problem, ProblemCode};

/// All of a list, one JSON object a line.
pub(crate) fn stream(list: KeyList, deletion: DeletionId) -> Response {
    Response {
        status: 200,
        headers: vec![("Content-Type", NDJSON.to_owned())],
        body: ResponseBody::Pages(KeyPages { list, deletion, place: Place::After(None) }),
    }
}

/// 422 for any parameter beside NDJSON: the stream has no pages.
pub(crate) fn check_query(query: &str) -> Result<(), Problem> {
    refuse_all(query, "no parameter beside `Accept: application/x-ndjson`, which answers with the whole list")
}

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// All of a list of a deletion's keys as NDJSON, page after page, so that they are never all in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPages {
    list: KeyList,
    deletion: DeletionId,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    After(Option<KeyCursor>),
    End,
}

/// How many keys are read at once. A deletion of 100,000 keys is 40 queries, and the free plan has 50 for an invocation
/// (docs: d1/platform/limits). With keys of 1 KB a page is 3 MB, of an isolate's 128.
const KEYS_AT_ONCE: usize = 2_500;

impl KeyPages {
    /// The next lines; `None` behind the last.
    ///
    /// # Errors
    ///
    /// [`LedgerError`], which is in the log already. Whoever gets it must break off.
    pub async fn next(
        &mut self,
        ledger: &impl ProducerLedger,
        log: &impl Log,
    ) -> Result<Option<String>, LedgerError> {
        let Place::After(after) = self.place else { return Ok(None) };
        let page = self.read(after, ledger).await;
        if let Err(LedgerError { cause }) = &page {
            log.emit(&Event::LedgerFailed { operation: self.list.streaming(), cause });
        }
        page
    }

    async fn read(
        &mut self,
        after: Option<KeyCursor>,
        ledger: &impl ProducerLedger,
    ) -> Result<Option<String>, LedgerError> {
        let found = self.list.read(&self.deletion, after, KEYS_AT_ONCE, ledger).await?;
        let mut lines = String::new();
        for entry in &found {
            lines.push_str(&entry.json);
            lines.push('\n');
        }
        self.place = match found.last() {
            Some(last) if found.len() == KEYS_AT_ONCE => Place::After(Some(last.cursor)),
            _ => Place::End,
        };
        Ok((!lines.is_empty()).then_some(lines))
    }
}

/// Whether an `Accept` header asks for NDJSON rather than JSON, which is what is sent where both are as good; 406 when it
/// takes neither.
///
/// As in RFC 9110, 12.5.1: of the ranges that match a type the most specific says its quality, and 0 is a refusal. What
/// is no media range is ignored; no header, or one without a range, takes everything.
pub(crate) fn is_preferred(accept: Option<&str>) -> Result<bool, Problem> {
    let ranges: Vec<MediaRange<'_>> =
        accept.unwrap_or_default().split(',').filter_map(MediaRange::parse).collect();
    if ranges.is_empty() {
        return Ok(false);
    }
    match (rank(&ranges, JSON), rank(&ranges, NDJSON)) {
        ((0, _), (0, _)) => {
            let detail = format!(
                "This call answers with {JSON} or {NDJSON}. Name one of them in the header `Accept`."
            );
            Err(Problem::new(ProblemCode::NotAcceptable, detail))
        }
        (json, ndjson) => Ok(ndjson > json),
    }
}

/// How much a type is wanted: its quality in thousandths, and how exactly it was named.
fn rank(ranges: &[MediaRange<'_>], media_type: &str) -> (u32, usize) {
    let mut best = (0, 0);
    let mut found = None;
    for range in ranges {
        if let Some(specificity) = range.specificity(media_type)
            && found <= Some(specificity)
        {
            found = Some(specificity);
            best = (range.quality, specificity);
        }
    }
    best
}

struct MediaRange<'a> {
    range: &'a str,
    quality: u32,
}

impl<'a> MediaRange<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let range = parts.next().filter(|range| range.contains('/'))?;
        let quality = parts.find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("q").then_some(value.trim())
        });
        Some(Self { range, quality: quality.map_or(Some(1_000), parse_quality)? })
    }

    /// How exactly it names the type; `None` when it does not.
    fn specificity(&self, media_type: &str) -> Option<usize> {
        if self.range.eq_ignore_ascii_case(media_type) {
            return Some(2);
        }
        match self.range.split_once('/') {
            Some(("*", "*")) => Some(0),
            Some((main, "*")) => {
                let named = media_type.split('/').next().unwrap_or_default();
                main.eq_ignore_ascii_case(named).then_some(1)
            }
            _ => None,
        }
    }
}

/// A quality in thousandths: 0 to 1, with at most three digits behind the point.
fn parse_quality(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(whole, "0" | "1")
        || fraction.len() > 3
        || !fraction.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let thousandths: u32 = format!("{whole}{fraction:0<3}").parse().ok()?;
    (thousandths <= 1_000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_of_the_two_types_is_sent_and_json_when_they_are_as_good() {
        for (accept, ndjson) in [
            ("", false),
            ("*/*", false),
            ("application/json", false),
            ("application/*", false),
            ("application/x-ndjson", true),
            ("Application/X-NDJSON; charset=utf-8", true),
            ("application/x-ndjson, */*", true),
            ("application/json, application/x-ndjson", false),
            ("application/json;q=0.9,application/x-ndjson", true),
            ("application/json ; Q=0.5 , application/x-ndjson ; q=0.501", true),
            ("application/x-ndjson;q=0.1", true),
            ("application/x-ndjson;q=0, */*;q=0.1", false),
            ("application/json;q=0, */*", true),
            ("text/html, application/xhtml+xml, */*;q=0.8", false),
            ("application/x-ndjson;q=2", false),
            // No qualities by RFC 9110, 12.4.2, although they could be read as numbers.
            ("application/x-ndjson;q=0.0001", false),
            ("application/x-ndjson;q=00.5", false),
            ("application/x-ndjson;q=+0.5", false),
            ("nonsense", false),
        ] {
            assert_eq!(is_preferred(Some(accept)), Ok(ndjson), "{accept}");
        }
        assert_eq!(is_preferred(None), Ok(false));
    }

    #[test]
    fn what_takes_neither_is_not_acceptable() {
        for accept in [
            "text/html",
            "text/*, image/png",
            "application/jsonl",
            "application/json;q=0",
            "*/*;q=0",
            "application/json;q=0.000, application/x-ndjson;q=0",
        ] {
            let code = is_preferred(Some(accept)).map_err(|problem| problem.code);
            assert_eq!(code, Err(ProblemCode::NotAcceptable), "{accept}");
        }
    }
}
