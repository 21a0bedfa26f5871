//! Whatever comes as a body: an answer of 4xx within a second that says what is wrong and where, and nothing is accepted.
#![expect(
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and measures real time"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::{Pair, eventually};
use serde_json::{Value, json};

const JSON: &str = "content-type: application/json";
const NDJSON: &str = "content-type: application/x-ndjson";

/// Sends these very bytes, and no more. Answers with all that came back, which may be nothing.
fn send_raw(pair: &Pair, head: &str, body: &[u8]) -> Result<String> {
    let host = pair.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let (request_line, headers) = head.split_once('\n').unwrap_or((head, ""));
    let headers: String = headers.lines().map(|line| format!("{line}\r\n")).collect::<Vec<_>>().concat();
    let token = pair.token();
    let head = format!(
        "{request_line} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    // An answer may come, and the connection be closed, before all is sent.
    let sent = stream.write_all(body).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("no answer for too long"),
        // What was read before the connection broke counts.
        read => drop((sent, read)),
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Sends a whole request. Answers with the status and the body.
fn post(pair: &Pair, query: &str, header: &str, body: &[u8]) -> Result<(u16, String)> {
    let head = format!("POST /v1/deletions{query}\n{header}\ncontent-length: {}", body.len());
    let answer = send_raw(pair, &head, body)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer: {answer}"))?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

fn assert_nothing_is_accepted(pair: &Pair) -> Result<()> {
    for table in ["deletions", "outbox", "labels", "idempotency_keys"] {
        let left = pair.gateway().sql(&format!("SELECT COUNT(*) AS count FROM {table}"), &[])?;
        assert_eq!(left[0]["count"], 0, "{table}");
    }
    Ok(())
}

/// Headers, query, body, the answer's status and code, and what else is in it.
type Case<'a> = (&'a str, &'a str, &'a [u8], (u16, &'a str), &'a [&'a str]);

const MALFORMED: (u16, &str) = (400, "malformed_request");
const INVALID: (u16, &str) = (422, "validation_failed");
const MEDIA_TYPE: (u16, &str) = (415, "unsupported_media_type");

/// No JSON, or not all of it.
const NO_JSON: &[Case<'_>] = &[
    (JSON, "", b"", MALFORMED, &["ends early", "line 1 column 0"]),
    (JSON, "", b"{", MALFORMED, &["ends early"]),
    (JSON, "", br#"{"objectKeys":["a"]"#, MALFORMED, &["ends early"]),
    (JSON, "", br#"{"objectKeys":["a"]}{"#, MALFORMED, &["trailing characters"]),
    (JSON, "", br#"{"objectKeys":["a",]}"#, MALFORMED, &["trailing comma"]),
    (JSON, "", br"{'objectKeys':['a']}", MALFORMED, &["line 1 column 2"]),
    (JSON, "", b"objectKeys=a", MALFORMED, &["not valid JSON", "line 1 column 1"]),
    (JSON, "", b"\xef\xbb\xbf{\"objectKeys\":[\"a\"]}", MALFORMED, &["not valid JSON", "line 1 column 1"]),
    (JSON, "", b"\xff\xfe{\0\"\0", MALFORMED, &["not UTF-8 from byte 0"]),
    (JSON, "", b"{\"objectKeys\":[\"\xff\xfe\"]}", MALFORMED, &["not UTF-8 from byte 16"]),
    (JSON, "", b"{\"objectKeys\":[\"\xed\xa0\x80\"]}", MALFORMED, &["not UTF-8 from byte 16"]),
    (JSON, "", b"{\"objectKeys\":[\"a\nb\"]}", MALFORMED, &["control character", "line 1"]),
    (JSON, "", br#"{"objectKeys":["\x"]}"#, MALFORMED, &["invalid escape"]),
    (JSON, "", br#"{"objectKeys":[NaN]}"#, MALFORMED, &["not valid JSON"]),
];

/// JSON of another form.
const OTHER_JSON: &[Case<'_>] = &[
    (JSON, "", b"null", INVALID, &["\"#\"", "an object like"]),
    (JSON, "", b"[]", INVALID, &["\"#\"", "an object like"]),
    (JSON, "", b"\"a\"", INVALID, &["\"#\"", "an object like"]),
    (JSON, "", b"1e999", INVALID, &["\"#\""]),
    (JSON, "", b"{}", INVALID, &["\"#\"", "missing field `objectKeys`"]),
    (JSON, "", br#"{"objectKeys":["a"],"dryrun":true}"#, INVALID, &["\"#/dryrun\"", "unknown field"]),
    (JSON, "", br#"{"objectKeys":["a"],"__proto__":{}}"#, INVALID, &["\"#/__proto__\""]),
    (JSON, "", br#"{"objectKeys":["a"],"objectKeys":["b"]}"#, INVALID, &["\"#/objectKeys\"", "duplicate"]),
    (
        JSON,
        "",
        br#"{"objectKeys":["a"],"object\u004beys":["b"]}"#,
        INVALID,
        &["\"#/objectKeys\"", "duplicate"],
    ),
];

/// Keys.
const KEYS: &[Case<'_>] = &[
    (JSON, "", br#"{"objectKeys":"a"}"#, INVALID, &["\"#/objectKeys\"", "a sequence"]),
    (JSON, "", br#"{"objectKeys":null}"#, INVALID, &["\"#/objectKeys\"", "a sequence"]),
    (JSON, "", br#"{"objectKeys":{"0":"a"}}"#, INVALID, &["\"#/objectKeys\"", "a sequence"]),
    (JSON, "", br#"{"objectKeys":[]}"#, INVALID, &["\"#/objectKeys\"", "at least one"]),
    (JSON, "", br#"{"objectKeys":["a",""]}"#, INVALID, &["\"#/objectKeys/1\"", "the key is empty"]),
    (
        JSON,
        "",
        br#"{"objectKeys":["a",5]}"#,
        INVALID,
        &["\"#/objectKeys/1\"", "integer `5`, expected a string"],
    ),
    (
        JSON,
        "",
        br#"{"objectKeys":["a",null,true,["b"],{}]}"#,
        INVALID,
        &["4 of the keys", "\"#/objectKeys/4\""],
    ),
    (JSON, "", br#"{"objectKeys":[1e999]}"#, INVALID, &["\"#/objectKeys/0\"", "out of range"]),
    (JSON, "", br#"{"objectKeys":["\ud800"]}"#, INVALID, &["\"#/objectKeys/0\"", "hex escape"]),
    (JSON, "", br#"{"objectKeys":["a\udc00b"]}"#, INVALID, &["\"#/objectKeys/0\"", "surrogate"]),
];

/// What is said beside the keys.
const OPTIONS: &[Case<'_>] = &[
    (JSON, "", br#"{"objectKeys":["a"],"labels":{"a b":"v"}}"#, INVALID, &["\"#/labels/a b\"", "1 to 64"]),
    (
        JSON,
        "",
        br#"{"objectKeys":["a"],"delay_seconds":86401}"#,
        INVALID,
        &["\"#/delay_seconds\"", "0 to 86400"],
    ),
    (JSON, "", br#"{"objectKeys":["a"],"delay_seconds":-1}"#, INVALID, &["\"#/delay_seconds\"", "`-1`"]),
    (JSON, "", br#"{"objectKeys":["a"],"delay_seconds":0.5}"#, INVALID, &["\"#/delay_seconds\"", "`0.5`"]),
    (JSON, "", br#"{"objectKeys":["a"],"delay_seconds":"60"}"#, INVALID, &["\"#/delay_seconds\"", "string"]),
    (JSON, "", br#"{"objectKeys":["a"],"delay_seconds":null}"#, INVALID, &["\"#/delay_seconds\"", "null"]),
    (
        JSON,
        "",
        br#"{"objectKeys":["a"],"delay_seconds":1e999}"#,
        INVALID,
        &["\"#/delay_seconds\"", "out of range"],
    ),
    (
        JSON,
        "",
        br#"{"objectKeys":["a"],"delay_seconds":99999999999999999999}"#,
        INVALID,
        &["\"#/delay_seconds\""],
    ),
    (JSON, "", br#"{"objectKeys":["a"],"labels":[]}"#, INVALID, &["\"#/labels\"", "an object"]),
    (JSON, "", br#"{"objectKeys":["a"],"labels":{"n":1}}"#, INVALID, &["\"#/labels/n\"", "a string"]),
    (JSON, "", br#"{"objectKeys":["a"],"labels":{"n":"a","n":"b"}}"#, INVALID, &["\"#/labels/n\"", "twice"]),
    (JSON, "?delay_seconds=60", br#"{"objectKeys":["a"]}"#, INVALID, &["\"?delay_seconds\"", "members"]),
];

/// Lines.
const LINES: &[Case<'_>] = &[
    (NDJSON, "", b"", INVALID, &["\"line 1\"", "at least one"]),
    (NDJSON, "", b"\n\r\n", INVALID, &["\"line 1\"", "at least one"]),
    (NDJSON, "", b"\"a\"\nb\n", INVALID, &["\"line 2\"", "expected value at column 1"]),
    (NDJSON, "", b"\"a\"\n\n\"b", INVALID, &["\"line 3\"", "EOF while parsing a string"]),
    (NDJSON, "", b"\"a\"\n\"\"\n", INVALID, &["\"line 2\"", "the key is empty"]),
    (NDJSON, "", b"\"a\" \"b\"\n", INVALID, &["\"line 1\"", "trailing characters"]),
    (NDJSON, "", b"\"a\",\n\"b\"\n", INVALID, &["\"line 1\"", "trailing characters"]),
    (NDJSON, "", b"5\nnull\n[\"a\"]\n{\"key\":\"a\"}\n1e999\n", INVALID, &["5 of the keys", "\"line 5\""]),
    (NDJSON, "", br#"{"objectKeys":["a"]}"#, INVALID, &["\"line 1\"", "map, expected a string"]),
    (NDJSON, "", b"\xef\xbb\xbf\"a\"\n", INVALID, &["\"line 1\"", "column 1"]),
    (NDJSON, "", b"\"a\"\n\"\xff\"\n", INVALID, &["\"line 2\"", "UTF-8"]),
    (NDJSON, "", b"\"\\ud800\"\n\"\\udc00\"\n", INVALID, &["2 of the keys", "\"line 1\"", "\"line 2\""]),
    (NDJSON, "", b"\"a\0b\"\n", INVALID, &["\"line 1\"", "control character"]),
    (NDJSON, "?dry=true", b"\"a\"\n", INVALID, &["\"?dry\"", "delay_seconds, fence"]),
    (NDJSON, "?dry_run=yes", b"\"a\"\n", INVALID, &["\"?dry_run\"", "true or false"]),
    (NDJSON, "?max_objects=1", b"\"a\"\n", INVALID, &["\"?max_objects\"", "expected prefixes"]),
    (NDJSON, "?project=4_2", b"\"a\"\n", INVALID, &["\"?project\""]),
    (JSON, "", br#"{"prefixes":["a"]}"#, INVALID, &["#/prefixes/0", "max_objects"]),
    (JSON, "", br#"{"prefixes":[7]}"#, INVALID, &["#/prefixes/0"]),
    (JSON, "", br#"{"prefixes":["a/"],"max_objects":0}"#, INVALID, &["#/max_objects"]),
    (JSON, "", br#"{"prefixes":["a/"],"plan":"latest"}"#, INVALID, &["#/plan"]),
    (NDJSON, "?delay_seconds=-1", b"\"a\"\n", INVALID, &["\"?delay_seconds\"", "0 to 86400"]),
    (NDJSON, "?delay_seconds=1&delay_seconds=1", b"\"a\"\n", INVALID, &["\"?delay_seconds\"", "once"]),
    (NDJSON, "?label.a%20b=v", b"\"a\"\n", INVALID, &["\"?label.a b\"", "1 to 64"]),
    (NDJSON, "?label.a=%FF", b"\"a\"\n", INVALID, &["\"?label.a\"", "UTF-8"]),
];

/// What the headers say.
const HEADERS: &[Case<'_>] = &[
    ("x-nothing: 1", "", br#"{"objectKeys":["a"]}"#, MEDIA_TYPE, &["Content-Type: application/json"]),
    ("content-type: text/plain", "", br#"{"objectKeys":["a"]}"#, MEDIA_TYPE, &["application/x-ndjson"]),
    ("content-type: application/ndjson", "", b"\"a\"\n", MEDIA_TYPE, &["application/x-ndjson"]),
    (
        "content-type: application/json\ncontent-encoding: gzip",
        "",
        b"\x1f\x8b",
        MEDIA_TYPE,
        &["Content-Encoding"],
    ),
    (
        "content-type: application/x-ndjson\ncontent-encoding: br",
        "",
        b"\"a\"\n",
        MEDIA_TYPE,
        &["Content-Encoding"],
    ),
    (
        "content-type: application/json\nidempotency-key: \"half",
        "",
        br#"{"objectKeys":["a"]}"#,
        MALFORMED,
        &["Idempotency-Key"],
    ),
];

#[test]
fn every_wrong_body_is_answered_within_a_second_with_what_is_wrong_and_where() -> Result<()> {
    let pair = Pair::start()?;
    for case in [NO_JSON, OTHER_JSON, KEYS, OPTIONS, LINES, HEADERS].concat() {
        check(&pair, case)?;
    }
    let deep = "[".repeat(100_000);
    let deep_key = format!(r#"{{"objectKeys":[{deep}]}}"#);
    let deep_labels = format!(r#"{{"objectKeys":["a"],"labels":{deep}"#);
    let long_key = format!(r#"{{"objectKeys":["{}"]}}"#, "k".repeat(1_025));
    let long_line = format!("\"a\"\n\"{}\"\n", "k".repeat(20_000));
    let many = format!(r#"{{"objectKeys":[{}]}}"#, vec!["1"; 20_000].join(","));
    let many_lines = "1\n".repeat(20_000);
    let all_counted = "20000 of the keys are invalid, the first 20 listed";
    for (header, body, answer, says) in [
        (JSON, &deep_labels, MALFORMED, "ends early"),
        (JSON, &deep, INVALID, "an object like"),
        (JSON, &deep_key, MALFORMED, "line 1 column"),
        (JSON, &long_key, INVALID, "1025 bytes"),
        (JSON, &many, INVALID, all_counted),
        (NDJSON, &long_line, INVALID, "longer than any key"),
        (NDJSON, &deep, INVALID, "longer than any key"),
        (NDJSON, &many_lines, INVALID, all_counted),
    ] {
        check(&pair, (header, "", body.as_bytes(), answer, &[says]))?;
    }
    assert_nothing_is_accepted(&pair)
}

fn check(pair: &Pair, (header, query, body, (status, code), says): Case<'_>) -> Result<()> {
    let start = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
    let case = format!("{header} {query} {start}");
    let mut watch = Instant::now();
    let mut answer = post(pair, query, header, body)?;
    if watch.elapsed() > SECOND {
        // The machine may have been at something else: once it may be.
        watch = Instant::now();
        answer = post(pair, query, header, body)?;
    }
    assert!(watch.elapsed() < SECOND, "{case}: {:?}", watch.elapsed());
    let problem: Value = serde_json::from_str(&answer.1).with_context(|| format!("{case}: {answer:?}"))?;
    assert_eq!((answer.0, problem["code"].as_str()), (status, Some(code)), "{case}: {problem}");
    assert_eq!(problem["retryable"], false, "{case}: {problem}");
    for part in says {
        assert!(problem.to_string().contains(part), "{case}: {part} is not in {problem}");
    }
    assert_eq!(problem["errors"].is_array(), status == 422, "{case}: {problem}");
    Ok(())
}

const SECOND: Duration = Duration::from_secs(1);

/// The sender may be gone before there is an answer.
#[test]
fn a_body_that_breaks_off_is_not_accepted() -> Result<()> {
    let pair = Pair::start()?;
    let lines: String = (0..50_000).map(|n| format!("\"proj_42/{n:040}\"\n")).collect::<Vec<_>>().concat();
    let whole_json = br#"{"objectKeys":["a"]}"#;
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let announced = "content-length: 3000000";
    let chunked = "transfer-encoding: chunked";
    for (header, length, body) in [
        // All that is there is right, and it is less than was announced.
        (JSON, announced, whole_json.to_vec()),
        (NDJSON, announced, b"\"a\"\n".to_vec()),
        (NDJSON, announced, lines.clone().into_bytes()),
        // A chunk breaks off, and the chunk that says that it is the last never comes.
        (JSON, chunked, [chunk(whole_json), b"5\r\nab".to_vec()].concat()),
        (JSON, chunked, chunk(whole_json)),
        (NDJSON, chunked, chunk(b"\"a\"\n")),
        (NDJSON, chunked, chunk(lines.as_bytes())),
        (NDJSON, chunked, b"zz\r\n\"a\"\n".to_vec()),
    ] {
        let head = format!("POST /v1/deletions\n{header}\n{length}");
        let answer = send_raw(&pair, &head, &body)?;
        // What stands before the producer locally has an answer of its own to a connection that breaks.
        if answer.to_lowercase().contains("x-request-id") {
            assert!(answer.starts_with("HTTP/1.1 400"), "{header} {length}: {answer}");
        }
    }
    let log = pair.log()?;
    assert!(!log.contains("status_code': 5") && !log.contains("deletion.accepted"), "{log}");
    // The producer is as well as before.
    let accepted = post(&pair, "?label.after=all", NDJSON, lines.as_bytes())?;
    assert_eq!(accepted.0, 202, "{}", accepted.1);
    let accepted: Value = serde_json::from_str(&accepted.1)?;
    assert_eq!((&accepted["counts"]["total"], &accepted["labels"]["after"]), (&50_000.into(), &"all".into()));
    pair.settle(accepted["id"].as_str().context("an id")?)?;
    assert_eq!(pair.gateway().sql("SELECT id FROM deletions", &[])?, [json!({"id": accepted["id"]})]);
    // What had been written of a long body is removed. Some of them may just be ending.
    eventually("nothing is left of the others", || {
        let left = pair.gateway().sql("SELECT deletion FROM outbox", &[])?;
        Ok(left.is_empty().then_some(()))
    })
}
