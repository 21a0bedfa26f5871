//! The npm packages: wrangler with the runtime, Node for it, and the two wasm tools that `worker-build` calls.

use std::{fs, process::Command};

use anyhow::{Context, Result, bail};

use super::{Site, output, run};
use crate::project::Project;

/// Installs exactly what `package-lock.json` says into `node_modules`.
pub(super) fn ensure(site: &Site<'_>) -> Result<()> {
    let project = site.project;
    let lockfile = project.root().join("package-lock.json");
    let key =
        fs::read_to_string(&lockfile).with_context(|| format!("{} cannot be read", lockfile.display()))?;
    let stamp = site.stamp("node", key);
    if stamp.is_set() && project.npm_command("node").exists() {
        return Ok(());
    }
    if !run::succeeds(Command::new("npm").arg("--version")) {
        bail!("npm is needed and does not run. Install Node.js, of any version that comes with npm.");
    }
    stamp.clear();
    output::step("wrangler, the runtime and Node, from npm", "10 to 30 s", || {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(project.root());
        site.run(&mut npm, "npm").context(
            "The npm packages cannot be installed. Is the npm registry in reach? Then run this again.",
        )
    })?;
    check_node(project)?;
    stamp.set()
}

/// The package `node` puts its program in place by a script, which npm can be told not to run.
fn check_node(project: &Project) -> Result<()> {
    if !run::succeeds(Command::new(project.npm_command("node")).arg("--version")) {
        bail!(
            "npm has installed its packages, but not run their scripts, so that Node is missing. \
             Allow scripts (npm config set ignore-scripts false) and run this again."
        );
    }
    Ok(())
}
