//! `r2-deletions tail`: what the Workers log, one line for each event, and what it all comes to.
//!
//! [`Watch`] is all of it but the terminal: bytes go in with the time, lines come out.

mod catalogue;
mod event;
mod input;
mod totals;
mod watch;
mod words;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};
use protocol::{DeletionId, Severity, Timestamp};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

pub use self::watch::{Line, Show, UNUSABLE, Watch};
use crate::{
    output::Screen,
    source::{self, PIECES_MAX, Piece, Wrangler},
};

/// How often the status line is brought up to date, and Ctrl-C looked for, while nothing comes.
const TICK: Duration = Duration::from_millis(200);

const EXIT_CODES: &str = "\
Exit codes:
  0  all well
  1  the command line is wrong, what came is no tail, or it ended before the deletion of --until did
  2  something was not done: a key or deletion failed, or there was a dead letter, an unreadable message, a sweep or a
     completion notice that was given up
  3  a configuration error, an exception, or an invocation that the platform has ended
  With --until, when that deletion has ended: 0 succeeded, 2 failed, 4 cancelled.

Keys are personal data. No Worker logs one, and text that none of its events is known to have is not shown.";

/// Read what the Workers log: `wrangler tail --format json` on stdin, or the log of `wrangler dev`
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Options {
    /// Start `wrangler tail` for this Worker, with the wrangler of the project in this folder; may be given again
    #[arg(long, value_name = "NAME")]
    worker: Vec<String>,
    /// End when this deletion has ended; its end must be still to come
    #[arg(long, value_name = "DELETION")]
    until: Option<DeletionId>,
    /// One flat JSON object a line for each event, and one for the summary
    #[arg(long)]
    json: bool,
    /// Only the summary
    #[arg(long, conflicts_with = "level")]
    quiet: bool,
    /// Only events at least this loud
    #[arg(long, default_value = "info")]
    level: Level,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Level {
    Info,
    Warn,
    Error,
}

impl Options {
    fn show(&self) -> Show {
        let level = match self.level {
            Level::Info => Severity::Info,
            Level::Warn => Severity::Warn,
            Level::Error => Severity::Error,
        };
        Show { json: self.json, from: (!self.quiet).then_some(level), until: self.until.clone() }
    }
}

/// Shows what comes, until nothing more does, the deletion that is waited for has ended, or Ctrl-C.
///
/// # Errors
/// When there is nothing to read from, or wrangler fails.
pub fn run(options: &Options) -> Result<ExitCode> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Registered first, so that a second signal ends the process at once.
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&interrupted))?;
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    let (to, pieces) = sync_channel(PIECES_MAX);
    let mut wranglers = Vec::new();
    for (index, worker) in options.worker.iter().enumerate() {
        wranglers.push(Wrangler::start(index, worker, to.clone())?);
    }
    if wranglers.is_empty() {
        if io::stdin().is_terminal() {
            bail!(
                "there is nothing to read. Pipe a tail in:\n  npx wrangler tail r2-deletion-consumer --format json | \
                 r2-deletions tail\nor have it started, in the project's folder: r2-deletions tail --worker \
                 r2-deletion-consumer"
            );
        }
        source::read(0, io::stdin(), to.clone());
    }
    // So that the channel ends with the last source.
    drop(to);

    let watch = Watch::new(options.show(), wranglers.len().max(1));
    let screen = Screen::open(!options.json && !options.quiet);
    let mut session = Session { watch, screen, wranglers, interrupted };
    session.follow(&pieces)?;
    session.finish()
}

struct Session {
    watch: Watch,
    screen: Screen,
    wranglers: Vec<Wrangler>,
    interrupted: Arc<AtomicBool>,
}

impl Session {
    fn follow(&mut self, pieces: &Receiver<Piece>) -> Result<()> {
        let mut latest = clock();
        while !self.interrupted.load(Ordering::Relaxed) && !self.watch.is_over() {
            match pieces.recv_timeout(TICK) {
                Ok((index, bytes)) => {
                    self.take(index, &bytes)?;
                    latest = clock();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let idle = u64::try_from((clock() - latest).as_millis()).unwrap_or(u64::MAX);
            self.screen.status(|| self.watch.status(idle));
        }
        Ok(())
    }

    fn take(&mut self, index: usize, bytes: &[u8]) -> Result<()> {
        if !bytes.is_empty() {
            let lines = self.watch.push(index, bytes, now());
            return Ok(self.screen.print(&lines)?);
        }
        let lines = self.watch.end(index, now());
        self.screen.print(&lines)?;
        self.wranglers.get_mut(index).map_or(Ok(()), Wrangler::check)
    }

    fn finish(self) -> Result<ExitCode> {
        self.screen.close();
        if self.watch.is_no_tail() {
            bail!(
                "what came is no tail: wrangler tail --format json has one, and so has the log of wrangler dev"
            );
        }
        let summary = self.watch.summary().into_iter().map(|text| Line { severity: Severity::Info, text });
        self.screen.print(&summary.collect::<Vec<_>>())?;
        Ok(ExitCode::from(self.watch.exit_code()))
    }
}

#[expect(clippy::disallowed_methods, reason = "a tool runs on a real machine; the core is given the time")]
fn clock() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a tool runs on a real machine; the core is given the time")]
fn now() -> Timestamp {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}
