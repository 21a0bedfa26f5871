use std::fmt;

use ledger::ListedObject;
use protocol::limits::DELETE_KEYS_MAX;
use protocol::{ObjectKey, R2Error, Timestamp, keys_array};

/// The bucket, as far as deleting needs it.
pub trait Bucket {
    /// Deletes the objects of these keys. A key without an object counts as deleted.
    ///
    /// # Errors
    ///
    /// One error for the whole call, which names no key. Some, all or none of the objects may be gone then.
    fn delete(&self, call: DeleteCall<'_>) -> impl Future<Output = Result<(), R2Error>>;

    /// When the object under a key was uploaded, by R2's clock; `None` when there is no object.
    ///
    /// # Errors
    ///
    /// R2's error, or [`R2Error::Other`] when it does not say when: what is of no known age must not be taken for old.
    fn uploaded_at(&self, key: &ObjectKey<'_>) -> impl Future<Output = Result<Option<Timestamp>, R2Error>>;

    /// Lists objects, in the order of their keys' bytes.
    ///
    /// # Errors
    ///
    /// R2's error, or [`R2Error::Other`] when it does not say of an object when it was uploaded.
    fn list(&self, call: &ListCall<'_>) -> impl Future<Output = Result<Listing, R2Error>>;
}

/// Which objects are to be listed.
#[derive(Clone, Copy)]
pub struct ListCall<'a> {
    /// Those whose keys begin so.
    pub prefix: &'a str,
    /// Those that come after this key.
    pub start_after: Option<&'a str>,
    /// At most so many.
    pub limit: usize,
    /// What groups keys, by what they have before its first occurrence after the prefix.
    pub delimiter: Option<&'a str>,
}

/// Objects, as they were when they were listed.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The objects that are in no group.
    pub objects: Vec<ListedObject>,
    /// The beginnings of the groups, delimiter included, in order.
    pub groups: Vec<Group>,
    /// Whether there are more.
    pub truncated: bool,
}

/// What the keys of a group begin with. Keys are personal data, so `Debug` shows none.
#[derive(Clone, PartialEq, Eq)]
pub struct Group(pub String);

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({} bytes)", self.0.len())
    }
}

impl fmt::Debug for ListCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListCall({} of a prefix of {} bytes)", self.limit, self.prefix.len())
    }
}

/// The keys of one bulk delete: 1 to [`DELETE_KEYS_MAX`], which R2 demands and the local simulator does not check.
#[derive(Clone, Debug)]
pub struct DeleteCall<'a> {
    keys: &'a [ObjectKey<'a>],
    /// Each of them a key's.
    positions: &'a [usize],
    delivery: Option<usize>,
}

impl<'a> DeleteCall<'a> {
    /// A call for the keys at these positions; `None` when they are none, more than one call takes, or one of them is no key's.
    pub fn new(keys: &'a [ObjectKey<'a>], positions: &'a [usize]) -> Option<Self> {
        let are_keys = positions.iter().all(|&at| at < keys.len());
        let is_call = are_keys && (1..=DELETE_KEYS_MAX).contains(&positions.len());
        is_call.then_some(Self { keys, positions, delivery: None })
    }

    /// The same, where its keys are all those of the message that is the batch's delivery of this number.
    #[must_use]
    pub(crate) fn of_delivery(self, delivery: Option<usize>) -> Self {
        Self { delivery, ..self }
    }

    /// The number of the batch's delivery whose message has these keys and no other: who has that message parsed already need
    /// not write them down.
    pub fn delivery(&self) -> Option<usize> {
        self.delivery
    }

    /// The keys as a JSON array.
    pub fn keys_json(&self) -> String {
        keys_array(self.positions.iter().filter_map(|&at| self.keys.get(at)))
    }

    /// The keys, one at least.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &'a str> + '_ {
        self.positions.iter().map(|&at| self.keys.get(at).map_or("", ObjectKey::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_1_to_1000_keys() {
        let keys: Vec<_> =
            (0..=DELETE_KEYS_MAX).map(|n| ObjectKey::parse(format!("k{n}")).unwrap()).collect();
        let positions: Vec<_> = (0..keys.len()).collect();
        let beside = [0, keys.len()];
        let call = |positions| DeleteCall::new(&keys, positions);
        assert!(call(&[]).is_none());
        assert_eq!(call(&positions[..1]).unwrap().keys().len(), 1);
        assert_eq!(call(&positions[1..]).unwrap().keys().len(), 1_000);
        assert!(call(&positions).is_none());
        assert!(call(&beside).is_none());
        assert_eq!(call(&[7, 3]).unwrap().keys_json(), r#"["k7","k3"]"#);
    }
}
