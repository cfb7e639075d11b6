//! Writing a package: each disk is written once, from its start to its end.
//!
//! ```text
//!   | header | descriptor, filled up | header | disk | header | disk | header | manifest | zeroes |
//!     `-- written last, when sizes      `-- written when the disk has ended
//!         and digests are known
//! ```

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use anydisk_core::{HostOffset, Result, Storage};
use sha2::{Digest as _, Sha256};

use crate::{invalid, name, text};

/// Unit of an archive, in bytes.
const BLOCK: u64 = 512;
/// Bytes kept for the descriptor, and for each disk more.
const DESCRIPTOR: u64 = 4096;

/// The format that the disks must have.
const STREAM: &str = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";

/// Writes an OVA into a store: a descriptor of a minimal machine, its disks, a manifest.
///
/// The same disks give the same bytes. The package is whole after [`finish`](Self::finish).
#[derive(Debug)]
pub struct PackageWriter {
    out: Arc<dyn Storage>,
    name: String,
    /// Bytes kept for the descriptor.
    kept: u64,
    /// Where the next member begins.
    at: u64,
    disks: Vec<Written>,
}

/// A disk that was written.
#[derive(Debug)]
struct Written {
    file: String,
    capacity: u64,
    len: u64,
    digest: String,
}

/// Takes the file of one disk, a stream-optimized VMDK, in order.
#[derive(Clone, Debug)]
pub struct DiskStream(Arc<Mutex<Stream>>);

#[derive(Debug)]
struct Stream {
    out: Arc<dyn Storage>,
    start: u64,
    len: u64,
    hasher: Sha256,
}

