//! VMware disk images.

mod alloc;
mod codec;
mod content_id;
mod create;
mod descriptor;
mod extent;
mod format;
mod guard;
mod header;
mod image;
mod info;
mod layout;
mod limits;
mod open;
mod sink;
mod table;
mod write;

pub use format::{VMDK, VmdkFormat};
pub use image::VmdkImage;

pub(crate) const NAME: &str = "vmdk";
