//! Where a list ends, and when to ask again.

use super::*;

/// Accepts a deletion of four keys, and fails two of them, beside three unreadable messages.
fn world() -> (World, String) {
    let world = World::new();
    let id = world.post(keys_body(4)).body["id"].as_str().unwrap().to_owned();
    world.consume(&id, 4);
    (world, id)
}

#[test]
fn a_page_that_has_the_last_entry_has_no_token() {
    let (world, id) = world();
    let failures = format!("/v1/deletions/{id}/failures");
    for (path, name, entries) in
        [(failures.as_str(), "failures", 2), ("/v1/unreadable-messages", "unreadable_messages", 3)]
    {
        for (size, is_last) in [(entries + 1, true), (entries, true), (entries - 1, false)] {
            let page = world.get(&format!("{path}?page_size={size}"));
            assert_eq!(page.body[name].as_array().unwrap().len(), size.min(entries), "{path} {size}");
            assert_eq!(page.body["next_page_token"].is_null(), is_last, "{path} {size}");
            if !is_last {
                let token = page.body["next_page_token"].as_str().unwrap();
                let next = world.get(&format!("{path}?page_size={size}&page_token={token}"));
                assert_eq!(next.body[name].as_array().unwrap().len(), 1, "{path} {size}");
                assert!(next.body["next_page_token"].is_null(), "{path} {size}");
            }
        }
    }
}

#[test]
fn whoever_waits_asks_each_second_for_half_a_minute_and_then_less_often() {
    let world = World::new();
    let id = world.post(keys_body(2)).body["id"].as_str().unwrap().to_owned();
    let requested_at = world.host.now.get();
    for (age_ms, seconds) in [(0, "1"), (29_999, "1"), (30_000, "5"), (600_000, "5")] {
        world.host.now.set(requested_at + age_ms);
        let answer = world.get(&format!("/v1/deletions/{id}"));
        assert_eq!(answer.header("Retry-After"), Some(seconds), "{age_ms}");
    }
    world.consume(&id, 2);
    assert_eq!(world.get(&format!("/v1/deletions/{id}")).header("Retry-After"), None);
}
