use std::collections::BTreeSet;

use ledger::{LedgerError, RecordReply, Settled, UnreadableMessage};
use protocol::{
    ChunkMessage, ChunkRef, Event, NoticeRef, QueueMessage, R2ErrorClass, RetryCause, SweepRef, Timestamp,
    UnreadableReason, retry_delay_seconds,
};

use crate::delivery::{Body, Delivery};
use crate::host::Host;
use crate::settlement::Settlements;
use crate::sweep::{SweepEnd, SweepReport, Swept};
use crate::work::Worked;

/// A message that could be read.
pub(crate) struct Message<'a> {
    pub(crate) index: usize,
    pub(crate) attempts: u32,
    pub(crate) body: ChunkMessage<'a>,
}

/// A message that has a notice looked at.
pub(crate) struct NoticeMessage {
    pub(crate) index: usize,
    pub(crate) attempts: u32,
    pub(crate) notice: NoticeRef,
}

/// A message that asks for a step of a sweep.
pub(crate) struct SweepMessage {
    pub(crate) index: usize,
    pub(crate) attempts: u32,
    pub(crate) sweep: SweepRef,
}

/// A batch's messages by their kind.
pub(crate) struct Decoded<'a> {
    pub(crate) messages: Vec<Message<'a>>,
    pub(crate) notices: Vec<NoticeMessage>,
    pub(crate) sweeps: Vec<SweepMessage>,
    pub(crate) unreadable: Vec<(usize, UnreadableReason)>,
}

/// The batch at hand, and what is decided about it so far.
pub(crate) struct Batch<'a, H> {
    pub(crate) queue: &'a str,
    deliveries: &'a [Delivery],
    pub(crate) host: &'a H,
    pub(crate) started_at: Timestamp,
    settlements: Settlements,
    swept: Vec<SweepReport>,
}

impl<'a, H: Host> Batch<'a, H> {
    /// The batch, nothing decided: every message is to be delivered again.
    pub(crate) fn new(queue: &'a str, deliveries: &'a [Delivery], host: &'a H) -> Self {
        Self {
            queue,
            deliveries,
            host,
            started_at: host.now(),
            settlements: Settlements::retry_all(deliveries.len(), 1),
            swept: Vec::new(),
        }
    }

    /// Reads every message. A chunk that is in the batch twice is taken once, and so is a notice or a sweep; its double comes back
    /// later, to be settled by what is recorded then.
    pub(crate) fn decode(&mut self) -> Decoded<'a> {
        let (mut messages, mut unreadable, mut seen) =
            (Vec::<Message<'a>>::new(), Vec::new(), BTreeSet::new());
        let (mut notices, mut sweeps) = (Vec::<NoticeMessage>::new(), Vec::<SweepMessage>::new());
        for (index, delivery) in self.deliveries.iter().enumerate() {
            let attempts = delivery.attempts;
            let body = match &delivery.body {
                Body::Text(text) => QueueMessage::from_json(text),
                Body::Other(_) => Err(UnreadableReason::NotText),
            };
            match body {
                Err(reason) => unreadable.push((index, reason)),
                Ok(QueueMessage::Chunk(body)) => {
                    let message = Message { index, attempts, body };
                    if seen.insert(message.body.chunk.clone()) {
                        messages.push(message);
                    } else {
                        self.retry_claimed(&message, self.host.now());
                    }
                }
                Ok(QueueMessage::Notice(notice)) => {
                    if !notices.iter().any(|message| message.notice == notice) {
                        notices.push(NoticeMessage { index, attempts, notice });
                    }
                }
                Ok(QueueMessage::Sweep(sweep)) => {
                    if !sweeps.iter().any(|message| message.sweep == sweep) {
                        sweeps.push(SweepMessage { index, attempts, sweep });
                    }
                }
            }
        }
        Decoded { messages, notices, sweeps, unreadable }
    }

