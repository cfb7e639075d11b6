//! Positional byte stores for disk images.

mod buffer;
mod error;
mod memory;
mod offset;
mod storage;

pub use buffer::{AlignedBuffer, is_zero};
pub use error::{Error, IoError, Result};
pub use memory::MemoryStorage;
pub use offset::HostOffset;
pub use storage::{Copied, CopyFrom, Holes, Identity, Run, Space, Storage, StorageExt};
