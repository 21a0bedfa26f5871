//! Labels, listing, failures as NDJSON, and the totals.

use ledger::{Database, LedgerError, Row, SkippedKey, Statement};

use super::*;
use crate::http::{Response, ResponseBody};
use crate::openapi::tests::Description;

impl World {
    fn create(&self, keys: usize, labels: &Value) -> String {
        self.host.now.set(self.host.now.get() + 1);
        let keys: Vec<String> = (0..keys).map(|n| format!("proj_42/{n}")).collect();
        let accepted = self.post(json!({ "objectKeys": keys, "labels": labels }).to_string());
        assert_eq!((accepted.status, &accepted.body["labels"]), (202, labels));
        accepted.body["id"].as_str().unwrap().to_owned()
    }

    /// The ids of every page of a list, asked for with `query`.
    fn list(&self, query: &str) -> Vec<String> {
        let (mut ids, mut token) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/deletions?page_size=2&{query}{token}"));
            assert_eq!(page.status, 200, "{query}: {}", page.body);
            let deletions = page.body["deletions"].as_array().unwrap();
            assert!(deletions.len() <= 2);
            ids.extend(deletions.iter().map(|deletion| deletion["id"].as_str().unwrap().to_owned()));
            match page.body["next_page_token"].as_str() {
                Some(next) => token = format!("&page_token={next}"),
                None => return ids,
            }
        }
    }

    fn failures(&self, id: &str, query: &str, accept: &str) -> Response {
        self.keys("failures", id, query, accept)
    }

    fn keys(&self, list: &str, id: &str, query: &str, accept: &str) -> Response {
        let mut request = request("GET", &format!("/v1/deletions/{id}/{list}{query}"), Vec::new());
        request.accept = Some(accept.to_owned());
        self.send(request)
    }
}

#[test]
fn deletions_are_listed_newest_first_by_state_and_label() {
    let world = World::new();
    let ids: Vec<String> =
        (0..5).map(|n| world.create(2, &json!({"even": (n % 2 == 0).to_string()}))).collect();
    world.consume(&ids[1], 2);
    world.consume(&ids[2], 2);
    let expect = |query: &str, expected: &[usize]| {
        let expected: Vec<&String> = expected.iter().map(|&n| &ids[n]).collect();
        assert_eq!(world.list(query).iter().collect::<Vec<_>>(), expected, "{query}");
    };
    expect("", &[4, 3, 2, 1, 0]);
    expect("state=failed", &[2, 1]);
    expect("state=queued", &[4, 3, 0]);
    expect("label.even=true", &[4, 2, 0]);
    expect("label.even=true&state=failed", &[2]);
    expect("label.even=maybe", &[]);
    expect("state=cancelled", &[]);

    // What is listed is what the deletion itself says.
    let listed = world.get("/v1/deletions?state=failed");
    assert_eq!(listed.body["deletions"][1], world.get(&format!("/v1/deletions/{}", ids[1])).body);
}

#[test]
fn a_page_token_belongs_to_its_filter() {
    let world = World::new();
    for _ in 0..3 {
        world.create(1, &json!({"a": "b"}));
    }
    let page = world.get("/v1/deletions?page_size=1&state=queued&label.a=b");
    let token = page.body["next_page_token"].as_str().unwrap();
    let status = |query: &str| world.get(&format!("/v1/deletions?page_token={token}{query}")).status;
    assert_eq!(status("&label.a=b&state=queued&page_size=3"), 200);
    for query in ["", "&state=queued", "&label.a=b", "&state=running&label.a=b", "&state=queued&label.a=c"] {
        assert_eq!(status(query), 422, "{query}");
    }
    for token in ["MC4x", "ZGVsX3g", ""] {
        assert_eq!(world.get(&format!("/v1/deletions?page_token={token}")).status, 422, "{token}");
    }
}

