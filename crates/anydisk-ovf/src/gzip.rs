//! Files packed with gzip, unpacked from the start to the end within a limit.

use std::io::{self, BufReader, Read};
use std::sync::Arc;

use anydisk_core::{Error, HostOffset, Result, Storage};
use anydisk_storage::is_zero;
use flate2::bufread::MultiGzDecoder;

use crate::limits;

/// A store as a stream.
struct Stream<'a> {
    store: &'a Arc<dyn Storage>,
    at: u64,
}

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.store.read_at(HostOffset(self.at), buf).map_err(io::Error::other)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Unpacks `packed` into `target`, which is empty. Refuses more than `most` bytes.
///
/// # Errors
/// [`Error::Unusable`] for a stream that does not unpack, [`Error::Limit`], what `target` says.
pub(crate) fn unpack(
    name: &str,
    packed: &Arc<dyn Storage>,
    target: &dyn Storage,
    most: u64,
) -> Result<()> {
    let mut unpacked = MultiGzDecoder::new(BufReader::new(Stream { store: packed, at: 0 }));
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        let count = match unpacked.read(&mut buffer) {
            // Zeroes were left out: the end may be such a hole.
            Ok(0) => return Ok(target.set_len(at)?),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let why = format!("it does not unpack: {error}").into();
                return Err(Error::Unusable { what: "member", name: name.to_owned(), why });
            }
        };
        limits::check("size of an unpacked member in bytes", at + count as u64, most)?;
        if !is_zero(&buffer[..count]) {
            target.write_at(HostOffset(at), &buffer[..count])?;
        }
        at += count as u64;
    }
}
