use std::borrow::Cow;

use protocol::limits::REQUEST_KEYS_MAX;
use protocol::{ObjectKey, plain_text};
use scan::KeySet;

use crate::findings::Findings;
use crate::problem::{FieldError, Problem, ProblemCode};
use crate::scope::Scope;
use crate::wire::Text;

/// Takes in the keys of a request as they come, one after another, and says of each whether it is to be deleted.
///
/// Nothing is accepted of a request that is not right as a whole: once anything is wrong the keys are only looked at, to tell
/// all that is.
#[derive(Debug)]
pub(crate) struct Intake<'a> {
    scope: Scope<'a>,
    place: Place,
    seen: KeySet,
    /// How many keys were named.
    asked: usize,
    duplicates: usize,
    wrong: Findings,
}

/// How an error says which key it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// As an element of `objectKeys`, from 0.
    Element,
    /// As a line, from 1.
    Line,
}

impl<'a> Intake<'a> {
    /// Of a request by somebody who may delete what is in `scope`. `secret` is a random number that nobody else knows.
    pub(crate) fn new(scope: Scope<'a>, place: Place, secret: u128) -> Self {
        let (seen, wrong) = (KeySet::new(secret), Findings::default());
        Self { scope, place, seen, asked: 0, duplicates: 0, wrong }
    }

    /// Makes room for so many keys: a set that grows hashes what it has again and again.
    pub(crate) fn expect(&mut self, keys: usize) {
        self.seen.reserve(keys);
    }

    /// Takes in a JSON text that should be a key, which is at this place of the request. The key comes back when it is to be
    /// deleted: when it has not been there before, and nothing is wrong so far.
    pub(crate) fn take<'k>(&mut self, json: &'k str, at: usize) -> Option<ObjectKey<'k>> {
        self.take_read(read_key(json), at)
    }

    /// The same for a text that is to be a key.
    pub(crate) fn take_text<'k>(&mut self, text: &'k str, at: usize) -> Option<ObjectKey<'k>> {
        self.take_read(ObjectKey::parse(text).map_err(|error| error.to_string()), at)
    }

    fn take_read<'k>(&mut self, read: Result<ObjectKey<'k>, String>, at: usize) -> Option<ObjectKey<'k>> {
        self.asked += 1;
        if self.asked > REQUEST_KEYS_MAX {
            return None;
        }
        match read {
            Ok(key) => self.admit(key, at),
            Err(detail) => {
                self.wrong.add_invalid(|| self.place.error(at, detail));
                None
            }
        }
    }

    /// Notes a text that is no key.
    pub(crate) fn refuse<'k>(&mut self, at: usize, detail: &str) -> Option<ObjectKey<'k>> {
        self.asked += 1;
        self.wrong.add_invalid(|| self.place.error(at, detail.to_owned()));
        None
    }

    /// What was taken in, or what is wrong with it: 413, 422 or 403.
    pub(crate) fn finish(self) -> Result<Taken, Problem> {
        let Self { asked, duplicates, wrong, place, .. } = self;
        if asked == 0 {
            let (pointer, detail) = (place.all(), "name at least one key".to_owned());
            let errors = vec![FieldError { pointer, detail }];
            return Err(Problem::validation("The request names no key.", errors));
        }
        if asked > REQUEST_KEYS_MAX {
            return Err(too_many(asked));
        }
        wrong.into_result("keys")?;
        Ok(Taken { keys: asked - duplicates, duplicates })
    }

    fn admit<'k>(&mut self, key: ObjectKey<'k>, at: usize) -> Option<ObjectKey<'k>> {
        let Some(forbidden) = self.scope.forbid(&key) else {
            return Some(key).filter(|key| self.wrong.is_empty() && self.is_new(key));
        };
        self.wrong.add_forbidden(forbidden, || self.place.error(at, forbidden.detail().to_owned()));
        None
    }

    fn is_new(&mut self, key: &ObjectKey<'_>) -> bool {
        let is_new = self.seen.insert(key.as_str());
        self.duplicates += usize::from(!is_new);
        is_new
    }
}

/// 413 for so many keys.
pub(crate) fn too_many(asked: usize) -> Problem {
    let detail = format!(
        "The request names {asked} keys, and one request takes at most {REQUEST_KEYS_MAX}. Send several requests, or put the keys in parts."
    );
    Problem::new(ProblemCode::PayloadTooLarge, detail)
}

impl Place {
    fn error(self, at: usize, detail: String) -> FieldError {
        let pointer = match self {
            Self::Element => format!("#/objectKeys/{at}"),
            Self::Line => format!("line {at}"),
        };
        FieldError { pointer, detail }
    }

    /// Where something is that the request says beside keys: a member, or a parameter.
    pub(crate) fn option(self, name: &str) -> String {
        match self {
            Self::Element => format!("#/{name}"),
            Self::Line => format!("?{name}"),
        }
    }

    /// Where all the keys are.
    fn all(self) -> String {
        match self {
            Self::Element => "#/objectKeys".to_owned(),
            Self::Line => "line 1".to_owned(),
        }
    }
}

/// What a request has asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// How many keys are to be deleted.
    pub(crate) keys: usize,
    /// How many duplicates were left out.
    pub(crate) duplicates: usize,
}

/// Reads a JSON text as a key, or says what is wrong with it.
pub(crate) fn read_key(json: &str) -> Result<ObjectKey<'_>, String> {
    // Nearly every key is written without an escape, and then there is nothing to be read.
    let text = plain_text(json).map(Cow::Borrowed).map_or_else(|| read_string(json), Ok)?;
    ObjectKey::parse(text).map_err(|error| error.to_string())
}

/// Reads a JSON text as a string, or says what is wrong with it.
pub(crate) fn read_string(json: &str) -> Result<Cow<'_, str>, String> {
    serde_json::from_str(json).map(|Text(text)| text).map_err(|error| explain(&error))
}

/// What serde puts behind its texts.
const AT_LINE: &[u8] = b" at line ";

/// What is wrong with a text that is no JSON string. The line that serde counts from is this text alone.
fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // Searched for by bytes: the search for a text in a text would be two kilobytes of wasm.
    let end = text.as_bytes().windows(AT_LINE.len()).rposition(|window| window == AT_LINE);
    let what = end.and_then(|end| text.get(..end)).unwrap_or(&text);
    if error.is_data() {
        what.to_owned()
    } else {
        format!("expected a JSON string; {what} at column {}", error.column())
    }
}
