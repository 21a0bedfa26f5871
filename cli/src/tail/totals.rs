//! What all the events come to.

use std::collections::{BTreeMap, VecDeque};

use protocol::{Severity, Timestamp};
use serde::Serialize;

use super::{
    event::{Fields, Seen, What},
    words::{duration, plural},
};

/// What a rate is taken over.
const WINDOW_MS: u64 = 10_000;

/// The sums. Also the last line of `--json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Totals {
    events: u64,
    deletions_accepted: u64,
    /// By state.
    deletions_finished: BTreeMap<String, u64>,
    keys_deleted: u64,
    keys_skipped: u64,
    keys_failed: u64,
    /// Of chunks and sweeps, by what caused them.
    retries: BTreeMap<String, u64>,
    dead_letters: u64,
    unreadable_messages: u64,
    /// Prefixes and their rest that were given up.
    sweeps_given_up: u64,
    notices_delivered: u64,
    notices_retried: u64,
    notices_failed: u64,
    configuration_errors: u64,
    /// And other ends of an invocation that should not be.
    exceptions: u64,
    warnings: u64,
    errors: u64,
    peak_keys_per_second: u64,
    oldest_message_ms: u64,
    /// Whether the tail has left out events, so that all of this is too little.
    incomplete: bool,
    #[serde(skip)]
    recent: Recent,
}

/// Keys that ended in the last while.
#[derive(Clone, Debug, Default, PartialEq)]
struct Recent {
    batches: VecDeque<(Timestamp, u64)>,
    latest: Timestamp,
    /// Age of the oldest message in the latest batch.
    age_ms: u64,
}

impl Recent {
    fn add(&mut self, time: Timestamp, keys: u64) {
        // Tails of two Workers are not in order: what is late counts as of now.
        self.latest = self.latest.max(time);
        self.batches.push_back((self.latest, keys));
        self.forget(self.latest);
    }

    fn forget(&mut self, now: Timestamp) {
        while self.batches.front().is_some_and(|(time, _)| now.millis_since(*time) >= WINDOW_MS) {
            self.batches.pop_front();
        }
    }

    fn per_second(&self, now: Timestamp) -> u64 {
        let fresh = self.batches.iter().filter(|(time, _)| now.millis_since(*time) < WINDOW_MS);
        fresh.map(|(_, keys)| keys).sum::<u64>() / (WINDOW_MS / 1_000)
    }
}

impl Totals {
    /// Counts what was seen.
    pub(super) fn add(&mut self, seen: &Seen) {
        self.events += 1;
        match seen.severity {
            Severity::Info => {}
            Severity::Warn => self.warnings += 1,
            Severity::Error => self.errors += 1,
        }
        match &seen.what {
            What::Event { name, fields, is_known: true } => self.add_event(name, fields, seen.time),
            What::Exception { .. } => self.exceptions += 1,
            What::Outcome(_) if seen.severity == Severity::Error => self.exceptions += 1,
            What::Incomplete(_) => self.incomplete = true,
            What::Event { .. } | What::Unstructured | What::Outcome(_) => {}
        }
    }

    fn add_event(&mut self, name: &str, fields: &Fields, time: Timestamp) {
        match name {
            "deletion.accepted" => self.deletions_accepted += 1,
            "deletion.finished" => {
                let state = fields.text("state").unwrap_or("unknown");
                *self.deletions_finished.entry(state.to_owned()).or_default() += 1;
            }
            // The keys of a batch's sweeps are in it too; what they say by themselves is not counted again.
            "batch.processed" => self.add_batch(fields, time),
            "chunk.retried" => self.add_retry(fields),
            "sweep.progressed" if fields.has("delay_seconds") => self.add_retry(fields),
            "sweep.progressed" if fields.has("error.type") => self.sweeps_given_up += 1,
            "chunk.dead_lettered" => self.dead_letters += 1,
            "message.unreadable" => self.unreadable_messages += 1,
            "notice.delivered" => self.notices_delivered += 1,
            "notice.retried" => self.notices_retried += 1,
            "notice.failed" => self.notices_failed += 1,
            "config.invalid" => self.configuration_errors += 1,
            _ => {}
        }
    }

    fn add_batch(&mut self, fields: &Fields, time: Timestamp) {
        let [deleted, skipped, failed] =
            ["keys_deleted", "keys_skipped", "keys_failed"].map(|name| fields.number(name));
        self.keys_deleted = self.keys_deleted.saturating_add(deleted);
        self.keys_skipped = self.keys_skipped.saturating_add(skipped);
        self.keys_failed = self.keys_failed.saturating_add(failed);
        self.recent.age_ms = fields.number("oldest_message_ms");
        self.oldest_message_ms = self.oldest_message_ms.max(self.recent.age_ms);
        // No batch has more; whatever claims to must not overflow the sum.
        let keys = deleted.saturating_add(skipped).saturating_add(failed).min(u64::from(u32::MAX));
        self.recent.add(time, keys);
        self.peak_keys_per_second = self.peak_keys_per_second.max(self.recent.per_second(self.recent.latest));
    }