    /// Messages that are to be kept.
    pub(crate) fn unreadable_messages(
        &self,
        unreadable: &[(usize, UnreadableReason)],
    ) -> Vec<UnreadableMessage> {
        unreadable.iter().map(|&(index, reason)| self.unreadable_message(index, reason)).collect()
    }

    fn unreadable_message(&self, index: usize, reason: UnreadableReason) -> UnreadableMessage {
        let delivery = self.deliveries.get(index);
        UnreadableMessage {
            message_id: delivery.map(|delivery| delivery.message_id.clone()).unwrap_or_default(),
            queue: self.queue.to_owned(),
            reason,
            body: match delivery.map(|delivery| &delivery.body) {
                Some(Body::Text(body) | Body::Other(body)) => body.clone(),
                None => String::new(),
            },
            attempts: delivery.map_or(0, |delivery| delivery.attempts),
        }
    }

    pub(crate) fn acknowledge(&mut self, index: usize, proof: Settled) {
        self.settlements.acknowledge(index, proof);
    }

    /// Another delivery holds the message's chunk: it comes back when that claim ends.
    pub(crate) fn retry_claimed(&mut self, message: &Message<'_>, until: Timestamp) {
        let cause = RetryCause::claimed_until(until, self.host.now());
        self.settlements.retry(message.index, self.delay(cause, message.attempts));
    }

    /// Settles what became of a notice.
    pub(crate) fn settle_notice(&mut self, message: &NoticeMessage, looked_at: Result<Settled, RetryCause>) {
        match looked_at {
            Ok(proof) => self.acknowledge(message.index, proof),
            Err(cause) => self.settlements.retry(message.index, self.delay(cause, message.attempts)),
        }
    }

    /// Settles what became of the sweeps, and answers with those whose messages are to be kept.
    pub(crate) fn settle_sweeps(&mut self, swept: Vec<Swept>) -> Vec<(usize, UnreadableReason)> {
        let mut unreadable = Vec::new();
        for Swept { index, end, report } in swept {
            match end {
                SweepEnd::Settled(proof) => self.acknowledge(index, proof),
                SweepEnd::Retry(delay_seconds) => self.settlements.retry(index, delay_seconds),
                SweepEnd::Unreadable(reason) => unreadable.push((index, reason)),
            }
            self.swept.push(report);
        }
        unreadable
    }

    /// Acknowledges messages that are kept.
    pub(crate) fn settle_unreadable(
        &mut self,
        unreadable: &[(usize, UnreadableReason)],
        proofs: Vec<Settled>,
    ) {
        for (&(index, reason), proof) in unreadable.iter().zip(proofs) {
            self.settlements.acknowledge(index, proof);
            if let Some(delivery) = self.deliveries.get(index) {
                self.host.emit(&Event::MessageUnreadable { message_id: &delivery.message_id, reason });
            }
        }
    }

    fn delay(&self, cause: RetryCause, attempts: u32) -> u32 {
        retry_delay_seconds(cause, attempts, self.host.random())
    }

    /// The ledger did not answer: every message that is not acknowledged comes back, its claim or its unreadable body with
    /// it. What was already settled by an answer stays settled.
    pub(crate) fn give_up(mut self, operation: &'static str, error: &LedgerError) -> Settlements {
        self.host.emit(&Event::LedgerFailed { operation, cause: &error.cause });
        for (index, delivery) in self.deliveries.iter().enumerate() {
            if !self.settlements.is_acknowledged(index) {
                self.settlements.retry(index, self.delay(RetryCause::LedgerUnavailable, delivery.attempts));
            }
        }
        self.finish(&[], Some(RetryCause::LedgerUnavailable.as_str()))
    }

    /// Acknowledges what the ledger has given a proof for, sends the rest round again, and writes the log.
    pub(crate) fn settle(
        mut self,
        worked: &[Worked],
        unreadable: &[(usize, UnreadableReason)],
        reply: RecordReply,
    ) -> Settlements {
        for (work, proof) in worked.iter().zip(reply.outcomes) {
            self.settle_chunk(work, proof);
        }
        self.settle_unreadable(unreadable, reply.unreadable);
        self.report_misconfiguration(worked);
        self.finish(worked, None)
    }

