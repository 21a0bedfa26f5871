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

/// A [`Timestamp`] as RFC 3339 in UTC with milliseconds, as the API shows it.
///
/// Our own because `chrono` was 2 % of the producer's wasm for these two functions; the tests hold them to it.
pub mod rfc3339 {
    use super::Timestamp;
    use serde::Serializer;

    const DAY_MS: u64 = 86_400_000;
    /// Days of 400 years, after which the calendar repeats itself.
    const ERA_DAYS: u64 = 146_097;
    /// Days from the first of March of the year 0 to the epoch.
    const EPOCH_DAYS: u64 = 719_468;
    /// The end of the year 9999, after which a year has no four digits.
    const MILLIS_MAX: u64 = 253_402_300_799_999;

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
        let (date, rest) = text.split_at_checked(10)?;
        let (time, rest) = rest.strip_prefix(['T', 't'])?.split_at_checked(8)?;
        let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
        if !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
            return None;
        }
        let (millis, offset) = fraction(rest)?;
        let minutes = minutes(hour, minute)?;
        let seconds = minutes * 60 + below(second, 60)?;
        let local = days_and_era(year, month, day) * DAY_MS + seconds * 1_000 + millis;
        let utc = match offset.split_at_checked(1)? {
            ("Z" | "z", "") => local,
            ("+", east) => local.checked_sub(offset_millis(east)?)?,
            ("-", west) => local + offset_millis(west)?,
            _ => return None,
        };
        Some(Timestamp::from_millis(utc.saturating_sub((EPOCH_DAYS + ERA_DAYS) * DAY_MS)))
    }

    fn to_text(time: Timestamp) -> String {
        // Times that far away do not come from a clock; the epoch stands in for them rather than a panic.
        let millis = Some(time.as_millis()).filter(|&millis| millis <= MILLIS_MAX).unwrap_or_default();
        let (days, millis) = (millis / DAY_MS + EPOCH_DAYS, millis % DAY_MS);
        let (seconds, millis) = (millis / 1_000, millis % 1_000);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }

    /// The date that is so many days after the first of March of the year 0. The year begins in March here, so that a leap
    /// day is its last (<https://howardhinnant.github.io/date_algorithms.html>).
    fn civil(days: u64) -> (u64, u64, u64) {
        let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        (era * 400 + year_of_era + u64::from(month <= 2), month, day)
    }

    /// The other way round, and 400 years more, so that the first months of the year 0 have a number too.
    fn days_and_era(year: u64, month: u64, day: u64) -> u64 {
        let year = year + 400 - u64::from(month <= 2);
        let march_month = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * march_month + 2) / 5 + day - 1;
        let (era, year_of_era) = (year / 400, year % 400);
        era * ERA_DAYS + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year
    }

    fn days_of(year: u64, month: u64) -> u64 {
        match month {
            2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// Three numbers of so many digits.
    fn numbers(text: &str, separator: char, digits: [usize; 3]) -> Option<[u64; 3]> {
        let mut parts = text.split(separator);
        let mut number = |digits| parts.next().filter(|part: &&str| part.len() == digits).and_then(digits_of);
        let [first, second, third] = digits;
        let numbers = [number(first)?, number(second)?, number(third)?];
        parts.next().is_none().then_some(numbers)
    }

    fn digits_of(text: &str) -> Option<u64> {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
    }

    /// The milliseconds of a fraction of a second, if there is one, and what comes after it.
    fn fraction(text: &str) -> Option<(u64, &str)> {
        let Some(text) = text.strip_prefix('.') else { return Some((0, text)) };
        let end = text.find(|character: char| !character.is_ascii_digit())?;
        let (fraction, rest) = text.split_at_checked(end).filter(|(fraction, _)| !fraction.is_empty())?;
        let millis = fraction.bytes().chain([b'0', b'0']).take(3);
        Some((millis.fold(0, |millis, digit| millis * 10 + u64::from(digit - b'0')), rest))
    }

    fn offset_millis(text: &str) -> Option<u64> {
        let (hour, minute) =
            text.split_once(':').filter(|(hour, minute)| hour.len() == 2 && minute.len() == 2)?;
        minutes(digits_of(hour)?, digits_of(minute)?).map(|minutes| minutes * 60_000)
    }

    fn minutes(hour: u64, minute: u64) -> Option<u64> {
        Some(below(hour, 24)? * 60 + below(minute, 60)?)
    }

    fn below(number: u64, limit: u64) -> Option<u64> {
        Some(number).filter(|number| *number < limit)
    }

    #[cfg(test)]
    mod tests {
        use chrono::{DateTime, SecondsFormat};
        use proptest::prelude::*;

        use super::*;

        #[test]
        fn times_are_utc_with_milliseconds() {
            assert_eq!(to_text(Timestamp::from_millis(1_763_930_000_123)), "2025-11-23T20:33:20.123Z");
            assert_eq!(to_text(Timestamp::from_millis(u64::MAX)), "1970-01-01T00:00:00.000Z");
        }

        #[test]
        fn a_time_is_read_with_its_offset() {
            let time = Timestamp::from_millis(1_763_930_000_123);
            for text in [
                "2025-11-23T20:33:20.123Z",
                "2025-11-23t21:33:20.1239+01:00",
                "2025-11-23T15:03:20.123-05:30",
            ] {
                assert_eq!(parse(text), Some(time), "{text}");
            }
            for epoch in [
                "1970-01-01T00:00:00Z",
                "1969-12-31T23:59:59Z",
                "1970-01-01T00:59:59+01:00",
                "0000-01-01T00:00:00+23:59",
            ] {
                assert_eq!(parse(epoch), Some(Timestamp::from_millis(0)), "{epoch}");
            }
            for text in [
                "",
                "2025-11-23",
                "2025-11-23T20:33:20",
                "2025-11-23 20:33:20Z",
                "2025-11-23T20:33:20.Z",
                "2025-11-23T20:33:20.123",
                "2025-11-23T20:33:20+1:00",
                "2025-11-23T20:33:20+24:00",
                "2025-11-23T20:33:20Zz",
                "2025-02-29T00:00:00Z",
                "2100-02-29T00:00:00Z",
                "2025-13-01T00:00:00Z",
                "2025-00-01T00:00:00Z",
                "2025-01-00T00:00:00Z",
                "2025-01-01T24:00:00Z",
                "2025-01-01T00:60:00Z",
                "+025-01-01T00:00:00Z",
                "1763930000",
                "é025-01-01T00:00:00Z",
            ] {
                assert_eq!(parse(text), None, "{text}");
            }
        }

        /// The last day of the 400 years after which the calendar repeats itself: chance seldom draws it.
        #[test]
        fn the_leap_day_of_a_year_that_400_divides_is_the_29th_of_february() {
            for (millis, text) in [
                (68_169_600_000, "1972-02-29T00:00:00.000Z"),
                (951_782_400_000, "2000-02-29T00:00:00.000Z"),
                (951_868_800_000, "2000-03-01T00:00:00.000Z"),
                (13_574_563_200_000, "2400-02-29T00:00:00.000Z"),
            ] {
                assert_eq!(to_text(Timestamp::from_millis(millis)), text);
                assert_eq!(parse(text), Some(Timestamp::from_millis(millis)));
            }
        }

        proptest! {
            #[test]
            fn times_are_written_and_read_as_chrono_does(millis in 0..=MILLIS_MAX) {
                let text = to_text(Timestamp::from_millis(millis));
                let theirs = DateTime::from_timestamp_millis(i64::try_from(millis).unwrap()).unwrap();
                prop_assert_eq!(&text, &theirs.to_rfc3339_opts(SecondsFormat::Millis, true));
                prop_assert_eq!(parse(&text), Some(Timestamp::from_millis(millis)));
            }

            #[test]
            fn texts_are_read_as_chrono_does(
                (year, month, day) in (1971_u32..9999, 0_u32..14, 0_u32..33),
                (hour, minute, second) in (0_u32..25, 0_u32..61, 0_u32..60),
                offset in prop::sample::select(vec!["Z", "+00:00", "-23:59", "+05:30", "-00:01", "", "+5:30", "z"]),
                fraction in prop::sample::select(vec!["", ".1", ".12", ".123", ".123456789", "."]),
            ) {
                let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{offset}");
                let theirs = DateTime::parse_from_rfc3339(&text).ok().map(|time| time.timestamp_millis());
                prop_assert_eq!(parse(&text).map(Timestamp::as_millis), theirs.map(|millis| u64::try_from(millis).unwrap()), "{}", text);
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
