//! Clients: they ask until they are answered or give up, change their minds, and have failures sent again.

use std::cell::RefCell;
use std::rc::Rc;

use producer::{Ports, Request, ResponseBody};
use protocol::rfc3339;
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::plant::Plant;
use crate::queue::SimQueue;
use crate::services::{NoAssets, NoLimiter, SimBody, SimHost};
use crate::sim::mortal;
use crate::workload::Case;
use crate::world::World;

/// A request, with the one token that there is.
pub(crate) fn request(method: &str, target: &str, body: SimBody) -> Request<SimBody> {
    Request {
        method: method.to_owned(),
        target: target.to_owned(),
        client_address: None,
        authorization: Some(format!("Bearer {}", crate::world::TOKEN)),
        content_type: Some("application/json".to_owned()),
        content_length: None,
        content_encoding: None,
        idempotency_key: None,
        accept: None,
        body,
    }
}

/// The answer to a request, as far as it reaches the client: status and body.
type Answer = Option<(u16, Value)>;

async fn ask(
    world: &Rc<World>,
    method: &str,
    target: &str,
    body: Option<Value>,
    key: Option<&str>,
) -> Answer {
    let sim = &world.sim;
    sim.sleep(sim.between(1, 60)).await;
    let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    let mut request = request(method, target, SimBody { sim: Some(Rc::clone(sim)), bytes });
    if world.plant != Some(Plant::IgnoresIdempotencyKeys) {
        request.idempotency_key = key.map(str::to_owned);
    }
    let life = sim.fails(Fault::ProducerDies).then(|| sim.draw_fault(|rng| rng.u32(0..25)));
    let (queue, host) = (SimQueue::of_producer(world), SimHost { world: Rc::clone(world) });
    let ports = Ports {
        ledger: &world.ledger,
        queue: &queue,
        limiter: &NoLimiter,
        assets: &NoAssets,
        host: &host,
        memory: &world.memory,
        config: Ok(&world.config),
    };
    let response = mortal(life, producer::answer(request, &ports)).await;
    world.look_now_and_then();
    let response = response?;
    sim.note(|| format!("{method} {target}: {}", response.status));
    if sim.fails(Fault::AnswerLost) {
        return None;
    }
    let ResponseBody::Text(text) = response.body else { return None };
    Some((response.status, serde_json::from_str(&text).unwrap_or_default()))
}

fn is_worth_another(answer: &Answer) -> bool {
    match answer {
        None | Some((408 | 429 | 503, _)) => true,
        Some((409, problem)) => problem.get("code").and_then(Value::as_str) == Some("request_in_progress"),
        Some(_) => false,
    }
}

async fn pause(world: &World) {
    world.sim.sleep(world.sim.between(500, 90_000)).await;
}

/// One client, from its first request to its last.
pub(crate) async fn client(world: Rc<World>, case: Rc<Case>) {
    world.sim.sleep(case.starts_at - world.sim.now()).await;
    let id = begin(&world, &case).await;
    if let Some(id) = &id {
        if let Some(wait) = case.cancels_after {
            case.progress.borrow_mut().may_be_cancelled = true;
            let (world, case, id) = (Rc::clone(&world), Rc::clone(&case), id.clone());
            world.sim.clone().spawn(async move {
                world.sim.sleep(wait).await;
                cancel(&world, &case, &id).await;
            });
        }
        let is_whole = case.parts.is_empty() || put_parts(&world, &case, id).await;
        case.progress.borrow_mut().is_accepted = is_whole;
    }
    case.progress.borrow_mut().is_sent = true;
    world.look();
    if let Some(id) = id {
        for &wait in &case.redrives_after {
            world.sim.sleep(wait).await;
            redrive(&world, &case, &id).await;
        }
    }
}

/// Asks for the deletion until it is accepted: its id.
async fn begin(world: &Rc<World>, case: &Case) -> Option<String> {
    for _ in 0..case.tries {
        {
            let progress = &mut *case.progress.borrow_mut();
            (progress.requests, progress.is_in_flight) = (progress.requests + 1, true);
        }
        let answer =
            ask(world, "POST", "/v1/deletions", Some(case.body()), case.idempotency_key.as_deref()).await;
        {
            let progress = &mut *case.progress.borrow_mut();
            (progress.is_in_flight, progress.last_answered_at) = (false, world.sim.now());
        }
        if is_worth_another(&answer) {
            pause(world).await;
            continue;
        }
        let text = |name: &str| answer.as_ref()?.1.get(name)?.as_str().map(str::to_owned);
        let requested_at = text("requested_at").as_deref().and_then(rfc3339::parse);
        let (Some((202, view)), Some(id), Some(at)) = (&answer, text("id"), requested_at) else {
            world.sim.violate(|| format!("case {}: a request is answered with {answer:?}", case.number));
            return None;
        };
        let progress = &mut *case.progress.borrow_mut();
        (progress.id, progress.requested_at) = (Some(id.clone()), Some(at.as_millis()));
        world.oracle.see_answer(view, world);
        return Some(id);
    }
    None
}

