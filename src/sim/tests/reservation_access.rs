//! What a reservation forbids, when that is decided, and what else a nexus
//! may have to say first.

use super::reservations::{K1, K2, NONE, out, said};
use super::*;
use crate::scsi::reservation::{OutAction, Type};

/// Commands as SPC-5 table 66 and SBC-4 table 13 have them: `-` is served
/// under every reservation, `r` where others may read, `w` never.
#[rustfmt::skip]
const TABLE: &[(char, &[u8])] = &[
    ('-', &[0x00]), ('-', &[0x03]), ('-', &[0x12]), ('-', &[0x25]), ('-', &[0x9e, 0x10]),
    ('-', &[0x5e, 0]), ('-', &[0x5e, 1]), ('-', &[0x5e, 2]), ('-', &[0x5e, 3]),
    // Which judge by themselves: an empty list is refused by its length.
    ('-', &[0x5f, 0]), ('-', &[0x5f, 1]), ('-', &[0x5f, 2]), ('-', &[0x5f, 3]), ('-', &[0x5f, 4]),
    ('-', &[0x5f, 5]), ('-', &[0x5f, 6]), ('-', &[0x5f, 8]),
    ('-', &[0xa0]), ('-', &[0xa3, 0x0a]), ('-', &[0x1b, 0, 0, 0, 1]),
    ('r', &[0x08]), ('r', &[0x28]), ('r', &[0x88]), ('r', &[0xa8]), ('r', &[0x1a]), ('r', &[0x5a]),
    ('r', &[0x2f]), ('r', &[0x8f]), ('r', &[0xaf]), ('r', &[0x34]), ('r', &[0x90]),
    ('r', &[0x9e, 0x12]), ('r', &[0xa3, 0x0c]), ('r', &[0xa3, 0x0d]),
    ('w', &[0x0a]), ('w', &[0x2a]), ('w', &[0x8a]), ('w', &[0xaa]), ('w', &[0x2e]), ('w', &[0x8e]),
    ('w', &[0xae]), ('w', &[0x35]), ('w', &[0x91]), ('w', &[0x41]), ('w', &[0x93]), ('w', &[0x42]),
    ('w', &[0x89]), ('w', &[0x15]), ('w', &[0x55]), ('w', &[0x1b, 0, 0, 0, 0]), ('w', &[0xa4, 0x0a]),
];

fn write(fill: u8) -> (Cdb, Vec<u8>) {
    (Cdb::write(Extent::new(0, 1), false).unwrap(), vec![fill; BLOCK])
}

impl Rig {
    fn write_on(&mut self, over: NexusId, fill: u8) -> String {
        let (cdb, data) = write(fill);
        said(&self.run_on(over, cdb, &data, 0))
    }
}

/// Path a holds as `kind`, b is registered, c of another host is not.
fn reserved(kind: Type) -> (Rig, NexusId) {
    let (mut rig, c) = Rig::with_a_foreigner();
    rig.register(rig.a, K1);
    rig.register(rig.b, K2);
    rig.reserve(rig.a, kind);
    (rig, c)
}

#[test]
fn every_command_meets_a_reservation_as_the_standards_table_says() {
    for kind in Type::all() {
        let (mut rig, c) = reserved(kind);
        for (what, bytes) in TABLE {
            let with_rights = [rig.a].into_iter().chain(kind.is_of_registrants().then_some(rig.b));
            for path in with_rights.collect::<Vec<_>>() {
                assert!(said(&rig.run_on(path, raw(bytes), &[], 0)) != "CONFLICT", "{bytes:02x?}");
            }
            let forbidden = match what {
                '-' => false,
                'r' => !kind.lets_read(),
                _ => true,
            };
            let without = [c].into_iter().chain((!kind.is_of_registrants()).then_some(rig.b));
            for path in without.collect::<Vec<_>>() {
                let conflicts = said(&rig.run_on(path, raw(bytes), &[], 0)) == "CONFLICT";
                assert_eq!(conflicts, forbidden, "{bytes:02x?} under {}", kind.name());
                let ports = rig.array.ports(path).unwrap();
                assert_eq!(rig.state().forbids(ports, &raw(bytes)), forbidden);
            }
            // What stopped it has been the holder.
            rig.run(raw(&[0x1b, 0, 0, 0, 1]), &[], 0);
        }
    }
}

