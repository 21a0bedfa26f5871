use crate::keys::Keys;
use crate::ledger::{ChunkName, Ledger, Outcome};
use crate::property::Break;

/// Everything there is at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Objects as they were at the request.
    pub old: Keys,
    /// Objects that were uploaded since.
    pub new: Keys,
    /// What is recorded.
    pub ledger: Ledger,
    /// Messages that wait, in order; a dead letter is one with a mark.
    pub queue: Vec<Message>,
    /// Invocations of the consumer that are at work, in order.
    pub workers: Vec<Worker>,
    /// Requests to the producer that are being answered, in order.
    pub requests: Vec<Request>,
    /// Calls whose invocation has died or gone on, that R2 may yet carry out.
    pub zombies: Vec<Call>,
    /// What may still go wrong.
    pub budget: Budget,
    /// What must never be so, and is.
    pub broken: Vec<Break>,
}

/// How often something may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// An invocation, of the consumer or the producer, dies.
    pub crashes: u8,
    /// A message is delivered and stays in the queue.
    pub duplicates: u8,
    /// R2 fails, having carried out nothing, some or all of the call.
    pub r2_errors: u8,
    /// The ledger refuses a write, or carries it out and fails.
    pub ledger_errors: u8,
    /// Somebody uploads an object under a key.
    pub uploads: u8,
    /// Somebody asks for a redrive.
    pub redrives: u8,
    /// Somebody cancels.
    pub cancels: u8,
    /// The platform loses a message.
    pub losses: u8,
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    /// The chunk that it names.
    pub name: ChunkName,
    /// The keys that it carries.
    pub keys: Keys,
    /// How often it was delivered.
    pub attempts: u8,
    /// Whether it is in the dead-letter queue.
    pub is_dead: bool,
}

/// An invocation with one message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Worker {
    /// Its message.
    pub message: Message,
    /// Whether it holds the claim that it was granted.
    pub holds: bool,
    /// Whether the message goes back to the queue if the invocation dies.
    pub owes_message: bool,
    /// How far it is.
    pub step: Step,
}

/// How far an invocation is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// It has read its message.
    Delivered,
    /// It may delete what is left of the chunk.
    Granted {
        /// What is left.
        todo: Keys,
        /// What is decided.
        outcome: Outcome,
        /// After an error that one of several keys has caused: a key at a time.
        singly: bool,
    },
    /// It has looked, where it looks, and calls next for what was old.
    Looked {
        /// As in `Granted`.
        todo: Keys,
        /// As in `Granted`.
        outcome: Outcome,
        /// As in `Granted`.
        singly: bool,
        /// The call.
        call: Call,
    },
    /// R2 has the call.
    Calling {
        /// As in `Granted`.
        todo: Keys,
        /// As in `Granted`.
        outcome: Outcome,
        /// As in `Granted`.
        singly: bool,
        /// The call.
        call: Call,
        /// Whether it is carried out.
        is_done: bool,
    },
    /// It records next.
    Decided(Outcome),
    /// It settles next: whether by an acknowledgement.
    Settling(bool),
}

/// A delete call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// The keys.
    pub keys: Keys,
    /// Those that were looked at just before.
    pub looked_at: Keys,
    /// Those that somebody has uploaded to since.
    pub uploaded_since: Keys,
}

/// A request to the producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// It sends the messages of a generation, the next of this number.
    Sending {
        /// Which generation.
        generation: u8,
        /// Which chunk comes next.
        next: u8,
    },
    /// It has listed the failures and is about to have them admitted.
    Redriving {
        /// The generation that they were listed in.
        generation: u8,
        /// The failures.
        listed: Keys,
    },
}

impl Step {
    /// The call that is about to be made, or is made.
    pub fn call(&self) -> Option<&Call> {
        match self {
            Self::Looked { call, .. } | Self::Calling { call, .. } => Some(call),
            Self::Delivered | Self::Granted { .. } | Self::Decided(_) | Self::Settling(_) => None,
        }
    }

    fn call_mut(&mut self) -> Option<&mut Call> {
        match self {
            Self::Looked { call, .. } | Self::Calling { call, .. } => Some(call),
            Self::Delivered | Self::Granted { .. } | Self::Decided(_) | Self::Settling(_) => None,
        }
    }
}

impl State {
    /// The same, however it was come to: what has no order is in order.
    pub(crate) fn in_order(mut self) -> Self {
        self.queue.sort_unstable();
        self.workers.sort_unstable();
        self.requests.sort_unstable();
        self.zombies.sort_unstable();
        self
    }

    /// Notes what must never be.
    pub(crate) fn broke(&mut self, what: Break) {
        if !self.broken.contains(&what) {
            self.broken.push(what);
            self.broken.sort_unstable();
        }
    }

    /// Whether something of this generation is under way: then nothing of it is lost.
    pub(crate) fn is_under_way(&self, generation: u8) -> bool {
        let of = |message: &Message| message.name.generation == generation;
        self.queue.iter().any(of) || self.workers.iter().any(|worker| of(&worker.message))
    }

    /// Whether a request is sending this generation.
    pub(crate) fn is_sending(&self, generation: u8) -> bool {
        let sends = |request: &Request| matches!(request, Request::Sending { generation: of, .. } if *of == generation);
        self.requests.iter().any(sends)
    }

    /// R2 carries out a call, or these keys of it.
    pub(crate) fn carry_out(&mut self, call: Call, keys: Keys) {
        let keys = keys & call.keys;
        let there = (self.old | self.new) & keys;
        if there.meets(Keys::BYSTANDER) {
            self.broke(Break::NotAskedFor);
        }
        if there.meets(self.ledger.recorded()) {
            self.broke(Break::AfterItsOutcome);
        }
        let newer = self.new & keys;
        if !newer.is_empty() {
            self.broke(Break::NewerDeleted);
        }
        if !newer.without(call.uploaded_since).is_empty() {
            self.broke(Break::NewerOutsideItsWindow);
        }
        self.old = self.old.without(keys);
        self.new = self.new.without(keys);
    }

    /// Somebody uploads an object.
    pub(crate) fn upload(&mut self, key: Keys) {
        self.old = self.old.without(key);
        self.new |= key;
        let calls = self.workers.iter_mut().filter_map(|worker| worker.step.call_mut());
        calls.chain(&mut self.zombies).for_each(|call| call.uploaded_since |= key & call.keys);
    }
}
