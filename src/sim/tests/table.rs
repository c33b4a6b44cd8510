//! The table of commands, as initiators see it: what is listed works, what is
//! not is refused, and no bit is silently ignored.

use super::*;

/// Opcode, service action if any, CDB length.
fn listed(rig: &mut Rig) -> Vec<(u8, Option<u8>, usize)> {
    let all = raw(&[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    let data = rig.run(all, &[], 65535).data_in;
    assert_eq!(data.len(), 4 + usize::from(data[2]) * 256 + usize::from(data[3]));
    let entry = |d: &[u8]| {
        assert!(d[5] & 1 == 1 || d[3] == 0, "no action without SERVACTV");
        (d[0], (d[5] & 1 == 1).then_some(d[3]), usize::from(d[7]))
    };
    data[4..].chunks_exact(8).map(entry).collect()
}

fn one(option: u8, opcode: u8, action: u8) -> Cdb {
    raw(&[0xa3, 0x0c, option, opcode, 0, action, 0, 0, 0xff, 0xff])
}

#[test]
fn what_is_listed_is_what_is_served() {
    let mut rig = Rig::new(small());
    let all = listed(&mut rig);
    for opcode in 0..=255u8 {
        // Commands that end in a state the next ones do not like.
        if opcode == 0x1b {
            continue;
        }
        let known = all.iter().any(|(listed, ..)| *listed == opcode);
        let done = rig.run(raw(&[opcode]), &[], 4096);
        let unknown = sense_of(&done) == Some(code(5, 0x20, 0));
        assert_eq!(unknown, !known, "{opcode:02x}: {done:?}");
    }
    for refused in [0x16, 0x17, 0x56, 0x57, 0x04] {
        assert!(all.iter().all(|(opcode, ..)| *opcode != refused));
    }
}

#[test]
fn every_listed_command_says_its_usage_by_the_option_that_fits_it() {
    let mut rig = Rig::new(small());
    for (opcode, action, len) in listed(&mut rig) {
        let (right, wrong) = if action.is_some() { (2, 1) } else { (1, 2) };
        let action = action.unwrap_or(0);
        for option in [right, 3] {
            let data = rig.run(one(option, opcode, action), &[], 64).data_in;
            assert_eq!((data[1], usize::from(data[3]), data.len()), (3, len, 4 + len));
            assert_eq!(data[4], opcode);
            let timed = rig.run(one(option | 0x80, opcode, action), &[], 64).data_in;
            assert_eq!((timed[1], timed.len()), (0x83, 4 + len + 12));
            assert_eq!(&timed[4 + len..4 + len + 2], [0, 10]);
        }
        let refused = rig.run(one(wrong, opcode, action), &[], 64);
        assert_eq!(sense_of(&refused), Some(code(5, 0x24, 0)));
    }
    for (option, opcode, action) in
        [(1, 0x57, 0), (2, 0x57, 0), (2, 0x5f, 0x07), (2, 0x9e, 0x1f), (3, 0x28, 1)]
    {
        let data = rig.run(one(option, opcode, action), &[], 64).data_in;
        assert_eq!(data, [0, 1, 0, 0], "not supported");
    }
    assert_eq!(sense_of(&rig.run(one(4, 0, 0), &[], 64)), Some(code(5, 0x24, 0)));
}

#[test]
fn timeouts_descriptors_come_with_every_command_when_asked_for() {
    let mut rig = Rig::new(small());
    let commands = listed(&mut rig).len();
    let all = raw(&[0xa3, 0x0c, 0x80, 0, 0, 0, 0, 0, 0xff, 0xff]);
    let data = rig.run(all, &[], 65535).data_in;
    assert_eq!(data.len(), 4 + 20 * commands);
    assert!(data[4..].chunks_exact(20).all(|d| d[5] & 2 != 0 && d[8..10] == [0, 10]));
}

#[test]
fn a_bit_outside_the_usage_is_refused_and_pointed_at() {
    let mut rig = Rig::new(small());
    for (opcode, action, len) in listed(&mut rig) {
        let option = if action.is_some() { 2 } else { 1 };
        let usage =
            rig.run(one(option, opcode, action.unwrap_or(0)), &[], 64).data_in[4..].to_vec();
        for (at, usage) in usage.iter().enumerate().skip(1) {
            for bit in (0..8).filter(|bit| usage >> bit & 1 == 0) {
                let mut cdb = vec![0; len];
                (cdb[0], cdb[1]) = (opcode, action.unwrap_or(0));
                cdb[at] |= 1 << bit;
                if at == 1 && (action.is_some() && bit < 5 || usage_is_a_hint(opcode, bit)) {
                    continue;
                }
                let done = rig.run(Cdb::from_bytes(&cdb).unwrap(), &[0; 24], 512);
                assert_eq!(sense_of(&done), Some(code(5, 0x24, 0)), "{cdb:02x?}");
                let Completion::Scsi { sense, .. } = done.completion else { unreachable!() };
                let pointer = [0xc8 | bit, 0, u8::try_from(at).unwrap()];
                assert_eq!(sense.as_bytes()[15..18], pointer, "{cdb:02x?}");
            }
        }
    }
}

/// FUA_NV, RARC, SYNC_NV and LLBAA: hints and permissions of byte 1.
fn usage_is_a_hint(opcode: u8, bit: u8) -> bool {
    match opcode {
        0x28 | 0x2a | 0x88 | 0x8a | 0xa8 | 0xaa => bit == 1 || bit == 2,
        0x89 => bit == 1,
        0x35 | 0x91 => bit == 2,
        0x5a => bit == 4,
        _ => false,
    }
}

#[test]
fn protection_information_anchors_and_aca_are_refused() {
    let mut rig = Rig::new(LuConfig::default());
    for opcode in [0x28, 0xa8, 0x88, 0x2a, 0xaa, 0x8a, 0x2e, 0xae, 0x8e, 0x2f, 0xaf, 0x8f, 0x89] {
        for protect in 1..8 {
            let done = rig.run(raw(&[opcode, protect << 5]), &[], 0);
            assert_eq!(sense_of(&done), Some(code(5, 0x24, 0)), "{opcode:02x} {protect}");
        }
    }
    for (opcode, bits) in [(0x41, 0x18), (0x93, 0x18), (0x42, 0x01), (0x41, 0x20), (0x93, 0x20)] {
        let done = rig.run(raw(&[opcode, bits]), &[0; BLOCK], 0);
        assert_eq!(sense_of(&done), Some(code(5, 0x24, 0)), "{opcode:02x} {bits:02x}");
    }
    let naca = raw(&[0, 0, 0, 0, 0, 0x04]);
    assert_eq!(sense_of(&rig.run(naca, &[], 0)), Some(code(5, 0x24, 0)));
}

#[test]
fn what_the_lu_lacks_is_neither_listed_nor_served() {
    let config =
        LuConfig { thin: false, max_compare_and_write_blocks: 0, tpgs: Tpgs::None, ..small() };
    let mut rig = Rig::new(config);
    let all = listed(&mut rig);
    for (opcode, action) in [(0x42, 0), (0x89, 0), (0xa4, 0x0a)] {
        assert!(all.iter().all(|(listed, ..)| *listed != opcode));
        let done = rig.run(raw(&[opcode, action]), &[], 0);
        assert_eq!(sense_of(&done), Some(code(5, 0x20, 0)));
    }
    assert!(!all.contains(&(0xa3, Some(0x0a), 12)));
    assert_eq!(sense_of(&rig.run(raw(&[0xa3, 0x0a]), &[], 64)), Some(code(5, 0x24, 0)));
    assert_eq!(rig.run(Cdb::inquiry(None, 96), &[], 96).data_in[5] & 0x30, 0, "TPGS");
}

#[test]
fn task_management_functions_are_reported() {
    let mut rig = Rig::new(small());
    let data = rig.run(raw(&[0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 4]), &[], 4).data_in;
    assert_eq!(data, [0xdc, 0x03, 0, 0]);
    let data = rig.run(raw(&[0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 16]), &[], 16).data_in;
    assert_eq!((data.len(), data[3]), (16, 12));
    let short = raw(&[0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 3]);
    assert_eq!(sense_of(&rig.run(short, &[], 3)), Some(code(5, 0x24, 0)));
}
