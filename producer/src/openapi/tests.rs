//! Holds the API's description to the code, and every answer that a test of the router gets to the description.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::Validator;
use protocol::limits::{KEY_BYTES_MAX, REQUEST_BYTES_MAX, REQUEST_KEYS_MAX, UNDO_SECONDS_MAX};
use protocol::{FailureCode, RETENTION_FAILED_MS, RETENTION_MS, State, UnreadableReason};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::auth::Role;
use crate::labels::{LABELS_MAX, NAME_CHARACTERS_MAX, VALUE_BYTES_MAX};
use crate::problem::{ERRORS_LISTED_MAX, ProblemCode};
use crate::router::{Access, ROUTES};
use crate::{list, page};

/// The document, as it is deployed.
pub(crate) struct Description {
    document: Value,
    /// By the pointers to their schemas. Each takes some milliseconds to make, and every test of the router needs some.
    validators: Mutex<BTreeMap<String, Arc<Validator>>>,
}

static DESCRIPTION: LazyLock<Description> = LazyLock::new(|| Description {
    document: serde_json::from_str(include_str!("../../assets/openapi.json")).unwrap(),
    validators: Mutex::default(),
});

impl Description {
    pub(crate) fn read() -> &'static Self {
        &DESCRIPTION
    }

    /// The part at a JSON Pointer, which must be there.
    #[track_caller]
    fn at(&self, pointer: &str) -> &Value {
        self.document.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not described"))
    }

    /// Where a part is that may be elsewhere.
    #[track_caller]
    fn follow(&self, pointer: String) -> String {
        let elsewhere =
            self.at(&pointer)["$ref"].as_str().map(|found| found.trim_start_matches('#').to_owned());
        elsewhere.unwrap_or(pointer)
    }

    /// The methods of each path, `(GET, /v1/deletions)`, each with what is said of it.
    pub(crate) fn operations(&self) -> Vec<(String, String, &Value)> {
        let paths = self.at("/paths").as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters");
            methods.map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
        });
        operations.collect()
    }

    /// What is wrong with `value` by the schema at a pointer.
    pub(crate) fn wrong(&self, schema: &str, value: &Value) -> Option<String> {
        let validator = {
            let mut validators = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(validators.entry(schema.to_owned()).or_insert_with(|| {
                // The document around it, so that its references lead somewhere.
                let mut root = self.document.clone();
                root["allOf"] = json!([self.at(schema)]);
                Arc::new(jsonschema::draft202012::new(&root).unwrap())
            }))
        };
        let error = validator.iter_errors(value).next();
        error.map(|error| format!("{error} at {} by {schema}", error.instance_path()))
    }

    /// Fails when an answer is none that the document has for a call: its status, its headers, its body, which is no JSON
    /// only where it is a stream.
    #[track_caller]
    pub(crate) fn check(
        &self,
        (method, pattern): (&str, &str),
        status: u16,
        headers: &[(&str, String)],
        body: &str,
    ) {
        let what = format!("{status} to {method} {pattern}");
        let described = format!("/paths/{}/{}/responses/{status}", escape(pattern), method.to_lowercase());
        let place = match status {
            _ if self.document.pointer(&described).is_some() => self.follow(described),
            404 if pattern == "unmatched" => "/components/responses/NotFound".to_owned(),
            405 => "/components/responses/MethodNotAllowed".to_owned(),
            _ => panic!("{what} is not described: {body}"),
        };
        let header = |name: &str| headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value);
        let media_type = header("Content-Type").unwrap();
        let schema = format!("{place}/content/{}/schema", escape(media_type));
        assert!(self.document.pointer(&schema).is_some(), "{what}: {media_type} is not described");
        if media_type != "application/x-ndjson" {
            let body = serde_json::from_str(body).unwrap();
            assert_eq!(self.wrong(&schema, &body), None, "{what}: {body}");
        }

        let described = self.at(&format!("{place}/headers")).as_object().unwrap();
        for name in described.keys() {
            let required = self.at(&self.follow(format!("{place}/headers/{name}")))["required"] == true;
            assert!(!required || header(name).is_some(), "{what} has no {name}");
        }
        for (name, value) in headers {
            if ["Content-Type", "Cache-Control"].contains(name) {
                continue;
            }
            let schema = format!("{}/schema", self.follow(format!("{place}/headers/{name}")));
            let value = value.parse::<u64>().map_or_else(|_| json!(value), |number| json!(number));
            assert_eq!(self.wrong(&schema, &value), None, "{what}: {name}");
        }
    }
}

