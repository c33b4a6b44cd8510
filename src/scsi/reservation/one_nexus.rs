//! Answers to PERSISTENT RESERVE IN as an initiator of one nexus reads them,
//! where the array has several of it: what it registered once counts once.
//!
//! Edits bytes and rebuilds nothing, so that what an array sends beyond the
//! standard stays as it is. An answer that was cut is edited as far as it goes.

use std::ops::Range;

use super::{Capabilities, DESCRIPTOR, Key};
use crate::scsi::be;

/// Bytes before the list, the last four of which are its length.
const HEADER: usize = 8;

/// One entry of a list.
struct Entry {
    at: Range<usize>,
    key: Key,
    /// It holds the reservation.
    holds: bool,
}

/// Registrations that were made for one initiator of one nexus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// With this key.
    pub key: Key,
    /// How many the array may list: one per path, and those left behind by
    /// paths that are gone.
    pub copies: usize,
    /// The initiator has another key by now, or none: none of these is its.
    pub former: bool,
}

/// READ KEYS: of the copies one is left, or none of a former key. Further ones
/// with that key are another initiator's, and stay.
pub fn show_key_once(data: &mut Vec<u8>, own: &Registered) {
    let entry = |data: &[u8], at: usize| {
        let at = at..at + 8;
        let key = be::u64_at(data.get(at.clone())?, 0).map(Key)?;
        Some(Entry { at, key, holds: false })
    };
    leave_one(data, own, entry);
}

/// The same of READ FULL STATUS; what is left is the one that holds the
/// reservation, if one does.
pub fn show_status_once(data: &mut Vec<u8>, own: &Registered) {
    let entry = |data: &[u8], at: usize| {
        let rest = data.get(at..)?;
        let id_len = usize::try_from(be::u32_at(rest, 20)?).ok()?;
        let len = DESCRIPTOR.checked_add(id_len).filter(|len| *len <= rest.len())?;
        let (key, holds) = (Key(be::u64_at(rest, 0)?), rest[12] & 0x01 != 0);
        Some(Entry { at: at..at + len, key, holds })
    };
    leave_one(data, own, entry);
}

/// REPORT CAPABILITIES: neither SPEC_I_PT nor ALL_TG_PT means anything to who
/// sees one port of the target.
pub fn hide_ports(data: &mut [u8]) {
    if let Some(can) = data.get_mut(2) {
        *can &= !(Capabilities::SPEC_I_PT | Capabilities::ALL_TG_PT);
    }
}

