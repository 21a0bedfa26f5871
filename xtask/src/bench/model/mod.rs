//! `cargo xtask bench model`: what limits a deletion of ten million, a billion and a trillion keys, on paper.
//!
//! Nothing is measured. From the platform's limits, and from a few assumptions that are printed with the result, follows what each
//! part can do; the slowest says how long it takes. `docs/scale.md` has the tables and what they mean; a test holds the two together.
//! That the formulas mean what they say is checked against a simulation of the same queue, event by event.

#[cfg(test)]
mod simulation;

use std::fmt::Write;

use protocol::limits::{
    CONNECTIONS_MAX, DELETE_KEYS_MAX, MESSAGE_BODY_BYTES_MAX, PART_CHUNKS_MAX, PARTS_MAX, REQUEST_KEYS_MAX,
};

use super::report::{figure, grouped};

/// Messages that one queue takes in a second. docs: queues/platform/limits.
const QUEUE_MESSAGES_PER_SECOND: f64 = 5_000.0;

/// Bytes that one queue holds. docs: queues/platform/limits.
const QUEUE_BYTES: f64 = 25e9;

/// Invocations that one queue's consumer has at once. docs: queues/platform/limits.
const INVOCATIONS: u32 = 250;

/// Bytes that one database holds. docs: d1/platform/limits.
const LEDGER_BYTES: f64 = 10e9;

/// What a message has besides its keys: the deletion's id, its chunk and times.
const MESSAGE_OVERHEAD_BYTES: f64 = 150.0;

/// What a key takes in a message besides its bytes: two quotes and a comma.
const KEY_OVERHEAD_BYTES: f64 = 3.0;

/// What a chunk's row takes, its key and digest included.
const CHUNK_ROW_BYTES: f64 = 250.0;

/// Seconds for which an invocation looks before it deletes what it has found old (`LOOK_MS` in consumer/src/look.rs).
const LOOK_TURN_SECONDS: f64 = 1.0;

/// Looks that one invocation has the calls for (`R2_CALLS_MAX` in consumer/src/allowance.rs).
const LOOKS_OF_AN_INVOCATION: f64 = 950.0;

/// Seconds after the request from which on the fence `auto` looks (`PROMPT_MS` in protocol/src/fence.rs).
const PROMPT_SECONDS: f64 = 60.0;

/// Dollars for a million looks, which are class B operations. docs: r2/pricing.
const MILLION_LOOKS_DOLLARS: f64 = 0.36;

/// Dollars for a million pages, which are class A operations. docs: r2/pricing.
const MILLION_PAGES_DOLLARS: f64 = 4.50;

/// Pages that show the keys of a message which lie side by side: one, and another for what is between them.
const PAGES_PER_MESSAGE: f64 = 2.0;

/// A row of the outbox holds so many bytes of messages.
const OUTBOX_ROW_BYTES: f64 = 1e6;

/// Transactions of a request besides its rows of the outbox: who is asking again, the deletion, and that all is stored.
const REQUEST_TRANSACTIONS: f64 = 3.0;

/// Three sizes: what a large user has, what few have, and what nobody has yet.
const SIZES: [(&str, f64); 3] = [("10 million", 1e7), ("1 billion", 1e9), ("1 trillion", 1e12)];

/// So many pairs side by side, each with a queue and a ledger of its own.
const PAIRS: [f64; 4] = [1.0, 4.0, 16.0, 64.0];

/// What no document says. Each is a guess to be replaced by a measurement on the platform.
#[derive(Debug, Clone, Copy)]
pub(super) struct Assumptions {
    /// Invocations at once: the platform decides, up to [`INVOCATIONS`].
    pub(super) invocations: u32,
    /// Bytes of a key.
    pub(super) key_bytes: f64,
    /// Seconds that R2 takes for a delete of 1,000 keys.
    pub(super) delete_seconds: f64,
    /// Seconds that R2 takes to say when an object was uploaded.
    pub(super) look_seconds: f64,
    /// Seconds that R2 takes for a page of a listing.
    pub(super) page_seconds: f64,
    /// Seconds that the ledger takes for a transaction, during which it does nothing else.
    pub(super) transaction_seconds: f64,
}

