//! Volume groups that a kernel wrote, with the hashes that it gave of their volumes: the folder
//! `lvm` of the bigger corpus.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anydisk_core::{HostOffset, Result, Storage, StorageExt};
use anydisk_storage::{FileStorage, OpenOptions};
use sha2::{Digest, Sha256};

use crate::digest::hex;
use crate::{Unpacked, corpus, unpack_xz};

/// The disks of a group, unpacked, and its volumes.
#[derive(Debug)]
pub struct Fixture {
    /// The disks in the order of their names.
    pub files: Vec<PathBuf>,
    /// Its volumes.
    pub rows: Vec<VolumeRow>,
    /// The folder with the packed disks and what other programs said of them.
    pub packed: PathBuf,
    _folder: Unpacked,
}

/// A volume as the kernel gave it.
#[derive(Clone, Debug)]
pub struct VolumeRow {
    /// `group/volume`.
    pub volume: String,
    sha256: String,
    size: u64,
    /// Names of the disks without which the kernel read the same, as the manifest writes them.
    pub same_without: Vec<String>,
    /// Names of the disks without which it refused.
    pub refused_without: Vec<String>,
}

/// What came of reading a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The content that the kernel gave.
    Same,
    /// Another content.
    Other,
    /// An error.
    Refused(String),
}

/// All groups of the manifest, with the number of their volumes.
pub const GROUPS: [(&str, usize); 11] = [
    ("linear", 6),
    ("partition", 2),
    ("stripe", 4),
    ("mirror", 4),
    ("raid", 11),
    ("snap", 6),
    ("merge", 1),
    ("thin", 8),
    ("cache", 4),
    ("meta", 5),
    ("stale", 2),
];

impl Fixture {
    /// Unpacks the disks of a group; `None` (and a word aloud) where there are no fixtures.
    ///
    /// # Panics
    /// If what is there cannot be read.
    #[must_use]
    pub fn open(group: &str) -> Option<Self> {
        let corpus = corpus::bigger()?.join("lvm");
        let manifest = fs::read_to_string(corpus.join("manifest.tsv"));
        let manifest = manifest.unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
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
        let rows = manifest.lines().filter_map(|line| VolumeRow::parse(line, group)).collect();
        Some(Self { files, rows, packed, _folder: folder })
    }

    /// The row of this volume.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn row(&self, volume: &str) -> &VolumeRow {
        self.rows.iter().find(|row| row.volume == volume).expect("a row")
    }

    /// All disks, open.
    ///
    /// # Panics
    /// If one does not open.
    #[must_use]
    pub fn disks(&self) -> Vec<Arc<dyn Storage>> {
        self.disks_without(None)
    }

    /// All disks but the one of this name (`pv1`), if one is named; open.
    ///
    /// # Panics
    /// If one does not open.
    #[must_use]
    pub fn disks_without(&self, name: Option<&str>) -> Vec<Arc<dyn Storage>> {
        let is_here = |path: &&PathBuf| name.is_none_or(|name| !is_disk(path, name));
        let others = self.files.iter().filter(is_here);
        others.map(|path| open_file(path)).collect()
    }
}

/// Whether a file is the disk that the manifest calls `name` (`pv1` for `raid-pv1.raw`), whatever
/// its extension.
#[must_use]
pub fn is_disk(path: &Path, name: &str) -> bool {
    let stem = path.file_stem().expect("a name").to_string_lossy();
    stem.ends_with(&format!("-{name}"))
}

fn open_file(path: &Path) -> Arc<dyn Storage> {
    Arc::new(FileStorage::open(path, &OpenOptions::new()).expect("the disk opens"))
}

impl VolumeRow {
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

    /// Reads the volume, as it was opened, and compares size and hash.
    #[must_use]
    pub fn judge(&self, opened: Result<Arc<dyn Storage>>) -> Outcome {
        match opened.and_then(|volume| sha256(&*volume)) {
            Ok((size, hash)) if size == self.size && hash == self.sha256 => Outcome::Same,
            Ok(_) => Outcome::Other,
            Err(error) => Outcome::Refused(error.to_string()),
        }
    }

    /// Fails unless the volume, opened with all disks but the one of a name, is what the manifest
    /// says: the same whole, and the same without each disk that the kernel could spare. Without one
    /// that the kernel needed it may be the same or be refused, never another. Answers how many
    /// readings were the same, and how many were refused.
    ///
    /// # Panics
    /// With the volume and the disk.
    pub fn assert_as_the_kernel(
        &self,
        mut open: impl FnMut(Option<&str>) -> Result<Arc<dyn Storage>>,
    ) -> (usize, usize) {
        let spared = self.same_without.iter().map(|disk| Some(disk.as_str()));
        let spared: Vec<_> = std::iter::once(None).chain(spared).collect();
        for without in &spared {
            let outcome = self.judge(open(*without));
            assert_eq!(outcome, Outcome::Same, "{} without {without:?}", self.volume);
        }
        let (mut same, mut refused) = (spared.len(), 0);
        for disk in &self.refused_without {
            match self.judge(open(Some(disk))) {
                Outcome::Same => same += 1,
                Outcome::Refused(_) => refused += 1,
                Outcome::Other => panic!("{} without {disk} is another", self.volume),
            }
        }
        (same, refused)
    }
}

/// Length and hash of all bytes, read in pieces of no round length.
///
/// # Errors
/// What reading says.
///
/// # Panics
/// Never.
pub fn sha256(volume: &dyn Storage) -> Result<(u64, String)> {
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
    Ok((size, hex(&hasher.finalize())))
}
