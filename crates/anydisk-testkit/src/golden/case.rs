//! A case as its JSON file describes it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::MemoryFolder;
use crate::digest::file_sha256;
use crate::places;
use crate::unpack::{Unpacked, unpack_tar_xz, unpack_xz};

/// One golden image.
#[derive(Clone, Debug)]
pub struct Case {
    /// Name of the format, which is that of its folder.
    pub format: String,
    /// Name of the case.
    pub name: String,
    /// What is special about it.
    pub description: String,
    /// What is to come out.
    pub expect: Expect,
    /// The files it is made of.
    pub files: Vec<CaseFile>,
    /// The file to open.
    pub open: String,
    /// The image below, where one is named.
    pub parent: Option<String>,
    /// The passphrase.
    pub secret: Option<String>,
    /// Size of the disk in bytes.
    pub virtual_size: Option<u64>,
    /// What the top image says about the disk, in order and without gaps.
    pub map: Option<Vec<Mapped>>,
    /// Everything that is known, as it stands: fields of the header, what qemu-img did, ...
    pub json: Value,
    folder: PathBuf,
    tar: Option<String>,
}

/// What is to come out.
#[derive(Clone, Debug)]
pub struct Expect {
    /// Of opening.
    pub open: OpenVerdict,
    /// Of reading everything.
    pub read: ReadVerdict,
    /// Of checking: `clean`, `leaks`, `corrupt`, `error`, `findings`, `unsupported`, `n/a`.
    pub check: String,
    /// Hash of the whole content, the layers below applied.
    pub content_sha256: Option<String>,
    /// Which kind of error it is.
    pub error_class: Option<String>,
}

/// What opening is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenVerdict {
    /// It opens.
    Ok,
    /// It is refused.
    Refuse,
    /// What it is may be told, but its content is refused.
    InfoOnly,
    /// Opening is refused, or else reading everything.
    Error,
    /// It may open; a check must find the damage.
    Findings,
}

/// What reading everything is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadVerdict {
    /// The content.
    Ok,
    /// An error.
    Error,
    /// Not to be tried, or anything.
    NotApplicable,
}

/// A file of a case.
#[derive(Clone, Debug)]
pub struct CaseFile {
    /// Its name, which other files may refer to.
    pub name: String,
    /// `image`, `backing`, `data-file`, `parent`, `part`.
    pub role: String,
    /// Length in bytes.
    pub size: u64,
    /// Hash of the file.
    pub sha256: String,
    xz: Option<String>,
}

/// One run of the map.
#[derive(Clone, Debug)]
pub struct Mapped {
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// What is there.
    pub kind: Kind,
    /// Name of the file that holds it, where there are several.
    pub file: Option<String>,
    /// Position in that file.
    pub host_offset: Option<u64>,
    /// Bytes of the packed unit.
    pub compressed_length: Option<u64>,
    /// Bytes that the tables allow the packed unit to have.
    pub compressed_read_length: Option<u64>,
    /// How it is packed.
    pub codec: Option<String>,
}

/// What a run of the map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes of a file.
    Data,
    /// A packed unit.
    Compressed,
    /// Said to be zero.
    Zero,
    /// Said to be zero, with host space kept.
    ZeroAlloc,
    /// Nothing here: look below.
    Absent,
    /// Nothing here, with host space kept.
    AbsentAlloc,
    /// One pattern, repeated.
    Fill,
}

