use scan::{PlainStrings, plain_strings};
use serde::{Deserialize, Serialize};

use crate::limits::DELETE_KEYS_MAX;
use crate::{DeletionId, Fence, ObjectKey, Timestamp};

/// The version of the message that this build writes, and the newest that it reads.
pub(crate) const VERSION: u32 = 1;

/// Names one chunk of one deletion; every effect in the ledger is keyed by it, so that a second delivery of the same
/// message changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkRef {
    /// The deletion that the chunk is a part of.
    pub deletion: DeletionId,
    /// How often the deletion had been redriven when the message was sent; 0 for the request itself.
    pub generation: u32,
    /// The chunk's number in its generation, from 0.
    pub chunk: u32,
}

/// The body of a queue message: one chunk of a deletion, as JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkMessage<'a> {
    /// Which chunk this is.
    pub chunk: ChunkRef,
    /// When the keys' deletion was requested: by the request that begins the deletion, or by the one that puts their part. Those
    /// of a redrive have the time of the deletion, which is the earlier one.
    pub requested_at: Timestamp,
    /// Whether what was uploaded since is kept.
    pub fence: Fence,
    /// The keys to delete: 1 to [`DELETE_KEYS_MAX`], without duplicates.
    pub keys: Vec<ObjectKey<'a>>,
}

impl<'a> ChunkMessage<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    ///
    /// [`UnreadableReason`]; the caller keeps the body.
    pub fn from_json(body: &'a str) -> Result<Self, UnreadableReason> {
        let wire = Wire::from_plain_json(body).map_or_else(|| Wire::from_json(body), Ok)?;
        if wire.keys.is_empty() || wire.keys.len() > DELETE_KEYS_MAX {
            return Err(UnreadableReason::InvalidMessage);
        }
        let chunk = ChunkRef { deletion: wire.deletion, generation: wire.generation, chunk: wire.chunk };
        Ok(Self { chunk, requested_at: wire.requested_at, fence: wire.fence, keys: wire.keys })
    }

    /// Whether keys are looked at before a call deletes them that delivery number `attempt` begins at `now`.
    pub fn looks(&self, attempt: u32, now: Timestamp) -> bool {
        self.fence.looks(self.chunk.generation, attempt, now.millis_since(self.requested_at))
    }
}

/// The text of a message up to its first key.
pub(crate) fn message_head(chunk: &ChunkRef, requested_at: Timestamp, fence: Fence) -> String {
    let ChunkRef { deletion, generation, chunk } = chunk;
    let requested_at = requested_at.as_millis();
    // OK to write by hand because neither an id nor a fence holds a character that JSON escapes.
    format!(
        r#"{{"v":{VERSION},"deletion":"{deletion}","chunk":{chunk},"generation":{generation},"requested_at":{requested_at},"fence":"{fence}","keys":["#
    )
}

/// How the list of keys begins.
const KEYS_START: &str = r#""keys":["#;

/// The text of a message after its last key.
pub(crate) const MESSAGE_TAIL: &str = "]}";

/// What is wrong with a message that cannot be carried out. These are all there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("the message cannot be carried out: {}", self.as_str())]
#[serde(rename_all = "snake_case")]
pub enum UnreadableReason {
    /// Its content type is not text; ours always is.
    NotText,
    /// Its body is no JSON.
    NotJson,
    /// It is JSON of a version that this build does not know.
    UnsupportedVersion,
    /// It has a version that this build knows, but not that version's fields.
    InvalidMessage,
    /// The ledger knows no such deletion.
    UnknownDeletion,
    /// The ledger knows the deletion, but not with this chunk, or not with this number of keys in it.
    NotInDeletion,
}

impl UnreadableReason {
    /// Every reason there is.
    pub const ALL: [Self; 6] = [
        Self::NotText,
        Self::NotJson,
        Self::UnsupportedVersion,
        Self::InvalidMessage,
        Self::UnknownDeletion,
        Self::NotInDeletion,
    ];

    /// The reason as the ledger, the API and the log say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotText => "not_text",
            Self::NotJson => "not_json",
            Self::UnsupportedVersion => "unsupported_version",
            Self::InvalidMessage => "invalid_message",
            Self::UnknownDeletion => "unknown_deletion",
            Self::NotInDeletion => "not_in_deletion",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    v: u32,
    deletion: DeletionId,
    chunk: u32,
    generation: u32,
    requested_at: Timestamp,
    fence: Fence,
    #[serde(borrow)]
    keys: Vec<ObjectKey<'a>>,
}

impl<'a> Wire<'a> {
    fn from_json(body: &'a str) -> Result<Self, UnreadableReason> {
        let wire: Self = serde_json::from_str(body).map_err(|error| {
            // A message of another version fails in whatever way its fields differ: the version is the better reason.
            match serde_json::from_str::<AnyVersion>(body) {
                Ok(AnyVersion { v }) if v != VERSION => UnreadableReason::UnsupportedVersion,
                _ if error.is_data() => UnreadableReason::InvalidMessage,
                _ => UnreadableReason::NotJson,
            }
        })?;
        // An object, not an array with the fields in their order, which serde takes for one.
        if !body.trim_start().starts_with('{') {
            return Err(UnreadableReason::InvalidMessage);
        }
        if wire.v != VERSION {
            return Err(UnreadableReason::UnsupportedVersion);
        }
        Ok(wire)
    }