#[test]
fn the_table_has_every_command_there_is() {
    let config = LuConfig { tpgs: Tpgs::Both, ..small() };
    for command in command::supported(&config) {
        let known = TABLE.iter().any(|(_, bytes)| {
            bytes[0] == command.opcode() && (!command.has_action || bytes[1] == command.action())
        });
        assert!(known, "{:02x?}", command.usage);
    }
}

#[test]
fn without_a_reservation_nothing_is_forbidden() {
    let (mut rig, c) = Rig::with_a_foreigner();
    rig.register(rig.a, K1);
    assert_eq!(rig.write_on(c, 1), "GOOD");
    assert_eq!(said(&rig.run_on(c, raw(&[0xee]), &[], 0)), "05/20/00");
}

#[test]
fn a_command_that_is_none_is_told_so() {
    let (mut rig, c) = reserved(Type::ExclusiveAccess);
    assert_eq!(said(&rig.run_on(c, raw(&[0xee]), &[], 0)), "05/20/00");
    assert_eq!(said(&rig.run_on(c, raw(&[0x9e, 0x1f]), &[], 0)), "05/24/00");
}

#[test]
fn a_conflict_moves_no_data() {
    let (mut rig, c) = reserved(Type::ExclusiveAccess);
    let (cdb, data) = write(1);
    let done = rig.run_on(c, cdb, &data, 0);
    assert_eq!((said(&done).as_str(), residual_of(&done)), ("CONFLICT", 512));
    let done = rig.run_on(c, Cdb::read(Extent::new(0, 1)).unwrap(), &[], BLOCK);
    assert_eq!((said(&done).as_str(), done.data_in.len()), ("CONFLICT", 0));
    assert_eq!(rig.array.stats(c).unwrap().check_conditions, 2);
}

#[test]
fn what_has_arrived_before_a_reservation_is_done_and_what_comes_after_is_not() {
    let (mut rig, c) = Rig::with_a_foreigner();
    rig.register(rig.a, K1);
    rig.array.set_latency(ms(5));
    let (cdb, data) = write(7);
    rig.submit(c, cdb, &data, 0);
    let order = out(OutAction::Reserve, K1, NONE).of_type(Type::WriteExclusive);
    rig.submit(rig.a, order.cdb(), &order.list(), 0);
    let (cdb, data) = write(8);
    rig.submit(c, cdb, &data, 0);
    assert_eq!(rig.after(ms(5)).iter().map(said).collect::<Vec<_>>(), ["GOOD"; 3]);
    rig.submit(c, cdb, &data, 0);
    assert_eq!(rig.after(ms(5)).iter().map(said).collect::<Vec<_>>(), ["CONFLICT"]);
    rig.array.set_latency(ms(0));
    assert_eq!(rig.blocks(0, 1), [8]);
}

/// SAM-5 5.3.3.
#[test]
fn a_reset_is_told_before_a_conflict_and_other_news_after_it() {
    let (mut rig, c) = reserved(Type::WriteExclusive);
    rig.inject(Fault::Capacity(NewCapacity::Grow));
    rig.inject(Fault::LuReset);
    assert_eq!(rig.write_on(c, 1), "06/29/03");
    assert_eq!(rig.write_on(c, 1), "CONFLICT");
    assert_eq!(rig.attentions_on(c), [code(6, 0x2a, 9)]);
    assert_eq!(rig.attentions_on(rig.a), [code(6, 0x29, 3), code(6, 0x2a, 9)]);
    assert_eq!(rig.write_on(rig.a, 1), "GOOD", "a reset releases nothing");
    rig.array.inject(rig.now, c, Fault::Plug);
    assert_eq!(rig.write_on(c, 1), "06/29/07");
    assert_eq!(rig.write_on(c, 1), "CONFLICT");
}

#[test]
fn an_array_may_tell_all_news_first() {
    let (mut rig, c) = reserved(Type::WriteExclusive);
    rig.inject(Fault::AttentionsFirst(true));
    rig.inject(Fault::Capacity(NewCapacity::Grow));
    assert_eq!(rig.write_on(c, 1), "06/2a/09");
    assert_eq!(rig.write_on(c, 1), "CONFLICT");
    rig.inject(Fault::AttentionsFirst(false));
    rig.inject(Fault::Capacity(NewCapacity::Grow));
    assert_eq!(rig.write_on(c, 1), "CONFLICT");
}

