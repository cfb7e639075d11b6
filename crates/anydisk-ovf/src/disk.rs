//! A disk of the machine, as the descriptor tells it.

use anydisk_core::Result;

use crate::descriptor::{Descriptor, Disk};
use crate::invalid;

/// A disk of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackageDisk {
    /// Its id in the descriptor.
    pub id: String,
    /// Size for the guest, in bytes.
    pub capacity: u64,
    /// The member with its content; `None`: it is empty.
    pub file: Option<String>,
    /// The format that the descriptor names, as `-f` takes it. To be believed no more than any name.
    pub format: Option<String>,
    /// The id of the disk that it changes: what its own image does not have is there. Without a file
    /// it is that disk.
    pub parent: Option<String>,
}

impl PackageDisk {
    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.file.is_none() && self.parent.is_none()
    }

    /// Holds the size of the image that was found against the capacity.
    ///
    /// # Errors
    /// [`Invalid`](anydisk_core::Invalid) if they differ.
    pub fn check_size(&self, size: u64) -> Result<()> {
        if size == self.capacity {
            return Ok(());
        }
        let field = format!("capacity of disk {}", self.id);
        let expected = format!("{size}, the size of the image");
        Err(invalid(field, 0, self.capacity.into(), expected).into())
    }
}

/// The disk that an element of the descriptor means.
pub(crate) fn package_disk(disk: &Disk, descriptor: &Descriptor) -> PackageDisk {
    let file = disk.file.as_ref().and_then(|id| descriptor.file(id));
    PackageDisk {
        id: disk.id.clone(),
        capacity: disk.capacity,
        file: file.map(|file| file.href.clone()),
        format: disk.format.as_deref().and_then(format_of).map(str::to_owned),
        parent: disk.parent.clone(),
    }
}

/// The format that a URI means.
fn format_of(uri: &str) -> Option<&'static str> {
    let uri = uri.to_ascii_lowercase();
    // In this order: "vhdx" has "vhd" in it.
    [("vmdk", "vmdk"), ("qcow", "qcow2"), ("vhdx", "vhdx"), ("vhd", "vpc"), ("raw", "raw")]
        .into_iter()
        .find_map(|(part, format)| uri.contains(part).then_some(format))
}
