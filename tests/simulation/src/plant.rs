//! Bugs, planted around the product's code to see whether the oracle catches them.
//!
//! None is in the product: each is in the world that it runs in, which lies to it as code with that bug would lie to the world.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::{LedgerKind, Mode};

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Plant {
    /// A batch is acknowledged before anything is done.
    AcknowledgesFirst,
    /// What is to be delivered again is acknowledged.
    AcknowledgesOnError,
    /// A message that cannot be read has its whole batch acknowledged.
    AcknowledgesTheBatchOfGarbage,
    /// Dead letters are acknowledged, and nothing is recorded of them.
    ForgetsDeadLetters,
    /// 202 is said although the Queue has not stored every message.
    AcceptsPartialSends,
    /// The Idempotency-Key is not looked at.
    IgnoresIdempotencyKeys,
    /// The last key of a message is left out.
    DropsTheLastKey,
    /// A message names somebody else's key.
    NamesAnotherKey,
    /// A sweep is not handed on.
    DropsHandOns,
    /// An error of R2 is taken for success.
    TakesErrorsForSuccess,
    /// Every object looks old to the fence.
    FenceIsBlind,
    /// The fence takes for old what is up to three seconds newer.
    FenceIsLax,
    /// The fence takes every delivery for the first.
    FenceForgetsAttempts,
    /// Listings show every object as old.
    ListingsShowOldTimes,
    /// A chunk is granted although another invocation holds it.
    GrantsClaimedChunks,
    /// A chunk is granted although all of it is decided.
    GrantsFinishedChunks,
    /// A chunk of a cancelled deletion is granted.
    GrantsCancelledChunks,
    /// A sweep of a cancelled deletion goes on.
    SweepsOnAfterCancel,
    /// Counts of attempts are added up.
    IncrementsCounts,
    /// Skipped keys are counted and not written down.
    LosesSkips,
    /// Failed keys are counted and not written down.
    LosesFailures,
    /// A cancellation is answered and not written down.
    LosesCancellations,
    /// A deletion becomes final with its first chunk.
    FinishesEarly,
    /// Upkeep does not send lost messages again.
    NeverResends,
    /// Upkeep does not cancel what was never accepted.
    NeverAbandons,
    /// Upkeep does not wake sweeps.
    NeverWakesSweeps,
    /// Upkeep does not look after notices.
    NeverWakesNotices,
}

impl Plant {
    /// The mode that has to catch it. Upkeep hides what loses messages, and without upkeep nothing can be wrong with it.
    pub fn mode(self) -> Mode {
        match self {
            Self::NeverResends | Self::NeverAbandons | Self::NeverWakesSweeps | Self::NeverWakesNotices => {
                Mode::SelfHealing
            }
            _ => Mode::QueueOnly,
        }
    }

    /// The ledger that it can be planted around.
    pub fn ledger(self) -> LedgerKind {
        if self.rewrites().is_empty() { LedgerKind::Memory } else { LedgerKind::Sql }
    }

