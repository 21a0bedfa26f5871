//! Whoever follows a quickstart to the letter sees what it shows: the README's, that of `tail`, that of the Python client.
//!
//! They are run in the working tree, whose commit CI checks out anew, with another port and a state folder of their own; the
//! Python client is installed where nothing is. Ids, times and durations may be others than those shown.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use e2e::pages::{Step, blocks, steps};
use e2e::{Pair, eventually};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use xtask::project::Project;
use xtask::stack::free_port;

fn read(path: &str) -> Result<String> {
    Ok(fs::read_to_string(Project::locate()?.root().join(path))?)
}

/// The command of a page that begins so, and what it shows.
fn step(page: &str, begins: &str) -> Result<Step> {
    let step = steps(&read(page)?).into_iter().find(|step| step.command.starts_with(begins));
    step.with_context(|| format!("{page} has no command that begins with {begins}"))
}

/// What is another each time, in place of it a word for what it is.
fn normal(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let is_apart = |char: char| !char.is_ascii_alphanumeric() && !"_:.-".contains(char);
    for piece in text.split_inclusive(is_apart) {
        let word = piece.trim_end_matches(|char| is_apart(char) || char == ':');
        let rest = &piece[word.len()..];
        let form: String = word.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
        let is_id =
            ["del_", "req_"].iter().any(|prefix| word.strip_prefix(prefix).is_some_and(|id| id.len() == 26));
        let normal = match form.as_str() {
            _ if is_id => "ID",
            "0000-00-00T00:00:00.000Z" | "00:00:00.000Z" => "TIME",
            _ => word,
        };
        if ["ms", "s", "min"].contains(&normal)
            && let Some(number) = words.last_mut()
            && number.trim_end().parse::<f64>().is_ok()
        {
            // A second may be milliseconds the next time.
            "SOME ".clone_into(number);
            words.push(format!("TIME{rest}"));
        } else {
            words.push(format!("{normal}{rest}"));
        }
    }
    words.concat()
}

/// A shell in the repository's root, in an environment with nothing of ours.
fn bash(script: &str) -> Result<Command> {
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", script]).current_dir(Project::locate()?.root());
    for (name, _) in std::env::vars_os() {
        // A cargo test sets them for what it starts, and a person does not.
        let text = name.to_string_lossy();
        if text.starts_with("R2_DELETION")
            || text.starts_with("CARGO_PKG")
            || text.starts_with("CARGO_MANIFEST")
        {
            bash.env_remove(&name);
        }
    }
    Ok(bash)
}

/// What a script prints; it must succeed.
fn printed(mut bash: Command) -> Result<String> {
    let output = bash.output()?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{bash:?}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

/// A script and all that it has started, which ends with this.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        // OK because the one error there can be says that none is left.
        let _ = kill_process_group(Pid::from_child(&self.0), signal);
    }

    /// As Ctrl-C does.
    fn interrupt(mut self) -> Result<()> {
        self.signal(Signal::INT);
        eventually("it has ended", || Ok(self.0.try_wait()?))?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        // OK because it may have been waited for before.
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "a step of cargo xtask test, which runs it by itself"]
fn the_demo_prints_what_the_readme_shows() -> Result<()> {
    let step = step("README.md", "cargo xtask demo")?;
    let said = normal(&printed(bash(&step.command)?)?);
    let shown =
        normal(step.shown.trim_start().strip_prefix("...\n").context("the README shows what comes first")?);
    ensure!(said.trim().ends_with(shown.trim()), "shown:\n{shown}\nprinted:\n{said}");
    Ok(())
}

#[test]
#[ignore = "a step of cargo xtask test, which runs it by itself"]
fn the_request_and_the_tail_of_it_print_what_the_readme_shows() -> Result<()> {
    let (tail, request) = (step("README.md", "cargo xtask dev | ")?, step("README.md", "curl ")?);
    let dev = step("README.md", "cargo xtask dev --port")?;
    let state = tempfile::tempdir()?;
    let port = free_port()?.to_string();
    let here = |command: &str| command.replace("8787", &port);
    let dev = format!("{} --state {}", here(&dev.command), state.path().join("state").display());
    let watched = state.path().join("printed");
    let mut script = bash(&tail.command.replacen("cargo xtask dev", &dev, 1))?;
    script.stdin(Stdio::null()).stdout(fs::File::create(&watched)?).process_group(0);
    let running = Running(script.spawn()?);
    // This asks whether it is up, and a person does not.
    let seen = || -> Result<String> {
        let text = fs::read_to_string(&watched)?;
        Ok(text
            .lines()
            .filter(|line| !line.contains("GET /healthz"))
            .map(|line| line.to_owned() + "\n")
            .collect())
    };

    let health = format!("curl --silent --fail http://127.0.0.1:{port}/healthz");
    eventually("the pair answers", || Ok(bash(&health)?.output()?.status.success().then_some(())))?;
    let answer =
        printed(bash(&here(&request.command).replacen("curl", "curl --silent", 1))?)?.replace('\r', "");
    check_answer(&request.shown, &answer)?;

    let (events, summary) = tail.shown.trim().split_once("\n\n").context("the README shows no summary")?;
    let count = events.lines().count();
    eventually("all events are there", || Ok((seen()?.lines().count() >= count).then_some(())))?;
    running.interrupt()?;
    let said = seen()?;
    let (said_events, said_summary) = said.trim().split_once("\n\n").context("no summary")?;
    // The two Workers log side by side.
    let sorted = |lines: &str| {
        let mut lines: Vec<_> = lines.lines().map(normal).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(said_events), sorted(events), "{said}");
    assert_eq!(normal(said_summary), normal(summary), "{said}");
    Ok(())
}

