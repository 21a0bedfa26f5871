use futures::executor::block_on;
use ledger::{
    ClaimBatch, ClaimRequest, ConsumerLedger, DeletionRecord, FailureFilter, Idempotency, NewDeletion,
    NewPart, NewRedrive, OutboxPiece, PartRef, ProducerLedger, SqlLedger, SqliteDatabase,
};
use protocol::{ChunkRef, Counts, DeletionId, Fence, ObjectKey, Packer, RequestId, State};

use super::*;
use crate::testing::{FakeBucket, FakeHost, WayOut};
use crate::{Body, Delivery, handle};

const QUEUE: &str = "r2-deletions";
const DEAD_LETTERS: &str = "r2-deletions-dlq";
const DAY_MS: u64 = 86_400_000;
const MINUTE_MS: u64 = 60_000;

/// A ledger as the producer leaves it, and the consumer that carries out what is in it.
struct World<'a> {
    host: &'a FakeHost,
    ledger: SqlLedger<SqliteDatabase>,
    bucket: FakeBucket<'a>,
    queue: WayOut,
}

impl<'a> World<'a> {
    fn new(host: &'a FakeHost) -> Self {
        Self {
            host,
            ledger: SqlLedger::new(SqliteDatabase::in_memory().unwrap()),
            bucket: FakeBucket::new(host, []),
            queue: WayOut::default(),
        }
    }

    /// A deletion of this number, which its Idempotency-Key is too.
    fn new_deletion(&self, number: u128, part: Option<NewPart>) -> NewDeletion {
        let now = self.host.now();
        NewDeletion {
            id: DeletionId::new(now, number),
            requested_by: "backend".to_owned(),
            requested_at: now,
            not_before: now,
            fence: Fence::Off,
            part,
            idempotency: Some(Idempotency { key: number.to_string(), fingerprint: "body".to_owned() }),
            sweep: None,
            verify: false,
            planned_keys: None,
            labels: protocol::Labels::default(),
        }
    }

    /// Fills the outbox with a part of so many keys, two messages a row. Answers with the part, whose sending nobody
    /// holds, and the messages.
    fn fill(&self, at: &PartRef, keys: usize) -> (NewPart, Vec<String>) {
        let now = self.host.now();
        let PartRef { deletion, generation, .. } = at.clone();
        let first_chunk = ChunkRef { deletion, generation, chunk: at.first_chunk() };
        let mut packer = Packer::new(first_chunk, now, Fence::Off);
        let keys = (0..keys).map(|n| ObjectKey::parse(format!("proj_42/{n}")).unwrap());
        let mut messages: Vec<_> = keys.filter_map(|key| packer.push(&key)).collect();
        messages.extend(packer.finish());
        let chunk_keys = messages.iter().map(|message| message.keys).collect();
        let messages: Vec<_> = messages.into_iter().map(|message| message.body).collect();
        let upload = RequestId::new(now, u128::from(at.generation));
        for (piece, messages) in messages.chunks(2).enumerate() {
            let first_chunk = at.first_chunk() + 2 * u32::try_from(piece).unwrap();
            let row = OutboxPiece { upload: &upload, part: at, piece, first_chunk, messages };
            block_on(self.ledger.fill_outbox(&row)).unwrap();
        }
        (NewPart { upload, chunk_keys, duplicates_removed: 0, sending_until: now }, messages)
    }

    /// Writes down a deletion of so many keys, of which the Queue has no message yet.
    fn admit(&self, number: u128, keys: usize) -> (DeletionId, Vec<String>) {
        let id = DeletionId::new(self.host.now(), number);
        let (part, messages) = self.fill(&PartRef::request(&id), keys);
        assert!(block_on(self.ledger.admit_deletion(&self.new_deletion(number, Some(part)))).unwrap());
        (id, messages)
    }

    /// The same, and somebody is told 202.
    fn accept(&self, number: u128, keys: usize) -> (DeletionId, Vec<String>) {
        let (id, messages) = self.admit(number, keys);
        block_on(self.ledger.mark_enqueued(&PartRef::request(&id), self.host.now())).unwrap();
        (id, messages)
    }

    /// Has messages carried out; those of the dead-letter queue become failures.
    fn deliver(&self, queue: &str, messages: &[String]) {
        for message in messages {
            let body = Body::Text(message.clone());
            let delivery =
                Delivery { message_id: "m".to_owned(), attempts: 1, sent_at: self.host.now(), body };
            let way_out = WayOut::default();
            let notices = way_out.unused();
            let settlements =
                block_on(handle(queue, &[delivery], &self.bucket, &self.ledger, &notices, self.host));
            assert_eq!(settlements.acknowledged(), 1);
        }
    }

