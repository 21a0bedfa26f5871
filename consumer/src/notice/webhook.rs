use std::fmt;

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, Mac as _};
use ledger::{DeletionRecord, DeletionView};
use protocol::{NoticeRef, Timestamp, rfc3339};
use serde::Serialize;
use sha2::Sha256;

use super::config::NoticeConfig;

/// A request to the endpoint, by Standard Webhooks 1.0.0.
pub struct Webhook<'a> {
    /// Where to.
    pub url: &'a str,
    /// Names and values.
    pub headers: [(&'static str, String); 5],
    /// The body.
    pub body: String,
}

impl fmt::Debug for Webhook<'_> {
    /// Shows nothing: the URL may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

/// Counts and no keys: whoever wants the failures asks for them with a token.
#[derive(Serialize)]
struct Payload<'a> {
    r#type: &'static str,
    /// When the deletion ended.
    #[serde(serialize_with = "rfc3339::serialize_option")]
    timestamp: Option<Timestamp>,
    data: DeletionView<'a>,
}

impl NoticeConfig {
    /// The notice of a deletion that has ended, as it is posted at `now`.
    pub(crate) fn webhook(
        &self,
        notice: &NoticeRef,
        deletion: &DeletionRecord,
        now: Timestamp,
    ) -> Webhook<'_> {
        let payload = Payload {
            r#type: "deletion.finished",
            timestamp: deletion.finished_at,
            data: DeletionView::from(deletion),
        };
        // Strings and numbers always serialize; a body that is no notice would be told from one by its receiver.
        let body = serde_json::to_string(&payload).unwrap_or_default();
        let (id, timestamp) = (notice.webhook_id(), (now.as_millis() / 1_000).to_string());
        let signature = sign(&self.keys, &id, &timestamp, &body);
        let headers = [
            ("Content-Type", "application/json".to_owned()),
            ("User-Agent", concat!("r2-deletion-queue/", env!("CARGO_PKG_VERSION")).to_owned()),
            ("webhook-id", id),
            ("webhook-timestamp", timestamp),
            ("webhook-signature", signature),
        ];
        Webhook { url: &self.url, headers, body }
    }
}

/// A signature with each key, separated by spaces: a receiver that knows any of the secrets finds its own.
fn sign(keys: &[Hmac<Sha256>], id: &str, timestamp: &str, body: &str) -> String {
    let signed = format!("{id}.{timestamp}.{body}");
    let mut signatures = String::new();
    for key in keys {
        let code = key.clone().chain_update(signed.as_bytes()).finalize().into_bytes();
        let space = if signatures.is_empty() { "" } else { " " };
        signatures.push_str(space);
        signatures.push_str("v1,");
        signatures.push_str(&Base64::encode_string(&code));
    }
    signatures
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the libraries of Standard Webhooks: libraries/javascript/src/webhook.test.ts, "sign function works".
    #[test]
    fn a_signature_is_that_of_standard_webhooks() {
        let sign = |secrets: &str| {
            let config = NoticeConfig::parse(Some("https://example.com"), Some(secrets)).unwrap().unwrap();
            sign(&config.keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", r#"{"test": 2432232314}"#)
        };
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), expected);
        let other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx";
        let both = sign(&format!("{other} whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
        assert_eq!(both, format!("{} {expected}", sign(other)));
        assert_ne!(sign(other), expected);
    }
}
