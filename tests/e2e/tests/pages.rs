//! What the pages of the documentation name is there: links, paths, commands and options, settings, codes, events and their
//! fields, limits. What they say of it a person has to read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::pages::{anchors, blocks, code_spans, links, prose, shell_lines, steps};
use serde::Deserialize;
use serde_json::Value;
use xtask::project::Project;

const PAGES: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "clients/python/README.md",
    "docs/api.md",
    "docs/cost.md",
    "docs/migration.md",
    "docs/operations.md",
    "docs/reliability.md",
    "docs/security.md",
];

/// The pages whose every code span must be the name of something.
const NAMING: [&str; 4] = ["docs/cost.md", "docs/migration.md", "docs/operations.md", "docs/security.md"];

/// Where names come from: what is no comment there.
const SOURCES: [&str; 11] = [
    "protocol/src",
    "ledger/src",
    "ledger/migrations",
    "producer/src",
    "producer/assets/openapi.json",
    "consumer/src",
    "cli/src",
    "xtask/src",
    "clients/python",
    "wrangler.producer.toml",
    "wrangler.consumer.toml",
];

/// Names that are others': the platform's, of tools that a backend had, of settings that are left out.
const FOREIGN: [&str; 35] = [
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "CLOUDFLARE_ACCOUNT_ID",
    "CLOUDFLARE_API_TOKEN",
    "COPY",
    "DeleteObject",
    "Errors",
    "FROM",
    "MissingContentMD5",
    "TOKEN",
    "WRANGLER",
    "aioboto3",
    "apt-get",
    "before.sql",
    "docs",
    "files.path",
    "from",
    "install",
    "invocation_logs",
    "no-store",
    "nodejs",
    "npm",
    "object",
    "object-delete",
    "observability.logs",
    "other",
    "python",
    "r2",
    "s3",
    "3.13-slim",
    "subprocess",
    "tokens.json",
    "unsafe",
    "workers.dev",
    "wrangler",
];

fn read(path: &str) -> Result<String> {
    let path = Project::locate()?.root().join(path);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// All files in a folder, or the file itself.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?.path();
        if !entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            found.extend(files(&entry)?);
        }
    }
    Ok(found)
}

/// Words with the dots, dashes and underscores that are in them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(|char: char| !char.is_ascii_alphanumeric() && !"_.-".contains(char));
    parts.map(|word| word.trim_matches(['.', '-'])).filter(|word| !word.is_empty())
}

/// Every word of the sources that is in no comment, also as a command line has it, and every word of wrangler's.
fn vocabulary() -> Result<BTreeSet<String>> {
    let project = Project::locate()?;
    let mut known: BTreeSet<String> = FOREIGN.map(str::to_owned).into();
    for source in SOURCES {
        for file in files(&project.root().join(source))? {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let forms = |word: &str| [word.to_owned(), word.to_lowercase(), word.replace('_', "-")];
            known.extend(lines.flat_map(words).flat_map(forms));
        }
    }
    for (command, Usage { options, .. }) in wrangler()? {
        known.extend(command.split(' ').map(str::to_owned));
        known.extend(options.iter().map(|option| option.trim_start_matches('-').to_owned()));
    }
    Ok(known)
}

#[test]
fn every_link_leads_somewhere() -> Result<()> {
    let root = Project::locate()?.root().to_owned();
    let mut checked = 0;
    for page in PAGES {
        let text = read(page)?;
        let folder = root.join(page).parent().context("a page is in a folder")?.to_owned();
        for link in links(&text) {
            if link.starts_with("https://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { root.join(page) } else { folder.join(path) };
            ensure!(target.exists(), "{page} links to {link}, which is not there");
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(&target)?);
                ensure!(
                    anchors.iter().any(|found| found == anchor),
                    "{page} links to {link}: no such heading"
                );
            }
            checked += 1;
        }
    }
    assert!(checked > 100, "{checked}");
    Ok(())
}

