//! Where the LU's blocks live.
//!
//! [`Medium`] is the seam; [`MemoryMedium`] keeps sparse memory, for tests and
//! trials. A medium on a file belongs to the transports, which may make the
//! system calls that punch holes.

use std::collections::BTreeMap;
use std::io;

/// Bytes the LU reads and writes; always whole blocks, in range.
pub trait Medium: Send {
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// Reported to the initiator as MEDIUM ERROR 03/11/00.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes `buf` at `offset`.
    ///
    /// # Errors
    /// Reported as 03/0c/00, or as 07/27/07 where no space is left.
    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()>;

    /// Makes `len` bytes at `offset` read as zeroes; with `deallocate` their
    /// space may be given back.
    ///
    /// # Errors
    /// As for [`Medium::write_at`].
    fn zero(&mut self, offset: u64, len: u64, deallocate: bool) -> io::Result<()>;

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// Reported as 03/0c/00.
    fn sync(&mut self) -> io::Result<()>;

    /// Whether the byte at `offset` takes space, and how many of the `len`
    /// bytes from there on (one at least) do as it does. A medium that cannot
    /// tell says that all do.
    ///
    /// # Errors
    /// Reported as 03/11/00.
    fn mapped(&mut self, _offset: u64, len: u64) -> io::Result<(bool, u64)> {
        Ok((true, len))
    }

    /// Changes the size; what is gained reads as zeroes.
    ///
    /// # Errors
    /// The size stays as it was. `Unsupported` where it is fixed.
    fn resize(&mut self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

const CHUNK: usize = 64 * 1024;

/// Sparse memory: chunks never written read as zeroes and take no space.
#[derive(Clone, Default)]
pub struct MemoryMedium {
    len: u64,
    chunks: BTreeMap<u64, Box<[u8]>>,
}

/// One piece of an access: within one chunk.
struct Piece {
    chunk: u64,
    /// Within the chunk.
    start: usize,
    len: usize,
}

impl MemoryMedium {
    /// `len` bytes of zeroes.
    pub fn new(len: u64) -> MemoryMedium {
        MemoryMedium { len, chunks: BTreeMap::new() }
    }

    /// Bytes of memory in use for content.
    pub fn allocated(&self) -> u64 {
        (self.chunks.len() * CHUNK) as u64
    }

    /// Cuts an access into pieces, or refuses it as out of range.
    fn pieces(&self, offset: u64, len: u64) -> io::Result<impl Iterator<Item = Piece> + use<>> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len);
        let end = end.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let mut at = offset;
        Ok(std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let chunk = at / CHUNK as u64;
            // Both are below CHUNK or equal to it.
            let start = usize::try_from(at % CHUNK as u64).ok()?;
            let len = usize::try_from(end - at).map_or(CHUNK - start, |n| n.min(CHUNK - start));
            at += len as u64;
            Some(Piece { chunk, start, len })
        }))
    }
}

impl Medium for MemoryMedium {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut rest = &mut buf[..];
        for Piece { chunk, start, len } in self.pieces(offset, rest.len() as u64)? {
            let (part, after) = rest.split_at_mut(len);
            match self.chunks.get(&chunk) {
                Some(bytes) => part.copy_from_slice(&bytes[start..start + len]),
                None => part.fill(0),
            }
            rest = after;
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let mut rest = buf;
        for Piece { chunk, start, len } in self.pieces(offset, rest.len() as u64)? {
            let (part, after) = rest.split_at(len);
            let bytes = self.chunks.entry(chunk).or_insert_with(|| vec![0; CHUNK].into());
            bytes[start..start + len].copy_from_slice(part);
            rest = after;
        }
        Ok(())
    }

