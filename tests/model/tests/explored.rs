//! Every small scope, explored to its end, and every planted bug; `cargo run --release -p model -- --large` has the
//! larger ones.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;

use model::{AFTERWARDS, Action, NEWER, Protocol, SCOPES, explore, plants};
use stateright::Model as _;

fn protocol(name: &str) -> Protocol {
    SCOPES.iter().find(|scope| scope.name == name).unwrap().protocol()
}

/// How many states there are is pinned: when it changes, the protocol has, and somebody should know.
#[test]
fn every_small_scope_has_the_counterexamples_that_are_known_and_no_other() {
    let states = [734_758, 51_820, 44_337, 34_004, 117_565, 117_003, 115_334, 68_488];
    for (scope, states) in SCOPES.iter().filter(|scope| !scope.is_large).zip(states) {
        let explored = explore(scope.protocol(), None);
        let found: BTreeSet<&str> = explored.counterexamples.keys().copied().collect();
        assert_eq!(found, scope.known.iter().copied().collect(), "{}: {explored:?}", scope.name);
        assert!(explored.is_exhausted, "{}", scope.name);
        assert_eq!(explored.states, states, "{}", scope.name);
    }
}

#[test]
fn every_planted_bug_has_a_counterexample() {
    for (plant, protocol, breaks) in plants() {
        let explored = explore(protocol, Some(breaks));
        assert!(explored.counterexamples.contains_key(breaks), "{plant:?}: {breaks}");
    }
}

/// The known one: it takes no fault at all.
#[test]
fn an_upload_between_a_look_and_its_call_is_deleted() {
    let protocol = protocol("uploads");
    let steps = explore(protocol, Some(NEWER)).counterexamples.remove(NEWER).unwrap();
    let place = |is: fn(&Action) -> bool| steps.iter().rposition(is).unwrap();
    let looked = place(|step| matches!(step, Action::Look(_)));
    let uploaded = place(|step| matches!(step, Action::Upload(_)));
    let carried_out = place(|step| matches!(step, Action::CarryOut(_) | Action::Fail(..)));
    assert!(looked < uploaded && uploaded < carried_out, "{steps:?}");
}

/// The other known one: only a call whose invocation has died, or that R2 did not answer in time, can do it.
#[test]
fn a_call_that_outlives_its_invocation_deletes_what_came_after_the_end() {
    let protocol = protocol("late-calls");
    let steps = explore(protocol.clone(), Some(AFTERWARDS)).counterexamples.remove(AFTERWARDS).unwrap();
    assert!(matches!(steps.last(), Some(Action::CarryOutLate(_))), "{steps:?}");
    let prompt = explore(Protocol { zombies: false, ..protocol }, None);
    assert!(prompt.is_exhausted && !prompt.counterexamples.contains_key(AFTERWARDS), "{prompt:?}");
}

/// What never happens is not explored: in some state of the small scopes each action can be taken.
#[test]
fn every_action_is_taken_somewhere() {
    let kind =
        |action: &Action| format!("{action:?}").split(['(', ' ']).next().unwrap_or_default().to_owned();
    let mut taken = BTreeSet::new();
    for scope in SCOPES.iter().filter(|scope| !scope.is_large) {
        let protocol = scope.protocol();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..2_000 {
            let mut state = protocol.init_states().remove(0);
            for _ in 0..100 {
                let mut actions = Vec::new();
                protocol.actions(&state, &mut actions);
                let Some(&chosen) = random.choice(&actions) else { break };
                taken.insert(kind(&chosen));
                let Some(next) = protocol.next_state(&state, chosen) else { break };
                state = next;
            }
        }
    }
    assert_eq!(taken.len(), ACTIONS, "{taken:?}");
}

/// As many as [`Action`] has.
const ACTIONS: usize = 29;
