use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::config::parse_list;
use crate::hex::from_hex;
use crate::problem::{Problem, ProblemCode};
use crate::spelling::{Name, Prefix};

/// The tokens that may call the API.
///
/// Only digests are kept. A request's token is compared with all of them in constant time: neither the answer nor its time
/// tells how much of a guess was right, how long a token is, or which of several it was.
#[derive(Debug)]
pub(crate) struct Tokens(Vec<Token>);

/// A token, and what it may do.
#[derive(Debug)]
struct Token {
    name: String,
    /// One at least; several while it is being rotated.
    sha256: Vec<[u8; 32]>,
    /// Beginnings of keys that it may delete; `None`: all.
    prefixes: Option<Vec<Prefix>>,
    roles: Vec<Role>,
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Delete by key, and cancel what it has asked for.
    Delete,
    /// Delete by prefix.
    Sweep,
    /// Do to everybody's deletions what the other roles allow with its own, redrive, and read what could not be carried
    /// out.
    Operate,
    /// Read what it has asked for.
    Read,
}

impl Role {
    const ALL: [Self; 4] = [Self::Delete, Self::Sweep, Self::Operate, Self::Read];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Sweep => "sweep",
            Self::Operate => "operate",
            Self::Read => "read",
        }
    }
}

impl Tokens {
    /// The name that the simple token `API_TOKEN` goes by.
    const SIMPLE_NAME: &str = "api_token";

    /// The tokens of a deployment, out of its secrets: `API_TOKEN`, one token in plain text with every role, and
    /// `API_TOKENS`, a JSON list of `{"name", "sha256", "prefixes"?, "roles"?}`, where `sha256` is a digest or a list of
    /// them. Either secret may be missing or empty, but not both.
    ///
    /// Without `roles` a token may delete and read; `sweep` and `operate` must be said.
    ///
    /// # Errors
    ///
    /// What is wrong with the secrets, never with a part of them in it, except for names. Nobody may be let in then: a
    /// token that was to be left out could be in it.
    pub(crate) fn from_secrets(api_token: Option<&str>, api_tokens: Option<&str>) -> Result<Self, String> {
        let simple = api_token.filter(|token| !token.is_empty()).map(|token| Token {
            name: Self::SIMPLE_NAME.to_owned(),
            sha256: vec![digest(token)],
            prefixes: None,
            roles: Role::ALL.to_vec(),
        });
        let listed: Vec<WireToken> = match api_tokens.filter(|list| !list.trim().is_empty()) {
            Some(list) => parse_list("API_TOKENS", list, FORM)?,
            None => Vec::new(),
        };
        let listed = listed.into_iter().map(Token::try_from).collect::<Result<Vec<_>, _>>()?;
        let tokens: Vec<Token> = simple.into_iter().chain(listed).collect();
        check_distinct(&tokens)?;
        if tokens.is_empty() {
            return Err("no token: set the secret API_TOKEN or API_TOKENS of the producer".to_owned());
        }
        Ok(Self(tokens))
    }

    /// Finds out who sent the request, by its `Authorization` header: 401 without a bearer token or with a wrong one.
    pub(crate) fn authenticate(&self, authorization: Option<&str>) -> Result<Principal<'_>, Problem> {
        let Some(token) = authorization.and_then(bearer_token) else {
            let detail = "The request has no bearer token. Send the header `Authorization: Bearer TOKEN`.";
            return Err(Problem::new(ProblemCode::Unauthenticated, detail).with_challenge(""));
        };
        self.find(&digest(token)).map(Principal).ok_or_else(|| {
            let detail = "The bearer token is not one of this deployment.";
            Problem::new(ProblemCode::InvalidToken, detail).with_challenge(", error=\"invalid_token\"")
        })
    }

    /// Compares with every digest, whether or not one has matched already.
    fn find(&self, sha256: &[u8; 32]) -> Option<&Token> {
        let mut found = u32::MAX;
        for (at, token) in (0_u32..).zip(&self.0) {
            for known in &token.sha256 {
                found.conditional_assign(&at, known.ct_eq(sha256));
            }
        }
        self.0.get(usize::try_from(found).ok()?)
    }
}

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Principal<'a>(&'a Token);

