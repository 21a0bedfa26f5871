//! Doubles of what the consumer's core stands on: a bucket and a ledger that fail on demand, and a host whose time moves only when
//! somebody sleeps.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};

use futures::future::pending;
use ledger::{
    ClaimBatch, ClaimReply, ConsumerLedger, LedgerError, ListedObject, NoticeOutcome, NoticeReply,
    RecordBatch, RecordReply, Settled, SqlLedger, SqliteDatabase, SweepClaim, SweepReply, SweepTurn,
    SweepTurnReply,
};
use protocol::limits::{LIST_OBJECTS_MAX, SAME_KEY_SPACING_MS};
use protocol::{DeletionId, Event, Log, NoticeRef, ObjectKey, QueueError, R2Error, Timestamp};

use crate::{
    Bucket, DeleteCall, Endpoint, Group, Host, ListCall, Listing, NoticeConfig, Notices, Queue, Webhook,
};

/// What a failing call does before it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// It deletes every other key.
    Half,
    /// It deletes everything.
    All,
}

/// That a call has removed an object.
#[derive(Debug)]
pub(crate) struct Removal {
    pub(crate) key: String,
    pub(crate) uploaded_at: Timestamp,
    /// When the call was begun, and in which delivery.
    pub(crate) began_at: Timestamp,
    pub(crate) attempt: u32,
    /// When its key was last looked at.
    pub(crate) looked_at: Option<Timestamp>,
}

/// A bucket that enforces R2's limits, knows when its objects were uploaded, and fails on demand.
#[derive(Debug)]
pub(crate) struct FakeBucket<'a> {
    host: &'a FakeHost,
    /// The objects, and when each was uploaded.
    pub(crate) objects: RefCell<BTreeMap<String, Timestamp>>,
    /// Keys that make their call fail with this error; R2 names none of them.
    pub(crate) culprits: BTreeMap<String, R2Error>,
    /// What a call with a culprit in it does to the others.
    pub(crate) effect: Effect,
    /// Calls with more keys than this fail with 10001.
    pub(crate) largest_call: usize,
    /// The next calls fail with these, in order.
    pub(crate) next_errors: RefCell<Vec<R2Error>>,
    /// Calls never answer.
    pub(crate) stalled: Cell<bool>,
    /// The number of keys of each call.
    pub(crate) calls: RefCell<Vec<usize>>,
    /// The delivery that each call had all the keys of.
    pub(crate) deliveries: RefCell<Vec<Option<usize>>>,
    /// Looks fail with this error for these keys.
    pub(crate) blind: BTreeMap<String, R2Error>,
    /// The next looks fail with these, in order.
    pub(crate) next_look_errors: RefCell<Vec<R2Error>>,
    /// How long a look takes, in milliseconds.
    pub(crate) look_ms: Cell<u64>,
    /// How many looks there were.
    pub(crate) looks: Cell<usize>,
    /// How many listings there were.
    pub(crate) lists: Cell<usize>,
    /// A listing shows no more than this.
    pub(crate) list_max: usize,
    /// The next listings fail with these, in order.
    pub(crate) next_list_errors: RefCell<Vec<R2Error>>,
    /// Every listing fails, so that objects are looked at one by one.
    pub(crate) cannot_list: Cell<bool>,
    /// What somebody else uploads when so many calls and looks were begun.
    pub(crate) uploads: RefCell<BTreeMap<usize, String>>,
    /// What somebody else uploads when so many deletes were answered.
    pub(crate) uploads_after: RefCell<BTreeMap<usize, String>>,
    /// When the last call or look was begun.
    pub(crate) last_begun_at: Cell<Timestamp>,
    /// The delivery at hand.
    pub(crate) attempt: Cell<u32>,
    /// Everything that calls have removed.
    pub(crate) removals: RefCell<Vec<Removal>>,
    looked_at: RefCell<BTreeMap<String, Timestamp>>,
    written_at: RefCell<BTreeMap<String, Timestamp>>,
}

