/// The number in brackets at the end of a message: where the runtime writes the code of an error of R2 or of the Queue, and
/// nowhere else. 0 when there is none.
pub(crate) fn trailing_code(message: &str) -> u32 {
    let code = message.trim_end().strip_suffix(')').and_then(|text| text.rsplit_once('('));
    let digits =
        code.map(|(_, digits)| digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}
