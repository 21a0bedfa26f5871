//! Looks at objects before they are deleted.

mod page;

use std::cell::{Cell, RefCell};

use futures::future::join_all;
use protocol::limits::LIST_OBJECTS_MAX;
use protocol::{R2Error, R2ErrorClass, RetryCause, Timestamp};

pub(crate) use self::page::Pages;
use self::page::{Wanted, in_order, just_before, read};
use crate::allowance::Allowance;
use crate::bucket::{Bucket, ListCall};
use crate::delete::{Attempt, CALL_MS_MAX};
use crate::host::Host;
use crate::time_limit::in_time;

/// How long one look goes on asking, in milliseconds: what it has found by then is deleted before it goes on with the rest.
const LOOK_MS: u64 = 1_000;

/// How long R2 may take to say what is under a key, or in a page, in milliseconds.
const ANSWER_MS_MAX: u64 = 5_000;

/// How old what a look has found can be when it ends, in milliseconds: it is as old as the question.
pub(crate) const LOOK_MS_MAX: u64 = LOOK_MS + ANSWER_MS_MAX;

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
    /// Looks at single objects.
    pub(crate) heads: usize,
    /// Pages listed.
    pub(crate) lists: usize,
    /// The last error that has left a key undecided.
    pub(crate) error: Option<R2Error>,
    /// Why there is no sense in asking about the rest, if there is none.
    pub(crate) stop: Option<RetryCause>,
    errors_in_a_row: u32,
}

/// Looks at the objects of a chunk's keys: at as many as a second and the allowance are enough for.
///
/// A page of a listing tells of up to a thousand keys that lie side by side in the bucket; where too few do, they are looked at
/// one by one, several at once. Either way R2 answers with what is there when it is asked, and an object that a page passes over
/// is as absent as one that has no head: both are strongly consistent (docs: r2/reference/consistency).
///
/// It takes no more calls than keys, but for the few pages that tell of none.
pub(crate) async fn look(
    attempt: &Attempt<'_>,
    positions: &[usize],
    pages: &mut Pages,
    allowance: &Allowance,
    bucket: &impl Bucket,
    host: &impl Host,
) -> Look {
    let wanted = in_order(attempt.keys, positions);
    let looker = Looker { attempt, allowance, bucket, host, began_at: host.now(), look: RefCell::default() };
    let mut left = wanted.as_slice();
    while !left.is_empty() {
        let alone = pages.alone(left);
        let asked = if alone > 0 {
            looker.one_by_one(left.get(..alone).unwrap_or_default()).await
        } else if looker.may_ask() {
            looker.page(left, pages).await
        } else {
            break;
        };
        left = left.get(asked..).unwrap_or_default();
        if asked < alone {
            break;
        }
        pages.looked_at(alone);
    }
    let mut look = looker.look.into_inner();
    look.rest.extend(left.iter().map(|wanted| wanted.position));
    look
}

/// What a look stands on, and what it has found so far.
struct Looker<'a, B, H> {
    attempt: &'a Attempt<'a>,
    allowance: &'a Allowance,
    bucket: &'a B,
    host: &'a H,
    began_at: Timestamp,
    look: RefCell<Look>,
}

impl<B: Bucket, H: Host> Looker<'_, B, H> {
    /// Takes a call, if the look may go on.
    fn may_ask(&self) -> bool {
        let now = self.host.now();
        self.look.borrow_mut().may_go_on(self.began_at, self.attempt.deadline, self.allowance, now)
    }

    /// Asks about one key after the other, several at once. Answers with how many it has come to.
    async fn one_by_one(&self, wanted: &[Wanted<'_>]) -> usize {
        let asked = Cell::new(0);
        let lane = async || {
            while let Some(&Wanted { key, position, .. }) = wanted.get(asked.get()) {
                if !self.may_ask() {
                    return;
                }
                asked.set(asked.get() + 1);
                let answer = in_time(self.bucket.uploaded_at(key), ANSWER_MS_MAX, self.host).await;
                let answer = answer.unwrap_or(Err(R2Error::TimedOut));
                let mut look = self.look.borrow_mut();
                look.heads += 1;
                look.take_in(position, answer, self.attempt.requested_at);
            }
        };
        let lanes = self.allowance.connections().min(wanted.len());
        join_all((0..lanes).map(|_| lane())).await;
        asked.get()
    }

    /// Asks for a page of a listing that begins before the first of these keys. Answers with how many it tells of.
    async fn page(&self, wanted: &[Wanted<'_>], pages: &mut Pages) -> usize {
        let start_after = wanted.first().and_then(|first| just_before(first.key.as_str()));
        let start_after = start_after.as_deref();
        let call = ListCall { prefix: "", start_after, limit: LIST_OBJECTS_MAX, delimiter: None };
        let listing = in_time(self.bucket.list(&call), ANSWER_MS_MAX, self.host).await;
        let told = listing.and_then(Result::ok).and_then(|page| read(wanted, start_after, &page));
        pages.told(told.as_ref().map(Vec::len));
        let (told, mut look) = (told.unwrap_or_default(), self.look.borrow_mut());
        look.lists += 1;
        for (wanted, &found) in wanted.iter().zip(&told) {
            look.take_in(wanted.position, Ok(found), self.attempt.requested_at);
        }
        told.len()
    }
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

#[cfg(test)]
mod tests;
