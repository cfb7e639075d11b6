//! Positional byte stores for disk images.

mod error;
mod memory;
mod offset;
mod storage;

pub use error::{Error, IoError, Result};
pub use memory::MemoryStorage;
pub use offset::HostOffset;
pub use storage::{Copied, CopyFrom, Holes, Identity, Run, Space, Storage, StorageExt};
