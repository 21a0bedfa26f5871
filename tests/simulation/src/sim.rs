//! One thread, one clock, one queue of timers, one seed.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use fastrand::Rng;
use protocol::State;

use crate::counts::{Call, Count, Totals};
use crate::fault::{Fault, Rates};

/// When every schedule begins: 2025-11-23, in milliseconds since the Unix epoch.
pub(crate) const BEGINS_AT: u64 = 1_763_930_000_000;

/// Steps after which a schedule is taken for endless.
const STEPS_MAX: u64 = 3_000_000;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Time and chance, and whatever waits for them.
pub(crate) struct Sim {
    now: Cell<u64>,
    sequence: Cell<u64>,
    timers: RefCell<Timers>,
    spawned: RefCell<Vec<Task>>,
    /// Apart from the faults', so that another fault does not move everything else.
    chance: RefCell<Rng>,
    fault_chance: RefCell<Rng>,
    rates: Rates,
    totals: RefCell<Totals>,
    steps: Cell<u64>,
    /// Something is being dropped because whoever was at it dies.
    is_dying: Cell<bool>,
    /// The task that is at it, and what tells its waker from others.
    current: Cell<(usize, *const ())>,
    hash: Cell<u64>,
    violation: RefCell<Option<String>>,
    is_traced: bool,
}

impl Sim {
    pub(crate) fn new(seed: u64, rates: Rates, is_traced: bool) -> Rc<Self> {
        Rc::new(Self {
            now: Cell::new(BEGINS_AT),
            sequence: Cell::new(0),
            timers: RefCell::default(),
            spawned: RefCell::default(),
            chance: RefCell::new(Rng::with_seed(seed ^ 0x05CE_DD1E)),
            fault_chance: RefCell::new(Rng::with_seed(seed ^ 0xFA_0175)),
            rates,
            totals: RefCell::default(),
            steps: Cell::new(0),
            is_dying: Cell::new(false),
            current: Cell::new((0, std::ptr::null())),
            hash: Cell::new(0xCBF2_9CE4_8422_2325),
            violation: RefCell::default(),
            is_traced,
        })
    }

    /// The time, in milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    /// A number that nobody else gets.
    pub(crate) fn next_number(&self) -> u64 {
        self.sequence.set(self.sequence.get() + 1);
        self.sequence.get()
    }

