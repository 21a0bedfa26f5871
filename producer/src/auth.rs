use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::problem::{Problem, ProblemCode};

/// The tokens that may call the API.
///
/// Only digests are kept, and they are compared in constant time: neither the answer nor its time tells how much of a
/// guess was right, or how long the token is.
#[derive(Debug)]
pub struct Tokens {
    api_token: Option<[u8; 32]>,
}

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    /// The token's name, as the ledger and the log know it.
    pub(crate) name: &'static str,
}

impl Tokens {
    /// The tokens of this deployment: the secret `API_TOKEN`, if it is set. An empty one is none.
    pub fn new(api_token: Option<&str>) -> Self {
        Self { api_token: api_token.filter(|token| !token.is_empty()).map(digest) }
    }

    /// Finds out who sent the request, by its `Authorization` header.
    ///
    /// 503 when no token is configured, since everything is refused then; 401 without a bearer token or with a wrong one.
    pub(crate) fn authenticate(&self, authorization: Option<&str>) -> Result<Principal, Problem> {
        let Some(expected) = &self.api_token else {
            let detail = "No API token is configured, so every request is refused. The operator must set the secret \
                          API_TOKEN of the producer.";
            return Err(Problem::new(ProblemCode::NotConfigured, detail));
        };
        let Some(token) = authorization.and_then(bearer_token) else {
            let detail = "The request has no bearer token. Send the header `Authorization: Bearer TOKEN`.";
            let challenge = format!("Bearer realm=\"{REALM}\"");
            return Err(
                Problem::new(ProblemCode::Unauthenticated, detail).with_header("WWW-Authenticate", challenge)
            );
        };
        if bool::from(digest(token).ct_eq(expected)) {
            return Ok(Principal { name: "api_token" });
        }
        let challenge = format!("Bearer realm=\"{REALM}\", error=\"invalid_token\"");
        let detail = "The bearer token is not one of this deployment.";
        Err(Problem::new(ProblemCode::InvalidToken, detail).with_header("WWW-Authenticate", challenge))
    }
}

const REALM: &str = "r2-deletion-queue";

pub(crate) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn bearer_token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(tokens: &Tokens, authorization: Option<&str>) -> Option<ProblemCode> {
        tokens.authenticate(authorization).err().map(|problem| problem.code)
    }

    #[test]
    fn only_the_configured_token_is_let_in() {
        let tokens = Tokens::new(Some("s3cret"));
        for authorization in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret "] {
            assert_eq!(code(&tokens, Some(authorization)), None, "{authorization}");
        }
        for authorization in ["Bearer s3cre", "Bearer s3cret2", "Bearer S3CRET", "Bearer s3cret, Bearer x"] {
            assert_eq!(
                code(&tokens, Some(authorization)),
                Some(ProblemCode::InvalidToken),
                "{authorization}"
            );
        }
        for authorization in ["", "Bearer", "Bearer ", "Basic s3cret", "s3cret", "Bearers3cret"] {
            assert_eq!(
                code(&tokens, Some(authorization)),
                Some(ProblemCode::Unauthenticated),
                "{authorization}"
            );
        }
        assert_eq!(code(&tokens, None), Some(ProblemCode::Unauthenticated));
    }

    #[test]
    fn with_no_token_configured_everybody_is_refused() {
        for tokens in [Tokens::new(None), Tokens::new(Some(""))] {
            for authorization in [None, Some("Bearer "), Some("Bearer x")] {
                assert_eq!(code(&tokens, authorization), Some(ProblemCode::NotConfigured));
            }
        }
    }
}
