//! Deletion by prefix, on the runtime's own Queue, R2 and D1: what begins so goes, and its neighbours stay.
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use e2e::{Pair, eventually};
use serde_json::{Value, json};
use toml::Table;
use xtask::stack::{Api, Counts};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// Those of README.
const TEMPLATES: [&str; 5] =
    ["proj_{id}/", "proj_{id}_", "proj_proj_{id}/", "proj_proj_{id}_", "projects/{id}/"];

/// The digest of `e2e-backend-token`.
const BACKEND: &str = "0f01c67366ae8bd8ec351ff4bd9c0a5408d203824427c1b081568a3e5347e28e";

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

fn post(api: &Api, body: &Value) -> Result<Value> {
    api.send("POST", "/v1/deletions", JSON, &body.to_string())?.expect(202)
}

/// Asks for a deletion, and answers with it once it is over.
fn settled(pair: &Pair, body: &Value) -> Result<Value> {
    let accepted = post(&pair.api(), body)?;
    let id = accepted["id"].as_str().context("an id")?;
    pair.settle(id)?;
    pair.api().get(&format!("/v1/deletions/{id}"))?.expect(200)
}

fn counts(of: &Value) -> Result<Counts> {
    Ok(serde_json::from_value(of["counts"].clone())?)
}

fn left(pair: &Pair) -> Result<BTreeSet<String>> {
    Ok(pair.keys()?.into_iter().collect())
}

/// How many keys each range of the sweep has deleted, by the log, once it has told of all of them.
fn deleted_by_range(pair: &Pair, keys: u64) -> Result<BTreeMap<u64, u64>> {
    eventually("the log has every step", || {
        let (log, mut deleted) = (pair.log()?, BTreeMap::new());
        for event in log.split("event: 'sweep.progressed'").skip(1) {
            let number = |name: &str| event.split_once(name)?.1.split(',').next()?.trim().parse().ok();
            let (range, keys): (u64, u64) =
                number(" sweep: ").zip(number(" keys_deleted: ")).context("a step without its numbers")?;
            *deleted.entry(range).or_default() += keys;
        }
        Ok((deleted.values().sum::<u64>() == keys).then_some(deleted))
    })
}

/// 1. 50,000 objects of one project in folders, and near-namesakes beside each bound that a range can have. 2. The
///    project's prefix is deleted, with a look at what is left. 3. Exactly these are gone, and several ranges were at
///    work.
///
/// Takes 20 seconds, on a busy machine twice as long.
#[test]
fn fifty_thousand_objects_go_by_their_prefix_and_no_neighbour_does() -> Result<()> {
    let pair = Pair::start()?;
    let neighbours = texts([
        "PROJ_42/00/a",
        "proj_4/00/a",
        "proj_4",
        "proj_42",
        "proj_42-/a",
        "proj_42.jpg",
        "proj_420/a",
        "proj_421/00/a",
        "proj_42x",
        "proj_42\u{10ffff}/a",
        "exports/proj_42/a",
    ]);
    let folder = |n: usize| match n % 3 {
        0 => String::new(),
        1 => format!("{:02}/", n % 20),
        _ => format!("{:02}/é {:02}/", n % 20, n % 7),
    };
    let keys: Vec<_> = (0..50_000).map(|n| format!("proj_42/{}{n:05}.jpg", folder(n))).collect();
    pair.gateway().put(&neighbours, 1)?;
    pair.fill(&keys)?;
    assert_eq!(pair.keys()?.len(), keys.len() + neighbours.len());

    let deletion = settled(&pair, &json!({"prefixes": ["proj_42/"], "verify": true}))?;
    assert_eq!(deletion["state"], "succeeded", "{deletion}");
    let all = Counts { total: 50_000, pending: 0, deleted: 50_000, skipped: 0, failed: 0, cancelled: 0 };
    assert_eq!((counts(&deletion)?, &deletion["found_by_prefix"]), (all, &json!(50_000)));
    assert_eq!(deletion["verification"]["objects_left"], 0);
    assert_eq!(pair.gateway().list("proj_42/")?, []);
    assert_eq!(left(&pair)?, BTreeSet::from_iter(neighbours));
    let ranges = deleted_by_range(&pair, 50_000)?;
    assert!(ranges.len() > 1, "one range was swept by one consumer: {ranges:?}");
    Ok(())
}