    /// Writes down that all failures of a deletion, so many, are to be sent again; its request is at that for a minute.
    fn redrive(&self, id: &DeletionId, keys: usize) -> (PartRef, Vec<String>) {
        let redriven = PartRef { generation: 1, ..PartRef::request(id) };
        let (part, messages) = self.fill(&redriven, keys);
        let filter = FailureFilter::default();
        let failures = block_on(self.ledger.list_failures(id, filter, None, keys)).unwrap();
        let redrive = NewRedrive {
            deletion: id.clone(),
            generation: 1,
            filter,
            last: failures[keys - 1].cursor,
            part: NewPart { sending_until: self.host.now().plus_millis(MINUTE_MS), ..part },
        };
        assert!(block_on(self.ledger.admit_redrive(&redrive)).unwrap());
        (redriven, messages)
    }

    fn cancel(&self, id: &DeletionId) {
        assert!(block_on(self.ledger.cancel_deletion(id, self.host.now())).unwrap());
    }

    fn find(&self, id: &DeletionId) -> Option<DeletionRecord> {
        block_on(self.ledger.find_deletion(id, self.host.now())).unwrap()
    }

    fn state(&self, id: &DeletionId) -> State {
        self.find(id).unwrap().state
    }

    /// Goes round once, and answers with the messages that this has sent.
    fn upkeep(&self) -> Vec<String> {
        block_on(upkeep(&self.ledger, &self.queue, self.host));
        let sent = self.queue.sent.take();
        assert!(sent.iter().all(|(_, delay_seconds)| *delay_seconds == 0));
        sent.into_iter().map(|(message, _)| message).collect()
    }
}

/// 1. Of five chunks one is decided and one is at work when their messages can no longer come. 2. The other three are
///    sent again, from each row of the outbox. 3. A day later all that are not decided; whatever comes twice changes
///    nothing.
#[test]
fn chunks_that_the_platform_has_lost_are_sent_once_more_and_no_others() {
    let host = FakeHost::default();
    let world = World::new(&host);
    let (id, messages) = world.accept(1, 5_000);
    world.deliver(QUEUE, &messages[..1]);
    host.advance(DAY_MS / 2);
    assert!(world.upkeep().is_empty(), "they may still come");

    host.advance(DAY_MS / 2);
    let chunk = ChunkRef { deletion: id.clone(), generation: 0, chunk: 3 };
    let now = host.now();
    let requests = vec![ClaimRequest { chunk, keys: 1_000 }];
    let claim =
        ClaimBatch { token: "elsewhere".to_owned(), now, until: now.plus_millis(MINUTE_MS), requests };
    block_on(world.ledger.claim(&claim)).unwrap();
    let lost = [&messages[1], &messages[2], &messages[4]].map(Clone::clone);
    let sent = world.upkeep();
    assert_eq!(sent, lost);
    assert!(world.upkeep().is_empty(), "and not again at once");

    host.advance(DAY_MS);
    assert_eq!(world.upkeep(), messages[1..]);
    assert_eq!(host.events("deletion.resent"), 2);
    world.deliver(QUEUE, &sent);
    world.deliver(QUEUE, &messages[1..]);
    let counts = Counts { total: 5_000, deleted: 5_000, ..Counts::default() };
    let end = world.find(&id).unwrap();
    assert_eq!((end.state, end.counts), (State::Succeeded, counts));
}

#[test]
fn a_queue_that_refuses_holds_up_nothing_else_and_is_asked_again_in_the_next_round() {
    let host = FakeHost::default();
    let world = World::new(&host);
    let (_, lost) = world.accept(1, 3_000);
    let (abandoned, _) = world.admit(2, 10);
    let (over, _) = world.admit(3, 10);
    world.cancel(&over);
    host.advance(7 * DAY_MS);
    world.queue.refuses.set(true);
    assert!(world.upkeep().is_empty());
    assert_eq!((world.state(&abandoned), world.find(&over)), (State::Cancelled, None));
    assert_eq!((host.events("deletion.resent"), host.events("upkeep.finished")), (0, 1));

    world.queue.refuses.set(false);
    assert_eq!(world.upkeep(), lost);
    assert_eq!(host.events("ledger.failed"), 0);
}

#[test]
fn what_was_never_accepted_and_never_asked_for_again_is_cancelled_after_a_day() {
    let host = FakeHost::default();
    let world = World::new(&host);
    let (id, _) = world.admit(1, 10);
    host.advance(DAY_MS - 1);
    assert!(world.upkeep().is_empty());
    assert_eq!(world.state(&id), State::Queued);
    host.advance(1);
    assert!(world.upkeep().is_empty());
    assert_eq!(world.state(&id), State::Cancelled);
}

