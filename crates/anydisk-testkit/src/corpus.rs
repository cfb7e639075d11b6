//! The corpus: whole disks that several programs wrote, with known content.

use std::collections::HashSet;
use std::fs;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anydisk_core::{Access, Disk, GuestOffset, Opener, Registry, SnapshotRef};
use anydisk_storage::is_zero;

use crate::digest::{Reading, content_sha256};
use crate::folder::{FolderResolver, open_file};
use crate::places;
use crate::secret::secrets;
use crate::trial::{guarded, prompt, settle};
use crate::unpack::{Unpacked, unpack_tar_xz, unpack_xz};

/// Disks larger than this are hashed only if [`EVERYTHING`] is set.
const LARGE: u64 = 8 << 30;

/// The variable that asks for what takes long.
pub(crate) const EVERYTHING: &str = "ANYDISK_EVERYTHING";

/// One guest content: an image, or a part of it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name: that of the archive, with the part behind it (`#snapshot=one`).
    pub name: String,
    /// Name of the format.
    pub format: String,
    /// What is special about it, and which program wrote it.
    pub description: String,
    /// The file to open.
    pub image: String,
    /// Which part of it: `snapshot=one`.
    pub part: Option<String>,
    /// Size of the disk in bytes, if it is known.
    pub virtual_size: Option<u64>,
    /// What it holds, if that is known.
    pub content: Option<Content>,
    /// What is to come out.
    pub expect: Expect,
    /// What opening needs: a passphrase, the name of the parent.
    pub open: String,
    archive: PathBuf,
}

/// What a disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes with this SHA-256.
    Sha256(String),
    /// Zeroes, but for these runs of one byte: start, length, byte. For disks too large to hash.
    Runs(Vec<(u64, u64, u8)>),
}

/// What is to come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The content.
    Ok,
    /// An error, of opening or of reading.
    Reject,
    /// The same without its passphrase, though one is known.
    Locked,
    /// An error or the content.
    Tolerated,
    /// It opens; a check must find the damage.
    Check,
}

/// One row of the project's own corpus.
///
/// # Panics
/// If the manifest cannot be read, or has no such row.
#[must_use]
pub fn own(name: &str) -> Row {
    let row = read_manifest(&own_folder()).into_iter().find(|row| row.name == name);
    row.unwrap_or_else(|| panic!("{name} is not in the corpus"))
}

/// All rows of a format: those of the project, and of the bigger corpus in the folder that the
/// variable `ANYDISK_CORPUS` names. Says aloud how many.
///
/// # Panics
/// If a manifest cannot be read.
#[must_use]
pub fn rows(format: &str) -> Vec<Row> {
    let mut seen = HashSet::new();
    let mut rows = Vec::new();
    for folder in iter::once(own_folder()).chain(bigger()) {
        let of_folder = read_manifest(&folder).into_iter();
        rows.extend(of_folder.filter(|row| row.format == format && seen.insert(row.name.clone())));
    }
    eprintln!("corpus of {format}: {} rows", rows.len());
    rows
}

fn own_folder() -> PathBuf {
    places::workspace().join("tests/corpus")
}

/// The folder of the bigger corpus, if the variable `ANYDISK_CORPUS` names one. Says aloud if not.
#[must_use]
pub fn bigger() -> Option<PathBuf> {
    let folder = std::env::var_os("ANYDISK_CORPUS").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: the bigger corpus (ANYDISK_CORPUS names no folder)");
    }
    folder
}

fn read_manifest(folder: &Path) -> Vec<Row> {
    let path = folder.join("manifest.tsv");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().skip(1).map(|line| Row::parse(line, folder)).collect()
}

