//! What several tests use: the fixtures that a kernel wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anydisk_core::{HostOffset, Limits, Members, Result, Storage, StorageExt};
use anydisk_lvm2::VolumeGroups;
use anydisk_storage::{FileStorage, OpenOptions};
use anydisk_testkit::{Unpacked, corpus, unpack_xz};
use sha2::{Digest, Sha256};

/// A group of disks, unpacked.
#[derive(Debug)]
pub(crate) struct Fixture {
    files: Vec<PathBuf>,
    rows: Vec<Row>,
    /// The folder with the packed disks and what other programs said of them.
    pub(crate) packed: PathBuf,
    _folder: Unpacked,
}

/// A volume as the kernel gave it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) volume: String,
    sha256: String,
    size: u64,
    /// Names of the disks without which the kernel read the same, as the manifest writes them.
    pub(crate) same_without: Vec<String>,
    /// Names of the disks without which it refused.
    pub(crate) refused_without: Vec<String>,
}

/// What came of reading a volume.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Same,
    Other,
    Refused(String),
}

impl Fixture {
    /// Unpacks the disks of a group; `None` (and a word aloud) where there are no fixtures.
    pub(crate) fn open(group: &str) -> Option<Self> {
        let corpus = corpus::bigger()?.join("lvm");
        let manifest = fs::read_to_string(corpus.join("manifest.tsv")).ok()?;
        let packed = corpus.join(group);
        let folder = Unpacked::empty("none").expect("a folder");
        let mut files = Vec::new();
        for entry in fs::read_dir(&packed).expect("the folder of the group") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if let Some(name) = name.strip_suffix(".xz") {
                let target = folder.file(name);
                unpack_xz(&path, &target).expect("it unpacks");
                files.push(target);
            }
        }
        files.sort();
        let rows = manifest.lines().filter_map(|line| Row::parse(line, group)).collect();
        Some(Self { files, rows, packed, _folder: folder })
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The row of this volume.
    pub(crate) fn row(&self, volume: &str) -> &Row {
        self.rows.iter().find(|row| row.volume == volume).expect("a row")
    }

    pub(crate) fn disks(&self) -> Vec<Arc<dyn Storage>> {
        self.disks_without("no such disk")
    }

    /// All disks but the one of this name (`pv1`).
    pub(crate) fn disks_without(&self, name: &str) -> Vec<Arc<dyn Storage>> {
        let suffix = format!("-{name}.raw");
        let others = self.files.iter().filter(|path| !path.to_string_lossy().ends_with(&suffix));
        others.map(|path| open_file(path)).collect()
    }

    /// Reads a volume and compares its hash.
    pub(crate) fn read(&self, disks: &[Arc<dyn Storage>], row: &Row) -> Outcome {
        match open_volume(disks, &row.volume).and_then(|volume| sha256(&*volume)) {
            Ok((size, hash)) if size == row.size && hash == row.sha256 => Outcome::Same,
            Ok(_) => Outcome::Other,
            Err(error) => Outcome::Refused(error.to_string()),
        }
    }
}

fn open_file(path: &Path) -> Arc<dyn Storage> {
    Arc::new(FileStorage::open(path, &OpenOptions::new()).expect("the disk opens"))
}

pub(crate) fn open_volume(disks: &[Arc<dyn Storage>], volume: &str) -> Result<Arc<dyn Storage>> {
    let groups = VolumeGroups::open(disks, &Limits::default())?;
    Members::open(&groups, volume)
}

/// Length and hash of all bytes, read in pieces of no round length.
pub(crate) fn sha256(volume: &dyn Storage) -> Result<(u64, String)> {
    let size = volume.len()?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 777_777];
    let mut at = 0;
    while at < size {
        let len = usize::try_from((size - at).min(777_777)).expect("a small piece");
        volume.read_exact_at(HostOffset(at), &mut buffer[..len])?;
        hasher.update(&buffer[..len]);
        at += len as u64;
    }
    let hex = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((size, hex))
}

/// All bytes of a volume.
pub(crate) fn bytes(volume: &dyn Storage) -> Vec<u8> {
    let len = usize::try_from(volume.len().expect("a length")).expect("a small volume");
    let mut bytes = vec![0; len];
    volume.read_exact_at(HostOffset::ZERO, &mut bytes).expect("it reads");
    bytes
}

impl Row {
    fn parse(line: &str, group: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [of, _, volume, _, _, size, sha256, state] = fields[..] else {
            panic!("a row of the manifest has {} fields: {line}", fields.len());
        };
        if of != group || volume == "#" {
            return None;
        }
        let behind = |words: &str| {
            let part = state.split("; ").find_map(|part| part.strip_prefix(words));
            part.map_or(Vec::new(), |names| names.split(", ").map(str::to_owned).collect())
        };
        Some(Self {
            volume: volume.to_owned(),
            sha256: sha256.to_owned(),
            size: size.parse().expect("a size"),
            same_without: behind("also same without "),
            refused_without: behind("kernel refuses without "),
        })
    }
}
