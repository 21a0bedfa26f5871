//! The Queue: at least once, in no order, and dead letters after twenty retries.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use consumer::{Body, Delivery, Notices, Settlement, handle};
use futures::future::{Either, select};
use protocol::limits::{CONSUMER_WALL_SECONDS, MESSAGE_BODY_BYTES_MAX, SEND_BYTES_MAX, SEND_MESSAGES_MAX};
use protocol::{ChunkMessage, ChunkRef, QueueError, RETRIES_MAX, Timestamp};

use crate::Mode;
use crate::bucket::{GivenChunk, Invocation, SimBucket};
use crate::client::redrive;
use crate::counts::{Call, Count};
use crate::fault::Fault;
use crate::plant::Plant;
use crate::services::{SimEndpoint, SimHost};
use crate::sim::{Sim, mortal};
use crate::world::World;

/// Most messages of a batch, as `wrangler.consumer.toml` has it.
const BATCH_MAX: usize = 6;

/// How often the dead-letter queue delivers a message again, as `wrangler.consumer.toml` has it.
const DEAD_LETTER_RETRIES_MAX: u32 = 100;

/// How long a queue keeps a message: the shortest that there is.
const RETENTION_MS: u64 = protocol::limits::RETENTION_SECONDS_MIN as u64 * 1_000;

#[derive(Clone)]
pub(crate) struct Message {
    id: u64,
    body: Rc<str>,
    attempts: u32,
    sent_at: u64,
    is_dead_letter: bool,
    /// What of it the oracle knows.
    chunk: Option<Rc<GivenChunk>>,
}

impl Message {
    fn new(sim: &Sim, body: &str) -> Self {
        Self {
            id: sim.next_number(),
            body: Rc::from(body),
            attempts: 0,
            sent_at: sim.now(),
            is_dead_letter: false,
            chunk: chunk_of(body).map(Rc::new),
        }
    }
}

#[derive(Default)]
pub(crate) struct QueueState {
    ready: RefCell<Vec<Message>>,
    dead_ready: RefCell<Vec<Message>>,
    is_flushing: Cell<bool>,
    /// The invocations under way.
    pub(crate) invocations: RefCell<Vec<Rc<Invocation>>>,
}

/// Stores a message: it is delivered some time after the delay.
fn store(world: &Rc<World>, message: Message, delay_ms: u64) {
    let world = Rc::clone(world);
    let sim = Rc::clone(&world.sim);
    let late = if sim.fails(Fault::Late) { sim.between(1_000, 4 * 3_600_000) } else { 0 };
    let is_lost = sim.fails(Fault::MessageLost);
    if message.attempts == 0 && sim.fails(Fault::Duplicate) {
        let twin = message.clone();
        let (world, sim) = (Rc::clone(&world), Rc::clone(&sim));
        // At once, soon, or when everything is over.
        let later = sim.draw(|rng| *rng.choice(&[300, 2_000, 30_000, 7_200_000]).unwrap_or(&300));
        let wait = delay_ms + sim.between(1, later);
        sim.clone().spawn(async move {
            sim.sleep(wait).await;
            arrive(&world, twin);
        });
    }
    if is_lost {
        world.sim.count(Count::MessagesLost);
        return;
    }
    sim.clone().spawn(async move {
        sim.sleep(delay_ms + late + sim.between(1, 200)).await;
        arrive(&world, message);
    });
}

fn arrive(world: &Rc<World>, message: Message) {
    if world.mode == Mode::SelfHealing && world.sim.now() - message.sent_at > RETENTION_MS {
        world.sim.happened(Fault::MessageLost);
        world.sim.count(Count::MessagesLost);
        return;
    }
    let ready = if message.is_dead_letter { &world.queue.dead_ready } else { &world.queue.ready };
    ready.borrow_mut().push(message);
    if !world.queue.is_flushing.replace(true) {
        let world = Rc::clone(world);
        world.sim.clone().spawn(async move {
            world.sim.sleep(world.sim.between(1, 400)).await;
            world.queue.is_flushing.set(false);
            for ready in [&world.queue.ready, &world.queue.dead_ready] {
                let mut ready = ready.take();
                world.sim.draw(|rng| rng.shuffle(&mut ready));
                while !ready.is_empty() {
                    let size = world.sim.draw(|rng| rng.usize(1..=BATCH_MAX)).min(ready.len());
                    let rest = ready.split_off(size);
                    let batch = std::mem::replace(&mut ready, rest);
                    let deliver = deliver(Rc::clone(&world), batch);
                    world.sim.spawn(deliver);
                }
            }
        });
    }
}

