use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::Target;

/// Written by hand, so that a search begins with something that is right.
const SEEDS: &str = "seeds";

/// What was found, as few and short as they can be.
const CORPUS: &str = "corpus";

/// Where the inputs of a target are: one a line, escaped as a byte string of Rust is, so that a person can read it.
fn path(folder: &str, target: Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(format!("{}.txt", target.name()))
}

/// The committed inputs of a target.
///
/// # Errors
///
/// When a file is not there, or a line of it is no escaped input.
pub fn read(target: Target) -> io::Result<Vec<Vec<u8>>> {
    let mut text = fs::read_to_string(path(SEEDS, target))?;
    text += &fs::read_to_string(path(CORPUS, target))?;
    let wrong =
        || io::Error::new(io::ErrorKind::InvalidData, "a line of the corpus is not escaped as it should be");
    text.lines().map(|line| unescape(line).ok_or_else(wrong)).collect()
}

/// How large the file of a target may be, in bytes: what is longer than the rest is left out first.
const FILE_BYTES_MAX: usize = 32_000;

/// Replaces the committed inputs of a target, in an order that does not depend on how they were found. Answers with
/// how many there are now.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write(target: Target, mut inputs: Vec<Vec<u8>>) -> io::Result<usize> {
    inputs.sort_by_key(|input| (input.len(), input.clone()));
    inputs.dedup();
    let (mut text, mut count) = (String::new(), 0);
    for input in &inputs {
        let line = escape(input) + "\n";
        if text.len() + line.len() > FILE_BYTES_MAX {
            break;
        }
        text.push_str(&line);
        count += 1;
    }
    fs::write(path(CORPUS, target), text)?;
    Ok(count)
}

/// One line for any bytes.
pub fn escape(input: &[u8]) -> String {
    input.escape_ascii().to_string()
}

/// The bytes of a line of [`escape`].
pub fn unescape(line: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = line.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&escaped, after) = rest.split_first()?;
        rest = after;
        bytes.push(match escaped {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                rest = rest.get(2..)?;
                u8::from_str_radix(digits, 16).ok()?
            }
            b'\\' | b'"' | b'\'' => escaped,
            _ => return None,
        });
    }
    Some(bytes)
}
