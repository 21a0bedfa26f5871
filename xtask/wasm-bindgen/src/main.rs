//! The `wasm-bindgen` command, as far as `worker-build` uses it.
//!
//! `wasm-bindgen-cli` takes four minutes to compile on two cores, nearly all of it for HTTP servers, TLS and a test
//! runner that no build of ours starts. What does the work is its library; this puts a command line on it.
//!
//! # In scope
//! Exactly the options that `worker-build` passes. Any other is refused, so that a new `worker-build` cannot have an
//! option silently ignored.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, bail};
use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<()> {
    let mut bindgen = Bindgen::new();
    let out_dir = configure(&mut bindgen, env::args().skip(1))?;
    bindgen.generate(out_dir)
}

/// Applies the options to `bindgen` and returns the folder to write to.
fn configure(bindgen: &mut Bindgen, mut args: impl Iterator<Item = String>) -> Result<PathBuf> {
    let mut out_dir = None;
    let mut input = None;
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--out-dir" => out_dir = Some(PathBuf::from(value()?)),
            "--out-name" => _ = bindgen.out_name(&value()?),
            "--target" => match value()?.as_str() {
                "module" => _ = bindgen.module(true)?,
                "bundler" => _ = bindgen.bundler(true)?,
                other => bail!("--target {other} is not one that worker-build uses"),
            },
            "--no-typescript" => _ = bindgen.typescript(false),
            "--debug" => _ = bindgen.debug(true),
            "--no-demangle" => _ = bindgen.demangle(false),
            "--keep-debug" => _ = bindgen.keep_debug(true),
            "--omit-default-module-path" => _ = bindgen.omit_default_module_path(true),
            "--split-linked-modules" => _ = bindgen.split_linked_modules(true),
            "--experimental-reset-state-function" => _ = bindgen.reset_state_function(true),
            "--force-enable-abort-handler" => _ = bindgen.force_enable_abort_handler(true),
            option if option.starts_with('-') => bail!("{option} is not an option that worker-build uses"),
            path => input = Some(path.to_owned()),
        }
    }
    bindgen.input_path(input.context("no .wasm file was named")?);
    out_dir.context("--out-dir is missing")
}
