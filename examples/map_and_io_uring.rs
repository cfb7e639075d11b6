//! Walk the map and do the I/O oneself: the loop that a virtual machine monitor with io_uring runs.
//!
//! The disk only translates. `map_cached` never does I/O: it answers where bytes are, or which bytes
//! of the metadata it must be given first, and those are read through the ring too.
//!
//! `cargo run -p anydisk-examples --example map_and_io_uring`

use std::error::Error;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use anydisk::storage::{FileStorage, OpenOptions, Window};
use anydisk::{
    Disk, DiskLookup, GuestOffset, GuestRange, HostOffset, Located, Location, OpenDisk, Source,
    Storage, Supplied,
};
use io_uring::{IoUring, opcode, types};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("disk.qcow2");
    let expected = write_sample(&path)?;
    let image = among_others(&path)?;

    let disk = OpenDisk::new().located(image)?;
    let mut ring = match IoUring::new(8) {
        Ok(ring) => ring,
        Err(error) => {
            println!("skipped: this kernel lends no io_uring ({error})");
            return Ok(());
        }
    };
    let mut bytes = vec![0; expected.len()];
    read(&mut ring, &disk, &mut bytes)?;
    assert!(bytes == expected, "the ring read other bytes");
    println!("{} bytes read through the ring", bytes.len());
    Ok(())
}

/// Reads the start of the disk, one request after the other. A real queue has many under way, and
/// keeps the lease of each extent (`lease.into_owned()`) until its request has completed.
fn read(ring: &mut IoUring, disk: &Disk, buf: &mut [u8]) -> Result<(), Box<dyn Error>> {
    let mut rest = GuestRange::whole(buf.len() as u64);
    let mut buf = buf;
    while !rest.is_empty() {
        let found = match disk.map_cached(rest)? {
            DiskLookup::Found(found) => found,
            DiskLookup::Need(need) => {
                // Metadata: read it like everything else, hand it in, ask again.
                let mut bytes = vec![0; need.need.len];
                submit_read(ring, &**need.need.store, need.need.at, &mut bytes)?;
                if let Supplied::Full = disk.supply(&need, &bytes)? {
                    disk.relieve(need.layer)?;
                }
                continue;
            }
        };
        let (part, behind) = buf.split_at_mut(usize::try_from(found.extent.len)?);
        match &found.extent.source {
            Source::Data { store, at, .. } => submit_read(ring, &***store, *at, part)?,
            Source::Zero { .. } | Source::Absent { .. } => part.fill(0),
            // Packed units are read the same way and given to `disk.decode`; here the disk does it.
            _ => disk.read(rest.start(), part)?,
        }
        rest = rest.skip(found.extent.len);
        buf = behind;
    }
    Ok(())
}

/// One read through the ring, until the buffer is full; what lies behind the end is zero. The store
/// may be a part of the file (a partition, a member of a package): what is behind it is another's.
fn submit_read(
    ring: &mut IoUring,
    store: &dyn Storage,
    at: HostOffset,
    buf: &mut [u8],
) -> io::Result<()> {
    let file = store.fd().ok_or_else(|| io::Error::other("this store has no file"))?;
    let own = file.len.map_or(u64::MAX, |len| len.saturating_sub(at.get()));
    let (buf, behind) = buf.split_at_mut(buf.len().min(usize::try_from(own).unwrap_or(usize::MAX)));
    behind.fill(0);
    let mut done = 0;
    while done < buf.len() {
        let place = file.start.get() + at.get() + done as u64;
        let room = &mut buf[done..];
        let len = u32::try_from(room.len()).unwrap_or(u32::MAX);
        let entry = opcode::Read::new(types::Fd(file.fd.as_raw_fd()), room.as_mut_ptr(), len)
            .offset(place)
            .build();
        // SAFETY: the buffer and the descriptor live until `submit_and_wait` has returned with the
        // completion of this one request.
        #[expect(unsafe_code, reason = "a ring takes raw buffers")]
        unsafe {
            ring.submission().push(&entry).map_err(io::Error::other)?;
        }
        ring.submit_and_wait(1)?;
        let result = ring.completion().next().map_or(-libc_eio(), |entry| entry.result());
        let count = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))?;
        if count == 0 {
            buf[done..].fill(0);
            return Ok(());
        }
        done += count;
    }
    Ok(())
}

/// The number of "input/output error".
const fn libc_eio() -> i32 {
    5
}

/// The image as a part of a file in which somebody else's bytes follow it at once.
fn among_others(path: &Path) -> Result<Located, Box<dyn Error>> {
    let mut file = std::fs::File::options().append(true).open(path)?;
    let len = file.metadata()?.len();
    file.write_all(&[0xEE; 65536])?;
    let whole = FileStorage::open(path, &OpenOptions::new())?;
    let store = Arc::new(Window::new(Arc::new(whole), HostOffset(0), len)?);
    Ok(Located { store, location: Location::Path(path.into()) })
}

/// Where the sample's last bytes begin: 5,000 of them.
const LAST: usize = 900_000;
/// What the last cluster has behind them, in clusters of 64 KiB.
const LAST_CLUSTER_UNUSED: u64 = 65536 - (LAST as u64 + 5000) % 65536;

/// A qcow2 image with data, holes and a second cluster; its first bytes.
fn write_sample(path: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let format = anydisk::formats().by_name("qcow2")?;
    let options = anydisk::Options::of(format);
    let image = anydisk::convert::NewImage::new(format, &options, 1 << 20);
    anydisk::convert::create_file(path, &image)?;
    let disk = OpenDisk::new().write(true).path(path)?;
    let mut expected = vec![0; 1 << 20];
    for (at, byte) in [(0, 1), (70_000, 2), (LAST, 3)] {
        expected[at..at + 5000].fill(byte);
        disk.write(GuestOffset(at as u64), &[byte; 5000])?;
    }
    disk.flush()?;
    drop(disk);
    // The last cluster ends with the data: what a file does not have of a cluster is zero.
    let file = std::fs::File::options().write(true).open(path)?;
    file.set_len(file.metadata()?.len() - LAST_CLUSTER_UNUSED)?;
    Ok(expected)
}
