//! Runs schedules: many, or one again.

use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum as _};
use simulation::{LedgerKind, Mode, Plant, Settings, Totals, first_to_catch, name_of, run};

/// Runs the Workers' cores on simulated services, in as many schedules as there are seeds.
#[derive(Parser)]
struct Arguments {
    /// One seed: its schedule is told, step by step.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds in each mode.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this mode.
    #[arg(long)]
    mode: Option<Mode>,
    /// On this ledger.
    #[arg(long, default_value = "memory")]
    ledger: LedgerKind,
    /// With this bug planted.
    #[arg(long)]
    plant: Option<Plant>,
    /// Leaves the planted bugs out.
    #[arg(long)]
    no_plants: bool,
}

/// How many seeds a planted bug has to be caught in.
const PLANT_SEEDS: u64 = 2_000;

#[expect(clippy::print_stdout, reason = "a tool for a terminal")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let modes = arguments.mode.map_or_else(|| Mode::ALL.to_vec(), |mode| vec![mode]);
    if let Some(seed) = arguments.seed {
        let mut is_right = true;
        for mode in modes {
            let settings = Settings::new(mode, arguments.ledger);
            let outcome = run(seed, Settings { plant: arguments.plant, is_traced: true, ..settings });
            println!(
                "{mode}, seed {seed}: {}\n{}",
                outcome.violation.as_deref().unwrap_or("right"),
                outcome.totals
            );
            is_right &= outcome.violation.is_none();
        }
        return if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Some(plant) = arguments.plant {
        return if catch_plants(&[plant]) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let seeds = arguments.from..arguments.from + arguments.seeds;
    let mut is_right = true;
    for mode in modes {
        is_right &= explore(seeds.clone(), Settings::new(mode, arguments.ledger));
    }
    if !arguments.no_plants {
        is_right &= catch_plants(Plant::value_variants());
    }
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "a tool for a terminal")]
#[expect(clippy::disallowed_methods, reason = "measures how fast the simulation itself is")]
fn explore(seeds: Range<u64>, settings: Settings) -> bool {
    let mode = settings.mode;
    let (started_at, mut totals, mut violations) = (Instant::now(), Totals::default(), Vec::new());
    for seed in seeds {
        let outcome = run(seed, settings);
        totals.add(&outcome.totals);
        if let Some(violation) = outcome.violation {
            println!("{violation}\n    {}", settings.replay_command(seed));
            violations.push(violation);
        }
    }
    let per_second = u128::from(totals.schedules) * 1_000 / started_at.elapsed().as_millis().max(1);
    let count =
        |of: &[&str]| violations.iter().filter(|text| of.iter().any(|word| text.contains(word))).count();
    let (lost, stray, twice) =
        (count(&["lost", "still there"]), count(&["stray"]), count(&["counted twice"]));
    println!("{mode}\n{totals}  {:<32}{per_second:>14}", "schedules per second");
    for (name, value) in
        [("violations", violations.len()), ("lost", lost), ("stray", stray), ("counted twice", twice)]
    {
        println!("  {name:<32}{value:>14}");
    }
    violations.is_empty()
}

#[expect(clippy::print_stdout, reason = "a tool for a terminal")]
fn catch_plants(plants: &[Plant]) -> bool {
    println!("planted bugs");
    let mut caught = 0;
    for &plant in plants {
        let found = first_to_catch(plant, 0..PLANT_SEEDS);
        caught += usize::from(found.is_some());
        let said =
            found.map_or_else(|| "SURVIVES".to_owned(), |(seed, text)| format!("seed {seed:<6}{text}"));
        println!("  {:<34}{:<14}{said:.100}", name_of(plant), plant.mode().to_string());
    }
    println!("  caught {caught} of {}", plants.len());
    caught == plants.len()
}
