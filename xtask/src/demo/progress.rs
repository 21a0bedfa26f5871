//! How far a long thing is: a bar on a terminal, a line now and then elsewhere.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// Elsewhere a line is written whenever another tenth is done.
const LINES: u64 = 10;

const STYLE: &str = "  {msg} [{bar:40}] {human_pos} of {human_len}, {eta} left";

/// A thing of `total` parts, under way.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    bar: ProgressBar,
    terminal: bool,
}

impl Progress {
    /// Begins to show it.
    pub(super) fn start(what: &'static str, total: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        // OK because a style that cannot be parsed leaves the bar with its own.
        let style = ProgressStyle::with_template(STYLE).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style).with_message(what);
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { what, bar, terminal }
    }

    /// So many more parts are done.
    pub(super) fn add(&self, parts: u64) {
        let before = self.bar.position();
        self.bar.inc(parts);
        self.line(before, before + parts);
    }

    /// So many parts are done in all.
    pub(super) fn set(&self, parts: u64) {
        let before = self.bar.position();
        self.bar.set_position(parts);
        self.line(before, parts);
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, before: u64, after: u64) {
        let total = self.bar.length().unwrap_or(0).max(1);
        if !self.terminal && before * LINES / total < after * LINES / total {
            output::note(format!("  {}: {after} of {total}", self.what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_can_be_parsed() {
        assert!(ProgressStyle::with_template(STYLE).is_ok());
    }
}
