//! Debian's Rust toolchain, inside the project, for a network where only package registries answer.
//!
//! A standard library must be built by the compiler it belongs to, and Debian is the one that packages both the
//! compiler and the library's sources. The packages are downloaded by apt and unpacked into `.tools`, not installed:
//! the system stays as it is, no right to change it is needed, and a system toolchain does not get in the way.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{Site, Stamp, output, run, standard_library, wasm_target::with_first};

/// The compiler, cargo, the library's sources and the linter, all of one version. The linker is chosen below.
const PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"];

/// What is here although the system has it too: these must come from one place, or the compiler finds the wrong
/// library beside it.
const OF_THE_TOOLCHAIN: [&str; 5] = ["rust", "cargo", "libstd-rust", "lld", "libllvm"];

/// What a package in dpkg's list says of others.
const RELATIONS: [&str; 4] = ["Depends:", "Pre-Depends:", "Conflicts:", "Breaks:"];

/// Whether this machine can do it.
pub(super) fn is_here() -> bool {
    ["apt-get", "dpkg-deb"].iter().all(|tool| run::succeeds(Command::new(tool).arg("--version")))
}

/// The unpacked toolchain, when it is complete.
pub(super) fn ready(site: &Site<'_>) -> Option<PathBuf> {
    stamp(site).is_set().then(|| usr(site))
}

/// Downloads and unpacks the toolchain, and builds the standard library with it.
pub(super) fn ensure(site: &Site<'_>) -> Result<PathBuf> {
    let folder = folder(site);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let archives = output::step("Debian's Rust toolchain, from apt", "5 to 60 s", || download(site))
        .context(
            "Debian's packages cannot be downloaded. Is its registry in reach, and Debian 12 or later here?",
        )?;
    output::step("unpacking it", "10 s", || archives.iter().try_for_each(|archive| unpack(site, archive)))?;
    let usr = usr(site);
    link_linker(&usr)?;
    output::step("the standard library for wasm32, from source", "40 to 90 s", || {
        standard_library::build(site, &usr)
    })?;
    fs::remove_dir_all(folder.join("apt"))?;
    stamp(site).set()?;
    Ok(usr)
}

/// Lets `command` run programs of the toolchain at `usr`.
pub(super) fn environment(command: &mut Command, usr: &Path) {
    command.env("LD_LIBRARY_PATH", with_first(&libraries(usr), "LD_LIBRARY_PATH"));
    // What rustup and the outer cargo say is about another toolchain.
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
}

fn stamp(site: &Site<'_>) -> Stamp {
    site.stamp("debian", "1")
}

fn folder(site: &Site<'_>) -> PathBuf {
    site.tools().join("debian")
}

fn usr(site: &Site<'_>) -> PathBuf {
    folder(site).join("usr")
}

/// `usr/lib/x86_64-linux-gnu` and its like.
fn libraries(usr: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(usr.join("lib")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with("-linux-gnu")).collect()
}

fn download(site: &Site<'_>) -> Result<Vec<PathBuf>> {
    let apt = Apt::update(site, folder(site).join("apt"))?;
    let linker = apt.newest_linker()?;
    let mut install = apt.command("apt-get");
    install
        .args(["install", "--yes", "--download-only", "--no-install-recommends"])
        .args(PACKAGES)
        .arg(linker);
    site.run(&mut install, "apt-install")?;
    let entries = fs::read_dir(apt.folder.join("cache/archives"))?;
    let paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    Ok(paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect())
}