#[test]
fn only_json_and_ndjson_are_to_be_had_and_ndjson_has_no_pages() {
    let world = World::new();
    let id = world.create(1, &json!({}));
    assert_eq!(world.failures(&id, "", "text/csv").status, 406);
    assert_eq!(world.failures(&id, "?page_size=5", "application/x-ndjson").status, 422);
    assert_eq!(world.failures("del_x", "", "application/x-ndjson").status, 404);
    let streamed = world.failures(&id, "", "application/x-ndjson");
    assert!(streamed.headers.contains(&("Content-Type", "application/x-ndjson".to_owned())));
    assert!(streamed.headers.iter().any(|(name, _)| *name == "X-Request-Id"));
}

#[test]
fn ndjson_is_every_failure_once_page_after_page() {
    for (chunks, expected) in
        [(0, &[][..]), (3, &[2_500, 500]), (5, &[2_500, 2_500]), (6, &[2_500, 2_500, 1_000])]
    {
        let world = World::new();
        let id = world.create(6_000, &json!({}));
        fail(&world.ledger, &id, chunks);
        let ResponseBody::Pages(mut pages) = world.failures(&id, "", "application/x-ndjson").body else {
            panic!()
        };
        let (mut lines, mut sizes) = (Vec::new(), Vec::new());
        while let Some(page) = block_on(pages.next(&world.ledger, &world.host)).unwrap() {
            assert!(page.ends_with('\n'));
            sizes.push(page.lines().count());
            lines.extend(page.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
        assert_eq!(sizes, expected);
        if let Some(line) = lines.first() {
            assert_eq!(Description::read().wrong("/components/schemas/Failure", line), None);
        }
        for (n, line) in lines.iter().enumerate() {
            assert_eq!(line["key"], format!("{}/{}\n", n / 1_000, n % 1_000));
            assert_eq!((&line["code"], &line["attempts"]), (&json!("object_locked"), &json!(1)));
        }
    }
}

#[test]
fn skipped_keys_are_read_as_failures_are_in_pages_or_as_ndjson() {
    let world = World::new();
    let id = world.create(5, &json!({}));
    skip(&world.ledger, &id, 5);
    let (mut listed, mut token) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/v1/deletions/{id}/skipped?page_size=2{token}"));
        listed.extend(page.body["skipped"].as_array().unwrap().clone());
        match page.body["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => break,
        }
    }
    let (uploaded_at, skipped_at) = ("2025-11-23T20:33:21.000Z", "2025-11-23T20:33:22.000Z");
    let expected = (0..5).map(|n| {
        json!({"key": format!("k{n}\0"), "code": "uploaded_since", "uploaded_at": uploaded_at, "skipped_at": skipped_at})
    });
    assert_eq!(listed, expected.collect::<Vec<_>>());

    let streamed = world.keys("skipped", &id, "", "application/x-ndjson");
    assert!(streamed.headers.contains(&("Content-Type", "application/x-ndjson".to_owned())));
    let ResponseBody::Pages(mut pages) = streamed.body else { panic!() };
    let lines = block_on(pages.next(&world.ledger, &world.host)).unwrap().unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, listed);
    assert_eq!(block_on(pages.next(&world.ledger, &world.host)), Ok(None));
    // Each list has its own.
    assert_eq!(world.get(&format!("/v1/deletions/{id}/failures")).body["failures"], json!([]));
}

/// A reader must not take a part for the whole: what fails in the middle is an error, never an end.
#[test]
fn ndjson_breaks_off_when_the_ledger_does() {
    let world = World::new();
    let id = world.create(6_000, &json!({}));
    fail(&world.ledger, &id, 6);
    let ResponseBody::Pages(mut pages) = world.failures(&id, "", "application/x-ndjson").body else {
        panic!()
    };
    assert!(block_on(pages.next(&world.ledger, &world.host)).unwrap().is_some());
    let failed = block_on(pages.next(&SqlLedger::new(Unreachable), &world.host));
    assert_eq!(failed.unwrap_err().cause, "D1_ERROR");
    let log = world.host.log.borrow();
    assert!(log.last().unwrap().contains("stream failures"), "{log:?}");
}

