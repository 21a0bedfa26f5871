//! The quickstart of the example's README, as somebody follows it: in a copy of the folder, with a new environment.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{free_port, service};
use crate::{
    clock::wait_for,
    interrupt::Interrupt,
    output,
    project::Project,
    run::{self, tail},
};

/// The ports that the README names: the pair's and the service's. They may be taken here.
const PAIR: &str = "127.0.0.1:8787";
const SERVICE: &str = "127.0.0.1:8000";
const SERVICE_PORT: &str = "--port 8000";

/// Made of the example's requirements.
const CONSTRAINTS: &str = "constraints.txt";

/// How long a line may take to answer as the README has it.
const PATIENCE: Duration = Duration::from_mins(1);

/// A line of the README, and what it prints there.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    command: String,
    prints: String,
}

/// Follows it, with the pair at `url`.
pub(super) fn follow(project: &Project, folder: &Path, url: &str, interrupt: &Interrupt) -> Result<()> {
    let readme = fs::read_to_string(service::folder(project).join("README.md"))?;
    let (pair, port) = (url.trim_start_matches("http://"), free_port()?);
    let here = |text: &str| {
        text.replace(PAIR, pair)
            .replace(SERVICE, &format!("127.0.0.1:{port}"))
            .replace(SERVICE_PORT, &format!("--port {port}"))
    };
    let [set_up, use_it] = blocks(&readme)?;
    let (serve, set_up) = set_up.split_last().context("the quickstart starts nothing")?;
    let folder = copy(project, folder)?;
    let example = folder.join(".env.example");
    fs::write(&example, here(&fs::read_to_string(&example)?))?;
    constrain(&folder)?;

    output::step("the quickstart's environment, from PyPI", "20 s", || {
        set_up.iter().try_for_each(|step| install(project, &folder, &step.command))
    })?;
    let log = folder.join("service.log");
    let output = File::create(&log)?;
    let mut command = shell(&folder, &format!("exec {}", here(&serve.command)));
    let command = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let _service = Running(command.spawn()?);
    for step in &use_it {
        let (command, prints) = (here(&step.command), step.prints.as_str());
        let mut said = String::new();
        // The service has to come up first, and a deletion takes its time.
        let right = wait_for(PATIENCE, || {
            interrupt.check()?;
            said = run::output_of(&mut shell(&folder, &command)).unwrap_or_default();
            Ok((said.trim_end() == prints).then_some(()))
        })?;
        let log = fs::read_to_string(&log).unwrap_or_default();
        ensure!(right.is_some(), "The README has\n{command}\n{prints}\nand it says\n{said}\n{}", tail(&log));
    }
    Ok(())
}

/// The service, which ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // OK because the one error there can be says that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The two blocks of commands of the quickstart.
fn blocks(readme: &str) -> Result<[Vec<Step>; 2]> {
    let (_, rest) = readme.split_once("## Quickstart\n").context("the README has no quickstart")?;
    let quickstart = rest.split_once("\n## ").map_or(rest, |(quickstart, _)| quickstart);
    let blocks = quickstart.split("```console\n").skip(1).filter_map(|rest| rest.split_once("\n```"));
    let blocks: Vec<_> = blocks.map(|(block, _)| steps(block)).collect();
    blocks.try_into().ok().context("the quickstart has not two blocks")
}

fn steps(block: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), prints: String::new() });
        } else if let Some(step) = steps.last_mut() {
            let end = if step.prints.is_empty() { "" } else { "\n" };
            step.prints = format!("{}{end}{line}", step.prints);
        }
    }
    steps
}

/// A copy of the client with the example, in which nothing is left of what was tried here; the folder of the example.
fn copy(project: &Project, folder: &Path) -> Result<PathBuf> {
    let client = project.root().join("clients/python");
    let kept = folder.join("clients/python");
    let mut folders = vec![PathBuf::new()];
    while let Some(relative) = folders.pop() {
        fs::create_dir_all(kept.join(&relative))?;
        for entry in fs::read_dir(client.join(&relative))? {
            let entry = entry?;
            let (name, path) = (entry.file_name(), relative.join(entry.file_name()));
            if entry.file_type()?.is_dir() {
                let is_source =
                    ![".venv", "__pycache__", "dist", "build"].contains(&&*name.to_string_lossy());
                folders.extend(is_source.then_some(path));
            } else if name != ".env" {
                fs::copy(entry.path(), kept.join(path))?;
            }
        }
    }
    Ok(kept.join("examples/fastapi"))
}

/// A line of the quickstart. Where PyPI is not in reach, what is in the project's own environment serves in its place.
fn install(project: &Project, folder: &Path, line: &str) -> Result<()> {
    let first = run::output_of(&mut shell(folder, line));
    if first.is_ok() || !line.contains("/pip install ") {
        return first.map(drop);
    }
    output::note("  PyPI is not in reach: the quickstart uses what is installed already");
    let site = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let installed = run::output_of(service::python(project).args(["-c", site]))?;
    let own = run::output_of(Command::new(folder.join(".venv/bin/python")).args(["-c", site]))?;
    fs::write(Path::new(own.trim()).join("project.pth"), installed)?;
    let mut again = shell(folder, line);
    // pip takes the last as "no": do not isolate.
    again.envs([("PIP_NO_INDEX", "1"), ("PIP_NO_DEPS", "1"), ("PIP_NO_BUILD_ISOLATION", "0")]);
    run::output_of(&mut again)?;
    // A command is made where its package is installed.
    let uvicorn = folder.join(".venv/bin/uvicorn");
    let python = folder.join(".venv/bin/python");
    fs::write(&uvicorn, format!("#!/bin/sh\nexec '{}' -m uvicorn \"$@\"\n", python.display()))?;
    Ok(fs::set_permissions(uvicorn, Permissions::from_mode(0o755))?)
}

/// Writes down the versions that are required here, as pip wants them: a constraint has no extras.
fn constrain(folder: &Path) -> Result<()> {
    let required = fs::read_to_string(folder.join("requirements-dev.txt"))?;
    let constraint = |line: &str| match (line.split_once('['), line.split_once(']')) {
        (Some((name, _)), Some((_, version))) => format!("{name}{version}\n"),
        _ => format!("{line}\n"),
    };
    Ok(fs::write(folder.join(CONSTRAINTS), required.lines().map(constraint).collect::<String>())?)
}

/// A line as a person's shell runs it, in `folder`; packages in the versions that the project is tried with.
fn shell(folder: &Path, line: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(folder).env("PYTHONDONTWRITEBYTECODE", "1").env_remove("MONGO_URL");
    shell.env("PIP_CONSTRAINT", folder.join(CONSTRAINTS));
    shell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_its_commands_with_what_they_print() {
        let step =
            |command: &str, prints: &str| Step { command: command.to_owned(), prints: prints.to_owned() };
        assert_eq!(steps("$ a\n$ b\none\ntwo"), [step("a", ""), step("b", "one\ntwo")]);
    }

    #[test]
    fn the_readme_has_what_is_followed() {
        let readme = service::folder(&Project::locate().unwrap()).join("README.md");
        let [set_up, use_it] = blocks(&fs::read_to_string(readme).unwrap()).unwrap();
        assert!(set_up.last().unwrap().command.contains(SERVICE_PORT));
        assert!(use_it.iter().all(|step| step.command.contains(SERVICE) || step.command.contains(PAIR)));
    }
}
