//! The lines that name extents.

use anydisk_core::{HostOffset, Reference, Result, Role};

use super::{Line, invalid};
use crate::header::limit;
use crate::layout::SECTOR;
use crate::limits;

/// One extent as the descriptor gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExtentLine {
    /// Where the line begins in its file.
    pub(crate) at: HostOffset,
    pub(crate) access: ExtentAccess,
    /// Bytes of guest data.
    pub(crate) len: u64,
    pub(crate) kind: ExtentKind,
    /// The file, in UTF-8 where the text says how names are written; empty where the kind needs none.
    pub(crate) name: Vec<u8>,
    /// The same, byte for byte.
    pub(crate) written: Vec<u8>,
    /// Where the data begins in a flat file.
    pub(crate) start: HostOffset,
    /// It is a host device, or the descriptor says that it may be one.
    pub(crate) is_device: bool,
}

/// What the guest may do with an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExtentAccess {
    ReadWrite,
    ReadOnly,
    /// Neither reading nor writing: its file is left alone, and it reads as zero.
    None,
}

/// What an extent is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExtentKind {
    /// Plain bytes of a file (FLAT, VMFS).
    Flat,
    /// A hosted sparse file.
    Sparse,
    /// An ESX redo log.
    VmfsSparse,
    /// A newer ESXi redo log.
    SeSparse,
    /// A host device: its bytes.
    Device,
    /// Zeroes without a file.
    Zero,
}

impl ExtentKind {
    /// The word for it, where there is one word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Flat => "FLAT",
            Self::Sparse => "SPARSE",
            Self::VmfsSparse => "VMFSSPARSE",
            Self::SeSparse => "SESPARSE",
            Self::Device => "VMFSRDM",
            Self::Zero => "ZERO",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Some(match word.to_ascii_uppercase().as_str() {
            "FLAT" | "VMFS" => Self::Flat,
            "SPARSE" => Self::Sparse,
            "VMFSSPARSE" => Self::VmfsSparse,
            "ZERO" => Self::Zero,
            "SESPARSE" => Self::SeSparse,
            "VMFSRDM" | "VMFSRDMP" | "VMFSRAW" => Self::Device,
            _ => return None,
        })
    }
}

impl ExtentLine {
    /// Whether it names a file at all.
    pub(crate) fn is_in_a_file(&self) -> bool {
        self.kind != ExtentKind::Zero
    }

    /// The file it names.
    pub(crate) fn reference(&self) -> Reference {
        self.reference_to(&self.name)
    }

    /// The file whose name is as it is written, if that is another one.
    pub(crate) fn reference_as_written(&self) -> Option<Reference> {
        (self.written != self.name).then(|| self.reference_to(&self.written))
    }

    fn reference_to(&self, name: &[u8]) -> Reference {
        let role = if self.is_device { Role::Device } else { Role::Extent };
        Reference::new(role, name.to_vec())
    }

    /// Understands `RW 63 FLAT "name" 0`.
    ///
    /// # Errors
    /// As [`Descriptor::parse`](super::Descriptor::parse).
    pub(crate) fn parse(line: &Line) -> Result<Self> {
        let refuse = |field, found: &[u8], expected: &'static str| {
            anydisk_core::Error::from(invalid(field, line.at(), found, expected))
        };
        let mut words = Words(line.bytes());
        let access = access(words.next());
        let sectors = words.next();
        let len = number(sectors)
            .ok_or_else(|| refuse("extent size", sectors, "a number of sectors, at least 1"))?;
        limit("size of an extent in sectors", len, limits::DISK / SECTOR)?;
        if len == 0 {
            return Err(refuse("extent size", sectors, "a number of sectors, at least 1"));
        }
        let word = words.next();
        let kind = ExtentKind::parse(&String::from_utf8_lossy(word)).ok_or_else(|| {
            let expected = "FLAT, VMFS, SPARSE, VMFSSPARSE, SESPARSE, VMFSRDM, VMFSRAW or ZERO";
            refuse("extent type", word, expected)
        })?;
        let name =
            words.quoted().ok_or_else(|| refuse("extent name", line.bytes(), "a closing quote"))?;
        if name.is_empty() && kind != ExtentKind::Zero {
            return Err(refuse("extent name", line.bytes(), "the name of a file in quotes"));
        }
        let word = words.next();
        let start = if word.is_empty() { Some(0) } else { number(word) };
        let start =
            start.ok_or_else(|| refuse("extent start", word, "a number of sectors, or nothing"))?;
        limit("start and size of an extent in sectors", start, limits::DISK / SECTOR - len)?;
        let (name, written) = (name.to_vec(), name.to_vec());
        let start = HostOffset(start * SECTOR);
        let is_device = kind == ExtentKind::Device;
        let len = len * SECTOR;
        Ok(Self { at: line.at(), access, len, kind, name, written, start, is_device })
    }
}

/// The line is known to begin with one of the three words.
fn access(word: &[u8]) -> ExtentAccess {
    match word.to_ascii_uppercase().as_slice() {
        b"RW" => ExtentAccess::ReadWrite,
        b"RDONLY" => ExtentAccess::ReadOnly,
        _ => ExtentAccess::None,
    }
}

/// Digits; a number too large for 64 bits is the largest there is, for the limit to refuse.
fn number(word: &[u8]) -> Option<u64> {
    if word.is_empty() || !word.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = std::str::from_utf8(word).ok()?;
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Takes words from the front of a line.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    /// The next word; empty at the end.
    fn next(&mut self) -> &'a [u8] {
        let text = self.0.trim_ascii_start();
        let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.0 = rest;
        word
    }

    /// What stands in quotes next; empty at the end, `None` if a quote is missing.
    fn quoted(&mut self) -> Option<&'a [u8]> {
        let text = self.0.trim_ascii_start();
        let Some((quote, text)) = text.split_first() else { return Some(&[]) };
        if *quote != b'"' {
            return None;
        }
        let end = text.iter().position(|byte| *byte == b'"')?;
        self.0 = &text[end + 1..];
        Some(&text[..end])
    }
}
