//! JSON strings that need no escape, as nearly every key is: found and written many bytes at a time.
//!
//! What looks at every byte of every key is here and nowhere else: a crate of its own is compiled for speed where everything
//! else is for size (`Cargo.toml`). Nothing here has an opinion on JSON beyond that: what is not found to be plain, right or wrong,
//! is for serde to read.

mod key_set;

use std::fmt;

pub use key_set::KeySet;

/// How many bytes are looked at together: a vector, where the machine has them.
const LANES: usize = 16;

/// How many bytes have a bit each in one number.
const BLOCK: usize = 64;

/// Which of some bytes JSON must write as an escape, the first in the lowest bit: quotes, backslashes and control characters.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[inline]
fn escaped(at: &[u8; LANES]) -> u16 {
    use core::arch::wasm32::{i8x16_bitmask, u8x16, u8x16_eq, u8x16_lt, u8x16_splat, v128_or};
    // One load, as the compiler sees.
    let bytes = u8x16(
        at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8], at[9], at[10], at[11], at[12], at[13],
        at[14], at[15],
    );
    let control = u8x16_lt(bytes, u8x16_splat(0x20));
    let quote = u8x16_eq(bytes, u8x16_splat(b'"'));
    let backslash = u8x16_eq(bytes, u8x16_splat(b'\\'));
    i8x16_bitmask(v128_or(control, v128_or(quote, backslash)))
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
fn escaped(chunk: &[u8; LANES]) -> u16 {
    let bit = |(at, &byte): (usize, &u8)| u16::from(is_escaped(byte)) << at;
    chunk.iter().enumerate().map(bit).fold(0, |bits, bit| bits | bit)
}

/// Whether JSON must write a byte of a text as an escape.
const fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// The same for a block.
#[inline]
fn escaped_in(block: &[u8; BLOCK]) -> u64 {
    let (chunks, _) = block.as_chunks::<LANES>();
    chunks.iter().rev().fold(0, |bits, chunk| bits << LANES | u64::from(escaped(chunk)))
}

/// A text that is in a JSON string as it is: without a quote, a backslash and a control character.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Plain<'a>(&'a str);

impl<'a> Plain<'a> {
    /// The text as one, if it is.
    #[inline(never)]
    pub fn of(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        let is_plain = match bytes.last_chunk() {
            // The last of them twice, rather than the rest of them one by one.
            Some(last) => bytes.as_chunks().0.iter().chain([last]).all(|chunk| escaped(chunk) == 0),
            None => !bytes.iter().any(|&byte| is_escaped(byte)),
        };
        is_plain.then_some(Self(text))
    }

    /// The text.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Appends it as a JSON string.
    #[inline(never)]
    pub fn append_to(self, json: &mut String) {
        json.reserve(self.0.len() + 2);
        json.push('"');
        json.push_str(self.0);
        json.push('"');
    }
}

impl fmt::Debug for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plain({} bytes)", self.0.len())
    }
}

/// The strings of a JSON array, if each of them is plain. They are keys, so `Debug` shows none.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainStrings<'a> {
    /// The first of them, without their quotes: no more than were asked for.
    pub first: Vec<Plain<'a>>,
    /// How many there are.
    pub count: usize,
    /// What follows the bracket that closes the array.
    pub rest: &'a str,
}

impl fmt::Debug for PlainStrings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlainStrings({} of {})", self.first.len(), self.count)
    }
}

