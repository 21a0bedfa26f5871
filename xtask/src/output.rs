//! What the tool says: the only module that prints.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

use std::{
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use crate::clock::Stopwatch;

/// A step that is over sooner than this is not worth a line.
const WORTH_A_LINE: Duration = Duration::from_millis(1500);

/// Prints one line of result.
pub fn say(line: impl AsRef<str>) {
    println!("{}", line.as_ref());
}

/// Prints one line about what is going on, apart from the results.
pub fn note(line: impl AsRef<str>) {
    eprintln!("{}", line.as_ref());
}

/// Prints a failure: the last error first, then what led to it.
pub fn failure(error: &anyhow::Error) {
    eprintln!("\nerror: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("\n{cause}");
    }
}

/// Does `work`. When it takes a moment, says what is being done and how long that usually takes, and afterwards how
/// long it took.
///
/// # Errors
/// Those of `work`.
pub fn step<T>(what: &str, usually: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let watch = Stopwatch::start();
    let (finished, wait) = channel::<()>();
    thread::scope(|scope| {
        let announcer = scope.spawn(move || {
            let slow = wait.recv_timeout(WORTH_A_LINE) == Err(RecvTimeoutError::Timeout);
            if slow {
                note(format!("  {what} (usually {usually}) ..."));
            }
            slow
        });
        let result = work();
        // OK because dropping the sender ends the announcer's wait, whatever came of the work.
        drop(finished);
        let was_slow = announcer.join().unwrap_or(false);
        if was_slow && result.is_ok() {
            note(format!("  {what}: {}", seconds(watch.elapsed())));
        }
        result
    })
}

/// `1.2 s`, `75 s`: a duration for people.
pub fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 20.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_decimal_only_while_short() {
        assert_eq!(seconds(Duration::from_millis(1240)), "1.2 s");
        assert_eq!(seconds(Duration::from_millis(75_400)), "75 s");
    }

    #[test]
    fn a_step_hands_on_what_its_work_returned() {
        assert_eq!(step("quick", "a moment", || Ok(7)).unwrap(), 7);
        assert!(step::<()>("failing", "a moment", || anyhow::bail!("no")).is_err());
    }
}
