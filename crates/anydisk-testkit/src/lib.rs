//! What the tests of anydisk share.
//!
//! - [`golden`]: small images with the verdict, content and map expected; [`golden_suite!`].
//! - [`corpus`]: whole disks with the hash of their content.
//! - [`suite`]: what every format that writes must do; [`behaviour_suite!`].
//! - [`ByteModel`] and [`Operation`]: a disk as a byte vector, and what is done to it.
//! - [`mutant`]: images with damage at random. [`repair`]: what a repair may not do.
//! - [`lvm`]: physical volumes made by hand; [`vmdk`]: sparse images. [`volumes`]: those that a kernel wrote.
//! - [`mounted`]: devices and file systems on loop devices.
//! - [`oracle`]: qemu-img and qemu-io.
//! - [`double`]: stores that fail, forget what was not flushed, remember what was asked of them.

pub mod corpus;
pub mod digest;
pub mod double;
pub mod drawers;
mod folder;
pub mod golden;
mod image_folder;
mod killed;
pub mod lvm;
mod memory;
mod memory_folder;
mod model;
pub mod mounted;
pub mod mutant;
pub mod operation;
pub mod oracle;
mod places;
mod plain;
mod play;
pub mod random;
pub mod repair;
mod secret;
pub mod suite;
mod trial;
mod unpack;
pub mod vmdk;
pub mod volumes;

pub use folder::FolderResolver;
pub use image_folder::ImageFolder;
pub use killed::kill_first_write;
pub use memory_folder::MemoryFolder;
pub use model::ByteModel;
pub use operation::{Aim, Operation};
pub use plain::PlainImage;
pub use play::{contents, play, play_bytes};
pub use random::Random;
pub use secret::secrets;
pub use unpack::{Unpacked, unpack_xz};