/// Reads what follows the bracket that opens a JSON array, up to the one that closes it; `None` where anything but plain
/// strings is in it, right or wrong.
#[inline(never)]
pub fn plain_strings(json: &str, most: usize) -> Option<PlainStrings<'_>> {
    let bytes = json.as_bytes();
    let (mut first, mut count) = (Vec::with_capacity(most.min(json.len() / 40)), 0);
    let mut start = space(bytes, 0);
    match bytes.get(start) {
        Some(b'"') => {}
        Some(b']') => return Some(PlainStrings { first, count, rest: json.get(start + 1..)? }),
        _ => return None,
    }
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let mut last = [0; BLOCK];
    last.get_mut(..rest.len())?.copy_from_slice(rest);
    for (number, block) in blocks.iter().chain([&last]).enumerate() {
        let mut escaped = escaped_in(block);
        while escaped != 0 {
            let end = number * BLOCK + escaped.trailing_zeros() as usize;
            escaped &= escaped - 1;
            // What opens the string, or is before it.
            if end <= start {
                continue;
            }
            if bytes.get(end) != Some(&b'"') {
                return None;
            }
            if count < most {
                first.push(Plain(json.get(start + 1..end)?));
            }
            count += 1;
            let next = space(bytes, end + 1);
            match bytes.get(next) {
                Some(b',') => start = space(bytes, next + 1),
                Some(b']') => return Some(PlainStrings { first, count, rest: json.get(next + 1..)? }),
                _ => return None,
            }
            if bytes.get(start) != Some(&b'"') {
                return None;
            }
        }
    }
    None
}

/// Where the space ends that begins at `at`, if any does.
#[inline]
fn space(json: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = json.get(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is plain, and next to it what is not; long enough for several blocks.
    fn text() -> impl Strategy<Value = String> {
        "([a-z/]{0,40}|[\\x00-\\x30\\x5b-\\x5d\\x7f]|\\PC){0,9}"
    }

    proptest! {
        #[test]
        fn a_text_is_plain_just_when_serde_writes_it_as_it_is(text in text()) {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(Plain::of(&text).is_some(), json == format!("\"{text}\""));
        }

        #[test]
        fn strings_are_found_where_serde_finds_them(
            texts in prop::collection::vec(prop_oneof![9 => "[a-z/é]{0,90}", 1 => text()], 0..9),
            spaces in prop::collection::vec("[ \t\n\r]{0,2}", 20),
            most in 0_usize..9,
            rest in "[\\]},a\" ]{0,5}",
        ) {
            let mut spaces = spaces.iter();
            let mut space = || spaces.next().unwrap().as_str();
            let json: Vec<String> = texts
                .iter()
                .map(|text| [space(), &serde_json::to_string(text).unwrap(), space()].concat())
                .collect();
            let found = format!("{}{}]{rest}", space(), json.join(","));
            let are_plain = texts.iter().all(|text| Plain::of(text).is_some());
            let first = texts.iter().take(most).map(|text| Plain(text)).collect();
            let expected = PlainStrings { first, count: texts.len(), rest: &rest };
            prop_assert_eq!(plain_strings(&found, most), are_plain.then_some(expected));
        }

        #[test]
        fn whatever_it_reads_serde_reads_alike(json in "([\"\\[\\],a \\n\\\\\\x00]|\"[a-c]{0,70}\"){0,12}") {
            let Some(found) = plain_strings(&json, usize::MAX) else { return Ok(()) };
            let array = format!("[{}", json.strip_suffix(found.rest).unwrap());
            prop_assert_eq!(serde_json::from_str::<Vec<&str>>(&array).unwrap(), found.first.iter().map(|text| text.as_str()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn each_byte_is_seen_wherever_it_is() {
        for byte in 0..=0x7f_u8 {
            for at in 0..150 {
                let mut text = vec![b'x'; 150];
                text[at] = byte;
                let text = String::from_utf8(text).unwrap();
                assert_eq!(Plain::of(&text).is_some(), !is_escaped(byte), "{byte} at {at}");
                let found = plain_strings(&format!("\"{text}\"]"), 1).map(|found| found.count);
                assert_eq!(found, (!is_escaped(byte)).then_some(1), "{byte} at {at}");
            }
        }
    }

    #[test]
    fn what_is_no_array_of_strings_is_not_read() {
        for json in [
            "",
            " ",
            "\"",
            "\"a",
            "\"a\"",
            "\"a\",",
            "\"a\",]",
            ",]",
            "1]",
            "\"a\"1]",
            "\"a\" \"b\"]",
            "[]",
            "\"a\",1,\"b\"]",
        ] {
            assert_eq!(plain_strings(json, 9), None, "{json}");
        }
    }
}
