use futures::executor::block_on;
use protocol::R2Error;

use super::*;
use crate::testing::{FakeBucket, FakeHost};

const MINUTE_MS: u64 = 60_000;

fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n:05}")).collect()
}

/// Where the range is cut after `last`, at most so often, and with how many listings; the last key of a cut is told as `~`.
fn cuts(objects: &[String], range: &SweepRange, last: &str, most: usize) -> (Vec<String>, usize) {
    let host = FakeHost::default();
    let bucket = FakeBucket::new(&host, objects.iter().cloned());
    let (allowance, deadline) = (Allowance::of(1, 0), host.now().plus_millis(MINUTE_MS));
    let (cuts, lists) = block_on(divide(range, last, most, deadline, &allowance, &bucket, &host));
    assert_eq!(lists, bucket.lists.get());
    assert!(cuts.iter().all(|cut| range.contains(cut) && cut.as_str() > last), "{cuts:?}");
    (cuts.into_iter().map(|cut| cut.replace(LAST_CHARACTER, "~")).collect(), lists)
}

#[test]
fn a_range_is_cut_where_its_folders_begin_and_evenly_when_they_are_many() {
    let objects: Vec<String> = (0..40).flat_map(|n| numbered(&format!("p/{n:02}/"), 3)).collect();
    let (range, last) = (SweepRange::of("p/"), "p/00/00001");
    let eight = ["p/01/", "p/06/", "p/11/", "p/16/", "p/21/", "p/26/", "p/31/", "p/36/"];
    assert_eq!(cuts(&objects, &range, last, 100), (eight.map(str::to_owned).to_vec(), 1));
    let three = ["p/01/", "p/14/", "p/27/"];
    assert_eq!(cuts(&objects, &range, last, 3), (three.map(str::to_owned).to_vec(), 1));
    // Nothing beyond the end of the range.
    let until = SweepRange { until: Some("p/03/00001".to_owned()), ..range };
    let folders = ["p/01/", "p/02/", "p/03/"];
    assert_eq!(cuts(&objects, &until, last, 100), (folders.map(str::to_owned).to_vec(), 1));
}

#[test]
fn where_all_is_in_one_folder_it_is_cut_within() {
    let objects: Vec<String> = (0..3).flat_map(|n| numbered(&format!("p/x/y{n}/"), 3)).collect();
    let folders = ["p/x/y1/", "p/x/y2/"].map(str::to_owned).to_vec();
    assert_eq!(cuts(&objects, &SweepRange::of("p/"), "p/x/y0/00001", 8), (folders, 2));
}

#[test]
fn without_folders_it_is_cut_where_the_first_character_changes_that_is_not_everywhere_the_same() {
    let objects = numbered("p/", 1_200);
    let range = SweepRange::of("p/");
    // No folder; the second, the third and the first of five characters; and nothing beyond.
    assert_eq!(cuts(&objects, &range, "p/00019", 8), (vec!["p/00~".to_owned()], 5));
    let until = SweepRange { until: Some("p/00500".to_owned()), ..range };
    let five = ["p/000~", "p/001~", "p/002~", "p/003~", "p/004~"].map(str::to_owned);
    assert_eq!(cuts(&objects, &until, "p/00019", 8).0, five);
    assert_eq!(cuts(&objects, &until, "p/00019", 3).0, five[..3]);
    // Characters of several bytes are not cut through.
    let objects = ["p/ä1", "p/ä2", "p/é1", "p/ü"].map(str::to_owned);
    assert_eq!(cuts(&objects, &SweepRange::of("p/"), "p/ä1", 8).0, ["p/ä~", "p/é~"]);
}

#[test]
fn what_is_in_its_last_page_already_is_not_cut() {
    let objects = numbered("p/", 5);
    let (found, lists) = cuts(&objects, &SweepRange::of("p/"), "p/00004", 8);
    assert!(found.is_empty() && lists <= 5, "{found:?} {lists}");
}

#[test]
fn it_ends_with_the_listings_the_time_and_the_calls_that_there_are() {
    let deep = format!("p/{}", "x/".repeat(30));
    let objects = numbered(&deep, 3);
    assert_eq!(cuts(&objects, &SweepRange::of("p/"), &objects[0], 8), (Vec::new(), LISTS_MAX));

    let objects = numbered("p/", 1_200);
    let (range, last) = (SweepRange::of("p/"), "p/00019");
    let host = FakeHost::default();
    let bucket = FakeBucket::new(&host, objects);
    let allowance = Allowance::of(1, 0);
    let at = |deadline: Timestamp, allowance: &Allowance| {
        block_on(divide(&range, last, 8, deadline, allowance, &bucket, &host))
    };
    assert_eq!(at(host.now(), &allowance), (Vec::new(), 0));
    // A listing takes ten milliseconds: after the second it is too late.
    assert_eq!(at(host.now().plus_millis(11), &allowance).1, 2);
    *bucket.next_list_errors.borrow_mut() = vec![R2Error::Internal];
    assert_eq!(at(host.now().plus_millis(MINUTE_MS), &allowance).1, 5, "without the folders by character");
    while allowance.take_head() {}
    assert_eq!(at(host.now().plus_millis(MINUTE_MS), &allowance), (Vec::new(), 0));
}