impl<'a> FakeBucket<'a> {
    pub(crate) fn new(host: &'a FakeHost, objects: impl IntoIterator<Item = String>) -> Self {
        Self {
            host,
            objects: RefCell::new(
                objects.into_iter().map(|key| (key, host.now().minus_millis(1_000))).collect(),
            ),
            culprits: BTreeMap::new(),
            effect: Effect::None,
            largest_call: usize::MAX,
            next_errors: RefCell::default(),
            stalled: Cell::new(false),
            calls: RefCell::default(),
            deliveries: RefCell::default(),
            blind: BTreeMap::new(),
            next_look_errors: RefCell::default(),
            look_ms: Cell::new(10),
            looks: Cell::default(),
            lists: Cell::default(),
            list_max: LIST_OBJECTS_MAX,
            next_list_errors: RefCell::default(),
            cannot_list: Cell::default(),
            uploads: RefCell::default(),
            uploads_after: RefCell::default(),
            last_begun_at: Cell::default(),
            attempt: Cell::default(),
            removals: RefCell::default(),
            looked_at: RefCell::default(),
            written_at: RefCell::default(),
        }
    }

    /// Uploads an object, now.
    pub(crate) fn upload(&self, key: &str) {
        self.objects.borrow_mut().insert(key.to_owned(), self.host.now());
    }

    /// A call or look begins, behind what somebody else does at that moment.
    fn begin(&self) -> Timestamp {
        let begun = self.looks.get() + self.lists.get() + self.calls.borrow().len();
        let upload = self.uploads.borrow_mut().remove(&begun);
        if let Some(key) = upload {
            self.host.advance(1);
            self.upload(&key);
        }
        self.last_begun_at.set(self.host.now());
        self.host.now()
    }

    fn error_of(&self, keys: &[&str]) -> Option<R2Error> {
        if let Some(error) = self.next_errors.borrow_mut().pop() {
            return Some(error);
        }
        if keys.len() > self.largest_call {
            return Some(R2Error::Internal);
        }
        let now = self.host.now();
        let written_at = self.written_at.borrow();
        let too_soon = |key: &&str| {
            written_at.get(*key).is_some_and(|&at| now.millis_since(at) < SAME_KEY_SPACING_MS - 100)
        };
        if keys.iter().any(too_soon) {
            return Some(R2Error::TooManyRequests);
        }
        keys.iter().find_map(|key| self.culprits.get(*key).copied())
    }

    fn remove(&self, keys: &[&str], began_at: Timestamp) {
        for &key in keys {
            let removed = self.objects.borrow_mut().remove(key);
            self.removals.borrow_mut().extend(removed.map(|uploaded_at| Removal {
                key: key.to_owned(),
                uploaded_at,
                began_at,
                attempt: self.attempt.get(),
                looked_at: self.looked_at.borrow().get(key).copied(),
            }));
            self.written_at.borrow_mut().insert(key.to_owned(), self.host.now());
        }
    }
}

