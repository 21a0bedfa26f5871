//! The API against its description: Schemathesis makes right and wrong requests out of `/openapi.json`, hundreds of each
//! call, and looks whether every answer is one that the description promises. `schemathesis/` says how.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{Pair, eventually};
use serde_json::json;
use xtask::project::{Project, Worker};
use xtask::setup::python::SCHEMATHESIS;
use xtask::stack::Message;

/// The digests of the tokens in `schemathesis/users.json`.
const OWNER: &str = "35be6209d31fc08b1c80d61b63165e8dfa2b736faaf8006f38c997d5c7588e52";
const OTHER: &str = "1cf38ed95643cae0274d1b0bc7e77bbb40b3321f758fdf3969dfb4a8f5d6dd30";
const OPERATOR: &str = "a886d43fc5f66cc8ada4af401202addee44e5e68b39a40c706f7c59c36590055";

fn start() -> Result<Pair> {
    let tokens = json!([
        {"name": "owner", "sha256": OWNER},
        {"name": "other", "sha256": OTHER},
        {"name": "operator", "sha256": OPERATOR, "roles": ["operate"]},
    ]);
    let pair = Pair::start_with(|options| {
        options.configs.secrets.insert("API_TOKENS".to_owned(), tokens.to_string());
        // As many calls as the machine can make.
        options.configs.producer.remove("ratelimits");
    })?;
    // Something to list.
    pair.gateway().send(&Message::text("half a mess"))?;
    eventually("the message is kept", || {
        Ok((!pair.api().unreadable_messages()?.unreadable_messages.is_empty()).then_some(()))
    })?;
    Ok(pair)
}

/// A step of `cargo xtask test`, which alone installs Schemathesis.
#[test]
#[ignore = "takes a minute of both cores: cargo xtask test runs it by itself"]
fn every_answer_to_every_request_is_as_the_description_says() -> Result<()> {
    let pair = start()?;
    let project = Project::locate()?;
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemathesis");
    let folder = project.target().join("schemathesis");
    fs::create_dir_all(&folder)?;
    let log = folder.join("output.txt");
    let output = File::create(&log)?;
    let status = Command::new(SCHEMATHESIS.python(&project))
        .args(["-m", "schemathesis.cli", "--no-color", "--config-file"])
        .arg(config.join("schemathesis.toml"))
        .args(["run", "--checks", "all", "--url", pair.url()])
        // The file, because what a description is read from is not tried.
        .arg(project.worker_crate(Worker::Producer).join("assets/openapi.json"))
        .current_dir(&folder)
        .env("SCHEMATHESIS_CONFIG", &config)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .context("Schemathesis is missing. Run cargo xtask setup.")?;
    ensure!(status.success(), "Schemathesis has found something:\n{}", fs::read_to_string(&log)?);
    Ok(())
}
