//! Delivering what the queues hold, until they hold nothing.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::delivery::{Decision, Delivered, Dispatcher};
use crate::gate::Gate;
use crate::pair::{Pair, QUEUE};
use crate::queue::Message;
use crate::wait::{Deadline, until};

/// How long a pair may take to become idle.
const PATIENCE: Duration = Duration::from_mins(3);
/// Deliveries at the same time.
const CONCURRENCY: usize = 4;

impl Pair {
    /// Takes a batch from the queue, delivers it and settles it with the broker.
    ///
    /// # Errors
    /// When it cannot be delivered.
    pub fn deliver_once(&self, queue: &str) -> Result<(Vec<Message>, Delivered)> {
        let batch = self.queue.take(queue, self.queue.settings(queue).max_batch_size);
        let delivered = self.dispatcher()?.deliver(queue, &batch)?;
        self.queue.settle(queue, &batch, &delivered);
        Ok((batch, delivered))
    }

    /// Delivers a batch of the queue and kills the runtime as soon as a call waits at the gate; then opens the gate, so
    /// that the service finishes what the dead had asked for, and starts the runtime again. The broker has heard
    /// nothing of the batch and will deliver it again.
    ///
    /// Says whether there was a kill: a delivery that ends without coming to the gate is settled as any other.
    ///
    /// # Errors
    /// When the delivery neither ends nor comes to the gate, or the runtime answers although it is dead.
    pub fn kill_at(&mut self, gate: &Gate, queue: &str) -> Result<bool> {
        let batch = self.queue.take(queue, self.queue.settings(queue).max_batch_size);
        let (dispatcher, delivered) = (self.dispatcher()?, (queue.to_owned(), batch.clone()));
        let (killed, delivered) =
            self.kill_during(gate, move || dispatcher.deliver(&delivered.0, &delivered.1))?;
        let delivered = delivered?;
        ensure!(killed == delivered.lost(), "killed: {killed}, but the answer is {delivered:?}");
        self.queue.settle(queue, &batch, &delivered);
        if killed {
            self.workerd.restart()?;
        }
        Ok(killed)
    }

    /// Sets off the cron trigger, and kills the runtime as soon as a call waits at the gate, as [`Pair::kill_at`] does.
    ///
    /// # Errors
    /// As [`Pair::kill_at`]; and when the trigger fails although nobody was killed.
    pub fn kill_cron_at(&mut self, gate: &Gate) -> Result<bool> {
        let dispatcher = self.dispatcher()?;
        let (killed, done) = self.kill_during(gate, move || dispatcher.cron())?;
        let may_fail = killed || self.has_traps();
        ensure!(may_fail || done.is_ok(), "the cron trigger: {done:?}");
        if killed {
            self.workerd.restart()?;
        }
        Ok(killed)
    }

    /// Replaces the process by another one of the same, as a deployment does: the second serves while the first has a delivery
    /// still, and the first ends in it, at the gate if it comes there. A process that is killed (SIGKILL) decides nothing any
    /// more; one that is asked to end (SIGTERM) may finish.
    ///
    /// # Errors
    /// When the second does not start, or the first does not end.
    pub fn replace(&mut self, gate: &Gate, is_killed: bool) -> Result<()> {
        let successor = self.start_beside(&[])?;
        let max = self.queue.settings(QUEUE).max_batch_size;
        let deliver = |dispatcher: Dispatcher| {
            let batch = self.queue.take(QUEUE, max);
            let given = batch.clone();
            (batch, thread::spawn(move || dispatcher.deliver(QUEUE, &given)))
        };
        let first = deliver(self.dispatcher()?);
        let second = deliver(Dispatcher::new(successor.address("dispatcher")?));
        let arrived = until("a call at the gate", PATIENCE, || {
            Ok((gate.arrivals() > 0 || (first.1.is_finished() && second.1.is_finished())).then_some(()))
        });
        let ended =
            arrived.and_then(|()| if is_killed { self.workerd.kill() } else { self.workerd.terminate() });
        gate.open();
        for (batch, delivery) in [first, second] {
            let Ok(delivered) = delivery.join() else { bail!("a delivery panicked") };
            self.queue.settle(QUEUE, &batch, &delivered?);
        }
        ended.and_then(|()| self.workerd.wait())?;
        self.finish_calls()?;
        self.succeed(successor)
    }

