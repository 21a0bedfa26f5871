use crate::Protocol;
use crate::keys::Keys;
use crate::ledger::{ChunkName, Outcome, Reply};
use crate::plant::Plant;
use crate::property::Break;
use crate::state::{Budget, Call, Message, Request, State, Step, Worker};

/// What can happen next. Numbers are places in the lists of the [`State`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A request stores its next message in the Queue.
    Send(usize),
    /// A request notes that all are stored.
    NoteSent(usize),
    /// A request dies.
    RequestDies(usize),
    /// A further request, or upkeep, goes on sending what a dead one has left.
    Resume(u8),
    /// Upkeep cancels what nobody was told 202 for.
    Abandon,
    /// A request lists the failures of a deletion that has failed.
    ListFailures,
    /// It has them admitted as the next generation.
    AdmitRedrive(usize),
    /// Somebody cancels.
    Cancel,
    /// A message is delivered.
    Deliver(usize),
    /// A message is delivered and stays in the queue.
    DeliverTwice(usize),
    /// The platform loses a message.
    Lose(usize),
    /// Upkeep sends what of a generation is lost.
    Resend(u8),
    /// An invocation claims its chunk.
    Claim(usize),
    /// The same, and the ledger's answer is lost.
    ClaimUnheard(usize),
    /// The ledger refuses an invocation's write, and each repetition of it.
    Refuse(usize),
    /// An invocation looks at the objects of its keys, where it looks, and chooses its next call.
    Look(usize),
    /// It calls R2.
    Call(usize),
    /// R2 carries a call out.
    CarryOut(usize),
    /// R2 answers.
    Answer(usize),
    /// R2 fails, having carried out these keys of the call.
    Fail(usize, Keys),
    /// R2 does not answer in time, and may carry out the call later.
    TimeOut(usize),
    /// An invocation records its outcome.
    Record(usize),
    /// The same, and the ledger's answer is lost: it records once more.
    RecordUnheard(usize),
    /// An invocation settles its message.
    Settle(usize),
    /// An invocation dies.
    Die(usize),
    /// An invocation dies, and R2 may carry out its call later.
    DieInCall(usize),
    /// The claim of a chunk ends by itself.
    ClaimEnds(ChunkName),
    /// R2 carries out a call that nobody waits for.
    CarryOutLate(usize),
    /// Somebody uploads an object.
    Upload(Keys),
}

