//! Names that are the same, however they are spelt.
//!
//! R2 takes two names for the same that Unicode takes for the same, deletes the object by either, and lists it by the spelling
//! it was last uploaded under (docs: r2/reference/unicode-interoperability). So what a name begins with is asked of the name and
//! not of its bytes: of its NFC, which is one for all spellings. ASCII has one spelling, and is compared as it is.

use std::fmt;

/// A normalisation form of Unicode, by its name, and the first byte, in UTF-8, of the first character that it may write
/// otherwise.
type Form = (&'static str, u8);

/// From U+0300 on.
const NFC: Form = ("NFC", 0xCC);

/// From U+00C0 on.
const NFD: Form = ("NFD", 0xC3);

/// A text in this form.
fn normalized(text: &str, (form, first): Form) -> String {
    if text.bytes().all(|byte| byte < first) { text.to_owned() } else { normalize(text, form) }
}

/// The runtime has the tables, which are more than the Worker has room for.
#[cfg(target_arch = "wasm32")]
use crate::shell::normalize;

#[cfg(not(target_arch = "wasm32"))]
fn normalize(text: &str, form: &str) -> String {
    use unicode_normalization::UnicodeNormalization;
    if form == "NFC" { text.nfc().collect() } else { text.nfd().collect() }
}

/// A text in NFC: the same for all its spellings.
pub(crate) fn composed(text: &str) -> String {
    normalized(text, NFC)
}

/// A text in NFC and in NFD.
fn forms(text: &str) -> [String; 2] {
    [composed(text), normalized(text, NFD)]
}

/// A beginning of names, with all that is compared of it.
pub(crate) struct Prefix {
    text: String,
    nfc: String,
    nfd: String,
    /// How much of the NFD there is before the combining marks at its end, in bytes.
    stem: usize,
}

impl Prefix {
    pub(crate) fn new(text: String) -> Self {
        let [nfc, nfd] = forms(&text);
        let mut stem = nfd.len();
        while let Some(last) =
            nfd.get(..stem).and_then(|stem| stem.chars().next_back()).filter(|&last| is_mark(last))
        {
            stem -= last.len_utf8();
        }
        Self { text, nfc, nfd, stem }
    }

    /// What the NFD of every name begins with that has a spelling with this beginning, in bytes. The marks behind it may be
    /// shuffled with those of the name that follow.
    fn stem(&self) -> &[u8] {
        self.nfd.as_bytes().get(..self.stem).unwrap_or_default()
    }

    /// Whether this begins with the other in either form. What a listing compares is not documented.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.nfc.starts_with(other.nfc.as_str()) && self.nfd.starts_with(other.nfd.as_str())
    }

    /// Whether there can be a name that has a spelling with this beginning and one with the other. Says so of some for which
    /// there is none: of those that end in different marks.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let (short, long) = if self.stem <= other.stem { (self, other) } else { (other, self) };
        let ends_in_marks = short.stem < short.nfd.len();
        let next = long.nfd.get(short.stem..).and_then(|rest| rest.chars().next());
        long.stem().starts_with(short.stem()) && (!ends_in_marks || next.is_none_or(is_mark))
    }
}

impl fmt::Debug for Prefix {
    /// Shows nothing: it is a part of keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prefix")
    }
}

/// A name, with what is compared of it as far as that was needed.
pub(crate) struct Name<'n> {
    text: &'n str,
    /// What it begins with in every form.
    stable: &'n str,
    forms: Option<[String; 2]>,
}

impl<'n> Name<'n> {
    pub(crate) fn new(text: &'n str) -> Self {
        // The last before a character that is not ASCII may be one with it in NFC.
        let stable = if text.is_ascii() {
            text
        } else {
            let ascii = text.bytes().take_while(u8::is_ascii).count();
            text.get(..ascii.saturating_sub(1)).unwrap_or_default()
        };
        Self { text, stable, forms: None }
    }

    /// Whether the name begins so.
    pub(crate) fn is_within(&mut self, prefix: &Prefix) -> bool {
        self.begins_with(&prefix.nfc, false)
    }

    /// Whether the name begins so, or as it is written, or in NFD.
    pub(crate) fn may_be_within(&mut self, prefix: &Prefix) -> bool {
        self.is_within(prefix)
            || self.text.starts_with(prefix.text.as_str())
            || self.begins_with(&prefix.nfd, true)
    }

    /// Asks the runtime only where what is the same in every form does not tell.
    fn begins_with(&mut self, prefix: &str, in_nfd: bool) -> bool {
        if self.stable.starts_with(prefix) {
            return true;
        }
        if self.stable.len() == self.text.len() || !prefix.starts_with(self.stable) {
            return false;
        }
        let [nfc, nfd] = self.forms.get_or_insert_with(|| forms(self.text));
        (if in_nfd { nfd } else { nfc }).starts_with(prefix)
    }
}

/// Whether a character of an NFD is one that is sorted among its like, behind the character that it belongs to. The first mark
/// of the last class before it, and one of the first class behind it, stay where they are only around another.
fn is_mark(character: char) -> bool {
    if character < '\u{300}' {
        return false;
    }
    let mut around = "\u{345}".to_owned();
    around.push(character);
    around.push('\u{334}');
    normalized(&around, NFD) != around
}

#[cfg(test)]
mod tests {
    use unicode_normalization::UnicodeNormalization;
    use unicode_normalization::char::canonical_combining_class;

    use super::*;

    #[test]
    fn every_character_is_normalised_and_told_from_a_mark_as_unicode_says() {
        // Beyond there is no character that Unicode writes otherwise. Behind another it may be one with it.
        for character in '\0'..='\u{2FFFF}' {
            for text in [String::from(character), format!("e{character}"), format!("K{character}")] {
                assert_eq!(
                    normalized(&text, NFC),
                    text.nfc().collect::<String>(),
                    "{}",
                    text.escape_unicode()
                );
                assert_eq!(
                    normalized(&text, NFD),
                    text.nfd().collect::<String>(),
                    "{}",
                    text.escape_unicode()
                );
            }
            for part in String::from(character).nfd() {
                assert_eq!(is_mark(part), canonical_combining_class(part) != 0, "{}", part.escape_unicode());
            }
        }
    }

    #[test]
    fn beginnings_meet_where_a_name_can_have_both() {
        for (one, other, meet) in [
            ("cafe", "café/", true),
            ("cafe\u{301}", "café/", true),
            ("cafés", "café/", false),
            ("cafe/", "café/", false),
            // With U+0323 behind it the first begins as the second does.
            ("é", "ẹ\u{301}/", true),
            ("é", "exports/", false),
            ("é", "e", true),
            ("", "é", true),
            ("\u{212A}/", "K/a", true),
            ("\u{212A}/", "k/", false),
            ("日本/", "日", true),
            ("日本/", "日木/", false),
        ] {
            let [one, other] = [one, other].map(|text| Prefix::new(text.to_owned()));
            assert_eq!((one.meets(&other), other.meets(&one)), (meet, meet), "{} {}", one.text, other.text);
        }
    }

    #[test]
    fn debug_output_shows_no_part_of_a_key() {
        assert!(!format!("{:?}", Prefix::new("alice/é".to_owned())).contains("alice"));
    }
}