impl<'a> Principal<'a> {
    /// The token's name, as the ledger and the log know it.
    pub(crate) fn name(self) -> &'a str {
        &self.0.name
    }

    /// The name whose deletions the token may see; `None` with the role `operate`: everybody's.
    pub(crate) fn sees_only(self) -> Option<&'a str> {
        (!self.has(Role::Operate)).then(|| self.name())
    }

    pub(crate) fn has(self, role: Role) -> bool {
        self.0.roles.contains(&role)
    }

    /// 403 when the token has none of these roles.
    pub(crate) fn require_any(self, roles: &[Role]) -> Result<(), Problem> {
        if roles.iter().any(|&role| self.has(role)) {
            return Ok(());
        }
        let roles = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" ");
        let detail = format!("The token {:?} needs one of these roles: {roles}.", self.name());
        let challenge = format!(", error=\"insufficient_scope\", scope=\"{roles}\"");
        Err(Problem::new(ProblemCode::InsufficientScope, detail).with_challenge(&challenge))
    }

    /// Whether the token may delete every key.
    pub(crate) fn may_delete_all(self) -> bool {
        self.0.prefixes.is_none()
    }

    /// Whether the token may delete this key: whether the key begins with one of the token's prefixes.
    pub(crate) fn may_delete(self, key: &mut Name<'_>) -> bool {
        self.has_prefix(|prefix| key.is_within(prefix))
    }

    /// Whether the token may delete every key that begins so: whether they all begin with one of its prefixes.
    pub(crate) fn may_sweep(self, beginning: &Prefix) -> bool {
        self.has_prefix(|prefix| beginning.is_within(prefix))
    }

    /// Whether one of the token's prefixes is such, or it needs none.
    fn has_prefix(self, is_such: impl FnMut(&Prefix) -> bool) -> bool {
        self.0.prefixes.as_ref().is_none_or(|prefixes| prefixes.iter().any(is_such))
    }
}

pub(crate) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn bearer_token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim()).filter(|token| !token.is_empty())
}

/// Refuses two tokens of one name, which would own each other's deletions, and one digest under two names, which would be
/// either of them.
fn check_distinct(tokens: &[Token]) -> Result<(), String> {
    for (at, token) in tokens.iter().enumerate() {
        for other in tokens.iter().skip(at + 1) {
            if other.name == token.name {
                return Err(format!("API_TOKENS: two tokens are named {:?}", token.name));
            }
            if other.sha256.iter().any(|sha256| token.sha256.contains(sha256)) {
                return Err(format!("API_TOKENS: {:?} and {:?} are the same token", token.name, other.name));
            }
        }
    }
    Ok(())
}

/// What `API_TOKENS` looks like, for whoever got it wrong.
const FORM: &str = r#"[{"name": "backend", "sha256": "64 hexadecimal digits", "prefixes": ["proj_"], "roles": ["delete", "read"]}]"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireToken {
    name: String,
    #[serde(deserialize_with = "one_or_many")]
    sha256: Vec<String>,
    prefixes: Option<Vec<String>>,
    roles: Option<Vec<Role>>,
}

/// Reads a text as a list of one. By hand: an untagged enum makes the Worker 3 KB larger.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct OneOrMany;

    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text or a list of texts")
        }

        fn visit_str<E>(self, one: &str) -> Result<Vec<String>, E> {
            Ok(vec![one.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut many: A) -> Result<Vec<String>, A::Error> {
            let mut texts = Vec::new();
            while let Some(text) = many.next_element()? {
                texts.push(text);
            }
            Ok(texts)
        }
    }

    deserializer.deserialize_any(OneOrMany)
}

impl TryFrom<WireToken> for Token {
    type Error = String;

    fn try_from(WireToken { name, sha256, prefixes, roles }: WireToken) -> Result<Self, String> {
        if name.is_empty() || name.len() > 64 {
            return Err("API_TOKENS: a token's name has 1 to 64 bytes".to_owned());
        }
        let sha256: Option<Vec<_>> = sha256.iter().map(|digest| parse_sha256(digest)).collect();
        let sha256 = sha256.filter(|sha256| !sha256.is_empty()).ok_or_else(|| {
            format!("API_TOKENS: the sha256 of {name:?} must be 64 hexadecimal digits, or a list of such")
        })?;
        if sha256.contains(&digest("")) {
            return Err(format!(
                "API_TOKENS: the sha256 of {name:?} is that of an empty text, not of a token"
            ));
        }
        if prefixes.as_ref().is_some_and(|prefixes| prefixes.iter().any(String::is_empty)) {
            return Err(format!(
                "API_TOKENS: {name:?} has an empty prefix; leave prefixes out to allow every key"
            ));
        }
        let prefixes = prefixes.map(|prefixes| prefixes.into_iter().map(Prefix::new).collect());
        let roles = roles.unwrap_or_else(|| vec![Role::Delete, Role::Read]);
        Ok(Self { name, sha256, prefixes, roles })
    }
}

fn parse_sha256(hex: &str) -> Option<[u8; 32]> {
    from_hex(hex)?.try_into().ok()
}