/// The status, the headers that are shown, and the body.
fn check_answer(shown: &str, answer: &str) -> Result<()> {
    let part = |text: &str| -> Result<(Vec<String>, Value)> {
        let (head, body) = text.trim().split_once("\n\n").context("no body")?;
        let head = head.lines().map(normal).collect();
        Ok((head, serde_json::from_str(&normal(body)).with_context(|| body.to_owned())?))
    };
    let ((shown_head, shown_body), (head, body)) = (part(shown)?, part(answer)?);
    for line in shown_head {
        ensure!(head.contains(&line), "{line} is not in {answer}");
    }
    assert_eq!(body, shown_body);
    Ok(())
}

/// The first blocks of the client's page, its shell, the README's, and those of the migration; where nothing is installed.
#[test]
#[ignore = "a step of cargo xtask test, which runs it by itself; it asks PyPI for what the client needs"]
fn the_python_client_is_installed_and_does_what_the_pages_show() -> Result<()> {
    let (page, migration) = (read("clients/python/README.md")?, read("docs/migration.md")?);
    let folder = tempfile::tempdir()?;
    let install = blocks(&page, "sh").into_iter().next().context("no installation")?;
    let (install, export) = install.split_once("export ").context("no environment")?;
    let names: Vec<&str> =
        export.split_whitespace().filter_map(|word| Some(word.split_once('=')?.0)).collect();
    assert_eq!(names, ["R2_DELETION_URL", "R2_DELETION_TOKEN"]);
    printed(bash(&format!("python3 -m venv '{}'", folder.path().join("venv").display()))?)?;
    let bin = folder.path().join("venv/bin");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
    let mut pip = bash(install)?;
    pip.env("PATH", &path).env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    printed(pip)?;

    let pair = Pair::start()?;
    let run = |script: &str, input: &str| -> Result<String> {
        let mut bash = bash(script)?;
        bash.current_dir(folder.path()).env("PATH", &path);
        bash.envs(names.iter().copied().zip([pair.url(), pair.token()]));
        feed(bash, input)
    };
    let python = |block: &str| run("python -", block);

    let first = blocks(&page, "python").into_iter().next().context("no Python")?;
    assert_eq!(python(&first)?, "2\n");
    let of_readme = blocks(&read("README.md")?, "python").into_iter().next().context("no Python")?;
    assert_eq!(python(&of_readme)?, "1\n");

    pair.gateway().put(&["proj_46/a.jpg", "proj_46_b.jpg", "projects/46/c.jpg"].map(str::to_owned), 100)?;
    let [compare, delete] = &blocks(&migration, "python")[..] else { bail!("not two steps of a migration") };
    let difference = python(compare)?;
    ensure!(difference.starts_with("46 tracked 2 in the bucket 3 such as "), "{difference}");
    assert_eq!(python(delete)?, "3 deleted, 0 left\n");
    assert!(pair.keys()?.is_empty());

    fs::write(folder.path().join("keys.txt"), "proj_42/a.jpg\nproj_42/b.jpg\n")?;
    let shell = blocks(&page, "sh").into_iter().find(|block| block.starts_with("r2-deletion-queue"));
    let shell = shell.context("no command line")?;
    let mut id: Option<String> = None;
    for line in shell.lines() {
        let line = line.split(" #").next().unwrap_or_default();
        let shown = line.split_whitespace().find(|word| word.starts_with("del_"));
        let line =
            shown.zip(id.as_ref()).map_or_else(|| line.to_owned(), |(shown, id)| line.replace(shown, id));
        let said = run(&line, "").with_context(|| line.clone())?;
        id = id.or_else(|| said.split_whitespace().find(|word| word.starts_with("del_")).map(str::to_owned));
    }
    ensure!(id.is_some(), "no deletion was asked for");
    Ok(())
}

/// What a script prints that reads this.
fn feed(mut bash: Command, input: &str) -> Result<String> {
    let mut child = bash.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

#[test]
fn what_differs_each_time_is_told_from_what_does_not() {
    let normal_of = |text| normal(text);
    assert_eq!(
        normal_of("16:07:07.778Z  after 0.2 s: del_01m874z6mn6f8ter645zdsc3e9  2 keys, over 76 ms\n12 s"),
        "TIME  after SOME TIME: ID  2 keys, over SOME TIME\nSOME TIME"
    );
    assert_eq!(normal_of("{\"at\":\"2026-11-24T16:07:07.669Z\"}"), "{\"at\":\"TIME\"}");
    assert_ne!(normal_of("3999 deleted"), normal_of("3998 deleted"));
}
