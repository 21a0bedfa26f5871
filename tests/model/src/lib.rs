//! A model of how a deletion goes through queue, consumer and ledger, small enough that every order of events is
//! explored.
//!
//! One deletion of one to three chunks, two invocations of the consumer at once, the requests that send its
//! messages, and as much that goes wrong as a [`Budget`] allows: an invocation dies at any step, a message comes
//! twice or is lost, R2 or the ledger fails before, after or amid its effect, somebody uploads, cancels or redrives.
//! [`explore`] goes through every order of that.
//!
//! # In scope
//!
//! Claims, looks and calls, records, settlements, redelivery, dead letters, generations, cancellation, sending and
//! sending again. The decisions about counts, states and the fence are those of `protocol`, as they are; the ledger's
//! are written down once more (`ledger.rs`), and a test compares them with the SQL.
//!
//! # Out of scope
//!
//! Time: that no invocation outlives its claim is taken from the code, which checks it when it is compiled. Sizes,
//! sweeps, notices, parts, and batches of several messages, which `tests/simulation` has.

mod keys;
mod ledger;
mod plant;
mod property;
mod scope;
mod state;
mod step;

use std::time::Duration;

pub use keys::Keys;
pub use ledger::{ChunkName, Ledger, Outcome, Part, Recorded, Reply, Row};
pub use plant::Plant;
use property::PROPERTIES;
pub use property::{AFTERWARDS, Break, NEWER, NEWER_OUTSIDE};
use protocol::Fence;
pub use scope::{Explored, SCOPES, Scope, explore, plants};
pub use state::{Budget, Call, Message, Request, State, Step, Worker};
use stateright::{Model, Property};
pub use step::Action;

/// What is explored: how much there is of everything.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// The keys of each chunk.
    pub chunks: Vec<Keys>,
    /// Most invocations of the consumer at once.
    pub workers: usize,
    /// How often a message is delivered again before it is a dead letter.
    pub retries: u8,
    /// The fence of the request.
    pub fence: Fence,
    /// Keys that R2 refuses to delete.
    pub locked: Keys,
    /// Whether R2 may carry out a call that nobody waits for any more.
    pub zombies: bool,
    /// Whether a message that nobody of ours has written lies in the queue.
    pub forged: bool,
    /// What may go wrong.
    pub budget: Budget,
    /// A bug.
    pub plant: Option<Plant>,
}

impl Protocol {
    /// Every key that is asked for.
    pub(crate) fn asked(&self) -> Keys {
        self.chunks.iter().fold(Keys::NONE, |keys, &chunk| keys | chunk)
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let forged = Message {
            name: ChunkName { generation: 0, chunk: 99 },
            keys: Keys::BYSTANDER,
            attempts: 0,
            is_dead: false,
        };
        vec![State {
            old: self.asked() | Keys::BYSTANDER,
            new: Keys::NONE,
            ledger: Ledger::new(&self.chunks),
            queue: if self.forged { vec![forged] } else { Vec::new() },
            workers: Vec::new(),
            requests: vec![Request::Sending { generation: 0, next: 0 }],
            zombies: Vec::new(),
            budget: self.budget,
            broken: Vec::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.list_actions(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.take(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        PROPERTIES.map(|(name, holds)| Property::always(name, holds)).into()
    }
}

/// How long an exploration may take before it is given up.
const TIMEOUT: Duration = Duration::from_hours(1);