impl Assumptions {
    /// Those that the tables are made with.
    pub(super) const USUAL: Self = Self {
        invocations: INVOCATIONS,
        key_bytes: 60.0,
        delete_seconds: 1.0,
        look_seconds: 0.03,
        page_seconds: 0.3,
        transaction_seconds: 0.005,
    };
}

/// What a part of the system can do at most, in keys a second.
#[derive(Debug, Clone, Copy)]
struct Bound {
    what: &'static str,
    formula: &'static str,
    keys_per_second: f64,
}

/// Keys of the largest deletion.
fn deletion_keys() -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "limits are small")]
    let request_keys = REQUEST_KEYS_MAX as f64;
    f64::from(PARTS_MAX) * request_keys
}

/// Keys of a message: as many as one delete takes, unless they are long.
fn keys_per_message(of: Assumptions) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "limits are small")]
    let (most, body) = (DELETE_KEYS_MAX as f64, MESSAGE_BODY_BYTES_MAX as f64);
    ((body - MESSAGE_OVERHEAD_BYTES) / (of.key_bytes + KEY_OVERHEAD_BYTES)).floor().min(most)
}

/// Keys of a batch: a message for each connection of an invocation.
fn keys_per_batch(of: Assumptions) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "limits are small")]
    let messages = CONNECTIONS_MAX as f64;
    messages * keys_per_message(of)
}

fn message_bytes(of: Assumptions) -> f64 {
    keys_per_message(of) * (of.key_bytes + KEY_OVERHEAD_BYTES) + MESSAGE_OVERHEAD_BYTES
}

/// How long the ledger is at work for one key: a batch claims and records; a request writes its rows of the outbox.
fn ledger_seconds_per_key(of: Assumptions) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "limits are small")]
    let request_keys = REQUEST_KEYS_MAX as f64;
    let request_bytes = request_keys / keys_per_message(of) * message_bytes(of);
    let request = REQUEST_TRANSACTIONS + (request_bytes / OUTBOX_ROW_BYTES).ceil();
    of.transaction_seconds * (2.0 / keys_per_batch(of) + request / request_keys)
}

/// What each part of one pair can do.
fn bounds(of: Assumptions) -> [Bound; 3] {
    let batch_seconds = of.delete_seconds + 2.0 * of.transaction_seconds;
    [
        Bound {
            what: "queue",
            formula: "5,000 messages/s × K",
            keys_per_second: QUEUE_MESSAGES_PER_SECOND * keys_per_message(of),
        },
        Bound {
            what: "consumer",
            formula: "N × c × K ÷ (L + 2q)",
            keys_per_second: f64::from(of.invocations) * keys_per_batch(of) / batch_seconds,
        },
        Bound {
            what: "ledger",
            formula: "1 ÷ (2q ÷ cK + r·q ÷ 100,000)",
            keys_per_second: 1.0 / ledger_seconds_per_key(of),
        },
    ]
}

/// The part that limits the others.
fn slowest(of: Assumptions) -> Bound {
    let [first, others @ ..] = bounds(of);
    others.into_iter().fold(
        first,
        |slow, other| {
            if other.keys_per_second < slow.keys_per_second { other } else { slow }
        },
    )
}

/// Keys a second where the fence looks at each by itself: the connections of an invocation look side by side for a second, then
/// delete.
fn keys_per_second_one_by_one(of: Assumptions) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "limits are small")]
    let lanes = CONNECTIONS_MAX as f64;
    let turns = LOOKS_OF_AN_INVOCATION * of.look_seconds / lanes / LOOK_TURN_SECONDS;
    let seconds = turns * (LOOK_TURN_SECONDS + of.delete_seconds) + 2.0 * of.transaction_seconds;
    let looked_at = f64::from(of.invocations) * LOOKS_OF_AN_INVOCATION / seconds;
    looked_at.min(slowest(of).keys_per_second)
}

