use std::fmt;

use ledger::{DeletionRecord, NewSweep, ProducerLedger};
use protocol::limits::{KEY_BYTES_MAX, PREFIXES_MAX};
use protocol::{DeletionId, State, SweepRange};

use crate::auth::Role;
use crate::findings::Findings;
use crate::host::Host;
use crate::intake::{Place, read_string};
use crate::options::wrong;
use crate::page::invalid;
use crate::problem::{FieldError, Problem};
use crate::project::ends_in_separator;
use crate::scope::Scope;
use crate::wire::{WireKeys, WireSweep};

/// What a request wants deleted by the beginning of its keys, and how.
#[derive(Default, PartialEq, Eq)]
pub(crate) struct Sweep {
    /// Beginnings of keys.
    pub(crate) prefixes: Vec<String>,
    /// A project, whose keys begin as the templates of the deployment say.
    pub(crate) project: Option<String>,
    /// How many objects there may be; at one more nothing goes on.
    pub(crate) max_objects: Option<u64>,
    /// Whether it is only to be found out what there is.
    pub(crate) dry_run: bool,
    /// Whether to look afterwards for what is there all the same.
    pub(crate) verify: bool,
    /// The dry run whose findings this is to carry out.
    pub(crate) plan: Option<DeletionId>,
}

impl fmt::Debug for Sweep {
    /// Shows no prefix and no project: they are parts of keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sweep").finish_non_exhaustive()
    }
}

/// Most objects that can be said to be too many: the largest whole number that every reader of JSON has exactly.
const OBJECTS_MAX: u64 = (1 << 53) - 1;

const MAX_OBJECTS: &str = "a whole number of objects from 1 to 9007199254740991";
const _: () = assert!(OBJECTS_MAX == 9_007_199_254_740_991);

/// How many objects more than its plan has seen a deletion may find: a tenth, and ten at least. More is another prefix than the
/// one that somebody has looked at.
const PLAN_MARGIN_DIVISOR: u64 = 10;
const PLAN_MARGIN_MIN: u64 = 10;

impl Sweep {
    /// Reads what a body said; 422.
    pub(crate) fn from_json(wire: WireSweep<'_>) -> Result<Self, Problem> {
        let WireSweep { prefixes, project, max_objects, dry_run, verify, plan } = wire;
        if max_objects.is_some_and(|objects| !is_limit(objects)) {
            return Err(wrong("#/max_objects", format!("expected {MAX_OBJECTS}")));
        }
        Ok(Self {
            prefixes: prefixes.as_ref().map(read_prefixes).transpose()?.unwrap_or_default(),
            project: project.map(|project| project.0.into_owned()),
            max_objects,
            dry_run: dry_run.unwrap_or_default(),
            verify: verify.unwrap_or_default(),
            plan,
        })
    }