/// 1. Three projects that look alike, by every template. 2. One is deleted, with the keys that are known of it, and an
///    undo window in which a known and an unknown object are uploaded again. 3. What was not known is found and
///    counted; the two that came since stay and are told once each; the other projects are whole.
#[test]
fn a_project_goes_with_what_nobody_knew_of_and_its_neighbours_are_whole() -> Result<()> {
    let pair = Pair::start_with(|options| {
        let templates = toml::Value::from(TEMPLATES.to_vec());
        let vars: Table = [("PROJECT_TEMPLATES".to_owned(), templates)].into_iter().collect();
        options.configs.producer.insert("vars".to_owned(), vars.into());
    })?;
    let files_of = |id: &str| -> Vec<String> {
        let prefixes = TEMPLATES.iter().map(|template| template.replace("{id}", id));
        prefixes.flat_map(|prefix| (0..8).map(move |n| format!("{prefix}file {n}.jpg"))).collect()
    };
    let (project, beside) =
        (files_of("42"), [files_of("4"), files_of("421"), texts(["proj_42", "projects/42"])].concat());
    pair.gateway().put(&project, 1)?;
    pair.gateway().put(&beside, 1)?;
    let (known, unknown): (Vec<_>, Vec<_>) = project.iter().cloned().partition(|key| !key.contains("file 7"));
    let asked = [known.as_slice(), &texts(["proj_42/was never there"])].concat();
    let request = json!({"project": "42", "objectKeys": asked, "delay_seconds": 2});
    let accepted = post(&pair.api(), &request)?;
    let again = [known[3].clone(), unknown[2].clone()];
    pair.gateway().put(&again, 1)?;

    let id = accepted["id"].as_str().context("an id")?;
    let deletion = pair.settle(id)?;
    assert_eq!(deletion.state, "succeeded");
    assert_eq!(
        deletion.counts,
        Counts { total: 41, pending: 0, deleted: 39, skipped: 2, failed: 0, cancelled: 0 }
    );
    let view: Value = pair.api().get(&format!("/v1/deletions/{id}"))?.expect(200)?;
    assert_eq!(view["found_by_prefix"], unknown.len());
    assert_eq!(view["prefixes"], json!(TEMPLATES.map(|template| template.replace("{id}", "42"))));
    let skipped: Value = pair.api().get(&format!("/v1/deletions/{id}/skipped"))?.expect(200)?;
    let told: BTreeSet<_> =
        skipped["skipped"].as_array().into_iter().flatten().map(|skip| skip["key"].as_str()).collect();
    assert_eq!(told, again.iter().map(|key| Some(key.as_str())).collect());
    assert_eq!(skipped["skipped"].as_array().map(Vec::len), Some(2));
    assert_eq!(left(&pair)?, beside.into_iter().chain(again).collect());
    Ok(())
}

