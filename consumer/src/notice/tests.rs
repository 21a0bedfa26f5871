use std::cell::RefCell;

use base64ct::{Base64, Encoding as _};
use futures::executor::block_on;
use hmac::{Hmac, KeyInit as _, Mac as _};
use ledger::{
    ClaimBatch, ClaimRequest, DeletionRecord, DeletionView, NewDeletion, NewPart, NoticeStats,
    ProducerLedger, SqlLedger, SqliteDatabase, UpkeepLedger,
};
use protocol::{DeletionId, Fence, ObjectKey, QueueMessage, RequestId, State, pack_keys};
use serde_json::{Value, json};
use sha2::Sha256;

use super::*;
use crate::testing::{Answer, FailingLedger, FakeBucket, FakeHost, WayOut};
use crate::{Body, Delivery, Settlement, Settlements, handle};

const QUEUE: &str = "r2-deletions";
const SECRETS: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const URL: &str = "https://hooks.example.com/canary-path?canary-query";

/// A ledger of deletions of one key each, whose notices are wanted.
struct World<'a> {
    host: &'a FakeHost,
    ledger: SqlLedger<SqliteDatabase>,
    bucket: FakeBucket<'a>,
    config: Result<NoticeConfig, String>,
    way_out: WayOut,
}

impl<'a> World<'a> {
    fn new(host: &'a FakeHost) -> Self {
        Self {
            host,
            ledger: SqlLedger::new(SqliteDatabase::in_memory().unwrap()),
            bucket: FakeBucket::new(host, []),
            config: NoticeConfig::parse(Some(URL), Some(SECRETS)).map(Option::unwrap),
            way_out: WayOut::default(),
        }
    }

    /// A deletion, and the message of its chunk.
    fn accept(&self, number: u128) -> (DeletionId, String) {
        let now = self.host.now();
        let id = DeletionId::new(now, number);
        let keys = [ObjectKey::parse(format!("canary-key/{number}")).unwrap()];
        let packed = pack_keys(&id, 0, now, Fence::Auto, &keys);
        let part = NewPart {
            upload: RequestId::new(now, number),
            chunk_keys: vec![1],
            duplicates_removed: 0,
            sending_until: now,
        };
        let deletion = NewDeletion {
            id: id.clone(),
            requested_by: "backend".to_owned(),
            requested_at: now,
            not_before: now,
            fence: Fence::Auto,
            part: Some(part),
            sweep: None,
            verify: false,
            planned_keys: None,
            idempotency: None,
            labels: protocol::Labels::default(),
        };
        assert!(block_on(self.ledger.admit_deletion(&deletion)).unwrap());
        (id, packed[0].body.clone())
    }

    /// With a deletion that has ended, and the message that has its notice looked at.
    fn finished(host: &'a FakeHost) -> (Self, String) {
        let world = Self::new(host);
        let (_, chunk) = world.accept(42);
        assert_eq!(world.deliver(QUEUE, &[&chunk]).acknowledged(), 1);
        let message = world.next_message();
        (world, message)
    }

    fn find(&self, id: &DeletionId) -> DeletionRecord {
        block_on(self.ledger.find_deletion(id, self.host.now())).unwrap().unwrap()
    }

    fn deliver(&self, queue: &str, bodies: &[&str]) -> Settlements {
        let batch: Vec<Delivery> = bodies.iter().map(|body| delivery(self.host, body)).collect();
        let notices = self.way_out.used(self.config.as_ref().map_err(String::as_str));
        block_on(handle(queue, &batch, &self.bucket, &self.ledger, &notices, self.host))
    }

    /// The only message that was sent, when its time has come.
    fn next_message(&self) -> String {
        let sent = self.way_out.sent.take();
        let [(message, delay_seconds)] = sent.as_slice() else { panic!("not one message: {sent:?}") };
        self.host.advance(u64::from(*delay_seconds) * 1_000);
        message.clone()
    }

    fn received(&self) -> usize {
        self.way_out.received.borrow().len()
    }

    fn stats(&self) -> (u64, u64) {
        let NoticeStats { owed, failed } =
            block_on(self.ledger.stats(None, self.host.now())).unwrap().notices;
        (owed, failed)
    }
}

fn delivery(host: &FakeHost, body: &str) -> Delivery {
    let body = Body::Text(body.to_owned());
    Delivery { message_id: "m".to_owned(), attempts: 1, sent_at: host.now(), body }
}

