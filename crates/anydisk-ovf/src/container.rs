//! The container: an archive, or a descriptor with its files.

use std::sync::Arc;

use anydisk_core::{Container, ContainerRequest, Error, Members, Result, Sample, Verdict};

use crate::{NAME, Package, descriptor, tar};

/// OVF and OVA packages.
#[derive(Clone, Copy, Debug, Default)]
pub struct OvfContainer;

/// OVF and OVA packages, for a list of containers.
pub static OVF: OvfContainer = OvfContainer;

impl Container for OvfContainer {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        let head = sample.head;
        let first = head.split(|byte| *byte == 0).next().unwrap_or_default();
        if tar::is_header(head) && (first.ends_with(b".ovf") || head.get(156) == Some(&b'x')) {
            return Verdict::Likely;
        }
        if descriptor::begins(head) { Verdict::Likely } else { Verdict::No }
    }

    /// One store: an archive. Several: the first is the descriptor.
    fn open(&self, request: ContainerRequest<'_>) -> Result<Box<dyn Members>> {
        let Some((first, others)) = request.stores.split_first() else {
            return Err(Error::NotFound { what: "package", name: String::new() });
        };
        let mut head = [0; 1024];
        let count = first.store.read_at(anydisk_core::HostOffset::ZERO, &mut head)?;
        let package = match others.is_empty() && !descriptor::begins(&head[..count]) {
            true => Package::open_ova(Arc::clone(&first.store), request.limits)?,
            false => Package::open_folder(first, others, request.limits)?,
        };
        Ok(Box::new(package))
    }
}
