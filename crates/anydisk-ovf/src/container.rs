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
        // A disk may begin with an archive that its guest wrote: that alone says nothing.
        let in_archive = tar::first(head).is_some_and(|(name, at)| {
            name.ends_with(".ovf") || descriptor::begins(head.get(at..).unwrap_or_default())
        });
        if in_archive || descriptor::begins(head) { Verdict::Likely } else { Verdict::No }
    }

    /// One store: an archive. Several: the first is the descriptor.
    fn open(&self, request: ContainerRequest<'_>) -> Result<Box<dyn Members>> {
        let Some((first, others)) = request.stores.split_first() else {
            return Err(Error::NotFound { what: "package", name: String::new() });
        };
        let package = match others.is_empty() && !Package::is_descriptor(&*first.store)? {
            true => Package::open_ova(Arc::clone(&first.store), request.limits)?,
            false => Package::open_folder(first, others, request.limits)?,
        };
        Ok(Box::new(package))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a member of an archive.
    fn header(name: &str, len: usize, kind: u8) -> Vec<u8> {
        let mut block = vec![0; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..135].copy_from_slice(format!("{len:011o}").as_bytes());
        block[148..156].fill(b' ');
        block[156] = kind;
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }

    fn pax(record: &str, next: &str, content: &[u8]) -> Vec<u8> {
        let mut archive = header("PaxHeaders/x", record.len(), b'x');
        archive.extend_from_slice(record.as_bytes());
        archive.resize(1024, 0);
        archive.extend(header(next, content.len(), b'0'));
        archive.extend_from_slice(content);
        archive.resize(2048, 0);
        archive
    }

    fn verdict(head: &[u8]) -> Verdict {
        OVF.probe(&Sample { head, tail: &[], len: head.len() as u64 })
    }

    // A disk to which its guest wrote an archive of any files was taken for a package.
    #[test]
    fn an_archive_is_a_package_only_if_its_first_file_is_a_descriptor() {
        let envelope = b"<?xml version=\"1.0\"?><Envelope ";
        for (archive, expected) in [
            (header("box.ovf", 10, b'0'), Verdict::Likely),
            (header("box.vmdk", 10, b'0'), Verdict::No),
            (pax("12 mtime=10\n", "box.ovf", b""), Verdict::Likely),
            (pax("12 mtime=10\n", "passwd", b"root:"), Verdict::No),
            (pax("16 path=box.ovf\n", "short", b""), Verdict::Likely),
            (pax("16 path=etc/pass\n", "box.ovf", b""), Verdict::No),
            (pax("12 mtime=10\n", "box.xml", envelope), Verdict::Likely),
            (pax("no record", "box.ovf", b""), Verdict::No),
            (header("x", usize::MAX >> 31, b'x'), Verdict::No),
        ] {
            assert_eq!(verdict(&archive), expected, "{}", String::from_utf8_lossy(&archive));
        }
    }

    #[test]
    fn a_descriptor_is_known_by_its_content_whatever_its_name() {
        let envelope =
            b"<?xml version=\"1.0\"?><Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\">\
            <References/><DiskSection/></Envelope>";
        let mut archive = header("box.xml", envelope.len(), b'0');
        archive.extend_from_slice(envelope);
        archive.resize(2048, 0);
        let open = |bytes: Vec<u8>| {
            let store = Arc::new(anydisk_storage::MemoryStorage::new(bytes));
            Package::open_ova(store, &anydisk_core::Limits::default())
        };
        assert!(open(archive.clone()).is_ok());
        archive[512..600].fill(b' ');
        assert!(open(archive).unwrap_err().to_string().contains("a descriptor"));
    }
}
