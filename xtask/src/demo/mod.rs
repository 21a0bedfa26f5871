//! `cargo xtask demo`: a project leaves a bucket, and exactly it.
//!
//! 1. Start the pair on an empty state.
//! 2. Fill the bucket with a project's files under the naming patterns of the past, and with neighbours.
//! 3. Put a message on the queue that cannot be read.
//! 4. Ask what deleting the project would delete, and look that nothing is gone by that.
//! 5. Ask for the deletion by that plan, naming the files that a backend knows of; upload one file again; watch.
//! 6. Check what the API says has become of them.
//! 7. Prove by listing that the project is gone, but for what was uploaded since, and every neighbour is there.
//! 8. Show where the message ended.

pub(crate) mod objects;
mod progress;
mod proof;

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use self::{
    objects::{Objects, PROJECT},
    progress::Progress,
};
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
    /// How many files the project has, at least 2: one that its backend knows of, and one that it does not
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u32).range(2..=i64::from(KEYS_MAX)))]
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
    let (api, gateway) = (stack.api(), stack.gateway());
    // (2)
    objects.put(&gateway, interrupt)?;
    output::say(objects.to_string());
    // (3)
    gateway.send(&Message::text(UNREADABLE))?;
    // (4)
    let plan = plan(&api, objects, interrupt)?;
    proof::before(objects, &gateway.list("")?)?;
    output::say(format!(
        "Dry run: deleting project {PROJECT} would delete {} files, {} bytes; all are still there",
        objects.files(),
        objects.bytes()
    ));
    // (5)
    let asked = Stopwatch::start();
    let body = json!({ "objectKeys": objects.tracked, "project": PROJECT, "plan": plan.id, "verify": true });
    let accepted = api.request(&body)?;
    let after = asked.elapsed();
    // Before it is listed, since all that was named is deleted first.
    objects.upload_again(&gateway)?;
    output::say(format!(
        "202 after {}: {}, for the {} files that the backend knows of, and for the project by that plan",
        output::seconds(after),
        accepted.id,
        objects.tracked.len()
    ));
    output::say(format!("After that one of the others is uploaded again: {}", objects.uploaded_again));
    let deletion = watch(&api, &accepted, objects, interrupt)?;
    let gone = asked.elapsed();
    // (6)
    for line in check(&api, &deletion, objects)? {
        output::say(line);
    }
    // (7)
    output::say(proof::after(objects, &deletion.requested_at, &gateway.list("")?)?);
    // (8)
    let message = unreadable(&api, interrupt)?;
    output::say(format!(
        "Meanwhile a message that cannot be read was recorded with its body ({}), and held nothing up",
        message.reason
    ));
    output::say(format!("From request to gone: {}", output::seconds(gone)));
    Ok(())
}

/// A dry run, which must see all files of the project and no other.
fn plan(api: &Api, objects: &Objects, interrupt: &Interrupt) -> Result<Deletion> {
    let accepted = api.request(&json!({ "project": PROJECT, "dry_run": true }))?;
    let deletion = end(api, &accepted.id, objects, interrupt, |_| {})?;
    let (files, bytes) = (objects.files() as u64, objects.bytes() as u64);
    let is_whole = deletion.plan.as_ref().is_some_and(|plan| plan.objects == files && plan.bytes == bytes);
    ensure!(
        deletion.state == "planned" && is_whole,
        "{files} files of {bytes} bytes were to be found; the API says {}: {:?}",
        deletion.state,
        deletion.plan
    );
    Ok(deletion)
}

fn watch(api: &Api, accepted: &Deletion, objects: &Objects, interrupt: &Interrupt) -> Result<Deletion> {
    // Its total grows while it finds what nobody has named.
    let progress = Progress::start("deleting", objects.files() as u64);
    let deletion = end(api, &accepted.id, objects, interrupt, |deletion| {
        progress.set(deletion.counts.total - deletion.counts.pending);
    });
    progress.end();
    deletion
}

/// Waits for the end of a deletion.
fn end(
    api: &Api,
    id: &str,
    objects: &Objects,
    interrupt: &Interrupt,
    look: impl Fn(&Deletion),
) -> Result<Deletion> {
    let patience = Duration::from_secs(120 + objects.files() as u64 / 500);
    let found = wait_for(patience, || {
        interrupt.check()?;
        let deletion = api.deletion(id)?;
        look(&deletion);
        Ok(deletion.is_final().then_some(deletion))
    })?;
    found.with_context(|| format!("The deletion is not over after {}.", output::seconds(patience)))
}

/// What the API says must be what was asked for. Returns it in lines.
fn check(api: &Api, deletion: &Deletion, objects: &Objects) -> Result<[String; 4]> {
    let (counts, files, untracked) =
        (deletion.counts, objects.files() as u64, objects.untracked.len() as u64);
    let complete = deletion.state == "succeeded"
        && counts.total == files
        && counts.deleted + counts.skipped == files
        && deletion.found_by_prefix == untracked;
    ensure!(
        complete,
        "{files} files were to be deleted, {untracked} of them found; the API says {}: {counts:?}, {} found",
        deletion.state,
        deletion.found_by_prefix
    );
    let skipped: Vec<_> = api.skipped(&deletion.id)?.skipped.into_iter().map(|skip| skip.key).collect();
    ensure!(
        skipped == [objects.uploaded_again.as_str()],
        "The file that was uploaded again was to be skipped, and nothing else; skipped are {skipped:?}"
    );
    let verification = deletion.verification.as_ref().context("The deletion was not verified.")?;
    ensure!(
        verification.objects_left == 0 && verification.uploaded_since == 1,
        "Nothing but the file that was uploaded again was to be left; the API says {verification:?}"
    );
    Ok([
        format!(
            "{}: {} deleted, {} skipped, 0 failed, 0 pending",
            deletion.state, counts.deleted, counts.skipped
        ),
        format!("  found by prefix: {untracked} files that the backend did not know of"),
        "  skipped: the file that was uploaded again, newer than the request".to_owned(),
        "  verified: 0 files left that are older than the request, 1 that is newer".to_owned(),
    ])
}

fn unreadable(api: &Api, interrupt: &Interrupt) -> Result<UnreadableMessage> {
    let found = wait_for(UNREADABLE_PATIENCE, || {
        interrupt.check()?;
        let recorded = api.unreadable_messages()?.unreadable_messages;
        Ok(recorded.into_iter().find(|message| message.body == UNREADABLE))
    })?;
    found.context("The message that cannot be read is not recorded after a minute.")
}
