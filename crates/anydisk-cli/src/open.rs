//! How disks are opened for reading.

use std::ffi::OsStr;

use anydisk::storage::LockMode;
use anydisk::{Chosen, Disk, Layer, OpenDisk, Policy};

use crate::args::Reading;
use crate::failure::Failure;
use crate::output;

impl Reading {
    /// The way that was asked for.
    fn options(self, format: Option<&str>) -> OpenDisk {
        let mut options = if self.untrusted {
            OpenDisk::untrusted()
        } else {
            OpenDisk::new().guess_raw(true).policy(Policy::LikeQemu)
        };
        if let Some(format) = format {
            options = options.format(format);
        }
        if self.force_share { options.lock(LockMode::ForceShare) } else { options }
    }

    /// Opens a disk with the chain below it; `direct`: past the page cache.
    pub(crate) fn disk(
        self,
        path: &OsStr,
        format: Option<&str>,
        direct: bool,
    ) -> Result<Disk, Failure> {
        let disk = self.options(format).direct(direct).path(path)?;
        warn_if_guessed(&disk.layers()[0]);
        Ok(disk)
    }

    /// Opens the top image alone.
    pub(crate) fn top(self, path: &OsStr, format: Option<&str>) -> Result<Layer, Failure> {
        let layer = self.options(format).top(path)?;
        warn_if_guessed(&layer);
        Ok(layer)
    }
}

/// Whoever writes the first sector of a raw disk chooses what it is taken for next time.
fn warn_if_guessed(layer: &Layer) {
    if layer.chosen == Chosen::Guessed {
        output::warn(&format!(
            "{}: no format recognises it, so it is taken for raw; say so with -f raw",
            layer.location
        ));
    }
}
