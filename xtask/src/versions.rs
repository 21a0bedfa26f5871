//! Which versions of the tools to use: those of the libraries they belong to, as `Cargo.lock` says them.

use std::fs;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::project::Project;

/// The versions of the tools that cargo does not install by itself.
#[derive(Debug)]
pub(crate) struct Versions {
    /// Published together with the library `worker`, under the same version.
    pub(crate) worker_build: String,
    /// Must be exactly the library's, or the command refuses the module.
    pub(crate) wasm_bindgen: String,
}

#[derive(Deserialize)]
struct Lockfile {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
}

impl Versions {
    /// Reads them.
    pub(crate) fn read(project: &Project) -> Result<Self> {
        let path = project.root().join("Cargo.lock");
        let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} does not say the versions", path.display()))
    }

    fn parse(lockfile: &str) -> Result<Self> {
        let lockfile: Lockfile = toml::from_str(lockfile)?;
        let version = |name: &str| {
            let package = lockfile.package.iter().find(|package| package.name == name);
            package.map(|package| package.version.clone()).with_context(|| format!("no package {name}"))
        };
        Ok(Self { worker_build: version("worker")?, wasm_bindgen: version("wasm-bindgen")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_have_the_versions_of_their_libraries() {
        let lockfile = "version = 4\n\
            [[package]]\nname = \"wasm-bindgen\"\nversion = \"0.2.1\"\n\
            [[package]]\nname = \"worker\"\nversion = \"0.8.0\"\n";
        let versions = Versions::parse(lockfile).unwrap();
        assert_eq!((versions.worker_build.as_str(), versions.wasm_bindgen.as_str()), ("0.8.0", "0.2.1"));
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = Versions::parse("package = []").unwrap_err();
        assert!(error.to_string().contains("no package worker"), "{error}");
    }
}
