//! Both Workers together on the real runtime: one `wrangler dev` with a local Queue, R2 bucket and D1 database.
//!
//! # In scope
//! Starting it from the very configurations that are deployed, on a state folder of its own, any number side by side;
//! stopping it, or killing it as a crash would; reaching it as a backend ([`Api`]) and as a test ([`Gateway`]).

mod api;
mod config;
mod files;
mod gateway;
mod http;
mod migrations;
mod process;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};

pub use self::{
    api::{
        Api, Counts, Deletion, Failure, FailurePage, Plan, Skip, SkippedPage, UnreadableMessage,
        UnreadablePage, Verification,
    },
    config::{Configs, PROJECT_TEMPLATES, S3_PATH},
    gateway::{Gateway, Message, Object},
    http::{Answer, free_port},
};
use crate::{
    clock::wait_for,
    project::{Project, Worker},
    run::tail,
    workers,
};
use process::Group;

/// A start takes two seconds; on a machine that does much else, many more.
const START_MAX: Duration = Duration::from_secs(90);

/// What to start, and where.
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// The port to answer on; a free one when left out.
    pub port: Option<u16>,
    /// The folder for all that the stack keeps. A stack that is started on it again goes on where the last one ended.
    pub state: PathBuf,
    /// The token that the producer accepts.
    pub token: String,
    /// What every Worker is started with: a test may change it.
    pub configs: Configs,
    /// Whether building a Worker again restarts it in the running stack. Else the stack keeps a copy of what it was
    /// started with.
    pub follow_builds: bool,
    /// Whether the Workers can be looked into while they run, through [`Stack::inspector`].
    pub inspect: bool,
}

impl StackOptions {
    /// The Workers as they are deployed, on any free port, accepting the token `"development"`.
    ///
    /// # Errors
    /// When a configuration cannot be read.
    pub fn new(state: impl Into<PathBuf>) -> Result<Self> {
        let configs = Configs::derive(&Project::locate()?)?;
        Ok(Self {
            port: None,
            state: state.into(),
            token: "development".to_owned(),
            configs,
            follow_builds: false,
            inspect: false,
        })
    }
}

/// A running stack. Dropping it kills it.
#[derive(Debug)]
pub struct Stack {
    group: Group,
    url: String,
    token: String,
    state: PathBuf,
    /// Held as long as the stack lives.
    _alone: File,
}

impl Stack {
    /// Starts a stack, and returns once the producer answers through it.
    ///
    /// # Errors
    /// When a Worker has not been built, or the stack does not come up: with the end of its log.
    pub fn start(options: StackOptions) -> Result<Self> {
        let project = Project::locate()?;
        Worker::ALL.iter().try_for_each(|&worker| workers::require_built(&project, worker))?;
        let StackOptions { port, state, token, mut configs, follow_builds, inspect } = options;
        fs::create_dir_all(&state).with_context(|| format!("{} cannot be made", state.display()))?;
        let state = state.canonicalize()?;
        let alone = claim(&state)?;
        if !follow_builds {
            configs.keep_copies(&state.join("workers"))?;
        }
        let files = configs.write(&state.join("configs"))?;
        configs.write_secrets(&state.join("configs"), &token)?;
        migrations::ensure(&project, &configs, &state)?;

        let log = File::create(log_path(&state))?;
        let mut wrangler = wrangler(&project, &state);
        for file in files {
            wrangler.arg("--config").arg(file);
        }
        wrangler.arg("--port").arg(port.unwrap_or(0).to_string());
        if inspect {
            // wrangler's own inspector shows the first Worker only. Here it says where the runtime's is, which shows all.
            wrangler.env("WRANGLER_LOG", "debug");
        }
        let group =
            Group::start(&mut wrangler, log).context("wrangler cannot be started. Run cargo xtask setup.")?;
        let mut stack = Self { group, url: String::new(), token, state, _alone: alone };
        stack.wait()?;
        Ok(stack)
    }

    /// Where it answers, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The token that the producer accepts.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A client of the producer's API, with the token.
    pub fn api(&self) -> Api {
        Api::new(&self.url, &self.token)
    }

    /// A client of the gateway, which reaches the bucket, the queues and the ledger.
    pub fn gateway(&self) -> Gateway {
        Gateway::new(&self.url)
    }

