//! What speaks MongoDB's protocol, as a process: MongoDB itself is on no registry.

use std::{
    fs::{self, File},
    net::TcpStream,
    path::Path,
    process::{Child, Stdio},
};

use anyhow::{Context, Result};

use super::{PATIENCE, free_port, service};
use crate::{clock::wait_for, project::Project, run::tail};

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Mongo {
    child: Child,
    port: u16,
}

impl Mongo {
    /// Starts an empty one: a single server, which has no transactions.
    pub(super) fn start(project: &Project, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (port, path) = (free_port()?, folder.join("server.log"));
        let log = File::create(&path)?;
        let child = service::python(project)
            .args(["-m", "secantus", "--standalone", "--sync-on-commit", "--log-level", "WARNING"])
            .args(["--port", &port.to_string(), "--storage-path"])
            .arg(folder.join("data"))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("SecantusDB cannot be started. Run cargo xtask setup.")?;
        let server = Self { child, port };
        let up = wait_for(PATIENCE, || Ok(TcpStream::connect(("127.0.0.1", port)).ok()))?;
        up.with_context(|| {
            format!("SecantusDB does not answer:\n{}", tail(&fs::read_to_string(&path).unwrap_or_default()))
        })?;
        Ok(server)
    }

    /// Where it is, for the setting `MONGO_URL`.
    pub(super) fn url(&self) -> String {
        format!("mongodb://127.0.0.1:{}", self.port)
    }
}

impl Drop for Mongo {
    fn drop(&mut self) {
        // OK because the one error there can be says that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
