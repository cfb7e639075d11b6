//! A disk without a file, which reads as zeroes and keeps nothing: qemu's `null-co`.

use std::sync::Arc;

use anydisk_core::{HostOffset, Storage};
use anydisk_storage::{Holes, Result, Run, Space, StorageExt};

/// Its drivers. To qemu they differ in how a request waits.
const DRIVERS: &[&str] = &["null-co", "null-aio"];

/// Bytes of one whose size is not told.
pub(super) const SIZE: u64 = 1 << 30;

/// Whether this is the driver of such a disk.
#[must_use]
pub fn is_null(driver: &str) -> bool {
    DRIVERS.contains(&driver)
}

/// The only name of a disk of this driver.
#[must_use]
pub fn null_name(driver: &str) -> String {
    format!("{driver}://")
}

/// The driver of the disk that has this name.
#[must_use]
pub fn driver_named(name: &[u8]) -> Option<&'static str> {
    DRIVERS.iter().copied().find(|driver| null_name(driver).as_bytes() == name)
}

/// `len` bytes that read as zeroes. What is written is forgotten, and the length cannot be changed.
#[must_use]
pub fn null_store(len: u64) -> Arc<dyn Storage> {
    Arc::new(Null { len })
}

#[derive(Debug)]
struct Null {
    len: u64,
}

impl Storage for Null {
    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<usize> {
        let rest = usize::try_from(self.len.saturating_sub(at.get())).unwrap_or(usize::MAX);
        let len = rest.min(buf.len());
        buf[..len].fill(0);
        Ok(len)
    }

    fn write_at(&self, at: HostOffset, data: &[u8]) -> Result<()> {
        let len = data.len() as u64;
        match at.get().checked_add(len).filter(|end| *end <= self.len) {
            Some(_) => Ok(()),
            None => Err(self.out_of_range(at, len)),
        }
    }

    fn set_len(&self, _: u64) -> Result<()> {
        Err(anydisk_storage::Error::Unsupported { store: self.name().into(), what: "resizing" })
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        "null"
    }

    fn holes(&self) -> Option<&dyn Holes> {
        Some(self)
    }

    fn space(&self) -> Option<&dyn Space> {
        Some(self)
    }
}

impl Holes for Null {
    fn run_at(&self, _: HostOffset, limit: u64) -> Result<Run> {
        Ok(Run { len: limit, hole: true })
    }

    fn allocated(&self) -> Result<u64> {
        Ok(0)
    }
}

impl Space for Null {
    fn zero(&self, _: HostOffset, _: u64, _: bool) -> Result<()> {
        Ok(())
    }

    fn discard(&self, _: HostOffset, _: u64) -> Result<()> {
        Ok(())
    }

    fn allocate(&self, _: HostOffset, _: u64) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_disk_reads_as_zeroes_and_keeps_nothing() {
        let null = null_store(1000);
        null.write_at(HostOffset(10), &[7; 20]).unwrap();
        let mut buf = [1; 64];
        assert_eq!(null.read_at(HostOffset(960), &mut buf).unwrap(), 40);
        assert_eq!((&buf[..40], &buf[40..]), (&[0; 40][..], &[1; 24][..]));
        null.write_at(HostOffset(990), &[7; 20]).unwrap_err();
    }
}
