//! A bucket in memory.

use std::cell::RefCell;
use std::collections::BTreeMap;

use consumer::{Bucket, DeleteCall, ListCall, Listing};
use ledger::ListedObject;
use protocol::{ObjectKey, R2Error, Timestamp};

/// How the keys begin that a lock rule is on.
pub(crate) const LOCKED: &str = "a/locked/";

/// Objects, and when each was uploaded.
#[derive(Default)]
pub(crate) struct Objects(RefCell<BTreeMap<String, Timestamp>>);

impl Objects {
    pub(crate) fn put(&self, key: &str, uploaded_at: Timestamp) {
        self.0.borrow_mut().insert(key.to_owned(), uploaded_at);
    }

    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.borrow().contains_key(key)
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.0.borrow().keys().cloned().collect()
    }
}

impl Bucket for Objects {
    async fn delete(&self, call: DeleteCall<'_>) -> Result<(), R2Error> {
        if call.keys().any(|key| key.starts_with(LOCKED)) {
            return Err(R2Error::ObjectLocked);
        }
        let mut objects = self.0.borrow_mut();
        for key in call.keys() {
            objects.remove(key);
        }
        Ok(())
    }

    async fn uploaded_at(&self, key: &ObjectKey<'_>) -> Result<Option<Timestamp>, R2Error> {
        Ok(self.0.borrow().get(key.as_str()).copied())
    }

    async fn list(&self, call: &ListCall<'_>) -> Result<Listing, R2Error> {
        let objects = self.0.borrow();
        let is_ahead =
            |key: &str| key.starts_with(call.prefix) && call.start_after.is_none_or(|after| key > after);
        let mut ahead = objects.iter().filter(|(key, _)| is_ahead(key));
        let listed = ahead.by_ref().take(call.limit).map(|(key, &uploaded_at)| ListedObject {
            key: key.clone(),
            size: 1,
            uploaded_at,
        });
        let objects = listed.collect();
        Ok(Listing { objects, groups: Vec::new(), truncated: ahead.next().is_some() })
    }
}
