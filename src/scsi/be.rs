//! Big-endian fields of SCSI structures, read and written within bounds.
//!
//! Not a general byte library: only what the codecs beside it need. A field
//! that lies (partly) outside the bytes reads as `None`.

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array_at(bytes, offset).map(u16::from_be_bytes)
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_be_bytes)
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_be_bytes)
}

/// Writes `field` at `offset`; the caller's buffer is a structure of fixed
/// size that contains it.
pub(super) fn put<const N: usize>(bytes: &mut [u8], offset: usize, field: [u8; N]) {
    bytes[offset..offset + N].copy_from_slice(&field);
}

/// An ASCII field without the padding around it; bytes that are not printable
/// ASCII become `?` so that the text is safe to print.
pub(super) fn ascii_trimmed(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let text: String = bytes[..end]
        .iter()
        .map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '?' })
        .collect();
    text.trim_matches(' ').to_owned()
}

/// `text` left-aligned in a field of `N` bytes, padded with blanks and cut to
/// fit; anything not printable ASCII becomes `?`.
pub(super) fn ascii_padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (slot, ch) in field.iter_mut().zip(text.chars()) {
        *slot = match u8::try_from(ch) {
            Ok(b) if b.is_ascii_graphic() || b == b' ' => b,
            _ => b'?',
        };
    }
    field
}
