//! A disk is a store: the one place where guest becomes host.

use anydisk_storage::{Holes, HostOffset, Identity, Run, Space, Storage};

use super::{Disk, bytes_in};
use crate::{Error, GuestOffset, GuestRange, Source};

type StorageResult<T> = anydisk_storage::Result<T>;

impl Disk {
    fn clipped(&self, at: HostOffset, len: u64) -> GuestRange {
        GuestRange::between(GuestOffset(at.get()), GuestOffset(at.get().saturating_add(len)))
            .before(GuestOffset(self.size()))
    }

    fn storage_error(
        &self,
        what: &'static str,
        at: HostOffset,
        len: u64,
    ) -> impl FnOnce(Error) -> anydisk_storage::Error {
        move |error| error.of_store(what, &self.name, at, len)
    }
}

impl Storage for Disk {
    fn len(&self) -> StorageResult<u64> {
        Ok(self.size())
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> StorageResult<usize> {
        let range = self.clipped(at, buf.len() as u64);
        let inside = &mut buf[..bytes_in(range)];
        self.read_from(0, range, inside).map_err(self.storage_error("read", at, range.len()))?;
        Ok(bytes_in(range))
    }

    fn write_at(&self, at: HostOffset, data: &[u8]) -> StorageResult<()> {
        let len = data.len() as u64;
        self.write(GuestOffset(at.get()), data).map_err(self.storage_error("write", at, len))
    }

    fn set_len(&self, len: u64) -> StorageResult<()> {
        if len == self.size() {
            return Ok(());
        }
        let what = "changing the length of a disk that is in use";
        Err(anydisk_storage::Error::Unsupported { store: self.name().into(), what })
    }

    fn flush(&self) -> StorageResult<()> {
        Self::flush(self).map_err(self.storage_error("flush", HostOffset::ZERO, 0))
    }

    fn is_writable(&self) -> bool {
        Self::is_writable(self)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn holes(&self) -> Option<&dyn Holes> {
        Some(self)
    }

    fn space(&self) -> Option<&dyn Space> {
        Some(self)
    }

    fn identity(&self) -> Option<Identity> {
        Some(Identity::Memory(std::ptr::from_ref(self).addr()))
    }
}

impl Holes for Disk {
    fn run_at(&self, at: HostOffset, limit: u64) -> StorageResult<Run> {
        let range = self.clipped(at, limit);
        if range.is_empty() {
            return Ok(Run { len: limit, hole: true });
        }
        let found = self.status(range).map_err(self.storage_error("map", at, limit))?;
        let hole = matches!(found.extent.source, Source::Zero { .. } | Source::Absent { .. });
        Ok(Run { len: found.extent.len, hole })
    }

    fn allocated(&self) -> StorageResult<u64> {
        let mut rest = GuestRange::whole(self.size());
        let mut sum = 0;
        while !rest.is_empty() {
            let run = self.run_at(HostOffset(rest.start().get()), rest.len())?;
            sum += if run.hole { 0 } else { run.len };
            rest = rest.skip(run.len);
        }
        Ok(sum)
    }
}

impl Space for Disk {
    fn zero(&self, at: HostOffset, len: u64, unmap: bool) -> StorageResult<()> {
        let range = self.clipped(at, len);
        Self::zero(self, range, unmap).map_err(self.storage_error("zero", at, len))
    }

    fn discard(&self, at: HostOffset, len: u64) -> StorageResult<()> {
        let range = self.clipped(at, len);
        Self::discard(self, range).map_err(self.storage_error("discard", at, len))
    }

    fn allocate(&self, _: HostOffset, _: u64) -> StorageResult<()> {
        let what = "reserving space";
        Err(anydisk_storage::Error::Unsupported { store: Storage::name(self).into(), what })
    }
}
