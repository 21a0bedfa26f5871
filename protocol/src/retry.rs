use crate::limits::{CONSUMER_WALL_SECONDS, DELAY_SECONDS_MAX, RETENTION_SECONDS_MIN};
use crate::{R2Error, R2ErrorClass, Timestamp};

/// How often the Queue delivers a message again after its first delivery, before it becomes a dead letter.
///
/// `wrangler.consumer.toml` says it to the platform; a test holds the two together.
pub const RETRIES_MAX: u32 = 20;

const BASE_SECONDS: u32 = 10;
const CAP_SECONDS: u32 = 3_600;
const THROTTLED_SECONDS_MIN: u32 = 2;
const CONFIGURATION_SECONDS: u32 = 300;

/// Why a message is delivered once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryCause {
    /// R2 answered with an error that leaves keys undecided.
    R2(R2Error),
    /// The ledger did not answer, so nothing that was done could be recorded.
    LedgerUnavailable,
    /// Another delivery of the same message holds the chunk, for this many seconds at the most.
    ClaimedElsewhere {
        /// Seconds until that delivery's claim ends.
        seconds: u32,
    },
    /// The invocation's time was up before the chunk's turn came or ended.
    OutOfTime,
    /// The invocation may make no more calls to R2.
    OutOfCalls,
    /// A binding of the consumer is missing.
    Misconfigured,
    /// A notice is owed of a deletion that was cancelled and is not over yet.
    NotFinal,
}

impl RetryCause {
    /// Another delivery holds what the message is about until then.
    pub fn claimed_until(until: Timestamp, now: Timestamp) -> Self {
        let seconds = u32::try_from(until.millis_since(now).div_ceil(1_000)).unwrap_or(u32::MAX);
        Self::ClaimedElsewhere { seconds }
    }

    /// The cause as the log says it, in OpenTelemetry's `error.type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::R2(error) => match error.class() {
                R2ErrorClass::Transient => "r2_transient",
                R2ErrorClass::Throttled => "r2_throttled",
                R2ErrorClass::Permanent => "r2_permanent",
                R2ErrorClass::Configuration => "r2_configuration",
            },
            Self::LedgerUnavailable => "ledger_unavailable",
            Self::ClaimedElsewhere { .. } => "claimed_elsewhere",
            Self::OutOfTime => "out_of_time",
            Self::OutOfCalls => "out_of_calls",
            Self::Misconfigured => "misconfigured",
            Self::NotFinal => "not_final",
        }
    }
}

/// How many seconds to wait before a message is delivered again.
///
/// `attempt` counts deliveries from 1, this one included. `random` is drawn evenly from 0 up to, not including, 1.
/// What may pass waits with full jitter: an even draw from 1 to `base * 2^(attempt - 1)` seconds, `base` 10 and never
/// more than an hour, so that many messages that failed together do not come back together.
pub fn retry_delay_seconds(cause: RetryCause, attempt: u32, random: f64) -> u32 {
    let seconds = match cause {
        RetryCause::R2(error) => match error.class() {
            // Permanent errors are decided at once; one that is left undecided ran out of time, and may come soon.
            R2ErrorClass::Transient | R2ErrorClass::Permanent => full_jitter(attempt, random),
            R2ErrorClass::Throttled => full_jitter(attempt, random).max(THROTTLED_SECONDS_MIN),
            R2ErrorClass::Configuration => CONFIGURATION_SECONDS,
        },
        RetryCause::LedgerUnavailable | RetryCause::NotFinal => full_jitter(attempt, random),
        RetryCause::ClaimedElsewhere { seconds } => seconds.saturating_add(full_jitter(1, random)),
        RetryCause::OutOfTime | RetryCause::OutOfCalls => 1,
        RetryCause::Misconfigured => CONFIGURATION_SECONDS,
    };
    seconds.min(DELAY_SECONDS_MAX)
}

fn full_jitter(attempt: u32, random: f64) -> u32 {
    let most = backoff_cap_seconds(attempt);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "OK because 0 <= random < 1")]
    let drawn = (f64::from(most) * random.clamp(0.0, 1.0)) as u32;
    1 + drawn.min(most - 1)
}

/// The longest that attempt number `attempt` may wait for the next.
const fn backoff_cap_seconds(attempt: u32) -> u32 {
    let doublings = if attempt == 0 { 0 } else { attempt - 1 };
    // OK because 10 * 2^16 fits a u32, and everything past 9 doublings is over the cap anyway.
    let seconds = BASE_SECONDS << (if doublings > 16 { 16 } else { doublings });
    if seconds > CAP_SECONDS { CAP_SECONDS } else { seconds }
}

