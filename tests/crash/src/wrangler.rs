//! The real `wrangler.*.toml`, so that what is tested is set up as what is deployed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::queue::QueueSettings;

/// One Worker's file, as far as the harness needs it.
#[derive(Debug, Clone, Deserialize)]
pub struct Wrangler {
    /// The main module, from the folder of the file.
    pub main: PathBuf,
    /// The runtime's behaviour by date.
    pub compatibility_date: String,
    /// Behaviour beside the date.
    #[serde(default)]
    pub compatibility_flags: Vec<String>,
    /// Plain settings; what is not a text becomes JSON.
    #[serde(default)]
    pub vars: BTreeMap<String, toml::Value>,
    #[serde(default)]
    r2_buckets: Vec<Named>,
    #[serde(default)]
    d1_databases: Vec<Named>,
    #[serde(default)]
    queues: Queues,
    assets: Option<Assets>,
}

#[derive(Debug, Clone, Deserialize)]
struct Assets {
    binding: String,
    directory: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
struct Named {
    binding: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Queues {
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
}

#[derive(Debug, Clone, Deserialize)]
struct Producer {
    binding: String,
    queue: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Consumer {
    queue: String,
    max_batch_size: Option<usize>,
    max_retries: Option<u16>,
    dead_letter_queue: Option<String>,
    retry_delay: Option<u64>,
}

impl Wrangler {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is not there, or lacks what a Worker needs.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// The names of the bindings of R2 buckets.
    pub fn buckets(&self) -> impl Iterator<Item = &str> {
        self.r2_buckets.iter().map(|bucket| bucket.binding.as_str())
    }

    /// The names of the bindings of D1 databases.
    pub fn databases(&self) -> impl Iterator<Item = &str> {
        self.d1_databases.iter().map(|database| database.binding.as_str())
    }

    /// The bindings of queues that the Worker sends to, each with the queue's name.
    pub fn queues(&self) -> impl Iterator<Item = (&str, &str)> {
        self.queues.producers.iter().map(|producer| (producer.binding.as_str(), producer.queue.as_str()))
    }

    /// The binding of the files that are deployed with the Worker, and their folder from that of the file.
    pub fn assets(&self) -> Option<(&str, &Path)> {
        self.assets.as_ref().map(|assets| (assets.binding.as_str(), assets.directory.as_path()))
    }

    /// How the queues that the Worker consumes are set up.
    pub fn consumed(&self) -> Vec<(String, QueueSettings)> {
        let defaults = QueueSettings::default();
        let settings = |consumer: &Consumer| QueueSettings {
            max_batch_size: consumer.max_batch_size.unwrap_or(defaults.max_batch_size),
            max_retries: consumer.max_retries.unwrap_or(defaults.max_retries),
            dead_letter_queue: consumer.dead_letter_queue.clone(),
            retry_delay: consumer.retry_delay.unwrap_or(defaults.retry_delay),
        };
        self.queues.consumers.iter().map(|consumer| (consumer.queue.clone(), settings(consumer))).collect()
    }
}
