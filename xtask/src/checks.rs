//! `cargo xtask test`: everything that CI runs, in the order in which it fails soonest.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    clock::Stopwatch,
    example, output,
    project::{Project, Worker},
    prove, run,
    setup::{TARGET, Toolbox, python},
    workers,
};

/// A check's name and what it does.
type Check<On> = (&'static str, fn(&On) -> Result<()>);

/// Those that need no tools of ours: so a slip shows before the set-up of a fresh machine.
const AT_ONCE: [Check<Project>; 2] =
    [("format", format), ("protocol depends on no platform", protocol_is_pure)];

const WITH_TOOLS: [Check<Toolbox>; 13] = [
    ("clippy", clippy),
    ("clippy for wasm32", clippy_wasm),
    ("unit and property tests", unit_tests),
    ("a million schedules, and what comes with dependencies", prove::rest),
    ("a guess of a token takes as long however much of it is right", constant_time),
    ("both Workers build, within their size", |toolbox| workers::build(toolbox, &Worker::ALL)),
    ("both Workers could be deployed", dry_deploys),
    ("the pair on the runtime", end_to_end),
    ("the API against its description", as_described),
    ("the Python client", python_client),
    ("the quickstarts, to the letter", |toolbox| by_itself(toolbox, "quickstarts")),
    ("the FastAPI example", example::check),
    ("the pair under faults", under_faults),
];

/// Runs every check until one fails.
///
/// # Errors
/// When one does.
pub fn run() -> Result<()> {
    let mut times = Vec::new();
    let project = Project::locate()?;
    for (name, check) in AT_ONCE {
        times.push((name, timed(name, || check(&project))?.1));
    }
    let (toolbox, time) = timed("set-up", Toolbox::ensure_for_tests)?;
    times.push(("set-up", time));
    for (name, check) in WITH_TOOLS {
        times.push((name, timed(name, || check(&toolbox))?.1));
    }
    output::say("\nEverything passed:");
    for (name, time) in &times {
        output::say(format!("  {:>8}  {name}", output::seconds(*time)));
    }
    let total: Duration = times.iter().map(|(_, time)| *time).sum();
    output::say(format!("  {:>8}  in all", output::seconds(total)));
    Ok(())
}

fn timed<T>(name: &str, check: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    output::say(format!("\n== {name}"));
    let watch = Stopwatch::start();
    let found = check().with_context(|| format!("Failed: {name}"))?;
    output::say(format!("== {name}: ok, {}", output::seconds(watch.elapsed())));
    Ok((found, watch.elapsed()))
}

fn format(project: &Project) -> Result<()> {
    run::shown(project.cargo().args(["fmt", "--all", "--check"])).context("Run cargo fmt.")
}

/// What the two Workers agree on must stay usable without either, and without a JavaScript runtime.
fn protocol_is_pure(project: &Project) -> Result<()> {
    let mut tree = project.cargo();
    tree.args(["tree", "--package", "protocol", "--edges", "normal", "--target", "all", "--prefix", "none"]);
    let tree = run::output_of(&mut tree)?;
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let platform: Vec<_> =
        names.filter(|name| ["worker", "js-sys", "wasm-bindgen", "getrandom"].contains(name)).collect();
    ensure!(platform.is_empty(), "The crate protocol must not depend on {}.", platform.join(", "));
    Ok(())
}

fn clippy(toolbox: &Toolbox) -> Result<()> {
    let mut cargo = toolbox.project.cargo();
    cargo.args(["clippy", "--quiet", "--workspace", "--all-targets"]);
    // The Workers' own code once more, for the simulation, without what its tests need.
    cargo.args(["--exclude", "producer-core", "--exclude", "consumer-core"]);
    cargo.args(["--", "--deny", "warnings"]);
    run::shown(&mut cargo)
}

/// The shells of the Workers exist only for wasm32.
fn clippy_wasm(toolbox: &Toolbox) -> Result<()> {
    let mut cargo = toolbox.wasm_command("cargo");
    cargo.args(["clippy", "--quiet", "--target", TARGET]);
    for worker in Worker::ALL {
        cargo.args(["--package", worker.name()]);
    }
    run::shown(cargo.args(["--", "--deny", "warnings"]))
}

fn unit_tests(toolbox: &Toolbox) -> Result<()> {
    run::shown(toolbox.project.cargo().args(["test", "--quiet"]))
}

/// In the toolchain that builds the Workers, since it builds a part of one.
fn constant_time(toolbox: &Toolbox) -> Result<()> {
    run::shown(toolbox.wasm_command("cargo").args(["test", "--quiet", "--package", "constant-time"]))
}

fn dry_deploys(toolbox: &Toolbox) -> Result<()> {
    Worker::ALL.iter().try_for_each(|&worker| dry_deploy(&toolbox.project, worker))
}

/// Reads the configuration and bundles the Worker as a deployment would; needs no account.
fn dry_deploy(project: &Project, worker: Worker) -> Result<()> {
    let mut wrangler = project.wrangler(project.root());
    wrangler
        .args(["deploy", "--dry-run", "--config"])
        .arg(project.wrangler_config(worker))
        .arg("--outdir")
        .arg(project.target().join("dry-deploy").join(worker.name()))
        .env("WRANGLER_LOG_PATH", project.target().join("dry-deploy/logs"));
    let said = run::output_of(&mut wrangler)?;
    output::say(format!("{}:\n{}", worker.name(), said.trim()));
    Ok(())
}

/// The runtime's own Queue, R2 and D1.
fn end_to_end(toolbox: &Toolbox) -> Result<()> {
    run::shown(toolbox.project.cargo().args(["test", "--quiet", "--package", "e2e"]))
}

/// By itself, because it keeps both cores busy, and what else runs then would be late.
fn as_described(toolbox: &Toolbox) -> Result<()> {
    by_itself(toolbox, "description")
}

/// A file of end-to-end tests that are ignored otherwise.
fn by_itself(toolbox: &Toolbox, test: &str) -> Result<()> {
    let mut cargo = toolbox.project.cargo();
    run::shown(cargo.args(["test", "--quiet", "--package", "e2e", "--test", test, "--", "--ignored"]))
}

/// Its form, its types, its tests without a network, its packages; then its tests on the runtime.
fn python_client(toolbox: &Toolbox) -> Result<()> {
    let project = &toolbox.project;
    run::shown(&mut client_python(project, &["ruff", "check", "--quiet"]))?;
    run::shown(&mut client_python(project, &["ruff", "format", "--check", "--quiet"]))
        .context("Run ruff format.")?;
    run::shown(&mut client_python(project, &["mypy"]))?;
    run::shown(&mut client_python(project, &["pytest", "--quiet"]))?;
    client_packages(project)?;
    by_itself(toolbox, "python_client")
}

/// A module of Python's, run in the client's folder; what it keeps for the next time is elsewhere.
fn client_python(project: &Project, module: &[&str]) -> Command {
    let folder = client_folder(project);
    let mut command = Command::new(python::CLIENT.python(project));
    command
        .arg("-m")
        .args(module)
        .current_dir(project.root().join("clients/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("MYPY_CACHE_DIR", folder.join("mypy"))
        .env("RUFF_CACHE_DIR", folder.join("ruff"));
    command
}

fn client_folder(project: &Project) -> PathBuf {
    project.target().join("python-client")
}

/// Builds the source distribution, of it the wheel, and runs the command that is in it.
fn client_packages(project: &Project) -> Result<()> {
    let folder = client_folder(project).join("dist");
    if folder.exists() {
        // What an earlier version left would be taken for this one.
        fs::remove_dir_all(&folder)?;
    }
    // With the hatchling that is there: another would have to be fetched.
    let mut build = client_python(project, &["build", "--no-isolation", "--outdir"]);
    run::output_of(build.arg(&folder))?;
    let files = fs::read_dir(&folder)?.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    let is_wheel = |file: &&PathBuf| file.extension().is_some_and(|extension| extension == "whl");
    let wheel = files.iter().find(is_wheel).context("no wheel was built")?;
    // Python takes modules from a wheel as it is.
    let mut command = client_python(project, &["r2_deletion_queue", "--version"]);
    let version = run::output_of(command.env("PYTHONPATH", wheel))?;
    output::say(format!("{}: {}", wheel.display(), version.trim()));
    Ok(())
}

/// Services of ours that fail on demand. These tests mostly wait: more of them than cores run side by side.
fn under_faults(toolbox: &Toolbox) -> Result<()> {
    let mut cargo = toolbox.project.cargo();
    run::shown(cargo.args(["test", "--quiet", "--package", "crash"]).env("RUST_TEST_THREADS", "8"))
}
