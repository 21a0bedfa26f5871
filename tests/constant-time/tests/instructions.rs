//! A token is compared in as many instructions however much of a guess is right. Counted, not timed: in wasm, which is what
//! runs, by an interpreter that burns fuel for every instruction.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use sha2::{Digest as _, Sha256};
use wasmi::{CompilationMode, Config, Engine, Instance, Linker, Module, Store};

const FUEL: u64 = 1 << 40;

/// Builds the probe as a Worker is built, and has wasm-opt at it as at a Worker where there is one.
fn probe() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .current_dir(&root)
        .args(["build", "--quiet", "--release", "--target", "wasm32-unknown-unknown"])
        .args(["--package", "constant-time-probe"])
        .env("CARGO_TARGET_DIR", &target)
        .status();
    assert!(
        built.unwrap().success(),
        "the probe cannot be built for wasm32: cargo xtask test has what it takes"
    );
    let wasm = target.join("wasm32-unknown-unknown/release/constant_time_probe.wasm");
    let Some(wasm_opt) = env::var_os("WASM_OPT_BIN") else { return wasm };
    let optimised = wasm.with_extension("opt.wasm");
    let optimise = Command::new(wasm_opt)
        .args(["-Oz", "--one-caller-inline-max-function-size=30"])
        .arg(&wasm)
        .arg("-o")
        .arg(&optimised)
        .status();
    assert!(optimise.unwrap().success());
    optimised
}

/// The probe, to be started.
struct Probe {
    engine: Engine,
    module: Module,
}

impl Probe {
    fn load(wasm: &Path) -> Self {
        let mut config = Config::default();
        // What is compiled when it is first called burns fuel then.
        config.consume_fuel(true).compilation_mode(CompilationMode::Eager);
        let engine = Engine::new(&config);
        let module = Module::new(&engine, fs::read(wasm).unwrap()).unwrap();
        Self { engine, module }
    }

    /// Starts it anew, because what its allocator does depends on what it has done.
    fn start(&self) -> Started {
        let mut store = Store::new(&self.engine, ());
        store.set_fuel(FUEL).unwrap();
        let instance = Linker::new(&self.engine).instantiate_and_start(&mut store, &self.module).unwrap();
        Started { store, instance }
    }

    /// All that these differ in is not to be seen: one verdict, and one number of instructions.
    fn assert_same(&self, what: &str, verdict: u32, asked: impl IntoIterator<Item = (String, String)>) {
        let found: BTreeSet<_> =
            asked.into_iter().map(|(tokens, header)| self.start().authenticate(&tokens, &header)).collect();
        assert_eq!(found.len(), 1, "{what}: verdicts and numbers of instructions: {found:?}");
        assert!(found.iter().all(|(found, fuel)| *found == verdict && *fuel > 1_000), "{what}: {found:?}");
    }
}

/// The probe at work.
struct Started {
    store: Store<()>,
    instance: Instance,
}

impl Started {
    fn give(&mut self, text: &str) {
        let give = self.instance.get_typed_func::<(u64, u32), ()>(&self.store, "give").unwrap();
        for some in text.as_bytes().chunks(8) {
            let mut bytes = [0; 8];
            bytes[..some.len()].copy_from_slice(some);
            let count = u32::try_from(some.len()).unwrap();
            give.call(&mut self.store, (u64::from_le_bytes(bytes), count)).unwrap();
        }
    }

    /// From the header to the verdict: the verdict, and how many instructions that took.
    fn authenticate(&mut self, tokens: &str, header: &str) -> (u32, u64) {
        self.give(tokens);
        let set_tokens = self.instance.get_typed_func::<(), u32>(&self.store, "set_tokens").unwrap();
        assert_eq!(set_tokens.call(&mut self.store, ()).unwrap(), 1, "{tokens}");
        self.give(header);
        let set_header = self.instance.get_typed_func::<(), ()>(&self.store, "set_header").unwrap();
        set_header.call(&mut self.store, ()).unwrap();
        self.store.set_fuel(FUEL).unwrap();
        let authenticate = self.instance.get_typed_func::<(), u32>(&self.store, "authenticate").unwrap();
        let verdict = authenticate.call(&mut self.store, ()).unwrap();
        (verdict, FUEL - self.store.get_fuel().unwrap())
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// `API_TOKENS` with three tokens, of which the second is being rotated; and these digests, in order.
fn tokens(digests: &[[u8; 32]; 4]) -> String {
    let hex = |digest: &[u8; 32]| digest.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let [a, b, c, d] = digests.each_ref().map(hex);
    format!(
        r#"[{{"name":"a","sha256":"{a}"}},{{"name":"b","sha256":["{b}","{c}"]}},{{"name":"c","sha256":"{d}"}}]"#
    )
}

/// Digests of no token that is tried.
fn others() -> [[u8; 32]; 4] {
    ["other-1", "other-2", "other-3", "other-4"].map(digest)
}

/// The digest that differs from the token's in these bytes, by this bit.
fn off(token: &str, bytes: &[usize], bit: u8) -> [u8; 32] {
    let mut digest = digest(token);
    for &byte in bytes {
        digest[byte] ^= bit;
    }
    digest
}

#[test]
fn a_guess_takes_as_many_instructions_however_much_of_it_is_right() {
    let probe = Probe::load(&probe());
    let secret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let bearer = |token: &str| format!("Bearer {token}");

    // What is compared is digests. One that is known differs from the guess' own in one byte, wherever, in some, in all: for
    // each of the four that are known.
    let differing =
        (0..32).map(|at| vec![at]).chain([vec![0, 31], vec![7, 8, 9], (16..32).collect(), (0..32).collect()]);
    let asked = differing.flat_map(|bytes| [0x01, 0x80].map(|bit| off(secret, &bytes, bit)));
    let asked = asked.flat_map(|known| {
        (0..4).map(move |at| {
            let mut digests = others();
            digests[at] = known;
            tokens(&digests)
        })
    });
    let asked: Vec<_> = asked.chain([tokens(&others())]).map(|tokens| (tokens, bearer(secret))).collect();
    assert_eq!(asked.len(), 36 * 2 * 4 + 1);
    probe.assert_same("digests that are wrong somewhere", 0, asked);

    // The guess itself, wrong in one byte, wherever, in some, in all; and of any length, however long the tokens are.
    for length in [1, 31, 32, 54, 55, 56, 64, 119, 120, 200] {
        let token = "s".repeat(length);
        let wrong = |bytes: &[usize]| {
            let mut wrong = token.clone().into_bytes();
            for &at in bytes {
                wrong[at] = b'x';
            }
            bearer(&String::from_utf8(wrong).unwrap())
        };
        let differing = (0..length).map(|at| vec![at]).chain([vec![0, length - 1], (0..length).collect()]);
        let guesses: Vec<String> = differing.map(|bytes| wrong(&bytes)).collect();
        let known = ["", "s"].map(|more| {
            let mut digests = others();
            digests[0] = digest(&format!("{token}{more}"));
            tokens(&digests)
        });
        let asked =
            known.iter().flat_map(|tokens| guesses.iter().map(|guess| (tokens.clone(), guess.clone())));
        probe.assert_same(&format!("guesses of {length} bytes"), 0, asked.collect::<Vec<_>>());
    }

    // And which of them a token is, is not to be seen either.
    let asked = (0..4).map(|at| {
        let mut digests = others();
        digests[at] = digest(secret);
        (tokens(&digests), bearer(secret))
    });
    probe.assert_same("the right token, wherever it is in the list", 1, asked);
}
