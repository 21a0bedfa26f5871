//! `cargo xtask bench scale`: that time grows with the keys and no faster, that memory does not grow, and how long a small deletion
//! takes beside a large one.
//!
//! Time is measured without the fence, which `auto` puts up a minute after the request; what it costs is measured by itself, and of
//! the largest size, which takes longer than a minute, each fence.

use std::{
    cell::Cell,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Result, bail};
use protocol::Fence;

use super::{
    Setting,
    arena::{self, Arena, wait_for_end},
    inspector::Inspector,
    memory::{mb, watch_js},
    report::{Comparison, Contestant, Row, Target, grouped, take_turns},
};
use crate::{clock::Stopwatch, output, project::Worker, workers};

/// What is measured always, and what with `--full` only. More than a request takes comes in parts.
const SIZES: [usize; 3] = [100_000, 10_000, 1_000];
const FULL_SIZE: usize = 1_000_000;

/// The size that the others are held against: large enough for what a deletion costs apart from its keys not to count.
const REFERENCE: usize = 10_000;

/// How much longer a key may take in a large deletion than in one of [`REFERENCE`] keys.
const GROWTH_MAX: f64 = 1.25;

/// How much longer a deletion may take whose objects are all looked at, where a listing shows them.
const FENCE_MAX: f64 = 2.0;

/// What the isolate of either Worker may take, in MB, whatever the deletion: half of what there is.
const MEMORY_MAX: f64 = 64.0;

/// How much more memory the consumer may take for a deletion of [`FULL_SIZE`] keys than for the largest of [`SIZES`]. One of few
/// batches is no measure: a page of a listing is a megabyte of the runtime's objects, until it collects them.
const CONSUMER_GROWTH_MAX: f64 = 1.5;

/// Times are given for so many keys.
const PER_KEYS: f64 = 10_000.0;

const SMALL_KEYS: usize = 100;
const SMALL_ONES: usize = 5;

/// Measures all of it.
pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Comparison>> {
    workers::build(setting.toolbox, &Worker::ALL)?;
    let mut comparisons = vec![Arena::within(|arena| time(arena, "off", &SIZES, setting.rounds(3)))?];
    if setting.full {
        for fence in Fence::ALL {
            let timed = Arena::within(|arena| time(arena, fence.as_str(), &[FULL_SIZE, REFERENCE], 1));
            comparisons.push(timed?);
        }
    }
    let largest = if setting.full { FULL_SIZE } else { SIZES.into_iter().max().unwrap_or(REFERENCE) };
    let smaller = if setting.full { SIZES.into_iter().max().unwrap_or(REFERENCE) } else { REFERENCE };
    comparisons.extend(Arena::within_inspected(|arena| memory(arena, &[smaller, largest]))?);
    comparisons.push(Arena::within(|arena| fence(arena, setting.rounds(3)))?);
    comparisons.push(Arena::within(|arena| beside(arena, largest))?);
    Ok(comparisons)
}

fn keys_of(count: usize) -> String {
    format!("{} keys", grouped(&count.to_string()))
}

/// Seconds for each 10,000 keys, the first of `sizes` against the others.
fn time(arena: &Arena, fence: &str, sizes: &[usize], rounds: usize) -> Result<Comparison> {
    let turns = Cell::new(0_u32);
    let mut contestants: Vec<_> = sizes
        .iter()
        .map(|&count| {
            let turns = &turns;
            Contestant::new(keys_of(count), move || {
                turns.set(turns.get() + 1);
                let keys = arena::keys(&format!("scale/{}/", turns.get()), count);
                arena.fill(&keys)?;
                let time = arena.delete_with_fence(fence, &keys)?;
                output::note(format!("  {}, fence {fence}: {}", keys_of(count), output::seconds(time)));
                arena.settle()?;
                #[expect(clippy::cast_precision_loss, reason = "a million is no loss")]
                Ok(time.as_secs_f64() * PER_KEYS / count as f64)
            })
        })
        .collect();
    let rows = take_turns(usize::from(rounds > 1), rounds, &mut contestants)?;
    drop(contestants);
    let with = if fence == "off" { String::new() } else { format!(", fence {fence}") };
    let case = format!("request to gone{with}, for each 10,000 keys of");
    let comparison = Comparison::of_seconds("scale", case, rows);
    Ok(comparison.promising([Target::ratio(keys_of(REFERENCE), GROWTH_MAX)]))
}