impl Row {
    fn parse(line: &str, folder: &Path) -> Self {
        let fields: Vec<&str> = line.split('\t').collect();
        let [file, image, format, variant, writer, _, _, size, sha256, _, expect, open, notes] =
            fields[..]
        else {
            panic!("a row of the manifest has {} fields: {line}", fields.len());
        };
        let (image, part) = match image.split_once('#') {
            Some((image, part)) => (image, Some(part.to_owned())),
            None => (image, None),
        };
        let stem = file.trim_end_matches(".xz").trim_end_matches(".tar");
        let name = part.as_ref().map_or(stem.to_owned(), |part| format!("{stem}#{part}"));
        Self {
            name,
            format: format.to_owned(),
            description: format!("{variant} ({writer})"),
            image: image.to_owned(),
            part,
            virtual_size: size.parse().ok(),
            content: content(sha256, notes),
            expect: Expect::parse(expect),
            open: open.to_owned(),
            archive: folder.join(file),
        }
    }

    /// Unpacks the files into a folder of their own.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn unpack(&self) -> Unpacked {
        let unpack = || {
            let unpacked = Unpacked::empty(&self.image)?;
            match self.archive.to_string_lossy().ends_with(".tar.xz") {
                true => unpack_tar_xz(&self.archive, unpacked.folder.path())?,
                false => unpack_xz(&self.archive, &unpacked.path)?,
            }
            Ok(unpacked)
        };
        unpack().unwrap_or_else(|error: std::io::Error| panic!("corpus: {}: {error}", self.name))
    }
}

impl Expect {
    fn parse(text: &str) -> Self {
        match text {
            "ok" => Self::Ok,
            "reject" => Self::Reject,
            "reject without passphrase" => Self::Locked,
            "tolerated" => Self::Tolerated,
            "check" => Self::Check,
            other => panic!("expect is {other:?}"),
        }
    }
}

fn content(sha256: &str, notes: &str) -> Option<Content> {
    if sha256.len() == 64 {
        return Some(Content::Sha256(sha256.to_owned()));
    }
    let (_, runs) = notes.split_once("ranges: ")?;
    let runs = runs.split("; ").take_while(|run| !run.starts_with("the rest zero"));
    Some(Content::Runs(runs.map(|run| parse_run(run).expect("a run in words")).collect()))
}

/// `65536 bytes of 0xc3 at 63 TiB`, or `... at 4096`.
fn parse_run(text: &str) -> Option<(u64, u64, u8)> {
    let words: Vec<&str> = text.split(' ').collect();
    let shift = match words.get(6) {
        None => 0,
        Some(&"MiB") => 20,
        Some(&"GiB") => 30,
        Some(&"TiB") => 40,
        Some(_) => return None,
    };
    let byte = u8::from_str_radix(words.get(3)?.strip_prefix("0x")?, 16).ok()?;
    Some((words.get(5)?.parse::<u64>().ok()? << shift, words.first()?.parse().ok()?, byte))
}

/// Judges all rows of a format. `not_yet` names rows that are not supported yet, with the reason;
/// one that passes is a failure.
///
/// # Panics
/// With a list of all that went wrong.
pub fn judge_all(format: &str, registry: &Registry, not_yet: &[(&str, &str)]) {
    let verdicts: Vec<_> =
        rows(format).into_iter().map(|row| (row.name.clone(), judge(&row, registry))).collect();
    settle(&format!("corpus of {format}"), &verdicts, not_yet);
}

/// Whether opening and reading the row gives what is expected.
///
/// # Errors
/// The first thing that went wrong.
pub fn judge(row: &Row, registry: &Registry) -> Result<(), String> {
    let unpacked = Arc::new(row.unpack());
    let (row, registry) = (row.clone(), registry.clone());
    guarded(move || examine(&row, &registry, &unpacked))
}

