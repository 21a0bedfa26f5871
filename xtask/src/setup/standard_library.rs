//! The standard library for wasm32, built from Debian's sources by Debian's compiler.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    Site, debian,
    wasm_target::{TARGET, with_first},
};

/// A crate that needs nothing but the library, so that cargo builds it.
const MANIFEST: &str =
    "[package]\nname = \"empty\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n";

/// Builds the library and puts it where the compiler at `usr` looks for it.
pub(super) fn build(site: &Site<'_>, usr: &Path) -> Result<()> {
    let folder = site.tools().join("build/standard-library");
    fs::create_dir_all(folder.join("src"))?;
    fs::write(folder.join("Cargo.toml"), MANIFEST)?;
    fs::write(folder.join("src/lib.rs"), "#![no_std]\n")?;
    let target = folder.join("target");
    let mut cargo = std::process::Command::new(usr.join("bin/cargo"));
    debian::environment(&mut cargo, usr);
    cargo
        .args(["build", "--release", "-Zbuild-std=std,panic_abort", "--target", TARGET])
        .current_dir(&folder)
        .env("PATH", with_first(&[usr.join("bin")], "PATH"))
        .env("CARGO_TARGET_DIR", &target)
        // A distribution's compiler is of the stable channel; building its own library is the one thing that needs this.
        .env("RUSTC_BOOTSTRAP", "1")
        // Without the bitcode the Workers' link-time optimisation fails: "Can't find section .llvmbc".
        .env("RUSTFLAGS", "-Cembed-bitcode=yes")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    site.run(&mut cargo, "standard-library").context(
        "The standard library for wasm32 cannot be built. Is crates.io in reach? Then run this again.",
    )?;
    let libraries = usr.join("lib/rustlib").join(TARGET).join("lib");
    install(&target.join(TARGET).join("release/deps"), &libraries)?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}

fn install(built: &Path, libraries: &Path) -> Result<()> {
    fs::create_dir_all(libraries)?;
    for entry in fs::read_dir(built)? {
        let path = entry?.path();
        if let Some(name) = library_name(&path) {
            fs::rename(&path, libraries.join(name))?;
        }
    }
    Ok(())
}

/// The file name of a library, and not of the crate that only asked for it.
fn library_name(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?;
    let is_library = path.extension()? == "rlib" && !name.to_string_lossy().starts_with("libempty-");
    is_library.then(|| PathBuf::from(name))
}
