//! A LU that changes its size, or is gone.

use super::*;

fn resizes(changes: &[Change]) -> Vec<(u64, u64)> {
    let of = |c: &Change| match c {
        Change::Resized { from, to } => Some((from.0, to.0)),
        _ => None,
    };
    changes.iter().filter_map(of).collect()
}

/// A guest's command on `name` met 06/2A/09.
fn told_of_a_change(rig: &mut Rig, name: &str) {
    let epoch = rig.path(name).epoch;
    rig.report(name, epoch, capacity_changed());
}

#[test]
fn the_news_of_another_capacity_leads_to_a_proof_and_stops_no_io() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    told_of_a_change(&mut rig, "a");
    assert!(rig.is_proving("a") && !rig.is_checking("a"));
    assert_eq!(rig.groups(), [["a", "b"]]);
    rig.proven("a", Ok(lu()));
    assert_eq!(rig.groups(), [["a", "b"]]);
    assert_eq!(rig.path("a").epoch, 1, "it was never out of use");
    assert_eq!(rig.took_changes(), []);
}

#[test]
fn the_checker_hears_it_too() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.saw("a", PathVerdict::Check);
    rig.checked("a", Verdict::Resized);
    assert!(rig.is_proving("a"));
    assert_eq!(rig.groups(), [["a", "b"]]);
}

#[test]
fn growth_is_believed_at_once_and_every_path_is_proven_at_the_new_size() {
    let mut rig = Rig::new(multibus(), &["a", "b", "c"]);
    rig.fail("c");
    rig.took_changes();
    told_of_a_change(&mut rig, "a");
    rig.proven("a", Ok(sized(2000)));
    assert_eq!(rig.map.identity(), &sized(2000));
    assert_eq!(resizes(&rig.took_changes()), [(1000, 2000)]);
    assert!(rig.is_proving("b"), "it was proven at the old size");
    assert!(!rig.is_proving("a") && !rig.is_proving("c"));
    assert_eq!(rig.groups(), [["a", "b"]], "it is the same LU");
    rig.proven("b", Ok(sized(2000)));
    assert_eq!(rig.took_changes(), []);
    rig.pass(Duration::from_secs(5));
    rig.checked("c", UP);
    rig.proven("c", Ok(sized(2000)));
    assert_eq!(rig.groups(), [["a", "b", "c"]]);
}

#[test]
fn a_path_that_comes_back_to_a_grown_lu_brings_the_news() {
    let mut rig = Rig::new(failover(), &["a", "b"]);
    rig.fail("a");
    rig.pass(Duration::from_secs(5));
    rig.checked("a", UP);
    rig.proven("a", Ok(sized(1001)));
    assert!(rig.path("a").is_usable());
    assert_eq!(resizes(&rig.changes), [(1000, 1001)]);
    assert!(rig.is_proving("b"));
}

#[test]
fn a_shrink_counts_once_every_path_in_use_has_proven_it() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    told_of_a_change(&mut rig, "a");
    rig.proven("a", Ok(sized(500)));
    assert_eq!(rig.path("a").state, PathState::Doubt);
    assert_eq!(rig.map.identity(), &lu());
    assert_eq!(rig.groups(), [["b"]]);
    assert!(rig.is_proving("b"), "the other is asked");
    rig.proven("b", Ok(sized(500)));
    assert_eq!(resizes(&rig.took_changes()), [(1000, 500)]);
    assert_eq!(rig.map.identity(), &sized(500));
    assert_eq!(rig.groups(), [["b"]], "the last to say so need not stop");
    rig.proven("a", Ok(sized(500)));
    assert_eq!(rig.groups(), [["a", "b"]]);
    assert!(rig.path("a").epoch == 2 && rig.path("b").epoch == 1);
    assert!(!rig.changes.iter().any(|c| matches!(c, Change::NoPath { .. })));
    assert_eq!(rig.failures_told(), 0);
}

#[test]
fn the_only_path_is_every_path() {
    let mut rig = Rig::new(multibus(), &["a"]);
    told_of_a_change(&mut rig, "a");
    rig.proven("a", Ok(sized(999)));
    assert_eq!(resizes(&rig.changes), [(1000, 999)]);
    assert_eq!(rig.groups(), [["a"]]);
    assert!(!rig.changes.iter().any(|c| matches!(c, Change::NoPath { .. })));
}