    fn settle_chunk(&mut self, work: &Worked, proof: Option<Settled>) {
        let ChunkRef { deletion, generation, chunk } = work.outcome.chunk();
        let (chunk, generation, keys_failed) = (*chunk, *generation, work.outcome.failed());
        if work.report.splits > 0 {
            let (splits, r2_calls) = (work.report.splits, work.report.calls);
            self.host.emit(&Event::ChunkSplit { deletion, chunk, generation, splits, r2_calls, keys_failed });
        }
        if let Some(proof) = proof {
            self.settlements.acknowledge(work.index, proof);
            if let Some(code) = work.dead_letter {
                self.host.emit(&Event::ChunkDeadLettered { deletion, chunk, generation, keys_failed, code });
            }
            return;
        }
        // Keys are undecided; or the claim was lost, and another delivery is at work or has been.
        let cause = work.report.cause.unwrap_or(RetryCause::ClaimedElsewhere { seconds: 0 });
        let delay_seconds = self.delay(cause, work.attempts);
        self.settlements.retry(work.index, delay_seconds);
        self.host.emit(&Event::ChunkRetried {
            deletion,
            chunk,
            generation,
            attempt: work.attempts,
            delay_seconds,
            keys_undecided: work.outcome.undecided(),
            error_type: cause.as_str(),
            r2_code: match cause {
                RetryCause::R2(error) => Some(error.code()),
                _ => None,
            },
        });
    }

    fn report_misconfiguration(&self, worked: &[Worked]) {
        let misconfigured = worked.iter().find_map(|work| match work.report.cause {
            Some(RetryCause::R2(error)) if error.class() == R2ErrorClass::Configuration => Some(error),
            _ => None,
        });
        if let Some(error) = misconfigured {
            let cause = "R2 refuses to delete for this Worker: check the bucket binding, that the bucket exists, and that \
                         the account has an R2 subscription";
            self.host.emit(&Event::ConfigInvalid { cause, r2_code: Some(error.code()) });
        }
    }

    fn finish(self, worked: &[Worked], error_type: Option<&str>) -> Settlements {
        let sum = |of_chunk: fn(&Worked) -> usize, of_sweep: fn(&SweepReport) -> usize| {
            worked.iter().map(of_chunk).sum::<usize>() + self.swept.iter().map(of_sweep).sum::<usize>()
        };
        let gaps = worked.iter().map(|work| work.report.fence_gap_ms);
        let gaps = gaps.chain(self.swept.iter().map(|swept| swept.fence_gap_ms));
        let acked = self.settlements.acknowledged();
        let oldest =
            self.deliveries.iter().map(|delivery| self.started_at.millis_since(delivery.sent_at)).max();
        self.host.emit(&Event::BatchProcessed {
            system: "cloudflare.queues",
            queue: self.queue,
            messages: self.deliveries.len(),
            acked,
            retried: self.deliveries.len() - acked,
            keys_deleted: sum(|work| work.outcome.deleted(), |swept| swept.deleted),
            keys_skipped: sum(|work| work.outcome.skipped(), |swept| swept.skipped),
            keys_failed: sum(|work| work.outcome.failed(), |swept| swept.failed),
            keys_undecided: sum(|work| work.outcome.undecided(), |swept| swept.undecided),
            r2_calls: sum(|work| work.report.calls, |swept| swept.calls),
            r2_heads: sum(|work| work.report.heads, |swept| swept.heads),
            r2_lists: sum(|work| work.report.lists, |swept| swept.lists),
            fence_gap_ms: gaps.max().filter(|&gap| gap > 0),
            oldest_message_ms: oldest.unwrap_or_default(),
            duration_ms: self.host.now().millis_since(self.started_at),
            error_type,
        });
        self.settlements
    }
}
