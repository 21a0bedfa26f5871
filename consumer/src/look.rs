use std::cell::{Cell, RefCell};

use futures::future::join_all;
use protocol::{R2Error, R2ErrorClass, RetryCause, Timestamp};

use crate::allowance::Allowance;
use crate::bucket::Bucket;
use crate::delete::{Attempt, CALL_MS_MAX};
use crate::host::Host;
use crate::time_limit::in_time;

/// How long one look goes on asking, in milliseconds: what it has found by then is deleted before it goes on with the rest.
const LOOK_MS: u64 = 1_000;

/// How long R2 may take to say what is under a key, in milliseconds.
const HEAD_MS_MAX: u64 = 5_000;

/// How old what a look has found can be when it ends, in milliseconds.
pub(crate) const LOOK_MS_MAX: u64 = LOOK_MS + HEAD_MS_MAX;

// A look that begins at the last moment is over before a delete would be that begins then: the claim lasts for both.
const _: () = assert!(LOOK_MS_MAX <= CALL_MS_MAX);

/// Errors in a row after which the chunk is left for another attempt: R2 has an outage then.
const HOPELESS_HEADS_MAX: u32 = 12;

/// What is under some of a chunk's keys, by their positions.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// An object that was there when the deletion was requested.
    pub(crate) old: Vec<usize>,
    /// No object.
    pub(crate) absent: Vec<usize>,
    /// An object that was uploaded since, and when.
    pub(crate) newer: Vec<(usize, Timestamp)>,
    /// Nobody can know: R2 refuses the key itself.
    pub(crate) refused: Vec<(usize, R2Error)>,
    /// Not asked about.
    pub(crate) rest: Vec<usize>,
    /// Calls made to R2.
    pub(crate) heads: usize,
    /// The last error that has left a key undecided.
    pub(crate) error: Option<R2Error>,
    /// Why there is no sense in asking about the rest, if there is none.
    pub(crate) stop: Option<RetryCause>,
    errors_in_a_row: u32,
}

/// Looks at the objects of a chunk's keys: at as many as a second and the allowance are enough for, several at once.
pub(crate) async fn look(
    attempt: &Attempt<'_>,
    positions: &[usize],
    allowance: &Allowance,
    bucket: &impl Bucket,
    host: &impl Host,
) -> Look {
    let began_at = host.now();
    let (asked, look) = (Cell::new(0), RefCell::new(Look::default()));
    let lane = async || {
        while let Some(&at) = positions.get(asked.get()) {
            if !look.borrow_mut().may_go_on(began_at, attempt.deadline, allowance, host.now()) {
                return;
            }
            asked.set(asked.get() + 1);
            // A position that the message does not have stays undecided: there is no such key.
            let Some(key) = attempt.keys.get(at) else { continue };
            let answer = in_time(bucket.uploaded_at(key), HEAD_MS_MAX, host).await;
            let answer = answer.unwrap_or(Err(R2Error::TimedOut));
            look.borrow_mut().take_in(at, answer, attempt.requested_at);
        }
    };
    let lanes = allowance.connections().min(positions.len());
    join_all((0..lanes).map(|_| lane())).await;

    let mut look = look.into_inner();
    look.rest.extend(positions.iter().skip(asked.get()));
    look
}

impl Look {
    fn may_go_on(
        &mut self,
        began_at: Timestamp,
        deadline: Timestamp,
        allowance: &Allowance,
        now: Timestamp,
    ) -> bool {
        if self.stop.is_some() || now.millis_since(began_at) >= LOOK_MS {
            return false;
        }
        if now >= deadline {
            self.stop = Some(RetryCause::OutOfTime);
        } else if !allowance.take_head() {
            self.stop = Some(RetryCause::OutOfCalls);
        }
        self.stop.is_none()
    }

    fn take_in(&mut self, at: usize, answer: Result<Option<Timestamp>, R2Error>, requested_at: Timestamp) {
        self.heads += 1;
        let errors_in_a_row = std::mem::take(&mut self.errors_in_a_row);
        match answer {
            Ok(None) => self.absent.push(at),
            Ok(Some(uploaded_at)) if uploaded_at > requested_at => self.newer.push((at, uploaded_at)),
            Ok(Some(_)) => self.old.push(at),
            Err(error) => match error.class() {
                R2ErrorClass::Permanent => self.refused.push((at, error)),
                R2ErrorClass::Transient | R2ErrorClass::Throttled => {
                    self.error = Some(error);
                    self.errors_in_a_row = errors_in_a_row + 1;
                    if self.errors_in_a_row >= HOPELESS_HEADS_MAX {
                        self.stop = Some(RetryCause::R2(error));
                    }
                }
                R2ErrorClass::Configuration => self.stop = Some(RetryCause::R2(error)),
            },
        }
    }
}
