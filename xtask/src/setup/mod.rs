//! Puts the tools in place, inside the project, once.
//!
//! Every step leaves a stamp that says for which versions it was done, and only when it was done completely. So a
//! step that was killed runs again, a new version runs its step again, and a second run costs a few file reads.

mod cargo_tool;
mod debian;
mod node;
pub mod python;
mod rclone;
mod stamp;
mod standard_library;
mod wasm_bindgen;
mod wasm_target;
mod worker_build;

use std::{
    fs::{self, File, TryLockError},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result};

use crate::{output, project::Project, run, versions::Versions};
use cargo_tool::CargoTool;
use stamp::Stamp;
pub(crate) use wasm_target::TARGET;
pub use wasm_target::WasmTarget;

/// The tools that set-up has put in place.
#[derive(Debug)]
pub struct Toolbox {
    /// The project they are in.
    pub project: Project,
    /// The compiler for the Workers.
    pub wasm: WasmTarget,
}

impl Toolbox {
    /// Puts in place what is missing.
    ///
    /// # Errors
    /// When a step fails: what failed, the end of what it printed, and what to do.
    pub fn ensure() -> Result<Self> {
        Self::ensure_and(|_| Ok(()))
    }

    /// The same with what only the tests need.
    ///
    /// # Errors
    /// As [`Toolbox::ensure`].
    pub fn ensure_for_tests() -> Result<Self> {
        Self::ensure_and(|site| {
            python::Environment::ALL.iter().try_for_each(|environment| environment.ensure(site))
        })
    }

    fn ensure_and(more: impl FnOnce(&Site<'_>) -> Result<()>) -> Result<Self> {
        let project = Project::locate()?;
        let site = Site::enter(&project)?;
        node::ensure(&site)?;
        let wasm = wasm_target::ensure(&site)?;
        worker_build::ensure(&site)?;
        wasm_bindgen::ensure(&site)?;
        more(&site)?;
        drop(site);
        Ok(Self { project, wasm })
    }

    /// Puts in place what is written in Python and only one task needs.
    ///
    /// # Errors
    /// When Python or its index is not here.
    pub(crate) fn ensure_python(&self, environment: &python::Environment) -> Result<()> {
        environment.ensure(&Site::enter(&self.project)?)
    }

    /// Puts rclone in place, where the machine has none, and says where it is.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(crate) fn ensure_rclone(&self) -> Result<PathBuf> {
        rclone::ensure(&Site::enter(&self.project)?)
    }

    /// A command of the wasm toolchain, such as `cargo`, with all that a build of the Workers needs.
    pub fn wasm_command(&self, program: &str) -> Command {
        let project = &self.project;
        let mut command = self.wasm.command(program, &[project.root().join("node_modules/.bin")]);
        command
            .current_dir(project.root())
            .env("CARGO_TARGET_DIR", project.wasm_target())
            // worker-build sets it for its own cargo; without it the same crate would be built twice.
            .env("WASM_BINDGEN_USE_JS_SYS", "1")
            .env("WASM_BINDGEN_BIN", wasm_bindgen::path(project))
            .env("WASM_OPT_BIN", project.npm_command("wasm-opt"))
            .env("ESBUILD_BIN", project.npm_command("esbuild"));
        command
    }

    /// `worker-build`, ready to be run in a Worker's folder.
    pub fn worker_build(&self) -> Command {
        self.wasm_command(&worker_build::path(&self.project).to_string_lossy())
    }
}

/// Puts `cargo-mutants` in place, which only one task needs, and says where it is.
pub(crate) fn ensure_cargo_mutants(project: &Project) -> Result<PathBuf> {
    ensure_cargo_tool(project, &cargo_tool::MUTANTS)
}

/// Puts `cargo-deny` in place, which only one task needs, and says where it is.
pub(crate) fn ensure_cargo_deny(project: &Project) -> Result<PathBuf> {
    ensure_cargo_tool(project, &cargo_tool::DENY)
}

fn ensure_cargo_tool(project: &Project, tool: &CargoTool) -> Result<PathBuf> {
    tool.ensure(&Site { lock: lock(project, "setup")?, versions: Versions::read(project)?, project })
}

/// Waits until no other `xtask` does the same, and keeps others waiting until it is dropped.
pub(crate) fn lock(project: &Project, name: &str) -> Result<File> {
    let tools = project.tools();
    fs::create_dir_all(&tools).with_context(|| format!("{} cannot be made", tools.display()))?;
    // Makes git, and everything that follows it, pass the folder by.
    fs::write(tools.join(".gitignore"), "*\n")?;
    let path = tools.join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            output::note(format!("  waiting for another cargo xtask ({name}) ..."));
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error).context("the lock file cannot be locked"),
    }
    Ok(file)
}

/// Names the tools that turn what cargo made into a Worker.
pub(crate) fn fingerprint(project: &Project) -> String {
    let stamps = project.tools().join("stamps");
    let found = ["worker-build", "wasm-bindgen", "node"].map(|step| fs::read_to_string(stamps.join(step)));
    found.map(Result::unwrap_or_default).concat()
}

/// What every step works with.
#[derive(Debug)]
struct Site<'a> {
    project: &'a Project,
    versions: Versions,
    lock: File,
}

impl<'a> Site<'a> {
    /// Waits until nobody else is at it.
    fn enter(project: &'a Project) -> Result<Self> {
        Ok(Self { lock: lock(project, "setup")?, versions: Versions::read(project)?, project })
    }

    fn tools(&self) -> PathBuf {
        self.project.tools()
    }

    fn stamp(&self, step: &str, key: impl Into<String>) -> Stamp {
        Stamp::new(self.project, step, key)
    }

    /// Runs a command of a step, quietly.
    fn run(&self, command: &mut Command, step: &str) -> Result<()> {
        run::logged(command, &self.log(step), &self.lock)
    }

    fn log(&self, step: &str) -> PathBuf {
        self.tools().join("logs").join(format!("{step}.log"))
    }
}

/// Makes cargo build a tool that runs for seconds: quickly, rather than to be quick.
fn built_lightly(cargo: &mut Command, opt_level: &str) {
    for (setting, value) in [
        ("OPT_LEVEL", opt_level),
        ("LTO", "off"),
        ("CODEGEN_UNITS", "16"),
        ("DEBUG", "0"),
        ("PANIC", "unwind"),
    ] {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{setting}"), value);
    }
}
