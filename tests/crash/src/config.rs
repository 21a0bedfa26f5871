//! The configuration of `workerd`, in Cap'n Proto's text form.
//!
//! Read from `workerd.capnp`, which the npm package `workerd` carries.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// What one `workerd` process runs.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Its Workers. Each listens on a free port of its own.
    pub workers: Vec<WorkerConfig>,
}

/// One Worker.
#[derive(Debug, Clone, Default)]
pub struct WorkerConfig {
    /// The name of its service and of its socket.
    pub name: String,
    /// Its modules, the main one first: JavaScript or wasm by the file's extension, imported by the file's name.
    pub modules: Vec<PathBuf>,
    /// The runtime's behaviour by date.
    pub compatibility_date: String,
    /// Behaviour beside the date.
    pub compatibility_flags: Vec<String>,
    /// What it finds in `env`, by name.
    pub bindings: Vec<(String, Binding)>,
    /// The Worker that gets its tail events.
    pub tail: Option<String>,
}

/// What a Worker finds under one name in `env`.
#[derive(Debug, Clone)]
pub enum Binding {
    /// A text: a variable or a secret.
    Text(String),
    /// A value of JSON.
    Json(String),
    /// The R2 bucket that is served there.
    Bucket(SocketAddr),
    /// The D1 database that is served there.
    Database(SocketAddr),
    /// The queue of this name at the broker that is served there.
    Queue(SocketAddr, String),
    /// Another Worker of the same process.
    Worker(String),
    /// The files of a folder, by `fetch`.
    Files(PathBuf),
}

impl Config {
    /// The text, with the modules embedded from the configuration's own folder, a sub-folder for each Worker.
    pub(crate) fn render(&self) -> Result<String> {
        let mut text = String::from("using Workerd = import \"/workerd/workerd.capnp\";\n");
        writeln!(text, "const config :Workerd.Config = (services = [")?;
        // What `fetch` reaches: this machine, where the endpoint is, and nothing else.
        writeln!(text, "  (name = \"internet\", network = (allow = [\"local\"])),")?;
        for worker in &self.workers {
            writeln!(text, "  (name = {}, worker = ({})),", quote(&worker.name), worker.render()?)?;
            for (name, binding) in &worker.bindings {
                if let Some(behind) = binding.behind(&worker.name) {
                    writeln!(text, "  (name = {}, {behind}),", quote(&service(&worker.name, name)))?;
                }
            }
        }
        writeln!(text, "], sockets = [")?;
        for WorkerConfig { name, .. } in &self.workers {
            let name = quote(name);
            writeln!(text, "  (name = {name}, address = \"127.0.0.1:0\", http = (), service = {name}),")?;
        }
        writeln!(text, "]);")?;
        Ok(text)
    }
}

impl Config {
    /// Sets a variable or a secret of a Worker.
    pub(crate) fn set(&mut self, worker: &str, name: &str, value: &str) {
        for worker in self.workers.iter_mut().filter(|found| found.name == worker) {
            worker.bindings.retain(|(bound, _)| bound != name);
            worker.bindings.push((name.to_owned(), Binding::Text(value.to_owned())));
        }
    }
}

impl WorkerConfig {
    fn render(&self) -> Result<String> {
        let mut modules = Vec::new();
        for path in &self.modules {
            let file =
                path.file_name().and_then(|name| name.to_str()).context("a module without a file name")?;
            let kind = match path.extension().and_then(|extension| extension.to_str()) {
                Some("js" | "mjs") => "esModule",
                Some("wasm") => "wasm",
                _ => bail!("a module that is neither JavaScript nor wasm: {}", path.display()),
            };
            let embedded = quote(&format!("{}/{file}", self.name));
            modules.push(format!("(name = {}, {kind} = embed {embedded})", quote(file)));
        }
        let flags: Vec<_> = self.compatibility_flags.iter().map(|flag| quote(flag)).collect();
        let bindings: Vec<_> = self
            .bindings
            .iter()
            .map(|(name, binding)| {
                format!("(name = {}, {})", quote(name), binding.render(&service(&self.name, name)))
            })
            .collect();
        let tails = self.tail.as_deref().map(quote).unwrap_or_default();
        Ok(format!(
            "modules = [{}], compatibilityDate = {}, compatibilityFlags = [{}], bindings = [{}], tails = [{tails}]",
            modules.join(", "),
            quote(&self.compatibility_date),
            flags.join(", "),
            bindings.join(", "),
        ))
    }
}

impl Binding {
    fn render(&self, service: &str) -> String {
        let service = quote(service);
        match self {
            Self::Text(text) => format!("text = {}", quote(text)),
            Self::Json(json) => format!("json = {}", quote(json)),
            Self::Bucket(_) => format!("r2Bucket = {service}"),
            Self::Queue(..) => format!("queue = {service}"),
            Self::Worker(name) => format!("service = {}", quote(name)),
            Self::Files(_) => format!("service = {service}"),
            // As wrangler makes it: the runtime's own module around a plain service.
            Self::Database(_) => format!(
                "wrapped = (moduleName = \"cloudflare-internal:d1-api\", \
                 innerBindings = [(name = \"fetcher\", service = {service})])"
            ),
        }
    }

    /// The service behind it, where it has one of its own. A header tells what is outside of the process whom or what a
    /// request is for.
    fn behind(&self, worker: &str) -> Option<String> {
        let external = |address: &SocketAddr, name: &str, value: &str| {
            let header = format!("(name = {}, value = {})", quote(name), quote(value));
            let address = quote(&address.to_string());
            format!("external = (address = {address}, http = (injectRequestHeaders = [{header}]))")
        };
        match self {
            Self::Bucket(address) | Self::Database(address) => Some(external(address, "x-worker", worker)),
            Self::Queue(address, queue) => Some(external(address, "x-queue", queue)),
            Self::Files(folder) => Some(format!("disk = (path = {})", quote(&folder.to_string_lossy()))),
            Self::Text(_) | Self::Json(_) | Self::Worker(_) => None,
        }
    }
}

fn service(worker: &str, binding: &str) -> String {
    format!("{worker}-{binding}")
}

/// A text literal, with the escapes of C that Cap'n Proto shares.
fn quote(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}
