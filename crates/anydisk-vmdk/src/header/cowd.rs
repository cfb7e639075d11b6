//! The header of a COWD extent. Pure.

use anydisk_core::{HostOffset, Result, Value};
use zerocopy::FromBytes;

use super::{invalid, unsupported};
use crate::layout::{COWD_ENTRIES, CowdHeader, SECTOR};
use crate::limits;

/// What a COWD header (ESX redo log) says, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cowd {
    pub(crate) capacity: u64,
    pub(crate) grain: u64,
    pub(crate) directory: HostOffset,
}

impl Cowd {
    /// Checks a COWD header.
    ///
    /// # Errors
    /// As [`Header::parse`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let Ok((raw, _)) = CowdHeader::read_from_prefix(bytes) else {
            let expected = "a header of 2048 bytes";
            return Err(
                invalid!(CowdHeader, magic, HostOffset::ZERO, Value::Missing, expected).into()
            );
        };
        if raw.version.get() != 1 {
            return Err(unsupported(format!("COWD version {}", raw.version)));
        }
        let grain = raw.grainSize.get();
        if !grain.is_power_of_two() || u64::from(grain) > limits::GRAIN_SECTORS {
            let expected = "a power of two";
            return Err(invalid!(CowdHeader, grainSize, HostOffset::ZERO, grain, expected).into());
        }
        if raw.gdOffset.get() == 0 {
            let (found, expected) = (raw.gdOffset.get(), "a sector behind the header");
            return Err(invalid!(CowdHeader, gdOffset, HostOffset::ZERO, found, expected).into());
        }
        let cowd = Self {
            capacity: u64::from(raw.numSectors.get()) * SECTOR,
            grain: u64::from(grain) * SECTOR,
            directory: HostOffset(u64::from(raw.gdOffset.get()) * SECTOR),
        };
        let tables = cowd.capacity.div_ceil(cowd.grain * u64::from(COWD_ENTRIES));
        if u64::from(raw.numGDEntries.get()) < tables {
            let found = raw.numGDEntries.get();
            let expected = format!("at least {tables}");
            return Err(
                invalid!(CowdHeader, numGDEntries, HostOffset::ZERO, found, expected).into()
            );
        }
        Ok(cowd)
    }
}
