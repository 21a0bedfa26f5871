//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    bench, checks, demo, dev, example, mutants, output, project::Worker, prove, setup::Toolbox, workers,
};

/// The developer's tasks of r2-deletion-queue
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Put the tools in place, inside the project: every other task does it first
    Setup,
    /// Build the Workers and print the size of each
    Build {
        /// Which one; both when left out
        worker: Option<Worker>,
    },
    /// Watch objects leave a bucket: start the pair, delete, prove it, end
    Demo(demo::Options),
    /// Start the pair and keep it running
    Dev(dev::Options),
    /// Have the FastAPI backend of clients/python/examples delete a project, by each of its executors
    Example(example::Options),
    /// Check, build and try everything, as CI does
    Test,
    /// Explore what is promised for as long as there is time, and say in one table what was found
    Prove(prove::Options),
    /// Change the code, one place at a time, and fail where no test notices: hours for all of it
    Mutants(mutants::Options),
    /// Measure, beside what others do, and fail where it is over what was promised
    Bench(bench::Options),
}

/// Does what the command line says. The exit code is 0 when it was done, 1 when it failed, 2 when it was not understood.
pub fn run() -> ExitCode {
    let task = match Arguments::try_parse() {
        Ok(arguments) => arguments.task,
        Err(error) => error.exit(),
    };
    match task.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::failure(&error);
            ExitCode::FAILURE
        }
    }
}

impl Task {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Setup => {
                let toolbox = Toolbox::ensure_for_tests()?;
                output::say(format!(
                    "Everything is in place; the Workers are compiled by {}.",
                    toolbox.wasm.name()
                ));
                Ok(())
            }
            Self::Build { worker } => {
                let chosen = worker.map_or_else(|| Worker::ALL.to_vec(), |worker| vec![worker]);
                workers::build(&Toolbox::ensure()?, &chosen)
            }
            Self::Demo(options) => demo::run(&Toolbox::ensure()?, &options),
            Self::Dev(options) => dev::run(&Toolbox::ensure()?, &options),
            Self::Example(options) => example::run(&Toolbox::ensure_for_tests()?, &options),
            Self::Test => checks::run(),
            Self::Prove(options) => prove::run(&Toolbox::ensure()?, &options),
            Self::Mutants(options) => mutants::run(&options),
            Self::Bench(options) => bench::run(&Toolbox::ensure()?, &options),
        }
    }
}

/// Reads a path from the command line against the folder that the person is in.
pub(crate) fn from_here(path: &str) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| error.to_string())
}
