//! What is asked of the readers of what the platform says, and of the consumer's settings.

use consumer::NoticeConfig;
use protocol::{QueueError, R2Error, R2ErrorClass, Timestamp};
use url::{Host, Url};

/// The text of an error of R2's or of the Queue's: its code is the digits in the brackets at its end, and the words before
/// them change nothing.
pub(crate) fn errors(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let code = trailing_number(text).unwrap_or_default();
    let (r2, queue) = (R2Error::from_message(text), QueueError::from_message(text));
    assert_eq!((r2.code(), queue.code), (code, code), "another code than is there");
    assert_eq!(r2, R2Error::from_message(&format!("delete: anything ({code})")));
    // Only what a person has to put right, or what a key is to blame for, is not tried again.
    let is_permanent = matches!(r2.class(), R2ErrorClass::Permanent | R2ErrorClass::Configuration);
    assert_eq!(is_permanent, [10002, 10003, 10006, 10020, 10042, 10069].contains(&code));
    let now = Timestamp::from_millis(u64::from(code));
    assert!((1..=86_400).contains(&queue.retry_after_seconds(now)));
}

/// The digits between the last `(` and a `)` at the end, white space aside; `None` when that is no number of 32 bits.
fn trailing_number(text: &str) -> Option<u32> {
    let mut characters: Vec<char> = text.chars().collect();
    while characters.last().is_some_and(|last| last.is_whitespace()) {
        characters.pop();
    }
    if characters.pop()? != ')' {
        return None;
    }
    let mut digits = Vec::new();
    loop {
        match characters.pop()? {
            '(' => break,
            digit => digits.push(digit.to_digit(10)?),
        }
    }
    let add = |number: Option<u64>, digit: &u32| number?.checked_mul(10)?.checked_add(u64::from(*digit));
    let number = digits.iter().rev().fold(Some(0), add).filter(|_| !digits.is_empty());
    u32::try_from(number?).ok()
}

/// `NOTICE_URL` and `NOTICE_SECRETS`, one a line: what is accepted is a URL to anybody who reads URLs, of the same host, and
/// is encrypted unless it stays on the machine. What is refused is repeated nowhere.
pub(crate) fn notices(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (url, secrets) = text.split_once('\n').unwrap_or((text, ""));
    let (is_url, are_secrets) = (!url.trim().is_empty(), !secrets.trim().is_empty());
    match NoticeConfig::parse(Some(url), Some(secrets)) {
        Ok(None) => assert!(!is_url && !are_secrets),
        Ok(Some(config)) => {
            assert!(is_url && are_secrets);
            let read = Url::parse(url.trim());
            let read = read.as_ref().ok().filter(|url| url.username().is_empty() && url.fragment().is_none());
            assert!(read.is_some_and(is_safe), "a URL that is none, or not safe: {url:?}");
            assert_eq!(format!("{config:?}"), "NoticeConfig { .. }");
            for secret in secrets.trim().split_ascii_whitespace() {
                assert!((6 + 32..=6 + 88).contains(&secret.len()) && secret.starts_with("whsec_"));
            }
        }
        Err(said) => {
            let is_known = WRONG.iter().any(|&(url, secrets)| {
                NoticeConfig::parse(Some(url), Some(secrets)).err().as_ref() == Some(&said)
            });
            assert!(is_known, "something of the settings is in what is said about them");
        }
    }
}

/// A secret, and settings that are wrong, one for each text there is.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const WRONG: [(&str, &str); 8] = [
    ("", SECRET),
    ("https://a/", ""),
    ("https://a/ b", SECRET),
    ("https://a/#b", SECRET),
    ("https://a@b/", SECRET),
    ("a", SECRET),
    ("ftp://a/", SECRET),
    ("https://a/", "x"),
];

fn is_safe(url: &Url) -> bool {
    match url.host() {
        None => false,
        Some(Host::Domain("localhost")) => ["http", "https"].contains(&url.scheme()),
        Some(Host::Ipv4(address)) if address.is_loopback() => true,
        Some(Host::Ipv6(address)) if address.is_loopback() => true,
        Some(_) => url.scheme() == "https",
    }
}
