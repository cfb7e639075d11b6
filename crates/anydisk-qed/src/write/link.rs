//! Another image below: a name where none is in the header's clusters, then the header that points to it.

use anydisk_core::{BackingLink, Error, HostOffset, ImageWrite, Reference, Result, Storage};

use crate::header::{HeaderNow, feature_bits};
use crate::limits::BACKING_NAME;
use crate::piece::Piece;
use crate::{NAME, QedImage};

/// Where names are put: two have room in the smallest header, so that the new one does not touch the old.
const PLACES: [u64; 3] = [64, 1536, 2816];

impl QedImage {
    /// A place in the header's first cluster for a name of `len` bytes, apart from the one that is there.
    fn free_place(now: &HeaderNow, len: u32) -> Result<HostOffset> {
        let old = now.header.backing_filename.map(|(at, len)| Piece::new(at, len.into()));
        let place = |at: &u64| Piece::new(HostOffset(*at), len.into());
        let is_free = |at: &u64| old.is_none_or(|old| !old.meets(place(at)));
        let found = PLACES.into_iter().find(is_free).map(HostOffset);
        found.ok_or_else(|| unsupported("another name of a backing file, where one takes all room"))
    }

    /// Writes a name, durable, and returns its place and length.
    fn write_name(&self, now: &HeaderNow, name: &[u8]) -> Result<(HostOffset, u32)> {
        let len = u32::try_from(name.len()).unwrap_or(u32::MAX);
        if name.is_empty() || len > BACKING_NAME || name.contains(&0) {
            let why = "a name of a backing file that is not 1 to 1023 bytes, none of them 0";
            return Err(unsupported(why));
        }
        let at = Self::free_place(now, len)?;
        self.store.write_at(at, name)?;
        self.store.flush()?;
        Ok((at, len))
    }
}

impl BackingLink for QedImage {
    fn set_backing(&self, backing: Option<&Reference>) -> Result<()> {
        self.writing()?;
        self.flush()?;
        let mut now = self.lock_now();
        if now.header.compat_features != 0 || now.header.header_size == 0 {
            let why = "another backing file, with features of the header that nobody here knows";
            return Err(unsupported(why));
        }
        let mut header = now.header.clone();
        header.backing_filename = match backing {
            Some(backing) => Some(self.write_name(&now, &backing.name)?),
            None => None,
        };
        header.features = feature_bits(backing);
        self.store.write_at(HostOffset::ZERO, &header.to_bytes())?;
        self.store.flush()?;
        *now = HeaderNow { header, backing: backing.map(|backing| backing.name.clone()) };
        Ok(())
    }

    fn check_emptying(&self) -> Result<()> {
        self.writing().map(drop)
    }

    fn forget_everything(&self) -> Result<()> {
        self.forget_all()
    }
}

fn unsupported(feature: &'static str) -> Error {
    Error::Unsupported { format: NAME, feature: feature.into() }
}
