//! A store whose flush does nothing, for files that can be made again.
#![deny(clippy::missing_trait_methods)]

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use anydisk_storage::{CopyFrom, Holes, HostOffset, Identity, RawFile, Result, Space, Storage};

/// Forwards everything but flushes.
#[derive(Debug)]
pub(crate) struct Unflushed(pub(crate) Arc<dyn Storage>);

impl Storage for Unflushed {
    fn len(&self) -> Result<u64> {
        self.0.len()
    }

    fn is_empty(&self) -> Result<bool> {
        self.0.is_empty()
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<usize> {
        self.0.read_at(at, buf)
    }

    fn read_vectored_at(&self, at: HostOffset, bufs: &mut [IoSliceMut<'_>]) -> Result<usize> {
        self.0.read_vectored_at(at, bufs)
    }

    fn write_at(&self, at: HostOffset, data: &[u8]) -> Result<()> {
        self.0.write_at(at, data)
    }

    fn write_vectored_at(&self, at: HostOffset, data: &[IoSlice<'_>]) -> Result<()> {
        self.0.write_vectored_at(at, data)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(len)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn is_writable(&self) -> bool {
        self.0.is_writable()
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn alignment(&self) -> usize {
        self.0.alignment()
    }

    fn holes(&self) -> Option<&dyn Holes> {
        self.0.holes()
    }

    fn space(&self) -> Option<&dyn Space> {
        self.0.space()
    }

    fn copier(&self) -> Option<&dyn CopyFrom> {
        self.0.copier()
    }

    fn identity(&self) -> Option<Identity> {
        self.0.identity()
    }

    fn fd(&self) -> Option<RawFile<'_>> {
        self.0.fd()
    }

    fn prefetch(&self, at: HostOffset, len: u64) {
        self.0.prefetch(at, len);
    }
}
