use crate::FailureCode;
use crate::trailing_code::trailing_code;

/// An error of a call to R2, told by the code that the binding writes at the end of its message.
///
/// The binding throws `Error("<action>: <message> (<code>)")` with no field for the code; without one from the service
/// it writes 0. Source: cloudflare/workerd `src/workerd/api/r2-rpc.c++`, docs: r2/api/error-codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum R2Error {
    /// 10001, `InternalError`. Large deletes have met it again and again.
    Internal,
    /// 10002, `Unauthorized`.
    Unauthorized,
    /// 10003, `AccessDenied`.
    AccessDenied,
    /// 10006, `NoSuchBucket`.
    NoSuchBucket,
    /// 10020, `InvalidObjectName`.
    InvalidObjectName,
    /// 10042, `NotEntitled`: the account has no R2 subscription.
    NotEntitled,
    /// 10043, `ServiceUnavailable`.
    ServiceUnavailable,
    /// 10054, `ClientDisconnect`.
    ClientDisconnect,
    /// 10058, `TooManyRequests`: more than one write a second to one key.
    TooManyRequests,
    /// 10069, `ObjectLockedByBucketPolicy`.
    ObjectLocked,
    /// No answer came in the time that we give a call. The call may still take effect.
    TimedOut,
    /// Any other code; 0 when the service gave none.
    Other(u32),
}

/// What an error of R2 asks for. These are all there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum R2ErrorClass {
    /// It may pass: try again later. Whether the call had an effect is unknown.
    Transient,
    /// Somebody else writes one of the keys at the same time: wait longer, and blame no key.
    Throttled,
    /// One of the keys can never be deleted: find it, give up on it, and delete the others.
    Permanent,
    /// Nothing can be deleted until a person has changed the configuration.
    Configuration,
}

impl R2Error {
    /// Reads the code at the end of the binding's message.
    pub fn from_message(message: &str) -> Self {
        Self::from_code(trailing_code(message))
    }

    /// The error with this code.
    pub fn from_code(code: u32) -> Self {
        match code {
            10001 => Self::Internal,
            10002 => Self::Unauthorized,
            10003 => Self::AccessDenied,
            10006 => Self::NoSuchBucket,
            10020 => Self::InvalidObjectName,
            10042 => Self::NotEntitled,
            10043 => Self::ServiceUnavailable,
            10054 => Self::ClientDisconnect,
            10058 => Self::TooManyRequests,
            10069 => Self::ObjectLocked,
            other => Self::Other(other),
        }
    }

    /// R2's code; 0 where there is none.
    pub fn code(self) -> u32 {
        match self {
            Self::Internal => 10001,
            Self::Unauthorized => 10002,
            Self::AccessDenied => 10003,
            Self::NoSuchBucket => 10006,
            Self::InvalidObjectName => 10020,
            Self::NotEntitled => 10042,
            Self::ServiceUnavailable => 10043,
            Self::ClientDisconnect => 10054,
            Self::TooManyRequests => 10058,
            Self::ObjectLocked => 10069,
            Self::TimedOut => 0,
            Self::Other(code) => code,
        }
    }

    /// What the error asks for. A code that we do not know may pass: it is tried again until the attempts end.
    pub fn class(self) -> R2ErrorClass {
        match self {
            Self::Internal
            | Self::ServiceUnavailable
            | Self::ClientDisconnect
            | Self::TimedOut
            | Self::Other(_) => R2ErrorClass::Transient,
            Self::TooManyRequests => R2ErrorClass::Throttled,
            Self::InvalidObjectName | Self::ObjectLocked => R2ErrorClass::Permanent,
            Self::Unauthorized | Self::AccessDenied | Self::NoSuchBucket | Self::NotEntitled => {
                R2ErrorClass::Configuration
            }
        }
    }

    /// Whether a smaller call may succeed where this one failed: true for what large deletes have met.
    pub fn asks_for_smaller_calls(self) -> bool {
        match self {
            Self::Internal | Self::ServiceUnavailable | Self::TimedOut => true,
            Self::Unauthorized
            | Self::AccessDenied
            | Self::NoSuchBucket
            | Self::InvalidObjectName
            | Self::NotEntitled
            | Self::ClientDisconnect
            | Self::TooManyRequests
            | Self::ObjectLocked
            | Self::Other(_) => false,
        }
    }

    /// The code of a key that ends undeleted because of this error.
    pub fn failure_code(self) -> FailureCode {
        match self {
            Self::ObjectLocked => FailureCode::ObjectLocked,
            Self::InvalidObjectName => FailureCode::InvalidKey,
            Self::TooManyRequests => FailureCode::Throttled,
            Self::Unauthorized | Self::AccessDenied | Self::NoSuchBucket | Self::NotEntitled => {
                FailureCode::NotConfigured
            }
            Self::Internal
            | Self::ServiceUnavailable
            | Self::ClientDisconnect
            | Self::TimedOut
            | Self::Other(_) => FailureCode::StorageUnavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_large_deletes_have_met_asks_for_smaller_calls() {
        for (error, asks) in [
            (R2Error::Internal, true),
            (R2Error::ServiceUnavailable, true),
            (R2Error::TimedOut, true),
            (R2Error::ObjectLocked, false),
            (R2Error::TooManyRequests, false),
            (R2Error::AccessDenied, false),
            (R2Error::Other(0), false),
        ] {
            assert_eq!(error.asks_for_smaller_calls(), asks, "{error:?}");
        }
    }

    #[test]
    fn the_code_is_the_number_in_the_last_brackets() {
        for (message, error) in [
            ("delete: We encountered an internal error. Please try again. (10001)", R2Error::Internal),
            ("delete: locked (see (10001)) (10069)", R2Error::ObjectLocked),
            ("delete: Unspecified error (0)", R2Error::Other(0)),
            ("delete: The number of keys … inclusive. (10027)\n", R2Error::Other(10027)),
            ("Network connection lost.", R2Error::Other(0)),
            ("(99999999999)", R2Error::Other(0)),
            ("delete: locked (+10069)", R2Error::Other(0)),
            ("", R2Error::Other(0)),
        ] {
            assert_eq!(R2Error::from_message(message), error, "{message}");
        }
    }

    #[test]
    fn every_code_reads_back() {
        for code in [0, 7, 10001, 10002, 10003, 10006, 10020, 10027, 10042, 10043, 10054, 10058, 10069] {
            assert_eq!(R2Error::from_code(code).code(), code);
        }
    }

    /// The table of DESIGN: what each code asks for.
    #[test]
    fn the_codes_are_classed_as_documented() {
        let class = |code| R2Error::from_code(code).class();
        assert!(
            [10001, 10043, 10054, 0, 12345].into_iter().all(|code| class(code) == R2ErrorClass::Transient)
        );
        assert!([10058].into_iter().all(|code| class(code) == R2ErrorClass::Throttled));
        assert!([10069, 10020].into_iter().all(|code| class(code) == R2ErrorClass::Permanent));
        assert!(
            [10002, 10003, 10006, 10042].into_iter().all(|code| class(code) == R2ErrorClass::Configuration)
        );
        assert!([10001, 10043].into_iter().all(|code| R2Error::from_code(code).asks_for_smaller_calls()));
    }
}
