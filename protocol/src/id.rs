use std::fmt;
use std::str::FromStr;

use crate::Timestamp;
use crate::ulid::{is_ulid, to_ulid};
use serde::{Deserialize, Serialize};

/// The id of a deletion: `del_` and a ULID in lower case, so that ids sort by the time of the request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeletionId(String);

impl DeletionId {
    const PREFIX: &str = "del_";

    /// The id of a deletion requested at `now`; `random` must come from a cryptographic source, because an id must
    /// not be guessable.
    pub fn new(now: Timestamp, random: u128) -> Self {
        Self(format!("{}{}", Self::PREFIX, to_ulid(now, random)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeletionId {
    type Err = InvalidDeletionId;

    fn from_str(text: &str) -> Result<Self, InvalidDeletionId> {
        let ulid = text.strip_prefix(Self::PREFIX).ok_or(InvalidDeletionId)?;
        if is_ulid(ulid) { Ok(Self(text.to_owned())) } else { Err(InvalidDeletionId) }
    }
}

impl TryFrom<String> for DeletionId {
    type Error = InvalidDeletionId;

    fn try_from(text: String) -> Result<Self, InvalidDeletionId> {
        text.parse()
    }
}

impl From<DeletionId> for String {
    fn from(id: DeletionId) -> Self {
        id.0
    }
}

impl fmt::Display for DeletionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not a deletion's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a deletion's id is del_ and 26 characters, as the answer to POST /v1/deletions gave it")]
pub struct InvalidDeletionId;

/// The id of one HTTP request, sent back as `X-Request-Id` and written to the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequestId(String);

impl RequestId {
    /// The id of a request that came at `now`.
    pub fn new(now: Timestamp, random: u128) -> Self {
        Self(format!("req_{}", to_ulid(now, random)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_has_one_spelling() {
        let id = DeletionId::new(Timestamp::from_millis(1_763_930_000_000), u128::MAX);
        assert_eq!(id.as_str().len(), 30);
        assert_eq!(id.as_str().parse::<DeletionId>(), Ok(id.clone()));
        assert_eq!(id.as_str().to_uppercase().parse::<DeletionId>(), Err(InvalidDeletionId));
        for other in ["", "del_", "del_x", "job_01kaszq5m0zzzzzzzzzzzzzzzz", "del_01kaszq5m0zzzzzzzzzzzzzzzi"]
        {
            assert_eq!(other.parse::<DeletionId>(), Err(InvalidDeletionId), "{other}");
        }
    }

    #[test]
    fn a_request_is_named_after_its_time_and_its_chance() {
        let now = Timestamp::from_millis(1_763_930_000_000);
        assert_eq!(RequestId::new(now, 0).as_str(), "req_01kas6qjm00000000000000000");
        assert_eq!(RequestId::new(now, 31).as_str(), "req_01kas6qjm0000000000000000z");
    }

    #[test]
    fn ids_sort_by_time() {
        let earlier = DeletionId::new(Timestamp::from_millis(1_000), u128::MAX);
        let later = DeletionId::new(Timestamp::from_millis(1_001), 0);
        assert!(earlier < later);
    }
}
