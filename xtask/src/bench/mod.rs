//! `cargo xtask bench`: what is promised in figures, measured.

mod inspector;
mod memory;

use anyhow::Result;

use crate::setup::Toolbox;

/// What can be measured.
#[derive(Debug, clap::Subcommand)]
pub enum Bench {
    /// The memory that the producer takes for large requests, several at once
    Memory,
}

/// Measures it.
///
/// # Errors
/// When it cannot be measured, or is over what was promised.
pub fn run(toolbox: &Toolbox, bench: &Bench) -> Result<()> {
    match bench {
        Bench::Memory => memory::run(toolbox),
    }
}
