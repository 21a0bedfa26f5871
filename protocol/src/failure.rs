use serde::Serialize;

/// Why a key ended undeleted. Stable: clients and operators compare these. More may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureCode {
    /// A bucket lock rule holds the object (R2 10069).
    ObjectLocked,
    /// R2 refuses the name (10020).
    InvalidKey,
    /// Every attempt ended in an error inside R2 (10001, 10043), or R2 gave no code at all.
    StorageUnavailable,
    /// Every attempt was throttled (10058).
    Throttled,
    /// The consumer may not delete, or the bucket is not there (10002, 10003, 10006, 10042).
    NotConfigured,
    /// Every attempt ended before R2 had answered: the consumer was stopped, or the ledger could not be reached.
    AttemptsExhausted,
    /// The objects under a prefix could not be listed to their end: what is left there was not looked at.
    SweepIncomplete,
    /// There are more objects under the prefixes than `max_objects` or the plan lets through: none was deleted.
    MaxObjectsExceeded,
}

impl FailureCode {
    /// Every code there is.
    pub const ALL: [Self; 8] = [
        Self::ObjectLocked,
        Self::InvalidKey,
        Self::StorageUnavailable,
        Self::Throttled,
        Self::NotConfigured,
        Self::AttemptsExhausted,
        Self::SweepIncomplete,
        Self::MaxObjectsExceeded,
    ];

    /// The code as the ledger and the API say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ObjectLocked => "object_locked",
            Self::InvalidKey => "invalid_key",
            Self::StorageUnavailable => "storage_unavailable",
            Self::Throttled => "throttled",
            Self::NotConfigured => "not_configured",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::SweepIncomplete => "sweep_incomplete",
            Self::MaxObjectsExceeded => "max_objects_exceeded",
        }
    }

    /// The code that [`FailureCode::as_str`] spells so.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// What happened and what to do, for a person.
    pub fn message(self) -> &'static str {
        match self {
            Self::ObjectLocked => {
                "A lock rule of the bucket holds the object. Delete it again when the rule has ended or was removed."
            }
            Self::InvalidKey => "R2 refuses the name of the object.",
            Self::StorageUnavailable => {
                "R2 answered every attempt with an error of its own. The object may be gone or not; delete it again."
            }
            Self::Throttled => {
                "R2 throttled every attempt: something else keeps writing this key. Delete it again when that ended."
            }
            Self::NotConfigured => {
                "The consumer may not delete from the bucket, or the bucket does not exist. Correct the binding, then \
                 delete it again."
            }
            Self::AttemptsExhausted => {
                "No attempt was completed. The object may be gone or not; look at the consumer's log, then delete it \
                 again."
            }
            Self::SweepIncomplete => {
                "The objects that begin so could not be listed to the end: those that are left were not looked at. Ask for the \
                 prefix again."
            }
            Self::MaxObjectsExceeded => {
                "There are more objects under the deletion's prefixes than `max_objects` or its plan lets through. Nothing was \
                 deleted by prefix; look at a new plan, then ask again."
            }
        }
    }

    /// Whether it is about a prefix, and not about a key.
    pub fn is_of_a_prefix(self) -> bool {
        match self {
            Self::SweepIncomplete | Self::MaxObjectsExceeded => true,
            Self::ObjectLocked
            | Self::InvalidKey
            | Self::StorageUnavailable
            | Self::Throttled
            | Self::NotConfigured
            | Self::AttemptsExhausted => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_and_is_spelled_alike_in_json() {
        for code in FailureCode::ALL {
            assert_eq!(FailureCode::from_text(code.as_str()), Some(code));
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code.as_str()));
        }
        assert_eq!(FailureCode::from_text("unheard_of"), None);
    }

    /// What is about a prefix is never redriven: what is about a key always can be.
    #[test]
    fn every_code_says_what_to_do_and_two_are_about_prefixes() {
        for code in FailureCode::ALL {
            let message = code.message();
            assert!(message.contains(' ') && message.ends_with('.'), "{code:?}");
            let others = FailureCode::ALL.into_iter().filter(|&other| other != code);
            assert!(others.map(FailureCode::message).all(|other| other != message), "{code:?}");
        }
        let of_a_prefix = FailureCode::ALL.into_iter().filter(|code| code.is_of_a_prefix());
        assert_eq!(
            of_a_prefix.collect::<Vec<_>>(),
            [FailureCode::SweepIncomplete, FailureCode::MaxObjectsExceeded]
        );
    }
}
