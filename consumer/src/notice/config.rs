use std::fmt;
use std::net::Ipv4Addr;

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _};
use sha2::Sha256;

/// How the secrets of Standard Webhooks begin.
const SECRET_PREFIX: &str = "whsec_";

/// How many bytes a secret has. Standard Webhooks 1.0.0, "Signature scheme".
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Hosts that are this machine: only there a notice may go unencrypted.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Where notices are sent, and with what they are signed.
pub struct NoticeConfig {
    pub(super) url: String,
    /// One for each secret, so that they can be rotated.
    pub(super) keys: Vec<Hmac<Sha256>>,
}

impl fmt::Debug for NoticeConfig {
    /// Shows nothing: all of it may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoticeConfig").finish_non_exhaustive()
    }
}

impl NoticeConfig {
    /// Reads the settings `NOTICE_URL` and `NOTICE_SECRETS`; `None` when neither is set, and nobody wants notices.
    ///
    /// # Errors
    ///
    /// What is wrong with them, for the operator's log: nothing of them is in it. Notices are owed then, and sent when it is
    /// put right within three days.
    pub fn parse(url: Option<&str>, secrets: Option<&str>) -> Result<Option<Self>, String> {
        let (url, secrets) = (url.unwrap_or_default().trim(), secrets.unwrap_or_default().trim());
        match (url.is_empty(), secrets.is_empty()) {
            (true, true) => return Ok(None),
            (true, false) => return Err("NOTICE_URL is not set, although NOTICE_SECRETS is".to_owned()),
            (false, true) => return Err("NOTICE_SECRETS is not set, although NOTICE_URL is".to_owned()),
            (false, false) => {}
        }
        check_url(url).map_err(|detail| format!("NOTICE_URL: {detail}"))?;
        let mut keys = Vec::new();
        for secret in secrets.split_ascii_whitespace() {
            keys.push(parse_secret(secret).ok_or(
                "NOTICE_SECRETS: expected whsec_ and the base64 of 24 to 64 random bytes, several separated by spaces",
            )?);
        }
        Ok(Some(Self { url: url.to_owned(), keys }))
    }
}

fn parse_secret(secret: &str) -> Option<Hmac<Sha256>> {
    let bytes = Base64::decode_vec(secret.strip_prefix(SECRET_PREFIX)?).ok()?;
    Hmac::new_from_slice(&bytes).ok().filter(|_| SECRET_BYTES.contains(&bytes.len()))
}

