//! The `wasm-bindgen` command.
//!
//! `worker-build` would download it. Compiling what it needs of it takes seconds (`xtask/wasm-bindgen` says why),
//! and then everybody builds with the same program, also where nothing but the registries can be reached.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{Project, Site, built_lightly, output};

const PACKAGE: &str = "wasm-bindgen-tool";

/// Where it is.
pub(super) fn path(project: &Project) -> PathBuf {
    project.tools().join("bin/wasm-bindgen")
}

/// Builds it.
pub(super) fn ensure(site: &Site<'_>) -> Result<()> {
    let (project, version) = (site.project, &site.versions.wasm_bindgen);
    let source = project.root().join("xtask/wasm-bindgen/src/main.rs");
    let source =
        fs::read_to_string(&source).with_context(|| format!("{} cannot be read", source.display()))?;
    let stamp = site.stamp("wasm-bindgen", format!("{version}\n{source}"));
    if stamp.is_set() && path(project).exists() {
        return Ok(());
    }
    stamp.clear();
    let build = site.tools().join("build/wasm-bindgen");
    output::step(&format!("wasm-bindgen {version}, from source"), "20 to 60 s", || {
        let mut cargo = project.cargo();
        cargo.args(["build", "--release", "--package", PACKAGE]).env("CARGO_TARGET_DIR", &build);
        built_lightly(&mut cargo, "1");
        site.run(&mut cargo, "wasm-bindgen").context(
            "The wasm-bindgen command cannot be built. Is crates.io in reach? Then run this again.",
        )?;
        keep(&build.join("release/wasm-bindgen-tool"), &path(project))
    })?;
    fs::remove_dir_all(&build).with_context(|| format!("{} cannot be removed", build.display()))?;
    stamp.set()
}

fn keep(built: &Path, place: &Path) -> Result<()> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(built, place).with_context(|| format!("{} cannot be copied", built.display()))?;
    Ok(())
}