#[test]
fn a_path_that_alone_says_shrunk_waits_is_told_once_and_asked_again() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    told_of_a_change(&mut rig, "a");
    rig.proven("a", Ok(sized(500)));
    rig.proven("b", Ok(lu()));
    for _ in 0..3 {
        assert_eq!((rig.groups(), rig.path("a").state), (vec![vec!["b"]], PathState::Doubt));
        rig.pass(rig.map.policy.polling_interval);
        rig.checked("a", UP);
        rig.proven("a", Ok(sized(500)));
        rig.proven("b", Ok(lu()));
    }
    let suspects = rig.changes.iter().filter(|c| matches!(c, Change::PathSuspect { .. })).count();
    assert_eq!((suspects, resizes(&rig.changes)), (1, vec![]));
    rig.pass(rig.map.policy.polling_interval);
    rig.checked("a", UP);
    rig.proven("a", Ok(lu()));
    assert_eq!(rig.groups(), [["a", "b"]]);
}

#[test]
fn a_shrink_waits_for_no_path_that_fails_or_leaves() {
    for leave in [false, true] {
        let mut rig = Rig::new(multibus(), &["a", "b"]);
        told_of_a_change(&mut rig, "a");
        rig.proven("a", Ok(sized(500)));
        if leave {
            rig.with(|m, now, fx| m.remove_path(now, "b", fx)).expect("removed");
        } else {
            rig.fail("b");
        }
        assert_eq!(resizes(&rig.changes), [(1000, 500)]);
        assert_eq!(rig.table().queueing, Queueing::Hold);
        rig.proven("a", Ok(sized(500)));
        assert_eq!(rig.groups(), [["a"]], "as every path that returns, after a proof");
    }
}

#[test]
fn paths_that_do_not_agree_leave_the_queueing_policy_in_force() {
    let policy = Policy { no_path_retry: NoPathRetry::Fail, ..multibus() };
    let mut rig = Rig::new(policy, &["a", "b"]);
    told_of_a_change(&mut rig, "a");
    told_of_a_change(&mut rig, "b");
    rig.proven("a", Ok(sized(500)));
    assert_eq!(rig.table().queueing, Queueing::Fail, "b is in use");
    rig.proven("b", Ok(sized(400)));
    assert_eq!(rig.map.identity(), &lu());
    assert_eq!(rig.table().queueing, Queueing::Fail, "nothing is under way");
    rig.pass(Duration::from_secs(1));
    rig.checked("a", UP);
    assert_eq!(rig.table().queueing, Queueing::Hold, "a decision is under way");
    rig.proven("a", Ok(sized(400)));
    assert_eq!(resizes(&rig.changes), [(1000, 400)]);
    rig.proven("b", Ok(sized(400)));
    assert_eq!(rig.groups(), [["a", "b"]]);
}

#[test]
fn a_proof_begun_before_the_last_news_or_the_last_resize_does_not_count() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    told_of_a_change(&mut rig, "a");
    let (path, early) = rig.proofs[0];
    told_of_a_change(&mut rig, "a");
    rig.event(Event::Proven { path, proof: early, identity: Ok(sized(2000)) });
    assert_eq!(rig.map.identity(), &lu());
    told_of_a_change(&mut rig, "b");
    let (path, early) = *rig.proofs.last().expect("of b");
    rig.proven("a", Ok(sized(500)));
    rig.fail("b");
    assert_eq!(rig.map.identity(), &sized(500));
    rig.event(Event::Proven { path, proof: early, identity: Ok(lu()) });
    assert!(!rig.path("b").is_usable(), "begun while it was in use");
    assert_eq!(rig.map.identity(), &sized(500));
}

#[test]
fn a_proof_in_use_that_finds_another_lu_takes_the_path_out() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    told_of_a_change(&mut rig, "a");
    rig.proven("a", Ok(Identity { capacity: Blocks(5000), ..other_lu() }));
    assert_eq!(rig.path("a").state, PathState::Failed);
    assert_eq!(rig.map.identity(), &lu());
    assert_eq!(resizes(&rig.changes), []);
}

#[test]
fn doubt_about_a_path_that_waits_is_settled_before_its_word_counts() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    told_of_a_change(&mut rig, "a");
    rig.proven("a", Ok(sized(500)));
    rig.report("a", 1, judged(PathVerdict::Doubt));
    assert!(rig.is_proving("a"));
    rig.fail("b");
    assert_eq!(rig.map.identity(), &lu(), "what it said before the doubt is void");
    rig.proven("a", Ok(other_lu()));
    assert_eq!(rig.map.identity(), &lu());
    assert!(rig.groups().is_empty());
}

#[test]
fn the_administrator_can_have_all_paths_in_use_proven_again() {
    let mut rig = Rig::new(multibus(), &["a", "b", "c"]);
    rig.fail("c");
    rig.with(|m, now, fx| m.prove_all(now, fx));
    assert!(rig.is_proving("a") && rig.is_proving("b") && !rig.is_proving("c"));
    assert_eq!(rig.groups(), [["a", "b"]]);
}

