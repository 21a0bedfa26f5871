//! The example as a process.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::json;

use crate::{
    clock::wait_for,
    interrupt::Interrupt,
    project::Project,
    run::tail,
    setup::python,
    stack::{Answer, Api},
};

/// Importing boto3 alone takes a second, on a machine that does much else several.
const START_MAX: Duration = Duration::from_mins(1);

/// What one request of the example takes.
const PATHS_PER_REQUEST: usize = 1000;

/// A running service. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Service {
    child: Child,
    api: Api,
    log: PathBuf,
}

/// What the service says of a project.
#[derive(Debug, Deserialize)]
pub(super) struct Seen {
    pub(super) state: String,
    pub(super) files: usize,
    pub(super) deleted: usize,
    pub(super) reason: Option<String>,
}

impl Service {
    /// Starts it on `port`, in `folder`, with these settings and none of this process's, and returns when it answers.
    pub(super) fn start(
        project: &Project,
        folder: &Path,
        port: u16,
        settings: &BTreeMap<&str, String>,
    ) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let log = folder.join("service.log");
        let output = File::options().create(true).append(true).open(&log)?;
        let mut uvicorn = python(project);
        uvicorn
            .args(["-m", "uvicorn", "--factory", "backend.app:create_app", "--no-access-log"])
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .current_dir(folder)
            .envs(settings)
            // Those that are not in `settings`, and what boto3 would look for.
            .env_remove("DATABASE")
            .env_remove("POLL_SECONDS")
            .env_remove("AWS_PROFILE")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        // For the executor that runs it.
        for (name, value) in project.wrangler(folder).get_envs() {
            uvicorn.envs(value.map(|value| (name, value)));
        }
        let child = uvicorn.spawn().context("The service cannot be started. Run cargo xtask setup.")?;
        let mut service = Self { child, api: Api::new(&format!("http://127.0.0.1:{port}"), ""), log };
        service.wait()?;
        Ok(service)
    }

    fn wait(&mut self) -> Result<()> {
        let up = wait_for(START_MAX, || {
            ensure!(self.child.try_wait()?.is_none(), "The service has ended:\n{}", self.last_words());
            Ok(self.send("GET", "/openapi.json", "").ok().filter(|answer| answer.status == 200))
        })?;
        up.map(drop).with_context(|| {
            format!("The service is not up after {} s:\n{}", START_MAX.as_secs(), self.last_words())
        })
    }

    /// Creates a project, and tells where its files are.
    pub(super) fn create(&self, project: &str, paths: &[String]) -> Result<()> {
        let _: Seen = self.send("PUT", &format!("/projects/{project}"), "")?.expect(201)?;
        for paths in paths.chunks(PATHS_PER_REQUEST) {
            let body = json!({ "paths": paths }).to_string();
            let _: serde_json::Value =
                self.send("POST", &format!("/projects/{project}/files"), &body)?.expect(201)?;
        }
        Ok(())
    }

    /// Deletes a project, which is accepted.
    pub(super) fn delete(&self, project: &str) -> Result<Seen> {
        self.send("DELETE", &format!("/projects/{project}"), "")?.expect(202)
    }

    /// How a project is.
    pub(super) fn project(&self, project: &str) -> Result<Seen> {
        self.send("GET", &format!("/projects/{project}"), "")?.expect(200)
    }

    /// Waits until a project is deleted.
    pub(super) fn settle(&self, project: &str, patience: Duration, interrupt: &Interrupt) -> Result<Seen> {
        let ended = wait_for(patience, || {
            interrupt.check()?;
            let seen = self.project(project)?;
            if seen.state == "failed" {
                bail!("The deletion has failed: {:?}\n{}", seen.reason, self.last_words());
            }
            Ok((seen.state == "deleted").then_some(seen))
        })?;
        ended.with_context(|| {
            format!("Not deleted after {} s; the service says:\n{}", patience.as_secs(), self.last_words())
        })
    }

    /// Ends it as `kill -9` does.
    pub(super) fn kill(self) {
        drop(self);
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Result<Answer> {
        self.api.send_bare(method, path, &[("content-type", "application/json")], body)
    }

    fn last_words(&self) -> String {
        tail(&fs::read_to_string(&self.log).unwrap_or_default())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // OK because the one error there can be says that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example's folder.
pub(super) fn folder(project: &Project) -> PathBuf {
    project.root().join("clients/python/examples/fastapi")
}

/// The Python that has what the example needs, with it and the client to be imported as they are.
pub(super) fn python(project: &Project) -> Command {
    let mut command = Command::new(python::EXAMPLE.python(project));
    let sources = [folder(project), project.root().join("clients/python/src")];
    let sources: Vec<_> = sources.iter().map(|folder| folder.to_string_lossy()).collect();
    command.env("PYTHONPATH", sources.join(":")).env("PYTHONDONTWRITEBYTECODE", "1").env_remove("MONGO_URL");
    command
}
