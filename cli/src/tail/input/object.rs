//! A flat object as Node shows it to a person: no JSON, and no library reads it.

use serde_json::{Map, Number, Value};

/// What bytes begin with.
#[derive(Debug, PartialEq)]
pub(super) enum Parsed {
    /// An object, and how many bytes it has.
    Whole(Value, usize),
    /// What could be the beginning of one.
    Unfinished,
    /// Something else.
    Other,
}

/// Why an object was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The bytes have ended.
    Short,
    /// They are something else.
    Other,
}

/// Reads the object that `bytes` begin with. Only flat ones: those of the log are.
pub(super) fn parse_object(bytes: &[u8]) -> Parsed {
    let mut cursor = Cursor { rest: bytes };
    match cursor.object() {
        Ok(object) => Parsed::Whole(Value::Object(object), bytes.len() - cursor.rest.len()),
        Err(Stop::Short) => Parsed::Unfinished,
        Err(Stop::Other) => Parsed::Other,
    }
}

/// The length of the terminal's colour that `bytes` begin with, or 0.
pub(super) fn colour_length(bytes: &[u8]) -> usize {
    let Some(parameters) = bytes.strip_prefix(b"\x1b[") else {
        return 0;
    };
    let length = parameters.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
    if parameters.get(length) == Some(&b'm') { length + 3 } else { 0 }
}

/// Reads on from the beginning of what is left.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    fn object(&mut self) -> Result<Map<String, Value>, Stop> {
        self.expect(b'{')?;
        let mut object = Map::new();
        while self.peek()? != b'}' {
            let name = self.name()?;
            self.expect(b':')?;
            let value = self.value()?;
            object.insert(name, value);
            match self.peek()? {
                b',' => self.expect(b',')?,
                b'}' => {}
                _ => return Err(Stop::Other),
            }
        }
        self.expect(b'}')?;
        Ok(object)
    }

    fn name(&mut self) -> Result<String, Stop> {
        match self.peek()? {
            b'\'' | b'"' => self.quoted(),
            _ => self.word(),
        }
    }

    fn value(&mut self) -> Result<Value, Stop> {
        if matches!(self.peek()?, b'\'' | b'"' | b'`') {
            return self.text().map(Value::String);
        }
        match self.word()?.as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            "null" | "undefined" => Ok(Value::Null),
            number => number.parse::<Number>().map(Value::Number).map_err(|_| Stop::Other),
        }
    }

    /// Text of several lines is shown as `'one\n' +` and the next.
    fn text(&mut self) -> Result<String, Stop> {
        let mut text = self.quoted()?;
        while self.peek()? == b'+' {
            self.expect(b'+')?;
            self.peek()?;
            text.push_str(&self.quoted()?);
        }
        Ok(text)
    }

    fn quoted(&mut self) -> Result<String, Stop> {
        let quote = self.take()?;
        if !matches!(quote, b'\'' | b'"' | b'`') {
            return Err(Stop::Other);
        }
        let mut text = Vec::new();
        loop {
            match self.take()? {
                byte if byte == quote => break,
                // Shown as `\n`: this is a quote without an end, which must not swallow what follows.
                b'\n' => return Err(Stop::Other),
                b'\\' => text.push(self.escaped()?),
                byte => text.push(byte),
            }
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// What stands behind a backslash; of a character's number only the first letter, since none of ours has one.
    fn escaped(&mut self) -> Result<u8, Stop> {
        Ok(match self.take()? {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            byte => byte,
        })
    }

    fn word(&mut self) -> Result<String, Stop> {
        let is_part =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.' | b'-' | b'+');
        let length = self.rest.iter().take_while(|byte| is_part(byte)).count();
        let word = self.rest.get(..length).unwrap_or_default();
        self.rest = self.rest.get(length..).unwrap_or_default();
        match (word, self.rest) {
            (_, []) => Err(Stop::Short),
            ([], _) => Err(Stop::Other),
            (word, _) => Ok(String::from_utf8_lossy(word).into_owned()),
        }
    }

    /// The next byte that is neither blank nor a colour.
    fn peek(&mut self) -> Result<u8, Stop> {
        loop {
            let blank = self.rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let rest = self.rest.get(blank..).unwrap_or_default();
            let colour = colour_length(rest);
            self.rest = rest.get(colour..).unwrap_or_default();
            match self.rest.first() {
                None => return Err(Stop::Short),
                // It may be the beginning of a colour.
                Some(b'\x1b') if colour == 0 => return Err(self.broken_colour()),
                Some(&byte) if colour == 0 => return Ok(byte),
                Some(_) => {}
            }
        }
    }

    fn broken_colour(&self) -> Stop {
        let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b';');
        let behind = self.rest.get(1..).unwrap_or_default();
        let behind = behind.strip_prefix(b"[").unwrap_or(behind);
        if behind.iter().all(is_part) { Stop::Short } else { Stop::Other }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Stop> {
        if self.peek()? != byte {
            return Err(Stop::Other);
        }
        self.take().map(drop)
    }

    fn take(&mut self) -> Result<u8, Stop> {
        let (&first, rest) = self.rest.split_first().ok_or(Stop::Short)?;
        self.rest = rest;
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_reads_back_as_node_has_shown_it() {
        let shown = "{\n  event: 'ledger.failed',\n  'error.type': \"it's\",\n  ratio: -1.5,\n  is_over: true,\n  \
                     cause: 'D1_ERROR: no\\n' +\n    `such \\` 'table'`\n} behind";
        let expected = json!({
            "event": "ledger.failed", "error.type": "it's", "ratio": -1.5, "is_over": true,
            "cause": "D1_ERROR: no\nsuch ` 'table'",
        });
        assert_eq!(parse_object(shown.as_bytes()), Parsed::Whole(expected, shown.len() - 7));
    }

    #[test]
    fn what_is_cut_off_may_still_become_one_and_what_is_none_may_not() {
        let whole = "{ event: 'a', 'b.c': 12, d: 'x' +\n 'y' }";
        for length in 1..whole.len() {
            assert_eq!(parse_object(&whole.as_bytes()[..length]), Parsed::Unfinished, "{}", &whole[..length]);
        }
        for other in [
            "{ a }",
            "{ a: [ 1 ] }",
            "{ a: { b: 1 } }",
            "{ a: 1 b: 2 }",
            "{ 'a': x }",
            "{{",
            "[1]",
            "{ \x1bx }",
            "{ a: 'b\n",
        ] {
            assert_eq!(parse_object(other.as_bytes()), Parsed::Other, "{other}");
        }
    }
}
