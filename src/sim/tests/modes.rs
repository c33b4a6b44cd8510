//! Mode pages: what is shown, what may be changed, and what that does.

use super::*;
use crate::scsi::mode::Mode;

fn sense_10(control: u8, page: u8, subpage: u8) -> Cdb {
    raw(&[0x5a, 0x08, control << 6 | page, subpage, 0, 0, 0, 2, 0])
}

fn select_10(len: usize) -> Cdb {
    raw(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, u8::try_from(len).unwrap()])
}

impl Rig {
    /// A page with its header, without block descriptors.
    fn page(&mut self, control: u8, page: u8, subpage: u8) -> Vec<u8> {
        let data = self.run(sense_10(control, page, subpage), &[], 512).data_in;
        assert_eq!(usize::from(data[1]) + 2, data.len());
        data[8..].to_vec()
    }

    /// Selects the current page with a bit changed.
    fn change(&mut self, page: u8, at: usize, mask: u8, value: u8) -> Done {
        let mut list = self.page(0, page, 0);
        list[at] = list[at] & !mask | value;
        let list = [vec![0; 8], list].concat();
        self.run(select_10(list.len()), &list, 0)
    }
}

const WCE: (u8, usize, u8) = (0x08, 2, 0x04);
const D_SENSE: (u8, usize, u8) = (0x0a, 2, 0x04);
const SWP: (u8, usize, u8) = (0x0a, 4, 0x08);

#[test]
fn pages_come_ascending_and_by_subpage() {
    let mut rig = Rig::new(small());
    let codes = |data: &[u8]| {
        let (mut at, mut codes) = (0, Vec::new());
        while at < data.len() {
            let sub = data[at] & 0x40 != 0;
            codes.push((data[at] & 0x3f, if sub { data[at + 1] } else { 0 }));
            at += if sub { 4 + usize::from(data[at + 3]) } else { 2 + usize::from(data[at + 1]) };
        }
        codes
    };
    let (caching, control, extension, exceptions) = ((8, 0), (10, 0), (10, 1), (0x1c, 0));
    for (page, subpage, wanted) in [
        (0x3f, 0, vec![caching, control, exceptions]),
        (0x3f, 0xff, vec![caching, control, extension, exceptions]),
        (0x0a, 0xff, vec![control, extension]),
        (0x0a, 1, vec![extension]),
        (0x1c, 0, vec![exceptions]),
    ] {
        for control in 0..3 {
            assert_eq!(codes(&rig.page(control, page, subpage)), wanted);
        }
    }
    for (page, subpage) in [(0x01, 0), (0x08, 1), (0x3f, 2)] {
        let done = rig.run(sense_10(0, page, subpage), &[], 512);
        assert_eq!(sense_of(&done), Some(code(5, 0x24, 0)));
    }
    let saved = rig.run(sense_10(3, 8, 0), &[], 512);
    assert_eq!(sense_of(&saved), Some(code(5, 0x39, 0)));
}

#[test]
fn exactly_the_changeable_bits_can_be_changed() {
    let mut rig = Rig::new(small());
    for page in [0x08, 0x0a, 0x1c] {
        let changeable = rig.page(1, page, 0);
        for (at, mask) in changeable.iter().enumerate().skip(2) {
            for bit in (0..8).map(|bit| 1 << bit) {
                let value = !rig.page(0, page, 0)[at] & bit;
                let done = rig.change(page, at, bit, value);
                if mask & bit == 0 {
                    assert_eq!(
                        sense_of(&done),
                        Some(code(5, 0x26, 0)),
                        "{page:02x} {at} {bit:02x}"
                    );
                } else {
                    assert_eq!(done.completion, Completion::Good);
                    assert_eq!(rig.page(0, page, 0)[at] & bit, value);
                    rig.change(page, at, bit, value ^ bit);
                }
            }
        }
    }
    let masks = [WCE, D_SENSE, SWP].map(|(page, at, mask)| rig.page(1, page, 0)[at] == mask);
    assert_eq!(masks, [true; 3]);
}