#[test]
fn a_deletions_end_is_told_once_with_its_counts_and_a_signature_of_each_secret() {
    let host = FakeHost::default();
    let (world, message) = World::finished(&host);
    assert_eq!(world.stats(), (1, 0));
    host.advance(7_000);
    assert_eq!(world.deliver(QUEUE, &[&message]).acknowledged(), 1);
    assert_eq!((world.stats(), host.events("notice.delivered")), ((0, 0), 1));

    let received = world.way_out.received.borrow()[0].clone();
    let body: Value = serde_json::from_str(&received.body).unwrap();
    let Ok(QueueMessage::Notice(notice)) = QueueMessage::from_json(&message) else { panic!("{message}") };
    let deletion = world.find(&notice.deletion);
    let data = serde_json::to_value(DeletionView::from(&deletion)).unwrap();
    assert_eq!(body, json!({"type": "deletion.finished", "timestamp": data["finished_at"], "data": data}));
    assert_eq!((&data["state"], &data["counts"]["deleted"]), (&json!("succeeded"), &json!(1)));
    assert!(!received.body.contains("canary"), "a key in the notice");

    let header = |name| received.headers[name].as_str();
    assert_eq!(header("webhook-id"), format!("{}_0", notice.deletion));
    assert_eq!(header("webhook-timestamp"), (host.now().as_millis() / 1_000).to_string());
    assert_eq!(header("Content-Type"), "application/json");
    assert!(header("User-Agent").starts_with("r2-deletion-queue/"));
    let signed = format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), received.body);
    let signatures = SECRETS.split(' ').map(|secret| {
        let secret = Base64::decode_vec(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let code = Hmac::<Sha256>::new_from_slice(&secret).unwrap().chain_update(&signed).finalize();
        format!("v1,{}", Base64::encode_string(&code.into_bytes()))
    });
    assert_eq!(header("webhook-signature"), signatures.collect::<Vec<_>>().join(" "));

    // A message that comes late or twice finds nothing to do.
    assert_eq!(world.deliver(QUEUE, &[&message]).acknowledged(), 1);
    assert_eq!(world.received(), 1);
}

#[test]
fn an_endpoint_that_does_not_take_it_is_asked_again_on_schedule_and_the_id_stays() {
    let host = FakeHost::default();
    let (world, mut message) = World::finished(&host);
    let refusals = [
        Answer::Status(500),
        Answer::Status(301),
        Answer::Status(404),
        Answer::Broken,
        Answer::Never,
        Answer::Status(429),
    ];
    world.way_out.answers.borrow_mut().extend(refusals);
    for (failed, longest) in [5, 300, 1_800, 7_200, 18_000, 36_000].into_iter().enumerate() {
        assert_eq!(world.deliver(QUEUE, &[&message]).acknowledged(), 1);
        assert_eq!(world.received(), failed + 1);
        let (_, delay) = world.way_out.sent.borrow()[0];
        assert!(delay <= longest && delay >= longest - longest / 10, "{delay} of {longest}");
        // Before its time there is nothing to do, and nobody is asked.
        assert_eq!(world.deliver(QUEUE, &[&message]).acknowledged(), 1);
        assert_eq!(world.received(), failed + 1);
        message = world.next_message();
    }
    assert_eq!((world.stats(), host.events("notice.retried")), ((1, 0), refusals.len()));
    assert_eq!(world.deliver(QUEUE, &[&message]).acknowledged(), 1);
    assert_eq!((world.stats(), world.received()), ((0, 0), refusals.len() + 1));
    let received = world.way_out.received.borrow();
    let ids = received.iter().map(|received| &received.headers["webhook-id"]);
    assert!(ids.clone().all(|id| id == &received[0].headers["webhook-id"]));
    assert_ne!(received[0].headers["webhook-timestamp"], received[6].headers["webhook-timestamp"]);
}

#[test]
fn it_is_given_up_after_twelve_attempts_and_at_once_when_the_endpoint_is_gone() {
    for (answer, expected) in [(Answer::Status(503), 12), (Answer::Status(410), 1)] {
        let host = FakeHost::default();
        let (world, mut message) = World::finished(&host);
        world.way_out.answers.borrow_mut().extend([answer; 20]);
        let attempts = (1..20).find(|_| {
            assert_eq!(world.deliver(QUEUE, &[&message]).acknowledged(), 1);
            let sent = !world.way_out.sent.borrow().is_empty();
            if sent {
                message = world.next_message();
            }
            !sent
        });
        assert_eq!(attempts, Some(expected), "{answer:?}");
        assert_eq!((world.stats(), host.events("notice.failed")), ((0, 1), 1));
        assert_eq!(world.deliver(QUEUE, &[&message]).acknowledged(), 1);
        assert_eq!(world.received(), expected);
    }
}