impl Protocol {
    pub(crate) fn list_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let Budget { duplicates, uploads, redrives, cancels, losses, .. } = state.budget;
        for (n, request) in state.requests.iter().enumerate() {
            self.list_request(state, n, *request, actions);
        }
        for (generation, part) in (0..).zip(&state.ledger.parts) {
            let is_open = !state.ledger.cancelled && !state.ledger.finished;
            if is_open && !part.enqueued && !state.is_sending(generation) {
                actions.push(Action::Resume(generation));
                if state.ledger.generation == 0 {
                    actions.push(Action::Abandon);
                }
            }
            if self.has_lost(state, generation) && self.plant != Some(Plant::NoUpkeep) {
                actions.push(Action::Resend(generation));
            }
        }
        let api = state.ledger.view(self.plant).map(|(_, state)| state);
        if redrives > 0 && api == Some(protocol::State::Failed) {
            actions.push(Action::ListFailures);
        }
        if cancels > 0 && !state.ledger.cancelled && !state.ledger.finished {
            actions.push(Action::Cancel);
        }
        for (n, message) in state.queue.iter().enumerate() {
            // Which of two that are alike makes no difference.
            if n > 0 && state.queue.get(n - 1) == Some(message) {
                continue;
            }
            if state.workers.len() < self.workers {
                actions.push(Action::Deliver(n));
                if duplicates > 0 {
                    actions.push(Action::DeliverTwice(n));
                }
            }
            if losses > 0 {
                actions.push(Action::Lose(n));
            }
        }
        for (n, worker) in state.workers.iter().enumerate() {
            self.list_worker(state, n, worker, actions);
        }
        for row in state.ledger.rows.iter().filter(|row| row.claimed) {
            let held = state.workers.iter().any(|worker| worker.holds && worker.message.name == row.name);
            if !held || self.plant == Some(Plant::ClaimTooShort) {
                actions.push(Action::ClaimEnds(row.name));
            }
        }
        actions.extend((0..state.zombies.len()).map(Action::CarryOutLate));
        if uploads > 0 {
            actions.extend(self.asked().each().map(Action::Upload));
        }
    }

    fn list_request(&self, state: &State, n: usize, request: Request, actions: &mut Vec<Action>) {
        match request {
            Request::Sending { generation, next } => {
                let part = state.ledger.parts.get(usize::from(generation));
                let is_sent = part.is_none_or(|part| usize::from(next) >= part.chunks.len());
                let notes_first =
                    self.plant == Some(Plant::AcceptedFirst) && part.is_some_and(|part| !part.enqueued);
                let goes_on = if is_sent || notes_first { Action::NoteSent(n) } else { Action::Send(n) };
                actions.push(goes_on);
            }
            Request::Redriving { .. } => actions.push(Action::AdmitRedrive(n)),
        }
        if state.budget.crashes > 0 {
            actions.push(Action::RequestDies(n));
        }
    }

    fn list_worker(&self, state: &State, n: usize, worker: &Worker, actions: &mut Vec<Action>) {
        let Budget { crashes, r2_errors, ledger_errors, .. } = state.budget;
        let writes = matches!(worker.step, Step::Delivered | Step::Decided(_));
        match &worker.step {
            Step::Delivered => {
                actions.push(Action::Claim(n));
                if ledger_errors > 0 {
                    actions.push(Action::ClaimUnheard(n));
                }
            }
            Step::Granted { .. } => actions.push(Action::Look(n)),
            Step::Looked { .. } => actions.push(Action::Call(n)),
            Step::Calling { call, is_done, .. } => {
                let is_locked = call.keys.meets(self.locked);
                if *is_done || is_locked {
                    actions.push(Action::Answer(n));
                } else {
                    actions.push(Action::CarryOut(n));
                }
                if r2_errors > 0 && !is_locked {
                    actions.push(Action::Fail(n, Keys::NONE));
                    if !*is_done && call.keys.count() > 1 {
                        actions.push(Action::Fail(n, call.keys.first()));
                    }
                    if self.zombies && !*is_done {
                        actions.push(Action::TimeOut(n));
                    }
                }
            }
            Step::Decided(_) => {
                actions.push(Action::Record(n));
                if ledger_errors > 0 {
                    actions.push(Action::RecordUnheard(n));
                }
            }
            Step::Settling(_) => actions.push(Action::Settle(n)),
        }
        if writes && ledger_errors > 0 {
            actions.push(Action::Refuse(n));
        }
        if crashes > 0 {
            actions.push(Action::Die(n));
            if self.zombies && matches!(worker.step, Step::Calling { is_done: false, .. }) {
                actions.push(Action::DieInCall(n));
            }
        }
    }

    /// Whether a part is not decided although no message of it is under way, all of them were sent, and the deletion
    /// is open: the platform has lost some.
    fn has_lost(&self, state: &State, generation: u8) -> bool {
        let ledger = &state.ledger;
        let open = !ledger.finished && !ledger.cancelled && self.budget.losses > 0;
        let Some(part) = ledger.parts.get(usize::from(generation)) else { return false };
        open && part.enqueued && !state.is_under_way(generation) && !Self::lost(state, generation).is_empty()
    }

    /// The chunks of a generation that are neither decided nor in somebody's hands.
    fn lost(state: &State, generation: u8) -> Vec<ChunkName> {
        let Some(part) = state.ledger.parts.get(usize::from(generation)) else { return Vec::new() };
        let names = (0..).zip(&part.chunks).map(|(chunk, _)| ChunkName { generation, chunk });
        let at_work = |name: &ChunkName| {
            state.ledger.row(*name).is_some_and(|row| row.claimed || row.undecided.is_empty())
        };
        names.filter(|name| !at_work(name)).collect()
    }

    /// Whether nothing happens any more but for what somebody does of his own accord.
    pub(crate) fn is_quiet(&self, state: &State) -> bool {
        let mut actions = Vec::new();
        self.list_actions(state, &mut actions);
        actions.iter().all(|action| match action {
            Action::Upload(_) | Action::ListFailures | Action::Cancel => true,
            // What a request has left unsent is gone on with by whoever asks again.
            _ => false,
        })
    }

    /// What becomes of `before` by `action`, with what that shows.
    pub(crate) fn take(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        self.act(&mut state, action)?;
        self.compare(before, &mut state, action);
        Some(state.in_order())
    }

    fn compare(&self, before: &State, state: &mut State, action: Action) {
        let was = before.ledger.view(self.plant);
        let is = state.ledger.view(self.plant);
        let (Some((had, was)), Some((has, is))) = (was, is) else { return };
        let reopened = matches!(action, Action::AdmitRedrive(_));
        if was.is_final() && !reopened && (had, was) != (has, is) {
            state.broke(Break::OverChanged);
        }
        if has.deleted < had.deleted || has.skipped < had.skipped {
            state.broke(Break::OverChanged);
        }
    }

    fn act(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Send(n) => self.send(state, n),
            Action::NoteSent(n) => self.note_sent(state, n),
            Action::RequestDies(n) => {
                state.requests.remove(n);
                state.budget.crashes -= 1;
                Some(())
            }
            Action::Resume(generation) => {
                state.requests.push(Request::Sending { generation, next: 0 });
                Some(())
            }
            Action::Abandon => state.ledger.cancel().then_some(()),
            Action::ListFailures => {
                let (generation, listed) = (state.ledger.generation, state.ledger.listed());
                state.requests.push(Request::Redriving { generation, listed });
                state.budget.redrives -= 1;
                Some(())
            }
            Action::AdmitRedrive(n) => {
                let Request::Redriving { generation, listed } = state.requests.remove(n) else { return None };
                if state.ledger.admit_redrive(generation, listed, self.plant) {
                    let generation = state.ledger.generation;
                    state.requests.push(Request::Sending { generation, next: 0 });
                }
                Some(())
            }
            Action::Cancel => {
                state.budget.cancels -= 1;
                state.ledger.cancel().then_some(())
            }
            Action::Deliver(n) => {
                self.deliver(state, n, false);
                Some(())
            }
            Action::DeliverTwice(n) => {
                state.budget.duplicates -= 1;
                self.deliver(state, n, true);
                Some(())
            }
            Action::Lose(n) => {
                state.queue.remove(n);
                state.budget.losses -= 1;
                Some(())
            }
            Action::Resend(generation) => {
                for name in Self::lost(state, generation) {
                    let keys = state.ledger.chunk(name)?;
                    state.queue.push(Message { name, keys, attempts: 0, is_dead: false });
                }
                Some(())
            }
            Action::ClaimEnds(name) => {
                let row = state.ledger.rows.iter_mut().find(|row| row.name == name)?;
                row.claimed = false;
                state
                    .workers
                    .iter_mut()
                    .filter(|worker| worker.message.name == name)
                    .for_each(|worker| worker.holds = false);
                Some(())
            }
            Action::CarryOutLate(n) => {
                let call = state.zombies.remove(n);
                state.carry_out(call, call.keys);
                Some(())
            }
            Action::Upload(key) => {
                state.budget.uploads -= 1;
                state.upload(key);
                Some(())
            }
            of_a_worker => self.act_as_worker(state, of_a_worker),
        }
    }

    fn send(&self, state: &mut State, n: usize) -> Option<()> {
        let Some(Request::Sending { generation, next }) = state.requests.get_mut(n) else { return None };
        let name = ChunkName { generation: *generation, chunk: *next };
        *next += 1;
        let is_last = self.plant == Some(Plant::AcceptedFirst)
            && state.ledger.chunk(ChunkName { chunk: name.chunk + 1, ..name }).is_none();
        if is_last {
            state.requests.remove(n);
        }
        let keys = state.ledger.chunk(name)?;
        state.queue.push(Message { name, keys, attempts: 0, is_dead: false });
        Some(())
    }

    fn note_sent(&self, state: &mut State, n: usize) -> Option<()> {
        let &Request::Sending { generation, .. } = state.requests.get(n)? else { return None };
        state.ledger.parts.get_mut(usize::from(generation))?.enqueued = true;
        if self.plant != Some(Plant::AcceptedFirst) {
            state.requests.remove(n);
        }
        Some(())
    }

    fn deliver(&self, state: &mut State, n: usize, stays: bool) {
        let mut message = state.queue.remove(n);
        if stays {
            state.queue.push(message);
        }
        // A dead letter is delivered until it is settled: its deliveries need no count.
        message.attempts = if message.is_dead { 1 } else { message.attempts + 1 };
        let settles_first = self.plant == Some(Plant::AcknowledgedFirst) && !message.is_dead
            || self.plant == Some(Plant::DeadLetterAcknowledgedFirst) && message.is_dead;
        state.workers.push(Worker {
            message,
            holds: false,
            owes_message: !settles_first,
            step: Step::Delivered,
        });
    }

    fn act_as_worker(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Claim(n) => self.claim(state, n, true),
            Action::ClaimUnheard(n) => {
                state.budget.ledger_errors -= 1;
                self.claim(state, n, false)
            }
            Action::Refuse(n) => {
                state.budget.ledger_errors -= 1;
                let worker = state.workers.get_mut(n)?;
                worker.holds = false;
                worker.step = Step::Settling(false);
                Some(())
            }
            Action::Look(n) => self.look(state, n),
            Action::Call(n) => self.call(state, n),
            Action::CarryOut(n) => {
                let Step::Calling { call, is_done, .. } = &mut state.workers.get_mut(n)?.step else {
                    return None;
                };
                *is_done = true;
                let call = *call;
                state.carry_out(call, call.keys);
                Some(())
            }
            Action::Answer(n) => self.answer(state, n),
            Action::Fail(n, done) => self.fail(state, n, done, false),
            Action::TimeOut(n) => self.fail(state, n, Keys::NONE, true),
            Action::Record(n) => self.record(state, n, true),
            Action::RecordUnheard(n) => {
                state.budget.ledger_errors -= 1;
                self.record(state, n, false)
            }
            Action::Settle(n) => {
                let worker = state.workers.remove(n);
                let is_acknowledged = worker.step == Step::Settling(true);
                self.give_back(state, &worker, is_acknowledged);
                Some(())
            }
            Action::Die(n) | Action::DieInCall(n) => {
                state.budget.crashes -= 1;
                let worker = state.workers.remove(n);
                if matches!(action, Action::DieInCall(_)) {
                    state.zombies.push(*worker.step.call()?);
                }
                self.give_back(state, &worker, false);
                Some(())
            }
            _ => None,
        }
    }

    /// The message goes back to the queue, or to the dead-letter queue after its last delivery, unless it is done with.
    fn give_back(&self, state: &mut State, worker: &Worker, is_acknowledged: bool) {
        if is_acknowledged || !worker.owes_message {
            return;
        }
        let mut message = worker.message;
        if message.attempts > self.retries || message.is_dead {
            message = Message { attempts: 0, is_dead: true, ..message };
        }
        state.queue.push(message);
    }

    fn claim(&self, state: &mut State, n: usize, is_heard: bool) -> Option<()> {
        let worker = state.workers.get_mut(n)?;
        let Message { name, keys, is_dead, .. } = worker.message;
        let reply = state.ledger.claim(name, keys, self.plant);
        if !is_heard {
            worker.step = Step::Settling(false);
            return Some(());
        }
        worker.step = match reply {
            Reply::Granted(undecided) => {
                worker.holds = true;
                let failed = if self.plant == Some(Plant::DeadLetterFailsAll) { keys } else { undecided };
                if is_dead {
                    Step::Decided(Outcome { failed, ..Outcome::default() })
                } else {
                    Step::Granted { todo: undecided, outcome: Outcome::default(), singly: false }
                }
            }
            // It is kept, as it is, and acknowledged.
            Reply::NotAccepted | Reply::NothingToDo => Step::Settling(true),
            Reply::ClaimedElsewhere => Step::Settling(false),
        };
        Some(())
    }

    fn looks(&self, message: Message) -> bool {
        if self.plant == Some(Plant::LookOnFirstAttempt) && message.attempts > 1 {
            return false;
        }
        self.fence.looks(u32::from(message.name.generation), u32::from(message.attempts), 0)
    }

    fn look(&self, state: &mut State, n: usize) -> Option<()> {
        let (old, new) = (state.old, state.new);
        let worker = state.workers.get_mut(n)?;
        let Step::Granted { todo, outcome, singly } = worker.step else { return None };
        let chosen = if singly { todo.first() } else { todo };
        if chosen.is_empty() {
            worker.step = Step::Decided(outcome);
            return Some(());
        }
        if !self.looks(worker.message) {
            let call = Call { keys: chosen, ..Call::default() };
            worker.step = Step::Looked { todo, outcome, singly, call };
            return Some(());
        }
        let (skipped, absent) = (chosen & new, chosen.without(old | new));
        let outcome =
            Outcome { deleted: outcome.deleted | absent, skipped: outcome.skipped | skipped, ..outcome };
        let todo = todo.without(skipped | absent);
        let keys = chosen & old;
        worker.step = if keys.is_empty() {
            Step::Granted { todo, outcome, singly }
        } else {
            let call = Call { keys, looked_at: keys, uploaded_since: Keys::NONE };
            Step::Looked { todo, outcome, singly, call }
        };
        Some(())
    }

    fn call(&self, state: &mut State, n: usize) -> Option<()> {
        let worker = state.workers.get(n)?;
        let Step::Looked { todo, outcome, singly, call } = worker.step else { return None };
        let others = state.workers.iter().enumerate().filter(|(other, _)| *other != n);
        let is_called = others
            .filter(|(_, other)| matches!(other.step, Step::Calling { .. }))
            .any(|(_, other)| other.step.call().is_some_and(|other| other.keys.meets(call.keys)));
        let message = worker.message;
        let promises = self.fence.looks(u32::from(message.name.generation), u32::from(message.attempts), 0);
        if is_called {
            state.broke(Break::TwoCalls);
        }
        if promises && call.looked_at != call.keys {
            state.broke(Break::NotLookedAt);
        }
        state.workers.get_mut(n)?.step = Step::Calling { todo, outcome, singly, call, is_done: false };
        Some(())
    }

    fn answer(&self, state: &mut State, n: usize) -> Option<()> {
        let worker = state.workers.get_mut(n)?;
        let Step::Calling { todo, outcome, singly, call, .. } = worker.step else { return None };
        let keys = call.keys;
        worker.step = if !keys.meets(self.locked) {
            let outcome = Outcome { deleted: outcome.deleted | keys, ..outcome };
            Step::Granted { todo: todo.without(keys), outcome, singly }
        } else if keys.count() > 1 {
            // The binding gives one result for all: which key it was, single calls find out.
            Step::Granted { todo, outcome, singly: true }
        } else {
            let outcome = Outcome { failed: outcome.failed | keys, ..outcome };
            Step::Granted { todo: todo.without(keys), outcome, singly }
        };
        Some(())
    }

    /// An error leaves every key of its call undecided, and ends the attempt.
    fn fail(&self, state: &mut State, n: usize, done: Keys, is_late: bool) -> Option<()> {
        state.budget.r2_errors -= 1;
        let worker = state.workers.get_mut(n)?;
        let Step::Calling { outcome, call, is_done, .. } = worker.step else { return None };
        worker.step = match self.plant {
            Some(Plant::FailureIsSuccess) => {
                Step::Decided(Outcome { deleted: outcome.deleted | call.keys, ..outcome })
            }
            Some(Plant::AcknowledgedOnError) => Step::Settling(true),
            _ => Step::Decided(outcome),
        };
        if is_late {
            state.zombies.push(call);
        } else if !is_done {
            state.carry_out(call, done);
        }
        Some(())
    }

    fn record(&self, state: &mut State, n: usize, is_heard: bool) -> Option<()> {
        let worker = state.workers.get_mut(n)?;
        let Step::Decided(outcome) = worker.step else { return None };
        let (name, holds) = (worker.message.name, std::mem::take(&mut worker.holds));
        let was = state.ledger.row(name).map(|row| row.undecided);
        let told_before = state.ledger.finished;
        let recorded = state.ledger.record(name, outcome, holds, self.plant);
        if is_heard {
            worker.step = Step::Settling(recorded.settled);
        }
        if recorded.taken && !outcome.decided().without(was.unwrap_or_default()).is_empty() {
            state.broke(Break::RecordedTwice);
        }
        if recorded.ended && told_before {
            state.broke(Break::ToldTwice);
        }
        Some(())
    }
}
