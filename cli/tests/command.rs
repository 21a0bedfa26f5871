//! The command itself: what it reads, and what it ends with.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

fn recorded(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(name)).unwrap()
}

fn tail(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_r2-deletions"))
        .arg("tail")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // OK because it may have read enough.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

fn finished(id: &str, state: &str) -> String {
    format!(
        "{{ event: 'deletion.finished', deletion: '{id}', state: '{state}', failed: 0, severity: 'INFO' }}\n"
    )
}

#[test]
fn the_exit_code_says_what_a_person_must_look_at() {
    let well = "{ event: 'batch.processed', keys_deleted: 5, severity: 'INFO' }\n";
    assert_eq!(code(&tail(&[], well.as_bytes())), 0);
    assert_eq!(code(&tail(&[], &recorded("demo.log"))), 2);
    assert_eq!(code(&tail(&[], &recorded("faults.log"))), 3);
    for no_tail in ["", "hello\n", "{\"a\": 1}\n[1, 2]\n"] {
        let output = tail(&[], no_tail.as_bytes());
        assert_eq!((code(&output), output.stdout.len()), (1, 0), "{no_tail}");
    }
    assert_eq!(code(&tail(&["--no-such-option"], b"")), 1);
    assert_eq!(code(&tail(&["--until", "del_x"], b"")), 1);
    assert_eq!(code(&tail(&["--help"], b"")), 0);
}

#[test]
fn until_ends_with_its_deletion_and_says_how_that_ended() {
    let [id, other] = ["del_01m86xe64erm6t285878pgzp0n", "del_01m86xe5w9qpn81db82sc9j6nk"];
    for (state, expected) in [("succeeded", 0), ("planned", 0), ("failed", 2), ("cancelled", 4)] {
        let input = finished(other, "failed") + &finished(id, state) + &finished(other, "succeeded");
        let output = tail(&["--until", id], input.as_bytes());
        let said = String::from_utf8(output.stdout.clone()).unwrap();
        assert_eq!(code(&output), expected, "{said}");
        assert_eq!(said.matches("deletion.finished").count(), 2, "{said}");
    }
    assert_eq!(code(&tail(&["--until", id], finished(other, "succeeded").as_bytes())), 1);
}

#[test]
fn ctrl_c_ends_it_with_the_summary() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_r2-deletions"))
        .arg("tail")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Held open, as by a tail that goes on.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(finished("del_01m86xe64erm6t285878pgzp0n", "failed").as_bytes()).unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    stdout.read_line(&mut said).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    stdout.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2), "{said}");
    assert!(said.contains("finished: 1 failed"), "{said}");
}

#[test]
fn nothing_is_coloured_in_a_pipe() {
    let output = tail(&[], &recorded("faults.log"));
    assert!(!output.stdout.contains(&0x1b) && output.stderr.is_empty());
}

/// A folder with an `npx` that runs `script`, to be found before the true one.
fn path_with_npx(name: &str, script: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    let npx = folder.join("npx");
    fs::write(&npx, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&npx, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", folder.display(), env::var("PATH").unwrap())
}

fn tail_of_workers(path: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_r2-deletions"));
    command.args(["tail", "--worker", "one", "--worker", "two"]).args(arguments).env("PATH", path);
    command.output().unwrap()
}

#[test]
fn wrangler_is_started_for_each_worker_and_ended_with_the_deletion() {
    let id = "del_01m86xe64erm6t285878pgzp0n";
    // The second would go on for ever.
    let script = format!(
        "[ \"$*\" = \"--no-install wrangler tail $4 --format json\" ] || exit 9\n\
         if [ $4 = one ]; then sleep 0.2; echo \"{}\"; else echo \"{{ event: 'x.y', n: 1 }}\"; fi\n\
         exec sleep 600",
        finished(id, "succeeded").trim()
    );
    let output = tail_of_workers(&path_with_npx("npx-that-works", &script), &["--until", id]);
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(code(&output), 0, "{said}");
    assert!(said.contains("deletion.finished") && said.contains("x.y"), "{said}");
}

#[test]
fn a_wrangler_that_fails_ends_the_command() {
    let output = tail_of_workers(&path_with_npx("npx-that-fails", "echo 'not logged in' >&2; exit 1"), &[]);
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(code(&output), 1, "{said}");
    assert!(said.contains("not logged in") && said.contains("wrangler tail"), "{said}");
}
