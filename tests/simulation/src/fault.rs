//! What goes wrong, and how often.

use fastrand::Rng;

use crate::Mode;
use crate::sim::BEGINS_AT;
use crate::without::Without;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The ledger refuses a call.
    LedgerRefuses,
    /// The ledger carries a call out and fails all the same.
    LedgerUnsure,
    /// The ledger takes its time.
    LedgerSlow,
    /// The Queue refuses a send.
    QueueRefuses,
    /// The Queue stores some or all messages of a send and fails all the same.
    QueueUnsure,
    /// A message is delivered once more.
    Duplicate,
    /// A message comes late.
    Late,
    /// An acknowledgement is lost.
    AckLost,
    /// A message is lost.
    MessageLost,
    /// R2 refuses a delete.
    R2Refuses,
    /// R2 deletes some or all keys of a call and fails all the same.
    R2Unsure,
    /// R2 takes its time.
    R2Slow,
    /// R2 carries a call out although nobody waits for it any more.
    R2Zombie,
    /// A look or a listing fails.
    R2Blind,
    /// R2 says that the Worker may not delete.
    R2Forbids,
    /// R2 answers 10058: a key was written within the last second.
    Throttled,
    /// A key is locked.
    Locked,
    /// An object is uploaded under a key that is just being looked at or deleted.
    Upload,
    /// The consumer dies.
    ConsumerDies,
    /// The producer dies.
    ProducerDies,
    /// Upkeep dies.
    UpkeepDies,
    /// An answer does not reach the client.
    AnswerLost,
    /// Somebody else's message is in the queue.
    Garbage,
    /// The endpoint does not take a notice.
    EndpointFails,
}

impl Fault {
    /// All there are, in their order.
    pub const ALL: [Self; 24] = [
        Self::LedgerRefuses,
        Self::LedgerUnsure,
        Self::LedgerSlow,
        Self::QueueRefuses,
        Self::QueueUnsure,
        Self::Duplicate,
        Self::Late,
        Self::AckLost,
        Self::MessageLost,
        Self::R2Refuses,
        Self::R2Unsure,
        Self::R2Slow,
        Self::R2Zombie,
        Self::R2Blind,
        Self::R2Forbids,
        Self::Throttled,
        Self::Locked,
        Self::Upload,
        Self::ConsumerDies,
        Self::ProducerDies,
        Self::UpkeepDies,
        Self::AnswerLost,
        Self::Garbage,
        Self::EndpointFails,
    ];

    /// The most of its occasions that it takes.
    #[expect(clippy::match_same_arms, reason = "each kind by itself: they have nothing else in common")]
    fn rate_max(self) -> f64 {
        match self {
            Self::LedgerRefuses | Self::LedgerUnsure => 0.2,
            Self::LedgerSlow => 0.05,
            Self::QueueRefuses | Self::QueueUnsure | Self::EndpointFails => 0.5,
            Self::Duplicate => 0.6,
            Self::AckLost | Self::Upload => 0.3,
            Self::Late | Self::AnswerLost | Self::R2Zombie => 0.2,
            Self::MessageLost => 0.15,
            Self::R2Refuses | Self::R2Unsure => 0.4,
            Self::R2Slow => 0.3,
            Self::R2Blind => 0.15,
            Self::Garbage => 0.4,
            Self::R2Forbids => 0.05,
            Self::Locked => 0.3,
            Self::ConsumerDies | Self::ProducerDies | Self::UpkeepDies => 0.35,
            // Whatever R2's rule says.
            Self::Throttled => 0.0,
        }
    }
}

/// How often what goes wrong in one schedule.
#[derive(Clone, Debug)]
pub(crate) struct Rates {
    rates: [f64; Fault::ALL.len()],
    /// From when on nothing goes wrong any more.
    pub(crate) healed_at: u64,
}

impl Rates {
    /// Swarm testing: each schedule has its own few faults. Where all of them were always there, one would hide the others.
    pub(crate) fn draw(rng: &mut Rng, mode: Mode, sweeps: bool) -> Self {
        let calm = rng.f64() < 0.05;
        // Long enough for every attempt to end in it.
        let outage = rng.f64() < 0.04;
        let rates = Fault::ALL.map(|fault| {
            let (is_on, rate) = (rng.f64() < 0.4, rng.f64() * fault.rate_max());
            match fault {
                Fault::R2Refuses | Fault::R2Blind if outage => 1.0,
                _ if is_on && !calm && allowed(fault, mode, sweeps) => rate,
                _ => 0.0,
            }
        });
        let span = if rng.bool() { 600_000 } else { 6 * 3_600_000 };
        let span = if outage { 86_400_000 } else { rng.u64(60_000..span) };
        Self { rates, healed_at: BEGINS_AT + span }
    }

    /// The same without some of them.
    pub(crate) fn without(mut self, without: Without) -> Self {
        for (fault, rate) in Fault::ALL.iter().zip(&mut self.rates) {
            if without.fault(*fault) {
                *rate = 0.0;
            }
        }
        self
    }

    pub(crate) fn of(&self, fault: Fault) -> f64 {
        self.rates.get(fault as usize).copied().unwrap_or_default()
    }
}

/// Without upkeep, what upkeep is there for does not go wrong: messages are not lost, and nobody dies between a sweep's step and
/// the message of the next.
#[expect(clippy::match_same_arms, reason = "by mode")]
fn allowed(fault: Fault, mode: Mode, sweeps: bool) -> bool {
    match (mode, fault) {
        (Mode::SelfHealing, _) => true,
        (Mode::QueueOnly, Fault::MessageLost) => false,
        (
            Mode::QueueOnly,
            Fault::ConsumerDies
            | Fault::QueueRefuses
            | Fault::QueueUnsure
            | Fault::LedgerUnsure
            | Fault::LedgerSlow,
        ) => !sweeps,
        (Mode::QueueOnly, _) => true,
    }
}
