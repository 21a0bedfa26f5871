//! Many schedules, on several cores, that can be broken off and gone on with.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::time::{ClockId, clock_gettime};
use simulation::{Count, Settings, Totals, name_of, run, shrink};

/// How many seeds one core takes at once.
const BLOCK: u64 = 1_000;

/// One seed in so many is run twice.
const RUN_TWICE: u64 = 100;

/// From how many schedules on everything must have happened.
const GATE: u64 = 100_000;

/// How often it is written down how far it is.
const SAVED_EVERY: Duration = Duration::from_secs(20);

/// So many violations are enough.
const VIOLATIONS_MAX: usize = 20;

/// The seeds of one mode, and what came of them.
#[derive(Debug)]
pub(crate) struct LongRun {
    settings: Settings,
    seeds: Range<u64>,
    /// What tells other code, with which a seed is another schedule.
    code: u64,
    /// All before this are done.
    done: u64,
    /// All before this are done or in somebody's hands.
    taken: u64,
    /// Blocks that are done before an earlier one.
    ahead: BTreeMap<u64, Block>,
    total: Block,
}

/// What came of some seeds.
#[derive(Clone, Debug, Default)]
struct Block {
    totals: Totals,
    violations: Vec<(u64, String)>,
    cpu_ms: u64,
}

impl Block {
    fn add(&mut self, other: Self) {
        self.totals.add(&other.totals);
        self.violations.extend(other.violations);
        self.cpu_ms += other.cpu_ms;
    }
}

impl LongRun {
    pub(crate) fn new(settings: Settings, seeds: Range<u64>) -> Self {
        // FNV, of a few schedules.
        let code = (0..8).fold(0xCBF2_9CE4_8422_2325, |code: u64, seed| {
            (code ^ run(seed, settings).hash).wrapping_mul(0x0000_0100_0000_01B3)
        });
        let (done, taken) = (seeds.start, seeds.start);
        Self { settings, seeds, code, done, taken, ahead: BTreeMap::new(), total: Block::default() }
    }

    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}-{}.txt", self.settings.mode, name_of(&self.settings.ledger)))
    }

    fn load(&mut self, folder: &Path) -> anyhow::Result<()> {
        let path = self.path(folder);
        let Ok(text) = fs::read_to_string(&path) else { return Ok(()) };
        let value = |name: &str| {
            let line =
                text.lines().filter_map(|line| line.split_once(" = ")).find(|(found, _)| *found == name);
            line.and_then(|(_, value)| value.parse::<u64>().ok()).unwrap_or_default()
        };
        ensure!(
            value("code") == self.code && value("from") == self.seeds.start,
            "{} is of other code or other seeds, so that it cannot be gone on with: remove it",
            path.display()
        );
        let violations = text.lines().filter_map(|line| line.strip_prefix("violation ")?.split_once(' '));
        self.total = Block {
            totals: Totals::from_lines(&text),
            violations: violations
                .filter_map(|(seed, text)| Some((seed.parse().ok()?, text.to_owned())))
                .collect(),
            cpu_ms: value("cpu, ms"),
        };
        (self.done, self.taken) = (value("done"), value("done"));
        Ok(())
    }

    fn save(&self, folder: &Path) -> anyhow::Result<()> {
        let Self { seeds, code, done, total, .. } = self;
        let mut text =
            format!("code = {code}\nfrom = {}\ndone = {done}\ncpu, ms = {}\n", seeds.start, total.cpu_ms);
        for (seed, violation) in &total.violations {
            writeln!(text, "violation {seed} {}", violation.replace('\n', " "))?;
        }
        text.push_str(&total.totals.to_lines());
        let (path, next) = (self.path(folder), self.path(folder).with_extension("next"));
        fs::write(&next, text).and_then(|()| fs::rename(&next, &path)).context("writing down how far it is")
    }

    fn take(&mut self) -> Option<Range<u64>> {
        let block = self.taken..(self.taken + BLOCK).min(self.seeds.end);
        self.taken = block.end;
        (!block.is_empty()).then_some(block)
    }

    fn give_back(&mut self, from: u64, block: Block) {
        self.ahead.insert(from, block);
        while let Some(block) = self.ahead.remove(&self.done) {
            self.done = (self.done + BLOCK).min(self.seeds.end);
            self.total.add(block);
        }
    }

    /// A table; whether all is as it must be.
    #[expect(clippy::print_stdout, reason = "a tool for a terminal")]
    fn show(&self) -> bool {
        let Self { settings, seeds, done, total, .. } = self;
        let Block { totals, violations, cpu_ms } = total;
        let schedules = totals.of(Count::Schedules);
        println!("{}, ledger {}, seeds {}..{done}", settings.mode, name_of(&settings.ledger), seeds.start);
        print!("{totals}");
        let with = |words: &[&str]| {
            violations.iter().filter(|(_, text)| words.iter().any(|word| text.contains(word))).count() as u64
        };
        for (name, value) in [
            ("schedules a second of a core", schedules * 1_000 / cpu_ms.max(&1)),
            ("violations", violations.len() as u64),
            ("lost", with(&["lost", "still there"])),
            ("stray", with(&["stray"])),
            ("counted twice", with(&["counted twice"])),
        ] {
            println!("  {name:<44}{value:>16}");
        }
        let missing = if schedules < GATE { Vec::new() } else { totals.missing(settings.mode) };
        for name in &missing {
            println!("  NEVER HAPPENED: {name}");
        }
        violations.is_empty() && missing.is_empty()
    }
}