#[test]
fn software_write_protection_refuses_every_write() {
    let mut rig = Rig::new(small());
    let (page, at, mask) = SWP;
    rig.change(page, at, mask, mask);
    let data = rig.run(Cdb::mode_sense_6(8, 192), &[], 192).data_in;
    assert!(Mode::parse_6(&data).unwrap().write_protected);
    for (opcode, out) in [(0x2a, BLOCK), (0x2e, BLOCK), (0x41, BLOCK), (0x8a, BLOCK)] {
        let mut cdb = [opcode, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
        if opcode == 0x8a {
            (cdb[8], cdb[13]) = (0, 1);
        }
        let done = rig.run(raw(&cdb), &vec![1; out], 0);
        assert_eq!(sense_of(&done), Some(code(7, 0x27, 2)), "{opcode:02x}");
    }
    let caw = raw(&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(sense_of(&rig.run(caw, &[0; 2 * BLOCK], 0)), Some(code(7, 0x27, 2)));
    rig.attentions_on(rig.b);
    assert_eq!(rig.blocks(0, 1), [0], "reads are served");
    rig.change(page, at, mask, 0);
    rig.write(0, 1, 1);
}

#[test]
fn descriptor_sense_is_spoken_once_it_is_set() {
    let mut rig = Rig::new(small());
    let (page, at, mask) = D_SENSE;
    rig.change(page, at, mask, mask);
    let sense = |done: Done| match done.completion {
        Completion::Scsi { sense, .. } => sense.as_bytes().to_vec(),
        _ => vec![],
    };
    let far = sense(rig.run(Cdb::read_16(Extent::new(1 << 40, 1)).unwrap(), &[], BLOCK));
    assert_eq!(far[..8], [0x72, 5, 0x21, 0, 0, 0, 0, 12]);
    assert_eq!(far[8..], [0, 10, 0x80, 0, 0, 0, 1, 0, 0, 0, 0, 0], "all 64 bits of the LBA");
    let field = sense(rig.run(raw(&[0x28, 0x20]), &[], 0));
    assert_eq!(field[..8], [0x72, 5, 0x24, 0, 0, 0, 0, 8]);
    assert_eq!(field[8..], [2, 6, 0, 0, 0xcd, 0, 1, 0]);
    rig.inject(Fault::Plug);
    let attention = sense(rig.tur());
    assert_eq!(attention, [0x72, 6, 0x29, 7, 0, 0, 0, 0], "injected sense too");
    rig.change(page, at, mask, 0);
    let far = sense(rig.run(Cdb::read_16(Extent::new(1 << 40, 1)).unwrap(), &[], BLOCK));
    assert_eq!((far[0], far.len()), (0x70, 18), "VALID is clear: the LBA does not fit");
}

#[test]
fn without_a_write_cache_every_write_is_durable() {
    let mut rig = Rig::new(small());
    let page86 = |rig: &mut Rig| rig.run(Cdb::inquiry(Some(0x86), 64), &[], 64).data_in[6];
    assert_eq!(page86(&mut rig), 1, "V_SUP");
    let (page, at, mask) = WCE;
    assert_eq!(rig.change(page, at, mask, 0).completion, Completion::Good);
    assert_eq!(rig.page(0, 8, 0)[2], 0);
    assert_eq!(rig.page(2, 8, 0)[2], 4, "the default stays");
    assert_eq!(page86(&mut rig), 0);
}

#[test]
fn a_change_is_told_to_the_other_paths_and_undone_by_a_reset() {
    let mut rig = Rig::new(small());
    let (page, at, mask) = WCE;
    rig.change(page, at, mask, mask);
    assert_eq!(rig.attentions_on(rig.b), [], "nothing has changed");
    rig.change(page, at, mask, 0);
    assert_eq!(rig.attentions_on(rig.a), []);
    assert_eq!(rig.attentions_on(rig.b), [code(6, 0x2a, 1)]);
    rig.inject(Fault::LuReset);
    assert_eq!(rig.attentions_on(rig.a), [code(6, 0x29, 3)]);
    assert_eq!(rig.page(0, 8, 0)[2], 4);
}

#[test]
fn a_list_that_is_wrong_anywhere_changes_nothing() {
    let mut rig = Rig::new(small());
    let mut caching = rig.page(0, 8, 0);
    caching[2] = 0;
    let header = vec![0; 8];
    let unknown = vec![0x02, 2, 0, 0];
    let cut = caching[..10].to_vec();
    let mut short = caching.clone();
    short[1] = 10;
    short.truncate(12);
    let mut descriptor = vec![0, 0, 0, 0, 0, 0, 0, 8];
    descriptor.extend([0, 0, 0, 63, 0, 0, 2, 0]); // one block less
    let parameter = Some(code(5, 0x26, 0));
    let length = Some(code(5, 0x1a, 0));
    for (list, wanted) in [
        ([header.clone(), caching.clone(), unknown].concat(), parameter),
        ([header.clone(), caching.clone(), cut].concat(), length),
        ([header.clone(), caching.clone(), vec![8]].concat(), length),
        ([header.clone(), short].concat(), parameter),
        ([descriptor, caching.clone()].concat(), parameter),
        (vec![0; 7], length),
    ] {
        assert_eq!(sense_of(&rig.run(select_10(list.len()), &list, 0)), wanted, "{list:02x?}");
        assert_eq!(rig.page(0, 8, 0)[2], 4);
    }
    let list = [header, caching.clone()].concat();
    for (flags, wanted) in [(0x11, code(5, 0x24, 0)), (0, code(5, 0x24, 0))] {
        let cdb = raw(&[0x55, flags, 0, 0, 0, 0, 0, 0, u8::try_from(list.len()).unwrap()]);
        assert_eq!(sense_of(&rig.run(cdb, &list, 0)), Some(wanted), "SP set, or PF clear");
    }
    assert_eq!(rig.run(select_10(0), &[], 0).completion, Completion::Good);
    // The (6) form, with the block descriptor as MODE SENSE gave it.
    let mut six = rig.run(Cdb::mode_sense_6(8, 192), &[], 192).data_in;
    (six[0], six[14]) = (0, 0);
    let select = raw(&[0x15, 0x10, 0, 0, u8::try_from(six.len()).unwrap()]);
    assert_eq!(rig.run(select, &six, 0).completion, Completion::Good);
    assert_eq!(rig.page(0, 8, 0)[2], 0);
}

#[test]
fn a_stopped_unit_is_not_ready_until_it_is_started() {
    let mut rig = Rig::new(small());
    let start_stop = |byte: u8| raw(&[0x1b, 0, 0, 0, byte]);
    assert_eq!(rig.run(start_stop(0), &[], 0).completion, Completion::Good);
    assert_eq!(sense_of(&rig.tur()), Some(code(2, 4, 2)));
    let read = rig.run(Cdb::read(Extent::new(0, 1)).unwrap(), &[], BLOCK);
    assert_eq!(sense_of(&read), Some(code(2, 4, 2)));
    assert_eq!(rig.run(Cdb::read_capacity_10(), &[], 8).completion, Completion::Good);
    assert_eq!(rig.run(start_stop(1), &[], 0).completion, Completion::Good);
    assert_eq!(rig.tur().completion, Completion::Good);
    for refused in [0x02, 0x03, 0x10, 0x30] {
        let done = rig.run(start_stop(refused), &[], 0);
        assert_eq!(sense_of(&done), Some(code(5, 0x24, 0)), "LOEJ, power conditions");
    }
}
