use std::fmt;

use serde::de::DeserializeOwned;

use crate::auth::Tokens;
use crate::project::ProjectTemplates;
use crate::spelling::{Name, Prefix};

/// What the producer is set up with, as texts; `None` where nothing is set.
#[derive(Clone, Default)]
pub struct Settings {
    /// The secret `API_TOKEN`.
    pub api_token: Option<String>,
    /// The secret `API_TOKENS`.
    pub api_tokens: Option<String>,
    /// The variable `PROTECTED_PREFIXES`.
    pub protected_prefixes: Option<String>,
    /// The variable `PROJECT_TEMPLATES`.
    pub project_templates: Option<String>,
    /// The variable `ALLOW_WHOLE_BUCKET_SWEEPS`.
    pub allow_whole_bucket_sweeps: Option<String>,
}

impl fmt::Debug for Settings {
    /// Shows nothing: most of it is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

/// A configuration that is right as a whole.
#[derive(Debug)]
pub struct Config {
    /// Who may call.
    pub(crate) tokens: Tokens,
    /// What nobody may delete.
    pub(crate) protected: ProtectedPrefixes,
    /// What may be deleted by its beginning.
    pub(crate) sweeps: SweepRules,
}

/// What a deployment says of deleting by the beginning of keys.
#[derive(Debug, Default)]
pub(crate) struct SweepRules {
    /// How the keys of a project begin.
    pub(crate) projects: ProjectTemplates,
    /// Whether the beginning of every key, which is none, may be named.
    pub(crate) whole_bucket: bool,
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    ///
    /// What is wrong with them, for the operator's log: no secret is in it. Nothing may be done then: a key that was to be
    /// protected could be deleted.
    pub fn parse(settings: &Settings) -> Result<Self, String> {
        let Settings {
            api_token,
            api_tokens,
            protected_prefixes,
            project_templates,
            allow_whole_bucket_sweeps,
        } = settings;
        Ok(Self {
            tokens: Tokens::from_secrets(api_token.as_deref(), api_tokens.as_deref())?,
            protected: ProtectedPrefixes::parse(protected_prefixes.as_deref())?,
            sweeps: SweepRules {
                projects: ProjectTemplates::parse(project_templates.as_deref())?,
                whole_bucket: parse_switch(
                    "ALLOW_WHOLE_BUCKET_SWEEPS",
                    allow_whole_bucket_sweeps.as_deref(),
                )?,
            },
        })
    }
}

/// Beginnings of keys that nobody may delete, whatever their token.
#[derive(Debug, Default)]
pub(crate) struct ProtectedPrefixes(Vec<Prefix>);

impl ProtectedPrefixes {
    fn parse(list: Option<&str>) -> Result<Self, String> {
        let Some(list) = list.filter(|list| !list.trim().is_empty()) else { return Ok(Self::default()) };
        let prefixes: Vec<String> = parse_list("PROTECTED_PREFIXES", list, r#"["legal-hold/"]"#)?;
        if prefixes.iter().any(String::is_empty) {
            return Err("PROTECTED_PREFIXES: an empty prefix would protect every key".to_owned());
        }
        Ok(Self(prefixes.into_iter().map(Prefix::new).collect()))
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the key begins with one of them, in any form that it can be compared in.
    pub(crate) fn protect(&self, key: &mut Name<'_>) -> bool {
        self.0.iter().any(|prefix| key.may_be_within(prefix))
    }

    /// Whether there can be a key that begins with this and with one of them, however it is spelt.
    pub(crate) fn overlap(&self, beginning: &Prefix) -> bool {
        self.0.iter().any(|prefix| prefix.meets(beginning))
    }
}

/// Reads a setting that is on or off, and off where it is not set.
fn parse_switch(name: &str, text: Option<&str>) -> Result<bool, String> {
    match text {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(format!("{name}: expected \"true\" or \"false\"")),
    }
}

/// Reads a setting that is a list in JSON.
///
/// Says where it is wrong, and never what is there, as `serde_json` would: that may be a secret in the wrong place.
pub(crate) fn parse_list<T: DeserializeOwned>(name: &str, list: &str, form: &str) -> Result<Vec<T>, String> {
    serde_json::from_str(list).map_err(|error| {
        format!(
            "{name}: expected JSON like {form}; it is something else at line {}, column {}",
            error.line(),
            error.column()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(protected_prefixes: &str) -> Result<Config, String> {
        let protected_prefixes = Some(protected_prefixes.to_owned());
        Config::parse(&Settings {
            api_token: Some("s3cret".to_owned()),
            protected_prefixes,
            ..Settings::default()
        })
    }

    #[test]
    fn a_protected_prefix_is_no_pattern_and_one_however_it_is_spelt() {
        let protect = |list: &str, key: &str| parse(list).unwrap().protected.protect(&mut Name::new(key));
        for key in ["legal/", "legal/a", "legal/../a", "é", "e\u{301}"] {
            assert!(protect(r#"["x", "legal/", "é"]"#, key), "{key}");
        }
        for key in ["legal", "Legal/a", "/legal/a", "legal%2Fa", "a/legal/", "e", "e\u{300}"] {
            assert!(!protect(r#"["x", "legal/", "é"]"#, key), "{key}");
        }
        for nothing in ["", " ", "[]"] {
            assert!(!protect(nothing, "legal/a"));
        }
    }

    #[test]
    fn prefixes_that_are_not_understood_are_no_prefixes_to_ignore() {
        for (list, says) in [
            ("legal/", "something else at line 1, column 1"),
            (r#"["legal/""#, "something else"),
            (r#""legal/""#, "something else"),
            ("null", "something else"),
            (r#"["legal/", 5]"#, "something else at line 1, column 12"),
            (r#"["legal/", ""]"#, "empty prefix"),
        ] {
            let error = parse(list).unwrap_err();
            assert!(error.starts_with("PROTECTED_PREFIXES: ") && error.contains(says), "{list}: {error}");
        }
    }

    #[test]
    fn the_templates_of_a_deployment_are_a_setting() {
        let parse = |list: &str| {
            Config::parse(&Settings {
                api_token: Some("s3cret".to_owned()),
                project_templates: Some(list.to_owned()),
                ..Settings::default()
            })
        };
        let config = parse(r#"["proj_{id}/"]"#).unwrap();
        assert_eq!(config.sweeps.projects.expand("42"), Ok(vec!["proj_42/".to_owned()]));
        let error = parse(r#"["proj_{id}"]"#).unwrap_err();
        assert!(error.starts_with("PROJECT_TEMPLATES: template 1 "), "{error}");
    }

    #[test]
    fn whole_buckets_are_swept_only_where_that_is_said_in_so_many_words() {
        let parse = |text: Option<&str>| {
            Config::parse(&Settings {
                api_token: Some("s3cret".to_owned()),
                allow_whole_bucket_sweeps: text.map(str::to_owned),
                ..Settings::default()
            })
        };
        for (text, allowed) in [(None, false), (Some("false"), false), (Some("true"), true)] {
            assert_eq!(parse(text).unwrap().sweeps.whole_bucket, allowed, "{text:?}");
        }
        for text in ["", " ", "True", "true ", "1", "yes", "\"true\"", "null", "[]"] {
            let error = parse(Some(text)).unwrap_err();
            assert_eq!(error, "ALLOW_WHOLE_BUCKET_SWEEPS: expected \"true\" or \"false\"", "{text}");
        }
    }

    #[test]
    fn no_secret_is_in_what_is_said_about_the_settings() {
        let secret = "s3cret-in-the-wrong-place";
        for list in [
            secret.to_owned(),
            format!("\"{secret}\""),
            format!("{{\"{secret}\":1}}"),
            format!("[\"{secret}\"]"),
            format!("[{{\"{secret}\":\"a\"}}]"),
            format!("[{{\"name\":\"a\",\"sha256\":\"{secret}\"}}]"),
            format!("[{{\"name\":\"a\",\"sha256\":{{\"{secret}\":1}}}}]"),
            format!("[{{\"name\":\"a\",\"sha256\":\"\",\"prefixes\":\"{secret}\"}}]"),
            format!("[{{\"name\":\"a\",\"sha256\":\"\",\"roles\":[\"{secret}\"]}}]"),
        ] {
            let settings = Settings { api_tokens: Some(list.clone()), ..Settings::default() };
            assert!(!format!("{settings:?}").contains(secret));
            let error = Config::parse(&settings).unwrap_err();
            assert!(error.starts_with("API_TOKENS: ") && !error.contains(secret), "{list}: {error}");
        }
    }
}
