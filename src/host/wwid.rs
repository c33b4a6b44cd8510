//! WWIDs in administrators' words, and as sysfs writes them, made into the one
//! spelling that multipath-tools and this daemon print: a digit for the kind,
//! then the designator (`3` NAA, `2` EUI-64, `1` T10 vendor, `8` SCSI name,
//! `S` made from the serial number).
//!
//! Pure. Page 83h itself is read by `scsi::vpd`.

/// The WWID that `text` means: `36001405…` as multipath prints it, `naa.…`,
/// `eui.…`, `t10.…` as sysfs does, `0x…` or bare digits as arrays do, and the
/// names below `/dev/disk/by-id` (`wwn-0x…`, `scsi-3…`, `dm-uuid-mpath-…`).
/// Anything else is taken as it stands.
pub fn understand(text: &str) -> String {
    let text = text.trim();
    let text = text.strip_prefix("/dev/disk/by-id/").unwrap_or(text);
    let text = ["wwn-", "scsi-", "dm-uuid-mpath-"]
        .into_iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .unwrap_or(text);
    if let Some(wwid) = of_sysfs(text) {
        return wwid;
    }
    let bare = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    of_digits(bare.unwrap_or(text), bare.is_some()).unwrap_or_else(|| text.to_owned())
}

/// The WWID of a SCSI device's attribute `wwid`; `None` for a kind of name
/// that no WWID is made of.
pub(super) fn of_sysfs(text: &str) -> Option<String> {
    let (kind, name) = text.split_once('.')?;
    match kind {
        "naa" if is_hex(name) => Some(format!("3{}", name.to_ascii_lowercase())),
        "eui" if is_hex(name) => Some(format!("2{}", name.to_ascii_lowercase())),
        "t10" => {
            let words: Vec<&str> = name.split(' ').filter(|word| !word.is_empty()).collect();
            Some(format!("1{}", words.join("_")))
        }
        _ => None,
    }
}

/// Of hexadecimal digits; `bare`: they certainly lack the digit for the kind.
fn of_digits(text: &str, bare: bool) -> Option<String> {
    if !is_hex(text) {
        return None;
    }
    let text = text.to_ascii_lowercase();
    let naa = |digits: &str| match digits.as_bytes().first() {
        Some(b'6') => digits.len() == 32,
        Some(b'2' | b'3' | b'5') => digits.len() == 16,
        _ => false,
    };
    let eui = |digits: &str| matches!(digits.len(), 16 | 24 | 32);
    match text.split_at(1) {
        ("3", rest) if !bare && naa(rest) => Some(text),
        ("2", rest) if !bare && eui(rest) => Some(text),
        _ if naa(&text) => Some(format!("3{text}")),
        _ if eui(&text) => Some(format!("2{text}")),
        _ => None,
    }
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_name_is_the_same_wwid() {
        let naa6 = "36001405deadbeef0001000000000000a";
        for text in [
            naa6,
            "naa.6001405deadbeef0001000000000000a",
            "0x6001405deadbeef0001000000000000a",
            "6001405DEADBEEF0001000000000000A",
            "wwn-0x6001405deadbeef0001000000000000a",
            "scsi-36001405deadbeef0001000000000000a",
            "/dev/disk/by-id/dm-uuid-mpath-36001405deadbeef0001000000000000a",
            " naa.6001405deadbeef0001000000000000a\n",
        ] {
            assert_eq!(understand(text), naa6, "{text}");
        }
        for text in ["naa.5000c500a1b2c3d4", "0x5000c500a1b2c3d4", "35000c500a1b2c3d4"] {
            assert_eq!(understand(text), "35000c500a1b2c3d4", "{text}");
        }
        for text in ["eui.0025385b71b0a1b2", "0025385b71b0a1b2", "20025385b71b0a1b2"] {
            assert_eq!(understand(text), "20025385b71b0a1b2", "{text}");
        }
    }

    #[test]
    fn names_that_are_no_number_are_kept() {
        assert_eq!(understand("SATA_disk_1234"), "SATA_disk_1234");
        assert_eq!(understand("t10.ATA     DISK  X 1"), "1ATA_DISK_X_1");
        assert_eq!(understand("8iqn.2026-01.org:a"), "8iqn.2026-01.org:a");
        assert_eq!(understand("0x1234"), "0x1234", "no WWID is that short");
        assert_eq!(of_sysfs("uuid.0-1-2"), None);
    }
}
