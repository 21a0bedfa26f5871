//! What the Workers are started with: the configurations that are deployed, as far as a local runtime can follow them.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use toml::{Table, Value};

use super::files::copy_folder;
use crate::project::{Project, Worker};

/// How the keys of a project begin in a stack, where the deployment does not say: the example of the README.
pub const PROJECT_TEMPLATES: [&str; 5] =
    ["proj_{id}/", "proj_{id}_", "proj_proj_{id}/", "proj_proj_{id}_", "projects/{id}/"];

/// Where a stack answers the S3 protocol, after [`Configs::serve_s3`].
pub const S3_PATH: &str = "/cdn-cgi/local/r2/s3";

/// One wrangler configuration for each Worker of a stack.
#[derive(Debug, Clone)]
pub struct Configs {
    /// The gateway's: made up here, since it is never deployed.
    pub gateway: Table,
    /// The producer's.
    pub producer: Table,
    /// The consumer's.
    pub consumer: Table,
    /// Those of further Workers, which a test may add.
    pub further: Vec<Table>,
    /// The producer's secrets beside `API_TOKEN`.
    pub secrets: BTreeMap<String, String>,
    /// The consumer's secrets.
    pub consumer_secrets: BTreeMap<String, String>,
}

impl Configs {
    /// Reads what is deployed and changes what a copy in another folder needs: the paths, and the build, which is done.
    /// Where the deployment knows no projects, this one does.
    ///
    /// # Errors
    /// When a configuration cannot be read or lacks what the gateway needs to know.
    pub fn derive(project: &Project) -> Result<Self> {
        let mut producer = deployed(project, Worker::Producer)?;
        let vars = producer.entry("vars").or_insert_with(|| Table::new().into());
        let vars = vars.as_table_mut().context("the producer's vars are no table")?;
        vars.entry("PROJECT_TEMPLATES").or_insert_with(|| PROJECT_TEMPLATES.to_vec().into());
        let consumer = deployed(project, Worker::Consumer)?;
        let gateway = gateway(project, &producer, &consumer)?;
        let (secrets, consumer_secrets) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { gateway, producer, consumer, further: Vec::new(), secrets, consumer_secrets })
    }

    /// How the consumer takes messages from `queue`: `max_retries` and its like.
    pub fn consumer_of(&mut self, queue: &str) -> Option<&mut Table> {
        let consumers = self.consumer.get_mut("queues")?.get_mut("consumers")?.as_array_mut()?;
        let mut tables = consumers.iter_mut().filter_map(Value::as_table_mut);
        tables.find(|table| table.get("queue").and_then(Value::as_str) == Some(queue))
    }

    /// Lets the bucket be reached by the S3 protocol, too: under [`S3_PATH`], with these credentials and no others.
    ///
    /// # Errors
    /// When no bucket is configured.
    pub fn serve_s3(&mut self, access_key_id: &str, secret_access_key: &str) -> Result<()> {
        let buckets = self.gateway.get_mut("r2_buckets").and_then(Value::as_array_mut);
        let bucket = buckets.and_then(|buckets| buckets.first_mut()?.as_table_mut());
        let credentials = Table::from_iter([
            ("accessKeyId".to_owned(), access_key_id.into()),
            ("secretAccessKey".to_owned(), secret_access_key.into()),
        ]);
        let local = Table::from_iter([("experimental_s3_credentials".to_owned(), credentials.into())]);
        bucket.context("the gateway has no bucket")?.insert("local_dev".to_owned(), local.into());
        Ok(())
    }

    /// The name of the bucket that is deleted from.
    ///
    /// # Errors
    /// When no bucket is configured.
    pub fn bucket(&self) -> Result<&str> {
        text(first(&self.consumer, "r2_buckets")?, "bucket_name")
    }

    /// Gives the Workers the secrets that they are deployed with, in the files that wrangler reads secrets from: a variable
    /// would be printed.
    pub(super) fn write_secrets(&self, folder: &Path, token: &str) -> Result<()> {
        let token = format!("API_TOKEN={}\n", Value::from(token));
        for (worker, mut lines, secrets) in
            [(&self.producer, token, &self.secrets), (&self.consumer, String::new(), &self.consumer_secrets)]
        {
            for (name, secret) in secrets {
                // Between single quotes nothing has a meaning but they themselves.
                ensure!(!secret.contains('\''), "the secret {name} has a single quote in it");
                writeln!(lines, "{name}='{secret}'")?;
            }
            let folder = folder.join(text(worker, "name")?);
            fs::create_dir_all(&folder)?;
            fs::write(folder.join(".dev.vars"), lines)?;
        }
        Ok(())
    }

    /// Copies the two builds into `folder` and uses the copies.
    pub(super) fn keep_copies(&mut self, folder: &Path) -> Result<()> {
        for config in [&mut self.producer, &mut self.consumer] {
            let main = PathBuf::from(text(config, "main")?);
            let built = main.parent().context("main is in no folder")?;
            let kept = folder.join(text(config, "name")?);
            copy_folder(built, &kept)?;
            let main = kept.join(main.file_name().context("main is no file")?);
            config.insert("main".to_owned(), main.to_string_lossy().into_owned().into());
        }
        Ok(())
    }

    /// Writes them into `folder`. The first of the files returned is the one that answers.
    pub(super) fn write(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let all = [&self.gateway, &self.producer, &self.consumer].into_iter().chain(&self.further);
        let mut files = Vec::new();
        for table in all {
            let file = Self::file(folder, table)?;
            file.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&file, toml::to_string(table)?)?;
            files.push(file);
        }
        Ok(files)
    }

    /// Where the configuration of one Worker is written: a folder each, since wrangler reads secrets beside it.
    pub(super) fn file(folder: &Path, config: &Table) -> Result<PathBuf> {
        Ok(folder.join(text(config, "name")?).join("wrangler.toml"))
    }
}

