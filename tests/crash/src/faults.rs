//! What goes wrong, when, and for which calls.

use std::ops::Add;
use std::sync::{Arc, Mutex, PoisonError};

use crate::gate::Gate;

/// At which point of a call its fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Nothing has been done.
    Before,
    /// Half of the work has been done. A database does all or nothing: for it this is [`When::Before`].
    Halfway,
    /// All has been done and only the answer is missing.
    After,
}

/// What the caller sees of a fault.
#[derive(Debug, Clone)]
pub enum How<E> {
    /// An error of the service.
    Refused(E),
    /// The connection closes without an answer.
    Dropped,
    /// Nothing until the gate opens; then the call goes on and is answered as if nothing had happened.
    Stalled(Gate),
}

/// One fault: what the caller sees, and what was done until then.
#[derive(Debug, Clone)]
pub struct Fault<E> {
    /// What had been done when it struck.
    pub when: When,
    /// What the caller sees.
    pub how: How<E>,
}

impl<E> Fault<E> {
    /// An error before anything was done.
    pub fn refused(error: impl Into<E>) -> Self {
        Self { when: When::Before, how: How::Refused(error.into()) }
    }

    /// An error although everything was done.
    pub fn done_but_refused(error: impl Into<E>) -> Self {
        Self { when: When::After, how: How::Refused(error.into()) }
    }

    /// An error after half of the work.
    pub fn half_done(error: impl Into<E>) -> Self {
        Self { when: When::Halfway, how: How::Refused(error.into()) }
    }

    /// A connection that closes in place of an answer.
    pub fn dropped(when: When) -> Self {
        Self { when, how: How::Dropped }
    }

    /// A call that waits at `gate`.
    pub fn stalled(when: When, gate: &Gate) -> Self {
        Self { when, how: How::Stalled(gate.clone()) }
    }
}

/// How many calls have met a fault, by its kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Met {
    /// The service answered with an error.
    pub errors: u64,
    /// The connection was closed in place of an answer.
    pub resets: u64,
    /// There was no answer for as long as the test wanted.
    pub stalls: u64,
    /// Of all those, what had been done in part: of a send, every other message was stored.
    pub in_part: u64,
}

impl Add for Met {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            errors: self.errors + other.errors,
            resets: self.resets + other.resets,
            stalls: self.stalls + other.stalls,
            in_part: self.in_part + other.in_part,
        }
    }
}

/// The faults that are still to come, in the order in which they were planned.
#[derive(Debug)]
pub(crate) struct Faults<E> {
    planned: Arc<Mutex<Vec<Planned<E>>>>,
    met: Arc<Mutex<Met>>,
}

#[derive(Debug)]
struct Planned<E> {
    only: Vec<String>,
    spare: usize,
    times: usize,
    fault: Fault<E>,
}

impl<E> Default for Faults<E> {
    fn default() -> Self {
        Self { planned: Arc::default(), met: Arc::default() }
    }
}

impl<E> Clone for Faults<E> {
    fn clone(&self) -> Self {
        Self { planned: Arc::clone(&self.planned), met: Arc::clone(&self.met) }
    }
}

impl<E: Clone> Faults<E> {
    /// Of the calls whose label contains each of `only`, spares the first `spare` and strikes the next `times`.
    pub(crate) fn plan(&self, only: &[&str], spare: usize, times: usize, fault: Fault<E>) {
        let only = only.iter().map(|&text| text.to_owned()).collect();
        let planned = Planned { only, spare, times, fault };
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).push(planned);
    }

    /// Forgets what is still to come.
    pub(crate) fn clear(&self) {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The fault of the call that is labelled so, if one was planned for it.
    pub(crate) fn strike(&self, label: &str) -> Option<Fault<E>> {
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        let mut struck = None;
        for plan in planned.iter_mut().filter(|plan| plan.only.iter().all(|only| label.contains(only))) {
            if plan.spare > 0 {
                plan.spare -= 1;
            } else if struck.is_none() && plan.times > 0 {
                plan.times -= 1;
                struck = Some(plan.fault.clone());
            }
        }
        planned.retain(|plan| plan.times > 0);
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        match struck.as_ref().map(|fault| &fault.how) {
            Some(How::Refused(_)) => met.errors += 1,
            Some(How::Dropped) => met.resets += 1,
            Some(How::Stalled(_)) => met.stalls += 1,
            None => {}
        }
        met.in_part += u64::from(struck.as_ref().is_some_and(|fault| fault.when == When::Halfway));
        struck
    }

    /// What has struck so far.
    pub(crate) fn met(&self) -> Met {
        *self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
