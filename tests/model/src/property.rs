use crate::Protocol;
use crate::ledger::Ledger;
use crate::state::State;

/// What a step has done that no step may do, in what is explored; the known counterexamples are among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Break {
    /// An object was removed that nobody has asked for.
    NotAskedFor,
    /// Two invocations called for one key at once.
    TwoCalls,
    /// Something was decided about a key that was decided.
    RecordedTwice,
    /// Counts changed of a deletion that was over, or went back.
    OverChanged,
    /// A call named a key that was not looked at just before, where the fence looks.
    NotLookedAt,
    /// An object was removed of whose key the outcome was recorded.
    AfterItsOutcome,
    /// An object was removed that is newer than the request.
    NewerDeleted,
    /// The same, and it was uploaded before the look.
    NewerOutsideItsWindow,
    /// An end was told that was told.
    ToldTwice,
}

/// A property, and its name.
pub(crate) type Holds = fn(&Protocol, &State) -> bool;

/// What has to hold in every state.
pub(crate) const PROPERTIES: [(&str, Holds); 12] = [
    ("nothing is deleted that was not asked for", |_, state| !state.broken.contains(&Break::NotAskedFor)),
    ("a key has one call at a time", |_, state| !state.broken.contains(&Break::TwoCalls)),
    ("counts add up", |model, state| state.ledger.view(model.plant).is_some()),
    ("a key's outcome is recorded once", |_, state| !state.broken.contains(&Break::RecordedTwice)),
    ("what is over stays as it is", |_, state| !state.broken.contains(&Break::OverChanged)),
    ("what was begun ends", |model, state| !model.is_quiet(state) || is_over(model, &state.ledger)),
    ("a call names what was looked at", |_, state| !state.broken.contains(&Break::NotLookedAt)),
    ("what is said to be deleted is gone", |_, state| !state.old.meets(state.ledger.deleted())),
    ("an end is told once", |_, state| !state.broken.contains(&Break::ToldTwice)),
    (NEWER_OUTSIDE, |_, state| !state.broken.contains(&Break::NewerOutsideItsWindow)),
    (NEWER, |_, state| !state.broken.contains(&Break::NewerDeleted)),
    (AFTERWARDS, |_, state| !state.broken.contains(&Break::AfterItsOutcome)),
];

/// Holds where the fence looks.
pub const NEWER_OUTSIDE: &str = "what is newer is deleted only if it came after the look";

/// Does not hold: an upload may come between a look and its call.
pub const NEWER: &str = "what is newer is not deleted";

/// Does not hold where R2 may carry out a call whose invocation has died.
pub const AFTERWARDS: &str = "nothing is removed once its outcome is recorded";

fn is_over(model: &Protocol, ledger: &Ledger) -> bool {
    ledger.view(model.plant).is_some_and(|(_, state)| state.is_final())
}
