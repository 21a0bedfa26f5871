//! Building the two Workers, and watching their size.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use flate2::{Compression, write::GzEncoder};

use crate::{
    output,
    project::{Project, Worker},
    run,
    setup::{self, Toolbox},
};

/// What a Worker's wasm may take. Cloudflare's limit is 3 MB gzipped; these keep the start-up short. They are what it takes,
/// and little more; whoever raises them says what for.
const fn most(worker: Worker) -> Size {
    match worker {
        Worker::Producer => Size { raw: 370_000, gzipped: 156_000 },
        Worker::Consumer => Size { raw: 348_000, gzipped: 147_000 },
    }
}

/// Builds `workers` and prints the size of each.
///
/// # Errors
/// When one does not compile or is larger than it may be.
pub fn build(toolbox: &Toolbox, workers: &[Worker]) -> Result<()> {
    let lock = setup::lock(&toolbox.project, "build")?;
    for &worker in workers {
        output::step(&format!("building the {}", worker.name()), "a minute the first time", || {
            build_crate(toolbox, &toolbox.project.worker_crate(worker), &lock)
        })?;
        let (size, most) = (Size::of(&toolbox.project, worker)?, most(worker));
        output::say(format!("{}: {size} (at most {most})", worker.name()));
        size.check(most).with_context(|| format!("The {} is too large.", worker.name()))?;
    }
    Ok(())
}

/// Fails with advice when `worker` has not been built.
///
/// # Errors
/// When it has not.
pub fn require_built(project: &Project, worker: Worker) -> Result<()> {
    let module = project.worker_crate(worker).join("build/index.js");
    if !module.exists() {
        bail!("{} is missing. Run cargo xtask build first.", module.display());
    }
    Ok(())
}

/// The wasm of a Worker that has been built.
pub(crate) fn wasm(project: &Project, worker: Worker) -> PathBuf {
    project.worker_crate(worker).join("build/index_bg.wasm")
}

/// Builds a crate that is a Worker too, but none that is deployed: its size is nobody's concern.
///
/// # Errors
/// When it does not compile.
pub(crate) fn build_beside(toolbox: &Toolbox, folder: &Path) -> Result<()> {
    build_crate(toolbox, folder, &setup::lock(&toolbox.project, "build")?)
}

/// Cargo decides whether there is anything to do; `worker-build` on top of it runs only for another module.
fn build_crate(toolbox: &Toolbox, folder: &Path, lock: &File) -> Result<()> {
    let project = &toolbox.project;
    let manifest = read(&folder.join("Cargo.toml"))?;
    let package: toml::Table = String::from_utf8_lossy(&manifest).parse()?;
    let name = package.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
    let name = name.context("a manifest without a name")?;
    let mut cargo = toolbox.wasm_command("cargo");
    // The command line is worker-build's own, so that the two share what is built.
    cargo.args(["build", "--lib", "--quiet", "--release", "--target", setup::TARGET]).current_dir(folder);
    run::shown(&mut cargo).with_context(|| format!("The {name} does not compile."))?;

    // All that goes into `build/`: what cargo made, the tools that follow, and the options that the manifest holds for them.
    let made = format!("{}/release/{}.wasm", setup::TARGET, name.replace('-', "_"));
    let mut hasher = DefaultHasher::new();
    read(&project.wasm_target().join(made))?.hash(&mut hasher);
    manifest.hash(&mut hasher);
    setup::fingerprint(project).hash(&mut hasher);
    let key = format!("{:016x}", hasher.finish());
    let mark = project.wasm_target().join(format!("{name}.built"));
    if fs::read_to_string(&mark).is_ok_and(|found| found == key) && folder.join("build/index.js").exists() {
        return Ok(());
    }
    let mut worker_build = toolbox.worker_build();
    worker_build.arg("--release").current_dir(folder);
    let log = project.wasm_target().join(format!("{name}.log"));
    run::logged(&mut worker_build, &log, lock)
        .with_context(|| format!("worker-build fails on the {name}."))?;
    fs::write(&mark, key).with_context(|| format!("{} cannot be written", mark.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// The size of a Worker's wasm, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) raw: usize,
    pub(crate) gzipped: usize,
}

impl Size {
    fn of(project: &Project, worker: Worker) -> Result<Self> {
        Self::of_bytes(&read(&wasm(project, worker))?)
    }

    /// The size of anything that is deployed.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Result<Self> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes)?;
        Ok(Self { raw: bytes.len(), gzipped: encoder.finish()?.len() })
    }

    fn check(self, most: Self) -> Result<()> {
        if self.raw > most.raw || self.gzipped > most.gzipped {
            bail!(
                "It is {self}, and may be {most}. Look for a dependency that came in, with twiggy or cargo tree."
            );
        }
        Ok(())
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} KB of wasm, {} KB gzipped", kilobytes(self.raw), kilobytes(self.gzipped))
    }
}

/// Rounded up, so that what is over a limit never reads as if it were at it.
const fn kilobytes(bytes: usize) -> usize {
    bytes.div_ceil(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_over_either_limit_is_refused() {
        let most = Size { raw: 171_200, gzipped: 70_000 };
        assert!(most.check(most).is_ok());
        for over in [Size { raw: most.raw + 1, ..most }, Size { gzipped: most.gzipped + 1, ..most }] {
            assert!(over.check(most).is_err());
        }
        assert_eq!(most.to_string(), "172 KB of wasm, 70 KB gzipped");
    }
}