    /// The file with all that the Workers and wrangler have printed.
    pub fn log_path(&self) -> PathBuf {
        log_path(&self.state)
    }

    /// All that the Workers and wrangler have printed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(self.log_path()).context("the log of the stack cannot be read")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Where V8's inspector of a Worker is, by its name; the Worker must have been called once.
    ///
    /// # Errors
    /// When the stack was not started to be inspected.
    pub fn inspector(&self, worker: &str) -> Result<String> {
        let log = self.log()?;
        let port = inspector_port(&log).context("The log does not say where the inspector is.")?;
        Ok(format!("ws://127.0.0.1:{port}/core:user:{worker}"))
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.group.is_running()
    }

    /// Ends it as Ctrl-C would.
    pub fn stop(mut self) {
        self.group.stop();
    }

    /// Ends it as a power failure would: every process of it at once.
    pub fn kill(mut self) {
        self.group.kill();
    }

    fn wait(&mut self) -> Result<()> {
        let url = wait_for(START_MAX, || {
            if !self.group.is_running() {
                bail!("The stack ended before it was up:\n{}", tail(&self.log()?));
            }
            let log = self.log()?;
            let url = ready_url(&log).filter(|url| Api::new(url, &self.token).is_healthy());
            Ok(url.map(str::to_owned))
        })?;
        let Some(url) = url else {
            bail!("The stack is not up after {} s:\n{}", START_MAX.as_secs(), tail(&self.log()?));
        };
        self.url = url;
        Ok(())
    }
}

/// Two stacks on one state would lose each other's objects.
fn claim(state: &Path) -> Result<File> {
    let lock = File::create(state.join("lock"))?;
    lock.try_lock().with_context(|| format!("Another stack runs on {}.", state.display()))?;
    Ok(lock)
}

fn log_path(state: &Path) -> PathBuf {
    state.join("stack.log")
}

fn wrangler(project: &Project, state: &Path) -> std::process::Command {
    let guard = project.root().join("xtask/stack/die-with-parent.mjs");
    let mut wrangler = project.wrangler_with(&state.join("configs"), &[guard]);
    wrangler
        .arg("dev")
        .args(["--ip", "127.0.0.1", "--inspector-port", "0", "--show-interactive-dev-session=false"])
        .arg("--persist-to")
        .arg(state)
        // Else stacks find each other's Workers, which have the same names.
        .env("WRANGLER_REGISTRY_PATH", state.join("registry"))
        .env("WRANGLER_LOG_PATH", state.join("wrangler-logs"))
        // Else every call of every binding is written down as a span, which takes longer than the call.
        .env("X_LOCAL_OBSERVABILITY", "false")
        .env(
            "NODE_OPTIONS",
            format!("--import {}", project.root().join("xtask/stack/die-with-parent.mjs").display()),
        );
    wrangler
}

/// The address in wrangler's line `Ready on http://127.0.0.1:8787`.
fn ready_url(log: &str) -> Option<&str> {
    let (_, rest) = log.split_once("Ready on ")?;
    rest.lines().next().map(str::trim)
}

/// The port in wrangler's `"userWorkerInspectorUrl":{"protocol":"ws:","hostname":"127.0.0.1","port":"36097",…`.
fn inspector_port(log: &str) -> Option<&str> {
    let (_, rest) = log.rsplit_once("\"userWorkerInspectorUrl\":{")?;
    let (_, rest) = rest.split_once("\"port\":\"")?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::{inspector_port, ready_url};

    #[test]
    fn the_inspector_is_read_from_the_log() {
        let url = r#""userWorkerInspectorUrl":{"protocol":"ws:","hostname":"127.0.0.1","port":"36097","pathname":"/x"}"#;
        assert_eq!(inspector_port(&format!("{{\"port\":\"1\",{url}}}")), Some("36097"));
        assert_eq!(inspector_port("starting"), None);
    }

    #[test]
    fn the_address_is_read_from_the_log() {
        assert_eq!(
            ready_url("starting\n[wrangler:info] Ready on http://127.0.0.1:41889\nGET"),
            Some("http://127.0.0.1:41889")
        );
        assert_eq!(ready_url("starting"), None);
    }
}
