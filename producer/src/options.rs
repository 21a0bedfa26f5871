use protocol::limits::UNDO_SECONDS_MAX;
use protocol::{Fence, Labels};

use crate::labels;
use crate::page::invalid;
use crate::problem::{FieldError, Problem};
use crate::query;
use crate::sweep::Sweep;

/// What a request says beside its keys: members of a JSON body, or parameters of the query beside an NDJSON body.
///
/// A further one is a field here, an arm in [`from_query`](Self::from_query), and a member in `wire.rs`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// How long nothing is to be done, in seconds: 0 to [`UNDO_SECONDS_MAX`].
    pub(crate) delay_seconds: u32,
    /// Whether what is uploaded since the request is kept.
    pub(crate) fence: Fence,
    /// The caller's names and values.
    pub(crate) labels: Labels,
    /// What is to be deleted by its beginning; a query has no prefixes, which would be one parameter several times.
    pub(crate) sweep: Sweep,
}

const PARAMETERS: &str = "no parameter of this call; it takes delay_seconds, fence, label.NAME, project, max_objects, \
                          dry_run, verify and plan beside a body of NDJSON";

impl Options {
    /// Reads `delay_seconds`, `fence`, `label.NAME` and what a [`Sweep`] takes; 422 for anything else: what is not
    /// known could have been meant to spare something.
    pub(crate) fn from_query(query: &str) -> Result<Self, Problem> {
        let mut options = Self::default();
        query::read(query, &mut |name, value| {
            match name {
                "delay_seconds" => {
                    let seconds = value.parse().ok().filter(|&seconds| is_delay(seconds));
                    options.delay_seconds = seconds.ok_or_else(|| invalid(name, DELAY))?;
                }
                "fence" => {
                    options.fence = value.parse().map_err(|_| invalid(name, "auto, always or off"))?;
                }
                _ if labels::take_parameter(name, value, &mut options.labels)? => {}
                _ if options.sweep.take_parameter(name, value)? => {}
                _ => return Err(invalid(name, PARAMETERS)),
            }
            Ok(())
        })?;
        match labels::too_many(options.labels.len()) {
            Some(detail) => Err(wrong("?label", detail)),
            None => Ok(options),
        }
    }

    /// Checks what a body said; 422.
    pub(crate) fn from_json(
        delay_seconds: u32,
        fence: Fence,
        labels: Labels,
        sweep: Sweep,
    ) -> Result<Self, Problem> {
        if is_delay(delay_seconds) {
            return Ok(Self { delay_seconds, fence, labels, sweep });
        }
        Err(wrong("#/delay_seconds", format!("expected {DELAY}")))
    }

    /// The fence that the messages have.
    pub(crate) fn sent_fence(&self) -> Fence {
        self.fence.with_undo_window(self.delay_seconds)
    }
}

const DELAY: &str = "a whole number of seconds from 0 to 86400, which is a day";
const _: () = assert!(UNDO_SECONDS_MAX == 86_400);

fn is_delay(seconds: u32) -> bool {
    seconds <= UNDO_SECONDS_MAX
}

pub(crate) fn wrong(pointer: &str, detail: String) -> Problem {
    let errors = vec![FieldError { pointer: pointer.to_owned(), detail }];
    Problem::validation("The request is invalid. Nothing was accepted.", errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_from_the_query() {
        let query =
            "delay_seconds=60&fence=off&label.reason=gdpr+%2B%20%C3%A9%26&label%2Eproject=42&label.empty=";
        let options = Options::from_query(query).unwrap();
        let labels = [("empty", ""), ("project", "42"), ("reason", "gdpr + é&")];
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let expected = Options { delay_seconds: 60, fence: Fence::Off, labels, sweep: Sweep::default() };
        assert_eq!(options, expected);
        assert_eq!(Options::from_query(""), Ok(Options::default()));
        assert_eq!(Options::from_query("delay_seconds=86400").unwrap().delay_seconds, 86_400);
    }

    #[test]
    fn what_is_to_be_swept_is_read_from_the_query() {
        let plan = "del_01kaszq5m0zzzzzzzzzzzzzzzz";
        let query =
            format!("project=a%2D1&max_objects=9007199254740991&dry_run=true&verify=true&plan={plan}");
        let expected = Sweep {
            prefixes: Vec::new(),
            project: Some("a-1".to_owned()),
            max_objects: Some((1 << 53) - 1),
            dry_run: true,
            verify: true,
            plan: Some(plan.parse().unwrap()),
        };
        assert_eq!(Options::from_query(&query).unwrap().sweep, expected);
        let off = Options::from_query("dry_run=false&verify=false&max_objects=1").unwrap().sweep;
        assert_eq!(off, Sweep { max_objects: Some(1), ..Sweep::default() });
    }

    #[test]
    fn everything_else_in_a_query_is_refused() {
        let labels = |count| (0..count).map(|n| format!("label.n{n}=v")).collect::<Vec<_>>().join("&");
        assert_eq!(Options::from_query(&labels(16)).unwrap().labels.len(), 16);
        for query in [
            "delay_seconds=",
            "delay_seconds=-1",
            "delay_seconds=1.5",
            "delay_seconds=1e2",
            "delay_seconds=86401",
            "delay_seconds=99999999999999999999",
            "delay_seconds=5&delay_seconds=5",
            "delay=5",
            "fence=",
            "fence=Auto",
            "fence=off&fence=off",
            "dry_run=",
            "dry_run",
            "dry_run=1",
            "dry_run=True",
            "dry_run=true&dry_run=true",
            "verify=yes",
            "max_objects=",
            "max_objects=0",
            "max_objects=-1",
            "max_objects=1.0",
            "max_objects=9007199254740992",
            "max_objects=99999999999999999999",
            "plan=",
            "plan=del_x",
            "project=1&project=2",
            "project=%FF",
            "prefixes=a/",
            "prefix=a/",
            "objectKeys=a",
            "label=x",
            "label.=x",
            "label.a%20b=x",
            "label.a=x&label.a=y",
            "label.a=%FF",
            "%FF=a",
            &labels(17),
            &format!("label.a={}", "v".repeat(513)),
        ] {
            assert!(Options::from_query(query).is_err(), "{query}");
        }
    }
}
