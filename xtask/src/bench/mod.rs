//! `cargo xtask bench`: what is promised in figures, measured.

mod cost;
mod inspector;
mod memory;

use anyhow::Result;

pub use self::cost::Options as CostOptions;
use crate::setup::Toolbox;

/// What can be measured.
#[derive(Debug, clap::Subcommand)]
pub enum Bench {
    /// The memory that the producer takes for large requests, several at once
    Memory,
    /// What deletions cost: the operations of each service that is paid for, counted, times its price
    Cost(CostOptions),
}

/// Measures it.
///
/// # Errors
/// When it cannot be measured, or is over what was promised.
pub fn run(toolbox: &Toolbox, bench: &Bench) -> Result<()> {
    match bench {
        Bench::Memory => memory::run(toolbox),
        Bench::Cost(options) => cost::run(toolbox, options),
    }
}
