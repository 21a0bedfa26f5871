//! `cargo-mutants`, which changes the code and asks whether a test notices. Only `cargo xtask mutants` has it installed.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use super::{Project, Site, built_lightly, output};

/// Belongs to no library: this is the one place that says it.
const VERSION: &str = "27.1.0";

const HELP: &str =
    "cargo-mutants cannot be installed. It needs Rust 1.91 or later (rustup update). Then run this again.";

fn path(project: &Project) -> PathBuf {
    project.tools().join("cargo-mutants/bin/cargo-mutants")
}

/// Installs it, and says where it is.
pub(super) fn ensure(site: &Site<'_>) -> Result<PathBuf> {
    let (project, program) = (site.project, path(site.project));
    let stamp = site.stamp("cargo-mutants", VERSION);
    if stamp.is_set() && program.exists() {
        return Ok(program);
    }
    stamp.clear();
    let build = site.tools().join("build/cargo-mutants");
    output::step(&format!("cargo-mutants {VERSION}, from source"), "1 to 2 min", || {
        let mut cargo = project.cargo();
        cargo
            .args(["install", "cargo-mutants", "--locked", "--force", "--version", VERSION])
            .arg("--root")
            .arg(site.tools().join("cargo-mutants"))
            .env("CARGO_TARGET_DIR", &build);
        // It waits for cargo nearly all of its time: nothing for an optimiser.
        built_lightly(&mut cargo, "0");
        site.run(&mut cargo, "cargo-mutants").context(HELP)
    })?;
    fs::remove_dir_all(&build).with_context(|| format!("{} cannot be removed", build.display()))?;
    stamp.set()?;
    Ok(program)
}
