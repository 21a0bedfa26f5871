//! Replays the corpus, and what a generator makes of it: what libFuzzer finds more of, led by coverage, in minutes.

#![expect(clippy::indexing_slicing, reason = "a panic is how a test fails")]

use fuzz::{Target, escape, read_corpus, unescape};

/// How many inputs are made of each target's corpus.
const MADE: usize = 2_000;

#[test]
fn every_target_stands_its_corpus() {
    for target in Target::ALL {
        let inputs = read_corpus(target).unwrap();
        assert!(!inputs.is_empty(), "{}", target.name());
        for input in &inputs {
            target.check(input);
        }
    }
}

#[test]
fn every_target_stands_what_is_made_of_its_corpus() {
    let mut random = fastrand::Rng::with_seed(1);
    for target in Target::ALL {
        let inputs = read_corpus(target).unwrap();
        for _ in 0..MADE {
            let mut made = inputs[random.usize(..inputs.len())].clone();
            for _ in 0..random.usize(1..5) {
                mutate(&mut made, &inputs[random.usize(..inputs.len())], &mut random);
            }
            made.truncate(target.bytes_max());
            target.check(&made);
        }
    }
}

/// Changes a byte, leaves some out, repeats some, or puts in some of another input.
fn mutate(made: &mut Vec<u8>, other: &[u8], random: &mut fastrand::Rng) {
    let at = random.usize(..=made.len());
    let to = random.usize(at..=made.len());
    match random.u8(..4) {
        0 if at < made.len() => made[at] = random.u8(..),
        1 => drop(made.drain(at..to)),
        2 => {
            let repeated = made[at..to].to_vec();
            made.splice(to..to, repeated);
        }
        _ => {
            let from = random.usize(..=other.len());
            made.splice(at..to, other[from..random.usize(from..=other.len())].iter().copied());
        }
    }
}

/// Else a corpus would not be the inputs that were found.
#[test]
fn an_input_reads_back_from_its_line() {
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(unescape(&escape(&all)).as_deref(), Some(&all[..]));
    assert!(!escape(&all).contains('\n'));
    for line in ["\\", "\\q", "\\x1", "\\xgg"] {
        assert_eq!(unescape(line), None, "{line}");
    }
}
