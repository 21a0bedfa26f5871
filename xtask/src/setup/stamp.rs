//! The mark of a step that was done completely.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use super::Project;

/// A step's mark: present only with the key it was done for.
#[derive(Debug)]
pub(crate) struct Stamp {
    path: PathBuf,
    key: String,
}

impl Stamp {
    /// The mark of `step` for `key`, which names everything whose change means doing the step again.
    pub(crate) fn new(project: &Project, step: &str, key: impl Into<String>) -> Self {
        Self { path: project.tools().join("stamps").join(step), key: key.into() }
    }

    /// Whether the step has been done for this key.
    pub(crate) fn is_set(&self) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|found| found == self.key)
    }

    /// Takes the mark away, before the step touches what an earlier run left.
    pub(crate) fn clear(&self) {
        // OK because a mark that is not there is as good as one taken away; any other trouble shows in `set`.
        let _ = fs::remove_file(&self.path);
    }

    /// Marks the step as done.
    pub(crate) fn set(&self) -> Result<()> {
        let written = self.path.parent().map_or(Ok(()), fs::create_dir_all);
        written
            .and_then(|()| fs::write(&self.path, &self.key))
            .with_context(|| format!("{} cannot be written", self.path.display()))
    }
}