/// A reader with a problem finds the answer in one click.
#[test]
fn the_readme_links_to_every_symptom_and_so_does_the_table_of_the_page() -> Result<()> {
    let (readme, page) = (read("README.md")?, read("docs/operations.md")?);
    let top = page.split("\n## ").next().context("no top")?;
    let (from_readme, from_top) = (links(&readme), links(top));
    for line in prose(&page).lines().filter(|line| line.starts_with("## ")) {
        for anchor in anchors(line) {
            assert!(from_top.contains(&format!("#{anchor}")), "the table of operations.md misses {line}");
            // What is no symptom is found through the page.
            let is_reference =
                ["the-ledger-was-set-back", "what-is-kept-and-how-long"].contains(&anchor.as_str());
            let is_there = from_readme.contains(&format!("docs/operations.md#{anchor}"));
            assert!(is_there || is_reference, "README.md misses {line}");
        }
    }
    Ok(())
}

/// What is wrong with a code span, if anything is.
fn unknown(span: &str, root: &Path, paths: &Value, known: &BTreeSet<String>) -> Option<String> {
    // A call of the API, with its method or without.
    let (method, path) = match span.split_once(' ') {
        Some((method, path)) if path.starts_with('/') => (Some(method), path),
        _ => (None, span),
    };
    if path.starts_with('/') {
        let item = paths.get(path.split('?').next().unwrap_or_default());
        // `POST /` is one, `/` alone none.
        let is_there =
            item.is_some_and(|item| method.is_none_or(|method| item.get(method.to_lowercase()).is_some()));
        return (!is_there).then(|| format!("{span} is no call of the API"));
    }
    // A file of ours.
    if root.join(span).exists() {
        return None;
    }
    let is_known = |word: &&str| {
        let is_number = word.chars().all(|char| char.is_ascii_digit() || ".-".contains(char));
        // What stands for anything is in capitals.
        let is_placeholder = ["DIGEST", "ID", "NAME", "NEW", "OLD", "VERSION"].contains(word);
        is_number || is_placeholder || known.contains(*word)
    };
    let word = words(span).find(|word| !is_known(word))?;
    Some(format!("{word} of {span} is the name of nothing"))
}

