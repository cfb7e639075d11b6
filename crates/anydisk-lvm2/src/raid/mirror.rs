//! Mirrors of the old style, also those of a move that is under way: legs and a log.

use anydisk_core::{
    Error, HostOffset, Invalid, MappedPiece, Mapping, Result, Storage, StorageExt, Value,
};
use zerocopy::FromBytes;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, KnownLayout, Unaligned};

use crate::plain::Part;
use crate::{NAME, limits};

/// The first bytes of a log.
const MAGIC: [u8; 4] = *b"rRiM";

/// Where the bitmap of a log begins, in bytes.
const BITMAP: HostOffset = HostOffset(1024);

/// The start of a log volume.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LogHeader {
    magic: [u8; 4],
    version: U32,
    nr_regions: U64,
}

/// A mirror.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) name: String,
    /// The legs, `None` where one is gone. All others are filled from the first.
    pub(crate) legs: Vec<Option<Part>>,
    pub(crate) sync: Sync,
    /// Why legs are gone, for people.
    pub(crate) gone: String,
}

/// Where the other legs are as good as the first.
#[derive(Debug)]
pub(crate) enum Sync {
    Everywhere,
    Nowhere,
    /// In regions of so many bytes whose bit is set.
    Regions(u64, Vec<u8>),
}

impl Mirror {
    #[cold]
    fn lost(&self, why: &str) -> Error {
        let why = format!("{why}: {}", self.gone).into();
        Error::Unusable { what: "logical volume", name: self.name.clone(), why }
    }
}

impl Mapping for Mirror {
    fn locate(&self, at: u64, limit: u64) -> Result<MappedPiece<'_>> {
        let mut legs = self.legs.iter().enumerate();
        let Some((number, part)) = legs.find_map(|(n, leg)| Some((n, leg.as_ref()?))) else {
            return Err(self.lost("all legs of the mirror are gone"));
        };
        let good = if number == 0 { limit } else { self.sync.run(at, limit) };
        match good {
            0 => Err(self.lost(
                "the first leg of the mirror is gone and the others are not known to be in sync",
            )),
            len => Ok(MappedPiece { len, from: part.place(at) }),
        }
    }
}

impl Sync {
    /// Bytes from `at` on, at most `limit`, that are in sync.
    fn run(&self, at: u64, limit: u64) -> u64 {
        match self {
            Self::Everywhere => limit,
            Self::Nowhere => 0,
            Self::Regions(region, bits) => {
                let number = at / region;
                let byte = usize::try_from(number / 8).ok().and_then(|index| bits.get(index));
                let set = byte.is_some_and(|byte| byte >> (number % 8) & 1 == 1);
                if set { limit.min(region - at % region) } else { 0 }
            }
        }
    }

    /// What the log of a mirror of `size` bytes says.
    ///
    /// # Errors
    /// [`Invalid`] for a log that is none or too short, [`Error::Limit`] for one that is too large.
    pub(crate) fn from_log(log: &dyn Storage, region: u64, size: u64, limit: u64) -> Result<Self> {
        let mut header = [0; size_of::<LogHeader>()];
        log.read_exact_at(HostOffset::ZERO, &mut header)?;
        let header = LogHeader::read_from_bytes(&header).map_err(|_| broken(Value::Missing))?;
        let regions = size.div_ceil(region);
        let bytes = regions.div_ceil(8);
        limits::check("bytes of a mirror's log", bytes, limit)?;
        if header.magic != MAGIC {
            return Err(broken(Value::from(&header.magic[..])).into());
        }
        if header.version.get() != 2 || header.nr_regions.get() < regions {
            let found = format!("version {}, {} regions", header.version, header.nr_regions);
            return Err(broken(Value::Text(found.into_bytes())).into());
        }
        let mut bits = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        log.read_exact_at(BITMAP, &mut bits)?;
        Ok(Self::Regions(region, bits))
    }
}

fn broken(found: Value) -> Invalid {
    Invalid {
        format: NAME,
        field: "log of a mirror".into(),
        at: HostOffset::ZERO,
        found,
        expected: "\"rRiM\", version 2, and all regions of the mirror".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anydisk_storage::MemoryStorage;

    #[test]
    fn a_leg_is_read_in_the_regions_whose_bit_is_set() {
        let mut log = vec![0; 2048];
        log[..4].copy_from_slice(&MAGIC);
        log[4] = 2;
        log[8] = 10;
        log[1024..1026].copy_from_slice(&[0b0000_0101, 0b10]);
        let sync = Sync::from_log(&MemoryStorage::new(log.clone()), 4096, 40960, 64).unwrap();
        let runs = [0, 100, 4096, 8192, 36864, 40959].map(|at| sync.run(at, 5000));
        assert_eq!(runs, [4096, 3996, 0, 4096, 4096, 1]);
        let refused = |log: Vec<u8>, size| {
            Sync::from_log(&MemoryStorage::new(log), 4096, size, 64).unwrap_err().to_string()
        };
        assert!(refused(log.clone(), 1 << 40).contains("more than the limit of 64"));
        assert!(refused(log.clone(), 50000).contains("version 2, 10 regions"));
        log[0] = 0;
        assert!(refused(log, 40960).contains("log of a mirror"));
    }
}
