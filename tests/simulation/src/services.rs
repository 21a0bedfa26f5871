//! What the Workers stand on, simulated: the machine, the rate limit, the files, the endpoint.

use std::rc::Rc;

use consumer::{Endpoint, Webhook};
use producer::{Assets, BodyError, RateLimiter};
use protocol::{Event, Log, Timestamp};

use crate::counts::{Call, Count};
use crate::fault::Fault;
use crate::sim::Sim;
use crate::world::World;

/// The machine that an invocation runs on.
pub(crate) struct SimHost {
    pub(crate) world: Rc<World>,
}

impl Log for SimHost {
    fn emit(&self, event: &Event<'_>) {
        self.world.sim.note(|| format!("log: {}", event.to_json()));
        if let Event::DeletionFinished { deletion, generation, .. } = event {
            self.world.oracle.finished_event(deletion.as_str(), *generation, &self.world.sim);
        }
    }
}

impl consumer::Host for SimHost {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.world.sim.now())
    }

    fn random(&self) -> f64 {
        self.world.sim.draw(fastrand::Rng::f64)
    }

    fn token(&self) -> String {
        self.world.sim.next_number().to_string()
    }

    async fn sleep(&self, millis: u64) {
        self.world.sim.sleep(millis).await;
    }
}

impl producer::Host for SimHost {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.world.sim.now())
    }

    fn random(&self) -> u128 {
        self.world.sim.draw(|rng| rng.u128(..))
    }

    async fn sleep(&self, millis: u64) {
        self.world.sim.sleep(millis).await;
    }
}

pub(crate) struct NoLimiter;

impl RateLimiter for NoLimiter {
    async fn admit(&self, _key: &str) -> Result<bool, String> {
        Ok(true)
    }
}

pub(crate) struct NoAssets;

impl Assets for NoAssets {
    async fn read(&self, _path: &str) -> Result<String, String> {
        Err("no file is deployed".to_owned())
    }
}

/// A body that comes in pieces.
pub(crate) struct SimBody {
    pub(crate) sim: Option<Rc<Sim>>,
    pub(crate) bytes: Vec<u8>,
}

impl producer::Body for SimBody {
    async fn read(&mut self, buffer: &mut Vec<u8>, room: usize) -> Result<bool, BodyError> {
        if let Some(sim) = &self.sim {
            sim.sleep(sim.between(1, 20)).await;
        }
        let rest = self.bytes.split_off(self.bytes.len().min(40_000));
        let next = std::mem::replace(&mut self.bytes, rest);
        if next.len() > room {
            return Err(BodyError::TooLarge);
        }
        buffer.extend_from_slice(&next);
        Ok(!next.is_empty())
    }
}

/// The operator's endpoint.
pub(crate) struct SimEndpoint {
    pub(crate) world: Rc<World>,
}

impl Endpoint for SimEndpoint {
    async fn post(&self, webhook: &Webhook<'_>) -> Option<u16> {
        let sim = &self.world.sim;
        let within = sim.enter(Call::Post);
        sim.sleep(sim.between(1, 300)).await;
        let fails = sim.fails(Fault::EndpointFails);
        match if fails { sim.between(0, 3) } else { 9 } {
            0 => return None,
            1 => return Some(500),
            2 => {
                sim.sleep(60_000).await;
                return None;
            }
            // It takes the notice, and its answer is lost.
            _ => {}
        }
        let told: serde_json::Value = serde_json::from_str(&webhook.body).unwrap_or_default();
        within.take_effect();
        sim.count(Count::Notices);
        self.world.oracle.noticed(told.pointer("/data/id").and_then(|id| id.as_str()).unwrap_or_default());
        sim.sleep(sim.between(1, 300)).await;
        if fails { None } else { Some(204) }
    }
}