/// Keys a second where the fence looks at those of a message by pages of a listing, one after the other, then deletes.
fn keys_per_second_by_page(of: Assumptions) -> f64 {
    let delete_seconds = PAGES_PER_MESSAGE * of.page_seconds + of.delete_seconds;
    slowest(Assumptions { delete_seconds, ..of }).keys_per_second
}

/// How long `keys` take with the fence `auto`, and how many of them are looked at, at so many a second, as deletions that follow
/// each other, each asked for at once: what is not done a minute after that is looked at.
fn with_auto(keys: f64, looked_at_per_second: f64, of: Assumptions) -> (f64, f64) {
    let deletions = (keys / deletion_keys()).ceil();
    let prompt = (keys / deletions).min(PROMPT_SECONDS * slowest(of).keys_per_second);
    let late = keys / deletions - prompt;
    let seconds = prompt / slowest(of).keys_per_second + late / looked_at_per_second;
    (deletions * seconds, deletions * late)
}

/// Keys that one pair can have under way: until the last key of a deletion is decided, the ledger keeps its messages, and the queue
/// those that are not delivered.
fn keys_under_way(of: Assumptions) -> (f64, f64) {
    let per_key = message_bytes(of) / keys_per_message(of);
    let row_per_key = CHUNK_ROW_BYTES / keys_per_message(of);
    (LEDGER_BYTES / (per_key + row_per_key), QUEUE_BYTES / per_key)
}

/// What the command prints: each table under a heading.
pub(super) fn tables(of: Assumptions) -> Vec<(&'static str, String)> {
    vec![
        ("Assumptions", assumptions(of)),
        ("What one pair can do", one_pair(of)),
        ("What follows for three sizes", sizes(of)),
        ("What the fence costs", with_fence(of)),
        ("A small deletion behind a large one", behind(of)),
        ("Which assumption matters", sensitivity()),
    ]
}

fn assumptions(of: Assumptions) -> String {
    let key_bytes = of.key_bytes;
    let (keys, per_batch) = (figure(keys_per_message(of)), figure(keys_per_batch(of)));
    format!(
        "| | | |\n|---|---|--:|\n\
         | N | invocations at once | {} |\n\
         | c | messages of a batch, deletes at once | {CONNECTIONS_MAX} |\n\
         | K | keys of a message, at {key_bytes} bytes each | {keys} |\n\
         | cK | keys of a batch | {per_batch} |\n\
         | L | a delete of K keys, assumed | {} s |\n\
         | h | a look at an object, assumed | {} ms |\n\
         | p | a page of a listing, assumed | {} ms |\n\
         | q | a transaction of the ledger, assumed | {} ms |\n\
         | r | transactions of a request of 100,000 keys | {} |",
        of.invocations,
        of.delete_seconds,
        of.look_seconds * 1e3,
        of.page_seconds * 1e3,
        of.transaction_seconds * 1e3,
        figure((ledger_seconds_per_key(of) / of.transaction_seconds - 2.0 / keys_per_batch(of)) * 1e5),
    )
}

fn one_pair(of: Assumptions) -> String {
    let mut table = "| part | at most | keys/s |\n|---|---|--:|".to_owned();
    let first = slowest(of).what;
    for Bound { what, formula, keys_per_second } in bounds(of) {
        let mark = if what == first { " **saturates first**" } else { "" };
        // OK because writing to a String does not fail.
        let _ = write!(table, "\n| {what}{mark} | {formula} | {} |", rounded(keys_per_second));
    }
    let (ledger, queue) = keys_under_way(of);
    let _ = write!(
        table,
        "\n\n| holds at once | keys |\n|---|--:|\n\
         | ledger of 10 GB: messages until their deletion ends, and a row for each chunk | {} |\n\
         | queue of 25 GB: messages that are not delivered | {} |\n\
         | one deletion: {} parts of 100,000 keys and {} chunks at most | {} |",
        rounded(ledger),
        rounded(queue),
        grouped(&PARTS_MAX.to_string()),
        grouped(&PART_CHUNKS_MAX.to_string()),
        rounded(deletion_keys()),
    );
    table
}