/// What it costs that every object is looked at first: where a listing shows a thousand of them, and where each is asked for, as all
/// are whose names are not ASCII.
fn fence(arena: &Arena, rounds: usize) -> Result<Comparison> {
    let turns = Cell::new(0_u32);
    let mut contestants = [
        ("fence always", "always", "images"),
        ("fence always, one by one", "always", "bilder-ä"),
        ("fence off", "off", "images"),
    ]
    .map(|(name, fence, folder)| {
        let turns = &turns;
        Contestant::new(name, move || {
            turns.set(turns.get() + 1);
            let keys = arena::keys(&format!("scale/fence/{}/{folder}/", turns.get()), REFERENCE);
            arena.fill(&keys)?;
            let time = arena.delete_with_fence(fence, &keys)?;
            arena.settle()?;
            Ok(time.as_secs_f64())
        })
    });
    let rows = take_turns(1, rounds, &mut contestants)?;
    drop(contestants);
    let comparison =
        Comparison::of_seconds("scale", format!("request to gone of {}", keys_of(REFERENCE)), rows);
    Ok(comparison.promising([Target::ratio("fence off", FENCE_MAX)]))
}

/// The most that the isolate of each Worker takes, the last of `sizes` against the first.
fn memory(arena: &Arena, sizes: &[usize; 2]) -> Result<Vec<Comparison>> {
    // There is nothing to look into before they have been at work.
    arena.delete_by_pair(&arena::keys("scale/first/", 1))?;
    let names = ["r2-deletion-producer", "r2-deletion-consumer"];
    let mut inspectors = Vec::new();
    for name in names {
        inspectors.push(Inspector::connect(&arena.inspector(name)?)?);
    }
    let mut found: Vec<Vec<f64>> = vec![Vec::new(); names.len()];
    for &count in sizes {
        output::note(format!("  memory with {}", keys_of(count)));
        let keys = arena::keys(&format!("scale/memory/{count}/"), count);
        arena.fill(&keys)?;
        let over = AtomicBool::new(false);
        thread::scope(|scope| -> Result<()> {
            let watchers: Vec<_> = inspectors
                .iter_mut()
                .map(|inspector| {
                    let over = &over;
                    scope.spawn(move || -> Result<u64> {
                        Ok(watch_js(inspector, over)? + inspector.wasm_bytes()?)
                    })
                })
                .collect();
            // Pages of listings are the most that the consumer has at once.
            let deleted = arena.delete_with_fence("always", &keys);
            over.store(true, Ordering::Relaxed);
            if let Ok(time) = &deleted {
                output::note(format!(
                    "  {}, fence always, watched: {}",
                    keys_of(count),
                    output::seconds(*time)
                ));
            }
            for ((watcher, found), name) in watchers.into_iter().zip(&mut found).zip(names) {
                let most = mb(watcher.join().unwrap_or_else(|_| bail!("a watcher panicked"))?);
                output::note(format!("  {name}: {most:.1} MB"));
                found.push(most);
            }
            deleted.map(drop)
        })?;
    }
    let comparisons = names.iter().zip(found).map(|(name, found)| {
        let rows = sizes.iter().zip(found).rev().map(|(&count, found)| Row::new(keys_of(count), [found]));
        let case = format!("memory of {name}, fence always");
        let comparison = Comparison::of_memory("scale", case, rows.collect());
        comparison.promising([Target::value(MEMORY_MAX)])
    });
    let mut comparisons: Vec<_> = comparisons.collect();
    if let (Some(consumer), [smaller, FULL_SIZE]) = (comparisons.last_mut(), sizes) {
        consumer.targets.push(Target::ratio(keys_of(*smaller), CONSUMER_GROWTH_MAX));
    }
    Ok(comparisons)
}

/// How long a small deletion takes while a large one is carried out, against one on an idle system.
fn beside(arena: &Arena, large: usize) -> Result<Comparison> {
    let small = |prefix: &str| -> Vec<_> {
        (0..SMALL_ONES).map(|number| arena::keys(&format!("{prefix}{number}/"), SMALL_KEYS)).collect()
    };
    let (idle, busy) = (small("scale/idle/"), small("scale/busy/"));
    let keys = arena::keys("scale/large/", large);
    arena.fill(&[idle.concat(), busy.concat(), keys.clone()].concat())?;
    // The first one warms up.
    arena.delete_by_pair(&arena::keys("scale/first/", SMALL_KEYS))?;
    let seconds = |keys: &Vec<String>| Ok(arena.delete_by_pair(keys)?.as_secs_f64());
    let idle: Vec<f64> = idle.iter().map(seconds).collect::<Result<_>>()?;

    let watch = Stopwatch::start();
    let accepted = arena::request(&arena.api(), "off", &keys)?;
    // All at once, as by so many callers: one after the other they would find it over.
    let busy: Vec<f64> = thread::scope(|scope| {
        let callers: Vec<_> = busy.iter().map(|keys| scope.spawn(move || seconds(keys))).collect();
        let times =
            callers.into_iter().map(|caller| caller.join().unwrap_or_else(|_| bail!("a caller panicked")));
        times.collect::<Result<_>>()
    })?;
    wait_for_end(&arena.api(), &accepted, keys.len())?;
    output::note(format!("  the large one: {}", output::seconds(watch.elapsed())));
    let case = format!("request to gone of {SMALL_KEYS} keys");
    let rows = vec![Row::new(format!("beside {}", keys_of(large)), busy), Row::new("alone", idle)];
    Ok(Comparison::of_seconds("scale", case, rows))
}
