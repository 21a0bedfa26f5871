//! Where a tail comes from: what is piped in, or a `wrangler tail` that is started for it.

use std::{
    io::{self, Read},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::mpsc::SyncSender,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// How much is read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// How many pieces may wait to be shown, before what writes them has to.
pub(crate) const PIECES_MAX: usize = 16;

/// How long wrangler may take to tell the platform that nobody watches any more.
const STOP_MAX: Duration = Duration::from_secs(5);

/// How often it is looked whether it has ended.
const POLL: Duration = Duration::from_millis(20);

/// What a source has said: bytes, or nothing, when it has ended.
pub(crate) type Piece = (usize, Vec<u8>);

/// Passes on what `from` says, as source number `index`.
pub(crate) fn read(index: usize, mut from: impl Read + Send + 'static, to: SyncSender<Piece>) {
    thread::spawn(move || {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let length = match from.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A pipe that breaks has ended.
                read => read.unwrap_or_default(),
            };
            let bytes = piece.get(..length).unwrap_or_default().to_vec();
            if to.send((index, bytes)).is_err() || length == 0 {
                return;
            }
        }
    });
}

/// A `wrangler tail`. Dropping it ends it, so that the platform forgets it.
#[derive(Debug)]
pub(crate) struct Wrangler {
    worker: String,
    leader: Child,
}

impl Wrangler {
    /// Starts the wrangler of the folder's project for a Worker, and passes on what it says.
    pub(crate) fn start(index: usize, worker: &str, to: SyncSender<Piece>) -> Result<Self> {
        let mut leader = Command::new("npx")
            .args(["--no-install", "wrangler", "tail", worker, "--format", "json"])
            // npx starts others, which are to end with it, and not before the summary: Ctrl-C is for this process.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("npx cannot be started, which is to start wrangler")?;
        if let Some(output) = leader.stdout.take() {
            read(index, output, to);
        }
        Ok(Self { worker: worker.to_owned(), leader })
    }

    /// After its output has ended: fails when it has not ended well.
    pub(crate) fn check(&mut self) -> Result<()> {
        let status = self.leader.wait()?;
        if !status.success() {
            bail!("wrangler tail {} has ended: {status}", self.worker);
        }
        Ok(())
    }
}

impl Wrangler {
    fn is_running(&mut self) -> bool {
        matches!(self.leader.try_wait(), Ok(None))
    }

    fn signal(&self, signal: Signal) {
        // OK because the one error there can be says that no process of the group is left.
        let _ = kill_process_group(Pid::from_child(&self.leader), signal);
    }
}

impl Drop for Wrangler {
    fn drop(&mut self) {
        if !self.is_running() {
            return;
        }
        self.signal(Signal::TERM);
        let mut polls = STOP_MAX.as_millis() / POLL.as_millis();
        while self.is_running() && polls > 0 {
            pause();
            polls -= 1;
        }
        self.signal(Signal::KILL);
        // OK because a child that was killed can always be waited for; that it was waited for before is no trouble.
        let _ = self.leader.wait();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a tool waits on a real machine, and for no longer than it says"
)]
fn pause() {
    thread::sleep(POLL);
}
