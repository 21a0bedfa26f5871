//! rclone, for a comparison: the machine's own, or else Debian's, unpacked inside the project and not installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    Site,
    debian::{self, Apt},
    output, run,
};

/// A rclone that runs.
///
/// # Errors
/// When the machine has none and Debian's cannot be had.
pub(super) fn ensure(site: &Site<'_>) -> Result<PathBuf> {
    let own = PathBuf::from("rclone");
    if runs(&own) {
        return Ok(own);
    }
    let folder = site.tools().join("rclone");
    let rclone = folder.join("usr/bin/rclone");
    if runs(&rclone) {
        return Ok(rclone);
    }
    anyhow::ensure!(debian::is_here(), "rclone is not installed, and this is no Debian to have it from");
    fs::create_dir_all(&folder)?;
    output::step("rclone, from Debian", "5 to 30 s", || unpack(site, &folder))?;
    anyhow::ensure!(runs(&rclone), "Debian's rclone does not run here");
    Ok(rclone)
}

fn unpack(site: &Site<'_>, folder: &Path) -> Result<()> {
    let lists = folder.join("apt");
    let apt = Apt::update(site, lists.clone())?;
    site.run(apt.command("apt-get").args(["download", "rclone"]).current_dir(folder), "rclone-download")?;
    fs::remove_dir_all(lists)?;
    let archives: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let archive = archives.iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let archive = archive.context("apt has downloaded no package")?;
    site.run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(folder), "rclone-unpack")?;
    fs::remove_file(archive).context("the package cannot be removed")
}

fn runs(rclone: &Path) -> bool {
    run::succeeds(Command::new(rclone).arg("version"))
}