/// Puts every part and seals: whether that has succeeded.
async fn put_parts(world: &Rc<World>, case: &Case, id: &str) -> bool {
    for (index, keys) in case.parts.iter().enumerate() {
        let target = format!("/v1/deletions/{id}/parts/{}", index + 1);
        if !insist(world, case, "PUT", &target, json!({ "objectKeys": keys })).await {
            return false;
        }
    }
    let seal = json!({ "parts": case.parts.len(), "total_keys": case.keys.len() });
    insist(world, case, "POST", &format!("/v1/deletions/{id}/seal"), seal).await
}

/// Asks until the answer is 202, or there is none that is worth waiting for.
async fn insist(world: &Rc<World>, case: &Case, method: &str, target: &str, body: Value) -> bool {
    for _ in 0..case.tries {
        let answer = ask(world, method, target, Some(body.clone()), None).await;
        if is_worth_another(&answer) {
            pause(world).await;
            continue;
        }
        let is_accepted = matches!(answer, Some((202, _)));
        let may_be_refused = case.progress.borrow().may_be_cancelled;
        if !is_accepted && !may_be_refused {
            world
                .sim
                .violate(|| format!("case {}: {method} {target} is answered with {answer:?}", case.number));
        }
        return is_accepted;
    }
    false
}

async fn cancel(world: &Rc<World>, case: &Case, id: &str) {
    for _ in 0..case.tries {
        let answer = ask(world, "POST", &format!("/v1/deletions/{id}/cancel"), None, None).await;
        if let Some((200, view)) = &answer {
            let state = view.get("state").and_then(Value::as_str).unwrap_or_default();
            match state {
                "cancelled" | "cancelling" => {
                    case.progress.borrow_mut().cancelled_at.get_or_insert_with(|| world.sim.now());
                }
                "succeeded" | "failed" | "planned" => {}
                _ => world.sim.violate(|| format!("{id}: cancelled, and {state}")),
            }
            world.oracle.see_answer(view, world);
            return;
        }
        if !is_worth_another(&answer) {
            world.sim.violate(|| format!("{id}: a cancellation is answered with {answer:?}"));
        }
        pause(world).await;
    }
}

/// Has the failures sent again, if there are any.
async fn redrive(world: &Rc<World>, case: &Case, id: &str) {
    let Some((200, view)) = world.read(&format!("/v1/deletions/{id}")) else { return };
    if view.get("state").and_then(Value::as_str) != Some("failed") {
        return;
    }
    {
        let progress = &mut *case.progress.borrow_mut();
        // A cancellation that came too late for every key is over too.
        (progress.is_redriving, progress.closed_at, progress.cancelled_at) = (true, None, None);
    }
    let mut is_unsure = true;
    for _ in 0..4 {
        let answer = ask(world, "POST", &format!("/v1/deletions/{id}/redrive"), None, None).await;
        match &answer {
            Some((200 | 202, _)) => is_unsure = false,
            answer if is_worth_another(answer) => {
                pause(world).await;
                continue;
            }
            Some((409, _)) => {}
            answer => world.sim.violate(|| format!("{id}: a redrive is answered with {answer:?}")),
        }
        break;
    }
    {
        let progress = &mut *case.progress.borrow_mut();
        progress.is_redriving = false;
        progress.is_redrive_unsure |= is_unsure;
    }
    world.look();
}

/// What somebody who only looks is answered: at once, and without faults.
pub(crate) fn read(world: &World, host: &impl producer::Host, target: &str) -> Answer {
    use futures::FutureExt as _;
    struct NoQueue;
    impl producer::Queue for NoQueue {
        async fn send(&self, _: Vec<String>, _: u32) -> Result<(), protocol::QueueError> {
            Ok(())
        }
        async fn ping(&self) -> Result<(), String> {
            Ok(())
        }
    }
    let ports = Ports {
        ledger: &world.direct,
        queue: &NoQueue,
        limiter: &NoLimiter,
        assets: &NoAssets,
        host,
        memory: &world.memory,
        config: Ok(&world.config),
    };
    let request = request("GET", target, SimBody { sim: None, bytes: Vec::new() });
    let response = producer::answer(request, &ports).now_or_never()?;
    let ResponseBody::Text(text) = response.body else { return None };
    Some((response.status, serde_json::from_str(&text).unwrap_or_default()))
}

/// A machine for who only looks.
pub(crate) struct LookingHost<'a> {
    pub(crate) world: &'a World,
    pub(crate) drawn: RefCell<u128>,
}

impl protocol::Log for LookingHost<'_> {
    fn emit(&self, _event: &protocol::Event<'_>) {}
}

impl producer::Host for LookingHost<'_> {
    fn now(&self) -> protocol::Timestamp {
        protocol::Timestamp::from_millis(self.world.sim.now())
    }

    fn random(&self) -> u128 {
        *self.drawn.borrow_mut() += 1;
        *self.drawn.borrow()
    }

    async fn sleep(&self, _millis: u64) {}
}