impl Write for DiskStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = HostOffset(stream.start + stream.len);
        stream.out.write_at(at, bytes).map_err(io::Error::other)?;
        stream.hasher.update(bytes);
        stream.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PackageWriter {
    /// Begins a package of so many disks, for a machine of this name, in an empty store.
    ///
    /// # Errors
    /// [`Denied`](anydisk_core::Error::Denied) for a name that is none of a plain file,
    /// [`Invalid`](anydisk_core::Invalid) for one that is too long for its members.
    pub fn new(out: Arc<dyn Storage>, name: &str, disks: usize) -> Result<Self> {
        let name = name::plain(name)?.to_owned();
        check_member(&file_of(&name, disks), 0)?;
        let kept = DESCRIPTOR + 1024 * disks as u64 + 4 * name.len() as u64 * (disks as u64 + 4);
        let kept = kept.next_multiple_of(BLOCK);
        Ok(Self { out, name, kept, at: BLOCK + kept, disks: Vec::new() })
    }

    /// Where the next disk's file is written. It is [ended](Self::end) before the next one begins.
    #[must_use]
    pub fn begin(&self) -> DiskStream {
        let start = self.at + BLOCK;
        let out = Arc::clone(&self.out);
        DiskStream(Arc::new(Mutex::new(Stream { out, start, len: 0, hasher: Sha256::new() })))
    }

    /// Ends a disk of `capacity` bytes for the guest.
    ///
    /// # Errors
    /// What the store says.
    pub fn end(&mut self, disk: &DiskStream, capacity: u64) -> Result<()> {
        let stream = disk.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = file_of(&self.name, self.disks.len() + 1);
        let (len, digest) = (stream.len, hex(&stream.hasher.clone().finalize()));
        self.member(&file, self.at, len)?;
        self.at = stream.start + len.next_multiple_of(BLOCK);
        self.disks.push(Written { file, capacity, len, digest });
        Ok(())
    }

    /// Writes the descriptor and the manifest. Does not make it durable.
    ///
    /// # Errors
    /// What the store says.
    pub fn finish(self) -> Result<()> {
        let ovf = format!("{}.ovf", self.name);
        let mut descriptor = self.descriptor();
        let room = usize::try_from(self.kept).unwrap_or(usize::MAX);
        if descriptor.len() > room {
            let found = anydisk_core::Value::Number(descriptor.len() as u64);
            return Err(invalid("descriptor", 0, found, format!("at most {room} bytes")).into());
        }
        // White space behind the last element is no part of the document.
        let fill = " ".repeat(room - descriptor.len());
        descriptor.push_str(&fill);
        descriptor.pop();
        descriptor.push('\n');
        self.member(&ovf, 0, self.kept)?;
        self.out.write_at(HostOffset(BLOCK), descriptor.as_bytes())?;

        let own = hex(&Sha256::digest(descriptor.as_bytes()));
        let mut manifest = format!("SHA256({ovf})= {own}\n");
        for disk in &self.disks {
            let _ = writeln!(manifest, "SHA256({})= {}", disk.file, disk.digest);
        }
        let len = manifest.len() as u64;
        self.member(&format!("{}.mf", self.name), self.at, len)?;
        self.out.write_at(HostOffset(self.at + BLOCK), manifest.as_bytes())?;
        // Two blocks of zeroes end an archive.
        let end = self.at + BLOCK + len.next_multiple_of(BLOCK) + 2 * BLOCK;
        Ok(self.out.set_len(end)?)
    }

    /// Writes the header of a member.
    fn member(&self, name: &str, at: u64, len: u64) -> Result<()> {
        check_member(name, at)?;
        Ok(self.out.write_at(HostOffset(at), &header(name, len))?)
    }

    fn descriptor(&self) -> String {
        let controllers = self.disks.len().div_ceil(UNITS).max(1);
        let mut items: String = (0..controllers).map(controller).collect();
        let (mut files, mut disks) = (String::new(), String::new());
        for (index, disk) in self.disks.iter().enumerate() {
            let (number, file) = (index + 1, escaped(&disk.file));
            let Written { capacity, len, .. } = disk;
            let _ = writeln!(
                files,
                "    <File ovf:id=\"file{number}\" ovf:href=\"{file}\" ovf:size=\"{len}\"/>"
            );
            let _ = writeln!(
                disks,
                "    <Disk ovf:diskId=\"vmdisk{number}\" ovf:fileRef=\"file{number}\" \
                 ovf:capacity=\"{capacity}\" ovf:capacityAllocationUnits=\"byte\" \
                 ovf:format=\"{STREAM}\"/>"
            );
            let _ = writeln!(
                items,
                "      <Item><rasd:AddressOnParent>{}</rasd:AddressOnParent>\
                 <rasd:ElementName>Hard Disk {number}</rasd:ElementName>\
                 <rasd:HostResource>ovf:/disk/vmdisk{number}</rasd:HostResource>\
                 <rasd:InstanceID>{}</rasd:InstanceID><rasd:Parent>{}</rasd:Parent>\
                 <rasd:ResourceType>17</rasd:ResourceType></Item>",
                unit(index),
                CONTROLLER + controllers + index,
                CONTROLLER + index / UNITS,
            );
        }
        let name = escaped(&self.name);
        format!(
            "{HEAD}  <References>\n{files}  </References>\n  <DiskSection>\n    \
             <Info>Virtual disks</Info>\n{disks}  </DiskSection>\n  \
             <VirtualSystem ovf:id=\"{name}\">\n    <Info>A virtual machine</Info>\n    \
             <Name>{name}</Name>\n{MACHINE}{items}    </VirtualHardwareSection>\n  \
             </VirtualSystem>\n</Envelope>\n"
        )
    }
}

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" \
xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\" \
xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData\" \
xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData\">
";

/// Importers want a machine around the disks.
const MACHINE: &str = "    <OperatingSystemSection ovf:id=\"1\"><Info>Unknown</Info>\
</OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Virtual hardware</Info>
      <System><vssd:ElementName>Virtual Hardware Family</vssd:ElementName>\
<vssd:InstanceID>0</vssd:InstanceID>\
<vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType></System>
      <Item><rasd:ElementName>1 processor</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID>\
<rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>\
<rasd:ElementName>1024 MiB of memory</rasd:ElementName><rasd:InstanceID>2</rasd:InstanceID>\
<rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>1024</rasd:VirtualQuantity></Item>
";

/// The instance of the first controller.
const CONTROLLER: usize = 3;

/// Disks on a controller, which is itself one of its sixteen units.
const UNITS: usize = 15;

/// The unit of the controller itself.
const INITIATOR: usize = 7;

/// The unit of a disk on its controller.
fn unit(index: usize) -> usize {
    match index % UNITS {
        unit if unit < INITIATOR => unit,
        unit => unit + 1,
    }
}

fn controller(number: usize) -> String {
    format!(
        "      <Item><rasd:Address>{number}</rasd:Address>\
         <rasd:ElementName>SCSI controller</rasd:ElementName>\
         <rasd:InstanceID>{}</rasd:InstanceID><rasd:ResourceSubType>lsilogic</rasd:ResourceSubType>\
         <rasd:ResourceType>6</rasd:ResourceType></Item>\n",
        CONTROLLER + number
    )
}