/// The runs of several modes.
#[derive(Debug)]
pub(crate) struct Runs {
    runs: Vec<LongRun>,
    folder: Option<PathBuf>,
}

impl Runs {
    /// As far as they have come before, where `folder` says so.
    pub(crate) fn new(mut runs: Vec<LongRun>, folder: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(folder) = &folder {
            fs::create_dir_all(folder)?;
            runs.iter_mut().try_for_each(|run| run.load(folder))?;
        }
        Ok(Self { runs, folder })
    }

    fn save(&self) -> anyhow::Result<()> {
        let folder = self.folder.iter();
        folder.flat_map(|folder| self.runs.iter().map(move |run| run.save(folder))).collect()
    }

    /// Runs all seeds that are left, or as many as there is time for.
    #[expect(clippy::disallowed_methods, reason = "measures how fast the simulation itself is")]
    pub(crate) fn explore(self, jobs: usize, most: Option<Duration>) -> anyhow::Result<Self> {
        let (started_at, shared) = (Instant::now(), Mutex::new((self, Instant::now())));
        let work = || -> anyhow::Result<()> {
            loop {
                let (at, settings, seeds) = {
                    let (Self { runs, .. }, _) = &mut *shared.lock().unwrap_or_else(PoisonError::into_inner);
                    let is_over = most.is_some_and(|most| started_at.elapsed() > most)
                        || runs.iter().any(|run| run.total.violations.len() >= VIOLATIONS_MAX);
                    // The one that is least far.
                    let next = runs.iter_mut().enumerate().filter(|(_, run)| run.taken < run.seeds.end);
                    let next = next.min_by_key(|(_, run)| run.taken - run.seeds.start);
                    let Some((at, run)) = next.filter(|_| !is_over) else { return Ok(()) };
                    let Some(seeds) = run.take() else { return Ok(()) };
                    (at, run.settings, seeds)
                };
                let block = explore(seeds.clone(), settings);
                let (runs, saved_at) = &mut *shared.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(run) = runs.runs.get_mut(at) {
                    run.give_back(seeds.start, block);
                }
                if saved_at.elapsed() > SAVED_EVERY {
                    runs.save()?;
                    *saved_at = Instant::now();
                }
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a core has panicked")))
            })
        })?;
        let (runs, _) = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        runs.save()?;
        Ok(runs)
    }

    /// The tables; whether all is as it must be.
    pub(crate) fn show(&self) -> bool {
        self.runs.iter().filter(|run| !run.show()).count() == 0
    }
}

/// This thread's time on a core, in milliseconds.
fn cpu_ms() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec * 1_000 + time.tv_nsec / 1_000_000).unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "a tool for a terminal")]
fn explore(seeds: Range<u64>, settings: Settings) -> Block {
    let (began_at, mut block) = (cpu_ms(), Block::default());
    for seed in seeds {
        let mut outcome = run(seed, settings);
        if seed % RUN_TWICE == 0 {
            block.totals.add_run_twice();
            if run(seed, settings).hash != outcome.hash {
                outcome.violation.get_or_insert_with(|| "it does not do the same again".to_owned());
            }
        }
        block.totals.add(&outcome.totals);
        if let Some(violation) = outcome.violation {
            let less = shrink(seed, settings);
            println!("{violation}\n    {}\n    {}", settings.replay_command(seed), less.replay_command(seed));
            block.violations.push((seed, violation));
        }
    }
    block.cpu_ms = cpu_ms() - began_at;
    block
}
