//! `cargo xtask bench cpu`: the CPU time of each Worker for 10,000 keys, on the runtime, between bindings that answer at once.
//!
//! Every Worker runs in a process of its own, which does nothing else, so that the time of the process is the Worker's: that of
//! V8's own threads too, which compile and collect garbage. What the driver takes around a Worker that does nothing is taken off.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    Setting, javascript,
    report::{Comparison, Contestant, Row, Target, take_turns},
};
use crate::{
    clock::wait_for,
    output,
    project::{Project, Worker},
    stack::free_port,
    workers,
};

/// Keys of so many bytes, ASCII or not; how often a turn of the producer and of the consumer does it all.
const CASES: [Case; 5] = [
    Case { key_bytes: 20, ascii: true, repeats: [60, 200] },
    Case { key_bytes: 60, ascii: true, repeats: [60, 200] },
    Case { key_bytes: 60, ascii: false, repeats: [40, 120] },
    Case { key_bytes: 200, ascii: true, repeats: [25, 100] },
    Case { key_bytes: 1_000, ascii: true, repeats: [8, 40] },
];

/// Turns of each in a case.
const ROUNDS: usize = 7;

/// A start takes a few tenths of a second on an idle machine.
const START_MAX: Duration = Duration::from_mins(1);

const OURS: &str = "this pair";
const JAVASCRIPT: &str = "the pair in JavaScript";
const TYPED: &str = "typed Rust";

/// What is promised at 60 bytes a key, as a part of the JavaScript pair's.
const PRODUCER_RATIO_MAX: f64 = 0.7;
const CONSUMER_RATIO_MAX: f64 = 1.0;

struct Case {
    key_bytes: usize,
    ascii: bool,
    /// The producer's, the consumer's.
    repeats: [u32; 2],
}

/// Measures both Workers in every case.
pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Comparison>> {
    let project = &setting.toolbox.project;
    workers::build(setting.toolbox, &Worker::ALL)?;
    let typed = project.root().join("tests/bench/typed");
    output::step("building the typed pair", "a minute the first time", || {
        workers::build_beside(setting.toolbox, &typed)
    })?;
    let mut comparisons = Vec::new();
    for (number, worker) in Worker::ALL.into_iter().enumerate() {
        let build =
            |folder: PathBuf| ["index.js", "index_bg.wasm"].map(|file| folder.join("build").join(file));
        let nothing = Subject::start(project, worker, &[project.root().join("tests/bench/cpu/nothing.js")])?;
        let subjects = [
            (OURS, Subject::start(project, worker, &build(project.worker_crate(worker)))?),
            (JAVASCRIPT, Subject::start(project, worker, &javascript(project, worker))?),
            (TYPED, Subject::start(project, worker, &build(typed.clone()))?.taking_objects()),
        ];
        for case in &CASES {
            let repeats = case.repeats.get(number).copied().unwrap_or(1);
            comparisons.push(case.measure(worker, repeats, &nothing, &subjects, setting.rounds(ROUNDS))?);
        }
    }
    Ok(comparisons)
}

impl Case {
    fn measure(
        &self,
        worker: Worker,
        repeats: u32,
        nothing: &Subject,
        subjects: &[(&str, Subject)],
        rounds: usize,
    ) -> Result<Comparison> {
        let letters = if self.ascii { "" } else { ", half of the letters not ASCII" };
        let case = format!("{}, 10,000 keys of {} bytes{letters}", worker.name(), self.key_bytes);
        output::note(format!("  {case}"));
        for (_, subject) in subjects {
            subject.run(self, 1, true)?;
        }
        let turn = |subject: &Subject| subject.milliseconds(self, repeats);
        let mut contestants = vec![Contestant::new("the driver alone", || turn(nothing))];
        contestants.extend(subjects.iter().map(|(name, subject)| Contestant::new(*name, || turn(subject))));
        let rows = take_turns(2, rounds, &mut contestants)?;
        let (driver, rows) = rows.split_first().context("no rows")?;
        let driver = driver.median();
        let net =
            |row: &Row| Row::new(&row.name, row.rounds.iter().map(|took| took - driver).collect::<Vec<_>>());
        let comparison = Comparison::of_milliseconds("cpu", case, rows.iter().map(net).collect());
        if self.key_bytes != 60 || !self.ascii {
            return Ok(comparison);
        }
        let at_most = match worker {
            Worker::Producer => PRODUCER_RATIO_MAX,
            Worker::Consumer => CONSUMER_RATIO_MAX,
        };
        Ok(comparison.promising([Target::ratio(JAVASCRIPT, at_most)]))
    }
}

