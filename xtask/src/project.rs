//! Where things are. Nothing depends on the current folder, so that the tool works from any of the repository's.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

/// The repository that this tool was compiled in.
#[derive(Debug, Clone)]
pub struct Project {
    root: PathBuf,
}

impl Project {
    /// Finds the repository.
    ///
    /// # Errors
    /// When the folder that the tool was compiled in is gone.
    pub fn locate() -> Result<Self> {
        let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = crate_dir.parent().context("xtask has no parent folder")?;
        let root = root.canonicalize().with_context(|| format!("{} is gone", root.display()))?;
        Ok(Self { root })
    }

    /// The repository's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What set-up puts in place, apart from `node_modules`: kept out of `target`, so that `cargo clean` leaves it.
    pub fn tools(&self) -> PathBuf {
        self.root.join(".tools")
    }

    /// An npm package that set-up has installed.
    pub fn npm_package(&self, name: &str) -> PathBuf {
        self.root.join("node_modules").join(name)
    }

    /// The Workers runtime itself, which wrangler's package carries for this platform, or the one that `WORKERD_BIN` names.
    pub fn workerd(&self) -> PathBuf {
        if let Some(binary) = env::var_os("WORKERD_BIN") {
            return binary.into();
        }
        let os = if env::consts::OS == "macos" { "darwin" } else { env::consts::OS };
        let arch = if env::consts::ARCH == "aarch64" { "arm64" } else { "64" };
        self.npm_package(&format!("@cloudflare/workerd-{os}-{arch}/bin/workerd"))
    }

    /// A command of an npm package that set-up has installed.
    pub fn npm_command(&self, name: &str) -> PathBuf {
        self.root.join("node_modules/.bin").join(name)
    }

    /// Where cargo keeps what it builds.
    pub fn target(&self) -> PathBuf {
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), |dir| self.root.join(dir))
    }

    /// Where cargo keeps what it builds for the Workers: apart, so that they and the native crates neither wait for
    /// nor invalidate each other.
    pub fn wasm_target(&self) -> PathBuf {
        self.target().join("wasm")
    }

    /// The crate of a Worker.
    pub fn worker_crate(&self, worker: Worker) -> PathBuf {
        self.root.join(worker.name())
    }

    /// The configuration that a Worker is deployed with.
    pub fn wrangler_config(&self, worker: Worker) -> PathBuf {
        self.root.join(format!("wrangler.{}.toml", worker.name()))
    }

    /// The native cargo, run in the root.
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root);
        cargo
    }

    /// The pinned wrangler on the pinned Node, run in `folder`.
    pub fn wrangler(&self, folder: &Path) -> Command {
        self.wrangler_with(folder, &[])
    }

    /// The same with Node loading `modules` first.
    pub fn wrangler_with(&self, folder: &Path, modules: &[PathBuf]) -> Command {
        let mut node = Command::new(self.npm_command("node"));
        for module in modules {
            node.arg("--import").arg(module);
        }
        node.current_dir(folder)
            .arg("--no-warnings")
            .arg(self.npm_package("wrangler").join("wrangler-dist/cli.js"))
            .env("CI", "1")
            .env("NO_COLOR", "1")
            .env("WRANGLER_SEND_METRICS", "false")
            .env("WRANGLER_SEND_ERROR_REPORTS", "false")
            .env("WRANGLER_HIDE_BANNER", "true")
            // Else it asks Cloudflare where this machine is, and warns when it cannot.
            .env("CLOUDFLARE_CF_FETCH_ENABLED", "false");
        node
    }
}

/// One of the two programs that are deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Worker {
    /// Takes requests over HTTP and puts them on the queue.
    Producer,
    /// Takes messages from the queue and deletes objects.
    Consumer,
}

impl Worker {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Producer, Self::Consumer];

    /// The name of its crate, of its folder and in its configuration's file name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}
