//! Making a file as short as what it holds.

use std::path::Path;

use anydisk_core::{Access, Error, Located, Result};

use crate::OpenDisk;

/// What compacting did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Name of the format.
    pub format: &'static str,
    /// Length of the file in bytes, before.
    pub before: u64,
    /// And after.
    pub after: u64,
}

impl OpenDisk {
    /// Gives back what the file of the image at `path` holds for nothing, in place. What the disk
    /// reads stays as it is, also after an error or a power failure on the way. `progress` is told
    /// bytes done and bytes in all, and answers whether to go on.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the format cannot; as [`path`](Self::path).
    pub fn compact(
        &self,
        path: impl AsRef<Path>,
        progress: &(dyn Fn(u64, u64) -> bool + Sync),
    ) -> Result<Compacted> {
        self.compact_located(self.file_at(path.as_ref(), Access::ReadWrite)?, progress)
    }

    /// As [`compact`](Self::compact), of an image in `file`, which is open for writing.
    ///
    /// # Errors
    /// As [`compact`](Self::compact).
    pub fn compact_located(
        &self,
        file: Located,
        progress: &(dyn Fn(u64, u64) -> bool + Sync),
    ) -> Result<Compacted> {
        let name = file.location.to_string();
        let before = file.store.len()?;
        let format = self.with_opener(|opener| {
            let (format, _) = opener.format(&file, self.format_of(&file)?)?;
            let layer = opener.open_one(file.clone(), Some(format.name()), Access::ReadWrite)?;
            let unsupported = || {
                let feature = "compacting an image".into();
                Error::Unsupported { format: format.name(), feature }
            };
            layer.image.compactor().ok_or_else(unsupported)?.compact(progress)?;
            Ok(format.name())
        });
        let format = format.map_err(|error| error.within(&name))?;
        Ok(Compacted { format, before, after: file.store.len()? })
    }
}
