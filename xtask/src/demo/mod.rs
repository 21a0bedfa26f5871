//! `cargo xtask demo`: objects leave a bucket, and exactly those.
//!
//! 1. Start the pair on an empty state.
//! 2. Fill the bucket with objects under the naming patterns of the past, and with bystanders.
//! 3. Put a message on the queue that cannot be read.
//! 4. Ask for the deletion, and watch it.
//! 5. Prove by listing that the requested objects are gone and every other is there.
//! 6. Show where the message ended.

mod objects;
mod progress;
mod proof;

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};

use self::{objects::Objects, progress::Progress};
use crate::{
    clock::{Stopwatch, wait_for},
    dev,
    interrupt::Interrupt,
    output,
    project::Worker,
    setup::{self, Toolbox},
    stack::{Api, Deletion, Message, Stack, StackOptions, UnreadableMessage},
    workers,
};

/// What one request takes at most.
const KEYS_MAX: u32 = 100_000;

/// How long a message that cannot be read may take to be recorded.
const UNREADABLE_PATIENCE: Duration = Duration::from_mins(1);

/// Cut off in the middle, as no producer of ours sends it.
const UNREADABLE: &str = r#"{"v":1,"deletion":"del_"#;

/// What `cargo xtask demo` takes.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many objects to delete
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..=i64::from(KEYS_MAX)))]
    keys: u32,
    /// Leave the pair running afterwards
    #[arg(long)]
    keep: bool,
}

/// Runs the demo.
///
/// # Errors
/// When any step fails, or the proof does.
pub fn run(toolbox: &Toolbox, options: &Options) -> Result<()> {
    workers::build(toolbox, &Worker::ALL)?;
    let interrupt = Interrupt::listen()?;
    // (1)
    let _alone = setup::lock(&toolbox.project, "demo")?;
    let state = toolbox.project.target().join("demo");
    if state.exists() {
        fs::remove_dir_all(&state).with_context(|| format!("{} cannot be emptied", state.display()))?;
    }
    let stack = output::step("starting both Workers on the local runtime", "2 s", || {
        Stack::start(StackOptions::new(&state)?)
    })?;
    show(&stack, &Objects::new(options.keys), &interrupt)?;
    if options.keep {
        dev::introduce(&stack);
        return dev::follow(stack, &interrupt);
    }
    stack.stop();
    Ok(())
}

fn show(stack: &Stack, objects: &Objects, interrupt: &Interrupt) -> Result<()> {
    // (2)
    objects.put(&stack.gateway(), interrupt)?;
    output::say(objects.to_string());
    proof::before(objects, &stack.gateway().list("")?)?;
    // (3)
    stack.gateway().send(&Message::text(UNREADABLE))?;
    // (4)
    let asked = Stopwatch::start();
    let accepted = stack.api().delete(&objects.requested)?;
    let (id, messages) = (&accepted.id, accepted.messages);
    output::say(format!("202 after {}: {id}, {messages} message(s)", output::seconds(asked.elapsed())));
    let deletion = watch(&stack.api(), &accepted, interrupt)?;
    let gone = asked.elapsed();
    check(&deletion, objects)?;
    output::say(format!("{}: {} deleted, 0 failed, 0 pending", deletion.state, deletion.counts.deleted));
    // (5)
    output::say(proof::after(objects, &stack.gateway().list("")?)?);
    // (6)
    let message = unreadable(&stack.api(), interrupt)?;
    output::say(format!(
        "Meanwhile a message that cannot be read was recorded with its body ({}), and held nothing up",
        message.reason
    ));
    output::say(format!("From request to gone: {}", output::seconds(gone)));
    Ok(())
}

fn watch(api: &Api, accepted: &Deletion, interrupt: &Interrupt) -> Result<Deletion> {
    let total = accepted.counts.total;
    let progress = Progress::start("deleting", total);
    let patience = Duration::from_secs(120 + total / 500);
    let found = wait_for(patience, || {
        interrupt.check()?;
        let deletion = api.deletion(&accepted.id)?;
        progress.set(total - deletion.counts.pending);
        Ok(deletion.is_final().then_some(deletion))
    })?;
    progress.end();
    found.with_context(|| format!("The deletion is not over after {}.", output::seconds(patience)))
}

/// What the API says must be what was asked for.
fn check(deletion: &Deletion, objects: &Objects) -> Result<()> {
    let counts = deletion.counts;
    let requested = objects.requested.len() as u64;
    let complete = deletion.state == "succeeded" && counts.total == requested && counts.deleted == requested;
    ensure!(complete, "{requested} keys were to be deleted; the API says {}: {counts:?}", deletion.state);
    Ok(())
}

fn unreadable(api: &Api, interrupt: &Interrupt) -> Result<UnreadableMessage> {
    let found = wait_for(UNREADABLE_PATIENCE, || {
        interrupt.check()?;
        let recorded = api.unreadable_messages()?.unreadable_messages;
        Ok(recorded.into_iter().find(|message| message.body == UNREADABLE))
    })?;
    found.context("The message that cannot be read is not recorded after a minute.")
}
