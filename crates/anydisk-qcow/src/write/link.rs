//! Another image below: a name in new space, then the one sector of the header that points to it.

use std::mem::offset_of;

use anydisk_core::{
    BackingLink, Error, HostOffset, ImageWrite, Reference, Result, Storage, WantedRun,
};
use zerocopy::IntoBytes;
use zerocopy::big_endian::{U32, U64};

use super::check_place;
use crate::layout::RawHeader;
use crate::{NAME, QcowImage, limits};

impl QcowImage {
    /// Writes a name where nothing is, and returns its place and length.
    fn write_name(&self, name: &[u8]) -> Result<(HostOffset, u32)> {
        let len = u32::try_from(name.len()).unwrap_or(u32::MAX);
        if name.is_empty() || len > limits::BACKING_NAME || name.contains(&0) {
            let most = limits::BACKING_NAME;
            let feature =
                format!("a name of a backing file that is not 1 to {most} bytes, none of them 0");
            return Err(Error::Unsupported { format: NAME, feature: feature.into() });
        }
        self.survey()?;
        let taken = self.space.take(WantedRun { len: len.into(), most: 1, align: 1 });
        let written =
            check_place(taken.end()).and_then(|()| Ok(self.store.write_at(taken.at, name)?));
        written.inspect_err(|_| self.space.give_back(taken.at, taken.len))?;
        Ok((taken.at, len))
    }
}

impl BackingLink for QcowImage {
    fn set_backing(&self, backing: Option<&Reference>) -> Result<()> {
        self.writing()?;
        let mut current = self.lock_backing();
        let name = backing.map(|backing| backing.name.clone());
        let (at, len) = match &name {
            Some(name) => self.write_name(name)?,
            None => (HostOffset::ZERO, 0),
        };
        // The name is on the medium before anything points to it.
        self.flush()?;
        const { assert!(offset_of!(RawHeader, backing_file_size) == 16) };
        let fields = [U64::new(at.get()).as_bytes(), U32::new(len).as_bytes()].concat();
        let field = HostOffset(offset_of!(RawHeader, backing_file_offset) as u64);
        self.store.write_at(field, &fields)?;
        self.store.flush()?;
        *current = name;
        Ok(())
    }

    fn check_emptying(&self) -> Result<()> {
        self.writing().map(drop)
    }

    fn forget_everything(&self) -> Result<()> {
        self.forget_all()
    }
}
