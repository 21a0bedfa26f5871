//! `docs/api.md` is true: its `console` blocks are run in order, and every answer is the one that is shown.
//!
//! A line that begins with `$ ` is a command for bash, with `$URL` and `$TOKEN`; one that ends in `\` goes on in the next. One
//! that is no call of curl is run before each that follows, so that its variables are there. What stands below a call is
//! what it answers: the body, as JSON or lines of JSON, and with `curl -i` the status and headers before
//! it, of which only those that matter need be shown. Ids, page tokens and times may be others, ids as long as the same
//! one is the same everywhere: so the id of an answer can be in a later command. What takes time is asked for until it is as
//! shown. Where nothing is shown the call must succeed. The `console` blocks of the other pages are run in the same way.
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use e2e::pages::{Step, steps};
use e2e::{Pair, eventually};
use protocol::{Fence, ObjectKey, Timestamp, pack_keys};
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::project::{Project, Worker};
use xtask::stack::Message;

fn page(name: &str) -> Result<String> {
    Ok(fs::read_to_string(Project::locate()?.root().join("docs").join(name))?)
}

fn description() -> Result<Value> {
    let file = Project::locate()?.worker_crate(Worker::Producer).join("assets/openapi.json");
    Ok(serde_json::from_str(&fs::read_to_string(file)?)?)
}

/// What a call has printed, and what it was.
#[derive(Debug)]
struct Call {
    printed: String,
    method: String,
    path: String,
    status: u16,
}

/// Runs the commands of the page.
struct Reader<'a> {
    pair: &'a Pair,
    folder: &'a Path,
    /// The commands so far that were no calls.
    before: String,
    /// What the page shows for what is another here: ids.
    renamed: BTreeMap<String, String>,
}

impl Reader<'_> {
    /// Runs a command until its answer is the one shown; a call that changes something once.
    fn run(&mut self, step: &Step) -> Result<Option<Call>> {
        let command =
            self.renamed.iter().fold(step.command.clone(), |text, (shown, found)| text.replace(shown, found));
        if !command.starts_with("curl ") {
            self.before.push_str(&command);
            self.before.push('\n');
            return Ok(None);
        }
        let mut last = Ok(());
        let found = eventually("the answer is as shown", || {
            let call = self.call(&command)?;
            let mut renamed = self.renamed.clone();
            last = compare(&step.shown, &call, &mut renamed);
            if last.is_ok() {
                self.renamed = renamed;
                return Ok(Some(call));
            }
            ensure!(call.method == "GET", "{} to {command}", call.printed);
            Ok(None)
        });
        // What was wrong with the last answer says more than that time has run out.
        match (found, last) {
            (Ok(call), _) => Ok(Some(call)),
            (Err(error), Ok(())) | (Err(_), Err(error)) => Err(error),
        }
        .with_context(|| step.command.clone())
    }

    fn call(&self, command: &str) -> Result<Call> {
        let output = Command::new("bash")
            .args(["-euc", &format!("{}{command}", self.before)])
            .current_dir(self.folder)
            // Where .curlrc is.
            .env("CURL_HOME", self.folder)
            .envs([("URL", self.pair.url()), ("TOKEN", self.pair.token())])
            .output()?;
        let said = String::from_utf8(output.stderr)?;
        let words: Vec<&str> = said.split_whitespace().collect();
        let &[method, status, url] = words.as_slice() else { bail!("{command}: {said}") };
        let target = url.strip_prefix(self.pair.url()).context("a call to somewhere else")?;
        Ok(Call {
            printed: String::from_utf8(output.stdout)?.replace('\r', ""),
            method: method.to_owned(),
            path: target.split('?').next().unwrap_or_default().to_owned(),
            status: status.parse()?,
        })
    }
}

fn compare(shown: &str, call: &Call, renamed: &mut BTreeMap<String, String>) -> Result<()> {
    let shown = shown.trim_start();
    let (shown, printed) = if shown.starts_with("HTTP/") {
        let (shown_head, shown) = shown.split_once("\n\n").unwrap_or((shown, ""));
        let (head, printed) = call.printed.split_once("\n\n").context("no head")?;
        compare_heads(shown_head.trim_end(), head, renamed)?;
        (shown, printed)
    } else {
        ensure!((200..300).contains(&call.status), "status {}", call.status);
        (shown, call.printed.as_str())
    };
    if shown.trim().is_empty() {
        return Ok(());
    }
    let values =
        |text: &str| serde_json::Deserializer::from_str(text).into_iter().collect::<Result<Vec<Value>, _>>();
    compare_values(&json!(values(shown)?), &json!(values(printed)?), renamed)
        .map_err(|place| anyhow::anyhow!("{place} is not as shown in {printed}"))
}