    /// Reads a body that ends with keys none of which has an escape, as nearly all of ours are, and has serde read what is left
    /// without them: it is right just when the body is. `None` for any other, right or wrong.
    fn from_plain_json(body: &'a str) -> Option<Self> {
        let start = body.find(KEYS_START)? + KEYS_START.len();
        let (head, keys) = body.split_at_checked(start)?;
        let PlainStrings { first, count, rest: "}" } = plain_strings(keys, DELETE_KEYS_MAX)? else {
            return None;
        };
        if count > first.len() {
            return None;
        }
        let mut keys = Vec::with_capacity(count);
        for key in first {
            keys.push(ObjectKey::parse(key.as_str()).ok()?);
        }
        // Within a string this would be no JSON, and elsewhere than in the one object no member that a message has.
        let without_keys = [head, MESSAGE_TAIL].concat();
        let Wire { v, deletion, chunk, generation, requested_at, fence, keys: _ } =
            Wire::from_json(&without_keys).ok()?;
        Some(Self { v, deletion, chunk, generation, requested_at, fence, keys })
    }
}

#[derive(Deserialize)]
struct AnyVersion {
    v: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack_keys;

    const PINNED: &str = concat!(
        r#"{"v":1,"deletion":"del_01kaszq5m00000000000000000","chunk":7,"generation":0,"#,
        r#""requested_at":1763930000000,"fence":"auto","keys":["proj_42/a.jpg","quote\" tab\t nul\u0000 😀"]}"#
    );

    fn reason(body: &str) -> UnreadableReason {
        ChunkMessage::from_json(body).unwrap_err()
    }

    /// Messages of this form lie in queues for up to 14 days: whoever changes it must raise the version and read both.
    #[test]
    fn the_form_of_a_message_is_pinned() {
        let message = ChunkMessage::from_json(PINNED).unwrap();
        assert_eq!(message.chunk.chunk, 7);
        assert_eq!(message.keys[1].as_str(), "quote\" tab\t nul\0 😀");

        let deletion = message.chunk.deletion.clone();
        let packed = pack_keys(&deletion, 0, message.requested_at, message.fence, &message.keys);
        assert_eq!(packed[0].body, PINNED.replace("\"chunk\":7", "\"chunk\":0"));
    }

    #[test]
    fn a_message_that_cannot_be_read_says_why() {
        assert_eq!(reason("half a mess"), UnreadableReason::NotJson);
        assert_eq!(reason(&PINNED[..80]), UnreadableReason::NotJson);
        assert_eq!(reason("[]"), UnreadableReason::InvalidMessage);
        assert_eq!(reason(&PINNED.replace("\"v\":1", "\"v\":2")), UnreadableReason::UnsupportedVersion);
        assert_eq!(reason(r#"{"v":9,"anything":{}}"#), UnreadableReason::UnsupportedVersion);
        assert_eq!(reason(&PINNED.replace("\"chunk\"", "\"chunks\"")), UnreadableReason::InvalidMessage);
        assert_eq!(
            reason(&PINNED.replace("\"v\":1", "\"v\":1,\"dry_run\":true")),
            UnreadableReason::InvalidMessage
        );
        assert_eq!(reason(&PINNED.replace("\"auto\"", "\"on\"")), UnreadableReason::InvalidMessage);
        assert_eq!(reason(&PINNED.replace("\"fence\":\"auto\",", "")), UnreadableReason::InvalidMessage);
        assert_eq!(reason(&PINNED.replace("proj_42/a.jpg", "")), UnreadableReason::InvalidMessage);
        assert_eq!(reason(&PINNED.replace("del_", "job_")), UnreadableReason::InvalidMessage);
        let array = r#"[1,"del_01kaszq5m00000000000000000",7,0,1763930000000,"auto",["proj_42/a.jpg"]]"#;
        assert_eq!(reason(array), UnreadableReason::InvalidMessage);
        let no_keys = format!("{}]}}", &PINNED[..PINNED.find("\"proj").unwrap()]);
        assert_eq!(reason(&no_keys), UnreadableReason::InvalidMessage);
    }

    #[test]
    fn a_message_is_looked_at_by_its_own_fence_generation_and_age() {
        let message = ChunkMessage::from_json(PINNED).unwrap();
        let after = |millis| message.requested_at.plus_millis(millis);
        assert!(!message.looks(1, after(60_000)) && message.looks(1, after(60_001)));
        assert!(message.looks(2, after(0)));
        let redriven = PINNED.replace("\"generation\":0", "\"generation\":1");
        assert!(ChunkMessage::from_json(&redriven).unwrap().looks(1, after(0)));
    }

    #[test]
    fn a_message_with_more_keys_than_one_delete_takes_is_refused() {
        let keys: Vec<String> = (0..=DELETE_KEYS_MAX).map(|n| format!("\"k{n}\"")).collect();
        let head = &PINNED[..PINNED.find("\"proj").unwrap()];
        assert_eq!(reason(&format!("{head}{}]}}", keys.join(","))), UnreadableReason::InvalidMessage);
        assert!(ChunkMessage::from_json(&format!("{head}{}]}}", keys[1..].join(","))).is_ok());
    }

    #[test]
    fn the_log_and_the_ledger_spell_a_reason_alike() {
        for reason in
            [UnreadableReason::NotText, UnreadableReason::UnsupportedVersion, UnreadableReason::NotInDeletion]
        {
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{}\"", reason.as_str()));
        }
    }
}
