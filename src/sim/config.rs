//! What a simulated LU is made with.

/// What the LU is. Counts are in logical blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LuConfig {
    /// NAA designator of the LU; the high nibble of the first byte must be 6
    /// (IEEE Registered Extended) for initiators to take it as its WWID.
    pub wwid_naa: [u8; 16],
    /// Unit serial number (VPD 80h), ASCII.
    pub serial: String,
    /// T10 vendor, at most 8 characters.
    pub vendor: String,
    /// Product, at most 16 characters.
    pub product: String,
    /// Revision, at most 4 characters.
    pub revision: String,
    /// Logical block length in bytes; not zero.
    pub block_size: u32,
    /// log2 of logical blocks per physical block, below 16.
    pub physical_block_exp: u8,
    /// Capacity.
    pub blocks: u64,
    /// Thin provisioned: UNMAP and WRITE SAME with UNMAP work, unmapped
    /// blocks read as zeroes (LBPME, LBPU, LBPWS, LBPWS10, LBPRZ).
    pub thin: bool,
    /// WCE at first: there is a volatile write cache. Without it every write
    /// is durable before its status. DPOFUA is reported always, FUA and
    /// SYNCHRONIZE CACHE are obeyed always.
    pub write_cache: bool,
    /// Longest READ or WRITE (VPD B0h); 0 = no limit.
    pub max_transfer_blocks: u32,
    /// Most blocks of one UNMAP; 0 = UNMAP is not implemented.
    pub max_unmap_blocks: u32,
    /// Most descriptors of one UNMAP; 0 = UNMAP is not implemented.
    pub max_unmap_descriptors: u32,
    /// UNMAP deallocates whole granules of this size only; 0 counts as 1.
    pub unmap_granularity: u32,
    /// First LBA that starts a granule.
    pub unmap_alignment: u32,
    /// Most blocks of one WRITE SAME; 0 = no limit.
    pub max_write_same_blocks: u64,
    /// Most blocks of one COMPARE AND WRITE; 0 = it is not implemented.
    pub max_compare_and_write_blocks: u8,
    /// Writes are refused.
    pub read_only: bool,
    /// TPGS bit 0: access states change without being asked to.
    pub implicit_alua: bool,
    /// TPGS bit 1: SET TARGET PORT GROUPS is implemented.
    pub explicit_alua: bool,
}

impl Default for LuConfig {
    /// A thin 64 MiB disk of 512-byte blocks with a write cache.
    fn default() -> LuConfig {
        LuConfig {
            wwid_naa: [0x60, 0x00, 0x00, 0x00, 0x00, 0x73, 0x69, 0x6d, 0, 0, 0, 0, 0, 0, 0, 0x01],
            serial: "sim0001".to_owned(),
            vendor: "VHOSTMP".to_owned(),
            product: "simulated disk".to_owned(),
            revision: "1".to_owned(),
            block_size: 512,
            physical_block_exp: 3,
            blocks: 128 * 1024,
            thin: true,
            write_cache: true,
            max_transfer_blocks: 2048,
            max_unmap_blocks: 0x10_0000,
            max_unmap_descriptors: 256,
            unmap_granularity: 1,
            unmap_alignment: 0,
            max_write_same_blocks: 0x1_0000,
            max_compare_and_write_blocks: 32,
            read_only: false,
            implicit_alua: true,
            explicit_alua: true,
        }
    }
}

impl LuConfig {
    /// Whether UNMAP is implemented.
    pub fn unmaps(&self) -> bool {
        self.thin && self.max_unmap_blocks > 0 && self.max_unmap_descriptors > 0
    }

    /// TPGS of standard INQUIRY data.
    pub fn tpgs(&self) -> u8 {
        u8::from(self.explicit_alua) << 1 | u8::from(self.implicit_alua)
    }
}
