use std::collections::BTreeMap;
use std::time::Instant;

use protocol::Fence;
use stateright::{Checker, HasDiscoveries, Model};

use crate::keys::Keys;
use crate::plant::Plant;
use crate::property::{AFTERWARDS, NEWER};
use crate::state::Budget;
use crate::{Action, Protocol, TIMEOUT};

/// What is explored, and what is known to go wrong in it.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Its name.
    pub name: &'static str,
    /// Only on demand: it takes minutes.
    pub is_large: bool,
    /// The properties that do not hold, by name: the checker has to find that.
    pub known: &'static [&'static str],
    protocol: fn() -> Protocol,
}

/// What an exploration has shown.
#[derive(Debug)]
pub struct Explored {
    /// States that are different, told apart by a hash of 64 bits.
    pub states: usize,
    /// States in all, those counted that were come to by several ways.
    pub generated: usize,
    /// The longest way to a state, in steps.
    pub depth: usize,
    /// How long it took.
    pub seconds: f64,
    /// Whether every state was come to.
    pub is_exhausted: bool,
    /// The counterexamples: the property's name, and the steps that lead to one.
    pub counterexamples: BTreeMap<&'static str, Vec<Action>>,
}

impl Scope {
    /// The model of it.
    pub fn protocol(&self) -> Protocol {
        (self.protocol)()
    }
}

/// One key in a chunk.
const ONE: Keys = Keys::range(0, 1);
/// Two keys in a chunk.
const PAIR: Keys = Keys::range(0, 2);
const SECOND: Keys = Keys::range(1, 1);
const THIRD: Keys = Keys::range(2, 1);

fn protocol(chunks: &[Keys], fence: Fence, budget: Budget) -> Protocol {
    Protocol {
        chunks: chunks.to_vec(),
        workers: 2,
        retries: 1,
        fence,
        locked: Keys::NONE,
        zombies: false,
        forged: false,
        budget,
        plant: None,
    }
}

/// One of each that makes no object newer: what every small scope begins with.
const FAULTS: Budget = Budget {
    crashes: 1,
    duplicates: 1,
    r2_errors: 1,
    ledger_errors: 1,
    uploads: 0,
    redrives: 0,
    cancels: 0,
    losses: 0,
};

fn redelivery() -> Protocol {
    Protocol { forged: true, ..protocol(&[ONE, SECOND], Fence::Auto, Budget { ledger_errors: 0, ..FAULTS }) }
}

fn ledger_faults() -> Protocol {
    protocol(&[PAIR], Fence::Always, Budget { ledger_errors: 2, ..FAULTS })
}

fn uploads() -> Protocol {
    protocol(&[PAIR], Fence::Always, Budget { ledger_errors: 0, uploads: 1, ..FAULTS })
}

fn late_calls() -> Protocol {
    Protocol {
        zombies: true,
        ..protocol(&[ONE], Fence::Always, Budget { ledger_errors: 0, uploads: 1, ..FAULTS })
    }
}

fn redrives() -> Protocol {
    Protocol {
        locked: SECOND,
        ..protocol(&[PAIR], Fence::Auto, Budget { redrives: 2, ledger_errors: 0, r2_errors: 0, ..FAULTS })
    }
}

fn dead_letters() -> Protocol {
    protocol(&[PAIR], Fence::Always, Budget { redrives: 1, ledger_errors: 0, r2_errors: 2, ..FAULTS })
}

fn cancellation() -> Protocol {
    protocol(&[ONE, SECOND], Fence::Auto, Budget { cancels: 1, ledger_errors: 0, r2_errors: 0, ..FAULTS })
}

fn losses() -> Protocol {
    protocol(&[ONE, SECOND], Fence::Auto, Budget { losses: 1, ledger_errors: 0, r2_errors: 0, ..FAULTS })
}

fn large() -> Protocol {
    Protocol {
        forged: true,
        ..protocol(&[ONE, SECOND, THIRD], Fence::Always, Budget { duplicates: 1, ..FAULTS })
    }
}

fn large_redrives() -> Protocol {
    Protocol {
        locked: SECOND,
        ..protocol(
            &[PAIR, THIRD],
            Fence::Auto,
            Budget { redrives: 2, ledger_errors: 0, cancels: 1, ..FAULTS },
        )
    }
}

