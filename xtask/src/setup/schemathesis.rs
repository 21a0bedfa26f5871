//! Schemathesis, which tries the API against its description; only `cargo xtask test` needs it.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use super::{Project, Site, output, run};

/// What it stands on, asked of the machine's Python.
const NEEDS: &str = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))";

/// The Python that has it.
pub fn python(project: &Project) -> PathBuf {
    folder(project).join("bin/python")
}

/// Installs exactly what `tests/e2e/schemathesis/requirements.txt` says, into an environment of its own.
pub(super) fn ensure(site: &Site<'_>) -> Result<()> {
    let project = site.project;
    let requirements = project.root().join("tests/e2e/schemathesis/requirements.txt");
    let key = fs::read_to_string(&requirements)
        .with_context(|| format!("{} cannot be read", requirements.display()))?;
    let stamp = site.stamp("schemathesis", key);
    // Asked of it, because it stands on the machine's Python, which can have gone.
    if stamp.is_set() && run::succeeds(Command::new(python(project)).args(["-c", "import schemathesis"])) {
        return Ok(());
    }
    if !run::succeeds(Command::new("python3").args(["-c", NEEDS])) {
        bail!(
            "cargo xtask test needs python3, 3.11 or later, with its module venv, and it is not here (Debian and Ubuntu: \
             apt-get install python3-venv). Everything else works without it."
        );
    }
    stamp.clear();
    output::step("Schemathesis, from PyPI", "10 to 30 s", || {
        let mut venv = Command::new("python3");
        site.run(venv.args(["-m", "venv", "--clear"]).arg(folder(project)), "venv")?;
        let mut pip = Command::new(python(project));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
        site.run(pip.arg(&requirements), "pip")
            .context("Schemathesis cannot be installed. Is PyPI in reach? Then run this again.")
    })?;
    stamp.set()
}

fn folder(project: &Project) -> PathBuf {
    project.tools().join("schemathesis")
}
