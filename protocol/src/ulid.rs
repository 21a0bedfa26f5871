//! ULIDs in lower case: 26 characters of Crockford's base 32, the first ten the time in milliseconds, the others random.
//!
//! Our own because the crate `ulid` brings JavaScript's clock into every wasm32 build, and this crate knows no platform.

use crate::Timestamp;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 26;
const RANDOM_BITS: u32 = 80;

/// The ULID of this time and the lower 80 bits of `random`.
pub(crate) fn to_ulid(now: Timestamp, random: u128) -> String {
    let random = random & ((1 << RANDOM_BITS) - 1);
    // OK because the time has 48 bits until the year 10889.
    let bits = u128::from(now.as_millis()) << RANDOM_BITS | random;
    (0..LENGTH)
        .rev()
        .filter_map(|place| ALPHABET.get(usize::try_from(bits >> (place * 5) & 31).ok()?))
        .map(|&digit| char::from(digit))
        .collect()
}

/// Whether `text` is a ULID as [`to_ulid`] writes it: one spelling for each.
pub(crate) fn is_ulid(text: &str) -> bool {
    let bytes = text.as_bytes();
    // 26 digits hold 130 bits: the first is at most 7.
    bytes.len() == LENGTH
        && bytes.first().is_some_and(|first| first <= &b'7')
        && bytes.iter().all(|byte| ALPHABET.contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification, ulid/spec.
    #[test]
    fn a_ulid_is_as_its_specification_says() {
        let random = 0x3d9f_a1b2_c3d4_e5f6_0718;
        let ulid = to_ulid(Timestamp::from_millis(1_469_918_176_385), random);
        assert_eq!(&ulid[..10], "01aryz6s41");
        assert!(is_ulid(&ulid));
        assert_eq!(to_ulid(Timestamp::from_millis((1 << 48) - 1), u128::MAX), "7zzzzzzzzzzzzzzzzzzzzzzzzz");
        assert_eq!(to_ulid(Timestamp::from_millis(0), 0), "0".repeat(26));
        assert_eq!(to_ulid(Timestamp::from_millis(0), 31), format!("{}z", "0".repeat(25)));
    }

    #[test]
    fn nothing_else_is_a_ulid() {
        let no = |text: &str| assert!(!is_ulid(text), "{text}");
        ["", "0", "7", "01ARYZ6S41TSV4RRFFQ69G5FAV", "8zzzzzzzzzzzzzzzzzzzzzzzzz"].into_iter().for_each(no);
        ["01aryz6s41tsv4rrffq69g5fai", "01aryz6s41tsv4rrffq69g5fa", "01aryz6s41tsv4rrffq69g5fav0"]
            .into_iter()
            .for_each(no);
        no("01aryz6s41tsv4rrffq69g5fé");
    }
}