/// Whether notices may go there. Strict rather than clever: what a browser would make a URL of is refused.
fn check_url(url: &str) -> Result<(), &'static str> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\\\"<>^`{|}".contains(&byte);
    if !url.bytes().all(is_plain) {
        return Err("a character that must be percent-encoded in a URL");
    }
    if url.contains('#') {
        return Err("a fragment (#) is never sent");
    }
    let (scheme, rest) = url.split_once("://").ok_or("expected https://HOST/PATH")?;
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("credentials do not belong into a URL; the receiver knows us by the signature");
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    // What ends in a number is an address, or none: `0x7f.1` is one to a browser, and `example.999` no URL.
    let is_named = |host: &str| {
        let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        !last.starts_with(|first: char| first.is_ascii_digit()) || host.parse::<Ipv4Addr>().is_ok()
    };
    let is_name = |host: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
        !host.is_empty() && host.bytes().all(is_plain) && is_named(host)
    };
    let is_host = is_name(host) || LOOPBACK.contains(&host);
    // `+80` is a number to Rust.
    let is_port = |port: &str| !port.starts_with('+') && port.parse::<u16>().is_ok();
    if !is_host || !port.is_none_or(is_port) {
        return Err("expected https://HOST/PATH");
    }
    match scheme {
        "https" => Ok(()),
        "http" if LOOPBACK.contains(&host) => Ok(()),
        _ => Err("expected https://; http:// only to this machine, for development"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://example.com/r2";
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn error(url: &str, secrets: &str) -> String {
        NoticeConfig::parse(Some(url), Some(secrets)).unwrap_err()
    }

    #[test]
    fn without_settings_nobody_wants_notices_and_one_alone_is_a_mistake() {
        for nothing in [None, Some(""), Some(" \n")] {
            assert!(NoticeConfig::parse(nothing, nothing).unwrap().is_none());
            assert!(
                NoticeConfig::parse(Some(URL), nothing).unwrap_err().contains("NOTICE_SECRETS is not set")
            );
            assert!(
                NoticeConfig::parse(nothing, Some(SECRET)).unwrap_err().contains("NOTICE_URL is not set")
            );
        }
    }

    #[test]
    fn notices_go_encrypted_or_to_this_machine() {
        for url in [
            URL,
            "https://example.com",
            "https://192.0.2.7/r2",
            "https://hooks.example.com:8443/a/b?tenant=42&x=%20",
            "http://localhost:8080/r2",
            "http://127.0.0.1/r2",
            "http://[::1]:8080/r2",
            "http://[::1]/r2",
        ] {
            assert!(NoticeConfig::parse(Some(url), Some(SECRET)).unwrap().is_some(), "{url}");
        }
        for (url, says) in [
            ("http://example.com/r2", "https"),
            ("http://127.0.0.1.example.com/r2", "https"),
            ("http://localhost@example.com/r2", "credentials"),
            ("https://user:password@example.com/r2", "credentials"),
            ("https://example.com/r2#here", "fragment"),
            ("https://example.com/a b", "percent-encoded"),
            ("http://127.0.0.1\\.example.com/", "percent-encoded"),
            ("https://ex\u{e4}mple.com/", "percent-encoded"),
            ("ftp://example.com/", "https"),
            ("HTTPS://example.com/", "https"),
            ("https:///r2", "HOST"),
            ("https://example.com:99999/", "HOST"),
            ("https://[::2]/", "HOST"),
            ("https://example.com:+80/", "HOST"),
            ("https://example.999/", "HOST"),
            ("https://0x7f.1/", "HOST"),
            ("https://192.0.2.7./", "HOST"),
            ("example.com/r2", "HOST"),
            ("https:/example.com", "HOST"),
        ] {
            let error = error(url, SECRET);
            assert!(error.starts_with("NOTICE_URL: ") && error.contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn a_secret_has_24_to_64_bytes_and_several_may_sign() {
        let secret = |bytes: usize| format!("whsec_{}", Base64::encode_string(&vec![7; bytes]));
        let (shortest, longest) = (secret(24), secret(64));
        let both = format!("{shortest} {longest}\n");
        let config = NoticeConfig::parse(Some(URL), Some(&both)).unwrap().unwrap();
        assert_eq!(config.keys.len(), 2);
        for secrets in [
            secret(23),
            secret(65),
            format!("{shortest} {}", secret(3)),
            shortest.replace("whsec_", ""),
            shortest.replace("whsec_", "whsk_"),
            shortest.replace("whsec_", "whsec_!"),
            format!("{shortest},{longest}"),
        ] {
            let error = error(URL, &secrets);
            assert!(error.starts_with("NOTICE_SECRETS: "), "{error}");
        }
    }

    #[test]
    fn nothing_of_the_settings_is_in_what_is_said_about_them() {
        let canary = "canary-4711";
        for (url, secrets) in [
            (format!("http://example.com/{canary}"), SECRET.to_owned()),
            (format!("https://{canary}@example.com/"), SECRET.to_owned()),
            (URL.to_owned(), format!("whsec_{canary}")),
            (URL.to_owned(), canary.to_owned()),
        ] {
            assert!(!error(&url, &secrets).contains(canary));
        }
        let config = NoticeConfig::parse(Some(&format!("{URL}?{canary}")), Some(SECRET)).unwrap();
        assert_eq!(format!("{config:?}"), "Some(NoticeConfig { .. })");
    }
}
