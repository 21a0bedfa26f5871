use protocol::QueueError;

/// The Queue that the consumer takes its messages from, as far as sending to it needs.
pub trait Queue {
    /// Stores messages of these bodies, which are within the limits of one send, to be delivered after a delay.
    ///
    /// # Errors
    ///
    /// [`QueueError`]; some, all or none of the messages may be stored then.
    fn send(&self, bodies: Vec<String>, delay_seconds: u32) -> impl Future<Output = Result<(), QueueError>>;
}