#[test]
fn a_preempted_nexus_meets_the_conflict_then_the_news() {
    let (mut rig, c) = reserved(Type::WriteExclusiveRegistrantsOnly);
    rig.register(c, reservation_key("ff").unwrap());
    let kind = Type::WriteExclusiveRegistrantsOnly;
    let key = reservation_key("0xff").unwrap();
    rig.good(c, out(OutAction::Preempt, key, K1).of_type(kind));
    assert_eq!(rig.write_on(rig.a, 1), "CONFLICT");
    assert_eq!(rig.attentions_on(rig.a), [code(6, 0x2a, 5)]);
    assert_eq!(rig.write_on(rig.a, 1), "CONFLICT");
    assert_eq!(rig.write_on(rig.b, 1), "GOOD", "registered with another key");
}

#[test]
fn a_reservation_is_of_its_lu() {
    let (mut rig, c) = reserved(Type::ExclusiveAccess);
    rig.array.inject(rig.now, c, Fault::Remap);
    rig.attentions_on(c);
    assert_eq!(rig.write_on(c, 1), "GOOD", "another LU");
    let release = out(OutAction::Clear, K1, NONE);
    rig.good(rig.a, release);
    assert_eq!(rig.attentions_on(c), []);
}

#[test]
fn standby_serves_reservations_and_unavailable_does_not() {
    use AccessState::{Standby, Unavailable};
    for (state, says) in [(Standby, "GOOD"), (Unavailable, "02/04/0c")] {
        let mut rig = Rig::new(small());
        rig.inject(Fault::Alua { state, transition: Duration::ZERO });
        rig.attentions_on(rig.a);
        let register = out(OutAction::Register, NONE, K1);
        assert_eq!(rig.order(rig.a, register), says);
        assert_eq!(said(&rig.run(raw(&[0x5e, 0]), &[], 0)), says);
    }
}

/// Without TAS an aborted task gets no answer; with it, its own.
#[test]
fn preempt_and_abort_ends_the_victims_tasks_not_executed() {
    for tas in [false, true] {
        let personality = if tas { Personality::Rdac } else { Personality::Generic };
        let mut rig = Rig::new(LuConfig { personality, ..small() });
        let c = rig.array.add_foreign_nexus("c", 1);
        if tas {
            let mut page = crate::scsi::mode::encode_control();
            page[5] |= 0x40;
            let list = [&[0; 8][..], &page].concat();
            let select = Cdb::mode_select_10(true, false, u16::try_from(list.len()).unwrap());
            assert_eq!(said(&rig.run(select, &list, 0)), "GOOD");
            rig.attentions_on(rig.b);
            rig.attentions_on(c);
        }
        rig.register(rig.a, K1);
        rig.register(rig.b, K1);
        rig.register(c, K2);
        rig.reserve(rig.a, Type::WriteExclusiveRegistrantsOnly);
        rig.array.set_latency(ms(5));
        let (cdb, data) = write(1);
        rig.submit(rig.b, cdb, &data, 0);
        let (cdb, data) = write(2);
        rig.submit(rig.a, cdb, &data, 0);
        rig.inject(Fault::LateCut(ms(50)));
        assert_eq!(rig.poll().len(), 1, "cut, and to be written later");
        rig.array.set_latency(ms(0));
        let order = out(OutAction::PreemptAndAbort, K2, K1).of_type(Type::WriteExclusive);
        rig.submit(c, order.cdb(), &order.list(), 0);
        let ends: Vec<_> = rig.poll().iter().map(|done| (done.nexus, said(done))).collect();
        let mut wanted = vec![(c, "GOOD".to_owned())];
        if tas {
            wanted.insert(0, (rig.b, "TASK ABORTED".to_owned()));
        }
        assert_eq!(ends, wanted);
        assert_eq!(rig.write_on(c, 3), "GOOD");
        assert_eq!(rig.after(ms(100)), []);
        let lost: Vec<_> = rig.after(ms(1000)).iter().map(host_of).collect();
        assert_eq!(lost, if tas { vec![] } else { vec![HostByte::TIME_OUT] });
        let read = rig.run_on(c, Cdb::read(Extent::new(0, 1)).unwrap(), &[], BLOCK);
        assert_eq!(read.data_in, [3; BLOCK], "neither write came later");
        assert_eq!(rig.attentions_on(rig.b), [code(6, 0x2a, 5)]);
    }
}
