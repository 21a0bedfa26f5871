use protocol::ObjectKey;

use crate::auth::Principal;
use crate::config::{ProtectedPrefixes, SweepRules};
use crate::spelling::{Name, Prefix};

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
        if self.protected.is_empty() && self.principal.may_delete_all() {
            return None;
        }
        let mut name = Name::new(key.as_str());
        if self.protected.protect(&mut name) {
            return Some(Forbidden::Protected);
        }
        (!self.principal.may_delete(&mut name)).then_some(Forbidden::NotAllowed)
    }

    /// Why what begins so may not be deleted, if it may not: because there can be a key so that could not be named.
    pub(crate) fn forbid_sweep(&self, prefix: &str) -> Option<Forbidden> {
        let prefix = Prefix::new(prefix.to_owned());
        if self.protected.overlap(&prefix) {
            return Some(Forbidden::Protected);
        }
        (!self.principal.may_sweep(&prefix)).then_some(Forbidden::NotAllowed)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use unicode_normalization::UnicodeNormalization;
    use unicode_normalization::char::canonical_combining_class;

    use super::*;
    use crate::auth::hex_digest;
    use crate::config::{Config, Settings};

    fn config(prefix: &str, protected: &str) -> Config {
        let token = json!({"name": "token", "sha256": hex_digest("token"), "prefixes": [prefix]});
        Config::parse(&Settings {
            api_tokens: Some(json!([token]).to_string()),
            protected_prefixes: Some(json!([protected]).to_string()),
            ..Settings::default()
        })
        .unwrap()
    }

    fn scope(config: &Config) -> Scope<'_> {
        let principal = config.tokens.authenticate(Some("Bearer token")).unwrap();
        Scope { principal, protected: &config.protected, sweeps: &config.sweeps }
    }

    fn nfc(text: &str) -> String {
        text.nfc().collect()
    }

    fn nfd(text: &str) -> String {
        text.nfd().collect()
    }

    /// Whether R2's object of the one name begins with the other.
    fn begins(key: &str, prefix: &str) -> bool {
        nfc(key).starts_with(&nfc(prefix))
    }

    /// Few characters, so that they meet: letters with and without marks, marks of several classes and some that are never one
    /// with a letter, what is another character in every form, some that no form writes as one, and a syllable and its parts.
    fn text(characters: std::ops::Range<usize>) -> impl Strategy<Value = String> {
        const CHARACTERS: [&str; 28] = [
            "e", "é", "ẹ", "ế", "/", "a", "K", ";", "`", "\u{300}", "\u{301}", "\u{302}", "\u{316}",
            "\u{323}", "\u{334}", "\u{338}", "\u{344}", "\u{345}", "\u{212A}", "\u{37E}", "\u{1FEF}",
            "\u{958}", "\u{AC00}", "\u{1100}", "\u{1161}", "\u{11A8}", "\u{304B}", "\u{3099}",
        ];
        let character = prop_oneof![1 => prop::sample::select(&CHARACTERS[..5]), 2 => prop::sample::select(&CHARACTERS[..])];
        prop::collection::vec(character, characters).prop_map(|characters| characters.concat())
    }

    /// The same text as somebody else may spell it.
    fn spelt(text: &str, how: u8) -> String {
        match how % 3 {
            0 => nfc(text),
            1 => nfd(text),
            _ => text.to_owned(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]

        #[test]
        fn what_a_key_begins_with_is_asked_of_the_object_and_not_of_its_spelling(
            (allowed, protected) in (text(1..4), text(1..4)),
            (by_allowed, rest) in (any::<bool>(), text(0..3)),
            how in any::<u8>(),
        ) {
            let config = config(&allowed, &protected);
            let name = spelt(&([if by_allowed { &allowed } else { &protected }, rest.as_str()].concat()), how);
            let Ok(key) = ObjectKey::parse(name.as_str()) else { return Ok(()) };
            let is_protected = begins(&name, &protected)
                || name.starts_with(&protected)
                || nfd(&name).starts_with(&nfd(&protected));
            let expected = if is_protected {
                Some(Forbidden::Protected)
            } else if begins(&name, &allowed) {
                None
            } else {
                Some(Forbidden::NotAllowed)
            };
            prop_assert_eq!(scope(&config).forbid(&key), expected, "{:?}", name.escape_unicode().to_string());
        }

        /// `prefix` begins as one of the two does, and is spelt otherwise, and so is what it finds.
        #[test]
        fn a_sweep_finds_nothing_that_is_protected_or_of_others_however_it_is_spelt(
            (allowed, protected) in (text(1..4), text(1..4)),
            (by_allowed, cut, rest) in (any::<bool>(), 0..4_usize, text(0..2)),
            (more, how) in (text(0..4), any::<u8>()),
        ) {
            let config = config(&allowed, &protected);
            let base = spelt(if by_allowed { &allowed } else { &protected }, how);
            let prefix = base.chars().take(cut).collect::<String>() + &rest;
            let found = prefix.clone() + &more;
            let forbidden = scope(&config).forbid_sweep(&prefix);
            if begins(&found, &protected) || found.starts_with(&protected) || nfd(&found).starts_with(&nfd(&protected)) {
                prop_assert_eq!(forbidden, Some(Forbidden::Protected), "{:?} {:?}", prefix, found);
            }
            // What goes on with a mark is another letter, where a token's prefix ends in one.
            let goes_on = more.chars().next().is_none_or(|first| first.is_ascii());
            if forbidden.is_none() && (goes_on || allowed.ends_with('/')) {
                prop_assert!(begins(&found, &allowed), "{:?} {:?}", prefix, found);
            }
        }

        /// A refusal is owed to a name that begins with both, or to marks behind the same letter.
        #[test]
        fn a_sweep_is_not_refused_for_what_is_protected_elsewhere(
            protected in text(1..4),
            prefix in text(0..4),
        ) {
            let config = config(&(prefix.clone() + "x"), &protected);
            let bare = |text: &str| nfd(text).chars().filter(|&c| canonical_combining_class(c) == 0).collect::<String>();
            let (one, other) = (bare(&prefix), bare(&protected));
            if !one.starts_with(&other) && !other.starts_with(&one) {
                prop_assert_eq!(scope(&config).forbid_sweep(&prefix), Some(Forbidden::NotAllowed));
            }
        }
    }
}