    /// Draws from everything that is no fault.
    pub(crate) fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.chance.borrow_mut())
    }

    /// An even draw from both bounds and what is between.
    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        self.draw(|rng| rng.u64(low..=high))
    }

    /// Draws from what belongs to faults.
    pub(crate) fn draw_fault<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.fault_chance.borrow_mut())
    }

    /// Whether this goes wrong now. Nothing does once faults are over.
    pub(crate) fn fails(&self, fault: Fault) -> bool {
        let rate = self.rates.of(fault);
        if rate <= 0.0 || self.now() >= self.rates.healed_at {
            return false;
        }
        let fails = self.draw_fault(Rng::f64) < rate;
        if fails {
            self.happened(fault);
        }
        fails
    }

    /// Counts a fault that has happened for another reason than its rate.
    pub(crate) fn happened(&self, fault: Fault) {
        self.totals.borrow_mut().count_fault(fault);
        self.note(|| format!("fault: {fault:?}"));
    }

    pub(crate) fn count(&self, count: Count) {
        self.count_many(count, 1);
    }

    pub(crate) fn count_many(&self, count: Count, by: u64) {
        self.totals.borrow_mut().count(count, by);
    }

    pub(crate) fn counted(&self, count: Count) -> u64 {
        self.totals.borrow().of(count)
    }

    /// A deletion is in another state than when it was last seen.
    pub(crate) fn count_change(&self, from: Option<State>, to: State) {
        self.totals.borrow_mut().count_change(from, to);
    }

    /// An object is gone so long after its look, in milliseconds, by a call that somebody waits for or nobody does any more.
    pub(crate) fn see_window(&self, millis: u64, is_waited_for: bool) {
        let totals = &mut *self.totals.borrow_mut();
        let window = if is_waited_for { &mut totals.window_ms } else { &mut totals.late_window_ms };
        *window = millis.max(*window);
    }

    /// All that has happened.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = self.totals.borrow().clone();
        totals.count(Count::Schedules, 1);
        totals.count(Count::Events, self.steps.get());
        totals
    }

    /// Somebody is in this call from here on, and may die in it.
    pub(crate) fn enter(self: &Rc<Self>, call: Call) -> Within {
        Within { sim: Rc::clone(self), call, has_taken_effect: Cell::new(false) }
    }

    /// Writes down what happens, where somebody reads it.
    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        if self.is_traced {
            let millis = self.now() - BEGINS_AT;
            #[expect(
                clippy::print_stderr,
                reason = "the trace of a single seed, which somebody has asked for"
            )]
            {
                eprintln!("{:>8}.{:03}  {}", millis / 1_000, millis % 1_000, text());
            }
        }
    }

    /// An invariant does not hold. The first one counts.
    pub(crate) fn violate(&self, text: impl FnOnce() -> String) {
        let mut violation = self.violation.borrow_mut();
        if violation.is_none() {
            let text = text();
            self.note(|| format!("VIOLATION: {text}"));
            *violation = Some(text);
        }
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.violation.borrow().clone()
    }

    /// What two runs of one seed have in common.
    pub(crate) fn hash(&self) -> u64 {
        self.hash.get()
    }

    fn mix(&self, value: u64) {
        self.hash.set((self.hash.get() ^ value).wrapping_mul(0x0000_0100_0000_01B3));
    }

    /// Has a future run beside the others.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.spawned.borrow_mut().push(Box::pin(future));
    }

    /// Waits.
    pub(crate) fn sleep(self: &Rc<Self>, millis: u64) -> Sleep {
        Sleep { sim: Rc::clone(self), at: self.now() + millis, place: None }
    }

    fn waiter(&self, waker: &Waker) -> Waiter {
        let (task, own) = self.current.get();
        if waker.data() == own { Waiter::Task(task) } else { Waiter::Other(waker.clone()) }
    }

    /// Runs until nothing is left that anybody waits for, or something is wrong.
    pub(crate) fn run(&self) {
        let (mut tasks, mut wakers): (Vec<Option<Task>>, _) = (Vec::new(), WAKERS.take());
        // Of a schedule that has ended in the middle.
        READY.with_borrow_mut(VecDeque::clear);
        loop {
            for task in self.spawned.take() {
                READY.with_borrow_mut(|ready| ready.push_back(tasks.len()));
                if wakers.len() == tasks.len() {
                    wakers.push(Waker::from(Arc::new(TaskWaker { task: tasks.len() })));
                }
                tasks.push(Some(task));
            }
            if let Some(at) = READY.with_borrow_mut(VecDeque::pop_front) {
                if let (Some(slot), Some(waker)) = (tasks.get_mut(at), wakers.get(at))
                    && let Some(task) = slot
                {
                    self.steps.set(self.steps.get() + 1);
                    self.mix(at as u64);
                    self.current.set((at, waker.data()));
                    if task.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
                        *slot = None;
                    }
                }
                if self.steps.get() > STEPS_MAX {
                    self.violate(|| "no end after millions of steps".to_owned());
                }
                if self.violation.borrow().is_some() {
                    break;
                }
                continue;
            }
            if !self.spawned.borrow().is_empty() {
                continue;
            }
            let timer = self.timers.borrow_mut().pop();
            let Some((at, waiter)) = timer else { break };
            self.now.set(at.max(self.now()));
            self.mix(at);
            match waiter {
                Waiter::Task(task) => READY.with_borrow_mut(|ready| ready.push_back(task)),
                Waiter::Other(waker) => waker.wake(),
            }
        }
        // Dropping a task can spawn none, and cancels its timers.
        drop(tasks);
        self.spawned.take();
        WAKERS.set(wakers);
    }
}

thread_local! {
    /// The tasks that can go on, of the one schedule that a thread has at a time.
    static READY: RefCell<VecDeque<usize>> = const { RefCell::new(VecDeque::new()) };
    /// Those of the tasks by their numbers, which are the same in every schedule.
    static WAKERS: Cell<Vec<Waker>> = const { Cell::new(Vec::new()) };
}