    fn zero(&mut self, offset: u64, len: u64, deallocate: bool) -> io::Result<()> {
        for Piece { chunk, start, len } in self.pieces(offset, len)? {
            if deallocate && len == CHUNK {
                self.chunks.remove(&chunk);
            } else if let Some(bytes) = self.chunks.get_mut(&chunk) {
                bytes[start..start + len].fill(0);
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn mapped(&mut self, offset: u64, len: u64) -> io::Result<(bool, u64)> {
        let mut pieces = self.pieces(offset, len)?;
        let Some(first) = pieces.next() else { return Ok((true, 0)) };
        let there = self.chunks.contains_key(&first.chunk);
        let like_it = pieces.take_while(|piece| self.chunks.contains_key(&piece.chunk) == there);
        let run = first.len + like_it.map(|piece| piece.len).sum::<usize>();
        Ok((there, run as u64))
    }

    fn resize(&mut self, len: u64) -> io::Result<()> {
        if len < self.len {
            // What is cut off must not come back when it grows again.
            self.zero(len, self.len - len, true)?;
        }
        self.len = len;
        Ok(())
    }
}

impl std::fmt::Debug for MemoryMedium {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryMedium({} bytes, {} allocated)", self.len, self.allocated())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_across_chunks_see_one_space() {
        let mut medium = MemoryMedium::new(3 * CHUNK as u64);
        let data: Vec<u8> = (0..CHUNK + 10).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let at = CHUNK as u64 - 5;
        medium.write_at(at, &data).unwrap();
        let mut back = vec![0xff; data.len() + 2];
        medium.read_at(at - 1, &mut back).unwrap();
        assert_eq!((back[0], back[data.len() + 1]), (0, 0));
        assert_eq!(back[1..=data.len()], data);
    }

    #[test]
    fn deallocating_gives_memory_back_and_reads_zero() {
        let mut medium = MemoryMedium::new(4 * CHUNK as u64);
        medium.write_at(0, &vec![1; 3 * CHUNK]).unwrap();
        medium.zero(10, 2 * CHUNK as u64, true).unwrap();
        assert_eq!(medium.allocated(), 2 * CHUNK as u64, "only the whole chunk is given back");
        let mut back = vec![0xff; 2 * CHUNK + 12];
        medium.read_at(9, &mut back).unwrap();
        assert_eq!((back[0], back[2 * CHUNK + 1]), (1, 1));
        assert!(back[1..=2 * CHUNK].iter().all(|b| *b == 0));
    }

    #[test]
    fn runs_of_chunks_that_take_space_or_do_not_are_told() {
        let mut medium = MemoryMedium::new(5 * CHUNK as u64);
        medium.write_at(CHUNK as u64, &[1; 2 * CHUNK]).unwrap();
        let chunk = CHUNK as u64;
        assert_eq!(medium.mapped(10, 5 * chunk - 10).unwrap(), (false, chunk - 10));
        assert_eq!(medium.mapped(chunk + 1, 100).unwrap(), (true, 100));
        assert_eq!(medium.mapped(chunk, 4 * chunk).unwrap(), (true, 2 * chunk));
        assert_eq!(medium.mapped(3 * chunk, 2 * chunk).unwrap(), (false, 2 * chunk));
    }

    #[test]
    fn what_a_smaller_size_cuts_off_is_gone_for_good() {
        let mut medium = MemoryMedium::new(CHUNK as u64);
        medium.write_at(0, &[7; 100]).unwrap();
        medium.resize(50).unwrap();
        assert!(medium.read_at(50, &mut [0]).is_err());
        medium.resize(2 * CHUNK as u64).unwrap();
        let mut back = [9; 100];
        medium.read_at(0, &mut back).unwrap();
        assert_eq!((back[49], back[50]), (7, 0));
    }

    #[test]
    fn accesses_beyond_the_end_are_refused_whole() {
        let mut medium = MemoryMedium::new(CHUNK as u64);
        assert!(medium.write_at(CHUNK as u64 - 1, &[1, 2]).is_err());
        assert!(medium.zero(u64::MAX, 2, false).is_err());
        let mut last = [9];
        medium.read_at(CHUNK as u64 - 1, &mut last).unwrap();
        assert_eq!(last, [0]);
    }
}
