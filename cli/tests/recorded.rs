//! What `tail` makes of recorded output; `recorded/README.md` says where that is from.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{fs, path::PathBuf};

use cli::tail::{Show, Watch};
use proptest::prelude::*;
use protocol::{Severity, Timestamp};

const RECORDINGS: [&str; 3] = ["demo.log", "faults.log", "tail.json"];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(name)
}

fn recorded(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap()
}

/// All that is printed for `bytes` in pieces of `size`.
fn printed(show: Show, bytes: &[u8], size: usize) -> String {
    // The local runtime says no time.
    let now = Timestamp::from_millis(1_795_528_000_000);
    let mut watch = Watch::new(show, 1);
    let mut lines: Vec<_> = bytes.chunks(size.max(1)).flat_map(|piece| watch.push(0, piece, now)).collect();
    lines.extend(watch.end(0, now));
    let lines = lines.into_iter().map(|line| line.text);
    let all = lines.chain(watch.summary()).map(|line| line + "\n").collect::<String>();
    format!("{all}exit code {}\n", watch.exit_code())
}

fn show(json: bool) -> Show {
    Show { json, from: Some(Severity::Info), until: None }
}

#[test]
fn recorded_output_is_shown_as_it_was_before() {
    for name in RECORDINGS {
        for (json, extension) in [(false, "txt"), (true, "jsonl")] {
            let expected = path(name).with_extension(extension);
            let printed = printed(show(json), &recorded(name), usize::MAX);
            if std::env::var_os("UPDATE_RECORDED").is_some() {
                fs::write(&expected, &printed).unwrap();
            }
            assert_eq!(printed, fs::read_to_string(&expected).unwrap(), "{name}");
        }
    }
}

/// Whatever a script reads is JSON, flat, and says when and where.
#[test]
fn every_line_for_a_script_is_a_flat_object_and_the_last_is_the_summary() {
    for name in RECORDINGS {
        let printed = printed(show(true), &recorded(name), usize::MAX);
        let lines: Vec<_> = printed.lines().collect();
        let (_exit_code, lines) = lines.split_last().unwrap();
        let (summary, events) = lines.split_last().unwrap();
        for line in events {
            let event: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
            assert!(event.values().all(|value| !value.is_object() && !value.is_array()), "{line}");
            assert!(
                ["event", "time", "worker", "severity"].iter().all(|field| event.contains_key(*field)),
                "{line}"
            );
        }
        let summary: serde_json::Value = serde_json::from_str(summary).unwrap();
        assert_eq!(summary["event"], "summary");
        assert_eq!(summary["events"], events.len());
    }
}

#[test]
fn a_level_leaves_out_what_is_less_loud_and_no_count() {
    let bytes = recorded("faults.log");
    let at = |from| printed(Show { from, ..show(false) }, &bytes, usize::MAX);
    let lines = |text: &str, word: &str| text.lines().filter(|line| line.contains(word)).count();
    let (all, warnings, errors, quiet) =
        (at(Some(Severity::Info)), at(Some(Severity::Warn)), at(Some(Severity::Error)), at(None));
    assert_eq!(lines(&warnings, "  WARN   "), lines(&all, "  WARN   "));
    assert_eq!(lines(&errors, "  ERROR  "), lines(&all, "  ERROR  "));
    assert_eq!(lines(&warnings, "batch.processed") + lines(&errors, "  WARN   ") + lines(&quiet, "ERROR"), 0);
    assert!(all.ends_with(&quiet) && warnings.ends_with(&quiet) && errors.ends_with(&quiet));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_recording_is_shown_alike_however_it_comes(name in prop::sample::select(&RECORDINGS), size in 1_usize..9_000) {
        let bytes = recorded(name);
        // What is read again and again, until a value is whole, would take long in tiny pieces.
        let bytes = &bytes[..bytes.len().min(size * 200)];
        prop_assert_eq!(printed(show(true), bytes, size), printed(show(true), bytes, usize::MAX));
    }

    #[test]
    fn no_recording_that_was_damaged_is_too_much(
        name in prop::sample::select(&RECORDINGS),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        json in any::<bool>(),
    ) {
        let mut bytes = recorded(name);
        for (index, byte) in damage {
            let length = bytes.len();
            bytes[index.index(length)] = byte;
        }
        printed(show(json), &bytes, 4_096);
    }
}

proptest! {
    #[test]
    fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..400), json in any::<bool>()) {
        let printed = printed(show(json), &bytes, 7);
        prop_assert!(printed.ends_with("exit code 1\n"), "{}", printed);
    }
}