/// apt, with its lists and its cache inside the project.
pub(super) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// One that keeps everything in `folder`, and knows what there is today.
    pub(super) fn update(site: &Site<'_>, folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(folder.join("lists/partial"))?;
        fs::create_dir_all(folder.join("cache/archives/partial"))?;
        let system =
            fs::read_to_string("/var/lib/dpkg/status").context("dpkg's list of packages cannot be read")?;
        fs::write(folder.join("status"), without_toolchain(&system) + "\n")?;
        let apt = Self { folder };
        site.run(apt.command("apt-get").arg("update"), "apt-update")?;
        Ok(apt)
    }

    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (setting, value) in [("State::lists", "lists"), ("State::status", "status"), ("Cache", "cache")] {
            command.arg("-o").arg(format!("Dir::{setting}={}", self.folder.join(value).display()));
        }
        // Neither the system's locks nor its unprivileged user matter in a folder of our own.
        command.args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="]).env("LC_ALL", "C");
        command
    }

    /// The newest LLVM linker: any links what rustc hands it.
    fn newest_linker(&self) -> Result<String> {
        let names = run::output_of(self.command("apt-cache").args(["pkgnames", "lld-"]))?;
        let newest = names.lines().filter_map(linker_version).max();
        Ok(format!("lld-{}", newest.context("there is no package lld-N")?))
    }
}

/// dpkg's list of packages without those of [`OF_THE_TOOLCHAIN`], so that apt fetches them even if the system has
/// them. No other lacks anything then: what they say of each other is left out too.
fn without_toolchain(status: &str) -> String {
    let of_the_toolchain = |paragraph: &str| {
        let name = paragraph.lines().find_map(|line| line.strip_prefix("Package: ")).unwrap_or_default();
        OF_THE_TOOLCHAIN.iter().any(|prefix| name.starts_with(prefix))
    };
    let kept = status.split("\n\n").filter(|paragraph| !of_the_toolchain(paragraph));
    kept.map(without_relations).collect::<Vec<_>>().join("\n\n")
}

fn without_relations(paragraph: &str) -> String {
    let relates = |line: &&str| RELATIONS.iter().any(|field| line.starts_with(field));
    paragraph.lines().filter(|line| !relates(line)).collect::<Vec<_>>().join("\n")
}

/// Unpacks what is needed: not the manuals, and of the sources only the library's.
fn unpack(site: &Site<'_>, archive: &Path) -> Result<()> {
    let mut dpkg =
        Command::new("dpkg-deb").arg("--fsys-tarfile").arg(archive).stdout(Stdio::piped()).spawn()?;
    let contents = dpkg.stdout.take().context("dpkg-deb has no output")?;
    let log = site.log("unpack");
    let unpacked = Command::new("tar")
        .args(["--extract", "--no-same-owner", "--no-wildcards-match-slash", "--exclude=./usr/share"])
        .args(["--exclude=./usr/src/*/src", "--exclude=./usr/src/*/compiler", "--directory"])
        .arg(folder(site))
        .stdin(contents)
        .stderr(File::create(&log)?)
        .status()?;
    if !dpkg.wait()?.success() || !unpacked.success() {
        bail!("{} cannot be unpacked: {}", archive.display(), fs::read_to_string(log)?);
    }
    Ok(())
}

/// rustc looks for a program `rust-lld` among its own, which Debian does not package for wasm.
fn link_linker(usr: &Path) -> Result<()> {
    let names = fs::read_dir(usr.join("bin"))?.flatten().map(|entry| entry.file_name());
    let mut linkers = names.filter(|name| linker_version(&name.to_string_lossy()).is_some());
    let linker = linkers.next().context("the package of the linker has no lld")?;
    let folder = usr.join("lib/rustlib").join(format!("{}-unknown-linux-gnu", env::consts::ARCH)).join("bin");
    fs::create_dir_all(&folder)?;
    // Relative, so that the project's folder can be moved.
    symlink(Path::new("../../../../bin").join(linker), folder.join("rust-lld"))?;
    Ok(())
}

/// The 22 of `lld-22`.
fn linker_version(name: &str) -> Option<u32> {
    name.strip_prefix("lld-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::without_toolchain;

    #[test]
    fn a_toolchain_of_the_system_does_not_count_and_is_not_missed() {
        let status = "Package: dh-cargo\nDepends: cargo\nVersion: 2\n\nPackage: rustc\nVersion: 1\n\n\
            Package: zlib1g\nVersion: 1\n";
        assert_eq!(without_toolchain(status), "Package: dh-cargo\nVersion: 2\n\nPackage: zlib1g\nVersion: 1");
    }
}
