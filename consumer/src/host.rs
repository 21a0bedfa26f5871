use protocol::{Log, Timestamp};

/// What the consumer needs of the machine that it runs on. Time and chance come in here and nowhere else.
pub trait Host: Log {
    /// The time.
    fn now(&self) -> Timestamp;

    /// A number drawn evenly from 0 up to, not including, 1.
    fn random(&self) -> f64;

    /// A text that no other invocation draws.
    fn token(&self) -> String;

    /// Waits.
    fn sleep(&self, millis: u64) -> impl Future<Output = ()>;
}