/// How long a message can live: every wait at its longest and every delivery at the platform's longest.
pub const MESSAGE_LIFE_SECONDS_MAX: u32 = longest_life_seconds();

// A message must not outlive its queue, not even the one with the shortest retention there is.
const _: () = assert!(MESSAGE_LIFE_SECONDS_MAX < RETENTION_SECONDS_MIN);

const fn longest_life_seconds() -> u32 {
    let mut seconds = CONSUMER_WALL_SECONDS;
    let mut attempt = 1;
    while attempt <= RETRIES_MAX {
        seconds += backoff_cap_seconds(attempt) + CONSUMER_WALL_SECONDS;
        attempt += 1;
    }
    seconds
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRANSIENT: RetryCause = RetryCause::R2(R2Error::Internal);
    const ALMOST_ONE: f64 = 1.0 - f64::EPSILON;

    #[test]
    fn transient_errors_wait_with_full_jitter_up_to_an_hour() {
        for (attempt, longest) in
            [(1, 10), (2, 20), (3, 40), (9, 2_560), (10, 3_600), (21, 3_600), (u32::MAX, 3_600)]
        {
            assert_eq!(retry_delay_seconds(TRANSIENT, attempt, 0.0), 1);
            assert_eq!(retry_delay_seconds(TRANSIENT, attempt, 0.5), 1 + longest / 2);
            assert_eq!(retry_delay_seconds(TRANSIENT, attempt, ALMOST_ONE), longest);
            // A draw that is not below 1 after all waits no longer.
            assert_eq!(retry_delay_seconds(TRANSIENT, attempt, 1.0), longest);
        }
    }

    #[test]
    fn a_message_lives_through_every_wait_and_every_delivery_at_their_longest() {
        // Nine waits that double, eleven of an hour, and 21 deliveries of a quarter of an hour.
        assert_eq!(MESSAGE_LIFE_SECONDS_MAX, 10 * 511 + 11 * 3_600 + 21 * 900);
    }

    #[test]
    fn causes_are_told_apart_in_the_log() {
        let causes = [
            TRANSIENT,
            RetryCause::R2(R2Error::TooManyRequests),
            RetryCause::R2(R2Error::ObjectLocked),
            RetryCause::R2(R2Error::NotEntitled),
            RetryCause::LedgerUnavailable,
            RetryCause::ClaimedElsewhere { seconds: 1 },
            RetryCause::OutOfTime,
            RetryCause::OutOfCalls,
            RetryCause::Misconfigured,
            RetryCause::NotFinal,
        ];
        let mut names = causes.map(RetryCause::as_str).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), causes.len());
        assert!(names.contains(&"claimed_elsewhere"));
    }

    #[test]
    fn throttling_waits_at_least_two_seconds_and_is_spread() {
        let throttled = RetryCause::R2(R2Error::TooManyRequests);
        assert_eq!(retry_delay_seconds(throttled, 1, 0.0), 2);
        assert_eq!(retry_delay_seconds(throttled, 1, ALMOST_ONE), 10);
    }

    #[test]
    fn configuration_errors_wait_long_whatever_the_attempt() {
        for attempt in [1, 20] {
            assert_eq!(retry_delay_seconds(RetryCause::R2(R2Error::NotEntitled), attempt, 0.3), 300);
        }
    }

    #[test]
    fn a_claim_elsewhere_is_waited_for_to_its_end() {
        assert!(retry_delay_seconds(RetryCause::ClaimedElsewhere { seconds: 180 }, 1, 0.0) > 180);
    }

    proptest! {
        #[test]
        fn every_delay_is_one_that_the_queue_takes(attempt: u32, random in 0.0..1.0, seconds: u32) {
            for cause in [
                TRANSIENT,
                RetryCause::R2(R2Error::TooManyRequests),
                RetryCause::LedgerUnavailable,
                RetryCause::OutOfTime,
                RetryCause::OutOfCalls,
                RetryCause::Misconfigured,
                RetryCause::NotFinal,
                RetryCause::ClaimedElsewhere { seconds },
            ] {
                let delay = retry_delay_seconds(cause, attempt, random);
                prop_assert!((1..=DELAY_SECONDS_MAX).contains(&delay));
            }
        }
    }
}
