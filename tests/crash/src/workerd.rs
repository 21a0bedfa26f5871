//! The runtime itself, as a process that a test can kill.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use tempfile::TempDir;

use crate::config::Config;
use crate::process::Process;
use crate::wait::until;

/// A `workerd` process with its own ports and its own process group. It ends with the test.
#[derive(Debug)]
pub struct Workerd {
    folder: TempDir,
    sockets: Vec<String>,
    process: Process,
    output: Output,
    readers: Vec<JoinHandle<()>>,
    ports: Ports,
}

type Output = Arc<Mutex<Vec<String>>>;

type Ports = Arc<Mutex<HashMap<String, u16>>>;

/// What `workerd --control-fd` reports of a socket.
#[derive(Debug, Deserialize)]
struct Listen {
    socket: String,
    port: u16,
}

/// A start takes a few tenths of a second on an idle machine.
const START: Duration = Duration::from_mins(1);

impl Workerd {
    /// Starts the Workers and waits until all of them listen.
    ///
    /// # Errors
    /// When the runtime is not installed, a module is missing, or the runtime refuses the configuration.
    pub fn start(config: &Config) -> Result<Self> {
        Self::run(config, Output::default())
    }

    /// Starts another process, which prints to the same output.
    ///
    /// # Errors
    /// As [`Workerd::start`].
    pub fn start_another(&self, config: &Config) -> Result<Self> {
        Self::run(config, Arc::clone(&self.output))
    }

    fn run(config: &Config, output: Output) -> Result<Self> {
        let folder = TempDir::with_prefix("crash-")?;
        for worker in &config.workers {
            let modules = folder.path().join(&worker.name);
            std::fs::create_dir(&modules)?;
            for module in &worker.modules {
                let name = module.file_name().context("a module without a file name")?;
                std::fs::copy(module, modules.join(name))
                    .with_context(|| format!("{} is missing: build the Workers first", module.display()))?;
            }
        }
        std::fs::write(folder.path().join("config.capnp"), config.render()?)?;
        let sockets = config.workers.iter().map(|worker| worker.name.clone()).collect();
        let (mut readers, ports) = (Vec::new(), Ports::default());
        let process = launch(folder.path(), &output, &ports, &mut readers)?;
        let mut workerd = Self { folder, sockets, process, output, readers, ports };
        workerd.listening()?;
        Ok(workerd)
    }

    /// Where the Worker answers HTTP.
    ///
    /// # Errors
    /// When there is no Worker of that name.
    pub fn address(&self, worker: &str) -> Result<SocketAddr> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let port = ports.get(worker).with_context(|| format!("no Worker {worker} is listening"))?;
        Ok(SocketAddr::from(([127, 0, 0, 1], *port)))
    }

    /// Kills the process as nothing can prepare for (SIGKILL).
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Asks the process to end, as whoever replaces it does (SIGTERM).
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn terminate(&mut self) -> Result<()> {
        self.process.terminate()
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// When it does not end within a minute.
    pub fn wait(&mut self) -> Result<()> {
        until("workerd to end", START, || Ok(self.process.ended()?.map(drop)))
    }

    /// Kills the process, and has `successor` answer for what it has printed.
    pub(crate) fn hand_over(mut self, successor: &mut Self) -> Result<()> {
        successor.readers.append(&mut self.readers);
        self.kill()
    }

    /// Kills the process if it still runs and starts it again, on other ports.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.process = launch(self.folder.path(), &self.output, &self.ports, &mut self.readers)?;
        self.listening()
    }

    /// Everything that the runtime and the Workers have printed, restarts included.
    pub fn output(&self) -> Vec<String> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Kills the process, and gives all that it has printed to its last line.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub(crate) fn last_words(&mut self) -> Result<Vec<String>> {
        self.kill()?;
        for reader in self.readers.drain(..) {
            if reader.join().is_err() {
                bail!("the output was not read to its end");
            }
        }
        Ok(self.output())
    }

    fn listening(&mut self) -> Result<()> {
        let ready = until("workerd to listen", START, || {
            if let Some(status) = self.process.ended()? {
                bail!("workerd ended at once: {status}");
            }
            let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
            Ok((ports.len() == self.sockets.len()).then_some(()))
        });
        ready.with_context(|| format!("workerd said:\n{}", self.output().join("\n")))
    }
}

fn launch(
    folder: &Path,
    output: &Output,
    ports: &Ports,
    readers: &mut Vec<JoinHandle<()>>,
) -> Result<Process> {
    let binary = find_binary()?;
    let mut process = Process::start(
        // Experimental for the flag of the dispatcher; verbose, or exceptions that nobody caught are not printed.
        Command::new(&binary)
            .args(["serve", "--experimental", "--verbose", "--control-fd=1", "config.capnp"])
            .current_dir(folder)
            .env("PWD", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )?;
    if let (Some(stdout), Some(stderr)) = (process.child.stdout.take(), process.child.stderr.take()) {
        readers.push(collect(stdout, output, Some(ports))?);
        readers.push(collect(stderr, output, None)?);
    }
    Ok(process)
}

/// Reads a stream to its end in a thread, a line at a time.
fn collect(
    stream: impl Read + Send + 'static,
    output: &Output,
    ports: Option<&Ports>,
) -> Result<JoinHandle<()>> {
    let (output, ports) = (Arc::clone(output), ports.cloned());
    let reader = thread::Builder::new().name("workerd output".to_owned()).spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            let listen = ports.as_ref().zip(serde_json::from_str::<Listen>(&line).ok());
            match listen {
                Some((ports, Listen { socket, port })) => {
                    ports.lock().unwrap_or_else(PoisonError::into_inner).insert(socket, port);
                }
                None => output.lock().unwrap_or_else(PoisonError::into_inner).push(line),
            }
        }
    })?;
    Ok(reader)
}

/// The binary that wrangler's own runtime package carries, or the one that `WORKERD_BIN` names.
fn find_binary() -> Result<PathBuf> {
    if let Some(binary) = std::env::var_os("WORKERD_BIN") {
        return Ok(binary.into());
    }
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let os = if os == "macos" { "darwin" } else { os };
    let arch = if arch == "aarch64" { "arm64" } else { "64" };
    let package = format!("node_modules/@cloudflare/workerd-{os}-{arch}/bin/workerd");
    let binary = crate::pair::root()?.join(package);
    if !binary.exists() {
        bail!("{} is missing: `cargo xtask build` installs it", binary.display());
    }
    Ok(binary)
}