/// One invocation of the consumer.
async fn deliver(world: Rc<World>, mut batch: Vec<Message>) {
    let sim = Rc::clone(&world.sim);
    let is_dead_letter = batch.first().is_some_and(|message| message.is_dead_letter);
    for message in &mut batch {
        message.attempts += 1;
    }
    sim.count_many(Count::MessagesDelivered, batch.len() as u64);
    let invocation = Rc::new(Invocation::new(
        &sim,
        batch.iter().filter_map(|message| Some((Rc::clone(message.chunk.as_ref()?), message.attempts))),
    ));
    sim.note(|| {
        format!("invocation {}: {} messages, dead letters: {is_dead_letter}", invocation.id, batch.len())
    });
    let is_over = |chunk: &(Rc<GivenChunk>, u32)| world.oracle.is_over(&chunk.0.deletion);
    let late = invocation.chunks.iter().filter(|chunk| is_over(chunk)).count();
    sim.count_many(Count::DeliveriesAfterTheEnd, late as u64);
    // Somebody who has failures sent again while an old message is at work.
    if late > 0 && sim.draw(fastrand::Rng::f64) < 0.2 {
        let (world, invocation) = (Rc::clone(&world), Rc::clone(&invocation));
        sim.spawn(async move {
            world.sim.sleep(world.sim.between(0, 200)).await;
            for (chunk, _) in &invocation.chunks {
                if let Some(case) = world.oracle.case_of(&chunk.deletion) {
                    redrive(&world, &case, &chunk.deletion).await;
                }
            }
        });
    }
    if is_dead_letter && world.plant == Some(Plant::ForgetsDeadLetters) {
        return;
    }
    world.queue.invocations.borrow_mut().push(Rc::clone(&invocation));
    let forgets = world.plant == Some(Plant::FenceForgetsAttempts);
    let deliveries: Vec<Delivery> = batch
        .iter()
        .map(|message| Delivery {
            message_id: format!("m{}", message.id),
            attempts: if forgets { 1 } else { message.attempts },
            sent_at: Timestamp::from_millis(message.sent_at),
            body: Body::Text(message.body.to_string()),
        })
        .collect();
    let life = sim.fails(Fault::ConsumerDies).then(|| {
        let most = if sim.draw_fault(fastrand::Rng::bool) { 12 } else { 100 };
        sim.draw_fault(|rng| rng.u32(0..most))
    });
    let (bucket, queue) = (SimBucket::new(&world, &invocation), SimQueue::of_consumer(&world));
    let (host, endpoint) = (SimHost { world: Rc::clone(&world) }, SimEndpoint { world: Rc::clone(&world) });
    let notices = Notices { config: Ok(world.notices.as_ref()), queue: &queue, endpoint: &endpoint };
    let name = if is_dead_letter { "r2-deletions-dlq" } else { "r2-deletions" };
    let handled = {
        let work = Box::pin(handle(name, &deliveries, &bucket, &world.ledger, &notices, &host));
        let limit = sim.sleep(u64::from(CONSUMER_WALL_SECONDS) * 1_000);
        match mortal(&sim, life, select(work, limit)).await {
            Some(Either::Left((settlements, _))) => Some(settlements),
            _ => None,
        }
    };
    world.queue.invocations.borrow_mut().retain(|other| other.id != invocation.id);
    world.look_now_and_then();

    let garbage = batch.iter().any(|message| is_garbage(&message.body));
    for (index, message) in batch.into_iter().enumerate() {
        let delay_ms = match handled.as_ref().map(|settlements| settlements.of(index)) {
            Some(Settlement::Acknowledge(_)) if sim.fails(Fault::AckLost) => sim.between(1, 900_000),
            Some(Settlement::Acknowledge(_)) => continue,
            Some(Settlement::Retry { delay_seconds }) => {
                if !(1..=43_200).contains(delay_seconds) {
                    sim.violate(|| format!("a delay of {delay_seconds} s"));
                }
                u64::from(*delay_seconds) * 1_000
            }
            None => sim.between(1, 60_000),
        };
        match world.plant {
            Some(Plant::AcknowledgesFirst) => continue,
            Some(Plant::AcknowledgesOnError) if handled.is_some() => continue,
            Some(Plant::AcknowledgesTheBatchOfGarbage) if garbage => continue,
            _ => {}
        }
        retry(&world, message, delay_ms);
    }
}

fn is_garbage(body: &str) -> bool {
    !body.starts_with("{\"v\":1")
}

fn retry(world: &Rc<World>, mut message: Message, delay_ms: u64) {
    let retries = if message.is_dead_letter { DEAD_LETTER_RETRIES_MAX } else { RETRIES_MAX };
    if message.attempts <= retries {
        return store(world, message, delay_ms);
    }
    if message.is_dead_letter {
        world.sim.count(Count::MessagesLost);
        return;
    }
    world.sim.count(Count::DeadLetters);
    world.sim.note(|| format!("message {} becomes a dead letter", message.id));
    (message.attempts, message.is_dead_letter) = (0, true);
    store(world, message, 0);
}

