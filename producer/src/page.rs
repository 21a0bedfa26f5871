use std::num::IntErrorKind;

use crate::hex::{from_hex, to_hex};
use crate::problem::{FieldError, Problem};

/// Which page of a list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// How many entries at most.
    pub(crate) size: usize,
    /// The place that the page before ended at.
    pub(crate) after: Option<String>,
}

impl Default for Page {
    fn default() -> Self {
        Self { size: SIZE_DEFAULT, after: None }
    }
}

pub(crate) const SIZE_DEFAULT: usize = 100;
pub(crate) const SIZE_MAX: usize = 1_000;

impl Page {
    /// Reads `page_size` (1 to 1,000; more is taken for 1,000) and `page_token` out of a query.
    ///
    /// 422 for anything else in it: a parameter that is not known could be one that was meant to narrow the answer.
    pub(crate) fn from_query(query: &str) -> Result<Self, Problem> {
        let mut page = Self::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if !page.take(name, value)? {
                return Err(invalid(name, "no parameter of this call; it takes page_size and page_token"));
            }
        }
        Ok(page)
    }

    /// Takes in one parameter of a query; `false` when it is none of a page's.
    pub(crate) fn take(&mut self, name: &str, value: &str) -> Result<bool, Problem> {
        match name {
            "page_size" => {
                self.size = parse_size(value).ok_or_else(|| invalid("page_size", "a number of 1 or more"))?;
            }
            "page_token" => self.after = Some(decode(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The token that the next page is asked for with.
    pub(crate) fn token(after: &str) -> String {
        to_hex(after.as_bytes())
    }

    /// 422 for a token that this list never gave.
    pub(crate) fn foreign_token() -> Problem {
        invalid("page_token", "the next_page_token of the page before, as it was given")
    }
}

/// A whole number of 1 or more, whose digits need not end where the machine's numbers do.
fn parse_size(text: &str) -> Option<usize> {
    match text.parse() {
        Ok(0) => None,
        Ok(size) => Some(SIZE_MAX.min(size)),
        Err(error) => matches!(error.kind(), IntErrorKind::PosOverflow).then_some(SIZE_MAX),
    }
}

fn decode(token: &str) -> Result<String, Problem> {
    let bytes = from_hex(token).filter(|bytes| !bytes.is_empty()).ok_or_else(Page::foreign_token)?;
    String::from_utf8(bytes).map_err(|_| Page::foreign_token())
}

/// 422 for a query that says anything.
pub(crate) fn refuse_all(query: &str, expected: &str) -> Result<(), Problem> {
    let Some(parameter) = query.split('&').find(|parameter| !parameter.is_empty()) else { return Ok(()) };
    Err(invalid(parameter.split('=').next().unwrap_or_default(), expected))
}

/// 422 for one parameter of a query.
pub(crate) fn invalid(parameter: &str, expected: &str) -> Problem {
    let error = FieldError { pointer: format!("?{parameter}"), detail: format!("expected {expected}") };
    Problem::validation("A parameter of the query is invalid.", vec![error])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_from_the_query() {
        let page = |query| Page::from_query(query).map_err(|problem| problem.code);
        assert_eq!(page(""), Ok(Page { size: 100, after: None }));
        let token = Page::token("0.7.999");
        let query = format!("page_size=5000&page_token={token}");
        assert_eq!(page(&query), Ok(Page { size: 1_000, after: Some("0.7.999".to_owned()) }));
        let endless = format!("page_size={}", "9".repeat(40));
        assert_eq!(page(&endless), Ok(Page { size: 1_000, after: None }));
        for query in [
            "page_token=",
            "page_size=0",
            "page_size=-1",
            "page_size=x",
            "page_size",
            "page_token=%",
            "pagesize=5",
            "a=b",
        ] {
            assert!(page(query).is_err(), "{query}");
        }
    }
}
