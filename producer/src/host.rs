use protocol::{Log, Timestamp};

/// What the producer needs of the machine that it runs on. Time and chance come in here and nowhere else.
pub trait Host: Log {
    /// The time.
    fn now(&self) -> Timestamp;

    /// 128 bits from a cryptographic source.
    fn random(&self) -> u128;

    /// Waits.
    fn sleep(&self, millis: u64) -> impl Future<Output = ()>;
}
