//! Another image below: its name in the header; and forgetting what is here.

use std::mem::offset_of;

use anydisk_core::{
    BackingLink, Error, GuestRange, HostOffset, ImageWrite, Reference, Result, Storage, StorageExt,
};

use crate::NAME;
use crate::bitmap::SLICE_LEN;
use crate::image::CowImage;
use crate::layout::{NAME_LEN, Qemu64};

/// Where the name begins in both of QEMU's headers.
const NAME_AT: usize = offset_of!(Qemu64, backing_file);

/// Bytes of the name that lie in the first sector of the file.
const IN_FIRST: usize = 512 - NAME_AT;

impl CowImage {
    /// Writes a name where `old` is; durable. Power may fail: one of the two is there.
    fn write_name(&self, old: &[u8], new: &[u8]) -> Result<()> {
        let mut field = [0; NAME_LEN];
        let (kept, _) = field.split_at_mut(new.len());
        kept.copy_from_slice(new);
        let (first, rest) = field.split_at(IN_FIRST);
        // What ends in the first sector changes with it, in one write; then what lies behind means
        // nothing.
        let (at, behind) = (HostOffset(NAME_AT as u64), HostOffset(512));
        if new.len() >= IN_FIRST {
            self.store.write_at(behind, rest)?;
            self.store.flush()?;
        }
        self.store.write_at(at, first)?;
        self.store.flush()?;
        if old.len() >= IN_FIRST {
            self.store.write_at(behind, rest)?;
        }
        Ok(self.store.flush()?)
    }
}

impl BackingLink for CowImage {
    /// The header has room for 1023 bytes. A name of more than 503 in place of another such is
    /// refused: a power failure could leave a part of each.
    fn set_backing(&self, backing: Option<&Reference>) -> Result<()> {
        let mut current = self.lock_backing()?;
        let old = current.as_deref().unwrap_or_default();
        let new = backing.map(|backing| backing.name.as_slice());
        let is_possible = |name: &[u8]| {
            !name.is_empty()
                && name.len() < NAME_LEN
                && !name.contains(&0)
                && (name.len() < IN_FIRST || old.len() < IN_FIRST)
        };
        if new.is_some_and(|name| !is_possible(name)) {
            let feature = "a name of a backing file that is not 1 to 1023 bytes, none of them 0, \
                           or more than 503 in place of as many";
            return Err(Error::Unsupported { format: NAME, feature: feature.into() });
        }
        self.flush()?;
        self.write_name(old, new.unwrap_or_default())?;
        *current = new.map(<[u8]>::to_vec);
        Ok(())
    }

    fn check_emptying(&self) -> Result<()> {
        self.writing().map(drop)
    }

    fn forget_everything(&self) -> Result<()> {
        let (writer, size) = (self.writing()?, self.header.size);
        let _all = writer.claims.hold_before_others(GuestRange::whole(size));
        self.flush()?;
        let (start, len) = (self.header.bitmap, self.header.bitmap_len);
        self.store.write_zeroes_at(start, len)?;
        self.store.flush()?;
        let mut done = 0;
        while done < len {
            self.bits.remove(start.saturating_add(done));
            done += SLICE_LEN;
        }
        writer.space.keep_only(&[(HostOffset::ZERO, self.header.bitmap_end().get())]);
        writer.space.trim(&*self.store)
    }
}