fn examine(row: &Row, registry: &Registry, unpacked: &Unpacked) -> Result<(), String> {
    let parent = row.open.strip_prefix("parent=");
    let (file, folder) = match unpacked.path.is_dir() {
        true => (unpacked.path.join("DiskDescriptor.xml"), &*unpacked.path),
        false => (unpacked.path.clone(), unpacked.folder.path()),
    };
    let resolver = FolderResolver::new(folder).with_nameless(parent);
    let passphrase = row.open.strip_prefix("password=");
    let secrets = secrets(passphrase.filter(|_| row.expect != Expect::Locked));
    let opener = Opener::new(registry, &resolver).with_secrets(&*secrets);
    let format = Some(row.format.as_str());
    let snapshot = row.part.as_deref().and_then(|part| part.strip_prefix("snapshot="));
    let open = || {
        let disk = opener.open(open_file(&file, Access::Read)?, format, Access::Read)?;
        match snapshot {
            Some(which) => disk.at_snapshot(&SnapshotRef::IdOrName(which.to_owned())),
            None => Ok(disk),
        }
    };
    if row.part.is_some() && snapshot.is_none() {
        return Err(format!("a part of an image cannot be opened: {:?}", row.part));
    }
    match (row.expect, prompt(open)?) {
        (Expect::Ok | Expect::Check, Ok(disk)) => must_hold(row, &disk),
        (Expect::Ok | Expect::Check, Err(error)) => Err(format!("does not open: {error}")),
        (Expect::Reject | Expect::Locked, Ok(disk)) => {
            match content_sha256(&disk, Reading::Large) {
                Ok(_) => Err("opens and reads, expected an error".to_owned()),
                Err(_) => Ok(()),
            }
        }
        (Expect::Tolerated, Ok(disk)) => match content_sha256(&disk, Reading::Large) {
            Ok(_) => must_hold(row, &disk),
            Err(_) => Ok(()),
        },
        (Expect::Reject | Expect::Locked | Expect::Tolerated, Err(_)) => Ok(()),
    }
}

fn must_hold(row: &Row, disk: &Disk) -> Result<(), String> {
    if row.virtual_size.is_some_and(|size| size != disk.size()) {
        return Err(format!("the size is {}, expected {:?}", disk.size(), row.virtual_size));
    }
    match &row.content {
        None => Ok(()),
        Some(Content::Runs(runs)) => must_hold_runs(runs, disk),
        Some(Content::Sha256(_))
            if disk.size() > LARGE && std::env::var_os(EVERYTHING).is_none() =>
        {
            eprintln!("skipped: reading all of {} ({EVERYTHING} is not set)", row.name);
            Ok(())
        }
        Some(Content::Sha256(expected)) => {
            let found = content_sha256(disk, Reading::Large)
                .map_err(|error| format!("does not read: {error}"))?;
            if found == *expected { Ok(()) } else { Err(format!("the content is {found}")) }
        }
    }
}

fn must_hold_runs(runs: &[(u64, u64, u8)], disk: &Disk) -> Result<(), String> {
    for &(start, len, byte) in runs {
        // A margin of zeroes on both sides, where the disk has one.
        let before = start.min(512);
        let behind = (disk.size() - start - len).min(512);
        let read = |at: u64, len: u64| {
            let mut bytes = vec![0; usize::try_from(len).expect("a short run")];
            disk.read(GuestOffset(at), &mut bytes).map_err(|error| error.to_string())?;
            Ok::<_, String>(bytes)
        };
        if read(start, len)?.iter().any(|found| *found != byte)
            || !is_zero(&read(start - before, before)?)
            || !is_zero(&read(start + len, behind)?)
        {
            return Err(format!("expected {len} bytes of {byte:#x} at {start}, then zeroes"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_project_is_understood_and_unpacks() {
        let rows = read_manifest(&places::workspace().join("tests/corpus"));
        assert!(rows.len() >= 75, "{} rows", rows.len());
        for row in rows {
            assert!(row.unpack().path.is_file(), "{}", row.name);
        }
    }

    #[test]
    fn names_are_told_apart() {
        let rows = read_manifest(&places::workspace().join("tests/corpus"));
        let names: HashSet<_> = rows.iter().map(|row| &row.name).collect();
        assert_eq!(names.len(), rows.len());
    }

    #[test]
    fn runs_are_read_as_they_are_written() {
        let notes = "ranges: 65536 bytes of 0xc3 at 63 TiB; 512 bytes of 0xc4 at 4096; the rest zero | refused by x";
        let expected = vec![(63 << 40, 65536, 0xc3), (4096, 512, 0xc4)];
        assert_eq!(content("-", notes), Some(Content::Runs(expected)));
    }
}
