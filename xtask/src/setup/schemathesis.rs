//! Schemathesis, which tries the API against its description; only `cargo xtask test` needs it.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use super::{Project, Site, output, run};

const HELP: &str = "Schemathesis cannot be installed. Is PyPI in reach, and is this Python 3.10 or later? \
    Then run this again.";

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
    if !run::succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"])) {
        bail!(
            "python3 with its module venv is needed for cargo xtask test and does not run. Install Python 3.10 or later \
             (Debian and Ubuntu: apt-get install python3-venv). Everything else works without it."
        );
    }
    stamp.clear();
    output::step("Schemathesis, from PyPI", "10 to 30 s", || {
        let mut venv = Command::new("python3");
        site.run(venv.args(["-m", "venv", "--clear"]).arg(folder(project)), "venv").context(HELP)?;
        let mut pip = Command::new(python(project));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
        site.run(pip.arg(&requirements), "pip").context(HELP)
    })?;
    stamp.set()
}

fn folder(project: &Project) -> PathBuf {
    project.tools().join("schemathesis")
}
