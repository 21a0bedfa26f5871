//! `worker-build`, which turns a crate into a Worker.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use super::{Project, Site, built_lightly, output};

const HELP: &str = "worker-build cannot be installed. On Linux it needs a C compiler and OpenSSL's headers \
    (Debian and Ubuntu: apt-get install build-essential pkg-config libssl-dev; Fedora: dnf install gcc openssl-devel), \
    and everywhere Rust 1.91 or later (rustup update). Then run this again.";

/// Where it is.
pub(super) fn path(project: &Project) -> PathBuf {
    project.tools().join("worker-build/bin/worker-build")
}

/// Installs it.
pub(super) fn ensure(site: &Site<'_>) -> Result<()> {
    let (project, version) = (site.project, &site.versions.worker_build);
    let stamp = site.stamp("worker-build", version);
    if stamp.is_set() && path(project).exists() {
        return Ok(());
    }
    stamp.clear();
    let build = site.tools().join("build/worker-build");
    output::step(&format!("worker-build {version}, from source"), "1 to 2 min", || {
        let mut cargo = project.cargo();
        cargo
            .args([
                "install",
                "worker-build",
                "--locked",
                "--force",
                "--bin",
                "worker-build",
                "--version",
                version,
            ])
            .arg("--root")
            .arg(site.tools().join("worker-build"))
            .env("CARGO_TARGET_DIR", &build);
        // It reads a few files and starts other programs: nothing for an optimiser.
        built_lightly(&mut cargo, "0");
        site.run(&mut cargo, "worker-build").context(HELP)
    })?;
    fs::remove_dir_all(&build).with_context(|| format!("{} cannot be removed", build.display()))?;
    stamp.set()
}
