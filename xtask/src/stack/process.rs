//! A process and all that it starts, ended together.

use std::{
    fs::File,
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::clock::wait_for;

/// How long a group may take to end by itself.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A process group. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Group {
    leader: Child,
}

impl Group {
    /// Starts `command` as the leader of a new group, with its output in `log`.
    pub(super) fn start(command: &mut Command, log: File) -> io::Result<Self> {
        let leader = command
            .process_group(0)
            // Held open as long as this process lives: see die-with-parent.mjs.
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self { leader })
    }

    /// Whether its leader is running.
    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.leader.try_wait(), Ok(None))
    }

    /// Asks it to end, and kills what has not after a while.
    pub(super) fn stop(&mut self) {
        self.signal(Signal::TERM);
        // OK because the answer makes no difference: what is left is killed.
        let _ = wait_for(STOP_MAX, || Ok((!self.is_running()).then_some(())));
        self.kill();
    }

    /// Kills every process of it.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::KILL);
        // OK because a child that was killed can always be waited for; that it was waited for before is no trouble.
        let _ = self.leader.wait();
    }

    fn signal(&self, signal: Signal) {
        let leader = i32::try_from(self.leader.id()).ok().and_then(Pid::from_raw);
        if let Some(leader) = leader {
            // OK because the one error there can be says that no process of the group is left.
            let _ = kill_process_group(leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
