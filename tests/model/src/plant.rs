/// A bug that is planted in the model: each must give a counterexample to the property that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Plant {
    /// A chunk is granted whoever holds it.
    NoClaim,
    /// A claim may end while its invocation goes on.
    ClaimTooShort,
    /// A message is acknowledged before its outcome is recorded.
    AcknowledgedFirst,
    /// A dead letter is acknowledged before its failures are recorded.
    DeadLetterAcknowledgedFirst,
    /// An error of R2 is acknowledged.
    AcknowledgedOnError,
    /// The generation is left out of the name that effects are recorded under.
    NoGenerationInName,
    /// What is in a message is deleted, whether the ledger knows it or not.
    NoLedgerCheck,
    /// An outcome is recorded whether its claim is held or not.
    RecordWithoutClaim,
    /// A call that failed is taken for one that was carried out.
    FailureIsSuccess,
    /// Only the first delivery looks.
    LookOnFirstAttempt,
    /// A dead letter fails the keys that are decided, too.
    DeadLetterFailsAll,
    /// A redrive is admitted whatever came in between.
    RedriveUnconditional,
    /// It is noted that all messages are stored before they are sent.
    AcceptedFirst,
    /// A deletion is said to be cancelled while a chunk of it is in flight.
    CancelledAtOnce,
    /// An end is told whenever everything is decided.
    EndedTwice,
    /// Upkeep sends nothing again.
    NoUpkeep,
}