fn escape(segment: &str) -> String {
    segment.replace('~', "~0").replace('/', "~1")
}

/// The names of an enum's variants, out of what serde says about a name that is none.
fn variants<T: DeserializeOwned>() -> Vec<String> {
    let error = serde_json::from_str::<T>("\"\"").err().unwrap().to_string();
    let names: Vec<String> = error.split('`').skip(3).step_by(2).map(str::to_owned).collect();
    assert!(names.len() > 1, "{error}");
    names
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn the_description_has_every_route_with_its_roles_and_no_other() {
    let description = Description::read();
    let described: BTreeSet<_> = description
        .operations()
        .into_iter()
        .map(|(method, path, operation)| {
            let any_of = operation["security"].as_array().unwrap().iter();
            let roles: Vec<String> = any_of.map(|one| texts(&one["bearer"]).join(" and ")).collect();
            (method, path, roles)
        })
        .collect();
    let routes: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| {
            let roles = match route.access {
                Access::Open(_) => Vec::new(),
                Access::AnyOf(roles, _) => roles.iter().map(|role| role.as_str().to_owned()).collect(),
            };
            (route.method.to_owned(), route.pattern.to_owned(), roles)
        })
        .collect();
    assert_eq!(described, routes, "described, and routed");
    assert_eq!(routes.len(), ROUTES.len(), "a route is there twice");
    for role in variants::<Role>() {
        let scheme = description.at("/components/securitySchemes/bearer/description").as_str().unwrap();
        assert!(scheme.contains(&format!("`{role}`")), "{role}");
    }
}

#[test]
fn every_variable_of_a_path_is_described() {
    let description = Description::read();
    for (path, item) in description.at("/paths").as_object().unwrap() {
        let variables: Vec<&str> =
            path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}')).collect();
        let described = (0..item["parameters"].as_array().map_or(0, Vec::len)).map(|at| {
            let parameter = description.follow(format!("/paths/{}/parameters/{at}", escape(path)));
            description.at(&parameter)["name"].as_str().unwrap()
        });
        let described: Vec<&str> = described.collect();
        assert_eq!(variables, described, "{path}");
    }
}

#[test]
fn every_problem_is_described_with_its_status_and_whether_it_is_retryable() {
    let description = Description::read();
    let mut described = BTreeSet::new();
    for (name, response) in description.at("/components/responses").as_object().unwrap() {
        let schema = &response["content"]["application/problem+json"]["schema"]["properties"];
        for code in texts(&schema["code"]["enum"]) {
            let problem: ProblemCode = serde_json::from_value(json!(code)).unwrap();
            assert_eq!(schema["status"]["const"], problem.status(), "{name}, {code}");
            if let Some(retryable) = schema["retryable"]["const"].as_bool() {
                assert_eq!(retryable, problem.retryable(), "{name}, {code}");
            }
            described.insert(code.to_owned());
        }
    }
    assert_eq!(described, variants::<ProblemCode>().into_iter().collect());
}

/// What the router does before it calls anything.
#[test]
fn every_call_that_needs_a_token_can_be_refused_for_it() {
    for (method, path, operation) in Description::read().operations() {
        let needs_token = operation["security"] != json!([]);
        for status in ["401", "403", "429"] {
            assert_eq!(
                operation["responses"].get(status).is_some(),
                needs_token,
                "{status}: {method} {path}"
            );
        }
        assert!(!needs_token || operation["responses"].get("503").is_some(), "{method} {path}");
    }
}

#[test]
fn every_state_and_code_is_described() {
    let description = Description::read();
    let schema = |pointer: &str| texts(description.at(&format!("/components/schemas/{pointer}")));
    let states = State::ALL.map(State::as_str);
    assert_eq!(schema("State/enum"), states);
    assert_eq!(schema("Stats/properties/deletions/required"), states);
    let codes: Vec<&str> = FailureCode::ALL.into_iter().map(FailureCode::as_str).chain(["unknown"]).collect();
    assert_eq!(schema("FailureCode/enum"), codes);
    let reasons = UnreadableReason::ALL.map(UnreadableReason::as_str);
    assert_eq!(schema("UnreadableMessage/properties/reason/enum"), reasons);
    for (name, words) in [("State", &states[..]), ("FailureCode", &codes)] {
        let said = description.at(&format!("/components/schemas/{name}/description")).as_str().unwrap();
        for word in words {
            assert!(said.contains(&format!("`{word}`")), "{name} does not say what {word} means");
        }
    }
}

