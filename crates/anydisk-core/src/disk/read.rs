//! The only read loop.

use std::sync::Arc;

use anydisk_codec::Decoded;
use anydisk_storage::StorageExt;

use super::{Disk, DiskExtent, bytes_in, bytes_of};
use crate::decoded::UnitKey;
use crate::{Encoded, Error, Extent, GuestOffset, GuestRange, Lookup, Result, Source, held};

impl Disk {
    /// Reads `buf` from guest offset `at`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] past the end of the disk; what a layer, its store or a decoder says.
    pub fn read(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        let range = self.range_of(at, buf.len())?;
        self.read_from(0, range, buf)
    }

    /// The read loop.
    pub(super) fn read_from(
        &self,
        first: usize,
        mut range: GuestRange,
        mut buf: &mut [u8],
    ) -> Result<()> {
        while !range.is_empty() {
            let done = match self.read_cached_data(first, range, buf)? {
                0 => self.read_mapped(first, range, buf)?,
                done => done,
            };
            range = range.skip(done);
            buf = &mut buf[bytes_of(done)..];
        }
        Ok(())
    }

    /// Reads what layer `first` holds as plain data at the start of `range`, if its tables are in
    /// memory. Returns the bytes read, 0 if it is something else.
    ///
    /// This is the way of nearly every read. The answer is looked at where it lies: moving it costs
    /// as much as finding it.
    #[inline]
    fn read_cached_data(&self, first: usize, range: GuestRange, buf: &mut [u8]) -> Result<u64> {
        let Some(layer) = self.layers.get(first) else { return Ok(0) };
        let inside = match first {
            0 => range, // Known to lie on the disk.
            _ => range.before(GuestOffset(layer.image.size())),
        };
        if inside.is_empty() {
            return Ok(0);
        }
        match &layer.image.map_cached(inside) {
            Ok(Lookup::Found(Extent { len, source: Source::Data { store, at, .. }, lease: _ })) => {
                let part = inside.first(*len).len();
                let buf = &mut buf[..bytes_of(part)];
                match self.is_padded() {
                    true => store.read_padded_at(*at, buf)?,
                    // What lies behind the end of the file is looked at again.
                    false if store.read_at(*at, buf)? < buf.len() => return Ok(0),
                    false => {}
                }
                Ok(part)
            }
            _ => Ok(0), // Whatever it is, it is asked for again.
        }
    }

    /// Reads the start of `range`, whatever it is. Returns the bytes read.
    fn read_mapped(&self, first: usize, range: GuestRange, buf: &mut [u8]) -> Result<u64> {
        let found = self.map_from(first, range)?;
        let part = range.first(found.extent.len);
        self.read_extent(&found, part, &mut buf[..bytes_in(part)])?;
        Ok(part.len())
    }

    fn read_extent(&self, found: &DiskExtent<'_>, part: GuestRange, out: &mut [u8]) -> Result<()> {
        match &found.extent.source {
            Source::Data { store, at, .. } => Ok(store.read_padded_at(*at, out)?),
            Source::Zero { .. } | Source::Absent { .. } => {
                out.fill(0);
                Ok(())
            }
            Source::Encoded(encoded) => self.read_encoded(found, encoded, part, out),
        }
    }

    fn read_encoded(
        &self,
        found: &DiskExtent<'_>,
        encoded: &Encoded<'_>,
        part: GuestRange,
        out: &mut [u8],
    ) -> Result<()> {
        let unit = encoded.unit;
        if part == unit {
            return self.unpack(encoded, out);
        }
        let generation = found.extent.lease.generation();
        let (at, len) = (encoded.at, encoded.len);
        let key = UnitKey { layer: found.layer, unit: unit.start(), at, len, generation };
        let bytes = match self.decoded.get(&key) {
            Some(bytes) => bytes,
            None => self.decode_into_cache(key, encoded)?,
        };
        let skip = bytes_in(GuestRange::between(unit.start(), part.start()));
        out.copy_from_slice(&bytes[skip..skip + out.len()]);
        Ok(())
    }

    fn decode_into_cache(&self, key: UnitKey, encoded: &Encoded<'_>) -> Result<Arc<[u8]>> {
        let mut bytes = vec![0; bytes_in(encoded.unit)];
        self.unpack(encoded, &mut bytes)?;
        let bytes = Arc::from(bytes);
        self.decoded.put(key, &bytes);
        Ok(bytes)
    }

    /// Reads the packed bytes of a unit and decodes them.
    fn unpack(&self, encoded: &Encoded<'_>, out: &mut [u8]) -> Result<()> {
        let packed = read_packed(encoded)?;
        if !self.is_padded()
            && let Some(held) = held::packed(encoded, &packed)?
        {
            // A stream that goes on behind the end of the file may decode with zeroes there.
            self.decode(encoded, held, out)?;
        }
        self.decode(encoded, &packed, out)?;
        Ok(())
    }

    /// Decodes a packed unit whose packed bytes the caller has read (`encoded.len` of them, zeroes
    /// past the end of the store). `out` takes the whole unit.
    ///
    /// # Errors
    /// [`Error::Decode`].
    pub fn decode(&self, encoded: &Encoded<'_>, packed: &[u8], out: &mut [u8]) -> Result<Decoded> {
        self.decoders.decode(encoded.codec, packed, out).map_err(|source| Error::Decode {
            range: encoded.unit,
            at: encoded.at,
            source,
        })
    }
}

fn read_packed(encoded: &Encoded<'_>) -> Result<Vec<u8>> {
    let mut packed = vec![0; encoded.len];
    encoded.store.read_padded_at(encoded.at, &mut packed)?;
    Ok(packed)
}
