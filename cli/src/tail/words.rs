//! An event in words.

use serde_json::Value;

use super::event::{Fields, What};

/// What matters of it.
pub(super) fn words(what: &What) -> String {
    match what {
        What::Event { name, fields, is_known: true } => of_known(name, fields),
        What::Event { fields, .. } => all(fields),
        What::Unstructured => {
            "a line that is no event; it is not shown, since it may have a key in it".to_owned()
        }
        What::Exception { name } => {
            let name = name.as_deref().unwrap_or("an exception");
            format!(
                "{name}; its words are not shown, since they may have a key in them: see the Worker's log"
            )
        }
        What::Outcome(outcome) => format!("the invocation ended as {outcome}"),
        What::Incomplete(why) => format!("events are missing from here on: {why}"),
    }
}

fn of_known(name: &str, fields: &Fields) -> String {
    let number = |name| fields.number(name);
    let mut words = Words::default();
    match name {
        "request.finished" => {
            let (method, route) = (fields.text("http.request.method"), fields.text("http.route"));
            let status = number("http.response.status_code");
            words.say(format!("{} {} {status}", method.unwrap_or("?"), route.unwrap_or("?")));
            words.duration(fields).error(fields).cause(fields);
        }
        "deletion.accepted" => {
            words.say(plural(number("keys"), "key", "keys"));
            words.some(number("prefixes"), "prefix", "prefixes");
            words.some(number("duplicates_removed"), "duplicate left out", "duplicates left out");
            words.say(plural(number("messages"), "message", "messages"));
            words.when(fields.is("dry_run"), "dry run");
            words.maybe(fields.text("requested_by").map(|by| format!("by {by}")));
        }
        "part.accepted" => {
            words.say(format!("part {}", number("part"))).say(plural(number("keys"), "key", "keys"));
            words.some(number("duplicates_removed"), "duplicate left out", "duplicates left out");
            words.say(plural(number("messages"), "message", "messages"));
        }
        "deletion.resent" => {
            words.say(format!("{} sent again", plural(number("messages"), "message", "messages")));
        }
        "redrive.started" => {
            words.say(format!("{} tried again", plural(number("keys"), "key", "keys")));
            words.say(plural(number("messages"), "message", "messages"));
            words.say(format!("generation {}", number("generation")));
        }
        "deletion.finished" => {
            let total = number("total");
            words.say(fields.text("state").unwrap_or("?").to_owned());
            // A plan has no keys.
            words.maybe((total > 0).then(|| format!("{} deleted of {total}", number("deleted"))));
            words.some(number("skipped"), "skipped", "skipped").some(number("failed"), "failed", "failed");
            words.generation(fields).duration(fields);
        }
        "sweep.progressed" => {
            let (sweep, step) = (number("sweep"), number("step"));
            words.say(format!("{} of sweep {sweep}, step {step}", fields.text("phase").unwrap_or("?")));
            words.say(plural(number("pages"), "page", "pages")).keys(fields);
            words.when(fields.is("is_over"), "over").error(fields).delay(fields);
        }
        "batch.processed" => {
            words.say(plural(number("messaging.batch.message_count"), "message", "messages"));
            words.some(number("retried"), "of them to come again", "of them to come again");
            words.keys(fields).duration(fields);
            words.say(format!("oldest {}", duration(number("oldest_message_ms")))).error(fields);
        }
        "chunk.retried" => {
            words.say(format!("chunk {}", number("chunk"))).error(fields);
            words.some(number("keys_undecided"), "key left", "keys left");
            words.say(format!("attempt {}", number("attempt"))).delay(fields).generation(fields);
        }
        "chunk.split" => {
            words.say(format!("chunk {}", number("chunk")));
            words.say(format!("divided {}", plural(number("splits"), "time", "times")));
            words.say(plural(number("r2_calls"), "call", "calls"));
            words
                .some(number("keys_failed"), "key cannot be deleted", "keys cannot be deleted")
                .generation(fields);
        }
        "chunk.dead_lettered" => {
            words.say(format!("chunk {}", number("chunk")));
            words.say(format!("{} failed", plural(number("keys_failed"), "key", "keys")));
            words.error(fields).generation(fields);
        }
        "message.unreadable" => {
            words.error(fields).maybe(fields.text("messaging.message.id").map(|id| format!("message {id}")));
        }
        "notice.delivered" | "notice.retried" | "notice.failed" => {
            words.say(format!("attempt {}", number("attempt")));
            let status = number("http.response.status_code");
            words.maybe((status > 0).then(|| format!("status {status}")));
            words.error(fields).delay(fields).generation(fields);
        }
        "upkeep.finished" => {
            words.some(number("abandoned"), "abandoned", "abandoned").some(
                number("resent"),
                "resent",
                "resent",
            );
            words.some(number("removed"), "removed", "removed");
            words.some(number("notices"), "notice", "notices").some(number("sweeps"), "sweep", "sweeps");
            words.duration(fields);
        }
        "ledger.failed" => {
            words.maybe(fields.text("operation").map(str::to_owned)).cause(fields);
        }
        "config.invalid" => {
            words.cause(fields).r2_code(fields);
        }
        // And what was added since.
        _ => return fields.text("cause").map_or_else(|| all(fields), str::to_owned),
    }
    words.0.join(", ")
}

