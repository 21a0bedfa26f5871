use protocol::ObjectKey;

use crate::auth::Principal;
use crate::config::ProtectedPrefixes;

/// What somebody may delete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    /// Who asks.
    pub(crate) principal: Principal<'a>,
    /// What nobody may delete.
    pub(crate) protected: &'a ProtectedPrefixes,
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
}

impl Forbidden {
    /// What the caller is told about the key.
    pub(crate) fn detail(self) -> &'static str {
        match self {
            Self::Protected => "the key is protected",
            Self::NotAllowed => "the key begins with none of the token's prefixes",
        }
    }
}
