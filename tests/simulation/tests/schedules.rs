//! The quick part of the simulation; `cargo run --release -p simulation` is the long one.

use std::path::Path;

use clap::ValueEnum as _;
use simulation::{Fault, Mode, Plant, Totals, first_to_catch, name_of, replay_command, run};

/// How many schedules each mode has here.
const SEEDS: u64 = 400;

/// How many seeds a planted bug has to be caught in.
const PLANT_SEEDS: u64 = 2_000;

fn explore(mode: Mode) -> Totals {
    let mut totals = Totals::default();
    for seed in 0..SEEDS {
        let outcome = run(seed, mode, None, false);
        assert_eq!(outcome.violation, None, "{}", replay_command(seed, mode, None));
        totals.add(&outcome.totals);
    }
    totals
}

/// What never happens here is not tested here.
fn assert_everything_happened(totals: &Totals, but: &[Fault]) {
    for (fault, count) in Fault::ALL.iter().zip(totals.faults) {
        assert!(count > 0 || but.contains(fault), "{fault:?} has not happened");
    }
    let Totals { accepted, dead_letters, lists, races, .. } = *totals;
    assert!(accepted > SEEDS / 2 && dead_letters > 0 && lists > 0 && races > 0, "{totals}");
}

#[test]
fn by_the_queue_alone_all_that_was_accepted_ends_and_nothing_else_is_deleted() {
    let totals = explore(Mode::QueueOnly);
    assert_everything_happened(&totals, &[Fault::MessageLost, Fault::UpkeepDies]);
}

#[test]
fn with_upkeep_all_ends_although_messages_are_lost_and_nothing_else_is_deleted() {
    let totals = explore(Mode::SelfHealing);
    assert_everything_happened(&totals, &[]);
    assert!(totals.lost_messages > 0, "{totals}");
}

#[test]
fn every_planted_bug_is_caught() {
    let survivors: Vec<String> = Plant::value_variants()
        .iter()
        .filter(|&&plant| first_to_catch(plant, 0..PLANT_SEEDS).is_none())
        .map(|&plant| format!("{} in {}", name_of(plant), plant.mode()))
        .collect();
    assert!(survivors.is_empty(), "{survivors:?}");
}

#[test]
fn a_seed_does_the_same_again() {
    for mode in Mode::ALL {
        for seed in 0..20 {
            let (once, again) = (run(seed, mode, None, false), run(seed, mode, None, false));
            assert_eq!((once.hash, once.totals.steps), (again.hash, again.totals.steps), "{mode} {seed}");
        }
    }
}

/// Seeds that have found something, one a line, with what after a `#`: see `seeds/`.
#[test]
fn seeds_that_have_found_something_find_nothing() {
    for mode in Mode::ALL {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("seeds/{mode}.txt"));
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let seeds: Vec<u64> =
            lines.filter(|line| !line.is_empty()).map(|line| line.parse().unwrap()).collect();
        assert!(!seeds.is_empty());
        for seed in seeds {
            let violation = run(seed, mode, None, false).violation;
            assert_eq!(violation, None, "{}", replay_command(seed, mode, None));
        }
    }
}
