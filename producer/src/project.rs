use protocol::limits::KEY_BYTES_MAX;

use crate::config::parse_list;
use crate::spelling;

/// How the keys of a project begin, whichever project it is: the setting `PROJECT_TEMPLATES`.
///
/// Whose key it is must be readable off the key. An id has no separator in it, and in a template a separator comes
/// right behind it, so that a key is at most one project's by each template: 12 never matches 123. Two templates can
/// still read one key differently, which is why not every id is one that can be expanded, see [`expand`](Self::expand).
#[derive(Debug, Default)]
pub(crate) struct ProjectTemplates {
    /// As they are written, which is how their keys may be listed.
    templates: Vec<Template>,
    /// The same in NFC, which is what they are compared in. An id is ASCII, and so is what comes behind it: neither is ever one
    /// character with what comes before.
    composed: Vec<Template>,
    /// Whether a template ends an id by `-`, so that no id may have one.
    ends_by_dash: bool,
}

/// A template, without its `{id}`.
#[derive(Debug, PartialEq, Eq)]
struct Template {
    /// What is before the id.
    head: String,
    /// What is behind it: a separator at least, and one at the end.
    tail: String,
}

/// What parts of a key are told apart by: the punctuation that names are put together with. No letter or digit is among
/// them, so that none can go on with an id that was to be over; `-` alone is usual within ids, too.
const SEPARATORS: &[u8] = b"/_-.:";

/// Whether a text ends in a separator. As a prefix it then matches nothing that merely goes on with its last name, as
/// `proj_4` does `proj_42/`.
pub(crate) fn ends_in_separator(text: &str) -> bool {
    text.bytes().next_back().is_some_and(is_separator)
}

fn is_separator(byte: u8) -> bool {
    SEPARATORS.contains(&byte)
}

const SETTING: &str = "PROJECT_TEMPLATES";

/// Most templates of a deployment. Ours: each is a prefix of its own in every request for a project, and all are
/// compared with each other.
const TEMPLATES_MAX: usize = 20;

/// Longest id of a project, in characters.
const ID_CHARACTERS_MAX: usize = 128;