/// A token's digest, as `API_TOKENS` has it.
#[cfg(test)]
pub(crate) fn hex_digest(token: &str) -> String {
    crate::hex::to_hex(&digest(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> Tokens {
        let list = serde_json::json!([
            {"name": "reader", "sha256": hex_digest("reader-token"), "roles": ["read"]},
            {"name": "project", "sha256": hex_digest("project-token").to_uppercase(), "prefixes": ["proj_42/", "é"]},
        ]);
        Tokens::from_secrets(Some("s3cret"), Some(&list.to_string())).unwrap()
    }

    fn code(tokens: &Tokens, authorization: Option<&str>) -> Option<ProblemCode> {
        tokens.authenticate(authorization).err().map(|problem| problem.code)
    }

    #[test]
    fn each_configured_token_is_let_in_by_its_name_and_no_other() {
        let tokens = listed();
        for (authorization, name) in [
            ("Bearer s3cret", "api_token"),
            ("bearer reader-token", "reader"),
            ("BEARER  project-token ", "project"),
        ] {
            assert_eq!(tokens.authenticate(Some(authorization)).unwrap().name(), name);
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
    fn without_any_token_there_is_nothing_to_compare_with() {
        for (api_token, api_tokens) in [(None, None), (Some(""), Some("")), (None, Some("[]"))] {
            assert!(Tokens::from_secrets(api_token, api_tokens).unwrap_err().starts_with("no token"));
        }
    }

    #[test]
    fn while_a_token_is_rotated_the_old_and_the_new_one_are_the_same_caller() {
        let list = serde_json::json!([{"name": "backend", "sha256": [hex_digest("new"), hex_digest("old")]}])
            .to_string();
        let tokens = Tokens::from_secrets(None, Some(&list)).unwrap();
        for authorization in ["Bearer new", "Bearer old"] {
            assert_eq!(tokens.authenticate(Some(authorization)).unwrap().name(), "backend");
        }
        assert_eq!(code(&tokens, Some("Bearer older")), Some(ProblemCode::InvalidToken));
    }

    #[test]
    fn a_token_may_do_what_its_roles_say() {
        let tokens = listed();
        let principal = |authorization| tokens.authenticate(Some(authorization)).unwrap();
        assert!(Role::ALL.into_iter().all(|role| principal("Bearer s3cret").has(role)));
        let reader = principal("Bearer reader-token");
        assert!(reader.require_any(&[Role::Read]).is_ok());
        assert_eq!(
            reader.require_any(&[Role::Delete, Role::Operate]).unwrap_err().code,
            ProblemCode::InsufficientScope
        );
        let project = principal("Bearer project-token");
        assert!(project.has(Role::Delete) && project.has(Role::Read));
        assert!(!project.has(Role::Sweep) && !project.has(Role::Operate));
    }

    #[test]
    fn a_prefix_is_no_pattern_and_one_however_it_is_spelt() {
        let tokens = listed();
        let project = tokens.authenticate(Some("Bearer project-token")).unwrap();
        let may_delete = |key: &str| project.may_delete(&mut Name::new(key));
        for key in ["proj_42/", "proj_42/a", "proj_42/../x", "é1", "e\u{301}1"] {
            assert!(may_delete(key), "{key}");
        }
        for key in [
            "proj_42",
            "proj_421/a",
            "Proj_42/a",
            " proj_42/a",
            "/proj_42/a",
            "proj_42%2Fa",
            "e1",
            "e\u{300}1",
        ] {
            assert!(!may_delete(key), "{key}");
        }
        assert!(tokens.authenticate(Some("Bearer s3cret")).unwrap().may_delete(&mut Name::new("x")));
    }

    #[test]
    fn a_list_of_tokens_that_is_wrong_lets_nobody_in_and_says_what_is_wrong() {
        /// As `printf %s "$TOKEN" | sha256sum` prints it where `TOKEN` is not set.
        const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex_digest(""), EMPTY);
        let sha256 = "0".repeat(64);
        for (list, says) in [
            ("{".to_owned(), "it is something else at line 1"),
            (format!(r#"[{{"name":"","sha256":"{sha256}"}}]"#), "1 to 64 bytes"),
            (r#"[{"name":"a","sha256":"abc"}]"#.to_owned(), "64 hexadecimal digits"),
            (format!(r#"[{{"name":"a","sha256":"{}"}}]"#, "é".repeat(32)), "64 hexadecimal digits"),
            (
                format!(r#"[{{"name":"a","sha256":"{sha256}","role":["read"]}}]"#),
                "it is something else at line 1",
            ),
            (
                format!(r#"[{{"name":"a","sha256":"{sha256}","roles":["root"]}}]"#),
                "it is something else at line 1",
            ),
            (format!(r#"[{{"name":"a","sha256":"{sha256}","prefixes":[""]}}]"#), "empty prefix"),
            (
                format!(r#"[{{"name":"a","sha256":"{sha256}"}},{{"name":"a","sha256":"{sha256}"}}]"#),
                "two tokens",
            ),
            (format!(r#"[{{"name":"api_token","sha256":"{sha256}"}}]"#), "two tokens"),
            (
                format!(r#"[{{"name":"a","sha256":["{sha256}"]}},{{"name":"b","sha256":"{sha256}"}}]"#),
                "same token",
            ),
            (r#"[{"name":"a","sha256":[]}]"#.to_owned(), "64 hexadecimal digits"),
            (format!(r#"[{{"name":"a","sha256":"{EMPTY}"}}]"#), "that of an empty text"),
        ] {
            let error = Tokens::from_secrets(Some("s3cret"), Some(&list)).unwrap_err();
            assert!(error.contains(says), "{list}: {error}");
        }
    }

    #[test]
    fn a_name_has_1_to_64_bytes() {
        for (bytes, is_name) in [(0, false), (1, true), (63, true), (64, true), (65, false)] {
            let list = serde_json::json!([{"name": "n".repeat(bytes), "sha256": hex_digest("a-token")}]);
            assert_eq!(Tokens::from_secrets(None, Some(&list.to_string())).is_ok(), is_name, "{bytes}");
        }
    }
}