#[test]
fn a_message_is_not_acknowledged_before_the_ledger_knows_what_became_of_its_notice() {
    for takes_effect in [false, true] {
        let host = FakeHost::default();
        let (world, message) = World::finished(&host);
        // The notice is found, and then its record fails.
        let faults = RefCell::new(vec![Some(takes_effect), None]);
        let failing = FailingLedger { ledger: &world.ledger, faults };
        let batch = [delivery(&host, &message)];
        let notices = world.way_out.used(world.config.as_ref().map_err(String::as_str));
        let settlements = block_on(handle(QUEUE, &batch, &world.bucket, &failing, &notices, &host));
        assert!(matches!(settlements.of(0), Settlement::Retry { delay_seconds: 1..=10 }));
        assert_eq!((host.events("ledger.failed"), host.events("notice.delivered")), (1, 0));
        assert_eq!(world.deliver(QUEUE, &[&message]).acknowledged(), 1);
        assert_eq!(world.received(), if takes_effect { 1 } else { 2 });
        let received = world.way_out.received.borrow();
        assert!(
            received.iter().all(|notice| notice.headers["webhook-id"] == received[0].headers["webhook-id"])
        );
    }
}

#[test]
fn a_slow_endpoint_holds_up_no_delete_and_no_record() {
    let host = FakeHost::default();
    let (world, message) = World::finished(&host);
    let (id, chunk) = world.accept(43);
    world.way_out.answers.borrow_mut().push_back(Answer::Never);
    let started_at = host.now();
    assert_eq!(world.deliver(QUEUE, &[&message, &chunk]).acknowledged(), 2);
    let finished_at = world.find(&id).finished_at.unwrap();
    assert!(finished_at.millis_since(started_at) < POST_MS_MAX, "recorded after the endpoint's time was up");
    assert!(host.now().millis_since(started_at) < 2 * POST_MS_MAX);
    let log = host.log.borrow();
    let ended = log.iter().find(|line| line.contains("deletion.finished") && line.contains(id.as_str()));
    let ended: Value = serde_json::from_str(ended.unwrap()).unwrap();
    assert!(ended["duration_ms"].as_u64().unwrap() < POST_MS_MAX, "{ended}");
    assert_eq!(world.stats(), (2, 0));
}

#[test]
fn a_notice_that_nobody_wants_is_dropped_and_none_is_owed() {
    let host = FakeHost::default();
    let world = World::new(&host);
    let (cancelled, _) = world.accept(1);
    let (_, chunk) = world.accept(2);
    assert!(block_on(world.ledger.cancel_deletion(&cancelled, host.now())).unwrap());
    assert_eq!(world.stats(), (1, 0));
    let message = NoticeRef { deletion: cancelled, generation: 0 }.to_message();
    let batch = [delivery(&host, &message), delivery(&host, &chunk)];
    let notices = world.way_out.unused();
    let settlements = block_on(handle(QUEUE, &batch, &world.bucket, &world.ledger, &notices, &host));
    assert_eq!((settlements.acknowledged(), world.stats()), (2, (0, 0)));
    assert_eq!((world.received(), world.way_out.sent.borrow().len()), (0, 0));
}

#[test]
fn under_a_wrong_configuration_notices_are_owed_and_sent_when_it_is_put_right() {
    let host = FakeHost::default();
    let mut world = World::new(&host);
    let (_, chunk) = world.accept(1);
    world.config = Err("NOTICE_SECRETS is not set, although NOTICE_URL is".to_owned());
    assert_eq!(world.deliver(QUEUE, &[&chunk]).acknowledged(), 1);
    let message = world.next_message();
    assert_eq!(world.deliver(QUEUE, &[&message]).acknowledged(), 1);
    assert_eq!((host.events("config.invalid"), host.events("notice.retried")), (1, 1));
    world.config = NoticeConfig::parse(Some(URL), Some(SECRETS)).map(Option::unwrap);
    let message = world.next_message();
    assert_eq!(world.deliver(QUEUE, &[&message]).acknowledged(), 1);
    assert_eq!((world.stats(), world.received()), ((0, 0), 1));
}

