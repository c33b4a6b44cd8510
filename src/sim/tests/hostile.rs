//! Initiators that send anything at all.

use proptest::prelude::*;

use super::*;
use crate::scsi::cdb::CDB_MAX;
use crate::scsi::clariion::Trespass;
use crate::scsi::rdac::TakeOwnership;

/// Operation codes of the table more often than others, and service actions.
fn cdb() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        (0x00, 0),
        (0x03, 0),
        (0x08, 0),
        (0x0a, 0),
        (0x12, 1),
        (0x15, 0x10),
        (0x1a, 0),
        (0x1b, 0),
        (0x25, 0),
        (0x28, 0),
        (0x2a, 8),
        (0x2e, 2),
        (0x2f, 2),
        (0x2f, 6),
        (0x34, 0),
        (0x35, 0),
        (0x41, 8),
        (0x42, 0),
        (0x55, 0x10),
        (0x5a, 8),
        (0x5e, 0),
        (0x5e, 3),
        (0x5f, 0),
        (0x5f, 1),
        (0x5f, 6),
        (0x88, 0),
        (0x89, 0),
        (0x8a, 0),
        (0x8e, 0),
        (0x8f, 4),
        (0x90, 0),
        (0x91, 0),
        (0x93, 1),
        (0x93, 8),
        (0x9e, 0x10),
        (0x9e, 0x12),
        (0xa0, 0),
        (0xa3, 0x0a),
        (0xa3, 0x2a),
        (0xa3, 0x0c),
        (0xa3, 0x0d),
        (0xa4, 0x0a),
        (0xa8, 0),
        (0xaa, 0),
        (0xae, 0),
        (0xaf, 0),
    ]);
    // Small and huge fields, and few bits that are reserved.
    let byte = prop_oneof![6 => Just(0u8), 3 => 0u8..9, 1 => any::<u8>(), 1 => Just(0xff)];
    let rest = prop::collection::vec(byte, 0..CDB_MAX);
    prop_oneof![
        8 => (known, rest.clone()).prop_map(|((opcode, second), rest)| {
            let mut cdb = vec![opcode, second];
            cdb.extend(rest.into_iter().take(CDB_MAX - 2));
            cdb
        }),
        1 => (any::<u8>(), rest).prop_map(|(opcode, rest)| {
            let mut cdb = vec![opcode];
            cdb.extend(rest.into_iter().take(CDB_MAX - 1));
            cdb
        }),
    ]
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => Just(0u8), 2 => 0u8..32, 1 => any::<u8>()];
    prop_oneof![
        prop::collection::vec(byte, 0..80),
        (any::<u8>(), 0usize..5).prop_map(|(fill, blocks)| vec![fill; blocks * BLOCK]),
    ]
}

proptest! {
    /// The same, where vendor pages move the LU from one controller to the
    /// other, in no time or in some.
    #[test]
    fn nothing_an_initiator_sends_breaks_an_array_with_owners(
        tasks in prop::collection::vec((cdb(), data(), 0usize..3000, 0u8..4), 1..60),
        rdac: bool, alua: bool, transition in 0u64..3,
    ) {
        let personality = if rdac { Personality::Rdac } else { Personality::Clariion };
        let tpgs = if alua { Tpgs::Both } else { Tpgs::None };
        let mut rig = Rig::new(LuConfig { personality, tpgs, ..small() });
        rig.array.set_transition(ms(transition));
        let at = Plugged { group: Some(2), ..Plugged::default() };
        let c = rig.array.connect("c", at).unwrap();
        for (cdb, data_out, room, page) in tasks {
            let cdb = Cdb::from_bytes(&cdb).unwrap();
            let ten = cdb.opcode() == 0x55;
            let (cdb, data_out) = match page {
                0 => (Cdb::mode_select_10(true, false, 19), Trespass { honor_reservations: ten }.encode_10().to_vec()),
                1 => {
                    let take = TakeOwnership { luns: vec![0, 9], quiescence: 1, forced: ten };
                    (Cdb::mode_select_10(false, true, 308), take.encode_10())
                }
                _ => (cdb, data_out),
            };
            for nexus in [rig.a, c] {
                rig.submit(nexus, cdb, &data_out, room);
                let done = rig.after(ms(2));
                prop_assert_eq!(done.len(), 1);
                prop_assert!(done[0].data_in.len() <= room);
            }
        }
    }

    /// Every task ends once, with no more data than there is room for, and the
    /// array goes on.
    #[test]
    fn nothing_an_initiator_sends_breaks_the_array(
        tasks in prop::collection::vec((cdb(), data(), 0usize..3000), 1..60),
        thin: bool, limits: bool,
    ) {
        let config = if limits {
            LuConfig { thin, ..small() }
        } else {
            LuConfig {
                thin,
                max_transfer_blocks: 0,
                max_write_same_blocks: 0,
                unmap_granularity: 8,
                unmap_alignment: 3,
                ..small()
            }
        };
        let mut rig = Rig::new(config);
        for (cdb, data_out, room) in tasks {
            let done = rig.run(Cdb::from_bytes(&cdb).unwrap(), &data_out, room);
            prop_assert!(done.data_in.len() <= room);
            let offered = u32::try_from(room + data_out.len()).unwrap();
            prop_assert!(residual_of(&done) <= offered);
            if sense_of(&done).is_some() {
                prop_assert!(done.data_in.is_empty());
            }
        }
        // Whatever was changed or stopped: a reset sets it back, but for the
        // access states.
        rig.inject(Fault::LuReset);
        let (a, b) = (rig.a, rig.b);
        rig.attentions_on(a);
        let state = AccessState::ActiveOptimized;
        rig.inject(Fault::Alua { state, transition: Duration::ZERO });
        rig.attentions_on(a);
        rig.attentions_on(b);
        prop_assert_eq!(rig.tur().completion, Completion::Good);
        rig.write(0, 1, 0x5a);
        prop_assert_eq!(rig.blocks(0, 1), [0x5a]);
    }
}
