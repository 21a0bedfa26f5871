//! A bucket that answers R2's binding protocol, keeps production's limits and fails on demand.

mod objects;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;

use crate::canary::Canary;
use crate::clock::Clock;
use crate::config::Binding;
use crate::faults::{Fault, Faults, Met};
use crate::http::Server;
use objects::Objects;
pub use objects::{Locked, Neighbours};

/// An error as R2 answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct R2Error {
    code: u32,
    bare: bool,
}

impl R2Error {
    /// An error without the `cf-r2-error` header, which the runtime turns into code 0.
    pub const BARE: Self = Self { code: 0, bare: true };
    const TOO_MANY_REQUESTS: Self = Self { code: 10_058, bare: false };
    const LOCKED: Self = Self { code: 10_069, bare: false };
    const KEYS_OUT_OF_BOUNDS: Self = Self { code: 10_027, bare: false };
    const INVALID_NAME: Self = Self { code: 10_020, bare: false };
    const INTERNAL: Self = Self { code: 10_001, bare: false };
    const NO_SUCH_KEY: Self = Self { code: 10_007, bare: false };
    const NOT_IMPLEMENTED: Self = Self { code: 10_000, bare: false };
}

impl From<u32> for R2Error {
    fn from(code: u32) -> Self {
        Self { code, bare: false }
    }
}

/// One call that reached the bucket.
#[derive(Debug, Clone)]
pub struct BucketCall {
    /// `delete`, `head` or `list`: our Workers need no other.
    pub method: String,
    /// The keys that it named, in its order.
    pub keys: Vec<String>,
    /// When it came, by the shared clock.
    pub at: Duration,
    /// The code that it was answered with; `Some(0)` for an error without a code; `None` when it succeeded.
    pub error: Option<u32>,
    /// Whether it got an answer at all.
    pub answered: bool,
}

/// A bucket in memory. Clones share it.
#[derive(Debug, Clone)]
pub struct Bucket {
    server: Server,
    shared: Arc<Shared>,
    /// What every key in the bucket begins with, and no name of a test's: see [`Canary`].
    namespace: String,
}

#[derive(Debug)]
pub(crate) struct Shared {
    objects: Mutex<Objects>,
    calls: Mutex<Vec<BucketCall>>,
    faults: Faults<R2Error>,
    clock: Clock,
}

impl Bucket {
    /// Starts an empty bucket.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(clock: &Clock) -> Result<Self> {
        let shared = Arc::new(Shared {
            objects: Mutex::default(),
            calls: Mutex::default(),
            faults: Faults::default(),
            clock: clock.clone(),
        });
        let served = Arc::clone(&shared);
        Ok(Self {
            server: Server::start(move |request| served.answer(&request))?,
            shared,
            namespace: String::new(),
        })
    }

    /// Puts the canary before every name that a test has for an object, and takes it away where it tells them.
    pub(crate) fn with_canary(self, canary: &Canary) -> Self {
        Self { namespace: canary.namespace(), ..self }
    }

    /// What binds the bucket to a Worker.
    pub fn binding(&self) -> Binding {
        Binding::Bucket(self.server.address)
    }

    /// Uploads an object under each key, now.
    pub fn upload<K: Into<String>>(&self, keys: impl IntoIterator<Item = K>) {
        let mut objects = self.objects();
        for key in keys {
            objects.put(self.dress(&key.into()));
        }
    }

    /// Uploads an object under each key at this time, in milliseconds since 1970.
    pub fn upload_at<K: Into<String>>(&self, uploaded_ms: u64, keys: impl IntoIterator<Item = K>) {
        let mut objects = self.objects();
        for key in keys {
            objects.put_at(self.dress(&key.into()), uploaded_ms);
        }
    }

    /// Whether there is an object under the key.
    pub fn contains(&self, key: &str) -> bool {
        self.objects().contains(&self.dress(key))
    }

    /// All keys, in order.
    pub fn keys(&self) -> Vec<String> {
        self.undress(self.objects().keys())
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<BucketCall> {
        let mut calls = self.shared.calls();
        for call in &mut calls {
            call.keys = self.undress(std::mem::take(&mut call.keys));
        }
        calls
    }

    /// Every delete call so far.
    pub fn deletes(&self) -> Vec<BucketCall> {
        self.calls().into_iter().filter(|call| call.method == "delete").collect()
    }

    /// Every look at an object so far.
    pub fn looks(&self) -> Vec<BucketCall> {
        self.calls().into_iter().filter(|call| call.method == "head").collect()
    }

    /// The next `times` delete calls suffer `fault`.
    pub fn fail_deletes(&self, times: usize, fault: Fault<R2Error>) {
        self.shared.faults.plan(&["delete"], 0, times, fault);
    }

    /// Spares the first `spare` calls of `method`, then the next `times` suffer `fault`.
    pub fn fail(&self, method: &str, spare: usize, times: usize, fault: Fault<R2Error>) {
        self.shared.faults.plan(&[method], spare, times, fault);
    }

    /// Delete calls of more than `keys` keys fail with 10001, as large ones have in production. `None` lifts it.
    pub fn refuse_deletes_above(&self, keys: Option<usize>) {
        self.objects().call_keys_max = keys;
    }

    /// Locks keys as a bucket lock rule does: a call that names one fails with 10069.
    ///
    /// What becomes of the call's other keys is not documented, so it is the test's choice.
    pub fn lock<K: Into<String>>(&self, keys: impl IntoIterator<Item = K>, neighbours: Neighbours) {
        self.objects().locked =
            Locked { keys: keys.into_iter().map(|key| self.dress(&key.into())).collect(), neighbours };
    }

    /// Lifts all locks.
    pub fn unlock(&self) {
        self.objects().locked = Locked::default();
    }

    /// How long a key cannot be written after it was; production's limit is one second, `None` lifts it.
    pub fn limit_writes_of_one_key(&self, interval: Option<Duration>) {
        self.objects().write_interval = interval;
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.server.is_busy()
    }

    pub(crate) fn met(&self) -> Met {
        self.shared.faults.met()
    }

    /// Forgets the faults that were planned and have not struck; locks and limits stay.
    pub fn heal(&self) {
        self.shared.faults.clear();
    }

    /// How many objects have been uploaded.
    pub fn uploads(&self) -> u64 {
        self.objects().uploads
    }

    fn dress(&self, name: &str) -> String {
        format!("{}{name}", self.namespace)
    }

    fn undress(&self, keys: Vec<String>) -> Vec<String> {
        let strip = |key: String| key.strip_prefix(&self.namespace).map(str::to_owned).unwrap_or(key);
        keys.into_iter().map(strip).collect()
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.shared.objects()
    }
}

impl Shared {
    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn calls(&self) -> Vec<BucketCall> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn record(&self, call: BucketCall) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }
}
