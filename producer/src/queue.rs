use protocol::{Packed, QueueError};

/// The Queue, as far as sending to it needs.
pub trait Queue {
    /// Stores these messages, which are within the limits of one send.
    ///
    /// # Errors
    ///
    /// [`QueueError`]; some, all or none of the messages may be stored then.
    fn send(&self, messages: Vec<Packed>) -> impl Future<Output = Result<(), QueueError>>;

    /// Asks whether the Queue answers.
    ///
    /// # Errors
    ///
    /// What it said instead.
    fn ping(&self) -> impl Future<Output = Result<(), String>>;
}