#[test]
fn the_totals_are_those_of_all_deletions() {
    let world = World::new();
    let ids: Vec<String> = (0..3).map(|_| world.create(4, &json!({}))).collect();
    world.consume(&ids[1], 4);
    let oldest = world.get(&format!("/v1/deletions/{}", ids[0]));
    let stats = world.get("/v1/stats");
    let expected = json!({
        "deletions": {"accepting": 0, "queued": 2, "running": 0, "cancelling": 0, "succeeded": 0, "planned": 0, "failed": 1, "cancelled": 0},
        "keys": {"total": 12, "pending": 8, "deleted": 2, "skipped": 0, "failed": 2, "cancelled": 0},
        "oldest_unfinished": {"id": ids[0], "requested_at": oldest.body["requested_at"]},
        "failures": [{"code": "object_locked", "r2_code": 10069, "count": 2}],
        "unreadable_messages": 3,
        "notices": {"owed": 1, "failed": 0},
    });
    assert_eq!((stats.status, stats.body), (200, expected));
    assert_eq!(world.get("/v1/stats?state=failed").status, 422);
}

/// Fails every key of a deletion's first chunks of 1,000.
fn fail(ledger: &impl ConsumerLedger, id: &str, chunks: u32) {
    let (token, now) = ("consumer".to_owned(), Timestamp::from_millis(0));
    for chunk in 0..chunks {
        let requests = vec![ClaimRequest {
            chunk: ChunkRef { deletion: id.parse().unwrap(), generation: 0, chunk },
            keys: 1_000,
        }];
        let claim = ClaimBatch { token: token.clone(), now, until: now.plus_millis(1), requests };
        let ClaimReply::Granted(grant) = block_on(ledger.claim(&claim)).unwrap().remove(0) else { panic!() };
        let failed = (0..1_000).map(|position| FailedKey {
            position,
            key_json: format!("\"{chunk}/{position}\\n\""),
            code: FailureCode::ObjectLocked,
            error: None,
        });
        let outcomes = vec![ChunkOutcome::new(grant, [], failed.collect(), None, 1)];
        let batch =
            RecordBatch { token: token.clone(), now, outcomes, unreadable: Vec::new(), owe_notices: true };
        block_on(ledger.record(&batch)).unwrap();
    }
}

/// Skips every key of a deletion's only chunk.
fn skip(ledger: &impl ConsumerLedger, id: &str, keys: usize) {
    let (token, now) = ("consumer".to_owned(), Timestamp::from_millis(1_763_930_002_000));
    let chunk = ChunkRef { deletion: id.parse().unwrap(), generation: 0, chunk: 0 };
    let requests = vec![ClaimRequest { chunk, keys }];
    let claim = ClaimBatch { token: token.clone(), now, until: now.plus_millis(1), requests };
    let ClaimReply::Granted(grant) = block_on(ledger.claim(&claim)).unwrap().remove(0) else { panic!() };
    let skipped = (0..keys).map(|position| SkippedKey {
        position,
        key_json: format!("\"k{position}\\u0000\""),
        uploaded_at: now.minus_millis(1_000),
    });
    let outcomes = vec![ChunkOutcome::new(grant, [], vec![], None, 1).with_skipped(skipped.collect())];
    block_on(ledger.record(&RecordBatch {
        token,
        now,
        outcomes,
        unreadable: Vec::new(),
        owe_notices: false,
    }))
    .unwrap();
}

struct Unreachable;

impl Database for Unreachable {
    async fn batch(&self, _: Vec<Statement>) -> Result<Vec<Vec<Row>>, LedgerError> {
        Err(LedgerError { cause: "D1_ERROR".to_owned() })
    }
}
