use crate::problem::{ERRORS_LISTED_MAX, FieldError, Problem, ProblemCode};
use crate::scope::Forbidden;

/// Everything that is wrong with the keys of a request, or with its prefixes: by its kind, which decides on the answer.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    invalid: Kind,
    protected: Kind,
    not_allowed: Kind,
}

impl Findings {
    /// Notes what is not what it should be.
    pub(crate) fn add_invalid(&mut self, error: impl FnOnce() -> FieldError) {
        self.invalid.add(error);
    }

    /// Notes what may not be deleted.
    pub(crate) fn add_forbidden(&mut self, forbidden: Forbidden, error: impl FnOnce() -> FieldError) {
        match forbidden {
            Forbidden::Protected => self.protected.add(error),
            Forbidden::NotAllowed => self.not_allowed.add(error),
        }
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_empty(&self) -> bool {
        self.invalid.count + self.protected.count + self.not_allowed.count == 0
    }

    /// What is wrong with these `things`, as one answer: 422 or 403.
    pub(crate) fn into_result(self, things: &str) -> Result<(), Problem> {
        let Self { invalid, protected, not_allowed } = self;
        invalid.into_result(ProblemCode::ValidationFailed, things, "invalid")?;
        // What is protected is said before what the token may not delete: no other token would help.
        protected.into_result(ProblemCode::KeyProtected, things, "protected")?;
        let not_allowed = not_allowed.into_result(
            ProblemCode::KeyNotAllowed,
            things,
            "outside of what the token may delete",
        );
        not_allowed.map_err(|problem| problem.with_challenge(", error=\"insufficient_scope\""))
    }
}

/// One kind of thing that is wrong: the first of them are listed, and all are counted.
#[derive(Debug, Default)]
struct Kind {
    count: usize,
    listed: Vec<FieldError>,
}

impl Kind {
    fn add(&mut self, error: impl FnOnce() -> FieldError) {
        self.count += 1;
        if self.listed.len() < ERRORS_LISTED_MAX {
            self.listed.push(error());
        }
    }

    fn into_result(self, code: ProblemCode, things: &str, what: &str) -> Result<(), Problem> {
        let Self { count, listed } = self;
        if count == 0 {
            return Ok(());
        }
        let are = if count == 1 { "is" } else { "are" };
        let first =
            if count > listed.len() { format!(", the first {} listed", listed.len()) } else { String::new() };
        let detail = format!("{count} of the {things} {are} {what}{first}. Nothing was accepted.");
        Err(Problem::new(code, detail).with_errors(listed))
    }
}

#[cfg(test)]
mod tests {
    use protocol::{RequestId, Timestamp};

    use super::*;

    fn error() -> FieldError {
        FieldError { pointer: "#/objectKeys/0".to_owned(), detail: "wrong".to_owned() }
    }

    #[test]
    fn whatever_is_wrong_something_is() {
        assert!(Findings::default().is_empty());
        let wrong: [fn(&mut Findings); 3] = [
            |findings| findings.add_invalid(error),
            |findings| findings.add_forbidden(Forbidden::Protected, error),
            |findings| findings.add_forbidden(Forbidden::NotAllowed, error),
        ];
        for add in wrong {
            let mut findings = Findings::default();
            add(&mut findings);
            assert!(!findings.is_empty());
            assert!(findings.into_result("keys").is_err());
        }
    }

    #[test]
    fn it_is_said_how_many_are_listed_where_that_is_not_all() {
        for (count, is_all) in [(ERRORS_LISTED_MAX, true), (ERRORS_LISTED_MAX + 1, false)] {
            let mut findings = Findings::default();
            (0..count).for_each(|_| findings.add_invalid(error));
            let problem = findings.into_result("keys").unwrap_err();
            let text = problem.into_response(&RequestId::new(Timestamp::from_millis(0), 0)).text();
            assert_eq!(!text.contains("the first"), is_all, "{text}");
        }
    }
}