fn leave_one(data: &mut Vec<u8>, own: &Registered, entry: impl Fn(&[u8], usize) -> Option<Entry>) {
    let Some(len) = be::u32_at(data, 4) else { return };
    let stated = usize::try_from(len).map_or(usize::MAX, |len| HEADER.saturating_add(len));
    let list = &data[..stated.min(data.len())];
    let mut next = HEADER;
    let entries = std::iter::from_fn(|| {
        let entry = entry(list, next)?;
        next = entry.at.end;
        Some(entry)
    });
    let ours: Vec<Entry> = entries.filter(|entry| entry.key == own.key).collect();
    let (left, most) = match own.former {
        true => (None, own.copies),
        false => {
            let holds = ours.iter().position(|entry| entry.holds);
            (Some(holds.unwrap_or(0)), own.copies.saturating_sub(1))
        }
    };
    let spare = ours.into_iter().enumerate().filter(|(i, _)| Some(*i) != left).map(|(_, e)| e.at);
    let spare: Vec<Range<usize>> = spare.take(most).collect();
    let gone: usize = spare.iter().map(ExactSizeIterator::len).sum();
    for at in spare.into_iter().rev() {
        data.drain(at);
    }
    let len = len.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX));
    be::put(data, 4, len.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::reservation::{
        Registration, Type, encode_full_status, encode_keys, full_status, keys,
    };

    const OURS: Key = Key(0xa);
    const OTHER: Key = Key(0xb);

    fn own(copies: usize) -> Registered {
        Registered { key: OURS, copies, former: false }
    }

    #[test]
    fn a_key_that_every_path_registered_is_read_once() {
        let edited = |all: &[Key], copies| {
            let mut data = encode_keys(7, all);
            show_key_once(&mut data, &own(copies));
            let read = keys(&data).expect("whole");
            assert_eq!(read.generation, 7);
            read.what
        };
        assert_eq!(edited(&[OURS, OTHER, OURS, OURS], 3), [OURS, OTHER]);
        assert_eq!(edited(&[OTHER, OURS, OURS], 2), [OTHER, OURS]);
        assert_eq!(edited(&[OURS], 4), [OURS], "never less than one");
        assert_eq!(edited(&[OTHER, OTHER], 2), [OTHER, OTHER], "others' are not ours to hide");
        assert_eq!(edited(&[OURS, OURS, OURS], 2), [OURS, OURS], "another host, the same key");
        assert_eq!(edited(&[OURS, OURS], 1), [OURS, OURS]);
        assert_eq!(edited(&[OURS, OURS], 0), [OURS, OURS]);
        assert_eq!(edited(&[], 4), []);
    }

    #[test]
    fn of_a_key_that_was_given_up_nothing_is_read() {
        let edited = |all: &[Key], copies| {
            let mut data = encode_keys(7, all);
            show_key_once(&mut data, &Registered { former: true, ..own(copies) });
            keys(&data).expect("whole").what
        };
        assert_eq!(edited(&[OURS, OTHER, OURS], 2), [OTHER]);
        assert_eq!(edited(&[OURS], 1), []);
        assert_eq!(edited(&[OURS, OURS], 1), [OURS], "another host has it now");
    }

    #[test]
    fn of_all_status_of_one_nexus_the_holders_is_left() {
        let one = |key, port, holds: Option<Type>, id_len| Registration {
            key,
            all_tg_pt: false,
            holds,
            port,
            transport_id: vec![6; id_len],
        };
        let held = Some(Type::WriteExclusive);
        let all = [
            one(OURS, 1, None, 24),
            one(OTHER, 1, None, 24),
            one(OURS, 2, held, 40),
            one(OURS, 3, None, 24),
        ];
        let mut data = encode_full_status(9, &all);
        // What the standard reserves is not ours to clear.
        data[8 + 9] = 0x5a;
        let whole = data.len();
        show_status_once(&mut data, &own(3));
        let read = full_status(&data).expect("whole");
        assert_eq!((read.generation, read.what), (9, all[1..3].to_vec()));
        assert_eq!(data.len(), whole - 2 * 48);
        let each = [one(OURS, 1, held, 24), one(OURS, 2, held, 24)];
        let mut data = encode_full_status(9, &each);
        show_status_once(&mut data, &own(2));
        assert_eq!(full_status(&data).expect("whole").what, each[..1], "each holds it");
    }

    #[test]
    fn an_answer_that_was_cut_is_edited_as_far_as_it_goes() {
        let whole = encode_keys(7, &[OURS, OTHER, OURS, OURS]);
        for cut in 0..whole.len() {
            let mut data = whole[..cut].to_vec();
            show_key_once(&mut data, &own(3));
            assert!(data.len() <= cut);
            if cut >= 8 {
                let gone = u32::try_from(cut - data.len()).expect("small");
                assert_eq!(be::u32_at(&data, 4), Some(32 - gone), "of {cut} bytes");
            } else {
                assert_eq!(data, whole[..cut]);
            }
        }
        let status = encode_full_status(1, &[]);
        for cut in 0..status.len() {
            let mut data = status[..cut].to_vec();
            show_status_once(&mut data, &own(3));
            assert_eq!(data, status[..cut]);
        }
        // An array that lies about a TransportID's length.
        let mut lie = vec![0xff; 64];
        show_status_once(&mut lie, &Registered { key: Key(u64::MAX), ..own(9) });
        assert_eq!(lie, vec![0xff; 64]);
    }

    #[test]
    fn ports_are_not_spoken_of() {
        let mut data = Capabilities { can: 0x9d, now: 0xff, types: 0xea01 }.encode();
        hide_ports(&mut data);
        let read = Capabilities::parse(&data);
        assert_eq!(read, Some(Capabilities { can: 0x91, now: 0xff, types: 0xea01 }));
        hide_ports(&mut []);
        hide_ports(&mut [0, 8]);
    }
}