/// A Worker in a process of its own.
struct Subject {
    process: Child,
    port: u16,
    worker: Worker,
    /// What messages are to it: objects rather than texts.
    objects: bool,
    folder: PathBuf,
}

impl Subject {
    /// Starts `files` around the driver, the first of them the Worker's module.
    fn start(project: &Project, worker: Worker, files: &[PathBuf]) -> Result<Self> {
        let port = free_port()?;
        let folder =
            std::env::temp_dir().join(format!("r2-deletion-queue-cpu-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let driver = ["driver.js", "stubs.js"].map(|file| project.root().join("tests/bench/cpu").join(file));
        let mut modules = String::new();
        for (number, file) in driver.iter().chain(files).enumerate() {
            let own_name =
                file.file_name().and_then(|name| name.to_str()).context("a file without a name")?;
            let name = if number == driver.len() { "index.js" } else { own_name };
            fs::copy(file, folder.join(name)).with_context(|| format!("{} is missing", file.display()))?;
            let kind = if Path::new(name).extension().is_some_and(|kind| kind == "wasm") {
                "wasm"
            } else {
                "esModule"
            };
            write!(modules, "(name = \"{name}\", {kind} = embed \"{name}\"), ")?;
        }
        let config = format!(
            "using Workerd = import \"/workerd/workerd.capnp\";\n\
             const config :Workerd.Config = (services = [(name = \"subject\", worker = (modules = [{modules}], \
             compatibilityDate = \"2026-11-01\", compatibilityFlags = [\"no_nodejs_compat\"]))], \
             sockets = [(name = \"http\", address = \"127.0.0.1:{port}\", http = (), service = \"subject\")]);\n"
        );
        fs::write(folder.join("config.capnp"), config)?;
        let log = File::create(folder.join("log"))?;
        let process = Command::new(project.workerd())
            .args(["serve", "config.capnp"])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("workerd cannot be started. Run cargo xtask setup.")?;
        let subject = Self { process, port, worker, objects: false, folder };
        wait_for(START_MAX, || Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok()))?
            .context("workerd did not start")?;
        Ok(subject)
    }

    fn taking_objects(mut self) -> Self {
        self.objects = true;
        self
    }

    /// Has the Worker do it all so many times.
    fn run(&self, case: &Case, repeats: u32, checked: bool) -> Result<()> {
        let Self { port, worker, objects, .. } = self;
        let Case { key_bytes, ascii, .. } = case;
        let url = format!(
            "http://127.0.0.1:{port}/?role={}&bytes={key_bytes}&ascii={}&rounds={repeats}{}{}",
            worker.name(),
            u8::from(*ascii),
            if checked { "&check=1" } else { "" },
            if *objects { "&objects=1" } else { "" },
        );
        let answer = ureq::get(&url).call();
        let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        answer.map(drop).with_context(|| format!("the Worker failed:\n{}", log()))
    }

    /// CPU time for one time, over so many.
    fn milliseconds(&self, case: &Case, repeats: u32) -> Result<f64> {
        let before = self.cpu_nanoseconds()?;
        self.run(case, repeats, false)?;
        #[expect(clippy::cast_precision_loss, reason = "a second is a thousand million of them")]
        let spent = (self.cpu_nanoseconds()? - before) as f64;
        Ok(spent / 1e6 / f64::from(repeats))
    }

    /// What all of the process's threads have spent: the first number of each one's `schedstat`.
    fn cpu_nanoseconds(&self) -> Result<u64> {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.process.id()));
        let tasks =
            fs::read_dir(tasks).context("CPU time is only measured where there is a /proc, as on Linux")?;
        let mut spent = 0;
        for task in tasks {
            let stat = fs::read_to_string(task?.path().join("schedstat"))?;
            spent += stat.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
        }
        ensure!(spent > 0, "the kernel does not account for CPU time");
        Ok(spent)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // OK because a process that has ended by itself needs no end, and what is left behind is small.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