#[test]
fn a_cancelled_deletion_is_told_when_it_is_over_and_not_before() {
    let host = FakeHost::default();
    let world = World::new(&host);
    let (id, _) = world.accept(1);
    let claim = ClaimBatch {
        token: "elsewhere".to_owned(),
        now: host.now(),
        until: host.now().plus_millis(60_000),
        requests: vec![ClaimRequest {
            chunk: protocol::ChunkRef { deletion: id.clone(), generation: 0, chunk: 0 },
            keys: 1,
        }],
    };
    block_on(world.ledger.claim(&claim)).unwrap();
    assert!(block_on(world.ledger.cancel_deletion(&id, host.now())).unwrap());
    let message = NoticeRef { deletion: id, generation: 0 }.to_message();
    let settlements = world.deliver(QUEUE, &[&message]);
    assert!(matches!(settlements.of(0), Settlement::Retry { delay_seconds: 1..=10 }));
    assert_eq!(world.received(), 0);
    host.advance(60_000);
    // One message in the batch is enough; its double comes back and finds nothing to do.
    assert_eq!(world.deliver(QUEUE, &[&message, &message]).acknowledged(), 1);
    let body: Value = serde_json::from_str(&world.way_out.received.borrow()[0].body).unwrap();
    assert_eq!(body["data"]["state"], json!(State::Cancelled));
    assert_eq!(world.deliver(QUEUE, &[&message]).acknowledged(), 1);
    assert_eq!(world.received(), 1);
}

#[test]
fn a_message_that_the_queue_refuses_or_gives_up_costs_a_notice_nothing_but_time() {
    let host = FakeHost::default();
    let world = World::new(&host);
    let (id, chunk) = world.accept(1);
    world.way_out.refuses.set(true);
    assert_eq!(world.deliver(QUEUE, &[&chunk]).acknowledged(), 1);
    assert_eq!((world.way_out.sent.borrow().len(), world.stats()), (0, (1, 0)));
    // As upkeep finds it.
    let overdue = block_on(world.ledger.wake_notices(host.now(), host.now(), 10)).unwrap();
    assert_eq!(overdue, [NoticeRef { deletion: id, generation: 0 }]);
    assert_eq!(world.deliver("r2-deletions-dlq", &[&overdue[0].to_message()]).acknowledged(), 1);
    assert_eq!((world.received(), world.stats()), (1, (0, 0)));
}

#[test]
fn no_key_no_url_and_no_secret_is_in_the_log() {
    let host = FakeHost::default();
    let (world, mut message) = World::finished(&host);
    let answers = [Answer::Status(500), Answer::Broken, Answer::Never, Answer::Status(410)];
    world.way_out.answers.borrow_mut().extend(answers);
    for _ in answers {
        world.deliver(QUEUE, &[&message]);
        if !world.way_out.sent.borrow().is_empty() {
            message = world.next_message();
        }
    }
    let log = host.log.borrow().concat();
    assert!(log.contains("\"error.type\":\"timed_out\"") && log.contains("notice.failed"), "{log}");
    for secret in ["canary", "example.com", "whsec_", "MfKQ9r8G", "v1,"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[test]
fn the_log_says_why_an_endpoint_has_not_taken_a_notice() {
    for (answer, status, error) in [
        (Answer::Status(200), Some(200), None),
        (Answer::Status(299), Some(299), None),
        (Answer::Status(199), Some(199), Some("refused")),
        (Answer::Status(300), Some(300), Some("redirected")),
        (Answer::Status(399), Some(399), Some("redirected")),
        (Answer::Status(503), Some(503), Some("refused")),
        (Answer::Status(410), Some(410), Some("gone")),
        (Answer::Broken, None, Some("no_answer")),
        (Answer::Never, None, Some("timed_out")),
    ] {
        let host = FakeHost::default();
        let (world, message) = World::finished(&host);
        world.way_out.answers.borrow_mut().push_back(answer);
        world.deliver(QUEUE, &[&message]);
        let log = host.log.borrow();
        let told = log.iter().find(|line| line.starts_with("{\"event\":\"notice.")).unwrap();
        let told: Value = serde_json::from_str(told).unwrap();
        assert_eq!(told["http.response.status_code"].as_u64(), status, "{told}");
        assert_eq!(told["error.type"].as_str(), error, "{told}");
        assert_eq!(told["attempt"], 1);
    }
}
