//! The terminal: the only module that prints.
#![expect(clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use protocol::Severity;

use crate::tail::Line;

/// Prints a failure, with what led to it.
pub(crate) fn failure(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// Lines that stay, and below them one that is rewritten, on a terminal only.
#[derive(Debug)]
pub(crate) struct Screen {
    status: Option<ProgressBar>,
}

impl Screen {
    /// Takes the terminal; `has_status` says whether the status line is wanted on one.
    pub(crate) fn open(has_status: bool) -> Self {
        let status = (has_status && io::stderr().is_terminal()).then(|| {
            // OK because a style that cannot be parsed leaves the bar with its own.
            let style =
                ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
        });
        Self { status }
    }

    /// Prints lines, in colour where there is a terminal that wants it.
    ///
    /// # Errors
    /// When nobody reads them any more.
    pub(crate) fn print(&self, lines: &[Line]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let print = || {
            let mut out = anstream::AutoStream::auto(io::stdout().lock());
            for Line { severity, text } in lines {
                let style = style(*severity);
                writeln!(out, "{style}{text}{style:#}")?;
            }
            out.flush()
        };
        match &self.status {
            Some(status) => status.suspend(print),
            None => print(),
        }
    }

    /// Rewrites the status line.
    pub(crate) fn status(&self, text: impl FnOnce() -> String) {
        if let Some(status) = &self.status {
            status.set_message(text());
            status.tick();
        }
    }

    /// Takes the status line away.
    pub(crate) fn close(&self) {
        if let Some(status) = &self.status {
            status.finish_and_clear();
        }
    }
}

fn style(severity: Severity) -> Style {
    match severity {
        Severity::Info => Style::new(),
        Severity::Warn => AnsiColor::Yellow.on_default(),
        Severity::Error => AnsiColor::Red.on_default().bold(),
    }
}
