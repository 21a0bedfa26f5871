//! The ledger's schema in a stack's state.
//!
//! `wrangler d1 migrations apply` takes two seconds, and every end-to-end test starts on an empty state. So it runs
//! once for every set of migrations, and an empty state gets a copy of what came out.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    config::{Configs, first, text},
    files::copy_folder,
};
use crate::{project::Project, run, setup};

/// Where the local runtime keeps databases, in its state.
const DATABASES: &str = "v3/d1";

/// Brings the schema in `state` up to date.
pub(super) fn ensure(project: &Project, configs: &Configs, state: &Path) -> Result<()> {
    let key = key(project, configs)?;
    let mark = state.join("migrated");
    if fs::read_to_string(&mark).is_ok_and(|found| found == key) {
        return Ok(());
    }
    if state.join(DATABASES).exists() {
        apply(project, configs, state)?;
    } else {
        let template = template(project, configs, &key)?;
        copy_folder(&template.join(DATABASES), &state.join(DATABASES))?;
    }
    fs::write(&mark, key)?;
    Ok(())
}

/// A state that holds nothing but the schema.
fn template(project: &Project, configs: &Configs, key: &str) -> Result<PathBuf> {
    let template = project.tools().join("migrated").join(key);
    let _lock = setup::lock(project, "migrations")?;
    if !template.exists() {
        let unfinished = template.with_extension("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        apply(project, configs, &unfinished)?;
        fs::rename(&unfinished, &template)?;
    }
    Ok(template)
}

fn apply(project: &Project, configs: &Configs, state: &Path) -> Result<()> {
    let folder = state.join("configs");
    configs.write(&folder)?;
    let producer = Configs::file(&folder, &configs.producer)?;
    let mut wrangler = project.wrangler(&folder);
    wrangler
        .args(["d1", "migrations", "apply", "--local"])
        .arg(text(first(&configs.producer, "d1_databases")?, "database_name")?)
        .arg("--config")
        .arg(producer)
        .arg("--persist-to")
        .arg(state)
        .env("WRANGLER_LOG_PATH", state.join("wrangler-logs"));
    run::output_of(&mut wrangler).context("The ledger's migrations cannot be applied.").map(drop)
}

/// Names the migrations, the database they are for, and the tool that applies them.
fn key(project: &Project, configs: &Configs) -> Result<String> {
    let database = first(&configs.producer, "d1_databases")?;
    let folder = text(database, "migrations_dir")?;
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("{folder} cannot be read"))?;
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.file_name().hash(&mut hasher);
        fs::read(&file)?.hash(&mut hasher);
    }
    text(database, "database_id")?.hash(&mut hasher);
    setup::fingerprint(project).hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}
