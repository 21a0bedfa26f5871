use protocol::ObjectKey;

use crate::auth::Principal;
use crate::config::ProtectedPrefixes;
use crate::problem::{ERRORS_LISTED_MAX, FieldError, Problem, ProblemCode};

/// 403 when somebody may not delete one of `keys`, which are all that the request names, in its order.
///
/// What is protected is said before what the token may not delete: no other token would help.
pub(crate) fn check_keys(
    keys: &[ObjectKey<'_>],
    principal: Principal<'_>,
    protected: &ProtectedPrefixes,
) -> Result<(), Problem> {
    refuse(
        keys,
        |key| protected.protect(key),
        ProblemCode::KeyProtected,
        "are protected",
        "the key is protected",
    )?;
    let problem = refuse(
        keys,
        |key| !principal.may_delete(key),
        ProblemCode::KeyNotAllowed,
        "are outside of what the token may delete",
        "the key begins with none of the token's prefixes",
    );
    problem.map_err(|problem| problem.with_challenge(", error=\"insufficient_scope\""))
}

fn refuse(
    keys: &[ObjectKey<'_>],
    forbidden: impl Fn(&ObjectKey<'_>) -> bool,
    code: ProblemCode,
    are: &str,
    is: &str,
) -> Result<(), Problem> {
    let positions =
        || keys.iter().enumerate().filter(|(_, key)| forbidden(key)).map(|(position, _)| position);
    let count = positions().count();
    if count == 0 {
        return Ok(());
    }
    let point = |position| FieldError { pointer: format!("#/objectKeys/{position}"), detail: is.to_owned() };
    let errors: Vec<_> = positions().take(ERRORS_LISTED_MAX).map(point).collect();
    let listed =
        if count > errors.len() { format!(", the first {} listed", errors.len()) } else { String::new() };
    let detail = format!("{count} of the keys {are}{listed}. Nothing was accepted.");
    Err(Problem::new(code, detail).with_errors(errors))
}