#[test]
fn the_limits_are_those_of_the_code() {
    let description = Description::read();
    let listed = |call: &str, list: &str| {
        format!("/paths/{call}/get/responses/200/content/application~1json/schema/properties/{list}/maxItems")
    };
    let schemas = "/components/schemas";
    for (pointer, limit) in [
        (format!("{schemas}/DeletionRequest/properties/objectKeys/maxItems"), REQUEST_KEYS_MAX),
        (format!("{schemas}/DeletionRequest/properties/delay_seconds/maximum"), UNDO_SECONDS_MAX as usize),
        (format!("{schemas}/DeletionRequest/properties/labels/maxProperties"), LABELS_MAX),
        (format!("{schemas}/LabelValue/maxLength"), VALUE_BYTES_MAX),
        (format!("{schemas}/ObjectKey/maxLength"), KEY_BYTES_MAX),
        (format!("{schemas}/Problem/properties/errors/maxItems"), ERRORS_LISTED_MAX),
        ("/components/parameters/PageSize/schema/default".to_owned(), page::SIZE_DEFAULT),
        ("/paths/~1v1~1deletions/get/parameters/2/schema/default".to_owned(), page::SIZE_DEFAULT),
        (listed("~1v1~1deletions", "deletions"), list::SIZE_MAX),
        (listed("~1v1~1deletions~1{id}~1failures", "failures"), page::SIZE_MAX),
        (listed("~1v1~1unreadable-messages", "unreadable_messages"), page::SIZE_MAX),
    ] {
        assert_eq!(*description.at(&pointer), limit, "{pointer}");
    }
    let days = |millis: u64| millis / 86_400_000;
    for (pointer, says) in [
        ("/info/description", format!("up to {} object keys", thousands(REQUEST_KEYS_MAX))),
        ("/info/version", env!("CARGO_PKG_VERSION").to_owned()),
        (
            "/paths/~1v1~1deletions/post/requestBody/description",
            format!("{} bytes", thousands(REQUEST_BYTES_MAX)),
        ),
        ("/paths/~1v1~1deletions/get/parameters/2/description", format!("More than {}", list::SIZE_MAX)),
        (
            "/paths/~1v1~1deletions~1{id}/get/description",
            format!("{} days after its end", days(RETENTION_MS)),
        ),
        ("/paths/~1v1~1deletions~1{id}/get/description", format!("{} days when", days(RETENTION_FAILED_MS))),
        ("/components/parameters/PageSize/description", format!("More than {}", page::SIZE_MAX)),
        ("/components/schemas/ObjectKey/description", format!("{} bytes", thousands(KEY_BYTES_MAX))),
        ("/components/schemas/LabelValue/description", format!("{VALUE_BYTES_MAX} bytes")),
        ("/components/schemas/LabelName/pattern", format!("{{1,{NAME_CHARACTERS_MAX}}}")),
        (
            "/components/responses/PayloadTooLarge/description",
            format!("{} keys", thousands(REQUEST_KEYS_MAX)),
        ),
        (
            "/components/responses/PayloadTooLarge/description",
            format!("{} bytes", thousands(REQUEST_BYTES_MAX)),
        ),
    ] {
        let said = description.at(pointer).as_str().unwrap();
        assert!(said.contains(&says), "{pointer} does not say {says:?}: {said}");
    }
}

/// 16,000,000.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

#[test]
fn every_example_is_one() {
    let description = Description::read();
    let mut checked = 0;
    let mut check = |schema: String, example: &Value| {
        checked += 1;
        assert_eq!(description.wrong(&schema, example), None);
    };
    for (name, schema) in description.at("/components/schemas").as_object().unwrap() {
        for example in schema["examples"].as_array().into_iter().flatten() {
            check(format!("/components/schemas/{name}"), example);
        }
    }
    for (name, parameter) in description.at("/components/parameters").as_object().unwrap() {
        if let Some(example) = parameter.get("example") {
            check(format!("/components/parameters/{name}/schema"), example);
        }
    }
    for (method, path, operation) in description.operations() {
        let operation_at = format!("/paths/{}/{}", escape(&path), method.to_lowercase());
        for (at, parameter) in operation["parameters"].as_array().into_iter().flatten().enumerate() {
            if let Some(example) = parameter.get("example") {
                check(format!("{operation_at}/parameters/{at}/schema"), example);
            }
        }
        let body = format!("{operation_at}/requestBody/content/application~1json");
        let examples = description.document.pointer(&format!("{body}/examples")).and_then(Value::as_object);
        for example in examples.into_iter().flat_map(|examples| examples.values()) {
            check(format!("{body}/schema"), &example["value"]);
        }
    }
    assert!(checked > 10, "{checked}");
}
