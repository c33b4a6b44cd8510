use super::*;

#[test]
fn types_and_their_masks_are_the_standards() {
    let codes: Vec<u8> = Type::all().map(Type::to_bits).collect();
    assert_eq!(codes, [1, 3, 5, 6, 7, 8]);
    for kind in Type::all() {
        assert_eq!(Type::from_bits(0x30 | kind.to_bits()), Some(kind), "scope is not type");
    }
    for code in [0, 2, 4, 9, 15] {
        assert_eq!(Type::from_bits(code), None);
    }
    assert_eq!(Type::all().fold(0, |mask, kind| mask | kind.mask()), 0xea01);
}

#[test]
fn a_command_reads_back_as_it_was_built() {
    let out = Out { aptpl: true, all_tg_pt: true, ..Out::new(OutAction::Preempt, Key(1), Key(2)) }
        .of_type(Type::WriteExclusiveRegistrantsOnly);
    let cdb = out.cdb();
    assert_eq!(cdb.as_slice(), [0x5f, 0x04, 0x05, 0, 0, 0, 0, 0, 24, 0]);
    let list = out.list();
    assert_eq!((list[7], list[15], list[20]), (1, 2, 0x05));
    assert_eq!(Out::parse(&cdb, &list), Ok(out));
    for (action, _) in OUT_ACTIONS {
        let out = Out::new(*action, Key(3), Key(4));
        let read = Out::parse(&out.cdb(), &out.list());
        assert_eq!(read.is_ok(), *action != OutAction::RegisterAndMove, "{action:?}");
    }
    let keys = InAction::ReadKeys.cdb(0x1234);
    assert_eq!(keys.as_slice(), [0x5e, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0]);
    assert_eq!(InAction::of(&keys), Some(InAction::ReadKeys));
    assert_eq!(InAction::of(&cdb), None);
}

#[test]
fn what_no_lu_without_these_features_takes_is_refused_as_it_would() {
    let register = Out::new(OutAction::Register, Key(0), Key(1));
    let code = |cdb: &Cdb, list: &[u8]| Out::parse(cdb, list).unwrap_err().0;
    let list = register.list();
    assert_eq!(code(&register.cdb(), &list[..23]), SenseCode::PARAMETER_LIST_LENGTH_ERROR);
    assert_eq!(code(&register.cdb(), &[]), SenseCode::PARAMETER_LIST_LENGTH_ERROR);
    let longer = Cdb::persistent_reserve_out(0, 0, 28);
    assert_eq!(code(&longer, &list), SenseCode::PARAMETER_LIST_LENGTH_ERROR);
    let others = Out { spec_i_pt: true, ..register };
    assert_eq!(code(&others.cdb(), &others.list()), SenseCode::INVALID_FIELD_IN_PARAMETER_LIST);
    let reserved = Cdb::persistent_reserve_out(0x1f, 0, 24);
    assert_eq!(code(&reserved, &list), SenseCode::INVALID_FIELD_IN_CDB);
    assert_eq!(code(&Cdb::test_unit_ready(), &list), SenseCode::INVALID_FIELD_IN_CDB);
}

#[test]
fn answers_read_back_and_cut_ones_say_how_long_they_are() {
    let all = [Key(1), Key(u64::MAX), Key(1)];
    let data = encode_keys(7, &all);
    assert_eq!(keys(&data), Ok(Numbered { generation: 7, what: all.to_vec() }));
    for cut in 0..data.len() {
        assert_eq!(keys(&data[..cut]), Err(if cut < 8 { 8 } else { 32 }));
    }
    let held = Some(Held { key: Key(9), kind: Type::ExclusiveAccess });
    let data = encode_reservation(8, held);
    assert_eq!((data.len(), data[21]), (24, 0x03));
    assert_eq!(reservation(&data), Ok(Numbered { generation: 8, what: held }));
    assert_eq!(reservation(&encode_reservation(8, None)).map(|n| n.what), Ok(None));
    let can = Capabilities { can: 0x0d, now: 0x80, types: 0xea01 };
    assert_eq!(can.encode(), [0, 8, 0x0d, 0x80, 0xea, 0x01, 0, 0]);
    assert_eq!(Capabilities::parse(&can.encode()), Some(can));
    assert_eq!(Capabilities::parse(&[0, 8, 0]), None);
}

#[test]
fn full_status_reads_back_whatever_the_transport_ids() {
    let one = |port, holds, id: &[u8]| Registration {
        key: Key(u64::from(port)),
        all_tg_pt: port == 2,
        holds,
        port,
        transport_id: id.to_vec(),
    };
    let all =
        [one(1, Some(Type::WriteExclusive), &[6; 24]), one(2, None, &[]), one(3, None, &[5; 28])];
    let data = encode_full_status(3, &all);
    assert_eq!(full_status(&data), Ok(Numbered { generation: 3, what: all.to_vec() }));
    assert_eq!(full_status(&data[..40]), Err(data.len()));
    // An array that lies about a descriptor's length: what can be read is.
    let mut lie = data.clone();
    lie[8 + 20] = 0xff;
    assert_eq!(full_status(&lie).map(|n| n.what), Ok(vec![]));
}
