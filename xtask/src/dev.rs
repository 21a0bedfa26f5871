//! `cargo xtask dev`: the pair, running until it is told to end.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    cli, clock,
    interrupt::Interrupt,
    output,
    project::Worker,
    setup::Toolbox,
    stack::{Stack, StackOptions},
    workers,
};

/// What `cargo xtask dev` takes.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The port to answer on
    #[arg(long, default_value_t = 8787)]
    port: u16,
    /// The folder for the bucket, the queues and the ledger; it is kept [default: target/dev]
    #[arg(long, value_parser = cli::from_here)]
    state: Option<PathBuf>,
    /// The token that the producer accepts
    #[arg(long, default_value = "development")]
    token: String,
}

/// Starts the pair and passes its log through until Ctrl-C.
///
/// # Errors
/// When the pair cannot be built or started, or ends by itself.
pub fn run(toolbox: &Toolbox, options: &Options) -> Result<()> {
    workers::build(toolbox, &Worker::ALL)?;
    let interrupt = Interrupt::listen()?;
    let state = options.state.clone().unwrap_or_else(|| toolbox.project.target().join("dev"));
    let stack = Stack::start(StackOptions {
        port: Some(options.port),
        token: options.token.clone(),
        follow_builds: true,
        ..StackOptions::new(state)?
    })?;
    introduce(&stack);
    follow(stack, &interrupt)
}

/// Says how to reach a stack that stays.
pub(crate) fn introduce(stack: &Stack) {
    let (url, token) = (stack.url(), stack.token());
    output::say(format!(
        "\nThe pair answers at {url} with the token {token:?}. Ctrl-C ends it. To put an object there and delete it:\n\n  \
         curl {url}/__dev/objects --json '{{\"keys\": [\"proj_42/a.jpg\"], \"size\": 100}}'\n  \
         curl {url}/v1/deletions -H 'Authorization: Bearer {token}' --json '{{\"objectKeys\": [\"proj_42/a.jpg\"]}}'\n  \
         curl {url}/__dev/objects\n\n\
         What the Workers log, also in {}:\n",
        stack.log_path().display()
    ));
}

/// Passes the log of `stack` through until it is told to end.
pub(crate) fn follow(mut stack: Stack, interrupt: &Interrupt) -> Result<()> {
    let mut log = Follower::at_end_of(&stack.log_path())?;
    while !interrupt.asked() {
        log.show_news()?;
        if !stack.is_running() {
            bail!("The stack has ended by itself.");
        }
        clock::pause();
    }
    output::note("\nstopping");
    stack.stop();
    Ok(())
}

/// Reads a file that grows.
struct Follower {
    file: File,
    /// The beginning of a line whose end has not been written yet.
    unfinished: Vec<u8>,
}

impl Follower {
    fn at_end_of(path: &Path) -> Result<Self> {
        let mut file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
        std::io::copy(&mut file, &mut std::io::sink())?;
        Ok(Self { file, unfinished: Vec::new() })
    }

    fn show_news(&mut self) -> Result<()> {
        self.file.read_to_end(&mut self.unfinished)?;
        if let Some(end) = self.unfinished.iter().rposition(|&byte| byte == b'\n') {
            let rest = self.unfinished.split_off(end + 1);
            let lines = std::mem::replace(&mut self.unfinished, rest);
            output::say(String::from_utf8_lossy(&lines).trim_end());
        }
        Ok(())
    }
}
