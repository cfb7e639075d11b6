//! QEMU's qcow2 disk images, versions 2 and 3.

mod extensions;
pub mod features;
mod header;
pub mod layout;
mod limits;
mod table;

pub use extensions::Extension;
pub use header::{Compression, Header};
pub use table::{Cluster, Geometry, L1Entry};

/// The name of the format.
pub(crate) const NAME: &str = "qcow2";
