//! Positional byte stores for disk images.

mod buffer;
mod error;
#[cfg(unix)]
mod file;
mod memory;
mod offset;
#[cfg(unix)]
mod pending;
mod storage;
mod window;

pub use buffer::{AlignedBuffer, is_zero};
pub use error::{Error, IoError, Result};
#[cfg(unix)]
pub use file::{FileStorage, LockMode, OpenOptions};
pub use memory::MemoryStorage;
pub use offset::HostOffset;
#[cfg(unix)]
pub use pending::PendingFile;
pub use storage::{Copied, CopyFrom, Holes, Identity, Run, Space, Storage, StorageExt};
pub use window::Window;
