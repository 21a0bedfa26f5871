use crate::limits::DELAY_SECONDS_MAX;
use crate::message::VERSION;
use crate::{ChunkMessage, DeletionId, RETENTION_MS, SweepRef, UnreadableReason};

/// Names the completion notice of a deletion's end. A deletion that is redriven ends once more, in its next generation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NoticeRef {
    /// The deletion.
    pub deletion: DeletionId,
    /// How often it had been redriven when it ended.
    pub generation: u32,
}

/// What a message of the Queue asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueMessage<'a> {
    /// To delete the keys of a chunk.
    Chunk(ChunkMessage<'a>),
    /// To look whether a notice is owed, and to send it.
    Notice(NoticeRef),
    /// To go on with a sweep.
    Sweep(SweepRef),
}

impl<'a> QueueMessage<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    ///
    /// [`UnreadableReason`]; the caller keeps the body.
    pub fn from_json(body: &'a str) -> Result<Self, UnreadableReason> {
        let chunk = ChunkMessage::from_json(body).map(Self::Chunk);
        chunk.or_else(|reason| {
            let notice = NoticeRef::from_message(body).map(Self::Notice);
            notice.or_else(|| SweepRef::from_message(body).map(Self::Sweep)).ok_or(reason)
        })
    }
}

impl NoticeRef {
    /// The body of the message that has the notice looked at.
    pub fn to_message(&self) -> String {
        let Self { deletion, generation } = self;
        // OK to write by hand because an id holds no character that JSON escapes.
        format!(r#"{{"v":{VERSION},"notice":{{"deletion":"{deletion}","generation":{generation}}}}}"#)
    }

    /// Only in the form that we write, to the byte; so there is no need for a reader of JSON, which is 3 KB of wasm.
    fn from_message(body: &str) -> Option<Self> {
        let fields = body.split_once(r#"{"deletion":""#)?.1.strip_suffix("}}")?;
        let (deletion, generation) = fields.split_once(r#"","generation":"#)?;
        let notice = Self { deletion: deletion.parse().ok()?, generation: generation.parse().ok()? };
        (notice.to_message() == body).then_some(notice)
    }

    /// The `webhook-id`: the same in every attempt, so that a receiver can tell that it has had it. No full stop is in it,
    /// which separates what is signed.
    pub fn webhook_id(&self) -> String {
        format!("{}_{}", self.deletion, self.generation)
    }
}

/// The waits after each failed attempt, in seconds: those that Standard Webhooks recommends, up to what a message can wait.
const DELAYS_SECONDS: [u32; 11] =
    [5, 5 * 60, 30 * 60, 2 * 3_600, 5 * 3_600, 10 * 3_600, 43_200, 43_200, 43_200, 43_200, 43_200];

/// How many seconds to wait after attempt number `attempt`, from 1, has failed; `None` when that was the last: some three
/// days after the first.
///
/// `random` is drawn evenly from 0 up to, not including, 1: up to a tenth is taken off, so that what has failed together does
/// not come back together.
pub fn notice_delay_seconds(attempt: u32, random: f64) -> Option<u32> {
    let longest = *DELAYS_SECONDS.get(usize::try_from(attempt).ok()?.checked_sub(1)?)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "OK because 0 <= random < 1")]
    let spread = (f64::from(longest) / 10.0 * random.clamp(0.0, 1.0)) as u32;
    Some(longest - spread)
}

// Every wait is one that the Queue takes, and the last attempt comes before the ledger forgets the deletion.
const _: () = {
    let (mut total, mut at) = (0, 0);
    while at < DELAYS_SECONDS.len() {
        #[expect(clippy::indexing_slicing, reason = "checked in the line above, when this is compiled")]
        let delay = DELAYS_SECONDS[at];
        assert!(delay <= DELAY_SECONDS_MAX);
        total += delay as u64;
        at += 1;
    }
    assert!(total * 1_000 < RETENTION_MS / 2);
};

#[cfg(test)]
mod tests {
    use super::*;

    const PINNED: &str = r#"{"v":1,"notice":{"deletion":"del_01kaszq5m00000000000000000","generation":2}}"#;

    /// Messages of this form lie in queues for up to 12 hours: whoever changes it must read both.
    #[test]
    fn the_form_of_a_message_is_pinned_and_nothing_else_is_read() {
        let Ok(QueueMessage::Notice(notice)) = QueueMessage::from_json(PINNED) else { panic!("not read") };
        assert_eq!((notice.generation, notice.to_message().as_str()), (2, PINNED));
        assert_eq!(notice.webhook_id(), "del_01kaszq5m00000000000000000_2");

        let reason = |from: &str, to: &str| QueueMessage::from_json(&PINNED.replace(from, to)).unwrap_err();
        assert_eq!(reason("\"v\":1", "\"v\":2"), UnreadableReason::UnsupportedVersion);
        for (from, to) in [
            ("notice", "reminder"),
            ("\"generation\":2", "\"generation\":2,\"url\":\"https://example.com\""),
            ("\"v\":1", "\"v\":1,\"url\":\"https://example.com\""),
            ("\"generation\":2", "\"generation\":-2"),
            ("del_", "job_"),
            (
                r#"{"deletion":"del_01kaszq5m00000000000000000","generation":2}"#,
                r#"["del_01kaszq5m00000000000000000",2]"#,
            ),
        ] {
            assert_eq!(reason(from, to), UnreadableReason::InvalidMessage, "{to}");
        }
    }

    #[test]
    fn a_notice_is_tried_twelve_times_over_three_days() {
        let waits = |random| (1..).map_while(move |attempt| notice_delay_seconds(attempt, random));
        assert_eq!(waits(0.0).take(6).collect::<Vec<_>>(), [5, 300, 1_800, 7_200, 18_000, 36_000]);
        assert_eq!(waits(0.0).count() + 1, 12);
        for random in [0.0, 0.5, 1.0 - f64::EPSILON] {
            let days = f64::from(waits(random).sum::<u32>()) / 86_400.0;
            assert!((2.9..3.3).contains(&days), "{days}");
        }
        assert_eq!(waits(0.5).nth(1), Some(285));
        assert_eq!((notice_delay_seconds(0, 0.0), notice_delay_seconds(u32::MAX, 0.0)), (None, None));
    }
}
