use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::page::invalid;
use crate::problem::Problem;

/// Shows each parameter of a query to `take`, as it was meant. 422 for one that is no text or is there twice, and what `take`
/// says.
pub(crate) fn read(
    query: &str,
    take: &mut dyn FnMut(&str, &str) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut seen = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let name = decode(name).ok_or_else(|| invalid("", TEXT))?;
        let value = decode(value).ok_or_else(|| invalid(&name, TEXT))?;
        take(&name, &value)?;
        if seen.contains(&name) {
            return Err(invalid(&name, "the parameter once"));
        }
        seen.push(name);
    }
    Ok(())
}

const TEXT: &str = "UTF-8 behind the percent signs";

/// A part of a query as it was meant, a `+` being a space as HTML forms and most clients write it. `None` when it is no
/// UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()))
}
