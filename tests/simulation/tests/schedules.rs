//! The quick part of the simulation; `cargo run --release -p simulation` is the long one.

use std::path::Path;

use clap::ValueEnum as _;
use simulation::{Count, Fault, LedgerKind, Mode, Plant, Settings, Totals, first_to_catch, name_of, run};

/// How many schedules each mode has here, on each ledger.
const SEEDS: [(LedgerKind, u64); 2] = [(LedgerKind::Memory, 1_000), (LedgerKind::Sql, 200)];

/// How many seeds a planted bug has to be caught in.
const PLANT_SEEDS: u64 = 2_000;

fn explore(mode: Mode) -> Totals {
    let mut totals = Totals::default();
    for (ledger, seeds) in SEEDS {
        let settings = Settings::new(mode, ledger);
        for seed in 0..seeds {
            let outcome = run(seed, settings);
            assert_eq!(outcome.violation, None, "{}", settings.replay_command(seed));
            totals.add(&outcome.totals);
        }
    }
    totals
}

/// What never happens here is not tested here. That everything rarer happens too, many schedules show.
fn assert_everything_happened(totals: &Totals, but: &[Fault]) {
    for &fault in Fault::ALL.iter().filter(|fault| !but.contains(fault)) {
        assert!(totals.of_fault(fault) > 0, "{fault:?} has not happened");
    }
    let has_happened = [
        Count::DeadLetters,
        Count::Listings,
        Count::UploadsBetweenLookAndEffect,
        Count::Kills,
        Count::Redrives,
        Count::RedrivesOfAll,
        Count::Trespasses,
        Count::WaitedFor,
        Count::AskedForInLines,
        Count::PlansCarriedOut,
        Count::DeliveriesAfterTheEnd,
    ];
    for count in has_happened {
        assert!(totals.of(count) > 0, "{count:?} has not happened");
    }
    assert!(totals.of(Count::Accepted) > 600, "{totals}");
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
    assert!(totals.of(Count::MessagesLost) > 0 && totals.of(Count::Expired) > 0, "{totals}");
}

#[test]
fn every_planted_bug_is_caught() {
    let survivors: Vec<String> = Plant::value_variants()
        .iter()
        .filter(|&&plant| first_to_catch(plant, 0..PLANT_SEEDS).is_none())
        .map(|&plant| format!("{} in {}", name_of(&plant), plant.mode()))
        .collect();
    assert!(survivors.is_empty(), "{survivors:?}");
}

#[test]
fn a_seed_does_the_same_again() {
    for (mode, (ledger, _)) in Mode::ALL.into_iter().flat_map(|mode| SEEDS.map(|seeds| (mode, seeds))) {
        for seed in 0..20 {
            let again = || run(seed, Settings::new(mode, ledger));
            let (once, again) = (again(), again());
            assert_eq!((once.hash, once.totals), (again.hash, again.totals), "{mode} {seed}");
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
        for (seed, (ledger, _)) in seeds.into_iter().flat_map(|seed| SEEDS.map(|ledger| (seed, ledger))) {
            let settings = Settings::new(mode, ledger);
            assert_eq!(run(seed, settings).violation, None, "{}", settings.replay_command(seed));
        }
    }
}
