//! Law 2: what a path leads to, who may join, and doubt.

use super::*;

fn mismatches(changes: &[Change]) -> usize {
    let differs =
        |c: &&Change| matches!(c, Change::PathFailed { cause: Cause::IdentityMismatch { .. }, .. });
    changes.iter().filter(differs).count()
}

#[test]
fn an_identity_that_differs_keeps_the_path_out_is_told_once_and_checked_again() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.fail("a");
    rig.took_changes();
    for _ in 0..3 {
        rig.pass(Duration::from_secs(5));
        rig.checked("a", UP);
        rig.proven("a", Ok(other_lu()));
        assert!(!rig.path("a").is_usable());
    }
    assert_eq!(mismatches(&rig.took_changes()), 1);
    rig.come_back("a");
}

#[test]
fn another_block_size_is_another_identity() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.fail("a");
    rig.pass(Duration::from_secs(5));
    rig.checked("a", UP);
    rig.proven("a", Ok(Identity { block_size: 4096, ..lu() }));
    assert!(!rig.path("a").is_usable());
    assert_eq!(mismatches(&rig.changes), 1);
}

#[test]
fn a_proof_that_could_not_be_read_keeps_the_path_out() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.saw("a", PathVerdict::Doubt);
    rig.proven("a", Err("INQUIRY failed".to_owned()));
    assert_eq!(rig.path("a").state, PathState::Failed);
    rig.come_back("a");
}

#[test]
fn doubt_takes_a_path_out_at_once_and_a_proof_brings_it_back_with_a_later_epoch() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.saw("a", PathVerdict::Doubt);
    assert_eq!(rig.path("a").state, PathState::Doubt);
    assert_eq!(rig.groups(), [["b"]]);
    assert!(rig.is_proving("a"));
    rig.proven("a", Ok(lu()));
    assert_eq!(rig.path("a").epoch, 2);
    assert_eq!(rig.failures_told(), 0);
}

#[test]
fn a_unit_attention_seen_by_the_checker_is_doubt() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.saw("a", PathVerdict::Check);
    rig.checked("a", Verdict::Up { doubt: true });
    assert_eq!(rig.path("a").state, PathState::Doubt);
    assert_eq!(rig.groups(), [["b"]]);
    rig.proven("a", Ok(lu()));
    assert_eq!(rig.groups(), [["a", "b"]]);
}

/// It is told once: by the time the path carries I/O nobody would say it again.
#[test]
fn a_unit_attention_that_the_checker_of_a_passive_path_has_met_is_doubt() {
    for verdict in [Verdict::Ghost { doubt: true }, Verdict::Pending { doubt: true }] {
        let mut rig = Rig::new(multibus(), &["a", "b"]);
        rig.saw("a", PathVerdict::Check);
        rig.checked("a", verdict);
        assert_eq!(rig.path("a").state, PathState::Doubt, "{verdict:?}");
        assert!(rig.is_proving("a"), "{verdict:?}");
        let elsewhere = Identity { wwid: "another".to_owned(), ..lu() };
        rig.proven("a", Ok(elsewhere));
        assert_eq!(rig.groups(), [["b"]], "{verdict:?}");
    }
}

#[test]
fn a_proof_begun_before_the_last_doubt_does_not_count() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.saw("a", PathVerdict::Doubt);
    let (path, early) = rig.proofs[0];
    rig.saw("a", PathVerdict::Doubt);
    rig.event(Event::Proven { path, proof: early, identity: Ok(lu()) });
    assert!(!rig.path("a").is_usable(), "it may have read what was true before");
    rig.proven("a", Ok(lu()));
    assert!(rig.path("a").is_usable());
}

#[test]
fn doubt_told_to_a_command_of_an_earlier_epoch_is_doubt_all_the_same() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.fail("a");
    rig.come_back("a");
    rig.report("a", 1, judged(PathVerdict::Doubt));
    assert_eq!(rig.path("a").state, PathState::Doubt, "the array says it once only");
    assert!(rig.is_proving("a"));
}

#[test]
fn another_lu_another_size_and_a_taken_name_are_refused_in_words() {
    let mut rig = Rig::new(multibus(), &["a"]);
    let refused = |rig: &mut Rig, name: &str, identity| {
        let admitted = rig.map.admits(name, &identity).unwrap_err();
        assert_eq!(rig.add_with(name, identity).unwrap_err(), admitted);
        admitted.to_string()
    };
    assert_eq!(
        refused(&mut rig, "b", other_lu()),
        "path b leads to another LU: its WWID is 3600b, the map's is 3600a; \
         remove it, or start a second instance for that LU"
    );
    assert_eq!(
        refused(&mut rig, "b", Identity { capacity: Blocks(500), ..lu() }),
        "path b has 500 blocks of 512 bytes, the map has 1000 of 512; \
         rescan the device so that all paths agree"
    );
    assert_eq!(
        refused(&mut rig, "a", lu()),
        "path a is in the map already; give the second one another name"
    );
    assert_eq!(rig.map.admits("b", &lu()), Ok(()));
    assert_eq!(rig.groups(), [["a"]]);
}

#[test]
fn what_the_kernel_has_heard_is_doubt_until_a_proof() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    let told = |rig: &mut Rig| {
        let news = HostNews::PerhapsAnother("INQUIRY_DATA_HAS_CHANGED");
        rig.event(Event::Told { path: rig.id("a"), news });
    };
    told(&mut rig);
    assert_eq!(rig.path("a").state, PathState::Doubt);
    assert_eq!(rig.groups(), [["b"]]);
    assert!(rig.is_proving("a"));
    // Said again: what that proof has read was perhaps true before.
    let (path, proof) = rig.proofs[0];
    told(&mut rig);
    rig.event(Event::Proven { path, proof, identity: Ok(lu()) });
    assert_eq!(rig.path("a").state, PathState::Doubt);
    rig.proven("a", Ok(lu()));
    assert_eq!(rig.groups(), [["a", "b"]]);
    told(&mut rig);
    rig.proven("a", Ok(other_lu()));
    assert_eq!(mismatches(&rig.changes), 1);
}

#[test]
fn a_capacity_the_kernel_has_heard_of_is_read_while_the_path_goes_on() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.event(Event::Told { path: rig.id("a"), news: HostNews::Capacity });
    assert!(rig.is_proving("a") && rig.path("a").is_usable());
}
