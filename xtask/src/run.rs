//! Running other programs: quiet when they succeed, telling when they fail.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// How much of a failed program's output is shown.
const TAIL_LINES: usize = 40;

/// Runs `command` with its output in the file `log`, and with `lock` held until it ends.
///
/// # Errors
/// When it cannot be started or fails: with the end of what it printed.
pub(crate) fn logged(command: &mut Command, log: &Path, lock: &File) -> Result<()> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = File::create(log).with_context(|| format!("{} cannot be written", log.display()))?;
    let program = program(command);
    let status = command
        // The lock file is empty: as good as no input. A command that outlives this process, because that was killed,
        // goes on holding the lock, and the next run waits for it rather than working against it.
        .stdin(lock.try_clone()?)
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("{program} cannot be started"))?;
    if !status.success() {
        let output = fs::read_to_string(log).unwrap_or_default();
        bail!("{}\n{program} failed: {status}. All of its output: {}", tail(&output), log.display());
    }
    Ok(())
}

/// Runs `command` and returns what it printed.
///
/// # Errors
/// When it cannot be started or fails: with the end of what it printed.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let program = program(command);
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("{program} cannot be started"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{}\n{program} failed: {}", tail(&format!("{stdout}{stderr}")), output.status);
    }
    Ok(stdout)
}

/// Runs `command` with `input` to read, and returns what it printed.
///
/// # Errors
/// When it cannot be started, or fails: with the end of what it said of that.
pub(crate) fn fed(command: &mut Command, input: &str) -> Result<String> {
    let program = program(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program} cannot be started"))?;
    // It can end without having read everything, which its status then explains.
    let unread = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}\n{program} failed: {}", tail(&String::from_utf8_lossy(&output.stderr)), output.status);
    }
    unread.with_context(|| format!("{program} has not read its input"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command` on this terminal.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn shown(command: &mut Command) -> Result<()> {
    let program = program(command);
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("{program} cannot be started"))?;
    if !status.success() {
        bail!("{program} failed: {status}");
    }
    Ok(())
}

/// Whether `command` runs and succeeds; what it prints is nobody's concern.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The last lines of `output`.
pub(crate) fn tail(output: &str) -> String {
    let lines: Vec<_> = output.lines().collect();
    let hidden = lines.len().saturating_sub(TAIL_LINES);
    lines.get(hidden..).unwrap_or_default().join("\n")
}

fn program(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_end_of_the_output() {
        let folder = tempfile::tempdir().unwrap();
        let lock = File::create_new(folder.path().join("lock")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo beginning; seq 100; echo end >&2; exit 3"]);
        let error = logged(&mut command, &folder.path().join("log"), &lock).unwrap_err().to_string();
        assert!(error.contains("end") && error.contains("sh failed: exit status: 3"), "{error}");
        assert!(!error.contains("beginning"), "{error}");
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let error = output_of(&mut Command::new("no-such-program")).unwrap_err();
        assert!(error.to_string().contains("no-such-program cannot be started"), "{error}");
    }
}
