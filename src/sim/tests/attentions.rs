//! Which unit attentions stand where, in which order, and what ends them.

use super::*;

const RESET: (u8, u8, u8) = (6, 0x29, 3);
const LOSS: (u8, u8, u8) = (6, 0x29, 7);
const ACCESS: (u8, u8, u8) = (6, 0x2a, 6);
const CAPACITY: (u8, u8, u8) = (6, 0x2a, 9);
const INQUIRY: (u8, u8, u8) = (6, 0x3f, 3);
const LUNS: (u8, u8, u8) = (6, 0x3f, 0x0e);

fn codes(list: &[(u8, u8, u8)]) -> Vec<SenseCode> {
    list.iter().map(|(key, asc, ascq)| code(*key, *asc, *ascq)).collect()
}

fn standby() -> Fault {
    Fault::Alua { state: AccessState::ActiveNonOptimized, transition: Duration::ZERO }
}

#[test]
fn a_new_path_has_none() {
    let mut rig = Rig::new(small());
    rig.inject(Fault::LuReset);
    let c = rig.array.add_nexus("c");
    assert_eq!(rig.attentions_on(c), []);
}

#[test]
fn each_stands_once_per_path_and_in_order_of_arrival() {
    let mut rig = Rig::new(small());
    rig.inject(standby());
    rig.inject(Fault::Capacity(NewCapacity::Grow));
    rig.inject(Fault::Capacity(NewCapacity::Grow));
    assert_eq!(rig.attentions_on(rig.b), codes(&[ACCESS, CAPACITY]));
    assert_eq!(rig.attentions_on(rig.b), []);
    assert_eq!(rig.attentions_on(rig.a), codes(&[ACCESS, CAPACITY]), "the path told as well");
}

#[test]
fn a_reset_comes_first_and_replaces_earlier_resets() {
    let mut rig = Rig::new(small());
    rig.inject(Fault::Capacity(NewCapacity::Grow));
    rig.inject(Fault::LuReset);
    rig.inject(Fault::LuReset);
    assert_eq!(rig.attentions_on(rig.a), codes(&[RESET, CAPACITY]));
    rig.inject(Fault::LuReset);
    rig.inject(Fault::Plug);
    assert_eq!(rig.attentions_on(rig.a), codes(&[LOSS]));
    assert_eq!(rig.attentions_on(rig.b), codes(&[RESET, CAPACITY]));
}

#[test]
fn three_commands_are_served_in_spite_of_them() {
    let mut rig = Rig::new(small());
    rig.inject(Fault::Remap);
    let served = |done: Done| done.completion == Completion::Good;
    assert!(served(rig.run(Cdb::inquiry(None, 96), &[], 96)));
    assert!(served(rig.run(Cdb::inquiry(Some(0x83), 10), &[], 10)));
    let done = rig.run(Cdb::request_sense(18), &[], 18);
    assert_eq!(Sense::from_bytes(&done.data_in).code(), Some(code(6, 0x3f, 3)), "as data");
    assert_eq!(rig.attentions_on(rig.a), codes(&[LUNS]));

    rig.inject(Fault::Plug);
    assert!(served(rig.run(Cdb::report_luns(16), &[], 16)));
    assert_eq!(rig.attentions_on(rig.a), codes(&[LOSS, INQUIRY]), "the list was asked for");
}

#[test]
fn request_sense_reports_in_the_format_it_asks_for() {
    let mut rig = Rig::new(small());
    rig.inject(Fault::LuReset);
    let done = rig.run(raw(&[0x03, 0x01, 0, 0, 252]), &[], 8);
    assert_eq!(done.data_in, [0x72, 6, 0x29, 3, 0, 0, 0, 0]);
    let done = rig.run(raw(&[0x03, 0x01, 0, 0, 252]), &[], 8);
    assert_eq!(done.data_in, [0x72, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_refused_command_uses_one_up_and_is_not_executed() {
    let mut rig = Rig::new(small());
    rig.inject(Fault::LuReset);
    let done = rig.run(raw(&[0xee]), &[], 0);
    assert_eq!(sense_of(&done), Some(code(6, 0x29, 3)), "before the operation code is judged");
    assert_eq!(sense_of(&rig.run(raw(&[0xee]), &[], 0)), Some(code(5, 0x20, 0)));
}

#[test]
fn a_cut_path_keeps_what_it_was_not_told() {
    let mut rig = Rig::new(small());
    rig.inject(Fault::Cut(CutMode::Before));
    rig.array.inject(rig.now, rig.b, Fault::Capacity(NewCapacity::Grow));
    rig.tur();
    rig.inject(Fault::Plug);
    assert_eq!(rig.attentions_on(rig.a), codes(&[LOSS]), "the loss of the nexus says it all");
}
