//! `r2-deletions`, the operator's command line.
//!
//! # In scope
//! What the Workers log, to be read by a person or a script: [`tail`].
//!
//! # Out of scope
//! The developer's tasks: those are `xtask`'s.

mod output;
mod source;
pub mod tail;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The operator's command line of r2-deletion-queue
#[derive(Debug, Parser)]
#[command(name = "r2-deletions", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Tail(tail::Options),
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let command = match Arguments::try_parse() {
        Ok(arguments) => arguments.command,
        Err(error) => {
            // OK because there is nobody to tell when the terminal is gone.
            let _ = error.print();
            // Not clap's 2, which says here that something was not deleted.
            return if error.use_stderr() { ExitCode::from(tail::UNUSABLE) } else { ExitCode::SUCCESS };
        }
    };
    match command {
        Command::Tail(options) => tail::run(&options),
    }
    .unwrap_or_else(|error| {
        // Whoever has read enough, as `head` does, needs no message.
        let cause = error.downcast_ref::<std::io::Error>();
        if cause.is_none_or(|cause| cause.kind() != std::io::ErrorKind::BrokenPipe) {
            output::failure(&error);
        }
        ExitCode::from(tail::UNUSABLE)
    })
}