    /// What it replaces in a statement of the ledger: the statement's beginning, and what becomes of it.
    fn rewrites(self) -> &'static [(&'static str, Rewrite)] {
        match self {
            Self::GrantsClaimedChunks => &[(
                "INSERT INTO chunks (deletion, generation, chunk, keys, claimed_by, claimed_until, begun_at)\nSELECT d.id",
                Rewrite::Replace(" AND chunks.claimed_until <= ?4", ""),
            )],
            Self::GrantsFinishedChunks => &[
                (
                    "INSERT INTO chunks (deletion, generation, chunk, keys, claimed_by, claimed_until, begun_at)\nSELECT d.id",
                    Rewrite::Replace("chunks.finished_at IS NULL AND ", ""),
                ),
                (
                    "SELECT d.id IS NOT NULL AS known",
                    Rewrite::Replace("c.finished_at IS NOT NULL AS finished", "0 AS finished"),
                ),
                ("SELECT d.id IS NOT NULL AS known", Rewrite::Replace("c.undecided", "NULL AS undecided")),
            ],
            Self::GrantsCancelledChunks => &[
                (
                    "INSERT INTO chunks (deletion, generation, chunk, keys, claimed_by, claimed_until, begun_at)\nSELECT d.id",
                    Rewrite::Replace("d.cancelled_at IS NULL", "1"),
                ),
                (
                    "SELECT d.id IS NOT NULL AS known",
                    Rewrite::Replace("d.cancelled_at IS NOT NULL AS cancelled", "0 AS cancelled"),
                ),
            ],
            Self::SweepsOnAfterCancel => &[
                (
                    "INSERT INTO chunks (deletion, generation, chunk, keys, claimed_by, claimed_until, begun_at)\nSELECT s.deletion",
                    Rewrite::Replace("d.cancelled_at IS NULL", "1"),
                ),
                ("SELECT s.sweep IS NOT NULL AS known", Rewrite::Replace("d.cancelled_at IS NULL", "1")),
                ("UPDATE sweeps\nSET range", Rewrite::Replace("cancelled_at", "NULL")),
                ("UPDATE chunks\nSET keys", Rewrite::Replace("cancelled_at", "NULL")),
            ],
            Self::IncrementsCounts => &[(
                "UPDATE chunks\nSET claimed_by = NULL",
                Rewrite::Replace("deleted = o", "deleted = chunks.deleted + o"),
            )],
            Self::LosesSkips => &[("INSERT INTO skips", Rewrite::Replace("WHERE ", "WHERE 0 AND "))],
            Self::LosesFailures => &[("INSERT INTO failures", Rewrite::Replace("WHERE ", "WHERE 0 AND "))],
            Self::LosesCancellations => &[(
                "UPDATE deletions SET cancelled_at = ?2 WHERE id",
                Rewrite::Replace("WHERE ", "WHERE 0 AND "),
            )],
            Self::FinishesEarly => &[
                ("UPDATE deletions SET finished_at = ?2", Rewrite::Replace(" = (SELECT", " >= (SELECT")),
                (
                    "UPDATE deletions SET finished_at = ?2",
                    Rewrite::Replace("LIMIT 1) IS NULL", "LIMIT 1) IS NOT 0"),
                ),
            ],
            Self::NeverResends => &[(
                "SELECT p.deletion, p.generation, p.part, json_array_length",
                Rewrite::Replace("WHERE ", "WHERE 0 AND "),
            )],
            Self::NeverAbandons => &[(
                "UPDATE deletions SET cancelled_at = ?2\nWHERE finished_at",
                Rewrite::Replace("WHERE ", "WHERE 0 AND "),
            )],
            Self::NeverWakesSweeps => &[(
                "UPDATE sweeps SET due_at = ?2\nWHERE (deletion, sweep)",
                Rewrite::Replace("WHERE ", "WHERE 0 AND "),
            )],
            Self::NeverWakesNotices => {
                &[("UPDATE notices SET due_at", Rewrite::Replace("WHERE ", "WHERE 0 AND "))]
            }
            _ => &[],
        }
    }

    /// A statement of the ledger as code with this bug would send it.
    pub(crate) fn rewrite(self, sql: &'static str) -> &'static str {
        thread_local! {
            static REWRITTEN: RefCell<BTreeMap<(Plant, usize), &'static str>> = RefCell::default();
        }
        let matching = |(start, _): &&(&str, Rewrite)| sql.starts_with(start);
        if !self.rewrites().iter().any(|rewrite| matching(&rewrite)) {
            return sql;
        }
        REWRITTEN.with_borrow_mut(|rewritten| {
            *rewritten.entry((self, sql.as_ptr() as usize)).or_insert_with(|| {
                let mut text = sql.to_owned();
                for (_, Rewrite::Replace(from, to)) in self.rewrites().iter().filter(matching) {
                    text = text.replacen(from, to, if *to == "NULL" { usize::MAX } else { 1 });
                }
                // Once for each bug and thread.
                text.leak()
            })
        })
    }
}

#[derive(Clone, Copy, Debug)]
enum Rewrite {
    /// What is replaced, and by what.
    Replace(&'static str, &'static str),
}
