//! Files on the host.

use anydisk_core::Access;
use anydisk_storage::OpenOptions;

/// The same options for reading, or for writing too.
pub(crate) fn with_access(options: &OpenOptions, access: Access) -> OpenOptions {
    options.clone().write(access == Access::ReadWrite)
}
