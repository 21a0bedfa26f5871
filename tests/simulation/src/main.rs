//! Runs schedules: many, or one again.

mod long_run;

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum as _};
use simulation::{LedgerKind, Mode, Plant, Settings, Without, first_to_catch, name_of, run, shrink};

use crate::long_run::{LongRun, Runs};

/// A fifth of a schedule's time is in the allocator; this one takes half of that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the Workers' cores on simulated services, in as many schedules as there are seeds.
#[derive(Parser)]
struct Arguments {
    /// One seed: its schedule is told, step by step.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds in each mode, or from which to before which: `5000..6000`.
    #[arg(long, default_value = "1000", value_parser = parse_seeds)]
    seeds: Range<u64>,
    /// On so many cores.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
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
    /// Writes down in this folder how far it is, and goes on from there.
    #[arg(long)]
    progress: Option<PathBuf>,
    /// Stops after so long; what is left is left to the next time.
    #[arg(long)]
    minutes: Option<u64>,
    /// Only shows how far it is.
    #[arg(long, requires = "progress")]
    table: bool,
    /// Leaves these out of the schedule, as a shrunk one says.
    #[arg(long, default_value = "")]
    without: Without,
}

/// How many seeds a planted bug has to be caught in.
const PLANT_SEEDS: u64 = 2_000;

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.replace('_', "").parse::<u64>().map_err(|error| error.to_string());
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => Ok(0..number(text)?),
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let modes = arguments.mode.map_or_else(|| Mode::ALL.to_vec(), |mode| vec![mode]);
    let settings = |mode| match arguments.plant {
        Some(plant) => Settings { without: arguments.without, ..Settings::planted(plant) },
        None => Settings { without: arguments.without, ..Settings::new(mode, arguments.ledger) },
    };
    let is_right = if let Some(seed) = arguments.seed {
        // Every one of them.
        modes.into_iter().filter(|&mode| !tell(seed, settings(mode))).count() == 0
    } else if let Some(plant) = arguments.plant {
        catch_plants(&[plant])
    } else {
        let runs = modes.into_iter().map(|mode| LongRun::new(settings(mode), arguments.seeds.clone()));
        let mut runs = Runs::new(runs.collect(), arguments.progress.clone())?;
        if !arguments.table {
            let most = arguments.minutes.map(|minutes| Duration::from_secs(minutes * 60));
            runs = runs.explore(arguments.jobs.max(1), most)?;
        }
        let is_right = runs.show();
        is_right && (arguments.no_plants || arguments.table || catch_plants(Plant::value_variants()))
    };
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "a tool for a terminal")]
fn tell(seed: u64, settings: Settings) -> bool {
    let outcome = run(seed, Settings { is_traced: true, ..settings });
    let Some(violation) = outcome.violation else {
        println!("{}, seed {seed}: right\n{}", settings.mode, outcome.totals);
        return true;
    };
    println!("{}, seed {seed}: {violation}", settings.mode);
    let less = shrink(seed, settings);
    if less.without != settings.without {
        println!("It takes no more than this:\n    {}", less.replay_command(seed));
    }
    false
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
        println!("  {:<34}{:<14}{said:.100}", name_of(&plant), plant.mode().to_string());
    }
    println!("  caught {caught} of {}", plants.len());
    caught == plants.len()
}
