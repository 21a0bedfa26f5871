//! The compiler for `wasm32-unknown-unknown`: rustup's, or Debian's where rustup cannot download.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{Site, debian, output, run};

/// What the Workers are compiled for.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// A toolchain that can compile the Workers.
#[derive(Debug)]
pub enum WasmTarget {
    /// The one that everything else is compiled with: it has the target's standard library.
    Native,
    /// Debian's, unpacked inside the project at this folder.
    Debian(PathBuf),
}

impl WasmTarget {
    /// A command of this toolchain, or any other program, with the toolchain and `path` first on its path.
    pub(super) fn command(&self, program: &str, path: &[PathBuf]) -> Command {
        let mut command = Command::new(program);
        let mut folders = path.to_vec();
        if let Self::Debian(usr) = self {
            folders.insert(0, usr.join("bin"));
            if !program.contains('/') {
                command = Command::new(usr.join("bin").join(program));
            }
            debian::environment(&mut command, usr);
        }
        command.env("PATH", with_first(&folders, "PATH"));
        command
    }

    /// How a person would call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Native => "the native toolchain",
            Self::Debian(_) => "Debian's toolchain in .tools",
        }
    }
}

/// Finds a toolchain that has the target, or makes one have it.
pub(super) fn ensure(site: &Site<'_>) -> Result<WasmTarget> {
    if native_has_target()? {
        return Ok(WasmTarget::Native);
    }
    if let Some(usr) = debian::ready(site) {
        return Ok(WasmTarget::Debian(usr));
    }
    let added = output::step("the wasm32 target, from rustup", "5 s", || {
        Ok(run::output_of(Command::new("rustup").args(["target", "add", TARGET]).env("RUST_BACKTRACE", "0")))
    })?;
    match added {
        Ok(_) if native_has_target()? => Ok(WasmTarget::Native),
        outcome if debian::is_here() => {
            output::note("  rustup cannot download the wasm32 target here; taking Debian's sources instead");
            debian::ensure(site).with_context(|| advice(outcome)).map(WasmTarget::Debian)
        }
        outcome => bail!("{}", advice(outcome)),
    }
}

fn advice(outcome: Result<String>) -> String {
    let rustup = match outcome {
        Ok(_) => "rustup added it to another toolchain than the one in use".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    format!(
        "The Rust target {TARGET} is missing. With rustup: rustup target add {TARGET}. With your system's Rust: install \
         its package of that target's standard library. Then run this again. What rustup said:\n{rustup}"
    )
}

/// Whether the toolchain in use has the target's standard library.
fn native_has_target() -> Result<bool> {
    let mut rustc = Command::new("rustc");
    let folder = run::output_of(rustc.args(["--print", "target-libdir", "--target", TARGET]))
        .context("rustc does not run. Install Rust with rustup, then run this again.")?;
    Ok(Path::new(folder.trim()).is_dir())
}

/// The variable `name` with `folders` before what it holds.
pub(super) fn with_first(folders: &[PathBuf], name: &str) -> OsString {
    let found = env::var_os(name).unwrap_or_default();
    let all =
        folders.iter().cloned().chain(env::split_paths(&found).filter(|path| !path.as_os_str().is_empty()));
    env::join_paths(all).unwrap_or(found)
}
