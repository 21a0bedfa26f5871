use protocol::limits::DELETE_KEYS_MAX;
use protocol::{ObjectKey, R2Error, Timestamp};

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
}

/// The keys of one bulk delete: 1 to [`DELETE_KEYS_MAX`], which R2 demands and the local simulator does not check.
#[derive(Clone, Debug)]
pub struct DeleteCall<'a>(Vec<&'a ObjectKey<'a>>);

impl<'a> DeleteCall<'a> {
    /// A call for these keys; `None` when they are none, or more than one call takes.
    pub fn new(keys: impl IntoIterator<Item = &'a ObjectKey<'a>>) -> Option<Self> {
        let keys: Vec<_> = keys.into_iter().collect();
        (1..=DELETE_KEYS_MAX).contains(&keys.len()).then_some(Self(keys))
    }

    /// The keys, one at least.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &'a str> + '_ {
        self.0.iter().map(|key| key.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_1_to_1000_keys() {
        let keys: Vec<_> =
            (0..=DELETE_KEYS_MAX).map(|n| ObjectKey::parse(format!("k{n}")).unwrap()).collect();
        assert!(DeleteCall::new([]).is_none());
        assert_eq!(DeleteCall::new(&keys[..1]).unwrap().keys().len(), 1);
        assert_eq!(DeleteCall::new(&keys[1..]).unwrap().keys().len(), 1_000);
        assert!(DeleteCall::new(&keys).is_none());
    }
}
