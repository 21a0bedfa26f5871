//! What a request may say, in JSON and in NDJSON, and what is said of everything else.

use std::future::pending;

use proptest::prelude::*;
use protocol::limits::REQUEST_KEYS_MAX;

use super::*;

const DELETIONS: &str = "/v1/deletions";

fn ndjson(query: &str, body: impl Into<Vec<u8>>) -> Request<Vec<u8>> {
    let target = format!("{DELETIONS}{query}");
    Request { content_type: Some("application/x-ndjson".to_owned()), ..request("POST", &target, body.into()) }
}

fn lines<K: AsRef<str>>(keys: &[K]) -> String {
    keys.iter().map(|key| json!(key.as_ref()).to_string() + "\n").collect()
}

impl World {
    /// The keys of every message that is stored, in order.
    fn stored_keys(&self) -> Vec<String> {
        let mut stored = self.queue.stored.borrow().clone();
        stored.sort_by_key(|message| ChunkMessage::from_json(message).unwrap().chunk.chunk);
        let keys = |message: &String| {
            let keys = ChunkMessage::from_json(message).unwrap().keys;
            keys.iter().map(|key| key.as_str().to_owned()).collect::<Vec<_>>()
        };
        stored.iter().flat_map(keys).collect()
    }
}

/// Checks that a request is refused so, and that nothing is left of it.
#[track_caller]
fn check(request: Request<Vec<u8>>, status: u16, code: &str, says: &[&str]) {
    let world = World::new();
    let refused = world.ask(request);
    assert_eq!((refused.status, refused.body["code"].as_str()), (status, Some(code)), "{}", refused.body);
    for part in says {
        assert!(refused.body.to_string().contains(part), "{part} is not in {}", refused.body);
    }
    assert!(world.queue.stored.borrow().is_empty());
    assert_eq!(world.get(DELETIONS).body["deletions"], json!([]));
}

#[track_caller]
fn check_json(body: impl Into<Vec<u8>>, status: u16, code: &str, says: &[&str]) {
    check(request("POST", DELETIONS, body.into()), status, code, says);
}

