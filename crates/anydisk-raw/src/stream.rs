//! A raw disk written in one pass, into whatever takes bytes.

use std::fmt;
use std::io::{self, Write};

use anydisk_core::{GuestOffset, Piece, Result, Sink};
use anydisk_storage::{Error as StorageError, HostOffset};

use crate::NAME;

/// Zeroes that are written at once.
const ZEROES: &[u8] = &[0; 64 << 10];

/// Bytes in which pieces come.
const UNIT: u64 = 4096;

/// A [`Sink`] that writes every byte of the disk, zeroes too: for a pipe. A file is better made by
/// [`Format::create`](anydisk_core::Format::create), which leaves holes.
pub struct RawStream {
    out: Box<dyn Write + Send>,
    size: u64,
    at: u64,
}

impl RawStream {
    /// A disk of `size` bytes, into `out`.
    #[must_use]
    pub fn new(size: u64, out: Box<dyn Write + Send>) -> Self {
        Self { out, size, at: 0 }
    }

    /// Writes zeroes up to byte `end` of the disk.
    fn pad(&mut self, end: u64) -> Result<()> {
        while self.at < end {
            let len = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(ZEROES.len());
            self.write(&ZEROES[..len])?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|error| failed(error, self.at))?;
        self.at = self.at.saturating_add(bytes.len() as u64);
        Ok(())
    }
}

impl fmt::Debug for RawStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawStream").field("size", &self.size).field("at", &self.at).finish()
    }
}

impl Sink for RawStream {
    fn size(&self) -> u64 {
        self.size
    }

    fn unit(&self) -> u64 {
        UNIT
    }

    fn put(&mut self, at: GuestOffset, piece: Piece<'_>) -> Result<()> {
        self.pad(at.get())?;
        match piece {
            Piece::Data(bytes) => {
                let rest = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
                self.write(&bytes[..bytes.len().min(rest)])
            }
            Piece::Zero(len) => self.pad(self.at.saturating_add(len).min(self.size)),
            _ => {
                let feature = "packed data".into();
                Err(anydisk_core::Error::Unsupported { format: NAME, feature })
            }
        }
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.pad(self.size)?;
        self.out.flush().map_err(|error| failed(error, self.at))
    }
}

fn failed(error: io::Error, at: u64) -> anydisk_core::Error {
    StorageError::io("write", "the stream", HostOffset(at), 0, error).into()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Bytes that stay when their writer is gone.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("nobody panics").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_never_handed_in_is_zero_and_the_last_piece_is_cut_at_the_end() {
        let kept = Kept::default();
        let mut stream = Box::new(RawStream::new(10_000, Box::new(kept.clone())));
        stream.put(GuestOffset(4096), Piece::Data(&[1; 4096])).expect("memory");
        stream.put(GuestOffset(8192), Piece::Zero(100)).expect("memory");
        stream.finish().expect("memory");
        let bytes = kept.0.lock().expect("nobody panics");
        let mut expected = vec![0; 10_000];
        expected[4096..8192].fill(1);
        assert!(*bytes == expected);
        drop(bytes);
        let kept = Kept::default();
        let mut stream = Box::new(RawStream::new(10, Box::new(kept.clone())));
        stream.put(GuestOffset::ZERO, Piece::Data(&[1; 512])).expect("memory");
        stream.finish().expect("memory");
        assert_eq!(*kept.0.lock().expect("nobody panics"), [1; 10]);
    }
}
