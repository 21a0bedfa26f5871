//! A process that does not outlive the test, however the test ends.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

/// A child in a process group of its own. Dropping it kills it; and so does a second, tiny process when the test
/// itself was killed and drops nothing.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) child: Child,
    watchman: Child,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.process_group(0).spawn().with_context(|| format!("cannot run {command:?}"))?;
        // Its input ends when this process does, whatever ends it.
        let watchman = Command::new("sh")
            .args(["-c", &format!("cat; kill -9 {}", child.id())])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, watchman })
    }

    /// How it ended, if it has ended by itself.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// SIGTERM. Whoever has ended already is not disturbed.
    pub(crate) fn terminate(&mut self) -> Result<()> {
        if self.ended()?.is_none() {
            kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        }
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        // First the watchman, so that it never kills a stranger with the number of the dead.
        self.watchman.kill()?;
        self.watchman.wait()?;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // OK to ignore: it has ended already.
        drop(self.kill());
    }
}