fn large_late_calls() -> Protocol {
    Protocol {
        zombies: true,
        ..protocol(&[PAIR], Fence::Always, Budget { uploads: 2, crashes: 2, ..FAULTS })
    }
}

fn large_losses() -> Protocol {
    protocol(&[ONE, SECOND], Fence::Auto, Budget { losses: 2, redrives: 1, ..FAULTS })
}

/// Every scope, the large ones last.
pub const SCOPES: [Scope; 12] = [
    Scope { name: "redelivery", is_large: false, known: &[], protocol: redelivery },
    Scope { name: "ledger-faults", is_large: false, known: &[], protocol: ledger_faults },
    Scope { name: "uploads", is_large: false, known: &[NEWER], protocol: uploads },
    Scope { name: "late-calls", is_large: false, known: &[NEWER, AFTERWARDS], protocol: late_calls },
    Scope { name: "redrives", is_large: false, known: &[], protocol: redrives },
    Scope { name: "dead-letters", is_large: false, known: &[], protocol: dead_letters },
    Scope { name: "cancellation", is_large: false, known: &[], protocol: cancellation },
    Scope { name: "losses", is_large: false, known: &[], protocol: losses },
    Scope { name: "large", is_large: true, known: &[], protocol: large },
    Scope { name: "large-redrives", is_large: true, known: &[], protocol: large_redrives },
    Scope {
        name: "large-late-calls",
        is_large: true,
        known: &[NEWER, AFTERWARDS],
        protocol: large_late_calls,
    },
    Scope { name: "large-losses", is_large: true, known: &[], protocol: large_losses },
];

type Planted = (Plant, fn() -> Protocol, &'static str);

/// Every planted bug, with the model that it is planted in and the property that it has to break.
pub fn plants() -> Vec<(Plant, Protocol, &'static str)> {
    let ends = "what was begun ends";
    let add_up = "counts add up";
    let planted: [Planted; 16] = [
        (Plant::NoClaim, redelivery, "a key has one call at a time"),
        (Plant::ClaimTooShort, redelivery, "a key has one call at a time"),
        (Plant::AcknowledgedFirst, redelivery, ends),
        (Plant::DeadLetterAcknowledgedFirst, dead_letters, ends),
        (Plant::AcknowledgedOnError, redelivery, ends),
        (Plant::NoGenerationInName, redrives, ends),
        (Plant::NoLedgerCheck, redelivery, "nothing is deleted that was not asked for"),
        (Plant::RecordWithoutClaim, ledger_faults, "a key's outcome is recorded once"),
        (Plant::FailureIsSuccess, redelivery, "what is said to be deleted is gone"),
        (Plant::LookOnFirstAttempt, uploads, "a call names what was looked at"),
        (Plant::DeadLetterFailsAll, dead_letters, "a key's outcome is recorded once"),
        (Plant::RedriveUnconditional, redrives, add_up),
        (Plant::AcceptedFirst, redelivery, ends),
        (Plant::CancelledAtOnce, cancellation, "what is over stays as it is"),
        (Plant::EndedTwice, ledger_faults, "an end is told once"),
        (Plant::NoUpkeep, losses, ends),
    ];
    planted.map(|(plant, build, breaks)| (plant, Protocol { plant: Some(plant), ..build() }, breaks)).into()
}

/// Goes through every state, breadth first; with `until`, until a counterexample to that property is found.
#[expect(clippy::disallowed_methods, reason = "measures how fast the exploration itself is")]
pub fn explore(protocol: Protocol, until: Option<&'static str>) -> Explored {
    let began_at = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let mut checker = protocol.checker().threads(threads).timeout(TIMEOUT);
    if let Some(property) = until {
        checker = checker.finish_when(HasDiscoveries::AnyOf([property].into()));
    }
    let checker = checker.spawn_bfs().join();
    let actions = |name, path: stateright::Path<_, Action>| (name, path.into_actions());
    Explored {
        states: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        seconds: began_at.elapsed().as_secs_f64(),
        is_exhausted: checker.is_done() && began_at.elapsed() < TIMEOUT,
        counterexamples: checker.discoveries().into_iter().map(|(name, path)| actions(name, path)).collect(),
    }
}
