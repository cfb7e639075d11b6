//! Packed files into a temporary folder.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use anydisk_storage::is_zero;
use lzma_rust2::XzReader;
use tempfile::TempDir;

/// Unpacked files. They go away with this value.
#[derive(Debug)]
pub struct Unpacked {
    /// The folder: the files and nothing else.
    pub folder: TempDir,
    /// The file to open.
    pub path: PathBuf,
}

impl Unpacked {
    /// An empty folder; `name` is the file to open, once it is there.
    ///
    /// # Errors
    /// Of making the folder.
    pub fn empty(name: &str) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("anydisk-").tempdir()?;
        let path = folder.path().join(name);
        Ok(Self { folder, path })
    }

    /// The path of the file of this name.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Unpacks an xz file to `target`, sparse.
///
/// # Errors
/// Of reading and writing.
pub fn unpack_xz(packed: &Path, target: &Path) -> io::Result<()> {
    write_sparse(&mut reader(packed)?, target)
}

/// Unpacks an xz-packed tar archive into `folder`: files only, with the folders that their names need,
/// sparse, with their times, because some formats keep the time of the file below in their header.
pub(crate) fn unpack_tar_xz(packed: &Path, folder: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(reader(packed)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        let path = entry.path()?.into_owned();
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        if kind.is_dir() {
            continue;
        }
        if !plain || !(kind.is_file() || kind.is_gnu_sparse()) {
            return Err(io::Error::other(format!("{}: no plain file", path.display())));
        }
        let target = folder.join(path);
        target.parent().map_or(Ok(()), fs::create_dir_all)?;
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(entry.header().mtime()?);
        write_sparse(&mut entry, &target)?;
        File::options().write(true).open(&target)?.set_modified(modified)?;
    }
    Ok(())
}

fn reader(packed: &Path) -> io::Result<impl Read> {
    let file = File::open(packed)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", packed.display())))?;
    Ok(XzReader::new(BufReader::with_capacity(1 << 16, file), true))
}

fn write_sparse(from: &mut dyn Read, target: &Path) -> io::Result<()> {
    let mut file = File::create(target)?;
    let mut buffer = vec![0; 64 << 10];
    let mut len = 0;
    loop {
        let count = read_full(from, &mut buffer)?;
        if count == 0 {
            return file.set_len(len);
        }
        if is_zero(&buffer[..count]) {
            file.seek(SeekFrom::Current(i64::try_from(count).unwrap_or(0)))?;
        } else {
            file.write_all(&buffer[..count])?;
        }
        len += count as u64;
    }
}

/// Fills `buffer` unless the end comes first.
pub(crate) fn read_full(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match from.read(&mut buffer[done..])? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}
