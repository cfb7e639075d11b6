//! Standard input and output in place of files.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use anydisk::storage::{HostOffset, OpenOptions, PendingFile, Storage, is_zero};
use rustix::fs::{OFlags, fcntl_getfl};

use crate::failure::Failure;

/// Bytes that are moved at once.
const PIECE: usize = 1 << 20;
/// Zeroes become holes in units of this many bytes.
const BLOCK: usize = 4096;

/// Whether a name stands for a stream: `-`, unless a file is called so.
pub(crate) fn is_meant(name: &OsStr) -> bool {
    name == "-" && !Path::new(name).exists()
}

/// Standard input as a file, since images are read by position: in the folder for temporary files
/// (`TMPDIR`), without a name, with holes where there are zeroes.
pub(crate) fn spooled_input() -> Result<Arc<dyn Storage>, Failure> {
    let input = io::stdin();
    if input.is_terminal() {
        return Err(Failure::new("Standard input is a terminal")
            .with_advice("Let a program or a file give the image: anydisk ... - < FILE"));
    }
    let store = spool()?;
    let (mut input, mut at) = (input.lock(), 0_u64);
    let mut piece = vec![0; PIECE];
    loop {
        let count = fill(&mut input, &mut piece)?;
        for block in piece[..count].chunks(BLOCK) {
            if !is_zero(block) {
                store.write_at(HostOffset(at), block).map_err(anydisk::Error::from)?;
            }
            at += block.len() as u64;
        }
        if count < piece.len() {
            break;
        }
    }
    store.set_len(at).map_err(anydisk::Error::from)?;
    Ok(store)
}

/// A file without a name.
pub(crate) fn spool() -> Result<Arc<dyn Storage>, Failure> {
    let folder = std::env::temp_dir();
    let pending = PendingFile::create(folder.join("anydisk-stream"), &OpenOptions::new());
    // It is never published, so it is gone when the store is.
    let pending = pending.map_err(anydisk::Error::from)?;
    Ok(Arc::clone(pending.storage()) as Arc<dyn Storage>)
}

/// Standard output, for bytes.
pub(crate) fn output() -> Result<Box<dyn Write + Send>, Failure> {
    let out = io::stdout();
    if out.is_terminal() {
        return Err(Failure::new("Standard output is a terminal")
            .with_advice("Send it to a program or a file: anydisk ... - > FILE"));
    }
    // By itself, so that it is not looked through for ends of lines.
    let out = File::from(out.as_fd().try_clone_to_owned()?);
    if was_closed(&out)? {
        return Err(Failure::new("Standard output is closed")
            .with_advice("Send it to a program or a file: anydisk ... - > FILE"));
    }
    Ok(Box::new(out))
}

/// Whether the process was begun without standard output: in its place the runtime opens `/dev/null`,
/// to read and write, which nobody does who wants to throw the image away.
fn was_closed(out: &File) -> io::Result<bool> {
    let is_for_both = fcntl_getfl(out)? & OFlags::RWMODE == OFlags::RDWR;
    let null = || std::fs::metadata("/dev/null").is_ok_and(|null| Some(null.rdev()) == device(out));
    Ok(is_for_both && null())
}

fn device(file: &File) -> Option<u64> {
    file.metadata().ok().map(|meta| meta.rdev())
}

/// Writes all of a store to standard output.
pub(crate) fn pour(store: &dyn Storage, out: &mut dyn Write) -> Result<(), Failure> {
    let mut piece = vec![0; PIECE];
    let mut at = HostOffset::ZERO;
    loop {
        let count = store.read_at(at, &mut piece).map_err(anydisk::Error::from)?;
        if count == 0 {
            return out.flush().map_err(failure);
        }
        out.write_all(&piece[..count]).map_err(failure)?;
        at = at.saturating_add(count as u64);
    }
}

/// Why bytes were not taken.
fn failure(error: io::Error) -> Failure {
    let kind = Some(error.kind());
    Failure::from(error).about(OsStr::new("standard output")).of_stream(kind)
}

/// Reads until the buffer is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match input.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
