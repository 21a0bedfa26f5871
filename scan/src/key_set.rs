use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use siphasher::sip128::SipHasher13;

/// A set of keys, as hashes of 128 bits: the keys themselves could be 16 MB.
///
/// Two keys of one hash would be taken for one, and the second would not be deleted. With `SipHash` under a secret that is drawn
/// for each request nobody can look for such keys, and among 100,000 there are two by chance in one request of 7 * 10^28
/// (100,000² / 2^129).
#[derive(Debug)]
pub struct KeySet {
    hasher: SipHasher13,
    hashes: HashSet<u128, BuildHasherDefault<FirstBits>>,
}

impl KeySet {
    /// An empty set. `secret` is a random number that nobody else knows.
    pub fn new(secret: u128) -> Self {
        Self { hasher: SipHasher13::new_with_key(&secret.to_le_bytes()), hashes: HashSet::default() }
    }

    /// Makes room for so many keys: a set that grows hashes what it has again and again.
    pub fn reserve(&mut self, keys: usize) {
        self.hashes.reserve(keys);
    }

    /// Adds a key; `false` when it was there before.
    #[inline(never)]
    pub fn insert(&mut self, key: &str) -> bool {
        self.hashes.insert(self.hash(key))
    }

    /// Whether a key is in it.
    pub fn contains(&self, key: &str) -> bool {
        self.hashes.contains(&self.hash(key))
    }

    fn hash(&self, key: &str) -> u128 {
        self.hasher.hash(key.as_bytes()).as_u128()
    }
}

/// What is a hash already is not hashed again.
#[derive(Debug, Default)]
struct FirstBits(u64);

impl Hasher for FirstBits {
    fn write_u128(&mut self, hash: u128) {
        // OK because the other half is as random.
        #[expect(clippy::cast_possible_truncation, reason = "half of the bits are plenty to find a place by")]
        let bits = hash as u64;
        self.0 = bits;
    }

    fn write(&mut self, _: &[u8]) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
