//! Messages that are not ours, or no longer: they are kept with their bodies, and their neighbours are processed.

use anyhow::Result;
use crash::{Body, Counts, Decision, Pair, QUEUE};
use serde_json::json;

#[test]
fn a_message_that_cannot_be_read_is_kept_and_its_neighbours_are_processed() -> Result<()> {
    let pair = Pair::start()?;
    pair.bucket.upload(["mine", "bystander"]);
    // What is sent past the producer names objects as they are in the bucket.
    let bystander = pair.canary.key("bystander");
    let foreign = r#"{"v":1,"deletion":"del_01kaszq5m0zzzzzzzzzzzzzzzz","chunk":0,"generation":0,"requested_at":1,"fence":"auto","keys":["bystander"]}"#;
    let sent = foreign.replace("bystander", &bystander);
    let bodies = [
        (Body::text("half a mess"), "not_json", "half a mess"),
        (Body::text(r#"{"v":99,"anything":[]}"#), "unsupported_version", r#"{"v":99,"anything":[]}"#),
        (
            Body::text(format!(r#"{{"v":1,"keys":["{bystander}"]}}"#)),
            "invalid_message",
            r#"{"v":1,"keys":["bystander"]}"#,
        ),
        (Body::json(&json!({"v": 1, "keys": [bystander]})), "not_text", r#"["bystander"]"#),
        (Body::bytes([0xff, 0x00]), "not_text", ""),
        (Body::text(sent), "unknown_deletion", foreign),
    ];
    for (body, ..) in &bodies[..3] {
        pair.queue.send(QUEUE, body.clone());
    }
    let id = pair.accept(&["mine"])?;
    for (body, ..) in &bodies[3..] {
        pair.queue.send(QUEUE, body.clone());
    }
    let batch = pair.queue.take(QUEUE, bodies.len() + 1);
    let delivered = pair.dispatcher()?.deliver(QUEUE, &batch)?;
    pair.queue.settle(QUEUE, &batch, &delivered);
    assert_eq!((batch.len(), delivered.outcome.as_str()), (7, "ok"));
    assert_eq!(delivered.decision(&batch[3].id), Decision::Acked);
    assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(1)));
    pair.settle()?;

    let kept = pair.unreadable_messages()?;
    assert_eq!(kept.len(), bodies.len(), "{kept:#?}");
    for (_, reason, body) in bodies {
        let found = kept.iter().any(|message| {
            message["reason"] == reason && message["body"].as_str().is_some_and(|text| text.contains(body))
        });
        assert!(found, "no message kept as {reason} with {body}: {kept:#?}");
    }
    assert_eq!(pair.bucket.keys(), ["bystander"]);
    Ok(())
}

#[test]
fn a_message_that_names_a_deletion_but_not_its_chunk_deletes_nothing() -> Result<()> {
    let pair = Pair::start()?;
    pair.bucket.upload(["mine", "bystander"]);
    let id = pair.accept(&["mine"])?;
    let forged = |chunk: u32, keys: &[&str]| {
        let keys: Vec<_> = keys.iter().map(|key| pair.canary.key(key)).collect();
        let message = json!({
            "v": 1, "deletion": id, "chunk": chunk, "generation": 0, "requested_at": 1, "fence": "auto", "keys": keys,
        });
        pair.queue.send(QUEUE, Body::text(message.to_string()));
    };
    forged(1, &["bystander"]);
    forged(0, &["mine", "bystander"]);
    pair.settle()?;
    assert_eq!(pair.progress(&id)?, ("succeeded".to_owned(), Counts::all_deleted(1)));
    let kept = pair.unreadable_messages()?;
    assert!(
        kept.len() == 2 && kept.iter().all(|message| message["reason"] == "not_in_deletion"),
        "{kept:#?}"
    );
    assert_eq!(pair.bucket.keys(), ["bystander"]);
    Ok(())
}

#[test]
fn an_unreadable_message_is_not_lost_to_a_ledger_that_is_down() -> Result<()> {
    let pair = Pair::start()?;
    pair.database.fail("consumer", "", 0, 3, crash::Fault::refused("no such luck"));
    pair.queue.send(QUEUE, Body::text("half a mess"));
    let (batch, delivered) = pair.deliver_once(QUEUE)?;
    assert!(matches!(delivered.decision(&batch[0].id), Decision::Retried { .. }));
    pair.settle()?;
    assert_eq!(pair.unreadable_messages()?.len(), 1);
    Ok(())
}
