//! A store in memory.

use std::sync::{PoisonError, RwLock};

use crate::{Error, HostOffset, Identity, Result, Storage};

/// Bytes in memory that grow as they are written.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    bytes: RwLock<Vec<u8>>,
}

impl MemoryStorage {
    /// A store that holds `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: RwLock::new(bytes) }
    }

    /// A copy of all bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Storage for MemoryStorage {
    fn len(&self) -> Result<u64> {
        Ok(self.bytes.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<usize> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let Some(rest) = usize::try_from(at.get()).ok().and_then(|start| bytes.get(start..)) else {
            return Ok(0);
        };
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, at: HostOffset, data: &[u8]) -> Result<()> {
        let end = at.checked_add(data.len() as u64).and_then(|end| usize::try_from(end.get()).ok());
        let (Some(end), Ok(start)) = (end, usize::try_from(at.get())) else {
            return Err(Error::OutOfRange {
                store: self.name().into(),
                at,
                len: data.len() as u64,
                end: usize::MAX as u64,
            });
        };
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let len = usize::try_from(len)
            .map_err(|_| Error::Unsupported { store: self.name().into(), what: "this length" })?;
        self.bytes.write().unwrap_or_else(PoisonError::into_inner).resize(len, 0);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        "memory"
    }

    fn identity(&self) -> Option<Identity> {
        Some(Identity::Memory(std::ptr::from_ref(self).addr()))
    }
}