/// 1. A dry run says what there is, and deletes nothing. 2. It is carried out. 3. Another is not, since there is far
///    more by then.
#[test]
fn a_dry_run_deletes_nothing_and_is_carried_out_unless_there_is_far_more_by_then() -> Result<()> {
    let pair = Pair::start()?;
    let files =
        |from: usize, to: usize| -> Vec<String> { (from..to).map(|n| format!("proj_42/{n:03}")).collect() };
    let beside = texts(["proj_42", "proj_421/a"]);
    pair.gateway().put(&beside, 1)?;
    pair.gateway().put(&files(0, 25), 3)?;
    let whole = left(&pair)?;

    let body = json!({"prefixes": ["proj_42/"], "objectKeys": ["proj_42", "missing"], "dry_run": true});
    let planned = settled(&pair, &body)?;
    assert_eq!((&planned["state"], &planned["dry_run"]), (&json!("planned"), &json!(true)));
    let plan = &planned["plan"];
    let figures = ["keys", "objects", "bytes", "uploaded_since"].map(|name| plan[name].as_u64());
    assert_eq!(figures, [2, 25, 75, 0].map(Some));
    let uploads = pair.gateway().list("proj_42/")?;
    let uploads: BTreeSet<_> = uploads.iter().map(|object| object.uploaded.as_str()).collect();
    assert_eq!(plan["oldest_uploaded_at"].as_str(), uploads.first().copied());
    assert_eq!(plan["newest_uploaded_at"].as_str(), uploads.last().copied());
    let sample: Vec<_> = plan["sample"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(!sample.is_empty() && sample.iter().all(|key| whole.contains(*key)), "{sample:?}");
    assert_eq!(left(&pair)?, whole);

    let carried_out = settled(&pair, &json!({"plan": planned["id"]}))?;
    assert_eq!(carried_out["state"], "succeeded");
    let all = Counts { total: 25, pending: 0, deleted: 25, skipped: 0, failed: 0, cancelled: 0 };
    assert_eq!((counts(&carried_out)?, &carried_out["prefixes"]), (all, &json!(["proj_42/"])));
    assert_eq!(left(&pair)?, beside.iter().cloned().collect());

    // A tenth more or ten: of twenty, thirty may go.
    pair.gateway().put(&files(0, 20), 1)?;
    let planned = settled(&pair, &json!({"prefixes": ["proj_42/"], "dry_run": true}))?;
    pair.gateway().put(&files(20, 31), 1)?;
    let whole = left(&pair)?;
    let refused = settled(&pair, &json!({"plan": planned["id"]}))?;
    assert_exceeded(&pair, &refused, "proj_42/")?;
    assert_eq!(left(&pair)?, whole);
    Ok(())
}

/// The deletion has failed, for the prefix and no key of it.
fn assert_exceeded(pair: &Pair, deletion: &Value, prefix: &str) -> Result<()> {
    assert_eq!(deletion["state"], "failed", "{deletion}");
    let failures = pair.api().failures(deletion["id"].as_str().context("an id")?)?.failures;
    let failures: Vec<_> =
        failures.iter().map(|failure| (failure.key.as_str(), failure.code.as_str())).collect();
    assert_eq!(failures, [(prefix, "max_objects_exceeded")]);
    assert_eq!(counts(deletion)?.deleted, 0);
    Ok(())
}

/// A name that goes on, as `proj_4` does in `proj_42/`, is no mistake when it is said how many objects are meant.
#[test]
fn more_objects_than_were_meant_are_not_deleted_at_all() -> Result<()> {
    let pair = Pair::start()?;
    pair.gateway().put(&texts(["proj_4/a", "proj_4/b", "proj_42/a", "proj_5/a"]), 1)?;
    let whole = left(&pair)?;
    let refused = settled(&pair, &json!({"prefixes": ["proj_4"], "max_objects": 2}))?;
    assert_exceeded(&pair, &refused, "proj_4")?;
    // Two prefixes have one limit.
    let refused = settled(&pair, &json!({"prefixes": ["proj_4/", "proj_5/"], "max_objects": 2}))?;
    assert_eq!(refused["state"], "failed");
    assert_eq!(left(&pair)?, whole);

    let meant = settled(&pair, &json!({"prefixes": ["proj_4"], "max_objects": 3}))?;
    assert_eq!((&meant["state"], counts(&meant)?.deleted), (&json!("succeeded"), 3));
    assert_eq!(pair.keys()?, ["proj_5/a"]);
    Ok(())
}

#[test]
fn a_verified_deletion_says_what_came_since() -> Result<()> {
    let pair = Pair::start()?;
    pair.gateway().put(&texts(["proj_42/a", "proj_42/b", "proj_42/c"]), 1)?;
    let accepted = post(&pair.api(), &json!({"prefixes": ["proj_42/"], "verify": true, "delay_seconds": 2}))?;
    assert_eq!(accepted["verification"], Value::Null);
    pair.gateway().put(&texts(["proj_42/b", "proj_42/new", "proj_421/a"]), 1)?;
    let id = accepted["id"].as_str().context("an id")?;
    let deletion = pair.settle(id)?;
    let all = Counts { total: 4, pending: 0, deleted: 2, skipped: 2, failed: 0, cancelled: 0 };
    assert_eq!((deletion.state.as_str(), deletion.counts), ("succeeded", all));
    let view: Value = pair.api().get(&format!("/v1/deletions/{id}"))?.expect(200)?;
    let verification = &view["verification"];
    assert_eq!((&verification["objects_left"], &verification["uploaded_since"]), (&json!(0), &json!(2)));
    assert!(verification["verified_at"].as_str() > Some(deletion.requested_at.as_str()), "{verification}");
    assert_eq!(pair.keys()?, ["proj_42/b", "proj_42/new", "proj_421/a"]);
    Ok(())
}

#[test]
fn what_may_not_be_swept_is_refused_and_nothing_is_deleted() -> Result<()> {
    let pair = Pair::start_with(|options| {
        let tokens = json!([{"name": "backend", "sha256": BACKEND, "roles": ["delete", "read"]}]);
        options.configs.secrets.insert("API_TOKENS".to_owned(), tokens.to_string());
        let vars =
            [("PROTECTED_PREFIXES", vec!["exports/legal/"]), ("PROJECT_TEMPLATES", TEMPLATES.to_vec())];
        let vars: Table =
            vars.into_iter().map(|(name, list)| (name.to_owned(), toml::Value::from(list))).collect();
        options.configs.producer.insert("vars".to_owned(), vars.into());
    })?;
    pair.gateway().put(&texts(["proj_4/a", "proj_42/a", "exports/legal/a", "exports/b"]), 1)?;
    let whole = left(&pair)?;
    let (own, deleter) = (pair.api(), pair.api().with_token("e2e-backend-token"));
    for (api, body, status, code, pointer) in [
        (&deleter, json!({"prefixes": ["proj_42/"]}), 403, "insufficient_scope", None),
        (&deleter, json!({"project": "42"}), 403, "insufficient_scope", None),
        (&deleter, json!({"prefixes": ["proj_42/"], "dry_run": true}), 403, "insufficient_scope", None),
        (&own, json!({"prefixes": ["proj_42/", "exports/"]}), 403, "key_protected", Some("#/prefixes/1")),
        (&own, json!({"prefixes": ["exports/legal/a/"]}), 403, "key_protected", Some("#/prefixes/0")),
        (
            &own,
            json!({"prefixes": ["exports/leg"], "max_objects": 9}),
            403,
            "key_protected",
            Some("#/prefixes/0"),
        ),
        (&own, json!({"prefixes": [""]}), 422, "validation_failed", Some("#/prefixes/0")),
        (&own, json!({"prefixes": ["proj_4/", "proj_4"]}), 422, "validation_failed", Some("#/prefixes/1")),
        (&own, json!({"project": "4_2"}), 422, "validation_failed", Some("#/project")),
        (&own, json!({"project": "proj"}), 422, "validation_failed", Some("#/project")),
        (&own, json!({"plan": "del_01kaszq5m00000000000000000"}), 422, "validation_failed", Some("#/plan")),
    ] {
        let answer = api.send("POST", "/v1/deletions", JSON, &body.to_string())?;
        let problem: Value = answer.json()?;
        assert_eq!((answer.status, problem["code"].as_str()), (status, Some(code)), "{body}: {problem}");
        assert_eq!(problem["errors"][0]["pointer"].as_str(), pointer, "{body}: {problem}");
    }
    assert!(pair.gateway().sql("SELECT id FROM deletions", &[])?.is_empty());
    // Whoever comes next is not held up by anything, and finds all there.
    assert_eq!(settled(&pair, &json!({"prefixes": ["nothing/"]}))?["state"], "succeeded");
    assert_eq!(left(&pair)?, whole);
    Ok(())
}