#[test]
fn a_lun_is_gone_when_every_path_says_so_and_both_ends_are_told_once() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    let told = |rig: &mut Rig| {
        let lun = |c: &Change| matches!(c, Change::LunGone | Change::LunBack);
        rig.took_changes().into_iter().filter(lun).collect::<Vec<_>>()
    };
    rig.fail("a");
    rig.fail("b");
    rig.pass(Duration::from_secs(5));
    rig.checked("a", Verdict::Disconnected);
    rig.checked("b", Verdict::Down);
    assert_eq!(told(&mut rig), [], "b has not been told so");
    rig.pass(Duration::from_secs(5));
    rig.checked("b", Verdict::Disconnected);
    assert_eq!(told(&mut rig), [Change::LunGone]);
    for name in ["a", "b"] {
        rig.pass(Duration::from_secs(5));
        rig.checked(name, Verdict::Disconnected);
    }
    assert_eq!(told(&mut rig), []);
    rig.come_back("b");
    assert_eq!(told(&mut rig), [Change::LunBack]);
    rig.come_back("a");
    assert_eq!(told(&mut rig), []);
}

#[test]
fn a_lun_that_one_path_has_is_not_gone() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.fail("a");
    for _ in 0..3 {
        rig.pass(Duration::from_secs(5));
        rig.checked("a", Verdict::Disconnected);
    }
    assert!(!rig.changes.contains(&Change::LunGone));
}

/// A guest's command may be the first to be told.
#[test]
fn what_guests_commands_are_told_makes_a_lun_gone_too() {
    for (policy, queueing) in
        [(NoPathRetry::Fail, Queueing::Gone), (NoPathRetry::Queue, Queueing::Hold)]
    {
        let mut rig = Rig::new(Policy { no_path_retry: policy, ..multibus() }, &["a", "b"]);
        let no_lun = || {
            let completion = Completion::Scsi {
                status: Status::CHECK_CONDITION,
                host: HostByte::OK,
                sense: Sense::fixed(SenseCode::LUN_NOT_SUPPORTED),
                residual: 0,
            };
            let (rule, verdict) = ("lun-not-supported", PathVerdict::Fail);
            IoReason::Judged { rule, verdict, op: Op::Flush, completion }
        };
        rig.report("a", 1, no_lun());
        assert!(!rig.changes.contains(&Change::LunGone));
        rig.report("b", 1, no_lun());
        assert!(rig.changes.contains(&Change::LunGone));
        assert_eq!(rig.table().queueing, queueing);
        rig.come_back("b");
        assert!(rig.changes.contains(&Change::LunBack));
        assert_ne!(rig.table().queueing, Queueing::Gone);
    }
}

/// An array that grew a LU and told nobody: the path that was away for that
/// must not be locked out by those that have not looked.
#[test]
fn a_path_that_joins_brings_the_news_of_a_grown_lu() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.fail("b");
    rig.took_changes();
    rig.add_with("c", sized(2000)).unwrap();
    assert_eq!(resizes(&rig.took_changes()), [(1000, 2000)]);
    assert_eq!(rig.groups(), [["a", "c"]]);
    assert!(rig.is_proving("a"), "it was proven at the old size");
    let other_format = Identity { block_size: 4096, ..sized(2000) };
    assert!(matches!(rig.add_with("d", other_format), Err(MapError::OtherSize { .. })));
}

#[test]
fn a_path_that_joins_is_believed_a_shrink_where_no_path_in_use_contradicts() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    assert!(matches!(rig.add_with("c", sized(500)), Err(MapError::OtherSize { .. })));
    assert_eq!(rig.map.identity(), &lu());
    rig.fail("a");
    assert!(matches!(rig.add_with("c", sized(500)), Err(MapError::OtherSize { .. })));
    rig.fail("b");
    rig.took_changes();
    rig.add_with("c", sized(500)).unwrap();
    assert_eq!(resizes(&rig.took_changes()), [(1000, 500)]);
    assert_eq!(rig.groups(), [["c"]]);
}

#[test]
fn a_map_without_a_path_takes_over_the_size_that_the_lu_has_by_now() {
    let mut rig = Rig::new(multibus(), &["a"]);
    rig.with(|m, now, fx| m.lose_path(now, "a", fx)).unwrap();
    rig.took_changes();
    rig.add_with("b", sized(2000)).unwrap();
    assert_eq!(resizes(&rig.took_changes()), [(1000, 2000)]);
    assert_eq!(rig.groups(), [["b"]]);
    assert_eq!(rig.map.identity().capacity, Blocks(2000));
    rig.with(|m, now, fx| m.lose_path(now, "b", fx)).unwrap();
    rig.add_with("b", sized(500)).unwrap();
    assert_eq!(rig.map.identity().capacity, Blocks(500));
    rig.with(|m, now, fx| m.lose_path(now, "b", fx)).unwrap();
    assert!(matches!(rig.add_with("c", other_lu()), Err(MapError::OtherLu { .. })));
}