impl Bucket for FakeBucket<'_> {
    async fn delete(&self, call: DeleteCall<'_>) -> Result<(), R2Error> {
        let keys: Vec<&str> = call.keys().collect();
        let began_at = self.begin();
        self.calls.borrow_mut().push(keys.len());
        self.deliveries.borrow_mut().push(call.delivery());
        if self.stalled.get() {
            pending::<()>().await;
        }
        self.host.advance(50);
        let answer = match (self.error_of(&keys), self.effect) {
            (None, _) => {
                self.remove(&keys, began_at);
                Ok(())
            }
            (Some(error), effect) => {
                let innocent = keys.iter().copied().filter(|key| !self.culprits.contains_key(*key));
                match effect {
                    Effect::None => {}
                    Effect::Half => self.remove(&innocent.step_by(2).collect::<Vec<_>>(), began_at),
                    Effect::All => self.remove(&innocent.collect::<Vec<_>>(), began_at),
                }
                Err(error)
            }
        };
        let upload = self.uploads_after.borrow_mut().remove(&self.calls.borrow().len());
        if let Some(key) = upload {
            self.upload(&key);
        }
        answer
    }

    async fn uploaded_at(&self, key: &ObjectKey<'_>) -> Result<Option<Timestamp>, R2Error> {
        let (key, began_at) = (key.as_str(), self.begin());
        self.looks.set(self.looks.get() + 1);
        if self.stalled.get() {
            pending::<()>().await;
        }
        let found = self.objects.borrow().get(key).copied();
        self.host.advance(self.look_ms.get());
        let error = self.next_look_errors.borrow_mut().pop().or_else(|| self.blind.get(key).copied());
        if let Some(error) = error {
            return Err(error);
        }
        self.looked_at.borrow_mut().insert(key.to_owned(), began_at);
        Ok(found)
    }

    async fn list(&self, call: &ListCall<'_>) -> Result<Listing, R2Error> {
        let began_at = self.begin();
        self.lists.set(self.lists.get() + 1);
        if self.stalled.get() {
            pending::<()>().await;
        }
        let objects = self.objects.borrow().clone();
        self.host.advance(self.look_ms.get());
        let error = self.next_list_errors.borrow_mut().pop();
        if let Some(error) = error.or_else(|| self.cannot_list.get().then_some(R2Error::Internal)) {
            return Err(error);
        }
        let ListCall { prefix, start_after, limit, delimiter } = *call;
        assert!((1..=LIST_OBJECTS_MAX).contains(&limit));
        let mut listing = Listing::default();
        let ahead = objects.iter().filter(|(key, _)| {
            key.starts_with(prefix) && start_after.is_none_or(|after| key.as_str() > after)
        });
        for (key, &uploaded_at) in ahead {
            let group = delimiter.and_then(|delimiter| {
                let rest = &key[prefix.len()..];
                rest.find(delimiter).map(|at| &key[..prefix.len() + at + delimiter.len()])
            });
            if let Some(group) = group
                && listing.groups.last().is_some_and(|Group(last)| last == group)
            {
                continue;
            }
            if listing.objects.len() + listing.groups.len() == limit.min(self.list_max) {
                listing.truncated = true;
                break;
            }
            if let Some(group) = group {
                listing.groups.push(Group(group.to_owned()));
            } else {
                self.looked_at.borrow_mut().insert(key.clone(), began_at);
                listing.objects.push(ListedObject { key: key.clone(), size: key.len() as u64, uploaded_at });
            }
        }
        Ok(listing)
    }
}

/// A host whose clock moves only when somebody sleeps or works.
#[derive(Debug, Default)]
pub(crate) struct FakeHost {
    now: Cell<u64>,
    tokens: Cell<u32>,
    pub(crate) log: RefCell<Vec<String>>,
}

impl FakeHost {
    pub(crate) fn advance(&self, millis: u64) {
        self.now.set(self.now.get() + millis);
    }

    /// How often an event of this name was written.
    pub(crate) fn events(&self, name: &str) -> usize {
        let start = format!("{{\"event\":\"{name}\"");
        self.log.borrow().iter().filter(|line| line.starts_with(&start)).count()
    }
}

impl Log for FakeHost {
    fn emit(&self, event: &Event<'_>) {
        self.log.borrow_mut().push(event.to_json());
    }
}

impl Host for FakeHost {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_763_930_000_000 + self.now.get())
    }

    fn random(&self) -> f64 {
        0.5
    }

    fn token(&self) -> String {
        self.tokens.set(self.tokens.get() + 1);
        self.tokens.get().to_string()
    }

    async fn sleep(&self, millis: u64) {
        self.advance(millis);
    }
}

/// What the endpoint does with a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It answers with this status.
    Status(u16),
    /// The connection breaks.
    Broken,
    /// It never answers.
    Never,
}

/// A webhook as the endpoint got it: its headers by name, and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) headers: BTreeMap<&'static str, String>,
    pub(crate) body: String,
}

