//! Whose deletions somebody sees where no id is named: in lists, and in totals.

use super::*;

/// The names of those whose deletions a list has, in its order, page by page.
fn listed(world: &World, token: &str) -> Vec<String> {
    let (mut names, mut page) = (Vec::new(), String::new());
    loop {
        let target = format!("/v1/deletions?page_size=1{page}");
        let answer = world.ask_as(token, request("GET", &target, Vec::new()));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let deletions = answer.body["deletions"].as_array().unwrap();
        names.extend(deletions.iter().map(|deletion| deletion["requested_by"].as_str().unwrap().to_owned()));
        match answer.body["next_page_token"].as_str() {
            Some(next) => page = format!("&page_token={next}"),
            None => return names,
        }
    }
}

#[test]
fn a_list_and_the_totals_have_ones_own_deletions_and_an_operators_everybodys() {
    let world = world_with(&[
        ("owner", json!({})),
        ("other", json!({})),
        ("stranger", json!({})),
        ("reader", json!({"roles": ["read"]})),
        ("operator", json!({"roles": ["operate", "read"]})),
    ]);
    for (name, keys) in [("owner", 1), ("other", 2), ("owner", 4)] {
        world.host.now.set(world.host.now.get() + 1);
        let accepted =
            world.ask_as(&format!("{name}-token"), request("POST", "/v1/deletions", keys_body(keys).into()));
        assert_eq!(accepted.status, 202);
    }
    let everybodys = ["owner", "other", "owner"];
    for (token, names, keys) in [
        ("owner-token", &["owner", "owner"][..], 5),
        ("other-token", &["other"], 2),
        ("stranger-token", &[], 0),
        ("reader-token", &[], 0),
        ("operator-token", &everybodys, 7),
        ("s3cret", &everybodys, 7),
    ] {
        assert_eq!(listed(&world, token), *names, "{token}");
        let stats = world.ask_as(token, request("GET", "/v1/stats", Vec::new()));
        assert_eq!(stats.body["keys"]["total"], keys, "{token}: {}", stats.body);
    }
}

#[test]
fn a_page_token_is_of_use_to_whom_it_was_given_only() {
    let world = world_with(&[("owner", json!({})), ("other", json!({}))]);
    for name in ["owner", "owner", "other", "other"] {
        world.ask_as(&format!("{name}-token"), request("POST", "/v1/deletions", keys_body(1).into()));
    }
    let first = world.ask_as("owner-token", request("GET", "/v1/deletions?page_size=1", Vec::new()));
    let target = format!("/v1/deletions?page_token={}", first.body["next_page_token"].as_str().unwrap());
    let status = |token: &str| world.ask_as(token, request("GET", &target, Vec::new())).status;
    assert_eq!((status("owner-token"), status("other-token"), status("s3cret")), (200, 422, 422));
}

#[test]
fn whoever_may_not_delete_a_key_is_told_why() {
    let world = world_with(&[("narrow", json!({"prefixes": ["a/", "legal/"]}))]);
    for (key, says) in
        [("legal/x", "the key is protected"), ("b/x", "the key begins with none of the token's prefixes")]
    {
        let body = json!({ "objectKeys": [key] }).to_string();
        let refused = world.ask_as("narrow-token", request("POST", "/v1/deletions", body.into()));
        assert_eq!(refused.status, 403, "{}", refused.body);
        assert_eq!(refused.body["errors"][0]["detail"], says);
    }
}