#[test]
fn every_name_on_the_pages_is_the_name_of_something() -> Result<()> {
    let (root, known) = (Project::locate()?.root().to_owned(), vocabulary()?);
    let description: Value = serde_json::from_str(&read("producer/assets/openapi.json")?)?;
    let paths = description.get("paths").context("no paths")?;
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for page in NAMING {
        for span in code_spans(&read(page)?) {
            checked += 1;
            wrong.extend(unknown(&span, &root, paths, &known).map(|what| format!("{page}: {what}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 300, "{checked}");
    for nothing in ["no_such_field", "GET /v1/no-such-call", "DELETE /v1/stats", "chunk.lost"] {
        assert!(unknown(nothing, &root, paths, &known).is_some(), "{nothing}");
    }
    Ok(())
}

/// The events of `protocol/src/event.rs`, with their fields.
fn events() -> Result<BTreeMap<String, Vec<String>>> {
    let source = read("protocol/src/event.rs")?;
    let (of_enum, rest) = source
        .split_once("pub enum Event<'a> {")
        .and_then(|(_, rest)| rest.split_once("\n}\n"))
        .context("no events")?;
    let (_, of_notices) = rest.split_once("pub struct NoticeAttempt<'a> {").context("no attempts")?;
    let of_notices = fields(of_notices.split("\n}\n").next().context("no end")?);
    // An attribute at a variant names an event, one at a field a field.
    let parts = of_enum.split("\n    #[serde(rename = \"").skip(1);
    let event = |part: &str| {
        let (name, body) = part.split_once('"')?;
        let fields = if body.contains("(NoticeAttempt<'a>)") { of_notices.clone() } else { fields(body) };
        Some((name.to_owned(), fields))
    };
    parts.map(|part| event(part).context("an event without a name")).collect()
}

/// The fields of a struct or a variant, by the names that serde gives them.
fn fields(body: &str) -> Vec<String> {
    let (mut fields, mut renamed) = (Vec::new(), None);
    for line in body.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        if let Some((_, name)) = line.split_once("rename = \"") {
            renamed = name.split('"').next().map(str::to_owned);
        } else if let Some((name, _)) = line.split_once(": ") {
            let name = name.trim_start_matches("pub ").to_owned();
            fields.push(renamed.take().unwrap_or(name));
        }
    }
    fields
}

#[test]
fn the_security_page_has_every_event_with_all_that_is_in_it() -> Result<()> {
    let page = read("docs/security.md")?;
    let section =
        page.split("\n## ").find(|section| section.starts_with("What is logged")).context("no section")?;
    let mut shown = BTreeMap::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let mut spans = code_spans(row).into_iter();
        shown.insert(spans.next().context("no name")?, spans.collect::<Vec<_>>());
    }
    assert_eq!(shown, events()?);
    Ok(())
}

#[test]
fn the_limits_are_those_of_the_code_and_of_the_wrangler_files() -> Result<()> {
    let code = read("protocol/src/limits.rs")? + &read("protocol/src/retry.rs")?;
    let wrangler = read("wrangler.consumer.toml")? + &read("wrangler.producer.toml")?;
    let page = read("docs/operations.md")?;
    let section = page.split("\n## ").find(|section| section.starts_with("Limits")).context("no section")?;
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let mut checked = 0;
    for row in section.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (limit, places) = (cells.get(2).context("no limit")?, cells.get(3).context("no place")?);
        let name = code_spans(places).into_iter().next().context("no name")?;
        let constant = code.lines().find(|line| line.starts_with(&format!("pub const {name}: ")));
        let setting = wrangler.lines().find(|line| line.starts_with(&format!("{name} = ")));
        let found = match (constant, setting) {
            (Some(line), _) | (None, Some(line)) => digits(line.split('=').nth(1).unwrap_or_default()),
            (None, None) if name == "RATE_LIMIT" => {
                let line = wrangler.lines().find(|line| line.starts_with("simple = ")).context("no limit")?;
                digits(
                    line.split("limit = ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default(),
                )
            }
            // The platform's own, where nothing is set.
            (None, None) if places.contains("not set") => continue,
            (None, None) => anyhow::bail!("{name} is set nowhere"),
        };
        assert_eq!(digits(limit), found, "{row}");
        checked += 1;
    }
    assert!(checked > 10, "{checked}");
    Ok(())
}

/// The commands of the pages that call this program: their words after it.
fn calls_of(program: &str) -> Result<BTreeSet<Vec<String>>> {
    let mut calls = BTreeSet::new();
    for page in PAGES {
        let text = read(page)?;
        let of_console = steps(&text).into_iter().map(|step| step.command);
        for line in shell_lines(&text).into_iter().chain(of_console).chain(code_spans(&text)) {
            for (at, _) in line.match_indices(program) {
                // What another command, a file or a comment follows is that one's.
                let call = line
                    .split_at(at + program.len())
                    .1
                    .split(['|', '<', '#', ')'])
                    .next()
                    .unwrap_or_default();
                calls.insert(split(call));
            }
        }
    }
    Ok(calls)
}

/// The words of a command, with what is between double quotes as one.
fn split(command: &str) -> Vec<String> {
    let quoted = command.split('"').enumerate();
    quoted
        .flat_map(|(at, part)| {
            if at % 2 == 1 {
                vec![part.to_owned()]
            } else {
                part.split_whitespace().map(str::to_owned).collect()
            }
        })
        .collect()
}

/// How a command of wrangler's is called.
#[derive(Debug, Deserialize)]
struct Usage {
    /// How many words it takes besides its options; `None`: any number.
    positional: Option<usize>,
    /// With their dashes.
    options: BTreeSet<String>,
}

/// What the installed wrangler knows, by the command's words.
fn wrangler() -> Result<BTreeMap<String, Usage>> {
    const PRINT: &str = r#"
        const { registry, globalFlags } = require("wrangler").experimental_getWranglerCommands();
        const dashed = (name) => (name.length > 1 ? "--" : "-") + name.replace(/[A-Z]/g, (char) => "-" + char.toLowerCase());
        const names = (flags = {}) => Object.entries(flags).flatMap(([name, { alias = [] }]) => [name].concat(alias).map(dashed));
        const found = {};
        const walk = (tree, words) => {
            for (const [word, { definition, subtree }] of tree) {
                if (definition?.type === "command") {
                    const { args, positionalArgs = [] } = definition;
                    found[[...words, word].join(" ")] = {
                        positional: positionalArgs.some((name) => args[name].array) ? null : positionalArgs.length,
                        options: [...names(args), ...names(globalFlags)],
                    };
                }
                walk(subtree, [...words, word]);
            }
        };
        walk(registry.subtree, []);
        console.log(JSON.stringify(found));"#;
    let project = Project::locate()?;
    let mut node = Command::new(project.npm_command("node"));
    let output = node.current_dir(project.root()).args(["--no-warnings", "--eval", PRINT]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What is wrong with a call of wrangler, if anything is.
fn wrong_with(call: &[String], known: &BTreeMap<String, Usage>) -> Option<String> {
    let positional: Vec<&str> =
        call.iter().map(String::as_str).take_while(|word| !word.starts_with('-')).collect();
    let found = (1..=positional.len()).rev().find_map(|count| {
        let (command, rest) = positional.split_at(count);
        Some((known.get(&command.join(" "))?, rest.len()))
    });
    let text = call.join(" ");
    let Some((usage, words)) = found else { return Some(format!("{text}: no such command")) };
    if usage.positional.is_some_and(|most| words > most) {
        return Some(format!("{text}: too many words"));
    }
    let option = call.iter().find(|word| word.starts_with('-') && !usage.options.contains(*word));
    option.map(|option| format!("{text}: no option {option}"))
}

#[test]
fn every_call_of_wrangler_is_one_that_the_installed_wrangler_knows() -> Result<()> {
    let (calls, known) = (calls_of("npx wrangler ")?, wrangler()?);
    assert!(calls.len() > 20, "{calls:?}");
    let wrong: Vec<String> = calls.iter().filter_map(|call| wrong_with(call, &known)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for nothing in
        ["queues pause r2-deletions", "queues info r2-deletions --all", "queues info a b", "queues"]
    {
        assert!(wrong_with(&split(nothing), &known).is_some(), "{nothing}");
    }
    Ok(())
}

/// By what they say of themselves, which is what they take: clap makes both of one.
#[test]
fn every_call_of_our_own_commands_is_one_that_they_know() -> Result<()> {
    let project = Project::locate()?;
    let mut checked = 0;
    for (program, package, task) in [
        ("cargo xtask ", "xtask", ""),
        ("r2-deletions tail", "cli", "tail"),
        ("-p cli -- tail", "cli", "tail"),
    ] {
        let mut helps = BTreeMap::<Vec<String>, String>::new();
        for call in calls_of(program)? {
            let words: Vec<_> = call.iter().take_while(|word| !word.starts_with('-')).cloned().collect();
            if !helps.contains_key(&words) {
                let mut cargo = project.cargo();
                cargo.args(["run", "--quiet", "--package", package, "--"]);
                cargo.args(task.split_whitespace()).args(&words).arg("--help");
                let output = cargo.output()?;
                ensure!(output.status.success(), "{program}{}: no such command", words.join(" "));
                helps.insert(words.clone(), String::from_utf8(output.stdout)?);
            }
            let help = helps.get(&words).context("no help")?;
            let has = |option: &str| help.split_whitespace().any(|word| word.trim_end_matches(',') == option);
            let option = call.iter().find(|word| word.starts_with("--") && !has(word));
            ensure!(option.is_none(), "{program}{}: no option {option:?}", call.join(" "));
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked}");
    Ok(())
}

/// Every line that the pages show of `tail` is one that it prints: those of the recordings, whose times may be left out.
#[test]
fn what_tail_is_shown_to_print_is_what_it_prints_of_the_recordings() -> Result<()> {
    let recorded =
        ["demo.txt", "faults.txt", "tail.txt"].map(|name| read(&format!("cli/tests/recorded/{name}")));
    let recorded = recorded.into_iter().collect::<Result<Vec<_>>>()?.concat();
    let without_time = |line: &str| line.split_once("Z  ").map_or(line, |(_, rest)| rest).trim().to_owned();
    let recorded: BTreeSet<String> =
        // The local runtime's log does not say which Worker it was where either may have it.
        recorded.lines().map(|line| without_time(line).replace("?         ", "consumer  ")).collect();
    let readme = read("README.md")?;
    let of_readme = steps(&readme).into_iter().find(|step| step.command.contains("tail --worker"));
    let shown = of_readme.context("no tail of a Worker in README.md")?.shown;
    let of_operations = blocks(&read("docs/operations.md")?, "text").join("\n");
    let lines: Vec<String> = shown
        .lines()
        .chain(of_operations.lines())
        .filter(|line| !line.is_empty() && *line != "...")
        .map(without_time)
        .collect();
    assert!(lines.len() > 20, "{lines:?}");
    for line in lines {
        assert!(recorded.contains(&line), "tail prints no such line: {line}");
    }
    Ok(())
}
