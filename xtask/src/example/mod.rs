//! `cargo xtask example`: the backend of `clients/python/examples/fastapi` deletes a project, by each of its executors.
//!
//! 1. Start the pair; its bucket answers the S3 protocol as well, and completion notices go to the service.
//! 2. For each executor: start the service on an empty database, fill the bucket with a project's files and their
//!    neighbours, tell the service of all files but those that a backend has lost track of.
//! 3. Delete the project through the service; when it says that it is gone, list the bucket.
//! 4. Once more, with a producer that does not answer: kill the service between its commit and its request, and start it
//!    again.

mod mongo;
mod quickstart;
mod service;

use std::{
    collections::{BTreeMap, HashSet},
    env, fs,
    io::{ErrorKind, Read},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use self::{
    mongo::Mongo,
    service::{Seen, Service},
};
use crate::{
    clock::{Stopwatch, wait_for},
    demo::objects::{Objects, PROJECT},
    interrupt::Interrupt,
    output,
    project::{Project, Worker},
    run,
    setup::{self, Toolbox},
    stack::{Configs, PROJECT_TEMPLATES, S3_PATH, Stack, StackOptions, free_port},
    workers,
};

/// Of the local bucket; nothing is kept behind it.
const S3_KEY_ID: &str = "example";
const S3_SECRET: &str = "example-secret";

const NOTICE_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How long a process that died keeps its job from the next one.
const LEASE_SECONDS: u64 = 1;

/// How long something may take that is done in seconds.
const PATIENCE: Duration = Duration::from_mins(2);

/// A process of Node.js, on a machine that does much else.
const PATIENCE_PER_PROCESS: Duration = Duration::from_secs(20);

/// What `cargo xtask example` takes.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many files the project has
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    files: u32,
    /// The same for wrangler, which takes a second or two for each
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    wrangler_files: u32,
    /// Do with it what cargo xtask test does: its form, types and own tests, few files, its quickstart
    #[arg(long, conflicts_with_all = ["files", "wrangler_files"])]
    check: bool,
}

impl Options {
    /// As few as show all.
    const FEW: Self = Self { files: 200, wrangler_files: 3, check: false };
}

/// What carries out a deletion: the setting `EXECUTOR` of the example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Executor {
    Worker,
    S3,
    Wrangler,
}

impl Executor {
    const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::S3 => "s3",
            Self::Wrangler => "wrangler",
        }
    }

    /// What of a project stays by its known fault: wrangler lists nothing.
    fn leaves(self, objects: &Objects) -> &[String] {
        match self {
            Self::Worker | Self::S3 => &[],
            Self::Wrangler => &objects.untracked,
        }
    }
}

/// How a project has gone.
#[derive(Debug)]
struct Run {
    executor: Executor,
    database: &'static str,
    files: usize,
    untracked: usize,
    took: Duration,
    left: usize,
    neighbours_lost: usize,
}

/// Runs it, and prints the table of the executors.
///
/// # Errors
/// When a file is left that should be gone, or one is gone that should be left.
pub fn run(toolbox: &Toolbox, options: &Options) -> Result<()> {
    workers::build(toolbox, &Worker::ALL)?;
    if options.check {
        return check(toolbox);
    }
    let interrupt = Interrupt::listen()?;
    Example::start(&toolbox.project, &interrupt)?.show(options)
}

/// What `cargo xtask test` does of it: the example's form, its types and its own tests; each executor; its quickstart.
///
/// # Errors
/// When one fails.
pub(crate) fn check(toolbox: &Toolbox) -> Result<()> {
    let project = &toolbox.project;
    let modules: [&[&str]; 4] = [
        &["ruff", "check", "--quiet"],
        &["ruff", "format", "--check", "--quiet"],
        &["mypy"],
        &["pytest", "--quiet"],
    ];
    for module in modules {
        let caches = project.target().join("python-client");
        let mut python = service::python(project);
        python.arg("-m").args(module).current_dir(service::folder(project));
        python.env("MYPY_CACHE_DIR", caches.join("mypy-example")).env("RUFF_CACHE_DIR", caches.join("ruff"));
        // These take the server that the environment names.
        python.envs(env::var_os("MONGO_URL").map(|url| ("MONGO_URL", url)));
        run::shown(&mut python)?;
    }
    let interrupt = Interrupt::listen()?;
    let example = Example::start(project, &interrupt)?;
    example.show(&Options::FEW)?;
    example.stack.gateway().delete("")?;
    quickstart::follow(project, &example.state.join("quickstart"), example.stack.url(), &interrupt)?;
    output::say("The quickstart of its README does what it says");
    Ok(())
}

/// The pair, and where the service is to be.
#[derive(Debug)]
struct Example<'a> {
    project: &'a Project,
    interrupt: &'a Interrupt,
    stack: Stack,
    state: PathBuf,
    port: u16,
    bucket: String,
    _alone: fs::File,
}

