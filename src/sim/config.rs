//! What a simulated LU is made with.

/// Whether and how the LU's asymmetric access states change (TPGS of standard
/// INQUIRY data, SPC-5 6.7.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tpgs {
    /// There are none: neither REPORT nor SET TARGET PORT GROUPS is
    /// implemented, no change is told.
    None,
    /// They change by themselves; SET TARGET PORT GROUPS is not implemented.
    Implicit,
    /// They change when they are told to.
    Explicit,
    /// Both.
    #[default]
    Both,
}

impl Tpgs {
    /// Every mode and its word in commands.
    pub const NAMES: [(Tpgs, &'static str); 4] = [
        (Tpgs::None, "none"),
        (Tpgs::Implicit, "implicit"),
        (Tpgs::Explicit, "explicit"),
        (Tpgs::Both, "both"),
    ];

    /// The two bits.
    pub fn bits(self) -> u8 {
        match self {
            Tpgs::None => 0,
            Tpgs::Implicit => 1,
            Tpgs::Explicit => 2,
            Tpgs::Both => 3,
        }
    }

    pub(super) fn is_explicit(self) -> bool {
        matches!(self, Tpgs::Explicit | Tpgs::Both)
    }
}

/// Whose array it behaves like where the standard says nothing.
///
/// In RDAC and CLARiiON arrays every LU is *owned* by one of two controllers,
/// which are the target port groups 1 and 2; a MODE SELECT of the vendor's
/// page moves it to the controller that gets it. With [`Tpgs::None`] the other
/// controller refuses I/O; else it is active/non-optimized, and an LU also
/// moves when SET TARGET PORT GROUPS wants the other group active/optimized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Personality {
    /// Nobody's: access states are those of the target port groups.
    #[default]
    Generic,
    /// LSI/Engenio, NetApp E-Series: VPD pages C2h, C8h, C9h, mode page 2Ch,
    /// 05/94/01 from the other controller (whose TEST UNIT READY is GOOD), TAS.
    Rdac,
    /// EMC CLARiiON: VPD page C0h, mode page 22h, 02/04/03 from the other one.
    Clariion,
}

impl Personality {
    /// Every one and its word in commands.
    pub const NAMES: [(Personality, &'static str); 3] = [
        (Personality::Generic, "generic"),
        (Personality::Rdac, "rdac"),
        (Personality::Clariion, "clariion"),
    ];

    /// What such an array has by default.
    pub fn tpgs(self) -> Tpgs {
        match self {
            Personality::Generic => Tpgs::Both,
            Personality::Rdac | Personality::Clariion => Tpgs::None,
        }
    }
}

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
    /// Asymmetric access states.
    pub tpgs: Tpgs,
    /// Whose array it behaves like.
    pub personality: Personality,
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
            tpgs: Tpgs::Both,
            personality: Personality::Generic,
        }
    }
}

impl LuConfig {
    /// Whether UNMAP is implemented.
    pub fn unmaps(&self) -> bool {
        self.thin && self.max_unmap_blocks > 0 && self.max_unmap_descriptors > 0
    }
}
