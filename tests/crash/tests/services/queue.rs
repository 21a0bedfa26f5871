use std::time::Duration;

use anyhow::Result;
use crash::{Body, Decision, Fault};
use serde_json::{Value, json};

use crate::Probe;

#[test]
fn the_queue_stores_what_was_sent_and_refuses_what_is_too_large() -> Result<()> {
    let probe = Probe::start()?;
    let message = |size: usize| json!({"body": "é".repeat(size / 2), "contentType": "text"});
    assert!(probe.call("JOBS.send", json!([{"ack": true}, {"delaySeconds": 5}])).is_ok());
    let sent = probe.call("JOBS.sendBatch", json!([[message(2), message(4)]])).unwrap();
    assert_eq!(sent["metadata"]["metrics"]["backlogCount"], 3, "{sent}");
    let held: Vec<_> = probe.queue.messages("jobs").iter().map(|message| message.body.clone()).collect();
    assert_eq!(held, [Body::json(&json!({"ack": true})), Body::text("é"), Body::text("éé")]);
    assert_eq!(probe.queue.take("jobs", 10).len(), 2, "the first one is delayed");

    let refused = |messages: Vec<Value>| probe.call("JOBS.sendBatch", json!([messages])).unwrap_err();
    assert!(refused(vec![message(128_000)]).ends_with("(10204)"));
    assert!(refused(vec![message(100_000); 3]).ends_with("(10205)"));
    assert!(refused(vec![message(2); 101]).ends_with("(10206)"));
    let late = probe.call("JOBS.sendBatch", json!([[message(2)], {"delaySeconds": 86_401}]));
    assert!(late.unwrap_err().ends_with("(10202)"));

    probe.queue.fail_sends(0, 1, Fault::refused(10250));
    assert_eq!(refused(vec![message(2)]), "Error: Queue is overloaded. Please back off. (10250)");
    probe.queue.fail_sends(1, 1, Fault::half_done(15000));
    assert!(probe.call("JOBS.sendBatch", json!([[message(2)]])).is_ok());
    assert!(refused(vec![message(2), message(4), message(6)]).ends_with("(15000)"));
    assert_eq!(probe.queue.messages("jobs").len(), 3 + 1 + 2);
    Ok(())
}

#[test]
fn messages_are_acknowledged_retried_and_given_up_as_documented() -> Result<()> {
    let probe = Probe::start()?;
    let dispatcher = probe.dispatcher()?;
    let deliver = || -> Result<Vec<Decision>> {
        let batch = probe.queue.take("jobs", 10);
        let delivered = dispatcher.deliver("jobs", &batch)?;
        probe.queue.settle("jobs", &batch, &delivered);
        Ok(batch.iter().map(|message| delivered.decision(&message.id)).collect())
    };
    let left = |queue: &str| probe.queue.messages(queue).len();

    for body in [json!({"ack": true}), json!({"retry": 0}), json!({"retry": 60}), json!({})] {
        probe.queue.send("jobs", Body::json(&body));
    }
    let (retried, delayed) = (Decision::Retried { delay: Some(0) }, Decision::Retried { delay: Some(60) });
    assert_eq!(deliver()?, [Decision::Acked, retried, delayed, Decision::Acked]);
    assert_eq!(deliver()?, [retried], "the other one is delayed");
    assert_eq!(
        (deliver()?, left("jobs"), left("dead")),
        (vec![retried], 1, 1),
        "the third delivery was its last"
    );
    assert_eq!(probe.queue.messages("dead")[0].attempts, 0);

    for body in [json!({"ack": true}), json!({"fail": true})] {
        probe.queue.send("jobs", Body::json(&body));
    }
    let failed = Decision::Retried { delay: None };
    assert_eq!(deliver()?, [Decision::Acked, failed], "an acknowledgement survives a failing handler");
    assert_eq!(
        probe.queue.messages("jobs").iter().map(|message| message.attempts).collect::<Vec<_>>(),
        [1, 1]
    );
    crash::until("the exception in the output", Duration::from_secs(20), || {
        Ok(probe.workerd.output().join("\n").contains("as the message wished").then_some(()))
    })?;
    Ok(())
}