/// Every field as it is.
fn all(fields: &Fields) -> String {
    let fields = fields.iter().filter(|(name, _)| *name != "deletion").map(|(name, value)| match value {
        Value::String(text) => format!("{name}={text}"),
        value => format!("{name}={value}"),
    });
    fields.collect::<Vec<_>>().join(" ")
}

/// Phrases with commas between them.
#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn say(&mut self, phrase: String) -> &mut Self {
        self.0.push(phrase);
        self
    }

    fn maybe(&mut self, phrase: Option<String>) -> &mut Self {
        self.0.extend(phrase);
        self
    }

    fn when(&mut self, condition: bool, phrase: &str) -> &mut Self {
        self.maybe(condition.then(|| phrase.to_owned()))
    }

    /// Only if there are any.
    fn some(&mut self, number: u64, one: &str, many: &str) -> &mut Self {
        self.maybe((number > 0).then(|| plural(number, one, many)))
    }

    fn keys(&mut self, fields: &Fields) -> &mut Self {
        self.some(fields.number("keys_deleted"), "deleted", "deleted");
        self.some(fields.number("keys_skipped"), "skipped", "skipped");
        self.some(fields.number("keys_failed"), "failed", "failed");
        self.some(fields.number("keys_undecided"), "undecided", "undecided")
    }

    fn error(&mut self, fields: &Fields) -> &mut Self {
        self.maybe(fields.text("error.type").map(str::to_owned)).r2_code(fields)
    }

    fn r2_code(&mut self, fields: &Fields) -> &mut Self {
        self.maybe(fields.has("r2_code").then(|| format!("R2 {}", fields.number("r2_code"))))
    }

    fn cause(&mut self, fields: &Fields) -> &mut Self {
        self.maybe(fields.text("cause").map(str::to_owned))
    }

    fn delay(&mut self, fields: &Fields) -> &mut Self {
        let seconds = fields.number("delay_seconds");
        let delay =
            if seconds < 180 { format!("{seconds} s") } else { duration(seconds.saturating_mul(1_000)) };
        self.maybe(fields.has("delay_seconds").then(|| format!("again in {delay}")))
    }

    /// The first is not worth a word.
    fn generation(&mut self, fields: &Fields) -> &mut Self {
        let generation = fields.number("generation");
        self.maybe((generation > 0).then(|| format!("generation {generation}")))
    }

    fn duration(&mut self, fields: &Fields) -> &mut Self {
        self.say(duration(fields.number("duration_ms")))
    }
}

/// `1 key`, `2 keys`.
pub(super) fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// `85 ms`, `1.2 s`, `75 s`, `12 min`, `5 h`, `3 d`.
pub(super) fn duration(millis: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", millis / unit, millis % unit * 10 / unit);
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..20_000 => format!("{} s", tenths(1_000)),
        20_000..180_000 => format!("{} s", millis / 1_000),
        180_000..7_200_000 => format!("{} min", millis / 60_000),
        7_200_000..172_800_000 => format!("{} h", millis / 3_600_000),
        _ => format!("{} d", millis / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_short_as_they_are_legible() {
        let shown = [0, 999, 1_240, 19_999, 75_400, 720_000, 18_000_000, 260_000_000].map(duration);
        assert_eq!(shown, ["0 ms", "999 ms", "1.2 s", "19.9 s", "75 s", "12 min", "5 h", "3 d"]);
    }
}