/// The Queue as a Worker sends to it.
pub(crate) struct SimQueue {
    world: Rc<World>,
    is_consumers: bool,
}

impl SimQueue {
    pub(crate) fn of_consumer(world: &Rc<World>) -> Self {
        Self { world: Rc::clone(world), is_consumers: true }
    }

    pub(crate) fn of_producer(world: &Rc<World>) -> Self {
        Self { world: Rc::clone(world), is_consumers: false }
    }

    async fn store(&self, bodies: Vec<String>, delay_seconds: u32) -> Result<(), QueueError> {
        let (world, sim) = (&self.world, &self.world.sim);
        check_limits(&bodies, delay_seconds, world);
        let within = sim.enter(Call::Send);
        sim.sleep(sim.between(1, 100)).await;
        let plants_success = !self.is_consumers && world.plant == Some(Plant::AcceptsPartialSends);
        let code = |sim: &Sim| sim.draw_fault(|rng| *rng.choice(&[10250, 10251, 0]).unwrap_or(&0));
        let failed = |code| if plants_success { Ok(()) } else { Err(QueueError { code }) };
        if sim.fails(Fault::QueueRefuses) {
            sim.sleep(sim.between(1, 100)).await;
            return failed(code(sim));
        }
        let unsure = sim.fails(Fault::QueueUnsure);
        for body in bodies {
            if unsure && sim.draw_fault(fastrand::Rng::bool) {
                continue;
            }
            let Some(body) = self.planted(body) else { continue };
            store(world, Message::new(sim, &body), u64::from(delay_seconds) * 1_000);
        }
        if sim.fails(Fault::Garbage) {
            let texts = ["half a mess", "{}", "{\"v\":1}", "{\"v\":2,\"keys\":[]}", "[]"];
            let text = sim.draw_fault(|rng| *rng.choice(&texts).unwrap_or(&""));
            store(world, Message::new(sim, text), 0);
        }
        within.take_effect();
        sim.sleep(sim.between(1, 100)).await;
        if unsure { failed(code(sim)) } else { Ok(()) }
    }

    fn planted(&self, body: String) -> Option<String> {
        match self.world.plant {
            Some(Plant::DropsHandOns) if self.is_consumers && body.contains("\"sweep\"") => None,
            Some(plant @ (Plant::DropsTheLastKey | Plant::NamesAnotherKey)) if body.contains("\"keys\"") => {
                let mut message: serde_json::Value = serde_json::from_str(&body).ok()?;
                let keys = message.get_mut("keys")?.as_array_mut()?;
                if plant == Plant::NamesAnotherKey {
                    *keys.last_mut()? = crate::workload::BYSTANDER.into();
                } else if keys.len() > 1 {
                    keys.pop();
                }
                Some(message.to_string())
            }
            _ => Some(body),
        }
    }
}

/// Which no simulator of the platform enforces.
fn check_limits(bodies: &[String], delay_seconds: u32, world: &World) {
    let bytes: usize = bodies.iter().map(|body| body.len() + 100).sum();
    let longest = bodies.iter().map(String::len).max().unwrap_or_default();
    if bodies.is_empty()
        || bodies.len() > SEND_MESSAGES_MAX
        || bytes > SEND_BYTES_MAX
        || longest > MESSAGE_BODY_BYTES_MAX
        || delay_seconds > 86_400
    {
        let messages = bodies.len();
        world.sim.violate(|| format!("a send of {messages} messages, {bytes} bytes, {delay_seconds} s"));
    }
}

impl consumer::Queue for SimQueue {
    async fn send(&self, bodies: Vec<String>, delay_seconds: u32) -> Result<(), QueueError> {
        self.store(bodies, delay_seconds).await
    }
}

impl producer::Queue for SimQueue {
    async fn send(&self, bodies: Vec<String>, delay_seconds: u32) -> Result<(), QueueError> {
        self.store(bodies, delay_seconds).await
    }

    async fn ping(&self) -> Result<(), String> {
        Ok(())
    }
}

fn chunk_of(body: &str) -> Option<GivenChunk> {
    // A sweep's message or a notice's fails too, and slower.
    if body.starts_with("{\"v\":1,\"sweep\"") || body.starts_with("{\"v\":1,\"notice\"") {
        return None;
    }
    let message = ChunkMessage::from_json(body).ok()?;
    let keys = message.keys.iter().map(|key| key.as_str().to_owned()).collect();
    let ChunkRef { deletion, generation, .. } = message.chunk;
    Some(GivenChunk { deletion: deletion.to_string(), generation, keys })
}
