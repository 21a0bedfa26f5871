//! Commands of cargo's that only one task needs, and has installed when it is run.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use super::{Project, Site, built_lightly, output};

/// A crate whose command is installed from source. It belongs to no library: this is the one place that says its version.
pub(super) struct CargoTool {
    name: &'static str,
    version: &'static str,
    /// How long the installation usually takes on two cores.
    usually: &'static str,
}

/// Changes the code and asks whether a test notices.
pub(super) const MUTANTS: CargoTool =
    CargoTool { name: "cargo-mutants", version: "27.1.0", usually: "1 to 2 min" };

/// Holds dependencies to `deny.toml`.
pub(super) const DENY: CargoTool = CargoTool { name: "cargo-deny", version: "0.20.2", usually: "2 to 3 min" };

impl CargoTool {
    fn path(&self, project: &Project) -> PathBuf {
        project.tools().join(self.name).join("bin").join(self.name)
    }

    /// Installs it, and says where it is.
    pub(super) fn ensure(&self, site: &Site<'_>) -> Result<PathBuf> {
        let Self { name, version, usually } = self;
        let (project, program) = (site.project, self.path(site.project));
        let stamp = site.stamp(name, *version);
        if stamp.is_set() && program.exists() {
            return Ok(program);
        }
        stamp.clear();
        let build = site.tools().join("build").join(name);
        output::step(&format!("{name} {version}, from source"), usually, || {
            let mut cargo = project.cargo();
            cargo
                .args(["install", name, "--locked", "--force", "--version", version])
                .arg("--root")
                .arg(site.tools().join(name))
                .env("CARGO_TARGET_DIR", &build);
            // It waits for others nearly all of its time: nothing for an optimiser.
            built_lightly(&mut cargo, "0");
            site.run(&mut cargo, name).with_context(|| {
                format!("{name} cannot be installed. It needs Rust 1.91 or later (rustup update). Then run this again.")
            })
        })?;
        fs::remove_dir_all(&build).with_context(|| format!("{} cannot be removed", build.display()))?;
        stamp.set()?;
        Ok(program)
    }
}
