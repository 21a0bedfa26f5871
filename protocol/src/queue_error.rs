use crate::Timestamp;
use crate::trailing_code::trailing_code;

/// An error of a send to the Queue, told by the code at the end of its message.
///
/// From compatibility date 2026-03-12 the runtime writes `"<cause> (<code>)"`; the code is nowhere else.
/// docs: queues/reference/error-codes; cloudflare/workerd `src/workerd/api/queue.c++`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueError {
    /// The Queue's code; 0 when the message has none.
    pub code: u32,
}

/// What an error of the Queue asks for. These are all there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueErrorClass {
    /// Too much at once (10250): the caller should come back in a few seconds.
    Overloaded,
    /// The Queue takes nothing for now: full, disabled, or the free plan's operations of the day are used up
    /// (10251, 10252, 10253).
    Closed,
    /// The Queue is not there, or is not ours (10104, 10106, 10107): a person must act.
    Configuration,
    /// Anything else. The messages may be stored or not.
    Unknown,
}

impl QueueError {
    const FREE_TIER_LIMIT_EXCEEDED: u32 = 10253;

    /// Reads the code at the end of the runtime's message.
    pub fn from_message(message: &str) -> Self {
        Self { code: trailing_code(message) }
    }

    /// What the error asks for.
    pub fn class(self) -> QueueErrorClass {
        match self.code {
            10250 => QueueErrorClass::Overloaded,
            10251 | 10252 | Self::FREE_TIER_LIMIT_EXCEEDED => QueueErrorClass::Closed,
            10104 | 10106 | 10107 => QueueErrorClass::Configuration,
            _ => QueueErrorClass::Unknown,
        }
    }

    /// After how many seconds it is worth to try again.
    ///
    /// The free plan's operations come back at midnight UTC; for the rest the figures are ours.
    pub fn retry_after_seconds(self, now: Timestamp) -> u64 {
        match (self.class(), self.code) {
            (_, Self::FREE_TIER_LIMIT_EXCEEDED) => now.seconds_to_midnight(),
            (QueueErrorClass::Overloaded | QueueErrorClass::Unknown, _) => 5,
            (QueueErrorClass::Closed, _) => 60,
            (QueueErrorClass::Configuration, _) => 300,
        }
    }

    /// What happened, for the caller: nothing of the platform's own text.
    pub fn detail(self) -> &'static str {
        match (self.class(), self.code) {
            (QueueErrorClass::Overloaded, _) => {
                "The queue takes no more messages at this rate. Send the request again later."
            }
            (_, 10251) => "The queue is full. Send the request again when the consumer has caught up.",
            (_, 10252) => "The queue is disabled. Send the request again when the operator has enabled it.",
            (_, Self::FREE_TIER_LIMIT_EXCEEDED) => {
                "The queue operations of the free plan are used up for today. They come back at midnight UTC."
            }
            (QueueErrorClass::Configuration, _) => {
                "The producer's queue does not exist or may not be used. The operator must correct the binding."
            }
            (QueueErrorClass::Closed | QueueErrorClass::Unknown, _) => {
                "The queue did not confirm every message. Send the request again."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_classed_as_documented() {
        for (message, code, class, retry_after) in [
            ("Queue is overloaded. Please back off. (10250)", 10250, QueueErrorClass::Overloaded, 5),
            ("Queue storage limit exceeded (10251)", 10251, QueueErrorClass::Closed, 60),
            ("Queue is disabled (10252)", 10252, QueueErrorClass::Closed, 60),
            ("Free tier limit exceeded (10253)", 10253, QueueErrorClass::Closed, 86_399),
            ("Queue not found (10104)", 10104, QueueErrorClass::Configuration, 300),
            ("Unknown internal error (15000)", 15000, QueueErrorClass::Unknown, 5),
            ("Queue sendBatch failed: Internal Server Error", 0, QueueErrorClass::Unknown, 5),
        ] {
            let error = QueueError::from_message(message);
            assert_eq!((error.code, error.class()), (code, class), "{message}");
            assert_eq!(error.retry_after_seconds(Timestamp::from_millis(1_000)), retry_after, "{message}");
            assert!(error.detail().contains(' ') && error.detail().ends_with('.'), "{message}");
        }
    }
}