struct TaskWaker {
    task: usize,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        READY.with_borrow_mut(|ready| ready.push_back(self.task));
    }
}

/// What waits for a time, in the order of the times, and of the waits for one time. Most waits are given up, being time limits:
/// such a one stays in the heap until its time, and finds nobody then.
#[derive(Default)]
struct Timers {
    due: BinaryHeap<Reverse<(u64, Place)>>,
    /// By slot: the number of a wait, and who waits.
    waiting: Vec<Option<(u64, Waiter)>>,
    free: Vec<usize>,
}

/// Who is told that a time has come.
enum Waiter {
    /// A task, by its own waker, which need not be kept for that.
    Task(usize),
    /// A part of one that has another waker.
    Other(Waker),
}

/// The number of a wait, and where it is.
type Place = (u64, usize);

impl Timers {
    fn add(&mut self, at: u64, number: u64, waiter: Waiter) -> Place {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.waiting.push(None);
            self.waiting.len() - 1
        });
        if let Some(waiting) = self.waiting.get_mut(slot) {
            *waiting = Some((number, waiter));
        }
        self.due.push(Reverse((at, (number, slot))));
        (number, slot)
    }

    /// The wait, unless its time has come; its slot may be another's then.
    fn find(&mut self, (number, slot): Place) -> Option<&mut Option<(u64, Waiter)>> {
        self.waiting.get_mut(slot).filter(|waiting| waiting.as_ref().is_some_and(|(of, _)| *of == number))
    }

    fn cancel(&mut self, place: Place) {
        if let Some(waiting) = self.find(place) {
            *waiting = None;
        }
    }

    fn pop(&mut self) -> Option<(u64, Waiter)> {
        loop {
            let Reverse((at, (_, slot))) = self.due.pop()?;
            self.free.push(slot);
            if let Some((_, waiter)) = self.waiting.get_mut(slot).and_then(Option::take) {
                return Some((at, waiter));
            }
        }
    }
}

/// A wait for a point in time.
pub(crate) struct Sleep {
    sim: Rc<Sim>,
    at: u64,
    place: Option<Place>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.sim.now() >= self.at {
            return Poll::Ready(());
        }
        let Some(place) = self.place else {
            let number = self.sim.next_number();
            let waiter = self.sim.waiter(context.waker());
            let place = self.sim.timers.borrow_mut().add(self.at, number, waiter);
            self.place = Some(place);
            return Poll::Pending;
        };
        if let Some(Some((_, waiter))) = self.sim.timers.borrow_mut().find(place) {
            *waiter = self.sim.waiter(context.waker());
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.sim.timers.borrow_mut().cancel(place);
        }
    }
}

/// Lets a future live for so many waits, then drops it where it stands: `None`. `None` waits: for ever.
pub(crate) fn mortal<F: Future>(sim: &Sim, waits: Option<u32>, future: F) -> Mortal<'_, F> {
    Mortal { sim, future: Some(Box::pin(future)), waits }
}

pub(crate) struct Mortal<'s, F> {
    sim: &'s Sim,
    future: Option<Pin<Box<F>>>,
    waits: Option<u32>,
}

impl<F: Future> Future for Mortal<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.future else { return Poll::Ready(None) };
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        match &mut self.waits {
            None => Poll::Pending,
            Some(0) => {
                self.sim.count(Count::Kills);
                self.sim.is_dying.set(true);
                self.future = None;
                self.sim.is_dying.set(false);
                Poll::Ready(None)
            }
            Some(waits) => {
                *waits -= 1;
                Poll::Pending
            }
        }
    }
}

/// A call that somebody is in.
pub(crate) struct Within {
    sim: Rc<Sim>,
    call: Call,
    has_taken_effect: Cell<bool>,
}

impl Within {
    /// Whoever dies from here on has done it.
    pub(crate) fn take_effect(&self) {
        self.has_taken_effect.set(true);
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        if self.sim.is_dying.get() {
            self.sim.totals.borrow_mut().count_death(self.call, self.has_taken_effect.get());
        }
    }
}