    /// Takes in a parameter of a query; `false` when it is none of a sweep's. 422 for a wrong value.
    pub(crate) fn take_parameter(&mut self, name: &str, value: &str) -> Result<bool, Problem> {
        let read_switch = || value.parse().map_err(|_| invalid(name, "true or false"));
        match name {
            "project" => self.project = Some(value.to_owned()),
            "max_objects" => {
                let objects = value.parse().ok().filter(|&objects| is_limit(objects));
                self.max_objects = Some(objects.ok_or_else(|| invalid(name, MAX_OBJECTS))?);
            }
            "dry_run" => self.dry_run = read_switch()?,
            "verify" => self.verify = read_switch()?,
            "plan" => self.plan = Some(value.parse().map_err(|_| invalid(name, "the id of a deletion"))?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// 422 for what makes no sense together: a brake of nothing, and a plan of a plan.
    pub(crate) fn check_whole(&self, place: Place) -> Result<(), Problem> {
        let nothing = "expected prefixes, a project or a plan beside it: it is about what they find";
        let found = [
            (self.max_objects.is_some() && !self.is_asked_for(), "max_objects", nothing),
            (self.dry_run && self.plan.is_some(), "plan", "expected no plan of a dry run, which makes one"),
        ];
        match found.into_iter().find(|(is_wrong, ..)| *is_wrong) {
            Some((_, name, detail)) => Err(wrong(&place.option(name), detail.to_owned())),
            None => Ok(()),
        }
    }

    /// 422 for anything of it, by a call that deletes by key only.
    pub(crate) fn refuse(&self, place: Place) -> Result<(), Problem> {
        let Self { prefixes, project, max_objects, dry_run, verify, plan } = self;
        let said = [
            (!prefixes.is_empty(), "prefixes"),
            (project.is_some(), "project"),
            (max_objects.is_some(), "max_objects"),
            (*dry_run, "dry_run"),
            (*verify, "verify"),
            (plan.is_some(), "plan"),
        ];
        let Some((_, name)) = said.into_iter().find(|(is_said, _)| *is_said) else { return Ok(()) };
        Err(wrong(&place.option(name), "expected nothing: this call deletes by key only".to_owned()))
    }

    /// *await* What the ledger is to know of it: `prefixes` are those that [`admit`](Self::admit) has answered with, to which come
    /// those of the plan. `None` when nothing is swept. 422 for a plan that is none, or not of these prefixes; 403.
    pub(crate) async fn resolve(
        &self,
        mut prefixes: Vec<String>,
        scope: Scope<'_>,
        place: Place,
        ledger: &impl ProducerLedger,
        host: &impl Host,
    ) -> Result<Option<NewSweep>, Problem> {
        let mut max_objects = self.max_objects;
        if let Some(id) = &self.plan {
            let wrong = |detail: &str| wrong(&place.option("plan"), detail.to_owned());
            let found =
                ledger.find_deletion(id, host.now()).await.map_err(|error| Problem::ledger(&error))?;
            let found = found.filter(|plan| plan.requested_by == scope.principal.name());
            let Some(DeletionRecord {
                state: State::Planned, prefixes: Some(planned), plan: Some(plan), ..
            }) = &found
            else {
                return Err(wrong("expected the id of a dry run by this token, of prefixes, which is over"));
            };
            let planned: Vec<String> = serde_json::from_str(planned)
                .map_err(|_| wrong("expected a plan whose prefixes can be read"))?;
            let is_same =
                |all: &[String], others: &[String]| all.iter().all(|prefix| others.contains(prefix));
            if prefixes.is_empty() {
                prefixes = planned;
            } else if !is_same(&prefixes, &planned) || !is_same(&planned, &prefixes) {
                return Err(wrong("expected a plan of the same prefixes"));
            }
            // What may be swept may have changed since.
            let mut findings = Findings::default();
            let error = |detail| FieldError { pointer: place.option("plan"), detail };
            add_forbidden(&mut findings, &prefixes, scope, &error);
            findings.into_result("prefixes")?;
            let most = plan.objects + PLAN_MARGIN_MIN.max(plan.objects / PLAN_MARGIN_DIVISOR);
            max_objects = Some(max_objects.map_or(most, |objects| objects.min(most)));
        }
        let ranges: Vec<_> = prefixes.into_iter().map(SweepRange::of).collect();
        Ok((!ranges.is_empty()).then_some(NewSweep { ranges, max_objects }))
    }

    /// Whether it asks for anything to be deleted.
    pub(crate) fn is_asked_for(&self) -> bool {
        !self.prefixes.is_empty() || self.project.is_some() || self.plan.is_some()
    }

    /// The prefixes that are to be swept, those of the project behind the others, and none of them within another.
    ///
    /// `place` says how the request names what it says beside keys: as members or as parameters.
    ///
    /// # Errors
    ///
    /// 403 for a token without the role, 422 for what is invalid, 403 for what may not be deleted; nothing may be
    /// accepted then. What is protected is never swept around: somebody who names the beginning of it means it, too, or
    /// knows nothing of it, and neither is to be told that all is deleted.
    pub(crate) fn admit(&self, scope: Scope<'_>, place: Place) -> Result<Vec<String>, Problem> {
        if !self.is_asked_for() {
            return Ok(Vec::new());
        }
        scope.principal.require_any(&[Role::Sweep])?;
        let mut wrong = Findings::default();
        for (at, prefix) in self.prefixes.iter().enumerate() {
            let error = |detail| FieldError { pointer: format!("#/prefixes/{at}"), detail };
            match self.check(prefix, scope) {
                Err(detail) => wrong.add_invalid(|| error(detail)),
                Ok(()) => {
                    if let Some(forbidden) = scope.forbid_sweep(prefix) {
                        wrong.add_forbidden(forbidden, || error(forbidden.detail_of_prefix().to_owned()));
                    }
                }
            }
        }
        let mut swept = self.prefixes.clone();
        if let Some(project) = &self.project {
            let error = |detail| FieldError { pointer: place.option("project"), detail };
            match scope.sweeps.projects.expand(project) {
                Err(detail) => wrong.add_invalid(|| error(detail)),
                Ok(expanded) => {
                    add_forbidden(&mut wrong, &expanded, scope, &error);
                    swept.extend(expanded);
                }
            }
        }
        wrong.into_result("prefixes")?;
        if swept.len() > PREFIXES_MAX {
            return Err(too_many(swept.len()));
        }
        Ok(minimal(&swept))
    }

    /// What is wrong with a prefix, whoever asks.
    fn check(&self, prefix: &str, scope: Scope<'_>) -> Result<(), String> {
        let bytes = prefix.len();
        if bytes > KEY_BYTES_MAX {
            return Err(format!(
                "the prefix is {bytes} bytes long; no key is longer than {KEY_BYTES_MAX} bytes of UTF-8"
            ));
        }
        if bytes == 0 && !scope.sweeps.whole_bucket {
            let detail = "the prefix is empty, which is the whole bucket; the producer takes that only with \
                          ALLOW_WHOLE_BUCKET_SWEEPS";
            return Err(detail.to_owned());
        }
        if !ends_in_separator(prefix) && self.max_objects.is_none() && self.plan.is_none() {
            let detail = "the prefix would match neighbours, too, as proj_4 does proj_42/: end it in one of \
                          / _ - . :, or say max_objects";
            return Err(detail.to_owned());
        }
        Ok(())
    }
}

/// Notes which of these prefixes, that something else stands for in the request, may not be swept.
fn add_forbidden(
    wrong: &mut Findings,
    prefixes: &[String],
    scope: Scope<'_>,
    error: &dyn Fn(String) -> FieldError,
) {
    for prefix in prefixes {
        if let Some(forbidden) = scope.forbid_sweep(prefix) {
            let detail = format!("{prefix}: {}", forbidden.detail_of_prefix());
            wrong.add_forbidden(forbidden, || error(detail));
        }
    }
}

fn is_limit(objects: u64) -> bool {
    (1..=OBJECTS_MAX).contains(&objects)
}

/// Reads the elements of `prefixes` as strings; 422 with a pointer to each that is none.
fn read_prefixes(WireKeys { first, count }: &WireKeys<'_>) -> Result<Vec<String>, Problem> {
    if *count == 0 {
        return Err(wrong("#/prefixes", "name at least one prefix".to_owned()));
    }
    if *count > PREFIXES_MAX {
        return Err(too_many(*count));
    }
    let (mut prefixes, mut wrong) = (Vec::new(), Findings::default());
    for (at, json) in first.iter().enumerate() {
        match read_string(json.get()) {
            Ok(prefix) => prefixes.push(prefix.into_owned()),
            Err(detail) => wrong.add_invalid(|| FieldError { pointer: format!("#/prefixes/{at}"), detail }),
        }
    }
    wrong.into_result("prefixes").map(|()| prefixes)
}

/// 422 for so many prefixes.
fn too_many(count: usize) -> Problem {
    let detail = format!(
        "{count} prefixes, those of the project among them, and a request has at most {PREFIXES_MAX}"
    );
    wrong("#/prefixes", detail)
}

/// The prefixes that match the same keys without those that are within another, in their order.
fn minimal(prefixes: &[String]) -> Vec<String> {
    let is_needed = |&(at, prefix): &(usize, &String)| {
        let mut others = prefixes.iter().enumerate().filter(|&(other, _)| other != at);
        // Of two that are the same the first is needed.
        !others
            .any(|(at_other, other)| prefix.starts_with(other.as_str()) && (prefix != other || at_other < at))
    };
    prefixes.iter().enumerate().filter(is_needed).map(|(_, prefix)| prefix.clone()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::{ObjectKey, RequestId, Timestamp};
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::hex_digest;
    use crate::config::{Config, Settings};
    use crate::scope::Forbidden;
    use crate::wire::WireRequest;

    /// A deployment with the token `sweeper`, which has these prefixes.
    fn config(token_prefixes: Option<&[String]>, protected: &[String], whole_bucket: bool) -> Config {
        let mut token =
            json!({"name": "sweeper", "sha256": hex_digest("sweeper"), "roles": ["delete", "sweep"]});
        if let Some(prefixes) = token_prefixes {
            token["prefixes"] = json!(prefixes);
        }
        let deleter = json!({"name": "deleter", "sha256": hex_digest("deleter")});
        Config::parse(&Settings {
            api_tokens: Some(json!([token, deleter]).to_string()),
            protected_prefixes: Some(json!(protected).to_string()),
            project_templates: Some(json!(["proj_{id}/", "exports/{id}/"]).to_string()),
            allow_whole_bucket_sweeps: whole_bucket.then(|| "true".to_owned()),
            ..Settings::default()
        })
        .unwrap()
    }

    fn scope<'a>(config: &'a Config, token: &str) -> Scope<'a> {
        let principal = config.tokens.authenticate(Some(&format!("Bearer {token}"))).unwrap();
        Scope { principal, protected: &config.protected, sweeps: &config.sweeps }
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn of(prefixes: &[&str]) -> Sweep {
        Sweep { prefixes: texts(prefixes), ..Sweep::default() }
    }

    /// What is swept by somebody who may sweep `exports/`, `proj_` and `tmp`, while `exports/legal/` is protected.
    fn admit(sweep: &Sweep) -> Result<Vec<String>, Value> {
        let prefixes = texts(&["exports/", "proj_", "tmp"]);
        let config = config(Some(&prefixes), &texts(&["exports/legal/"]), false);
        sweep.admit(scope(&config, "sweeper"), Place::Element).map_err(body)
    }

    fn body(problem: Problem) -> Value {
        let response = problem.into_response(&RequestId::new(Timestamp::from_millis(0), 0));
        serde_json::from_str(&response.text()).unwrap()
    }

    #[test]
    fn what_may_be_swept_is_each_prefix_once_and_those_of_the_project() {
        for (prefixes, swept) in [
            (&["exports/42/"][..], &["exports/42/"][..]),
            (&["exports/b/", "exports/a/b/", "exports/a/", "exports/b/"], &["exports/b/", "exports/a/"]),
            // Bytes: nothing is decoded, and nothing resolved.
            (
                &["exports/42/../", "exports/%2F/", "exports//", "proj_:"],
                &["exports/42/../", "exports/%2F/", "exports//", "proj_:"],
            ),
        ] {
            assert_eq!(admit(&of(prefixes)), Ok(texts(swept)));
        }
        let project = Some("42".to_owned());
        let sweep = Sweep { project: project.clone(), ..of(&["proj_42/a/", "exports/1/"]) };
        assert_eq!(admit(&sweep), Ok(texts(&["exports/1/", "proj_42/", "exports/42/"])));
        assert_eq!(admit(&Sweep { project, ..Sweep::default() }), Ok(texts(&["proj_42/", "exports/42/"])));
        assert_eq!(admit(&Sweep { dry_run: true, ..Sweep::default() }), Ok(Vec::new()));
    }

    #[test]
    fn each_prefix_that_is_wrong_is_pointed_at_with_its_reason() {
        let too_long = format!("tmp{}/", "é".repeat(511));
        let none = "none of the token's prefixes";
        for (prefixes, code, errors) in [
            (&["exports/1/", "", "tmp/"][..], "validation_failed", &[(1, "whole bucket")][..]),
            (&[&too_long], "validation_failed", &[(0, "1026 bytes long")]),
            (
                &["proj_4", "tmp/", "tmp"],
                "validation_failed",
                &[(0, "as proj_4 does"), (2, "or say max_objects")],
            ),
            // What is invalid comes before what is forbidden.
            (&["other/", "exports/4"], "validation_failed", &[(1, "max_objects")]),
            // Within what is protected, it itself, and around it; whatever else the token lacks.
            (
                &["exports/legal/1/", "a/", "exports/legal/"],
                "key_protected",
                &[(0, "protected"), (2, "protected")],
            ),
            (&["tmp/", "exports/"], "key_protected", &[(1, "refused as a whole")]),
            (&["other/", "Exports/42/", "tmp/"], "key_not_allowed", &[(0, none), (1, none)]),
            (
                &["/exports/42/", "exports%2F42/", "pr_"],
                "key_not_allowed",
                &[(0, none), (1, none), (2, none)],
            ),
        ] {
            let refused = admit(&of(prefixes)).unwrap_err();
            assert_eq!(refused["code"], code, "{refused}");
            let found = refused["errors"].as_array().unwrap();
            assert_eq!(found.len(), errors.len(), "{refused}");
            for (found, (at, says)) in found.iter().zip(errors) {
                assert_eq!(found["pointer"], format!("#/prefixes/{at}"));
                assert!(found["detail"].as_str().unwrap().contains(says), "{found}");
            }
        }
    }

    #[test]
    fn a_prefix_without_a_separator_needs_a_limit_or_a_plan() {
        let id = DeletionId::new(Timestamp::from_millis(0), 0);
        assert!(admit(&Sweep { dry_run: true, verify: true, ..of(&["tmp"]) }).is_err());
        assert_eq!(admit(&Sweep { max_objects: Some(5), ..of(&["tmp"]) }), Ok(texts(&["tmp"])));
        assert_eq!(admit(&Sweep { plan: Some(id), ..of(&["tmp"]) }), Ok(texts(&["tmp"])));
    }

    #[test]
    fn a_project_is_refused_as_its_prefixes_are() {
        let sweep = |project: &str| Sweep { project: Some(project.to_owned()), ..Sweep::default() };
        let refused = admit(&sweep("4*")).unwrap_err();
        assert_eq!(
            (&refused["status"], &refused["errors"][0]["pointer"]),
            (&json!(422), &json!("#/project"))
        );
        let protected = admit(&sweep("legal")).unwrap_err();
        assert_eq!(
            (&protected["code"], &protected["errors"][0]["pointer"]),
            (&json!("key_protected"), &json!("#/project"))
        );
        assert!(
            protected["errors"][0]["detail"].as_str().unwrap().starts_with("exports/legal/: "),
            "{protected}"
        );

        let config = config(Some(&texts(&["proj_42/"])), &[], false);
        let scope = scope(&config, "sweeper");
        let refused = body(sweep("42").admit(scope, Place::Line).unwrap_err());
        assert_eq!(
            (&refused["code"], &refused["errors"][0]["pointer"]),
            (&json!("key_not_allowed"), &json!("?project"))
        );
        assert!(refused["errors"][0]["detail"].as_str().unwrap().starts_with("exports/42/: "), "{refused}");
    }

    #[test]
    fn whoever_lacks_the_role_sweeps_nothing_and_is_told_which_it_is() {
        let config = config(None, &[], true);
        let id = DeletionId::new(Timestamp::from_millis(0), 0);
        for sweep in [
            of(&["a/"]),
            Sweep { dry_run: true, ..of(&["a/"]) },
            Sweep { project: Some("42".to_owned()), ..Sweep::default() },
            Sweep { plan: Some(id), ..Sweep::default() },
        ] {
            let refused = body(sweep.admit(scope(&config, "deleter"), Place::Element).unwrap_err());
            assert_eq!((&refused["status"], &refused["code"]), (&json!(403), &json!("insufficient_scope")));
            assert!(refused["detail"].as_str().unwrap().contains("sweep"));
            assert!(sweep.admit(scope(&config, "sweeper"), Place::Element).is_ok());
        }
        assert!(Sweep::default().admit(scope(&config, "deleter"), Place::Element).is_ok());
    }

    #[test]
    fn the_whole_bucket_is_swept_only_where_nothing_speaks_against_it() {
        let whole = Sweep { max_objects: Some(1), ..of(&["", "a/"]) };
        let admit = |sweep: &Sweep, token: Option<&[String]>, protected: &[String], allowed| {
            let config = config(token, protected, allowed);
            sweep
                .admit(scope(&config, "sweeper"), Place::Element)
                .map_err(|problem| body(problem)["code"].clone())
        };
        assert_eq!(admit(&whole, None, &[], true), Ok(texts(&[""])));
        assert_eq!(admit(&whole, None, &[], false), Err(json!("validation_failed")));
        assert_eq!(admit(&of(&[""]), None, &[], true), Err(json!("validation_failed")));
        assert_eq!(admit(&whole, None, &texts(&["legal/"]), true), Err(json!("key_protected")));
        assert_eq!(admit(&whole, Some(&texts(&["a/"])), &[], true), Err(json!("key_not_allowed")));
    }

    #[test]
    fn a_request_has_as_many_prefixes_as_can_be_looked_after() {
        let names = |count: usize| (0..count).map(|n| format!("tmp/{n}/")).collect::<Vec<_>>();
        let project = Some("42".to_owned());
        for (named, project, taken) in
            [(100, None, true), (101, None, false), (98, project.clone(), true), (99, project, false)]
        {
            let sweep = Sweep { prefixes: names(named), project, ..Sweep::default() };
            assert_eq!(admit(&sweep).is_ok(), taken, "{named}");
        }
        let wrong = Sweep { prefixes: vec!["tmp".to_owned(); 100], ..Sweep::default() };
        assert_eq!(admit(&wrong).unwrap_err()["errors"].as_array().unwrap().len(), 20);
    }

    #[test]
    fn a_sweep_is_read_from_a_body() {
        let read = |body: &Value| {
            let body = body.to_string();
            Sweep::from_json(WireRequest::from_json(&body).map_err(|(error, _)| error).unwrap().sweep)
        };
        let plan = "del_01kaszq5m0zzzzzzzzzzzzzzzz";
        let body = json!({
            "prefixes": ["a/", "\u{e9}\"/", ""], "project": "42", "max_objects": 9_007_199_254_740_991_u64,
            "dry_run": true, "verify": true, "plan": plan,
        });
        let expected = Sweep {
            prefixes: texts(&["a/", "\u{e9}\"/", ""]),
            project: Some("42".to_owned()),
            max_objects: Some((1 << 53) - 1),
            dry_run: true,
            verify: true,
            plan: Some(plan.parse().unwrap()),
        };
        assert_eq!(read(&body), Ok(expected));
        assert_eq!(
            read(&json!({"objectKeys": ["a"], "dry_run": false, "verify": false})),
            Ok(Sweep::default())
        );
        let many = |count: usize| json!({ "prefixes": vec!["a/"; count] });
        assert_eq!(read(&many(100)).unwrap().prefixes.len(), 100);
        assert!(body_of(read(&many(101))).contains("101 prefixes"));
    }

    fn body_of(refused: Result<Sweep, Problem>) -> String {
        body(refused.unwrap_err()).to_string()
    }

    #[test]
    fn debug_output_shows_no_part_of_a_key() {
        let sweep = Sweep { project: Some("alice".to_owned()), ..of(&["users/alice/"]) };
        assert!(!format!("{sweep:?}").contains("alice"));
    }

    fn some_prefixes(least: usize) -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[ab/]{1,3}", least..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_024))]

        #[test]
        fn a_sweep_reaches_what_was_asked_for_and_no_key_that_could_not_be_named(
            prefixes in prop::collection::vec("[ab/]{0,4}", 1..5),
            token_prefixes in prop::option::of(some_prefixes(1)),
            protected in some_prefixes(0),
            rest in "[ab/]{0,4}",
        ) {
            let config = config(token_prefixes.as_deref(), &protected, true);
            let scope = scope(&config, "sweeper");
            let sweep = Sweep { prefixes: prefixes.clone(), max_objects: Some(1), ..Sweep::default() };
            let matches = |prefixes: &[String], key: &str| prefixes.iter().any(|prefix| key.starts_with(prefix));
            let forbidden = |key: &str| ObjectKey::parse(key).ok().and_then(|key| scope.forbid(&key));
            match sweep.admit(scope, Place::Element) {
                Ok(swept) => {
                    for key in prefixes.iter().map(|prefix| [prefix, rest.as_str()].concat()).chain([rest.clone()]) {
                        prop_assert_eq!(matches(&swept, &key), matches(&prefixes, &key), "{}", key);
                        prop_assert!(!matches(&swept, &key) || forbidden(&key).is_none(), "{}", key);
                    }
                    for (at, prefix) in swept.iter().enumerate() {
                        let others = [&swept[..at], &swept[at + 1..]].concat();
                        prop_assert!(!matches(&others, prefix), "{:?}", swept);
                    }
                    let mut asked = prefixes.iter();
                    prop_assert!(swept.iter().all(|swept| asked.any(|asked| asked == swept)), "{:?}", swept);
                }
                // Then there can be a key that could not be named: with one of the prefixes, or protected below it.
                Err(problem) => {
                    let mut keys: Vec<_> = prefixes.iter().map(|prefix| prefix.clone() + "\0").collect();
                    keys.extend(protected.iter().filter(|key| matches(&prefixes, key)).cloned());
                    let is_protected = keys.iter().any(|key| forbidden(key) == Some(Forbidden::Protected));
                    let is_not_allowed = keys.iter().any(|key| forbidden(key) == Some(Forbidden::NotAllowed));
                    prop_assert!(is_protected || is_not_allowed);
                    let code = if is_protected { "key_protected" } else { "key_not_allowed" };
                    prop_assert_eq!(problem.code.as_str(), code);
                }
            }
        }
    }
}
