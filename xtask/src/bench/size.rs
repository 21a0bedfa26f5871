//! What the wasm of each Worker is made of: the code of every crate, and what is data.
//!
//! The Workers are built once more, with the names of their functions, before wasm-bindgen and wasm-opt: sizes are larger than
//! what is shipped, and their parts are what can be compared. A function that was inlined counts for the crate that calls it.

use std::{collections::BTreeMap, fmt::Write, fs};

use anyhow::{Context, Result};
use rustc_demangle::demangle;
use wasmparser::{BinaryReaderError, KnownCustom, Name, Parser, Payload, TypeRef};

use crate::{
    bench::report::figure,
    project::{Project, Worker},
    run,
    setup::{TARGET, Toolbox},
    workers,
};

/// Crates of this repository.
const OURS: [&str; 5] = ["producer", "consumer", "ledger", "protocol", "scan"];

/// Takes a linker's flag away that leaves the names out.
const STRIPS: &str = "strip-all";

/// Builds both with names, and says what they are made of.
///
/// # Errors
/// When one does not compile, or its wasm cannot be read.
pub(super) fn table(toolbox: &Toolbox) -> Result<String> {
    let project = &toolbox.project;
    let folder = project.target().join("wasm-with-names");
    let mut build = toolbox.wasm_command("cargo");
    build.args(["build", "--lib", "--quiet", "--release", "--target", TARGET]);
    for worker in Worker::ALL {
        build.args(["--package", worker.name()]);
    }
    build
        .env("CARGO_TARGET_DIR", &folder)
        .env("CARGO_PROFILE_RELEASE_STRIP", "false")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(project)?);
    run::shown(&mut build)?;
    let mut table = "| Worker | shipped, KB | part | of code and data |\n|---|--:|---|--:|".to_owned();
    for worker in Worker::ALL {
        let wasm = fs::read(folder.join(TARGET).join("release").join(format!("{}.wasm", worker.name())))?;
        let shipped = fs::metadata(workers::wasm(project, worker))?.len();
        let mut parts: Vec<_> = parts(&wasm)?.into_iter().collect();
        let sum: usize = parts.iter().map(|(_, bytes)| bytes).sum();
        parts.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
        for (at, (part, bytes)) in parts.iter().enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "a wasm is smaller than 2^52 bytes")]
            let (percent, shipped) = (*bytes as f64 * 100.0 / sum as f64, figure(shipped as f64 / 1_000.0));
            let (name, shipped) = if at == 0 { (worker.name(), shipped) } else { ("", String::new()) };
            // OK because writing to a String does not fail.
            let _ = write!(table, "\n| {name} | {shipped} | {part} | {} % |", figure(percent));
        }
    }
    Ok(table)
}

/// The flags of every build for wasm, but that which leaves the names out.
fn rustflags(project: &Project) -> Result<String> {
    let config: toml::Table = fs::read_to_string(project.root().join(".cargo/config.toml"))?.parse()?;
    let flags = config.get("target").and_then(|targets| targets.get(TARGET)?.get("rustflags")?.as_array());
    let flags = flags.context(".cargo/config.toml has no flags for wasm")?;
    let kept = flags.iter().filter_map(toml::Value::as_str).filter(|flag| !flag.contains(STRIPS));
    Ok(kept.collect::<Vec<_>>().join("\u{1f}"))
}

/// The bytes of each part of a module: the code by whose it is, and the data.
fn parts(wasm: &[u8]) -> Result<BTreeMap<&'static str, usize>, BinaryReaderError> {
    let (mut imported, mut bodies, mut names, mut parts) = (0, Vec::new(), BTreeMap::new(), BTreeMap::new());
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    imported += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                }
            }
            Payload::CodeSectionEntry(body) => bodies.push(body.range().len()),
            Payload::DataSection(data) => {
                parts.insert("data: SQL, texts, tables", data.range().len());
            }
            Payload::CustomSection(section) => {
                let KnownCustom::Name(sections) = section.as_known() else { continue };
                for section in sections {
                    let Name::Function(map) = section? else { continue };
                    for naming in map {
                        let naming = naming?;
                        names.insert(naming.index, format!("{:#}", demangle(naming.name)));
                    }
                }
            }
            _ => {}
        }
    }
    for (index, bytes) in (imported..).zip(bodies) {
        let name = names.get(&index).map_or("", String::as_str);
        // What describes the border to wasm-bindgen is gone from what is shipped.
        if !name.contains("__wbindgen_describe") {
            *parts.entry(whose(name)).or_default() += bytes;
        }
    }
    Ok(parts)
}

/// Whose a function is, by its path: `<a::T as b::U>::f` is `a`'s.
fn whose(name: &str) -> &'static str {
    let begin = name
        .trim_start_matches(['<', '&', '(', '[', '*'])
        .trim_start_matches("mut ")
        .trim_start_matches("dyn ");
    let first = begin.split("::").next().unwrap_or_default();
    match first {
        ours if OURS.contains(&ours) => "code of these Workers",
        "serde_json" | "serde_core" | "serde" | "zmij" | "itoa" => "code of serde and serde_json",
        "js_sys" | "wasm_bindgen" | "wasm_bindgen_futures" | "web_sys" | "worker" | "worker_sys" => {
            "code at the border to JavaScript"
        }
        "core" | "alloc" | "std" | "dlmalloc" | "hashbrown" | "compiler_builtins" => {
            "code of Rust's own library"
        }
        _ => "code of other crates, and of no known one",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_its_types_crates() {
        for (name, of) in [
            ("producer::router::answer", "code of these Workers"),
            ("<ledger::d1::D1 as ledger::database::Database>::batch", "code of these Workers"),
            (
                "<&mut serde_json::de::Deserializer<R> as serde_core::de::Deserializer>::deserialize_map",
                "code of serde and serde_json",
            ),
            ("<[T] as core::fmt::Debug>::fmt", "code of other crates, and of no known one"),
            ("core::fmt::write", "code of Rust's own library"),
        ] {
            assert_eq!(whose(name), of, "{name}");
        }
    }
}
