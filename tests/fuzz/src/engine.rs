//! libFuzzer: built with coverage, run, and asked how far it came.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use fuzz::Target;

/// What LLVM is asked for: counters on every edge, and what is compared. These are options of a stable compiler; a
/// sanitizer, which is not, would find errors of memory, and there is no unsafe code here.
const COVERAGE: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-sanitizer-coverage-stack-depth",
    "-Cforce-frame-pointers",
];

const HELP: &str = "the targets cannot be built for libFuzzer. It takes a C++ compiler (Debian and Ubuntu: \
    apt-get install build-essential; Fedora: dnf install gcc-c++), and Linux on x86_64 or aarch64.";

/// The program, and where it works.
pub(crate) struct Engine {
    program: PathBuf,
    folder: PathBuf,
}

/// What a run has shown.
pub(crate) struct Ran {
    pub(crate) executions: u64,
    /// Edges of the code that were come to.
    pub(crate) edges: u64,
    /// The input that a target did not stand.
    pub(crate) crash: Option<PathBuf>,
}

/// Builds it, in a folder of its own: everything in it is built with coverage.
pub(crate) fn build() -> Result<Engine> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
    let folder = target.join("fuzz");
    let cargo = || Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let version = cargo().args(["--version", "--verbose"]).output().context("cargo cannot be started")?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("cargo names no host")?;
    let status = cargo()
        .current_dir(&root)
        .args([
            "build",
            "--quiet",
            "--profile",
            "fuzz",
            "--package",
            "fuzz-engine",
            "--features",
            "libfuzzer",
        ])
        // Named, so that what runs at build time is built without.
        .args(["--target", host])
        .env("CARGO_TARGET_DIR", &folder)
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\u{1f}"))
        .status()
        .context("cargo cannot be started")?;
    ensure!(status.success(), HELP);
    Ok(Engine { program: folder.join(host).join("fuzz/fuzz-engine"), folder })
}

impl Engine {
    /// Runs a target for so many seconds, from these inputs on.
    pub(crate) fn run(&self, target: Target, seeds: &[Vec<u8>], seconds: u32) -> Result<Ran> {
        let corpus = self.folder.join("corpus").join(target.name());
        fs::create_dir_all(&corpus)?;
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(corpus.join(format!("seed-{number}")), seed)?;
        }
        let crashes = self.folder.join("crashes");
        fs::create_dir_all(&crashes)?;
        let output = self
            .command(target)
            .arg(&corpus)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/{}-", crashes.display(), target.name()))
            .args(["-print_final_stats=1", "-rss_limit_mb=1024", "-timeout=10"])
            .output()
            .context("the targets cannot be started")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let crash = said
            .lines()
            .find_map(|line| line.split_once("Test unit written to "))
            .map(|(_, path)| path.into());
        ensure!(output.status.success() || crash.is_some(), "libFuzzer has failed:\n{said}");
        let last = |name: &str| {
            said.lines()
                .rev()
                .find_map(|line| line.split_once(name)?.1.split_whitespace().next()?.parse().ok())
        };
        let executions = last("stat::number_of_executed_units:").unwrap_or_default();
        Ok(Ran { executions, edges: last(" cov: ").unwrap_or_default(), crash })
    }

    /// As few and short inputs as cover what all that were found do.
    pub(crate) fn minimise(&self, target: Target) -> Result<Vec<Vec<u8>>> {
        let corpus = self.folder.join("corpus").join(target.name());
        let least = self.folder.join("least").join(target.name());
        if least.exists() {
            fs::remove_dir_all(&least)?;
        }
        fs::create_dir_all(&least)?;
        let output = self.command(target).arg("-merge=1").arg(&least).arg(&corpus).output()?;
        ensure!(
            output.status.success(),
            "libFuzzer cannot merge: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        fs::read_dir(&least)?.map(|entry| Ok(fs::read(entry?.path())?)).collect()
    }

    fn command(&self, target: Target) -> Command {
        let mut command = Command::new(&self.program);
        command.env("FUZZ_TARGET", target.name()).arg(format!("-max_len={}", target.bytes_max()));
        command
    }
}