    /// Does `work` in a thread and kills the runtime as soon as a call waits at the gate, which is opened then. Says whether
    /// there was a kill, and what came of the work.
    pub(crate) fn kill_during<T: Send + 'static>(
        &mut self,
        gate: &Gate,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(bool, T)> {
        let work = thread::spawn(work);
        let arrived = until("a call at the gate", PATIENCE, || {
            Ok((gate.arrivals() > 0 || work.is_finished()).then(|| gate.arrivals() > 0))
        });
        let killed =
            arrived.and_then(|arrived| if arrived { self.workerd.kill().map(|()| true) } else { Ok(false) });
        gate.open();
        let Ok(done) = work.join() else { bail!("it panicked") };
        self.finish_calls()?;
        Ok((killed?, done))
    }

    /// Waits until the services have carried out what the dead had asked for: what R2 carries out later than that nobody can
    /// prevent (`docs/reliability.md`, "The model").
    fn finish_calls(&self) -> Result<()> {
        // A call that the dead had sent may not have been read yet.
        let mut idle = 0;
        until("the services to finish", PATIENCE, || {
            let is_busy = self.bucket.is_busy() || self.database.is_busy() || self.queue.is_busy();
            idle = if is_busy { 0 } else { idle + 1 };
            Ok((idle == 4).then_some(()))
        })
    }

    /// Delivers until no queue holds a message, several batches at a time; delays are skipped, not waited for.
    ///
    /// # Errors
    /// When that takes too long, or the consumer leaves a message undecided or asks for a delay out of bounds.
    pub fn settle(&self) -> Result<()> {
        let dispatcher = self.dispatcher()?;
        let deadline = Deadline::after(PATIENCE);
        while let Some(idle) = self.queue.idle_for() {
            ensure!(!deadline.passed(), "not idle after {PATIENCE:?}; workerd said:\n{}", self.log());
            if !idle.is_zero() {
                self.clock.skip(idle);
            }
            self.deliver_ready(&dispatcher)?;
        }
        Ok(())
    }

    /// Delivers what is due, up to [`CONCURRENCY`] batches at once.
    fn deliver_ready(&self, dispatcher: &Dispatcher) -> Result<()> {
        let names = self.queue.names();
        let batches = names.iter().cycle().take(CONCURRENCY * names.len()).filter_map(|queue| {
            let batch = self.queue.take(queue, self.queue.settings(queue).max_batch_size);
            (!batch.is_empty()).then_some((queue, batch))
        });
        let batches: Vec<_> = batches.take(CONCURRENCY).collect();
        thread::scope(|scope| {
            let started: Vec<_> = batches
                .iter()
                .map(|(queue, batch)| scope.spawn(move || dispatcher.deliver(queue, batch)))
                .collect();
            for ((queue, batch), delivery) in batches.iter().zip(started) {
                let Ok(delivered) = delivery.join() else { bail!("a delivery panicked") };
                let delivered = delivered?;
                self.check(batch, &delivered)?;
                self.queue.settle(queue, batch, &delivered);
            }
            Ok(())
        })
    }

    /// What the consumer promises of every batch, whatever has failed.
    fn check(&self, batch: &[Message], delivered: &Delivered) -> Result<()> {
        for message in batch {
            let is_trapped = self.has_traps() && delivered.outcome == "exception";
            ensure!(
                is_trapped || (delivered.outcome == "ok" && delivered.decided(&message.id)),
                "a message was left undecided by {delivered:?}; workerd said:\n{}",
                self.log()
            );
            if let Decision::Retried { delay: Some(delay) } = delivered.decision(&message.id) {
                ensure!((0..=86_400).contains(&delay), "a retry after {delay} s is out of bounds");
            }
        }
        Ok(())
    }
}