fn compare_heads(shown: &str, found: &str, renamed: &mut BTreeMap<String, String>) -> Result<()> {
    let (shown_status, shown) = shown.split_once('\n').unwrap_or((shown, ""));
    let (status, found) = found.split_once('\n').context("no headers")?;
    let code = |line: &str| line.split(' ').nth(1).map(str::to_owned);
    ensure!(code(shown_status) == code(status), "{status}");
    for line in shown.lines() {
        let (name, value) = line.split_once(": ").with_context(|| format!("{line} is no header"))?;
        let found = found.lines().find_map(|line| {
            let (other, value) = line.split_once(": ")?;
            other.eq_ignore_ascii_case(name).then_some(value)
        });
        let is_same = found.is_some_and(|found| is_same_text(value, found, renamed));
        ensure!(is_same, "{name} is {found:?} in place of {value:?}");
    }
    Ok(())
}

/// Answers with the place that is not as shown.
fn compare_values(
    shown: &Value,
    found: &Value,
    renamed: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    match (shown, found) {
        (Value::Object(shown), Value::Object(found)) => {
            if let Some(name) = found.keys().find(|name| !shown.contains_key(*name)) {
                return Err(format!("/{name}, which is not there,"));
            }
            shown.iter().try_for_each(|(name, shown)| {
                let found = found.get(name).unwrap_or(&Value::Null);
                compare_values(shown, found, renamed).map_err(|place| format!("/{name}{place}"))
            })
        }
        (Value::Array(shown), Value::Array(found)) if shown.len() == found.len() => {
            shown.iter().zip(found).enumerate().try_for_each(|(at, (shown, found))| {
                compare_values(shown, found, renamed).map_err(|place| format!("/{at}{place}"))
            })
        }
        (Value::String(shown), Value::String(found)) if is_same_text(shown, found, renamed) => Ok(()),
        (shown, found) if shown == found => Ok(()),
        _ => Err(String::new()),
    }
}

/// Whether a text is the one that is shown, or another time, or the id that stands for the one that is shown.
fn is_same_text(shown: &str, found: &str, renamed: &mut BTreeMap<String, String>) -> bool {
    let (shown_parts, parts) = (shown.split('/').collect::<Vec<_>>(), found.split('/').collect::<Vec<_>>());
    shown_parts.len() == parts.len()
        && shown_parts.into_iter().zip(parts).all(|(shown, found)| match (kind(shown), kind(found)) {
            (Some(Kind::Time), Some(Kind::Time)) => true,
            (Some(Kind::Id(shown_of)), Some(Kind::Id(of))) => {
                shown_of == of
                    && *renamed.entry(shown.to_owned()).or_insert_with(|| found.to_owned()) == found
            }
            _ => shown == found,
        })
}

#[derive(PartialEq, Eq)]
enum Kind {
    Time,
    /// The id of a deletion, a request, or a message.
    Id(&'static str),
}

fn kind(text: &str) -> Option<Kind> {
    let is_ulid = |text: &str| {
        text.len() == 26 && text.bytes().all(|byte| b"0123456789abcdefghjkmnpqrstvwxyz".contains(&byte))
    };
    for prefix in ["del_", "req_"] {
        if text.strip_prefix(prefix).is_some_and(is_ulid) {
            return Some(Kind::Id(prefix));
        }
    }
    if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(Kind::Id("message"));
    }
    let form: String = text.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
    (form == "0000-00-00T00:00:00.000Z").then_some(Kind::Time)
}

/// What the page finds: a deletion whose message the platform has given up, one with an object that was uploaded since, a project
/// that has files in three places, and a message that nobody can read.
/// Answers with the id of the first.
fn prepare(pair: &Pair) -> Result<String> {
    let post = |keys: [&str; 2], delay_seconds: u32| -> Result<String> {
        let body =
            json!({"objectKeys": keys, "delay_seconds": delay_seconds, "labels": {"reason": "erasure"}});
        let json = &[("content-type", "application/json")];
        let accepted = pair.api().send("POST", "/v1/deletions", json, &body.to_string())?;
        Ok(accepted.expect::<Value>(202)?["id"].as_str().context("an id")?.to_owned())
    };
    let keys = ["proj_7/a.jpg", "proj_7/b.jpg"];
    let failed = post(keys, 3600)?;
    let keys = keys.map(ObjectKey::parse).into_iter().collect::<Result<Vec<_>, _>>()?;
    for message in pack_keys(&failed.parse()?, 0, Timestamp::from_millis(0), Fence::Auto, &keys) {
        pair.gateway().send(&Message { queue: "deadLetters", ..Message::text(message.body) })?;
    }
    pair.settle(&failed)?;

    let skipped = post(["proj_8/a.jpg", "proj_8/b.jpg"], 2)?;
    pair.gateway().put(&["proj_8/b.jpg".to_owned()], 1)?;
    pair.settle(&skipped)?;

    pair.gateway().put(&["proj_46/a.jpg", "proj_46_b.jpg", "projects/46/c.jpg"].map(str::to_owned), 100)?;
    pair.gateway().send(&Message::text("half a mess"))?;
    Ok(failed)
}