fn sizes(of: Assumptions) -> String {
    let mut table = "| keys | deletions | fills of a ledger | messages | time with 1 pair | 4 | 16 | 64 |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|"
        .to_owned();
    let (ledger, _) = keys_under_way(of);
    for (name, keys) in SIZES {
        let _ = write!(
            table,
            "\n| {name} | {} | {} | {}",
            rounded((keys / deletion_keys()).ceil()),
            figure(keys / ledger),
            rounded((keys / keys_per_message(of)).ceil())
        );
        for pairs in PAIRS {
            let _ = write!(table, " | {}", duration(keys / (pairs * slowest(of).keys_per_second)));
        }
        table.push_str(" |");
    }
    table
}

fn with_fence(of: Assumptions) -> String {
    let (by_page, one_by_one) = (keys_per_second_by_page(of), keys_per_second_one_by_one(of));
    let mut table = format!(
        "| keys | `off` | `auto`, side by side | for $ | `always`, side by side | for $ | `auto`, far apart | for $ | `always`, far \
         apart | for $ |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n| keys/s of one pair | {} | | | {} | | | | {} | |",
        rounded(slowest(of).keys_per_second),
        rounded(by_page),
        rounded(one_by_one)
    );
    let page = PAGES_PER_MESSAGE / keys_per_message(of) * MILLION_PAGES_DOLLARS;
    for (name, keys) in SIZES {
        let _ = write!(table, "\n| {name} | {}", duration(keys / slowest(of).keys_per_second));
        for (per_second, dollars) in [(by_page, page), (one_by_one, MILLION_LOOKS_DOLLARS)] {
            let (auto, late) = with_auto(keys, per_second, of);
            for (seconds, looked_at) in [(auto, late), (keys / per_second, keys)] {
                let _ = write!(table, " | {} | {}", duration(seconds), cents(looked_at / 1e6 * dollars));
            }
        }
        table.push_str(" |");
    }
    table
}

/// How long a message waits until what was sent before it is taken, as long as the platform gives so many invocations.
fn behind(of: Assumptions) -> String {
    let mut table = "| keys before it | 1 invocation | 10 | 250 |\n|---|--:|--:|--:|".to_owned();
    for (name, keys) in [("1 million", 1e6), ("10 million", 1e7), ("100 million", 1e8)] {
        let _ = write!(table, "\n| {name}");
        for invocations in [1, 10, INVOCATIONS] {
            let wait = keys / slowest(Assumptions { invocations, ..of }).keys_per_second;
            let _ = write!(table, " | {}", duration(wait));
        }
        table.push_str(" |");
    }
    table
}

fn sensitivity() -> String {
    let mut table =
        "| L | q | saturates first | keys/s of one pair | 1 billion keys |\n|--:|--:|---|--:|--:|".to_owned();
    for delete_seconds in [0.3, 1.0, 5.0] {
        for transaction_seconds in [0.001, 0.005, 0.02] {
            let of = Assumptions { delete_seconds, transaction_seconds, ..Assumptions::USUAL };
            let Bound { what, keys_per_second, .. } = slowest(of);
            let _ = write!(
                table,
                "\n| {} s | {} ms | {what} | {} | {} |",
                delete_seconds,
                transaction_seconds * 1e3,
                rounded(keys_per_second),
                duration(1e9 / keys_per_second)
            );
        }
    }
    table
}

/// Two digits are as many as the assumptions are worth.
fn rounded(value: f64) -> String {
    if value < 1.0 {
        return "0".to_owned();
    }
    let unit = 10_f64.powf(value.log10().floor() - 1.0).max(1.0);
    grouped(&format!("{:.0}", (value / unit).round() * unit))
}