impl ProjectTemplates {
    /// Reads the setting.
    ///
    /// # Errors
    ///
    /// What is wrong with it, never with a part of it: it may be a secret in the wrong place.
    pub(crate) fn parse(list: Option<&str>) -> Result<Self, String> {
        let Some(list) = list.filter(|list| !list.trim().is_empty()) else { return Ok(Self::default()) };
        let texts: Vec<String> = parse_list(SETTING, list, r#"["proj_{id}/"]"#)?;
        if texts.len() > TEMPLATES_MAX {
            return Err(format!(
                "{SETTING}: {} templates, and there are at most {TEMPLATES_MAX}",
                texts.len()
            ));
        }
        let (mut templates, mut composed) = (Vec::new(), Vec::new());
        for (number, text) in (1_usize..).zip(&texts) {
            let wrong = |wrong| format!("{SETTING}: template {number} {wrong}");
            let template = Template::parse(&spelling::composed(text)).map_err(wrong)?;
            if composed.contains(&template) {
                return Err(wrong("is there twice"));
            }
            composed.push(template);
            templates.push(Template::parse(text).map_err(wrong)?);
        }
        let ends_by_dash =
            templates.iter().any(|Template { tail, .. }| tail.starts_with('-') || tail.ends_with('-'));
        Ok(Self { templates, composed, ends_by_dash })
    }

    /// The prefixes that the keys of a project begin with, one for each template, in their order.
    ///
    /// # Errors
    ///
    /// What is wrong with the id, for the caller. It must be one that each of the prefixes matches the keys of alone:
    ///
    /// 1. No prefix is how a template begins: with `proj_{id}_` and `proj_proj_{id}_`, that of `proj` would match every
    ///    project. So such a word is no project's id, and what looks like its keys is another's.
    /// 2. No prefix matches a key that is another project's by any template.
    pub(crate) fn expand(&self, id: &str) -> Result<Vec<String>, String> {
        if self.templates.is_empty() {
            return Err(format!(
                "this deployment does not know how the keys of a project begin: set {SETTING} of the producer"
            ));
        }
        if !self.is_well_formed(id) {
            return Err(self.form());
        }
        let prefixes = prefixes(&self.composed, id);
        if self.reaches_beginnings(&prefixes) {
            return Err(format!(
                "this id is a part of the beginnings in {SETTING}: its prefix would match other projects, too"
            ));
        }
        for prefix in &prefixes {
            let others = self.composed.iter().filter_map(|template| self.reached_by(prefix, template));
            if let Some(other) = others.into_iter().find(|&other| other != id && self.is_id(other)) {
                return Err(format!(
                    "by {SETTING} the keys of this project and those of {other:?} cannot be told apart: a prefix of \
                     the one would match the other, too"
                ));
            }
        }
        Ok(self::prefixes(&self.templates, id))
    }

    /// Whether one of an id's prefixes matches all that a template does, whatever the id.
    fn reaches_beginnings(&self, prefixes: &[String]) -> bool {
        let reaches =
            |prefix: &String| self.composed.iter().any(|template| template.head.starts_with(prefix.as_str()));
        prefixes.iter().any(reaches)
    }

    /// The text in the place of a template's id, where there are keys by this template that a prefix matches. The
    /// prefix is an expansion that is no part of the head, so that its last separator is behind that text.
    fn reached_by<'p>(&self, prefix: &'p str, Template { head, tail }: &Template) -> Option<&'p str> {
        let rest = prefix.strip_prefix(head.as_str())?;
        let end = rest.bytes().position(|byte| !self.is_in_ids(byte))?;
        let (id, behind) = rest.split_at_checked(end)?;
        (behind.starts_with(tail.as_str()) || tail.starts_with(behind)).then_some(id)
    }

    /// Whether a project can be called so: well-formed, and none of its prefixes is how a template begins.
    fn is_id(&self, text: &str) -> bool {
        self.is_well_formed(text) && !self.reaches_beginnings(&prefixes(&self.composed, text))
    }

    fn is_well_formed(&self, id: &str) -> bool {
        (1..=ID_CHARACTERS_MAX).contains(&id.len()) && id.bytes().all(|byte| self.is_in_ids(byte))
    }

    fn is_in_ids(&self, byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || (byte == b'-' && !self.ends_by_dash)
    }

    /// What an id looks like.
    fn form(&self) -> String {
        let dash = if self.ends_by_dash { "; no -, because a template ends an id by it" } else { " or -" };
        format!(
            "a project's id has 1 to {ID_CHARACTERS_MAX} characters of A-Z a-z 0-9{dash}. It is no pattern, and has no \
             separator in it: either could match other projects"
        )
    }
}

impl Template {
    /// Reads a template, or says what is wrong, as the predicate of a sentence.
    fn parse(text: &str) -> Result<Self, &'static str> {
        const BRACES: &str = "must have {id} in it exactly once, and no other brace";
        let (head, rest) = text.split_once('{').ok_or(BRACES)?;
        let tail = rest.strip_prefix("id}").ok_or(BRACES)?;
        if [head, tail].iter().any(|text| text.bytes().any(|byte| matches!(byte, b'{' | b'}'))) {
            return Err(BRACES);
        }
        if !tail.bytes().next().is_some_and(is_separator) {
            return Err("must have one of / _ - . : right behind {id}, so that 12 does not match 123");
        }
        if !ends_in_separator(tail) {
            return Err("must end in one of / _ - . :, so that it does not match the beginning of a name");
        }
        if text.chars().any(char::is_control) {
            return Err("has a control character in it");
        }
        if head.len() + ID_CHARACTERS_MAX + tail.len() > KEY_BYTES_MAX {
            return Err("is longer than a key can be, with the longest id in it");
        }
        Ok(Self { head: head.to_owned(), tail: tail.to_owned() })
    }
}

