//! `cargo xtask bench gone`: how long it takes from the request until the last object is gone, beside those who can do it too.
//!
//! Everybody deletes from the same local bucket, in the same runtime or over its S3 endpoint, and every turn has a bucket filled
//! for it. What production adds, the network and R2 itself, is missing for all of them.

mod tools;

use std::cell::Cell;

use anyhow::{Result, ensure};

use self::tools::Tools;
use super::{
    Setting,
    arena::{self, Arena, DELETE_PER_KEY, FLOOR, ONE_KEY_PER_MESSAGE},
    report::{Comparison, Contestant, Target, grouped, take_turns},
};
use crate::{clock::Stopwatch, output, project::Worker, workers};

const OURS: &str = "this pair";
const S5CMD: &str = "s5cmd";
const THE_FLOOR: &str = "floor: bare deletes of 1,000";

/// Ours is at most this of s5cmd's time, at [`SIZE_OF_TARGETS`].
const OF_S5CMD_MAX: f64 = 0.8;

/// And this of a Worker's that does nothing but delete.
const OF_FLOOR_MAX: f64 = 1.25;

const SIZE_OF_TARGETS: usize = 10_000;

/// Who deletes key by key takes minutes for more.
const SLOW_KEYS_MAX: usize = 1_000;

/// Who deletes by the hundred, too.
const SLOWISH_KEYS_MAX: usize = 10_000;

/// A number of keys, how often everybody takes a turn, and whether only `--full` measures it, because filling the bucket takes long.
const SIZES: [(usize, usize, bool); 3] = [(1_000, 5, false), (10_000, 5, false), (100_000, 3, true)];

/// Measures it.
pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Comparison>> {
    workers::build(setting.toolbox, &Worker::ALL)?;
    let tools = Tools::find(setting.toolbox);
    let sizes = SIZES.iter().filter(|(.., full)| setting.full || !full);
    Arena::within(|arena| {
        sizes.map(|&(keys, rounds, _)| compare(arena, &tools, keys, setting.rounds(rounds))).collect()
    })
}

fn compare(arena: &Arena, tools: &Tools, count: usize, rounds: usize) -> Result<Comparison> {
    let case = format!("{} keys", grouped(&count.to_string()));
    let turns = Cell::new(0_u32);
    // Fills the bucket, has `delete` delete what is there and say how long that took, and looks that it has.
    let turn = |delete: &dyn Fn(&str, &[String]) -> Result<f64>| -> Result<f64> {
        turns.set(turns.get() + 1);
        let prefix = format!("bench/{count}/{}/", turns.get());
        let keys = arena::keys(&prefix, count);
        arena.fill(&keys)?;
        let seconds = delete(&prefix, &keys)?;
        ensure!(!arena.has_left(&prefix)?, "there are objects left");
        arena.settle()?;
        Ok(seconds)
    };
    let turn = &turn;
    let worker = |binding: &'static str| {
        move |prefix: &str, keys: &[String]| {
            let watch = Stopwatch::start();
            arena.hand_to(binding, keys)?;
            arena.wait_until_empty(prefix)?;
            Ok(watch.elapsed().as_secs_f64())
        }
    };

    let mut contestants = vec![
        Contestant::new(OURS, || turn(&|_, keys| Ok(arena.delete_by_pair(keys)?.as_secs_f64()))),
        Contestant::new(THE_FLOOR, || turn(&worker(FLOOR))),
    ];
    if count <= SLOWISH_KEYS_MAX {
        let name = "one key per message";
        contestants.push(Contestant::new(name, || turn(&worker(ONE_KEY_PER_MESSAGE))));
    }
    if count <= SLOW_KEYS_MAX {
        contestants.push(Contestant::new("one delete per key", || turn(&worker(DELETE_PER_KEY))));
    }
    for tool in tools.that_take(count) {
        contestants.push(Contestant::new(tool.name(), move || {
            turn(&|prefix, keys| Ok(tool.delete(arena, prefix, keys)?.as_secs_f64()))
        }));
    }
    output::say(format!("{case}: {rounds} rounds of {} ways to delete them", contestants.len()));
    let rows = take_turns(1, rounds, &mut contestants)?;
    drop(contestants);
    let comparison = Comparison::of_seconds("gone", case, rows).without(tools.missing().to_vec());
    let targets = [Target::ratio(S5CMD, OF_S5CMD_MAX), Target::ratio(THE_FLOOR, OF_FLOOR_MAX)];
    Ok(if count == SIZE_OF_TARGETS { comparison.promising(targets) } else { comparison })
}