/// The ways out: an endpoint that answers as it is told, and a queue that keeps what is sent.
#[derive(Debug, Default)]
pub(crate) struct WayOut {
    /// The next answers, in order; 204 when there are none.
    pub(crate) answers: RefCell<VecDeque<Answer>>,
    pub(crate) received: RefCell<Vec<Received>>,
    /// Messages that were sent, each with its delay.
    pub(crate) sent: RefCell<Vec<(String, u32)>>,
    /// The Queue refuses.
    pub(crate) refuses: Cell<bool>,
}

impl WayOut {
    /// Nobody wants notices.
    pub(crate) fn unused(&self) -> Notices<'_, Self, Self> {
        Notices { config: Ok(None), queue: self, endpoint: self }
    }

    pub(crate) fn used<'a>(&'a self, config: Result<&'a NoticeConfig, &'a str>) -> Notices<'a, Self, Self> {
        Notices { config: config.map(Some), queue: self, endpoint: self }
    }
}

impl Endpoint for WayOut {
    async fn post(&self, webhook: &Webhook<'_>) -> Option<u16> {
        let headers = webhook.headers.iter().cloned().collect();
        self.received.borrow_mut().push(Received { headers, body: webhook.body.clone() });
        let answer = self.answers.borrow_mut().pop_front();
        match answer.unwrap_or(Answer::Status(204)) {
            Answer::Status(status) => Some(status),
            Answer::Broken => None,
            Answer::Never => pending().await,
        }
    }
}

impl Queue for WayOut {
    async fn send(&self, bodies: Vec<String>, delay_seconds: u32) -> Result<(), QueueError> {
        assert!(!bodies.is_empty(), "a send of nothing is a call for nothing");
        if self.refuses.get() {
            return Err(QueueError { code: 10250 });
        }
        self.sent.borrow_mut().extend(bodies.into_iter().map(|body| (body, delay_seconds)));
        Ok(())
    }
}

/// A ledger whose next calls fail, before or after they took effect.
pub(crate) struct FailingLedger<'a> {
    pub(crate) ledger: &'a SqlLedger<SqliteDatabase>,
    /// For each coming call, the last of them first, whether it fails and whether it takes effect all the same.
    pub(crate) faults: RefCell<Vec<Option<bool>>>,
}

impl FailingLedger<'_> {
    async fn call<T>(&self, call: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
        let fault = self.faults.borrow_mut().pop().flatten();
        match fault {
            None => call.await,
            Some(takes_effect) => {
                if takes_effect {
                    drop(call.await);
                }
                Err(LedgerError { cause: "injected".to_owned() })
            }
        }
    }
}

impl ConsumerLedger for FailingLedger<'_> {
    async fn claim(&self, batch: &ClaimBatch) -> Result<Vec<ClaimReply>, LedgerError> {
        self.call(self.ledger.claim(batch)).await
    }

    async fn record(&self, batch: &RecordBatch) -> Result<RecordReply, LedgerError> {
        self.call(self.ledger.record(batch)).await
    }

    async fn claim_sweep(&self, claim: &SweepClaim) -> Result<SweepReply, LedgerError> {
        self.call(self.ledger.claim_sweep(claim)).await
    }

    async fn known_keys(
        &self,
        deletion: &DeletionId,
        keys_json: &[String],
    ) -> Result<Vec<String>, LedgerError> {
        self.call(self.ledger.known_keys(deletion, keys_json)).await
    }

    async fn turn_sweep(&self, turn: &SweepTurn<'_>) -> Result<SweepTurnReply, LedgerError> {
        self.call(self.ledger.turn_sweep(turn)).await
    }

    async fn find_notice(&self, notice: &NoticeRef, now: Timestamp) -> Result<NoticeReply, LedgerError> {
        self.call(self.ledger.find_notice(notice, now)).await
    }

    async fn record_notice(
        &self,
        notice: &NoticeRef,
        outcome: NoticeOutcome,
    ) -> Result<Settled, LedgerError> {
        self.call(self.ledger.record_notice(notice, outcome)).await
    }
}