#[test]
fn a_body_that_is_no_json_is_malformed() {
    let malformed = "malformed_request";
    check_json("", 400, malformed, &["ends early"]);
    check_json(r#"{"objectKeys":["a""#, 400, malformed, &["ends early"]);
    check_json("objectKeys=a", 400, malformed, &["not valid JSON", "line 1 column 1"]);
    check_json(r#"{"objectKeys":["a"]} x"#, 400, malformed, &["trailing characters"]);
    check_json("\u{feff}{\"objectKeys\":[\"a\"]}", 400, malformed, &["not valid JSON", "line 1 column 1"]);
    check_json(b"{\"objectKeys\":[\"\xff\"]}", 400, malformed, &["not UTF-8 from byte 16"]);
    check_json("{\"objectKeys\":[\"a\nb\"]}", 400, malformed, &["control character"]);
    check_json(
        r#"{"objectKeys":["a"],"labels":"#.to_owned() + &"[".repeat(100_000),
        400,
        malformed,
        &["ends early"],
    );
}

#[test]
fn what_is_wrong_is_pointed_at() {
    let invalid = "validation_failed";
    for (body, says) in [
        (r#"{"objectKeys":[]}"#, &["#/objectKeys\"", "at least one"][..]),
        (r#"{"objectKeys":["a",5]}"#, &["#/objectKeys/1\"", "expected a string"]),
        (
            r#"{"objectKeys":["a",null,{"b":[]},"c",1e999]}"#,
            &["3 of the keys", "#/objectKeys/1\"", "#/objectKeys/2\"", "#/objectKeys/4\""],
        ),
        (r#"{"objectKeys":["\ud800"]}"#, &["1 of the keys is invalid", "#/objectKeys/0\"", "hex escape"]),
        (r#"{"objectKeys":"a"}"#, &["#/objectKeys\"", "expected a sequence"]),
        (r#"{"objectKeys":["a"],"dryrun":true}"#, &["#/dryrun\"", "unknown field `dryrun`"]),
        (r#"{"objectKeys":["a"],"objectKeys":["b"]}"#, &["#/objectKeys\"", "duplicate field"]),
        ("{}", &["missing field `objectKeys`"]),
        ("null", &["an object like"]),
        (r#"[["a"]]"#, &["an object like"]),
        (r#"{"objectKeys":["a"],"delay_seconds":86401}"#, &["#/delay_seconds\"", "0 to 86400"]),
        (r#"{"objectKeys":["a"],"delay_seconds":-1}"#, &["#/delay_seconds\""]),
        (r#"{"objectKeys":["a"],"delay_seconds":"5"}"#, &["#/delay_seconds\""]),
        (r#"{"objectKeys":["a"],"delay_seconds":1.5}"#, &["#/delay_seconds\"", "a whole number"]),
        (r#"{"objectKeys":["a"],"delay_seconds":1e30}"#, &["#/delay_seconds\"", "0 to 86400"]),
        (r#"{"objectKeys":["a"],"delay_seconds":-0.5}"#, &["#/delay_seconds\""]),
        (r#"{"objectKeys":["a"],"delay_seconds":1e999}"#, &["#/delay_seconds\"", "out of range"]),
        (r#"{"objectKeys":["a"],"delay_seconds":99999999999999999999}"#, &["#/delay_seconds\""]),
        (
            r#"{"objectKeys":["","a",""]}"#,
            &["2 of the keys are invalid", "#/objectKeys/0\"", "#/objectKeys/2\""],
        ),
        (r#"{"labels":{"n":"v"},"objectKeys":["a",5]}"#, &["#/objectKeys/1\""]),
        (r#"{"prefixes":[]}"#, &["#/prefixes\"", "at least one"]),
        (r#"{"prefixes":"a/"}"#, &["#/prefixes\"", "expected a sequence"]),
        (r#"{"prefixes":["a/",5,"b/",null]}"#, &["2 of the prefixes", "#/prefixes/1\"", "#/prefixes/3\""]),
        (r#"{"prefixes":["a/"],"prefixes":["a/"]}"#, &["#/prefixes\"", "duplicate field"]),
        (r#"{"project":42}"#, &["#/project\"", "a string"]),
        (r#"{"project":null}"#, &["#/project\"", "a string"]),
        (r#"{"project":"42"}"#, &["#/project\"", "set PROJECT_TEMPLATES"]),
        (r#"{"prefixes":["a/"],"max_objects":0}"#, &["#/max_objects\"", "from 1 to"]),
        (r#"{"prefixes":["a/"],"max_objects":1.5}"#, &["#/max_objects\"", "a whole number"]),
        (
            r#"{"prefixes":["a/"],"max_objects":9007199254740992}"#,
            &["#/max_objects\"", "to 9007199254740991"],
        ),
        (r#"{"prefixes":["a/"],"max_objects":null}"#, &["#/max_objects\""]),
        (r#"{"prefixes":["a/"],"dry_run":"true"}"#, &["#/dry_run\"", "a boolean"]),
        (r#"{"prefixes":["a/"],"verify":1}"#, &["#/verify\"", "a boolean"]),
        (r#"{"plan":"del_x"}"#, &["#/plan\"", "26 characters"]),
        (r#"{"in_parts":true,"prefixes":["a/"]}"#, &["#/in_parts\"", "no prefixes"]),
        (r#"{"dry_run":true}"#, &["missing field `objectKeys`"]),
    ] {
        check_json(body, 422, invalid, says);
    }
    check_json("[".repeat(100_000), 422, invalid, &["an object like"]);
    let deep = format!("{{\"objectKeys\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    check_json(deep, 422, invalid, &["#/objectKeys/0\"", "expected a string"]);
}

/// Also where it says the same twice: which of the two was meant, nobody knows once they differ.
#[test]
fn a_member_that_is_there_twice_is_refused_and_named() {
    let plan = "del_01kaszq5m0zzzzzzzzzzzzzzzz";
    for (name, value) in [
        ("objectKeys", json!(["b"])),
        ("in_parts", json!(false)),
        ("delay_seconds", json!(5)),
        ("fence", json!("always")),
        ("labels", json!({"ticket": "42"})),
        ("prefixes", json!(["a/"])),
        ("project", json!("42")),
        ("max_objects", json!(5)),
        ("dry_run", json!(true)),
        ("verify", json!(true)),
        ("plan", json!(plan)),
    ] {
        let says = [format!("#/{name}\""), format!("duplicate field `{name}`")];
        let says = says.each_ref().map(String::as_str);
        check_json(
            format!(r#"{{"objectKeys":["a"],"{name}":{value},"{name}":{value}}}"#),
            422,
            "validation_failed",
            &says,
        );
    }
}

#[test]
fn what_makes_no_sense_together_is_refused_and_not_left_out() {
    let (invalid, plan) = ("validation_failed", "del_01kaszq5m0zzzzzzzzzzzzzzzz");
    {
        let (name, value) = ("max_objects", json!(5));
        let body = json!({"objectKeys": ["a"], name: value}).to_string();
        check_json(body, 422, invalid, &[&format!("#/{name}\""), "beside it"]);
        let request = ndjson(&format!("?{name}={value}"), lines(&["a"]));
        check(request, 422, invalid, &[&format!("\"?{name}\""), "beside it"]);
    }
    check_json(json!({"plan": plan, "dry_run": true}).to_string(), 422, invalid, &["#/plan\"", "dry run"]);
    check_json(json!({"plan": plan}).to_string(), 422, invalid, &["#/plan\"", "the id of a dry run"]);
    check_json(
        json!({"in_parts": true, "dry_run": true}).to_string(),
        422,
        invalid,
        &["#/dry_run\"", "parts"],
    );
    check_json(json!({"prefixes": ["a"]}).to_string(), 422, invalid, &["#/prefixes/0\"", "neighbours"]);
    check_json(json!({"prefixes": [""]}).to_string(), 422, invalid, &["#/prefixes/0\"", "whole bucket"]);
    check(ndjson("?project=42", lines(&["a"])), 422, invalid, &["\"?project\"", "set PROJECT_TEMPLATES"]);
}

#[test]
fn a_delay_is_a_whole_number_however_it_is_written() {
    let world = World::new();
    for (text, seconds) in [("0", 0), ("-0", 0), ("3600.0", 3_600), ("8.64e4", 86_400)] {
        let accepted = world.post(format!(r#"{{"objectKeys":["a"],"delay_seconds":{text}}}"#));
        assert_eq!(accepted.status, 202, "{text}: {}", accepted.body);
        assert_eq!(world.queue.delays.borrow().last(), Some(&seconds), "{text}");
    }
}

#[test]
fn what_is_wrong_on_a_line_is_pointed_at() {
    let invalid = "validation_failed";
    for (body, says) in [
        ("", &["line 1\"", "at least one"][..]),
        ("\n\r\n \n", &["at least one"]),
        (
            "\"a\"\nb\n\"\"\n",
            &["2 of the keys", "line 2\"", "expected a JSON string", "line 3\"", "the key is empty"],
        ),
        ("\"a\"\n\n5\n", &["line 3\"", "invalid type: integer `5`, expected a string"]),
        ("\"a\"\n\"b", &["1 of the keys is invalid", "line 2\"", "EOF while parsing a string"]),
        ("\"a\" \"b\"\n", &["line 1\"", "trailing characters at column 5"]),
        ("\"a\",\n", &["line 1\"", "trailing characters"]),
        ("[\"a\"]\n", &["line 1\"", "expected a string"]),
        ("{\"objectKeys\":[\"a\"]}", &["line 1\"", "invalid type: map, expected a string"]),
        ("\u{feff}\"a\"\n", &["line 1\"", "expected value at column 1"]),
        ("\"\\udc00\"\n", &["line 1\"", "surrogate"]),
        ("1e999\n", &["line 1\"", "out of range"]),
        ("\"a\tb\"\n", &["line 1\"", "control character"]),
    ] {
        check(ndjson("", body), 422, invalid, says);
    }
    check(ndjson("", b"\"a\"\n\"\xff\"\n"), 422, invalid, &["line 2\"", "expected UTF-8"]);
    check(ndjson("", "[".repeat(3_000_000)), 422, invalid, &["line 1\"", "longer than any key"]);
    check(ndjson("", "[".repeat(5_000)), 422, invalid, &["line 1\"", "expected a string"]);
    let body = format!("\"{}\"\n\"{}\"\n", "k".repeat(1_024), "k".repeat(1_025));
    check(ndjson("", body), 422, invalid, &["1 of the keys", "line 2\"", "1025 bytes"]);
}

#[test]
fn at_most_twenty_wrong_keys_are_listed_and_all_are_counted() {
    let json = format!("{{\"objectKeys\":[{}]}}", vec!["\"\""; 5_000].join(","));
    for request in [request("POST", DELETIONS, json.into()), ndjson("", "\"\"\n".repeat(5_000))] {
        let refused = World::new().ask(request);
        assert_eq!(refused.body["errors"].as_array().unwrap().len(), 20);
        assert_eq!(
            refused.body["detail"],
            "5000 of the keys are invalid, the first 20 listed. Nothing was accepted."
        );
    }
}

#[test]
fn a_request_takes_100_000_keys_and_not_one_more() {
    let keys: Vec<String> = (0..=REQUEST_KEYS_MAX).map(|n| n.to_string()).collect();
    let too_many = ["100001 keys", "at most 100000"];
    check_json(json!({ "objectKeys": keys }).to_string(), 413, "payload_too_large", &too_many);
    check(ndjson("", lines(&keys)), 413, "payload_too_large", &too_many);
    let most = &keys[1..];
    for request in [
        request("POST", DELETIONS, json!({ "objectKeys": most }).to_string().into()),
        ndjson("", lines(most)),
    ] {
        let world = World::new();
        let accepted = world.ask(request);
        assert_eq!((accepted.status, &accepted.body["counts"]["total"]), (202, &json!(REQUEST_KEYS_MAX)));
        assert_eq!(world.stored_keys(), most);
    }
}

/// A body whose messages are several rows of the outbox: all but the last are read back to be sent, and each can be found
/// there by its chunk.
#[test]
fn keys_of_16_mb_are_all_sent_once() {
    let keys: Vec<String> = (0..15_600).map(|n| format!("{n:01020}")).collect();
    let world = World::new();
    let accepted = world.ask(ndjson("", lines(&keys)));
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    assert_eq!(accepted.body["messages"], world.queue.stored.borrow().len());
    assert_eq!(world.stored_keys(), keys);

    let part = PartRef::request(&accepted.body["id"].as_str().unwrap().parse().unwrap());
    let stored = world.queue.stored.borrow();
    for body in [stored.first(), stored.get(60), stored.last()].map(Option::unwrap) {
        let chunks = vec![ChunkMessage::from_json(body).unwrap().chunk.chunk];
        let lost = LostPart { part: part.clone(), chunks };
        let piece = |piece| block_on(world.ledger.read_lost(&lost, piece)).unwrap();
        assert_eq!((0..).map_while(piece).flatten().collect::<Vec<_>>(), std::slice::from_ref(body));
    }
}

#[test]
fn the_options_of_an_ndjson_body_are_in_the_query_and_those_of_json_are_not() {
    let world = World::new();
    let accepted = world.ask(ndjson("?delay_seconds=60&label.reason=erasure+42", "\"a\"\n"));
    assert_eq!((accepted.status, &accepted.body["labels"]), (202, &json!({"reason": "erasure 42"})));
    assert_eq!(accepted.body["not_before"], "2025-11-23T20:34:20.000Z");
    assert_eq!(*world.queue.delays.borrow(), [60]);

    let invalid = "validation_failed";
    check(
        ndjson("?dryrun=true", "\"a\"\n"),
        422,
        invalid,
        &["\"?dryrun\"", "it takes delay_seconds, fence, label.NAME, project"],
    );
    check(
        ndjson("?delay_seconds=5&delay_seconds=5", "\"a\"\n"),
        422,
        invalid,
        &["\"?delay_seconds\"", "once"],
    );
    check(ndjson("?delay_seconds=86401", "\"a\"\n"), 422, invalid, &["\"?delay_seconds\""]);
    let target = format!("{DELETIONS}?delay_seconds=60");
    check(request("POST", &target, keys_body(1).into()), 422, invalid, &["\"?delay_seconds\"", "members"]);
}

#[test]
fn the_query_belongs_to_what_an_idempotency_key_stands_for() {
    let world = World::new();
    let ask = |query: &str| {
        let request = ndjson(query, "\"a\"\n");
        world.ask(Request { idempotency_key: Some("k".to_owned()), ..request })
    };
    let first = ask("?delay_seconds=60");
    assert_eq!(first.status, 202);
    let replayed = ask("?delay_seconds=60");
    assert_eq!((replayed.status, &replayed.body["id"]), (202, &first.body["id"]));
    for other in ["", "?delay_seconds=61"] {
        assert_eq!(ask(other).body["code"], "idempotency_key_reused");
    }
    assert_eq!(world.queue.stored.borrow().len(), 1);
}

#[test]
fn a_body_of_more_than_16_mb_is_refused_whether_or_not_it_says_so() {
    let line = "\"proj_42/a.jpg\"\n";
    let body = line.repeat(REQUEST_BYTES_MAX / line.len() + 1);
    for content_length in [Some(body.len()), None] {
        for content_type in ["application/json", "application/x-ndjson"] {
            let mut request = ndjson("", body.clone());
            request.content_type = Some(content_type.to_owned());
            request.content_length = content_length;
            check(request, 413, "payload_too_large", &["16000000 bytes"]);
        }
    }
}

/// A body that breaks off, or of which nothing more ever comes, after what there is of it.
struct Partial {
    there: Vec<u8>,
    then: Then,
}

#[derive(Clone, Copy)]
enum Then {
    Breaks,
    Stalls,
}

impl Body for Partial {
    async fn read(&mut self, buffer: &mut Vec<u8>, room: usize) -> Result<bool, BodyError> {
        if self.there.read(buffer, room).await? {
            return Ok(true);
        }
        match self.then {
            Then::Breaks => Err(BodyError::Broken),
            Then::Stalls => pending().await,
        }
    }
}

#[test]
fn a_body_that_does_not_come_to_its_end_is_not_accepted_and_holds_no_memory() {
    // More than a row of the outbox holds.
    let keys: Vec<String> = (0..1_500).map(|n| format!("{n:01020}")).collect();
    let json = json!({ "objectKeys": keys }).to_string();
    for (then, status, code) in
        [(Then::Breaks, 400, "malformed_request"), (Then::Stalls, 408, "request_timeout")]
    {
        for (content_type, body) in
            [("application/json", json.clone()), ("application/x-ndjson", lines(&keys))]
        {
            let world = World::new();
            for _ in 0..3 {
                let body = Partial { there: body.clone().into_bytes(), then };
                let content_type = Some(content_type.to_owned());
                let request = Request { content_type, ..request_of("POST", DELETIONS, body) };
                let refused = block_on(answer(request, &world.ports()));
                assert_eq!(refused.status, status);
                let text = refused.text();
                assert!(text.contains(code));
                assert_eq!(text.contains("within 150 seconds"), status == 408, "{text}");
            }
            assert!(world.queue.stored.borrow().is_empty());
            assert_eq!(world.get(DELETIONS).body["deletions"], json!([]));
        }
    }
}

#[test]
fn a_request_for_which_there_is_no_room_is_told_to_come_back() {
    let world = World { memory: MemoryBudget::new(1_000_000), ..World::new() };
    let small = || keys_body(10);
    let large = keys_body(10_000);
    for _ in 0..3 {
        let refused = world.post(large.clone());
        assert_eq!((refused.status, &refused.body["code"]), (503, &json!("overloaded")));
        assert_eq!((&refused.body["retryable"], refused.header("Retry-After")), (&json!(true), Some("2")));
        assert_eq!(world.post(small()).status, 202);
    }
    assert!(world.host.now.get() >= 15_000, "they have waited");
}

proptest! {
    #[test]
    fn keys_come_through_byte_for_byte_in_order_and_once(
        texts in prop::collection::vec("\\PC{1,8}|[ab]", 1..60),
        in_lines in any::<bool>(),
    ) {
        let world = World::new();
        let accepted = if in_lines {
            world.ask(ndjson("", lines(&texts)))
        } else {
            world.post(json!({ "objectKeys": texts }).to_string())
        };
        let mut expected: Vec<String> = Vec::new();
        for text in &texts {
            if !expected.contains(text) {
                expected.push(text.clone());
            }
        }
        prop_assert_eq!(accepted.status, 202);
        prop_assert_eq!(&accepted.body["duplicates_removed"], texts.len() - expected.len());
        prop_assert_eq!(world.stored_keys(), expected);
    }
}