impl<'a> Example<'a> {
    fn start(project: &'a Project, interrupt: &'a Interrupt) -> Result<Self> {
        let alone = setup::lock(project, "example")?;
        let state = project.target().join("example");
        if state.exists() {
            fs::remove_dir_all(&state).with_context(|| format!("{} cannot be emptied", state.display()))?;
        }
        let port = free_port()?;
        let mut options = StackOptions::new(state.join("stack"))?;
        configure(&mut options.configs, port)?;
        let bucket = options.configs.bucket()?.to_owned();
        let stack =
            output::step("starting both Workers on the local runtime", "2 s", || Stack::start(options))?;
        Ok(Self { project, interrupt, stack, state, port, bucket, _alone: alone })
    }

    fn show(&self, options: &Options) -> Result<()> {
        let files = Objects::new(options.files);
        let mut runs = vec![self.delete(Executor::Worker, &files, None)?];
        let mongo = Mongo::start(self.project, &self.state.join("mongo"))?;
        runs.push(self.delete(Executor::Worker, &files, Some(&mongo))?);
        runs.push(self.delete(Executor::S3, &files, None)?);
        let by_wrangler = Objects::new(options.wrangler_files);
        runs.push(self.delete(Executor::Wrangler, &by_wrangler, None)?);
        let rest = self.delete_rest(&by_wrangler)?;
        output::say(format!("\n{}\n", table(&runs)));
        output::say(rest);
        output::say(self.survive(&files)?);
        Ok(())
    }

    /// Fills the bucket, deletes the project, and looks at what is left.
    fn delete(&self, executor: Executor, objects: &Objects, mongo: Option<&Mongo>) -> Result<Run> {
        let mut settings = self.settings(executor);
        settings.extend(mongo.map(|mongo| ("MONGO_URL", mongo.url())));
        let database = if mongo.is_some() { "SecantusDB" } else { "SQLite" };
        let service = self.service(&format!("{}-{database}", executor.name()), &settings)?;
        self.fill(objects)?;
        service.create(PROJECT, &objects.tracked)?;
        let watch = Stopwatch::start();
        let accepted = service.delete(PROJECT)?;
        ensure!(accepted.state == "deleting", "The service says {accepted:?}.");
        let patience = match executor {
            Executor::Worker | Executor::S3 => PATIENCE,
            Executor::Wrangler => PATIENCE_PER_PROCESS * u32::try_from(objects.files())?,
        };
        let ended = service.settle(PROJECT, patience, self.interrupt)?;
        let took = watch.elapsed();
        let run = self.check(executor, objects, &ended, took)?;
        Ok(Run { database, ..run })
    }

    /// Deletes by `worker` what wrangler has left, of which the service knows nothing any more.
    fn delete_rest(&self, objects: &Objects) -> Result<String> {
        let service = self.service("rest", &self.settings(Executor::Worker))?;
        service.create(PROJECT, &[])?;
        service.delete(PROJECT)?;
        let ended = service.settle(PROJECT, PATIENCE, self.interrupt)?;
        let present = self.present()?;
        let neighbours: HashSet<_> = objects.neighbours.iter().cloned().collect();
        ensure!(
            present == neighbours && ended.deleted == objects.untracked.len(),
            "By worker, {} objects are left in place of {} neighbours.",
            present.len(),
            neighbours.len()
        );
        Ok(format!("Left behind by wrangler and then deleted by worker: {}", ended.deleted))
    }

    /// What the service says must be so, and what is in the bucket what should be.
    fn check(&self, executor: Executor, objects: &Objects, ended: &Seen, took: Duration) -> Result<Run> {
        let present = self.present()?;
        let is_there = |key: &&String| present.contains(*key);
        let files = || objects.tracked.iter().chain(&objects.untracked);
        let left: Vec<_> = files().filter(is_there).collect();
        let neighbours = objects.neighbours.iter().filter(is_there).count();
        let expected = executor.leaves(objects);
        ensure!(
            left.iter().copied().eq(expected) && neighbours == objects.neighbours.len(),
            "By {}, {} files are left in place of {}, and {neighbours} neighbours of {}.",
            executor.name(),
            left.len(),
            expected.len(),
            objects.neighbours.len(),
        );
        ensure!(
            ended.files == 0 && ended.deleted == objects.files() - expected.len(),
            "{} files were to be deleted; the service says {ended:?}.",
            objects.files()
        );
        Ok(Run {
            executor,
            database: "SQLite",
            files: objects.files(),
            untracked: objects.untracked.len(),
            took,
            left: left.len(),
            neighbours_lost: objects.neighbours.len() - neighbours,
        })
    }

    /// Kills the service when it has committed and not yet been told that its request is accepted; another one goes on.
    fn survive(&self, objects: &Objects) -> Result<String> {
        let trap = Trap::set()?;
        let mut settings = self.settings(Executor::Worker);
        let url = settings.insert("R2_DELETION_URL", trap.url()?);
        let service = self.service("killed", &settings)?;
        self.fill(objects)?;
        service.create(PROJECT, &objects.tracked)?;
        service.delete(PROJECT)?;
        let held = trap.spring(self.interrupt)?;
        service.kill();
        drop(held);
        ensure!(
            self.present()?.len() == objects.files() + objects.neighbours.len(),
            "Something is gone already."
        );

        settings.extend(url.map(|url| ("R2_DELETION_URL", url)));
        let watch = Stopwatch::start();
        let service = self.service("killed", &settings)?;
        let ended = service.settle(PROJECT, PATIENCE, self.interrupt)?;
        let run = self.check(Executor::Worker, objects, &ended, watch.elapsed())?;
        Ok(format!(
            "Killed (-9) between its commit and its request, and started again: {} files deleted {} later, {} left",
            run.files,
            output::seconds(run.took),
            run.left
        ))
    }

