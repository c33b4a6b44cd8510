use super::*;
use proptest::prelude::*;

#[test]
fn every_code_we_send_has_words_and_survives_both_formats() {
    for code in SenseCode::NAMED {
        assert!(describe(*code).is_some(), "{code}");
        assert_eq!(Sense::fixed(*code).code(), Some(*code));
        assert_eq!(Sense::descriptor(*code).code(), Some(*code));
    }
}

#[test]
fn codes_are_those_of_the_standard() {
    let text = |code: SenseCode| code.to_string();
    assert_eq!(text(SenseCode::INVALID_OPCODE), "05/20/00");
    assert_eq!(text(SenseCode::INVALID_FIELD_IN_CDB), "05/24/00");
    assert_eq!(text(SenseCode::LUN_NOT_SUPPORTED), "05/25/00");
    assert_eq!(text(SenseCode::IO_PROCESS_TERMINATED), "0b/00/06");
    assert_eq!(text(SenseCode::COMMAND_TIMEOUT), "0b/2e/02");
    assert_eq!(text(SenseCode::MEDIUM_NOT_PRESENT), "02/3a/00");
    assert_eq!(text(SenseCode::REPORTED_LUNS_CHANGED), "06/3f/0e");
    assert_eq!(text(SenseCode::LU_RESET), "06/29/03");
    assert_eq!(text(SenseCode::CAPACITY_CHANGED), "06/2a/09");
    assert_eq!(text(SenseCode::WRITE_PROTECTED), "07/27/00");
    assert_eq!(text(SenseCode::MISCOMPARE), "0e/1d/00");
}

#[test]
fn the_field_in_error_is_where_the_standard_puts_it() {
    let code = SenseCode::INVALID_FIELD_IN_CDB;
    let bit = FieldPointer::cdb(0x0102).bit(5);
    let fixed = Sense::build(SenseFormat::Fixed, code, Some(bit));
    assert_eq!(fixed.as_bytes().len(), 18);
    assert_eq!(fixed.as_bytes()[7], 10, "additional length");
    assert_eq!(fixed.as_bytes()[15..], [0xcd, 0x01, 0x02]);
    let whole = Sense::build(SenseFormat::Fixed, code, Some(FieldPointer::parameter(8)));
    assert_eq!(whole.as_bytes()[15..], [0x80, 0, 8]);
    let descriptor = Sense::build(SenseFormat::Descriptor, code, Some(bit));
    assert_eq!(
        descriptor.as_bytes(),
        [0x72, 5, 0x24, 0, 0, 0, 0, 8, 0x02, 6, 0, 0, 0xcd, 0x01, 0x02, 0]
    );
    assert_eq!(Sense::descriptor(code).as_bytes(), [0x72, 5, 0x24, 0, 0, 0, 0, 0]);
    assert_eq!(SenseFormat::of(true), SenseFormat::Descriptor);
}

#[test]
fn what_we_have_built_is_told_from_what_an_lu_says() {
    let wrong = SenseCode::INVALID_FIELD_IN_CDB;
    let fields = [
        None,
        Some(FieldPointer::cdb(1).bit(4)),
        Some(FieldPointer::parameter(20)),
        Some(FieldPointer::parameter(0x102).bit(0)),
    ];
    for field in fields {
        let sense = Sense::build(SenseFormat::Fixed, wrong, field);
        assert_eq!(sense.as_built(), Some((wrong, field)));
        assert_eq!(Sense::build(SenseFormat::Descriptor, wrong, field).as_built(), None);
        let mut more = sense.as_bytes().to_vec();
        more[8] = 1;
        assert_eq!(Sense::from_bytes(&more).as_built(), None, "command-specific information");
        assert_eq!(Sense::from_bytes(&sense.as_bytes()[..14]).as_built(), None);
    }
    let lu_reset = SenseCode::LU_RESET;
    assert_eq!(Sense::fixed(lu_reset).as_built(), Some((lu_reset, None)));
    assert_eq!(Sense::EMPTY.as_built(), None);
}

proptest! {
    #[test]
    fn hostile_sense_never_panics(raw in prop::collection::vec(any::<u8>(), 0..128)) {
        let sense = Sense::from_bytes(&raw);
        let _ = (sense.code(), sense.is_deferred(), format!("{sense:?}"));
        prop_assert!(sense.as_bytes().len() <= SENSE_MAX);
    }
}
