//! Who may call what: every route of the API's description by every kind of caller.

use super::*;

const ROLES: [&str; 4] = ["delete", "sweep", "operate", "read"];

/// Those that have a token of one role, which is also its name; one with every role, one with none; and one that had a token.
fn world() -> World {
    let of_one_role = ROLES.map(|role| (role, json!({ "roles": [role] })));
    let all = ("other", json!({ "roles": ROLES }));
    let world = world_with(
        &[&of_one_role[..], &[all, ("nobody", json!({ "roles": [] })), ("owner", json!({}))]].concat(),
    );
    let had_one = world_with(&[("revoked", json!({ "roles": ROLES }))]);
    let is_known =
        |world: &World| world.ask_as("revoked-token", request("GET", "/v1/stats", Vec::new())).status;
    assert_eq!((is_known(&had_one), is_known(&world)), (200, 401));
    world
}

/// The path of a route about this deletion.
fn path(pattern: &str, deletion: &str) -> String {
    pattern.replace("{id}", deletion).replace("{number}", "1")
}

/// What tells one answer from another: not the request's id.
fn told(mut answer: Answer) -> (u16, Vec<(&'static str, String)>, String) {
    let id = answer.body.as_object_mut().unwrap().remove("request_id");
    answer.headers.retain(|(_, value)| id.as_ref().is_none_or(|id| id != value));
    (answer.status, answer.headers, answer.body.to_string())
}

#[test]
fn each_route_lets_in_whom_its_description_says_and_nobody_else() {
    let world = world();
    let accepted = world.ask_as("owner-token", request("POST", "/v1/deletions", keys_body(1).into()));
    let deletion = accepted.body["id"].as_str().unwrap();
    let sent = world.queue.stored.borrow().len();
    let (mut let_in, mut kept_out) = (0, 0);
    let description = Description::read();
    for (method, pattern, operation) in description.operations() {
        let target = path(&pattern, deletion);
        let alternatives: Vec<&str> = operation["security"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["bearer"][0].as_str().unwrap())
            .collect();
        let answer = |authorization: Option<&str>| {
            // Wrong in its form, so that whoever is let in does nothing.
            let mut request = Request { content_type: None, ..request(&method, &target, b"{".to_vec()) };
            request.authorization = authorization.map(str::to_owned);
            world.send(request).status
        };
        let strangers = [
            None,
            Some(""),
            Some("s3cret"),
            Some("Bearer"),
            Some("Bearer "),
            Some("Basic s3cret"),
            Some("Bearer s3cre"),
            Some("Bearer s3crets"),
            Some("Bearer S3CRET"),
            Some("Bearer s3cret s3cret"),
            Some("Bearer revoked-token"),
            // A token's digest, which is what a reader of the configuration knows.
            Some(&*format!("Bearer {}", hex_digest("owner-token"))),
        ]
        .map(answer);
        let of_no_role = answer(Some("Bearer nobody-token"));
        let of_one_role = ROLES.map(|role| (role, answer(Some(&format!("Bearer {role}-token")))));
        let what = format!("{method} {pattern}");
        if alternatives.is_empty() {
            assert!(strangers.iter().all(|status| ![401, 403].contains(status)), "{what}: {strangers:?}");
            continue;
        }
        assert_eq!(strangers, [401; 12], "{what}");
        assert_eq!(of_no_role, 403, "{what} by a token without a role");
        for (role, status) in of_one_role {
            let may = alternatives.contains(&role);
            assert_eq!(status != 403, may, "{what} with the role {role}: {status}");
            assert_ne!(status, 401, "{what} with the role {role}");
            *(if may { &mut let_in } else { &mut kept_out }) += 1;
        }
    }
    assert!(let_in > 15 && kept_out > 30, "{let_in} and {kept_out}");
    // The deletion is as it was, but for whoever may have cancelled it, which needs no body.
    let stored = world.queue.stored.borrow().len();
    assert!(stored <= sent + 1, "{stored} messages after {sent}");
}

#[test]
fn what_another_has_asked_for_is_to_everybody_but_an_operator_as_if_it_were_not_there() {
    let world = world();
    let accepted = world.ask_as("owner-token", request("POST", "/v1/deletions", keys_body(1).into()));
    let theirs = accepted.body["id"].as_str().unwrap();
    let nobodys = DeletionId::new(Timestamp::from_millis(5), 5).as_str().to_owned();
    let mut tried = 0;
    let description = Description::read();
    for (method, pattern, operation) in description.operations() {
        if !pattern.contains("{id}") {
            continue;
        }
        for role in ["delete", "sweep", "read"] {
            if !operation["security"].as_array().unwrap().iter().any(|one| one["bearer"][0] == role) {
                continue;
            }
            let body = if pattern.ends_with("/seal") {
                json!({"parts": 1, "total_keys": 1}).to_string()
            } else {
                keys_body(1)
            };
            let body = if method == "GET" || pattern.ends_with("/cancel") { String::new() } else { body };
            let answers = [theirs, &nobodys].map(|id| {
                let request = request(&method, &path(&pattern, id), body.clone().into());
                told(world.ask_as(&format!("{role}-token"), request))
            });
            assert_eq!(answers[0].0, 404, "{method} {pattern} with {role}: {}", answers[0].2);
            assert_eq!(answers[0], answers[1], "{method} {pattern} with {role}");
            tried += 1;
        }
    }
    assert!(tried >= 6, "{tried}");
    let kept = world.ask_as("owner-token", request("GET", &format!("/v1/deletions/{theirs}"), Vec::new()));
    assert_eq!((&kept.body["state"], &kept.body["counts"]["pending"]), (&json!("queued"), &json!(1)));
}