fn prefixes(templates: &[Template], id: &str) -> Vec<String> {
    templates.iter().map(|Template { head, tail }| [head, id, tail].concat()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Those of the documentation.
    const EXAMPLE: [&str; 5] =
        ["proj_{id}/", "proj_{id}_", "proj_proj_{id}/", "proj_proj_{id}_", "projects/{id}/"];

    fn parse(templates: &[impl AsRef<str>]) -> Result<ProjectTemplates, String> {
        let templates: Vec<&str> = templates.iter().map(AsRef::as_ref).collect();
        ProjectTemplates::parse(Some(&serde_json::json!(templates).to_string()))
    }

    fn refused(templates: &[&str], id: &str) -> String {
        parse(templates).unwrap().expand(id).expect_err(id)
    }

    #[test]
    fn a_project_is_all_prefixes_of_its_own_and_nothing_of_its_neighbours() {
        let templates = parse(&EXAMPLE).unwrap();
        let prefixes = templates.expand("12").unwrap();
        assert_eq!(prefixes, ["proj_12/", "proj_12_", "proj_proj_12/", "proj_proj_12_", "projects/12/"]);
        let matches = |key: &str| prefixes.iter().any(|prefix| key.starts_with(prefix));
        for key in ["proj_12/a", "proj_12_a", "proj_proj_12/a/b", "proj_proj_12_", "projects/12/123/a"] {
            assert!(matches(key), "{key}");
        }
        for key in [
            "proj_123/a",
            "proj_123_a",
            "proj_proj_123/",
            "projects/123/a",
            "proj_1/12/",
            "proj_12",
            "Proj_12/a",
        ] {
            assert!(!matches(key), "{key}");
        }
    }

    #[test]
    fn usual_ids_can_all_be_expanded() {
        let longest = "9".repeat(128);
        for id in [
            "4",
            "42",
            "421",
            "0",
            "projects",
            "proj1",
            "Proj",
            "PROJ",
            "018f4e9e-7c1b-7d1e-9f5a-3b2c1d0e4f5a",
            "507f1f77bcf86cd799439011",
            "-",
            &longest,
        ] {
            assert_eq!(parse(&EXAMPLE).unwrap().expand(id).map(|prefixes| prefixes.len()), Ok(5), "{id}");
        }
    }

    #[test]
    fn what_is_no_id_is_refused_with_what_one_is() {
        let too_long = "9".repeat(129);
        for id in [
            "", &too_long, " ", "4 ", " 4", "4\n", "4/", "/", "4/5", "4_5", "4.5", "..", "4:5", "*", "4*",
            "?", "[0-9]", "{id}", "4}", "%2F", "é", "４", "\0", "4,5", "4\\",
        ] {
            let detail = refused(&EXAMPLE, id);
            assert!(detail.contains("1 to 128 characters of A-Z a-z 0-9 or -"), "{id:?}: {detail}");
        }
        // A dash is a separator where a template makes it one.
        for templates in [["{id}-/"], ["{id}/-"], ["a{id}-"]] {
            assert!(refused(&templates, "a-b").contains("no -, because"), "{templates:?}");
            assert!(parse(&templates).unwrap().expand("ab").is_ok());
        }
        assert!(parse(&["a-{id}/-x/"]).unwrap().expand("a-b").is_ok());
        for none in [None, Some(""), Some(" "), Some("[]")] {
            let detail = ProjectTemplates::parse(none).unwrap().expand("42").unwrap_err();
            assert!(detail.contains("set PROJECT_TEMPLATES"), "{detail}");
        }
    }

    #[test]
    fn an_id_that_is_how_templates_begin_is_refused() {
        for (templates, id) in [
            // `proj_proj_` is the beginning of every project that was named twice.
            (&EXAMPLE[..], "proj"),
            (&["{id}/", "projects/{id}/"], "projects"),
            (&["{id}/", "projects/all/{id}/"], "projects"),
        ] {
            assert!(refused(templates, id).contains("part of the beginnings"), "{templates:?} {id}");
            assert!(parse(templates).unwrap().expand("all").is_ok());
        }
    }

    #[test]
    fn ids_that_the_templates_cannot_tell_apart_are_both_refused() {
        // `a_x_` is what project x has by the second and project a by the first.
        let templates = ["{id}_x_", "a_{id}_"];
        assert!(refused(&templates, "x").contains("those of \"a\" cannot"), "{}", refused(&templates, "x"));
        assert!(refused(&templates, "a").contains("those of \"x\" cannot"), "{}", refused(&templates, "a"));
        assert!(parse(&templates).unwrap().expand("y").is_ok());
    }

    #[test]
    fn a_template_that_could_match_a_neighbour_is_refused_by_its_number() {
        let longest = "k".repeat(1_024 - 128 - 1);
        assert!(parse(&[format!("{longest}{{id}}/")]).is_ok());
        for (template, says) in [
            ("", "exactly once"),
            ("proj/", "exactly once"),
            ("proj_{id}/{id}/", "exactly once"),
            ("proj_{ID}/", "exactly once"),
            ("proj_{id", "exactly once"),
            ("proj_{{id}}/", "exactly once"),
            ("}{id}/", "exactly once"),
            ("{}{id}/", "exactly once"),
            ("proj_{id}/}", "exactly once"),
            ("proj_{id}", "right behind {id}"),
            ("proj_{id}a/", "right behind {id}"),
            ("proj_{id} /", "right behind {id}"),
            ("proj_{id}/a", "must end in"),
            ("proj_{id}/é", "must end in"),
            ("proj\n_{id}/", "control character"),
            ("proj_{id}/\u{85}/", "control character"),
            (&format!("{longest}k{{id}}/"), "longer than a key"),
            ("a_{id}/", "is there twice"),
        ] {
            let error = parse(&["a_{id}/", template]).unwrap_err();
            assert!(
                error.starts_with("PROJECT_TEMPLATES: template 2 ") && error.contains(says),
                "{template}: {error}"
            );
        }
        let many = |count: usize| (0..count).map(|n| format!("p{n}_{{id}}/")).collect::<Vec<_>>();
        assert!(parse(&many(20)).is_ok());
        assert!(parse(&many(21)).unwrap_err().contains("21 templates"));
        for list in ["proj_{id}/", "null", r#""proj_{id}/""#, r#"["proj_{id}/",5]"#] {
            let error = ProjectTemplates::parse(Some(list)).unwrap_err();
            assert!(error.starts_with("PROJECT_TEMPLATES: expected JSON like"), "{list}: {error}");
        }
    }

    #[test]
    fn templates_are_the_same_and_meet_however_they_are_spelt_and_are_swept_as_they_are_written() {
        let error = parse(&["é_{id}/", "e\u{301}_{id}/"]).unwrap_err();
        assert_eq!(error, "PROJECT_TEMPLATES: template 2 is there twice");
        let templates = ["é_{id}_", "e\u{301}_proj_{id}_", "\u{212A}/{id}/", "K/{id}/é/"];
        let prefixes = ["é_42_", "e\u{301}_proj_42_", "\u{212A}/42/", "K/42/é/"];
        assert_eq!(parse(&templates).unwrap().expand("42").unwrap(), prefixes);
        assert!(refused(&templates, "proj").contains("part of the beginnings"));
        let meeting = ["é_{id}/", "e\u{301}_a/{id}/"];
        assert!(refused(&meeting, "a").contains("part of the beginnings"));
    }

    /// Says by trying whose keys there are: it knows the templates as texts, and nothing of how they are read above.
    struct Reference(Vec<(String, String)>);

    impl Reference {
        fn new(templates: &[String]) -> Self {
            let split = |text: &String| {
                text.split_once("{id}").map(|(head, tail)| (head.to_owned(), tail.to_owned()))
            };
            Self(templates.iter().filter_map(split).collect())
        }

        fn is_well_formed(&self, id: &str) -> bool {
            let dash = !self.0.iter().any(|(_, tail)| tail.starts_with('-') || tail.ends_with('-'));
            !id.is_empty()
                && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || (c == '-' && dash))
        }

        /// Whether a project can be called so.
        fn is_id(&self, id: &str) -> bool {
            let is_word = |(head, tail): &(String, String)| {
                self.0.iter().any(|(other, _)| other.starts_with(&format!("{head}{id}{tail}")))
            };
            self.is_well_formed(id) && !self.0.iter().any(is_word)
        }

        /// Every id that some of a text's characters are, wherever they are.
        fn ids_within(&self, text: &str) -> Vec<String> {
            let places = || 0..=text.len();
            let all = places().flat_map(|start| places().filter_map(move |end| text.get(start..end)));
            all.filter(|id| self.is_id(id)).map(str::to_owned).collect()
        }

        /// The projects that a key is of.
        fn owners(&self, key: &str) -> Vec<String> {
            let is_of =
                |id: &String| self.0.iter().any(|(head, tail)| key.starts_with(&format!("{head}{id}{tail}")));
            self.ids_within(key).into_iter().filter(is_of).collect()
        }

        /// Whether there are keys of another project that some key of this one is the beginning of, or the other way
        /// round: the only way for a prefix to match both.
        fn is_entangled(&self, id: &str) -> bool {
            let expansions = |id: &str| -> Vec<String> {
                self.0.iter().map(|(head, tail)| format!("{head}{id}{tail}")).collect()
            };
            let meet = |one: &String, other: &String| one.starts_with(other) || other.starts_with(one);
            expansions(id).iter().any(|one| {
                self.ids_within(one)
                    .iter()
                    .filter(|&other| other != id)
                    .any(|other| expansions(other).iter().any(|other| meet(one, other)))
            })
        }
    }

    fn template() -> impl Strategy<Value = String> {
        // Few letters, so that they run into each other; `a_` and its like often.
        ("(a_|b-|a|b|/|-){0,3}", "[/_-]((a_|b-|a|b|_){0,2}[/_-])?")
            .prop_map(|(head, tail)| head + "{id}" + &tail)
    }

    fn templates() -> impl Strategy<Value = Vec<String>> {
        prop::collection::hash_set(template(), 1..5).prop_map(|set| set.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_024))]

        #[test]
        fn a_project_matches_exactly_its_own_keys(
            texts in templates(),
            ids in ("[ab1-]{1,3}", "[ab1-]{1,3}"),
            by in any::<prop::sample::Index>(),
            rest in "[ab1/_-]{0,6}",
        ) {
            let (templates, reference) = (parse(&texts).unwrap(), Reference::new(&texts));
            if let Ok(prefixes) = templates.expand(&ids.0) {
                let matches = |key: &str| prefixes.iter().any(|prefix| key.starts_with(prefix));
                for id in [&ids.0, &ids.1] {
                    let key = by.get(&texts).replace("{id}", id) + &rest;
                    let owners = reference.owners(&key);
                    prop_assert_eq!(matches(&key), owners.contains(&ids.0), "{} of {:?}", key, owners);
                    let only_own = owners.iter().all(|owner| *owner == ids.0);
                    prop_assert!(!matches(&key) || only_own, "{} of {:?}", key, owners);
                }
            }
        }

        #[test]
        fn an_id_is_refused_exactly_when_its_keys_cannot_be_told_from_others(
            texts in templates(),
            id in "[ab1_-]{1,3}",
        ) {
            let (templates, reference) = (parse(&texts).unwrap(), Reference::new(&texts));
            let expected = reference.is_id(&id) && !reference.is_entangled(&id);
            prop_assert_eq!(templates.expand(&id).is_ok(), expected, "{:?} {}", texts, id);
        }
    }
}