    fn service(&self, name: &str, settings: &BTreeMap<&'static str, String>) -> Result<Service> {
        Service::start(self.project, &self.state.join(name), self.port, settings)
    }

    fn settings(&self, executor: Executor) -> BTreeMap<&'static str, String> {
        let templates = serde_json::json!(PROJECT_TEMPLATES).to_string();
        let wrangler = self.project.wrangler(&self.state);
        let command = [wrangler.get_program()].into_iter().chain(wrangler.get_args());
        let command: Vec<_> = command.map(|word| quoted(&word.to_string_lossy())).collect();
        let local = format!("--local --persist-to {}", quoted(&self.state.join("stack").to_string_lossy()));
        BTreeMap::from([
            ("EXECUTOR", executor.name().to_owned()),
            ("PROJECT_TEMPLATES", templates),
            ("LEASE_SECONDS", LEASE_SECONDS.to_string()),
            ("R2_DELETION_URL", self.stack.url().to_owned()),
            ("R2_DELETION_TOKEN", self.stack.token().to_owned()),
            ("NOTICE_SECRET", NOTICE_SECRET.to_owned()),
            ("R2_BUCKET", self.bucket.clone()),
            ("R2_ENDPOINT", format!("{}{S3_PATH}", self.stack.url())),
            ("R2_ACCESS_KEY_ID", S3_KEY_ID.to_owned()),
            ("R2_SECRET_ACCESS_KEY", S3_SECRET.to_owned()),
            ("WRANGLER", command.join(" ")),
            ("WRANGLER_ARGUMENTS", local),
        ])
    }

    /// Leaves nothing in the bucket but these.
    fn fill(&self, objects: &Objects) -> Result<()> {
        let gateway = self.stack.gateway();
        gateway.delete("")?;
        objects.put(&gateway, self.interrupt)
    }

    fn present(&self) -> Result<HashSet<String>> {
        Ok(self.stack.gateway().list("")?.into_iter().map(|object| object.key).collect())
    }
}

/// Has the pair serve the bucket by S3, and tell the service at `port` of each end.
fn configure(configs: &mut Configs, port: u16) -> Result<()> {
    configs.serve_s3(S3_KEY_ID, S3_SECRET)?;
    let url = format!("http://127.0.0.1:{port}/webhooks/r2-deletions");
    configs.consumer_secrets.insert("NOTICE_URL".to_owned(), url);
    configs.consumer_secrets.insert("NOTICE_SECRETS".to_owned(), NOTICE_SECRET.to_owned());
    Ok(())
}

/// A word for what splits a line as a shell does.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The table, as Markdown.
fn table(runs: &[Run]) -> String {
    let mut table = "| executor | database | files | of them untracked | from DELETE to gone | for each file | left behind | neighbours lost |\n\
                     |---|---|---|---|---|---|---|---|"
        .to_owned();
    for run in runs {
        let Run { executor, database, files, untracked, took, left, neighbours_lost } = run;
        let each = took.as_secs_f64() * 1000.0 / f64::from(u32::try_from(files - left).unwrap_or(u32::MAX));
        let row = format!(
            "\n| `{}` | {database} | {files} | {untracked} | {} | {each:.1} ms | {left} | {neighbours_lost} |",
            executor.name(),
            output::seconds(*took)
        );
        table.push_str(&row);
    }
    table
}

/// A producer that takes requests and does not answer.
struct Trap(TcpListener);

impl Trap {
    fn set() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    fn url(&self) -> Result<String> {
        Ok(format!("http://{}", self.0.local_addr()?))
    }

    /// Waits until a request has begun to arrive, and holds its connection open.
    fn spring(self, interrupt: &Interrupt) -> Result<TcpStream> {
        let stream = wait_for(PATIENCE, || {
            interrupt.check()?;
            match self.0.accept() {
                Ok((stream, _)) => Ok(Some(stream)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error.into()),
            }
        })?;
        let mut stream = stream.context("The service has sent no request.")?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read_exact(&mut [0; "POST /v1/deletions".len()])?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_is_one_word() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn the_table_says_how_long_each_file_took() {
        let run = Run {
            executor: Executor::Wrangler,
            database: "SQLite",
            files: 20,
            untracked: 1,
            took: Duration::from_secs(38),
            left: 1,
            neighbours_lost: 0,
        };
        assert!(table(&[run]).ends_with("\n| `wrangler` | SQLite | 20 | 1 | 38 s | 2000.0 ms | 1 | 0 |"));
    }
}
