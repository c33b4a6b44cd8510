//! Leaving the map, and what may be used again.

use super::*;

fn remove(rig: &mut Rig, name: &str) -> Result<PathId, MapError> {
    rig.with(|m, now, fx| m.remove_path(now, name, fx))
}

#[test]
fn a_removed_path_is_out_of_the_table_before_it_is_retired() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    let id = rig.id("a");
    let mut fx = Effects::new();
    assert_eq!(rig.map.remove_path(rig.now, "a", &mut fx), Ok(id));
    let published = fx.iter().position(|e| matches!(e, Effect::Publish(_))).expect("published");
    let retire = fx.iter().position(|e| *e == Effect::Retire(id)).expect("retired");
    assert!(published < retire);
    assert_eq!(rig.groups(), [["b"]]);
    assert!(rig.map.path(id).is_none());
}

#[test]
fn the_last_path_cannot_be_removed() {
    let mut rig = Rig::new(multibus(), &["a"]);
    let refused = remove(&mut rig, "a").unwrap_err();
    assert_eq!(refused.to_string(), "path a is the map's last path; add another first, or `quit`");
    assert_eq!(rig.groups(), [["a"]]);
    assert_eq!(remove(&mut rig, "x"), Err(MapError::NoSuchPath("x".to_owned())));
}

#[test]
fn a_slot_is_not_used_again_before_its_path_is_retired_and_no_id_ever() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    let mut seen = vec![rig.id("a"), rig.id("b")];
    for round in 0..5 {
        let old = remove(&mut rig, "a").unwrap();
        let meanwhile = rig.add("c").unwrap();
        assert_ne!(meanwhile.slot, old.slot, "still in the hands of a queue thread");
        seen.push(meanwhile);
        rig.map.retired(old);
        let again = rig.add("a").unwrap();
        assert_eq!(again.slot, old.slot);
        seen.push(again);
        let gone = remove(&mut rig, "c").unwrap();
        // Told twice, or about another path of that slot: nothing is freed.
        rig.map.retired(old);
        rig.map.retired(PathId { generation: gone.generation + 1, ..gone });
        let other = rig.add(&format!("d{round}")).unwrap();
        assert_ne!(other.slot, gone.slot);
        seen.push(other);
        rig.map.retired(gone);
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count, "an id was used twice");
    }
}

#[test]
fn answers_about_a_removed_path_change_nothing() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.saw("a", PathVerdict::Check);
    let (path, check) = rig.checks[0];
    remove(&mut rig, "a").unwrap();
    let generation = rig.table().generation;
    rig.event(Event::Checked { path, check, verdict: Verdict::Down });
    rig.event(Event::Proven { path, proof: check, identity: Ok(lu()) });
    assert_eq!(rig.table().generation, generation);
    assert!(rig.took_changes().iter().all(|c| matches!(c, Change::PathRemoved { .. })));
}

#[test]
fn a_map_has_room_for_64_paths_and_says_so_when_it_is_full() {
    let mut rig = Rig::new(multibus(), &[]);
    for i in 0..MAX_PATHS {
        rig.add(&format!("p{i}")).unwrap();
    }
    assert_eq!(rig.add("more"), Err(MapError::Full));
    assert_eq!(rig.groups()[0].len(), MAX_PATHS);
    let gone = remove(&mut rig, "p7").unwrap();
    assert_eq!(rig.add("more"), Err(MapError::Full), "not yet");
    rig.map.retired(gone);
    assert_eq!(rig.add("more").map(|id| id.slot), Ok(gone.slot));
}

#[test]
fn removing_the_only_usable_path_holds_requests_until_another_returns() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.fail("a");
    remove(&mut rig, "b").unwrap();
    assert!(rig.table().groups.is_empty());
    assert!(rig.changes.contains(&Change::NoPath { held: true }));
    rig.pass(Duration::from_secs(1));
    rig.checked("a", UP);
    rig.proven("a", Ok(lu()));
    assert_eq!(rig.groups(), [["a"]]);
}

#[test]
fn a_path_whose_device_has_gone_leaves_and_says_so_even_as_the_last_one() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    let lose = |rig: &mut Rig, name| rig.with(|m, now, fx| m.lose_path(now, name, fx)).unwrap();
    let a = lose(&mut rig, "a");
    assert_eq!(rig.took_changes(), [Change::PathDeleted { path: "a".to_owned(), left: 1 }]);
    assert_eq!(rig.groups(), [["b"]]);
    lose(&mut rig, "b");
    let told = rig.took_changes();
    assert_eq!(told[0], Change::PathDeleted { path: "b".to_owned(), left: 0 });
    assert!(told.contains(&Change::NoPath { held: true }));
    assert!(rig.table().groups.is_empty());
    // It comes back under another name while the old file is still open.
    rig.add("c").unwrap();
    assert_eq!(rig.groups(), [["c"]]);
    assert!(rig.took_changes().contains(&Change::Recovered));
    rig.map.retired(a);
}