fn deployed(project: &Project, worker: Worker) -> Result<Table> {
    let path = project.wrangler_config(worker);
    let file = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut config: Table = file.parse().with_context(|| format!("{} is no TOML", path.display()))?;
    config.remove("build");
    absolute(project, &mut config, "main");
    if let Some(assets) = config.get_mut("assets").and_then(Value::as_table_mut) {
        absolute(project, assets, "directory");
    }
    let databases = config.get_mut("d1_databases").and_then(Value::as_array_mut).into_iter().flatten();
    for database in databases.filter_map(Value::as_table_mut) {
        absolute(project, database, "migrations_dir");
    }
    Ok(config)
}

/// Turns a path that counts from the root into one that counts from nowhere.
fn absolute(project: &Project, table: &mut Table, key: &str) {
    if let Some(Value::String(path)) = table.get_mut(key) {
        *path = project.root().join(&*path).to_string_lossy().into_owned();
    }
}

/// The gateway is bound to whatever the two Workers are bound to.
fn gateway(project: &Project, producer: &Table, consumer: &Table) -> Result<Table> {
    let producer_name = text(producer, "name")?;
    let date = text(producer, "compatibility_date")?;
    let bucket = text(first(consumer, "r2_buckets")?, "bucket_name")?;
    let database = first(consumer, "d1_databases")?;
    let queues = consumer.get("queues").and_then(Value::as_table).context("the consumer has no queues")?;
    let queue = first(queues, "consumers")?;
    let main = project.root().join("xtask/stack/gateway.js");
    toml::from_str(&format!(
        r#"
        name = "gateway"
        main = {main}
        compatibility_date = "{date}"
        services = [{{ binding = "PRODUCER", service = "{producer_name}" }}]
        r2_buckets = [{{ binding = "BUCKET", bucket_name = "{bucket}" }}]
        d1_databases = [{{ binding = "LEDGER", database_name = "{}", database_id = "{}" }}]
        queues.producers = [
            {{ binding = "DELETIONS", queue = "{}" }},
            {{ binding = "DEAD_LETTERS", queue = "{}" }},
        ]
        "#,
        text(database, "database_name")?,
        text(database, "database_id")?,
        text(queue, "queue")?,
        text(queue, "dead_letter_queue")?,
        main = Value::from(main.to_string_lossy().into_owned()),
    ))
    .context("the gateway's configuration cannot be made")
}

/// The first table of a list of tables.
pub(super) fn first<'a>(table: &'a Table, key: &str) -> Result<&'a Table> {
    let list = table.get(key).and_then(Value::as_array);
    list.and_then(|list| list.first()?.as_table())
        .with_context(|| format!("the configuration lists no {key}"))
}

/// A text that must be there.
pub(super) fn text<'a>(table: &'a Table, key: &str) -> Result<&'a str> {
    table.get(key).and_then(Value::as_str).with_context(|| format!("the configuration does not say {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deployed_configurations_are_followed() {
        let project = Project::locate().unwrap();
        let mut configs = Configs::derive(&project).unwrap();
        assert!(configs.producer.get("build").is_none());
        assert!(Path::new(text(&configs.consumer, "main").unwrap()).is_absolute());
        assert!(
            Path::new(text(first(&configs.producer, "d1_databases").unwrap(), "migrations_dir").unwrap())
                .is_dir()
        );

        let queue = text(first(configs.gateway["queues"].as_table().unwrap(), "producers").unwrap(), "queue")
            .unwrap();
        let queue = queue.to_owned();
        assert!(configs.consumer_of(&queue).unwrap().contains_key("max_retries"));
        assert!(configs.consumer_of("another").is_none());
    }

    #[test]
    fn a_stack_knows_projects() {
        let configs = Configs::derive(&Project::locate().unwrap()).unwrap();
        let templates = configs.producer["vars"]["PROJECT_TEMPLATES"].as_array().unwrap();
        assert!(templates.iter().all(|template| template.as_str().unwrap().contains("{id}")));
    }

    #[test]
    fn the_bucket_is_reached_by_s3_where_that_was_asked_for() {
        let mut configs = Configs::derive(&Project::locate().unwrap()).unwrap();
        let local = |configs: &Configs| {
            first(&configs.gateway, "r2_buckets").unwrap().get("local_dev").map(ToString::to_string)
        };
        assert_eq!(local(&configs), None);
        configs.serve_s3("id", "secret").unwrap();
        let expected =
            r#"{ experimental_s3_credentials = { accessKeyId = "id", secretAccessKey = "secret" } }"#;
        assert_eq!(local(&configs).as_deref(), Some(expected));
    }

    #[test]
    fn secrets_are_written_where_their_worker_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut configs = Configs::derive(&Project::locate().unwrap()).unwrap();
        configs.secrets.insert("LIST".to_owned(), r#"["a"]"#.to_owned());
        configs.consumer_secrets.insert("KEY".to_owned(), "b c".to_owned());
        configs.write_secrets(folder.path(), "secret").unwrap();
        let read = |worker| {
            let file = folder.path().join(text(worker, "name").unwrap()).join(".dev.vars");
            fs::read_to_string(file).unwrap()
        };
        assert_eq!(read(&configs.producer), "API_TOKEN=\"secret\"\nLIST='[\"a\"]'\n");
        assert_eq!(read(&configs.consumer), "KEY='b c'\n");
    }

    #[test]
    fn every_worker_has_its_file_and_the_gateway_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let files = Configs::derive(&Project::locate().unwrap()).unwrap().write(folder.path()).unwrap();
        assert_eq!(files.len(), 3);
        assert!(files[0].ends_with("gateway/wrangler.toml"));
    }
}
