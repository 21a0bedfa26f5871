//! A producer and a consumer as one writes them first with the worker crate: typed bodies, typed messages, everything through
//! serde. What `cargo xtask bench cpu` compares ours with; it has no ledger and no log, and checks no token.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use worker::{Context, Env, MessageBatch, MessageExt, Request, Response, Result, event};

const KEYS_PER_MESSAGE: usize = 1_000;

/// What is asked for.
#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "objectKeys")]
    object_keys: Vec<String>,
}

/// A message of the queue.
#[derive(Debug, Serialize, Deserialize)]
pub struct Message {
    v: u32,
    deletion: String,
    chunk: usize,
    generation: u32,
    requested_at: u64,
    fence: String,
    keys: Vec<String>,
}

fn is_key(key: &str) -> bool {
    (1..=1_024).contains(&key.len())
}

/// Takes a request and sends its keys.
///
/// # Errors
///
/// Whatever went wrong: the runtime answers 500.
#[event(fetch)]
pub async fn fetch(mut request: Request, env: Env, _context: Context) -> Result<Response> {
    let asked: Asked = request.json().await?;
    if !asked.object_keys.iter().all(|key| is_key(key)) {
        return Response::error("a key has 1 to 1,024 bytes", 422);
    }
    let mut seen = HashSet::new();
    let keys: Vec<String> = asked.object_keys.into_iter().filter(|key| seen.insert(key.clone())).collect();
    let chunks = keys.chunks(KEYS_PER_MESSAGE).enumerate().map(|(chunk, keys)| Message {
        v: 1,
        deletion: "del_01kaszq5m00000000000000000".to_owned(),
        chunk,
        generation: 0,
        requested_at: 0,
        fence: "auto".to_owned(),
        keys: keys.to_vec(),
    });
    env.queue("DELETIONS")?.send_batch(chunks.collect::<Vec<_>>()).await?;
    Ok(Response::ok("queued")?.with_status(202))
}

/// Deletes the keys of each message.
///
/// # Errors
///
/// Whatever went wrong: the runtime delivers the batch again.
#[event(queue)]
pub async fn queue(batch: MessageBatch<Message>, env: Env, _context: Context) -> Result<()> {
    let bucket = env.bucket("BUCKET")?;
    for message in batch.messages()? {
        let keys = &message.body().keys;
        if keys.iter().all(|key| is_key(key)) {
            bucket.delete_multiple(keys.clone()).await?;
        }
        message.ack();
    }
    Ok(())
}
