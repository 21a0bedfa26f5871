//! The Python client against the pair: the scenarios of `clients/python/tests/test_service.py`, which the client's own tests
//! run against its fake.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use crash::NOTICE_SECRETS;
use e2e::Pair;
use xtask::project::Project;
use xtask::setup::python;
use xtask::stack::free_port;

/// A deletion whose keys have failed, which no scenario could bring about.
const FAILED: &str = "del_00000000000000000000000000";
const FAILURES: u64 = 2_500;

/// A step of `cargo xtask test`, which alone installs what the client needs.
#[test]
#[ignore = "needs what cargo xtask test installs, which runs it by itself"]
fn the_python_client_does_what_its_scenarios_say() -> Result<()> {
    // The scenario that is told of the end of a deletion listens there.
    let port = free_port()?.to_string();
    let pair = Pair::start_with(|options| {
        let templates = toml::toml! { PROJECT_TEMPLATES = ["projects/{id}/"] };
        options.configs.producer.insert("vars".to_owned(), templates.into());
        let secrets = &mut options.configs.consumer_secrets;
        secrets.insert("NOTICE_URL".to_owned(), format!("http://127.0.0.1:{port}/"));
        secrets.insert("NOTICE_SECRETS".to_owned(), NOTICE_SECRETS.join(" "));
    })?;
    pair.insert_failed(FAILED, FAILURES)?;
    let unasked: Vec<String> = (0..50).map(|n| format!("unasked/{n:02}")).collect();
    pair.gateway().put(&unasked, 1)?;
    let project = Project::locate()?;
    let output = Command::new(python::CLIENT.python(&project))
        .args(["-m", "pytest", "--quiet", "tests/test_service.py"])
        .current_dir(project.root().join("clients/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // For the command, which it starts as a process of its own.
        .env("PYTHONPATH", "src")
        .envs([("R2_DELETION_URL", pair.url()), ("R2_DELETION_TOKEN", pair.token())])
        .envs([("R2_DELETION_FAILED", FAILED), ("R2_DELETION_NOTICE_PORT", &port)])
        .env("R2_DELETION_NOTICE_SECRET", NOTICE_SECRETS[0])
        .output()
        .context("What the Python client needs is missing. Run cargo xtask test.")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    ensure!(!said.contains("skipped"), "a scenario was passed over:\n{said}");
    let left: Vec<String> = pair.keys()?.into_iter().filter(|key| key.starts_with("unasked/")).collect();
    assert_eq!(left, unasked);
    Ok(())
}
