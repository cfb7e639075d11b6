//! QEMU's qcow2 disk images, versions 2 and 3.

mod extensions;
pub mod features;
mod format;
mod header;
mod image;
pub mod layout;
mod limits;
mod rules;
mod snapshot;
mod table;

pub use extensions::Extension;
pub use format::{QCOW2, Qcow2Format};
pub use header::{Compression, Header};
pub use image::Qcow2Image;
pub use table::{Cluster, Compressed, Geometry, L1Entry, L2Entry};

/// The name of the format.
pub(crate) const NAME: &str = "qcow2";