#[test]
fn what_is_never_sealed_is_cancelled_a_day_after_its_last_part() {
    let host = FakeHost::default();
    let world = World::new(&host);
    let deletion = world.new_deletion(1, None);
    assert!(block_on(world.ledger.admit_deletion(&deletion)).unwrap());
    host.advance(DAY_MS / 2);
    let at = PartRef { part: 1, ..PartRef::request(&deletion.id) };
    let (part, _) = world.fill(&at, 5);
    assert!(block_on(world.ledger.admit_part(&at, &part, "body")).unwrap());
    block_on(world.ledger.mark_enqueued(&at, host.now())).unwrap();
    host.advance(DAY_MS - 1);
    world.upkeep();
    assert_eq!(world.state(&deletion.id), State::Accepting);
    host.advance(1);
    world.upkeep();
    assert_eq!(world.state(&deletion.id), State::Cancelled);
}

#[test]
fn a_redrive_whose_request_died_before_it_was_sent_is_sent_when_nobody_holds_it_and_once() {
    let host = FakeHost::default();
    let world = World::new(&host);
    let (id, messages) = world.accept(1, 3_000);
    world.deliver(DEAD_LETTERS, &messages);
    assert_eq!(world.state(&id), State::Failed);

    let (_, messages) = world.redrive(&id, 3_000);
    host.advance(MINUTE_MS - 1);
    assert!(world.upkeep().is_empty(), "its request is still at it");
    host.advance(1);
    assert_eq!(world.upkeep(), messages);
    assert!(world.upkeep().is_empty(), "once");
    world.deliver(QUEUE, &messages);
    assert_eq!(world.state(&id), State::Succeeded);
}

/// The queue had stored every message, and the request that sent them died before it could say so.
#[test]
fn a_redrive_of_what_had_ended_before_it_was_said_to_be_sent_is_not_abandoned() {
    let host = FakeHost::default();
    let world = World::new(&host);
    let (id, messages) = world.admit(1, 10);
    world.deliver(DEAD_LETTERS, &messages);
    host.advance(2 * DAY_MS);
    let (redriven, messages) = world.redrive(&id, 10);
    block_on(world.ledger.mark_enqueued(&redriven, host.now())).unwrap();
    assert!(world.upkeep().is_empty());
    world.deliver(QUEUE, &messages);
    assert_eq!(world.state(&id), State::Succeeded);
}

#[test]
fn a_notice_whose_message_is_lost_is_looked_at_again_every_ten_minutes() {
    let host = FakeHost::default();
    let world = World::new(&host);
    let ids = [1, 2].map(|number| world.accept(number, 1).0);
    for id in &ids {
        world.cancel(id);
    }
    let mut messages = ids.map(|deletion| NoticeRef { deletion, generation: 0 }.to_message());
    messages.sort();
    for (minutes, is_overdue) in [(5, false), (10, true), (15, false), (20, true)] {
        host.advance(5 * MINUTE_MS);
        let mut sent = world.upkeep();
        sent.sort();
        assert_eq!(sent, if is_overdue { &messages[..] } else { &[] }, "after {minutes} minutes");
    }
    assert!(host.log.borrow().last().unwrap().contains("\"notices\":2"));
}

#[test]
fn a_deletion_is_forgotten_a_week_after_its_end_and_one_with_failures_a_month_after() {
    let host = FakeHost::default();
    let world = World::new(&host);
    let ids = [1, 2, 3].map(|number| {
        let (id, messages) = world.accept(number, 2);
        match number {
            1 => world.deliver(DEAD_LETTERS, &messages),
            2 => world.deliver(QUEUE, &messages),
            _ => world.cancel(&id),
        }
        id
    });
    let mut today = 0;
    for (day, expected) in
        [(6, [true; 3]), (7, [true, false, false]), (29, [true, false, false]), (30, [false; 3])]
    {
        host.advance((day - today) * DAY_MS);
        today = day;
        world.upkeep();
        let kept = ids.each_ref().map(|id| world.find(id).is_some());
        assert_eq!(kept, expected, "day {day}");
    }
    let free =
        ["1", "2", "3"].map(|key| block_on(world.ledger.find_idempotency_key("backend", key)).unwrap());
    assert_eq!(free, [None, None, None], "their Idempotency-Keys are free again");
}

#[test]
fn a_round_says_how_many_messages_it_has_sent_again_and_of_how_many_deletions() {
    let host = FakeHost::default();
    let world = World::new(&host);
    for number in 1..=2 {
        // Three messages, in two rows.
        world.accept(number, 3_000);
    }
    host.advance(LOST_MS + 1);
    world.upkeep();
    let log = host.log.borrow();
    let resent = |line: &&String| line.contains("\"deletion.resent\"") && line.contains("\"messages\":3");
    assert_eq!(log.iter().filter(resent).count(), 2, "{log:?}");
    let round = log.iter().find(|line| line.contains("\"upkeep.finished\"")).unwrap();
    assert!(round.contains("\"resent\":2,"), "{round}");
}
