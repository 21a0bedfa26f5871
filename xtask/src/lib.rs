//! The developer's tasks, and the local stack that the tests share with them.
//!
//! # In scope
//! Everything that `cargo xtask …` does: putting the tools in place, building the two Workers, running them together
//! on the real runtime, showing that they work, and the tests. [`stack`] is a library on purpose, so that the
//! end-to-end tests start exactly what `cargo xtask dev` starts.
//!
//! # Out of scope
//! Anything that runs in production.

pub mod bench;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod demo;
pub mod dev;
pub mod example;
mod interrupt;
pub mod mutants;
pub mod output;
pub mod project;
pub mod prove;
mod run;
pub mod setup;
pub mod stack;
mod versions;
pub mod workers;
