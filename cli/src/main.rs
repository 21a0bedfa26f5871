//! `r2-deletions …`: see [`cli::run`].

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
