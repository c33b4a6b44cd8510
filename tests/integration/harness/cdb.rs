//! CDBs and parameter data as a guest makes them (SPC-5, SBC-4), by hand: the
//! daemon's own encoders are what is under test.

/// TEST UNIT READY.
pub(crate) const TUR: [u8; 6] = [0; 6];

/// A command that has an LBA and a number of blocks, by its operation code.
pub(crate) fn blocks(opcode: u8, lba: u64, blocks: u32) -> Vec<u8> {
    let (lba, len) = (lba.to_be_bytes(), blocks.to_be_bytes());
    match opcode >> 5 {
        0 => vec![opcode, lba[5] & 0x1f, lba[6], lba[7], len[3], 0],
        1 | 2 => [&[opcode, 0], &lba[4..], &[0], &len[2..], &[0]].concat(),
        4 => [&[opcode, 0], &lba[..], &len, &[0, 0]].concat(),
        5 => [&[opcode, 0], &lba[4..], &len, &[0, 0]].concat(),
        _ => panic!("operation code {opcode:02x}"),
    }
}

/// COMPARE AND WRITE.
pub(crate) fn compare_and_write(lba: u64, blocks: u8) -> Vec<u8> {
    [&[0x89, 0], &lba.to_be_bytes()[..], &[0, 0, 0, blocks, 0, 0]].concat()
}

/// UNMAP of one range: CDB and parameter list.
pub(crate) fn unmap(lba: u64, blocks: u32) -> ([u8; 10], Vec<u8>) {
    let cdb = [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0];
    let lba = lba.to_be_bytes();
    let list = [&[0, 22, 0, 16, 0, 0, 0, 0], &lba[..], &blocks.to_be_bytes(), &[0; 4]].concat();
    (cdb, list)
}

/// INQUIRY, of a vital product data page or standard.
pub(crate) fn inquiry(page: Option<u8>, allocation: u16) -> [u8; 6] {
    let [high, low] = allocation.to_be_bytes();
    [0x12, u8::from(page.is_some()), page.unwrap_or(0), high, low, 0]
}

/// REQUEST SENSE.
pub(crate) fn request_sense(descriptor: bool, allocation: u8) -> [u8; 6] {
    [0x03, u8::from(descriptor), 0, 0, allocation, 0]
}

/// REPORT LUNS.
pub(crate) fn report_luns(select: u8, allocation: u32) -> [u8; 12] {
    let [a, b, c, d] = allocation.to_be_bytes();
    [0xa0, 0, select, 0, 0, 0, a, b, c, d, 0, 0]
}

/// READ CAPACITY (16).
pub(crate) fn read_capacity(allocation: u8) -> [u8; 16] {
    [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, allocation, 0, 0]
}

/// REPORT TARGET PORT GROUPS.
pub(crate) fn target_port_groups(extended: bool, allocation: u8) -> [u8; 12] {
    [0xa3, 0x0a | u8::from(extended) << 5, 0, 0, 0, 0, 0, 0, 0, allocation, 0, 0]
}

/// REPORT SUPPORTED OPERATION CODES: of all commands.
pub(crate) fn all_opcodes(allocation: u16) -> [u8; 12] {
    let [high, low] = allocation.to_be_bytes();
    [0xa3, 0x0c, 0, 0, 0, 0, 0, 0, high, low, 0, 0]
}

/// REPORT SUPPORTED OPERATION CODES: of one, by operation code and service
/// action where it has one.
pub(crate) fn one_opcode(opcode: u8, action: Option<u8>, allocation: u8) -> [u8; 12] {
    let option = if action.is_some() { 2 } else { 1 };
    [0xa3, 0x0c, option, opcode, 0, action.unwrap_or(0), 0, 0, 0, allocation, 0, 0]
}

/// MODE SENSE (10) of every page.
pub(crate) fn mode_sense(allocation: u8) -> [u8; 10] {
    [0x5a, 0, 0x3f, 0, 0, 0, 0, 0, allocation, 0]
}

/// PERSISTENT RESERVE OUT: REGISTER.
pub(crate) fn register() -> [u8; 10] {
    [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0]
}
