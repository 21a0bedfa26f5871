use ledger::Settled;

/// What is to become of a message. There is no third way, and no message without one.
#[derive(Debug)]
pub enum Settlement {
    /// It is done with, and here is the proof.
    Acknowledge(Settled),
    /// It is to be delivered again.
    Retry {
        /// In how many seconds.
        delay_seconds: u32,
    },
}

/// The settlement of every message of a batch.
///
/// Every message starts as one to be delivered again, and only a [`Settled`], which only the ledger makes, lets it be
/// acknowledged: a message that nobody decided about, or that is acknowledged before it is recorded, cannot be written.
#[derive(Debug)]
pub struct Settlements(Vec<Settlement>);

impl Settlements {
    /// Every message of a batch is to be delivered again.
    pub fn retry_all(messages: usize, delay_seconds: u32) -> Self {
        Self((0..messages).map(|_| Settlement::Retry { delay_seconds }).collect())
    }

    /// What is to become of the message at `index` of the batch; one that the batch does not have is delivered again.
    pub fn of(&self, index: usize) -> &Settlement {
        self.0.get(index).unwrap_or(&Settlement::Retry { delay_seconds: 1 })
    }

    /// How many messages are acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.0.iter().filter(|settlement| matches!(settlement, Settlement::Acknowledge(_))).count()
    }

    pub(crate) fn is_acknowledged(&self, index: usize) -> bool {
        matches!(self.of(index), Settlement::Acknowledge(_))
    }

    pub(crate) fn acknowledge(&mut self, index: usize, proof: Settled) {
        self.set(index, Settlement::Acknowledge(proof));
    }

    pub(crate) fn retry(&mut self, index: usize, delay_seconds: u32) {
        self.set(index, Settlement::Retry { delay_seconds });
    }

    fn set(&mut self, index: usize, settlement: Settlement) {
        if let Some(slot) = self.0.get_mut(index) {
            *slot = settlement;
        }
    }
}
