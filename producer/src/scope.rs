use protocol::ObjectKey;

use crate::auth::Principal;
use crate::config::{ProtectedPrefixes, SweepRules};

/// What somebody may delete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    /// Who asks.
    pub(crate) principal: Principal<'a>,
    /// What nobody may delete.
    pub(crate) protected: &'a ProtectedPrefixes,
    /// What may be deleted by its beginning.
    pub(crate) sweeps: &'a SweepRules,
}

/// Why a key may not be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forbidden {
    /// By anybody.
    Protected,
    /// By this token.
    NotAllowed,
}

impl Scope<'_> {
    /// Why the key may not be deleted, if it may not.
    pub(crate) fn forbid(&self, key: &ObjectKey<'_>) -> Option<Forbidden> {
        if self.protected.protect(key) {
            return Some(Forbidden::Protected);
        }
        (!self.principal.may_delete(key)).then_some(Forbidden::NotAllowed)
    }

    /// Why what begins so may not be deleted, if it may not: because there can be a key so that could not be named.
    pub(crate) fn forbid_sweep(&self, prefix: &str) -> Option<Forbidden> {
        if self.protected.overlap(prefix) {
            return Some(Forbidden::Protected);
        }
        (!self.principal.may_sweep(prefix)).then_some(Forbidden::NotAllowed)
    }
}

impl Forbidden {
    /// What the caller is told about the key.
    pub(crate) fn detail(self) -> &'static str {
        match self {
            Self::Protected => "the key is protected",
            Self::NotAllowed => "the key begins with none of the token's prefixes",
        }
    }

    /// What the caller is told about the prefix.
    pub(crate) fn detail_of_prefix(self) -> &'static str {
        match self {
            Self::Protected => {
                "what begins so is protected, all or a part of it: it is refused as a whole, no sweep goes around that"
            }
            Self::NotAllowed => "the prefix begins with none of the token's prefixes",
        }
    }
}