    fn add_retry(&mut self, fields: &Fields) {
        let cause = fields.text("error.type").unwrap_or("unknown");
        *self.retries.entry(cause.to_owned()).or_default() += 1;
    }

    /// One line for now, `idle_ms` after the latest event.
    pub(super) fn status(&self, idle_ms: u64) -> String {
        let rate = self.recent.per_second(self.recent.latest.plus_millis(idle_ms));
        let retries: u64 = self.retries.values().sum();
        format!(
            "{} deleted, {rate} keys/s, {} skipped, {} failed, {}, oldest message {}",
            self.keys_deleted,
            self.keys_skipped,
            self.keys_failed,
            plural(retries, "retry", "retries"),
            duration(self.recent.age_ms)
        )
    }

    /// What a person must look at: 3 before 2, or 0.
    pub(super) fn exit_code(&self) -> u8 {
        let undone = [
            self.keys_failed,
            self.dead_letters,
            self.unreadable_messages,
            self.sweeps_given_up,
            self.notices_failed,
            self.deletions_finished.get("failed").copied().unwrap_or_default(),
        ];
        if self.configuration_errors + self.exceptions > 0 {
            3
        } else if undone.iter().any(|&number| number > 0) {
            2
        } else {
            0
        }
    }

    /// The sums for a person.
    pub(super) fn summary(&self) -> Vec<String> {
        let by = |counts: &BTreeMap<String, u64>| {
            let counts: Vec<_> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
            if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
        };
        let [finished, retries] = [&self.deletions_finished, &self.retries].map(by);
        let mut lines = vec![
            format!("deletions  {} accepted; finished: {finished}", self.deletions_accepted),
            format!(
                "keys       {} deleted, {} skipped, {} failed; at most {} a second, over 10 s",
                self.keys_deleted, self.keys_skipped, self.keys_failed, self.peak_keys_per_second
            ),
            format!("retries    {retries}"),
            format!(
                "messages   {}, {} unreadable; oldest {}",
                plural(self.dead_letters, "dead letter", "dead letters"),
                self.unreadable_messages,
                duration(self.oldest_message_ms)
            ),
        ];
        if self.notices_delivered + self.notices_retried + self.notices_failed > 0 {
            lines.push(format!(
                "notices    {} delivered, {} tried again, {} given up",
                self.notices_delivered, self.notices_retried, self.notices_failed
            ));
        }
        lines.push(format!(
            "errors     {}, of them {} of the configuration and {}; {}",
            self.errors,
            self.configuration_errors,
            plural(self.exceptions, "exception", "exceptions"),
            plural(self.warnings, "warning", "warnings"),
        ));
        if self.incomplete {
            lines.push("The tail has left out events: there was more than this.".to_owned());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tail::event;

    fn totals(values: &[(u64, Value)]) -> Totals {
        let mut totals = Totals::default();
        for (millis, value) in values {
            let seen = event::read(value, None, Timestamp::from_millis(*millis)).unwrap();
            for seen in &seen {
                totals.add(seen);
            }
        }
        totals
    }

    #[test]
    fn the_rate_is_that_of_the_last_ten_seconds() {
        let batch = |keys: u64| json!({ "event": "batch.processed", "keys_deleted": keys });
        let totals = totals(&[(1_000, batch(500)), (10_999, batch(300)), (11_000, batch(100))]);
        assert_eq!(totals.peak_keys_per_second, 80);
        assert!(totals.status(0).contains(" 40 keys/s"), "{}", totals.status(0));
        assert!(totals.status(9_999).contains(" 10 keys/s"), "{}", totals.status(9_999));
        assert!(totals.status(10_000).contains(" 0 keys/s"), "{}", totals.status(10_000));
    }

    #[test]
    fn only_what_was_left_undone_or_went_wrong_makes_an_exit_code() {
        let code = |value: Value| totals(&[(0, value)]).exit_code();
        let step = json!({ "event": "sweep.progressed", "error.type": "r2_transient", "delay_seconds": 9 });
        let ended = |outcome: &str| json!({ "outcome": outcome, "logs": [], "exceptions": [] });
        assert_eq!(code(step), 0);
        assert_eq!(code(json!({ "event": "sweep.progressed", "error.type": "sweep_incomplete" })), 2);
        assert_eq!(code(json!({ "event": "notice.failed" })), 2);
        assert_eq!(code(json!({ "event": "ledger.failed", "severity": "ERROR" })), 0);
        assert_eq!(code(ended("canceled")), 0);
        assert_eq!(code(ended("exceededMemory")), 3);
    }
}
