//! Writing packages: the container of one crate, the disks of another.

use std::path::Path;
use std::sync::Arc;

use anydisk_convert::{Error, Result, Settings, Sources, Watch, copy_to_sink};
use anydisk_core::{Disk, Format, Location, Options, SinkRequest, Storage};
use anydisk_ovf::PackageWriter;
use anydisk_storage::{OpenOptions, PendingFile};
use anydisk_vmdk::VMDK;

/// Bytes of a sector: disks of a package are whole sectors.
const SECTOR: u64 = 512;

/// Copies disks into a new OVA at `path`, each in one pass as a stream-optimized VMDK, with a
/// descriptor of a minimal machine that is called as the file is, and a manifest.
///
/// The file gets its name when it is whole. The same disks give the same file, but for the disks' content
/// IDs, which are random.
///
/// # Errors
/// What reading and writing say; then what was at `path` is as it was.
pub fn copy_to_ova(
    disks: &[Disk],
    path: &Path,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<()> {
    let pending = PendingFile::create(path, &OpenOptions::new())?;
    let out: Arc<dyn Storage> = Arc::clone(pending.storage()) as Arc<dyn Storage>;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    copy_to_ova_in(disks, out, &name, settings, watch)?;
    match settings.durable {
        true => pending.publish(true)?,
        false => pending.publish_unflushed(true)?,
    }
    Ok(())
}

/// As [`copy_to_ova`], into a store that is empty, of a machine called `name`. Nothing is flushed.
///
/// # Errors
/// What reading and writing say.
pub fn copy_to_ova_in(
    disks: &[Disk],
    out: Arc<dyn Storage>,
    name: &str,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<()> {
    let mut writer = PackageWriter::new(out, name, disks.len())?;
    let mut options = Options::of(&VMDK);
    options.set("subformat", "streamOptimized")?;
    let location = Location::Other(name.to_owned());
    for disk in disks {
        let stream = writer.begin();
        let size = disk.size().next_multiple_of(SECTOR);
        let request = SinkRequest { size, options: &options, location: &location };
        let sink = VMDK.sink(&request, Box::new(stream.clone()))?.ok_or_else(no_stream)?;
        copy_to_sink(&Sources::one(disk), sink, settings, watch)?;
        writer.end(&stream, size)?;
    }
    writer.finish()?;
    Ok(())
}

fn no_stream() -> Error {
    let feature = "writing in one pass".into();
    anydisk_core::Error::Unsupported { format: "vmdk", feature }.into()
}