/// Dollars, with cents where they are few.
fn cents(dollars: f64) -> String {
    if dollars > 0.0 && dollars < 10.0 { format!("{dollars:.2}") } else { rounded(dollars) }
}

/// `16 s`, `28 min`, `19 days`.
fn duration(seconds: f64) -> String {
    let units = [("years", 31_557_600.0), ("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)];
    let (unit, length) = units.into_iter().find(|(_, length)| seconds >= 2.0 * length).unwrap_or(("s", 1.0));
    let value = seconds / length;
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Project;

    #[test]
    fn the_document_has_the_tables_that_the_command_prints() {
        let path = Project::locate().unwrap().root().join("docs/scale.md");
        let document = std::fs::read_to_string(path).unwrap();
        for (heading, table) in tables(Assumptions::USUAL) {
            assert!(document.contains(&table), "docs/scale.md lacks, under {heading}:\n{table}");
        }
    }

    #[test]
    fn long_keys_make_messages_of_fewer_keys() {
        let of = |key_bytes| keys_per_message(Assumptions { key_bytes, ..Assumptions::USUAL });
        assert_eq!([60.0, 120.0, 1024.0].map(|bytes| figure(of(bytes))), ["1,000", "1,000", "124"]);
    }

    #[test]
    fn a_deletion_that_is_over_within_a_minute_is_not_looked_at() {
        let of = Assumptions::USUAL;
        let within = PROMPT_SECONDS * slowest(of).keys_per_second;
        let auto = |keys| with_auto(keys, keys_per_second_one_by_one(of), of);
        let (seconds, looks) = auto(within);
        assert!((seconds - PROMPT_SECONDS).abs() < 1e-6 && looks < 1.0, "{seconds} s, {looks} looks");
        assert!(auto(2.0 * within).0 > 3.0 * PROMPT_SECONDS);
    }

    #[test]
    fn pages_cost_time_where_the_consumer_is_the_slowest() {
        let quick_ledger = Assumptions { transaction_seconds: 0.0001, ..Assumptions::USUAL };
        assert!(keys_per_second_by_page(quick_ledger) < slowest(quick_ledger).keys_per_second);
        assert!(keys_per_second_by_page(quick_ledger) > keys_per_second_one_by_one(quick_ledger));
    }

    #[test]
    fn a_quicker_ledger_helps_until_the_consumer_is_the_slowest() {
        let of = |transaction_seconds| slowest(Assumptions { transaction_seconds, ..Assumptions::USUAL });
        assert_eq!(of(0.01).what, "ledger");
        assert!(of(0.005).keys_per_second > of(0.01).keys_per_second);
        assert_eq!(of(0.0001).what, "consumer");
    }

    #[test]
    fn the_formula_agrees_with_a_simulation_of_every_batch() {
        for (delete_seconds, invocations) in
            [(0.1, 250), (0.3, 250), (1.0, 250), (5.0, 250), (1.0, 10), (1.0, 1)]
        {
            for transaction_seconds in [0.0001, 0.001, 0.005, 0.02] {
                let of =
                    Assumptions { invocations, delete_seconds, transaction_seconds, ..Assumptions::USUAL };
                // Long enough for the beginning and the end not to count; what is drawn is off by a hundredth at most.
                let batches = 20_000;
                let seconds = simulation::seconds(batches, of);
                let simulated = f64::from(batches) * keys_per_batch(of) / seconds;
                let [_, consumer, _] = bounds(of);
                let ledger = keys_per_batch(of) / (2.0 * transaction_seconds);
                let formula = consumer.keys_per_second.min(ledger);
                assert!(
                    (0.9..=1.01).contains(&(simulated / formula)),
                    "L {delete_seconds}, q {transaction_seconds}: {simulated} simulated, {formula} on paper"
                );
            }
        }
    }
}
