//! VMware disk images.

mod codec;
mod descriptor;
mod extent;
mod format;
mod header;
mod image;
mod info;
mod layout;
mod limits;
mod open;
mod table;

pub use format::{VMDK, VmdkFormat};
pub use image::VmdkImage;

pub(crate) const NAME: &str = "vmdk";
