//! Clients: they ask until they are answered or give up, change their minds, and have failures sent again.

use std::cell::RefCell;
use std::rc::Rc;

use producer::{Ports, Request, ResponseBody};
use protocol::{State, rfc3339};
use serde_json::{Value, json};

use crate::bucket::Invocation;
use crate::counts::Count;
use crate::fault::Fault;
use crate::plant::Plant;
use crate::queue::SimQueue;
use crate::services::{NoAssets, NoLimiter, SimBody, SimHost};
use crate::sim::mortal;
use crate::workload::{Case, How, Token};
use crate::world::World;

/// A request.
pub(crate) fn request(method: &str, target: &str, token: Token, body: SimBody) -> Request<SimBody> {
    let token = match token {
        Token::Whole => crate::world::TOKEN,
        Token::Narrow => "narrow",
        Token::Reader => "reader",
    };
    Request {
        method: method.to_owned(),
        target: target.to_owned(),
        client_address: None,
        authorization: Some(format!("Bearer {token}")),
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

/// What is sent with a request.
enum Sent<'a> {
    Nothing,
    Json(&'a Value),
    Lines(&'a [String]),
}

async fn ask(
    world: &Rc<World>,
    token: Token,
    (method, target): (&str, &str),
    sent: Sent<'_>,
    key: Option<&str>,
) -> Answer {
    let sim = &world.sim;
    sim.sleep(sim.between(1, 60)).await;
    let is_lines = matches!(sent, Sent::Lines(_));
    let bytes = match sent {
        Sent::Nothing => Vec::new(),
        Sent::Json(body) => body.to_string().into_bytes(),
        Sent::Lines(keys) => {
            let lines: Vec<String> = keys.iter().map(|key| json!(key).to_string()).collect();
            lines.join("\n").into_bytes()
        }
    };
    // Without a length there must be room for the longest, and to find that takes longer than a whole schedule.
    let length = (sim.draw(fastrand::Rng::f64) < 0.95).then_some(bytes.len());
    let mut request = request(method, target, token, SimBody { sim: Some(Rc::clone(sim)), bytes });
    request.content_length = length;
    if is_lines {
        request.content_type = Some("application/x-ndjson".to_owned());
    }
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
        config: Ok(world.config.as_ref()),
    };
    let response = mortal(sim, life, producer::answer(request, &ports)).await;
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
    let id = match case.plan_of {
        None => begin(&world, &case, None).await,
        Some(dry_run) => match plan_of(&world, dry_run).await {
            Some(plan) => begin(&world, &case, Some(&plan)).await,
            None => None,
        },
    };
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

/// The id of a dry run, when it is over and has counted everything.
async fn plan_of(world: &Rc<World>, dry_run: usize) -> Option<String> {
    for _ in 0..20 {
        let id = world.oracle.cases.borrow().get(dry_run)?.progress.borrow().id.clone();
        if let Some(id) = id {
            match world.state_of(&id)? {
                State::Planned => return Some(id),
                State::Failed | State::Cancelled => return None,
                _ => {}
            }
        }
        world.sim.sleep(600_000).await;
    }
    None
}

/// Asks for the deletion until it is accepted: its id.
async fn begin(world: &Rc<World>, case: &Case, plan: Option<&str>) -> Option<String> {
    let is_lines = case.how == How::Lines && case.parts.is_empty();
    let body = if is_lines { Value::Null } else { case.body(plan) };
    let keys: Vec<String> = if is_lines { case.keys.iter().cloned().collect() } else { Vec::new() };
    let target = match case.how {
        How::Json => "/v1/deletions".to_owned(),
        How::Wait => "/".to_owned(),
        How::Lines if !case.parts.is_empty() => "/v1/deletions".to_owned(),
        How::Lines => format!("/v1/deletions{}", case.query()),
    };
    for _ in 0..case.tries {
        {
            let progress = &mut *case.progress.borrow_mut();
            (progress.requests, progress.is_in_flight) = (progress.requests + 1, true);
        }
        let sent = if is_lines { Sent::Lines(&keys) } else { Sent::Json(&body) };
        let answer = ask(world, case.token, ("POST", &target), sent, case.idempotency_key.as_deref()).await;
        {
            let progress = &mut *case.progress.borrow_mut();
            (progress.is_in_flight, progress.last_answered_at) = (false, world.sim.now());
        }
        if is_worth_another(&answer) {
            pause(world).await;
            continue;
        }
        if let Some((200, results)) = &answer
            && case.how == How::Wait
        {
            return see_results(world, case, results);
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
        if plan.is_some() {
            world.sim.count(Count::PlansCarriedOut);
        }
        if is_lines {
            world.sim.count(Count::AskedForInLines);
        }
        if case.keys.len() > 1_000 {
            world.sim.count(Count::AskedForMoreThanACall);
        }
        return Some(id);
    }
    None
}

/// What `POST /` says of each key: whether that is so. The deletion's id, if there can be only one.
fn see_results(world: &Rc<World>, case: &Case, results: &Value) -> Option<String> {
    world.sim.count(Count::WaitedFor);
    let results = results.get("results").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let objects = world.bucket.objects.borrow();
    let is_there = |key: &str| objects.get(key).is_some_and(|object| object.is_older_than(case.starts_at));
    for result in results {
        let key = result.get("key").and_then(Value::as_str).unwrap_or_default();
        let is_done = result.get("success").and_then(Value::as_bool) == Some(true);
        if is_done && is_there(key) && !case.dry_run {
            world
                .sim
                .violate(|| format!("case {}: {key:?} is said to be gone, and still there", case.number));
        }
    }
    if results.len() != case.keys.len() {
        let keys = results.len();
        world.sim.violate(|| format!("case {}: {keys} results for {} keys", case.number, case.keys.len()));
    }
    let (_, page) = world.read(&format!("/v1/deletions?label.case={}", case.number))?;
    let [view] = page.get("deletions")?.as_array()?.as_slice() else { return None };
    let id = view.get("id")?.as_str()?.to_owned();
    let requested_at = rfc3339::parse(view.get("requested_at")?.as_str()?)?;
    let progress = &mut *case.progress.borrow_mut();
    (progress.id, progress.requested_at) = (Some(id.clone()), Some(requested_at.as_millis()));
    Some(id)
}

/// Puts every part and seals: whether that has succeeded.
async fn put_parts(world: &Rc<World>, case: &Case, id: &str) -> bool {
    for (index, keys) in case.parts.iter().enumerate() {
        let target = format!("/v1/deletions/{id}/parts/{}", index + 1);
        let body = json!({ "objectKeys": keys });
        let lines = (case.how == How::Lines).then_some(keys.as_slice());
        let is_put = insist(world, case, "PUT", &target, &body, lines).await;
        case.progress.borrow_mut().parts_put.push(world.sim.now());
        if !is_put {
            return false;
        }
    }
    let seal = json!({ "parts": case.parts.len(), "total_keys": case.keys.len() });
    insist(world, case, "POST", &format!("/v1/deletions/{id}/seal"), &seal, None).await
}

/// Asks until the answer is 202, or there is none that is worth waiting for.
async fn insist(
    world: &Rc<World>,
    case: &Case,
    method: &str,
    target: &str,
    body: &Value,
    lines: Option<&[String]>,
) -> bool {
    for _ in 0..case.tries {
        let sent = lines.map_or(Sent::Json(body), Sent::Lines);
        let answer = ask(world, case.token, (method, target), sent, None).await;
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
        let answer =
            ask(world, case.token, ("POST", &format!("/v1/deletions/{id}/cancel")), Sent::Nothing, None)
                .await;
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

/// A redrive is about to be asked for, for the first time or once more: it can open a deletion that is over.
fn may_open_again(world: &World, case: &Case) {
    let id = case.progress.borrow().id.clone();
    let state = id.and_then(|id| world.state_of(&id));
    let progress = &mut *case.progress.borrow_mut();
    progress.closed_at = None;
    // A cancellation that came too late for every key is over with it, and one that is under way can come too late.
    if state != Some(State::Cancelled) {
        progress.cancelled_at = None;
    }
}

/// Has the failures sent again, if there are any.
pub(crate) async fn redrive(world: &Rc<World>, case: &Case, id: &str) {
    if world.state_of(id) != Some(State::Failed) {
        return;
    }
    case.progress.borrow_mut().redriving += 1;
    let is_at_work =
        |invocation: &Rc<Invocation>| invocation.chunks.iter().any(|(chunk, _)| chunk.deletion == id);
    let was_at_work = world.queue.invocations.borrow().iter().any(is_at_work);
    let mut is_unsure = true;
    for _ in 0..4 {
        may_open_again(world, case);
        let answer =
            ask(world, Token::Whole, ("POST", &format!("/v1/deletions/{id}/redrive")), Sent::Nothing, None)
                .await;
        match &answer {
            Some((status @ (200 | 202), _)) => {
                is_unsure = false;
                if *status == 202 {
                    world.sim.count(Count::Redrives);
                    world.sim.count_many(Count::RedrivesDuringDelivery, was_at_work.into());
                }
            }
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
        progress.redriving -= 1;
        progress.is_redrive_unsure |= is_unsure;
    }
    world.look();
}

/// Has the failures of all deletions sent again.
pub(crate) async fn redrive_all(world: Rc<World>, at: u64) {
    world.sim.sleep(at - world.sim.now()).await;
    let cases = world.oracle.cases.borrow().clone();
    for case in &cases {
        case.progress.borrow_mut().redriving += 1;
    }
    // What one request has begun and not sent, the next sends, as soon as the one cannot be at it any longer.
    let mut is_unsure = true;
    for _ in 0..8 {
        for case in &cases {
            may_open_again(&world, case);
        }
        let answer = ask(&world, Token::Whole, ("POST", "/v1/redrives"), Sent::Json(&json!({})), None).await;
        if is_worth_another(&answer) {
            pause(&world).await;
            continue;
        }
        match answer {
            Some((202, view)) => {
                let keys = view.get("keys").and_then(Value::as_u64).unwrap_or_default();
                world.sim.count_many(Count::RedrivesOfAll, u64::from(keys > 0));
                is_unsure = view.get("more") != Some(&Value::Bool(false));
                if is_unsure {
                    pause(&world).await;
                    continue;
                }
            }
            answer => world.sim.violate(|| format!("a redrive of all is answered with {answer:?}")),
        }
        break;
    }
    for case in &cases {
        let progress = &mut *case.progress.borrow_mut();
        progress.redriving -= 1;
        progress.is_redrive_unsure |= is_unsure;
    }
    world.look();
}

/// Tries what the token does not allow: it is refused, and whatever is deleted all the same, the oracle sees.
pub(crate) async fn trespass(world: Rc<World>, at: u64) {
    world.sim.sleep(at - world.sim.now()).await;
    let foreign = {
        let cases = world.oracle.cases.borrow();
        let own = cases.iter().find(|case| case.token == Token::Whole);
        own.and_then(|case| case.progress.borrow().id.clone())
    };
    let body = json!({ "objectKeys": ["a/0", crate::workload::BYSTANDER] });
    let sweep = json!({ "prefixes": ["a/"] });
    let (token, method, target, sent) = match (world.sim.between(0, 4), foreign) {
        (0, Some(id)) => (Token::Narrow, "POST", format!("/v1/deletions/{id}/cancel"), Sent::Nothing),
        (1, Some(id)) => (Token::Narrow, "POST", format!("/v1/deletions/{id}/redrive"), Sent::Nothing),
        (2, Some(id)) => (Token::Reader, "GET", format!("/v1/deletions/{id}/failures"), Sent::Nothing),
        (3, _) => (Token::Narrow, "POST", "/v1/deletions".to_owned(), Sent::Json(&sweep)),
        (4, _) => (Token::Reader, "POST", "/v1/deletions".to_owned(), Sent::Json(&body)),
        _ => (Token::Narrow, "POST", "/v1/deletions".to_owned(), Sent::Json(&body)),
    };
    match ask(&world, token, (method, &target), sent, None).await {
        Some((403 | 404, _)) => world.sim.count(Count::Trespasses),
        Some((status @ 200..300, _)) => {
            world.sim.violate(|| format!("stray: {method} {target} by {token:?} is answered with {status}"));
        }
        _ => {}
    }
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
        config: Ok(world.config.as_ref()),
    };
    let request = request("GET", target, Token::Whole, SimBody { sim: None, bytes: Vec::new() });
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
