//! The producer's `auth.rs`, byte for byte and built as the Worker is, with three calls around it and none of its errors' texts.
//!
//! What is given to it comes as numbers, so that it takes no pointer.

use std::cell::RefCell;

use crate::auth::Tokens;
use crate::problem::ProblemCode;

#[path = "../../../../producer/src/auth.rs"]
#[allow(dead_code, reason = "the probe asks who it is, and no more")]
mod auth;
#[path = "../../../../producer/src/hex.rs"]
#[allow(dead_code, reason = "likewise")]
mod hex;
#[path = "../../../../producer/src/spelling.rs"]
#[allow(dead_code, reason = "likewise")]
mod spelling;

/// What `auth.rs` takes of the producer's `config.rs`.
mod config {
    pub(crate) fn parse_list<T: serde::de::DeserializeOwned>(
        name: &str,
        json: &str,
        form: &str,
    ) -> Result<Vec<T>, String> {
        serde_json::from_str(json).map_err(|_| format!("{name}: {form}"))
    }
}

/// What `auth.rs` takes of the producer's `problem.rs`.
mod problem {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum ProblemCode {
        InsufficientScope,
        InvalidToken,
        Unauthenticated,
    }

    #[derive(Debug)]
    pub(crate) struct Problem {
        pub(crate) code: ProblemCode,
        _said: String,
    }

    impl Problem {
        pub(crate) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
            Self { code, _said: detail.into() }
        }

        pub(crate) fn with_challenge(mut self, challenge: &str) -> Self {
            self._said.push_str(challenge);
            self
        }
    }
}

/// What `spelling.rs` takes of the producer's `shell.rs`: the probe is given nothing that has two spellings.
#[cfg(target_arch = "wasm32")]
mod shell {
    pub(crate) fn normalize(text: &str, _form: &str) -> String {
        text.to_owned()
    }
}

thread_local! {
    static GIVEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static TOKENS: RefCell<Option<Tokens>> = const { RefCell::new(None) };
    static HEADER: RefCell<String> = const { RefCell::new(String::new()) };
}

/// So many bytes more of what is given, of these eight.
#[unsafe(no_mangle)]
pub extern "C" fn give(bytes: u64, count: u32) {
    GIVEN.with_borrow_mut(|given| given.extend(bytes.to_le_bytes().iter().take(count as usize)));
}

/// What was given is `API_TOKENS`: 1 when it is right.
#[unsafe(no_mangle)]
pub extern "C" fn set_tokens() -> u32 {
    let given = String::from_utf8(GIVEN.take()).unwrap_or_default();
    TOKENS.set(Tokens::from_secrets(None, Some(&given)).ok());
    TOKENS.with_borrow(|tokens| tokens.is_some().into())
}

/// What was given is the header `Authorization`.
#[unsafe(no_mangle)]
pub extern "C" fn set_header() {
    HEADER.set(String::from_utf8(GIVEN.take()).unwrap_or_default());
}

/// From the header to the verdict: 0 for a token that is none of them, 1 for one that is, 2 for anything else.
#[unsafe(no_mangle)]
pub extern "C" fn authenticate() -> u32 {
    HEADER.with_borrow(|header| {
        TOKENS.with_borrow(|tokens| match tokens.as_ref().map(|tokens| tokens.authenticate(Some(header))) {
            Some(Ok(_)) => 1,
            Some(Err(problem)) if problem.code == ProblemCode::InvalidToken => 0,
            _ => 2,
        })
    })
}