/// All cases of a format, by name.
///
/// # Panics
/// If there are none, or one cannot be understood.
#[must_use]
pub fn cases(format: &str) -> Vec<Case> {
    let folder = places::golden().join(format);
    let list = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut cases: Vec<Case> = list
        .map(|entry| entry.expect("a folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| Case::load(&path))
        .collect();
    assert!(!cases.is_empty(), "no golden images in {}", folder.display());
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

impl Case {
    fn load(path: &Path) -> Self {
        let understood = || -> Result<Self, String> {
            let text = fs::read(path).map_err(|error| error.to_string())?;
            let json: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
            let folder = path.parent().expect("a file has a folder");
            Self::parse(json, folder)
        };
        understood().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn parse(json: Value, folder: &Path) -> Result<Self, String> {
        let optional = |name: &str| json[name].as_str().map(str::to_owned);
        let text = |name: &str| optional(name).ok_or_else(|| format!("{name} is missing"));
        let map = json["map"].as_array().map(|runs| runs.iter().map(Mapped::parse).collect());
        Ok(Self {
            format: text("format")?,
            name: text("name")?,
            description: text("description")?,
            expect: Expect::parse(&json["expect"])?,
            files: list(&json["files"]).map(CaseFile::parse).collect::<Result<_, _>>()?,
            open: text("open")?,
            parent: optional("parent"),
            secret: optional("secret"),
            virtual_size: json["virtual_size"].as_u64(),
            map: map.transpose()?,
            tar: optional("tar_xz"),
            folder: folder.to_owned(),
            json,
        })
    }

    /// Its files in memory.
    ///
    /// # Panics
    /// As [`unpack`](Self::unpack).
    #[must_use]
    pub fn in_memory(&self) -> MemoryFolder {
        let (folder, unpacked) = (MemoryFolder::default(), self.unpack());
        for file in &self.files {
            let bytes = fs::read(unpacked.file(&file.name)).expect("it was unpacked");
            folder.put(&file.name, bytes);
        }
        folder
    }

    /// Unpacks the files into a folder of their own.
    ///
    /// # Panics
    /// If that fails, or a file is not what the case says.
    #[must_use]
    pub fn unpack(&self) -> Unpacked {
        let unpacked = self.try_unpack();
        let unpacked = unpacked.unwrap_or_else(|error| panic!("golden image {self}: {error}"));
        if let Err(change) = self.check_files(&unpacked) {
            panic!("golden image {self}, freshly unpacked: {change}");
        }
        unpacked
    }

    fn try_unpack(&self) -> std::io::Result<Unpacked> {
        let unpacked = Unpacked::empty(&self.open)?;
        if let Some(tar) = &self.tar {
            unpack_tar_xz(&self.folder.join(tar), unpacked.folder.path())?;
        }
        for file in &self.files {
            if let Some(packed) = &file.xz {
                unpack_xz(&self.folder.join(packed), &unpacked.file(&file.name))?;
            }
        }
        Ok(unpacked)
    }

    /// Whether the folder holds the files of the case, byte for byte, and nothing else.
    pub(crate) fn check_files(&self, unpacked: &Unpacked) -> Result<(), String> {
        for file in &self.files {
            let path = unpacked.file(&file.name);
            let found = file_sha256(&path).map_err(|error| format!("{}: {error}", file.name))?;
            if found != file.sha256 {
                return Err(format!("{}: its hash is {found}, not {}", file.name, file.sha256));
            }
        }
        for entry in fs::read_dir(unpacked.folder.path()).map_err(|error| error.to_string())? {
            let name = entry.map_err(|error| error.to_string())?.file_name();
            if !self.files.iter().any(|file| *file.name == *name) {
                return Err(format!("there is a file {name:?} that was not there before"));
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.format, self.name)
    }
}

impl Expect {
    fn parse(json: &Value) -> Result<Self, String> {
        let open = match json["open"].as_str() {
            Some("ok") => OpenVerdict::Ok,
            Some("refuse") => OpenVerdict::Refuse,
            Some("info-only") => OpenVerdict::InfoOnly,
            Some("error") => OpenVerdict::Error,
            Some("findings") => OpenVerdict::Findings,
            other => return Err(format!("expect.open is {other:?}")),
        };
        let read = match json["read"].as_str() {
            Some("ok") => ReadVerdict::Ok,
            Some("error") => ReadVerdict::Error,
            Some("n/a") | None => ReadVerdict::NotApplicable,
            other => return Err(format!("expect.read is {other:?}")),
        };
        let optional = |name: &str| json[name].as_str().map(str::to_owned);
        Ok(Self {
            open,
            read,
            check: optional("check").unwrap_or_else(|| "n/a".to_owned()),
            content_sha256: optional("content_sha256"),
            error_class: optional("error_class"),
        })
    }
}

impl CaseFile {
    fn parse(json: &Value) -> Result<Self, String> {
        let text = |name: &str| {
            json[name].as_str().map(str::to_owned).ok_or_else(|| format!("files: no {name}"))
        };
        Ok(Self {
            name: text("name")?,
            role: text("role")?,
            size: number(json, "size")?,
            sha256: text("sha256")?,
            xz: json["xz"].as_str().map(str::to_owned),
        })
    }
}

impl Mapped {
    fn parse(json: &Value) -> Result<Self, String> {
        let kind = match json["kind"].as_str() {
            Some("data") => Kind::Data,
            Some("compressed") => Kind::Compressed,
            Some("zero") => Kind::Zero,
            Some("zero_alloc") => Kind::ZeroAlloc,
            Some("absent") => Kind::Absent,
            Some("absent_alloc") => Kind::AbsentAlloc,
            Some("fill") => Kind::Fill,
            other => return Err(format!("the kind of a run of the map is {other:?}")),
        };
        Ok(Self {
            start: number(json, "start")?,
            length: number(json, "length")?,
            kind,
            file: json["file"].as_str().map(str::to_owned),
            host_offset: json["host_offset"].as_u64(),
            compressed_length: json["compressed_length"].as_u64(),
            compressed_read_length: json["compressed_read_length"].as_u64(),
            codec: json["codec"].as_str().map(str::to_owned),
        })
    }

    /// The first byte behind the run.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start + self.length
    }
}

fn list(json: &Value) -> impl Iterator<Item = &Value> {
    json.as_array().into_iter().flatten()
}

fn number(json: &Value, name: &str) -> Result<u64, String> {
    json[name].as_u64().ok_or_else(|| format!("{name} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [&str; 15] = [
        "asif",
        "bochs",
        "cloop",
        "dmg",
        "luks",
        "ova",
        "parallels",
        "qcow",
        "qcow2",
        "qed",
        "simg",
        "vdi",
        "vhd",
        "vhdx",
        "vmdk",
    ];

    #[test]
    fn every_case_is_understood_and_unpacks_to_the_files_it_promises() {
        let mut count = 0;
        for format in FORMATS {
            for case in cases(format) {
                assert_eq!(case.format, format);
                drop(case.unpack());
                count += 1;
            }
        }
        assert_eq!(count, 622);
    }

    #[test]
    fn a_changed_and_an_added_file_are_noticed() {
        let case = cases("qcow2").into_iter().find(|case| case.name == "v2").expect("is there");
        let unpacked = case.unpack();
        fs::write(unpacked.file("more"), b"x").unwrap();
        assert!(case.check_files(&unpacked).unwrap_err().contains("more"));
        fs::remove_file(unpacked.file("more")).unwrap();
        fs::write(&unpacked.path, b"x").unwrap();
        assert!(case.check_files(&unpacked).unwrap_err().contains("hash"));
    }
}
