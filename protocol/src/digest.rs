use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// A digest of keys, whatever their order: the sum of their SHA-256, taken as numbers in big-endian, modulo 2^256.
///
/// So chunks and pages can be digested by themselves, and whoever has the list of keys can check it in a line of any language. It
/// tells lists apart that differ by accident; it is no proof against somebody who chooses keys to match a sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// With one more key.
    #[must_use]
    pub fn with(self, key: &str) -> Self {
        self.plus(Self(Sha256::digest(key.as_bytes()).into()))
    }

    /// Of the keys of both.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        let mut carry = 0;
        for (byte, more) in self.0.iter_mut().zip(other.0).rev() {
            let sum = u16::from(*byte) + u16::from(more) + carry;
            carry = sum >> 8;
            *byte = sum.to_be_bytes()[1];
        }
        self
    }
}

impl fmt::Display for KeyDigest {
    /// 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for KeyDigest {
    type Err = InvalidKeyDigest;

    fn from_str(text: &str) -> Result<Self, InvalidKeyDigest> {
        let mut digest = Self::default();
        if text.len() != 64 {
            return Err(InvalidKeyDigest);
        }
        for (at, byte) in digest.0.iter_mut().enumerate() {
            let digits = text.get(at * 2..at * 2 + 2).ok_or(InvalidKeyDigest)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| InvalidKeyDigest)?;
        }
        Ok(digest)
    }
}

/// The text is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits")]
pub struct InvalidKeyDigest;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of<'a>(keys: impl IntoIterator<Item = &'a String>) -> KeyDigest {
        keys.into_iter().fold(KeyDigest::default(), |digest, key| digest.with(key))
    }

    /// Receipts are kept: `sum(int.from_bytes(sha256(key.encode()).digest()) for key in keys) % 2**256`, in Python.
    #[test]
    fn the_digest_is_the_sum_of_the_hashes() {
        assert_eq!(KeyDigest::default().to_string(), "0".repeat(64));
        let keys = ["a", "proj_42/é.jpg"].map(str::to_owned);
        assert_eq!(
            of(&keys[..1]).to_string(),
            "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
        );
        assert_eq!(of(&keys).to_string(), PYTHON);
        let most = KeyDigest([0xff; 32]);
        assert_eq!(most.plus(KeyDigest::default()), most);
        let one: KeyDigest = format!("{:064x}", 1).parse().unwrap();
        assert_eq!(most.plus(one), KeyDigest::default());
    }

    const PYTHON: &str = "7b122164e1de76bca6a1089f21c358ed44bf3f3bd183ee5d0540873d3a583a49";

    proptest! {
        #[test]
        fn neither_order_nor_division_matters_and_a_digest_reads_back(
            mut keys in prop::collection::vec(".{0,20}", 0..20),
            at in any::<prop::sample::Index>(),
        ) {
            let digest = of(&keys);
            let (first, rest) = keys.split_at(at.index(keys.len() + 1));
            prop_assert_eq!(of(first).plus(of(rest)), digest);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            keys.reverse();
            prop_assert_eq!(of(&keys), digest);
            keys.push("one more".to_owned());
            prop_assert_ne!(of(&keys), digest);
        }
    }

    #[test]
    fn nothing_else_is_a_digest() {
        for text in ["", "0", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"é".repeat(32)] {
            assert!(text.parse::<KeyDigest>().is_err(), "{text}");
        }
    }
}
