use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The time `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time `millis` milliseconds later.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// The time `millis` milliseconds earlier, or the epoch.
    #[must_use]
    pub const fn minus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_sub(millis))
    }

    /// Milliseconds from `earlier` to this time; zero when `earlier` is later.
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Seconds from this time to the next midnight in UTC, 1 to 86,400.
    pub const fn seconds_to_midnight(self) -> u64 {
        86_400 - (self.0 / 1_000) % 86_400
    }
}

/// Serializes a [`Timestamp`] as RFC 3339 in UTC with milliseconds, as the API shows it.
pub mod rfc3339 {
    use super::{DateTime, SecondsFormat, Timestamp};
    use serde::Serializer;

    /// For `#[serde(serialize_with = …)]`.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_text(*time))
    }

    /// The same for a time that may not have come yet; `null` then.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    pub fn serialize_option<S: Serializer>(
        time: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a time in RFC 3339, of any offset; `None` for what is none. One before the epoch is taken for it: nothing of ours
    /// is as old.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let time = DateTime::parse_from_rfc3339(text).ok()?;
        Some(Timestamp::from_millis(u64::try_from(time.timestamp_millis()).unwrap_or_default()))
    }

    fn to_text(time: Timestamp) -> String {
        // Times past the year 262143 do not come from a clock; the epoch stands in for them rather than a panic.
        let millis = i64::try_from(time.as_millis()).unwrap_or_default();
        DateTime::from_timestamp_millis(millis)
            .unwrap_or_default()
            .to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn times_are_utc_with_milliseconds() {
            assert_eq!(to_text(Timestamp::from_millis(1_763_930_000_123)), "2025-11-23T20:33:20.123Z");
            assert_eq!(to_text(Timestamp::from_millis(u64::MAX)), "1970-01-01T00:00:00.000Z");
        }

        #[test]
        fn a_time_is_read_with_its_offset() {
            let time = Timestamp::from_millis(1_763_930_000_123);
            assert_eq!(parse("2025-11-23T20:33:20.123Z"), Some(time));
            assert_eq!(parse("2025-11-23T21:33:20.123+01:00"), Some(time));
            assert_eq!(parse("1969-12-31T23:59:59Z"), Some(Timestamp::default()));
            for text in ["", "2025-11-23", "2025-11-23T20:33:20", "1763930000"] {
                assert_eq!(parse(text), None, "{text}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn midnight_is_never_now() {
        assert_eq!(Timestamp::from_millis(0).seconds_to_midnight(), 86_400);
        assert_eq!(Timestamp::from_millis(86_399_999).seconds_to_midnight(), 1);
    }
}