/// A folder for the reader's files, where curl says on its standard error what it has called.
fn desk() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let rc = "silent\nshow-error\nwrite-out = \"%{stderr}%{method} %{http_code} %{url_effective}\"\n";
    fs::write(folder.path().join(".curlrc"), rc)?;
    Ok(folder)
}

#[test]
fn every_line_of_the_api_page_runs_and_answers_as_shown_and_every_call_has_one() -> Result<()> {
    let pair = Pair::start()?;
    prepare(&pair)?;
    let folder = desk()?;

    let mut reader =
        Reader { pair: &pair, folder: folder.path(), before: String::new(), renamed: BTreeMap::new() };
    let mut calls = Vec::new();
    for step in steps(&page("api.md")?) {
        calls.extend(reader.run(&step)?);
    }

    let description = description()?;
    let paths = description["paths"].as_object().context("no paths")?;
    let fits = |pattern: &str, path: &str| {
        let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
        pattern.len() == path.len()
            && pattern.iter().zip(path).all(|(part, found)| part.starts_with('{') || *part == found)
    };
    for (pattern, item) in paths {
        for method in item.as_object().context("no methods")?.keys().filter(|name| *name != "parameters") {
            let method = method.to_uppercase();
            let is_there = calls.iter().any(|call| call.method == method && fits(pattern, &call.path));
            assert!(is_there, "docs/api.md has no curl line for {method} {pattern}");
        }
    }
    Ok(())
}

/// The deletion with failures goes by its id in `docs/api.md`.
#[test]
fn the_calls_of_the_other_pages_run_and_so_do_their_statements() -> Result<()> {
    const FAILED: &str = "del_01m8641q5e6y2r3t8w9x0z1c4v";
    let pair = Pair::start()?;
    let failed = prepare(&pair)?;
    let folder = desk()?;
    for (name, calls_min) in [("operations.md", 10), ("migration.md", 5)] {
        let renamed = BTreeMap::from([(FAILED.to_owned(), failed.clone())]);
        let mut reader = Reader { pair: &pair, folder: folder.path(), before: String::new(), renamed };
        let mut calls = 0;
        for step in steps(&page(name)?) {
            calls += usize::from(reader.run(&step)?.is_some());
        }
        assert!(calls >= calls_min, "{calls} calls in {name}");
    }

    let readme = fs::read_to_string(Project::locate()?.root().join("README.md"))?;
    let pages = page("operations.md")? + &readme;
    let mut statements = 0;
    for (_, rest) in pages.match_indices("--command \"").map(|(at, found)| pages.split_at(at + found.len())) {
        let sql = rest.split('"').next().context("no end")?;
        pair.gateway().sql(sql, &[]).with_context(|| sql.to_owned())?;
        statements += 1;
    }
    assert!(statements >= 3, "{statements} statements");
    Ok(())
}

#[test]
fn the_tables_of_the_api_page_name_what_the_description_does() -> Result<()> {
    let (page, description) = (page("api.md")?, description()?);
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).collect();
    let codes_of = |row: &str| -> Vec<String> {
        row.split('|')
            .nth(2)
            .map_or_else(Vec::new, |cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect())
    };
    let in_page: BTreeSet<(u64, String)> = rows
        .iter()
        .filter_map(|row| Some((row[2..].split(' ').next()?.parse().ok()?, codes_of(row))))
        .flat_map(|(status, codes)| codes.into_iter().map(move |code| (status, code)))
        .collect();
    let mut described = BTreeSet::new();
    for response in description["components"]["responses"].as_object().context("no responses")?.values() {
        let problem = &response["content"]["application/problem+json"]["schema"]["properties"];
        for code in problem["code"]["enum"].as_array().context("no codes")? {
            let status = problem["status"]["const"].as_u64().context("no status")?;
            described.insert((status, code.as_str().context("no text")?.to_owned()));
        }
    }
    assert_eq!(in_page, described, "in the page, and in the description");

    let schemas = &description["components"]["schemas"];
    let fields = |schema: &str| -> Vec<String> {
        schemas[schema]["properties"]
            .as_object()
            .map_or_else(Vec::new, |fields| fields.keys().cloned().collect())
    };
    let words = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let named = [
        fields("DeletionRequest"),
        fields("Deletion"),
        fields("Plan"),
        fields("Verification"),
        fields("RedriveRequest"),
        words(&schemas["Fence"]["enum"]),
        words(&schemas["State"]["enum"]),
        words(&schemas["FailureCode"]["enum"]),
        words(&schemas["UnreadableMessage"]["properties"]["reason"]["enum"]),
    ]
    .concat();
    assert!(named.len() > 30, "{named:?}");
    for name in named {
        assert!(rows.iter().any(|row| row.contains(&format!("`{name}`"))), "no table has {name}");
    }
    Ok(())
}
