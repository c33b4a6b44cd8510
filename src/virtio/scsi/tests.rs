use super::*;

/// Offsets as printed in virtio 1.3, 5.6.4.
#[test]
fn config_fields_sit_where_the_specification_puts_them() {
    let config = ScsiConfig {
        num_queues: 0x0102_0304,
        seg_max: 0x1112_1314,
        max_sectors: 0x2122_2324,
        cmd_per_lun: 0x3132_3334,
        event_info_size: 0x4142_4344,
        sense_size: 0x5152_5354,
        cdb_size: 0x6162_6364,
        max_channel: 0x7172,
        max_target: 0x8182,
        max_lun: 0x9192_9394,
    };
    let expect: [u8; CONFIG_LEN] = [
        4, 3, 2, 1, 0x14, 0x13, 0x12, 0x11, 0x24, 0x23, 0x22, 0x21, 0x34, 0x33, 0x32, 0x31, 0x44,
        0x43, 0x42, 0x41, 0x54, 0x53, 0x52, 0x51, 0x64, 0x63, 0x62, 0x61, 0x72, 0x71, 0x82, 0x81,
        0x94, 0x93, 0x92, 0x91,
    ];
    assert_eq!(config.encode(), expect);
    assert_eq!(ScsiConfig::sizes(&expect), (0x5152_5354, 0x6162_6364));
    assert_eq!(expect[ScsiConfig::WRITABLE.start], 0x54);
    assert_eq!(expect[ScsiConfig::WRITABLE.end - 1], 0x61);
}

/// virtio 1.3, 5.6.6.1: lun, id, task_attr, prio, crn, cdb; and sense_len,
/// residual, status_qualifier, status, response, sense.
#[test]
fn command_request_and_response_layout() {
    let mut raw = [0; REQUEST_LEN];
    for (value, byte) in (1..).zip(&mut raw) {
        *byte = value;
    }
    let request = CommandRequest::decode(&raw);
    assert_eq!(request.lun, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(request.id, 0x100f_0e0d_0c0b_0a09);
    assert_eq!((request.task_attr, request.prio, request.crn), (17, 18, 19));
    assert_eq!(request.encode(), raw);

    let raw = [4, 3, 2, 1, 8, 7, 6, 5, 10, 9, 11, 12];
    let response = CommandResponse::decode(&raw);
    let expect = CommandResponse {
        sense_len: 0x0102_0304,
        residual: 0x0506_0708,
        status_qualifier: 0x090a,
        status: 11,
        response: 12,
    };
    assert_eq!(response, expect);
    assert_eq!(response.encode(), raw);
}

/// virtio 1.3, 5.6.6.2 and 5.6.6.3.
#[test]
fn control_requests_and_events_layout() {
    let tmf = TmfRequest { subtype: 6, lun: [1, 2, 3, 4, 5, 6, 7, 8], id: 0x1122 };
    let raw = tmf.encode();
    assert_eq!(raw[..8], [0, 0, 0, 0, 6, 0, 0, 0]);
    assert_eq!(raw[8..16], tmf.lun);
    assert_eq!(raw[16..], [0x22, 0x11, 0, 0, 0, 0, 0, 0]);
    assert_eq!(TmfRequest::decode(&raw), tmf);

    let an = AnRequest { kind: T_AN_SUBSCRIBE, lun: [9; 8], events: 0x7e };
    assert_eq!(an.encode(), [2, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 0x7e, 0, 0, 0]);
    assert_eq!(AnRequest::decode(&an.encode()), an);

    let event = Event {
        event: EVENT_PARAM_CHANGE | EVENTS_MISSED,
        lun: [1, 0, 0x41, 2, 0, 0, 0, 0],
        reason: 0x092a,
    };
    assert_eq!(event.encode(), [3, 0, 0, 0x80, 1, 0, 0x41, 2, 0, 0, 0, 0, 0x2a, 0x09, 0, 0]);
}

#[test]
fn there_are_eight_task_management_functions() {
    assert_eq!(TaskManagement::from_wire(5), Some(TaskManagement::LogicalUnitReset));
    assert_eq!(TaskManagement::from_wire(7), Some(TaskManagement::QueryTaskSet));
    assert_eq!(TaskManagement::from_wire(8), None);
    assert_eq!(TaskManagement::from_wire(u32::MAX), None);
}