/// The file of a disk, counted from 1.
fn file_of(name: &str, disk: usize) -> String {
    format!("{name}-disk{disk}.vmdk")
}

/// Refuses a name that has no room in the header of a member.
fn check_member(name: &str, at: u64) -> Result<()> {
    if name.len() <= 100 {
        return Ok(());
    }
    Err(invalid("name of a member", at, text(name), "at most 100 bytes").into())
}

fn escaped(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A ustar header of a regular file, without a time or an owner.
fn header(name: &str, len: u64) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\x000000000\x000000000\0");
    match len {
        // Eleven digits in base 8, else base 256.
        0..0x2_0000_0000 => put(124, format!("{len:011o}\0").as_bytes()),
        _ => {
            put(124, &[0x80, 0, 0, 0]);
            put(128, &len.to_be_bytes());
        }
    }
    put(136, b"00000000000\0        0");
    put(257, b"ustar\x0000");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Package;
    use anydisk_core::{Limits, Members};
    use anydisk_storage::{MemoryStorage, StorageExt};

    fn package(contents: &[&[u8]]) -> Arc<MemoryStorage> {
        let out = Arc::new(MemoryStorage::default());
        let store = Arc::clone(&out) as Arc<dyn Storage>;
        let mut writer = PackageWriter::new(store, "a & b", contents.len()).unwrap();
        for content in contents {
            let mut stream = writer.begin();
            for part in content.chunks(100) {
                stream.write_all(part).unwrap();
            }
            writer.end(&stream, 4096).unwrap();
        }
        writer.finish().unwrap();
        out
    }

    #[test]
    fn what_was_written_is_read_with_its_digests() {
        let contents = [vec![7; 1000], vec![], vec![9; 512]];
        let parts: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
        let out = package(&parts);
        assert_eq!(out.to_vec().len() % 512, 0);
        let package = Package::open_ova(out, &Limits::default()).unwrap();
        for (disk, content) in package.disks().iter().zip(&contents) {
            assert_eq!((disk.capacity, disk.format.as_deref()), (4096, Some("vmdk")));
            let store = Members::open(&package, disk.file.as_deref().unwrap()).unwrap();
            let mut bytes = vec![0; content.len()];
            store.read_exact_at(HostOffset::ZERO, &mut bytes).unwrap();
            assert_eq!((&bytes, store.len().unwrap()), (content, content.len() as u64));
        }
        assert_eq!(package.disks().len(), 3);
    }

    #[test]
    fn the_same_disks_give_the_same_bytes() {
        assert_eq!(package(&[b"abc"]).to_vec(), package(&[b"abc"]).to_vec());
    }

    // Two disks, or a disk and the controller, had one place: an importer lost the eighth disk.
    #[test]
    fn each_disk_has_a_unit_of_its_own_and_none_that_of_its_controller() {
        let out = package(&vec![&b""[..]; 31]);
        let text = String::from_utf8_lossy(&out.to_vec()).into_owned();
        let values = |name: &str| -> Vec<usize> {
            let tag = format!("<rasd:{name}>");
            let parts = text.split(&tag).skip(1);
            parts.map(|part| part.split('<').next().unwrap().parse().unwrap()).collect()
        };
        let (units, parents) = (values("AddressOnParent"), values("Parent"));
        let expected: Vec<_> = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15].into();
        assert_eq!((&units[..15], &units[15..30], units[30]), (&expected[..], &expected[..], 0));
        assert_eq!((&parents[..15], parents[15], parents[30]), (&[3; 15][..], 4, 5));
        let mut instances = values("InstanceID");
        assert_eq!(instances.len(), 2 + 3 + 31);
        instances.sort_unstable();
        instances.dedup();
        assert_eq!(instances.len(), 2 + 3 + 31);
    }

    // The first disk was read and packed before its name was refused.
    #[test]
    fn a_name_that_is_too_long_for_the_last_disk_is_refused_at_the_start() {
        let new = |len: usize, disks| {
            let out: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
            PackageWriter::new(out, &"x".repeat(len), disks).map(|_| ())
        };
        assert!(new(89, 9).is_ok());
        let error = new(89, 10).unwrap_err().to_string();
        assert!(error.contains("name of a member") && error.contains("at most 100"), "{error}");
    }

    #[test]
    fn names_that_are_paths_are_refused() {
        let out: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
        assert!(PackageWriter::new(out, "../x", 1).is_err());
    }
}
