use std::mem;

use protocol::limits::KEY_BYTES_MAX;
use scan::Plain;

/// Longest line, in bytes: no key is longer, all of it escaped (`\u00e9`), quoted and with some space around.
const LINE_BYTES_MAX: usize = KEY_BYTES_MAX * 6 + 100;

/// Cuts what has been read of an NDJSON body into its lines. Of a line that is not whole yet it leaves no more in memory than
/// a key can be long.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// How many lines have been taken.
    taken: usize,
    /// The beginning of the line at hand was too long, and is thrown away.
    is_too_long: bool,
}

/// A line, by its number from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// What is on it; not empty.
    Text(usize, &'a str),
    /// A string is on it that needs no escape; without its quotes.
    Plain(usize, Plain<'a>),
    /// It is no text: a line is looked at alone, so that its number is known.
    NotUtf8(usize),
    /// It is longer than any key.
    TooLong(usize),
}

impl Lines {
    /// The whole lines of `bytes` that have something on them.
    pub(crate) fn whole<'l>(&'l mut self, bytes: &'l [u8]) -> LinesOf<'l> {
        LinesOf { lines: self, bytes, read: 0, ends: false }
    }

    /// The same where nothing follows `bytes`: no line feed has to follow the last line.
    pub(crate) fn rest<'l>(&'l mut self, bytes: &'l [u8]) -> LinesOf<'l> {
        LinesOf { lines: self, bytes, read: 0, ends: true }
    }

    /// Throws away what cannot become a key, of the beginning of a line that is left.
    pub(crate) fn shorten(&mut self, rest: &mut Vec<u8>) {
        if rest.len() > LINE_BYTES_MAX {
            self.is_too_long = true;
            rest.clear();
        }
    }

    fn take<'b>(&mut self, line: &'b [u8]) -> Option<Line<'b>> {
        self.taken += 1;
        if mem::take(&mut self.is_too_long) || line.len() > LINE_BYTES_MAX {
            return Some(Line::TooLong(self.taken));
        }
        match std::str::from_utf8(line) {
            Ok(text) => (!text.trim_ascii().is_empty()).then_some(Line::Text(self.taken, text)),
            Err(_) => Some(Line::NotUtf8(self.taken)),
        }
    }
}

/// The lines of some bytes.
pub(crate) struct LinesOf<'l> {
    lines: &'l mut Lines,
    bytes: &'l [u8],
    /// How many of the bytes have been read.
    read: usize,
    /// Nothing follows them.
    ends: bool,
}

impl LinesOf<'_> {
    /// How many of the bytes have been read.
    pub(crate) fn read(&self) -> usize {
        self.read
    }
}

impl<'l> Iterator for LinesOf<'l> {
    type Item = Line<'l>;

    fn next(&mut self) -> Option<Line<'l>> {
        loop {
            let rest = self.bytes.get(self.read..)?;
            let (line, read) = match rest.iter().position(|&byte| byte == b'\n') {
                Some(length) => (rest.get(..length)?, length + 1),
                None if mem::take(&mut self.ends) => (rest, rest.len()),
                None => return None,
            };
            self.read += read;
            if let Some(line) = self.lines.take(line) {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines of a body that comes in pieces of these lengths, and then in one.
    fn read(body: &[u8], pieces: &[usize]) -> Vec<(usize, Option<String>)> {
        let (mut lines, mut buffer, mut found) = (Lines::default(), Vec::new(), Vec::new());
        let mut note = |line: Line<'_>| match line {
            Line::Text(number, text) => found.push((number, Some(text.to_owned()))),
            Line::Plain(number, _) | Line::TooLong(number) | Line::NotUtf8(number) => {
                found.push((number, None));
            }
        };
        let mut left = body;
        for &piece in pieces.iter().chain(&[body.len()]) {
            let (piece, rest) = left.split_at(piece.min(left.len()));
            left = rest;
            buffer.extend_from_slice(piece);
            let mut whole = lines.whole(&buffer);
            whole.by_ref().for_each(&mut note);
            let read = whole.read();
            buffer.drain(..read);
            lines.shorten(&mut buffer);
            assert!(buffer.len() <= LINE_BYTES_MAX);
        }
        lines.rest(&buffer).for_each(note);
        found
    }

    #[test]
    fn lines_are_numbered_with_the_empty_ones_which_are_left_out() {
        let found = read(b"\n\"a\"\r\n \t\r\n\n\"b\"\n", &[]);
        assert_eq!(found, [(2, Some("\"a\"\r".to_owned())), (5, Some("\"b\"".to_owned()))]);
        assert_eq!(read(b"\"a\"", &[]), [(1, Some("\"a\"".to_owned()))]);
        assert!(read(b"", &[]).is_empty() && read(b"\n\n", &[1]).is_empty());
    }

    #[test]
    fn a_line_that_is_too_long_is_told_and_the_next_is_read() {
        let long = "x".repeat(LINE_BYTES_MAX);
        let body = format!("a\n{long}\n{long}x\nb\n{long}{long}");
        for pieces in [vec![], vec![7; 20_000], vec![4_000; 20]] {
            let found = read(body.as_bytes(), &pieces);
            let whole: Vec<_> = found.iter().map(|(number, text)| (*number, text.is_some())).collect();
            assert_eq!(whole, [(1, true), (2, true), (3, false), (4, true), (5, false)]);
        }
    }

    #[test]
    fn a_line_that_is_just_not_too_long_may_come_in_pieces() {
        let body = format!("{}\nb\n", "x".repeat(LINE_BYTES_MAX));
        for first in [LINE_BYTES_MAX - 1, LINE_BYTES_MAX, LINE_BYTES_MAX + 1] {
            let found = read(body.as_bytes(), &[first]);
            let whole: Vec<_> = found.iter().map(|(number, text)| (*number, text.is_some())).collect();
            assert_eq!(whole, [(1, true), (2, true)], "{first}");
        }
    }

    proptest! {
        #[test]
        fn it_makes_no_difference_in_what_pieces_a_body_comes(
            body in "([ab\"\r]{0,5}\n?){0,30}",
            pieces in prop::collection::vec(0_usize..9, 0..40),
        ) {
            let expected: Vec<_> = body
                .split('\n')
                .enumerate()
                .filter(|(_, line)| !line.trim().is_empty())
                .map(|(at, line)| (at + 1, Some(line.to_owned())))
                .collect();
            prop_assert_eq!(read(body.as_bytes(), &pieces), expected);
        }
    }
}
