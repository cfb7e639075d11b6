//! What bytes could be taken for, by others than us too.

use anydisk_core::{Container, Format, HostOffset, Registry, Sample, Verdict};
use anydisk_dmg::DMG;
use anydisk_ovf::OVF;

use crate::containers;

/// A sign that bytes could be taken for something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mark {
    /// What for (`qcow2`, `iso9660`, `gzip`).
    pub name: &'static str,
    /// What kind of thing that is.
    pub kind: MarkKind,
    /// Where the sign is, if it is at one place.
    pub at: Option<HostOffset>,
}

/// What bytes are taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MarkKind {
    /// A disk image, which another program would open as such.
    Image,
    /// Something that lies on a plain disk: partitions, a file system, a volume.
    Content,
    /// A packed file, or several in one: no disk before it is unpacked.
    Package,
}

impl MarkKind {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Content => "content",
            Self::Package => "package",
        }
    }
}

use MarkKind::{Content, Image, Package};

/// Where a sign is looked for: behind the start, or before the end.
#[derive(Clone, Copy)]
enum Place {
    Start(usize),
    End(usize),
}

use Place::{End, Start};

/// Signs that are bytes at a place. Formats and containers that are built in tell theirs
/// themselves; of those that other programs open as disks, all are here.
const SIGNS: &[(&str, MarkKind, Place, &[u8])] = &[
    ("vpc", Image, Start(0), b"conectix"),
    ("vpc", Image, End(512), b"conectix"),
    ("vpc", Image, End(511), b"conectix"),
    ("vhdx", Image, Start(0), b"vhdxfile"),
    ("dmg", Image, End(512), b"koly"),
    ("parallels", Image, Start(0), b"WithoutFreeSpace"),
    ("parallels", Image, Start(0), b"WithouFreSpacExt"),
    ("bochs", Image, Start(0), b"Bochs Virtual HD Image"),
    ("cloop", Image, Start(0), b"#!/bin/sh\n#V2.0 Format\n"),
    ("asif", Image, Start(0), b"shdw"),
    ("android-sparse", Image, Start(0), &[0x3A, 0xFF, 0x26, 0xED]),
    ("qed", Image, Start(0), b"QED\0"),
    ("qcow2", Image, Start(0), b"QFI\xFB"),
    ("vmdk", Image, Start(0), b"KDMV"),
    ("vdi", Image, Start(64), &[0x7F, 0x10, 0xDA, 0xBE]),
    ("luks", Image, Start(0), b"LUKS\xBA\xBE"),
    ("iso9660", Content, Start(0x8001), b"CD001"),
    ("udf", Content, Start(0x8801), b"NSR0"),
    ("udf", Content, Start(0x9001), b"NSR0"),
    ("ext", Content, Start(0x438), &[0x53, 0xEF]),
    ("xfs", Content, Start(0), b"XFSB"),
    ("ntfs", Content, Start(3), b"NTFS    "),
    ("fat", Content, Start(0x36), b"FAT1"),
    ("fat", Content, Start(0x52), b"FAT32"),
    ("squashfs", Content, Start(0), b"hsqs"),
    ("swap", Content, Start(4086), b"SWAPSPACE2"),
    ("gzip", Package, Start(0), &[0x1F, 0x8B, 8]),
    ("xz", Package, Start(0), &[0xFD, b'7', b'z', b'X', b'Z', 0]),
    ("zstd", Package, Start(0), &[0x28, 0xB5, 0x2F, 0xFD]),
    ("bzip2", Package, Start(0), b"BZh"),
    ("lz4", Package, Start(0), &[0x04, 0x22, 0x4D, 0x18]),
    ("zip", Package, Start(0), b"PK\x03\x04"),
    ("7z", Package, Start(0), &[b'7', b'z', 0xBC, 0xAF, 0x27, 0x1C]),
    ("tar", Package, Start(257), b"ustar"),
];

/// All that the bytes of a sample could be taken for; images first. Each name once.
pub(super) fn marks(registry: &Registry, sample: &Sample<'_>) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    let mut add = |name: &'static str, kind, at| {
        if !marks.iter().any(|mark: &Mark| mark.name == name) {
            marks.push(Mark { name, kind, at });
        }
    };
    for format in registry.formats() {
        let verdict = format.probe(sample);
        if verdict >= Verdict::Likely || verdict == Verdict::AtEnd {
            let is_its = |name| registry.by_name(name).is_ok_and(|it| it.name() == format.name());
            let mut places = SIGNS.iter().filter(|(name, ..)| is_its(*name));
            let at = places.find_map(|(.., place, bytes)| place.find(bytes, sample));
            add(format.name(), Image, at);
        }
    }
    for (name, kind, place, bytes) in SIGNS {
        // Who tells for himself that it is not he knows better than a list; but what lies at the end
        // alone (a fixed VHD), where the guest of a raw disk writes too, no format is recognised by.
        let is_known = registry.by_name(name).is_ok() && matches!(place, Start(_));
        if let (false, Some(at)) = (is_known, place.find(bytes, sample)) {
            add(name, *kind, Some(at));
        }
    }
    for container in containers() {
        if container.probe(sample) >= Verdict::Likely {
            let kind = if container.name() == OVF.name() { Package } else { Content };
            add(container.name(), kind, None);
        }
    }
    // A package of disks is an archive, too.
    if marks.iter().any(|mark| mark.name == OVF.name()) {
        marks.retain(|mark| mark.name != "tar");
    }
    // What an Apple disk image begins with is a packed chunk of it.
    if marks.iter().any(|mark| mark.name == DMG.name()) {
        marks.retain(|mark| !matches!(mark.name, "xz" | "bzip2"));
    }
    marks.sort_by_key(|mark| mark.kind);
    marks
}

impl Place {
    /// Where the sign is, if it is there.
    fn find(self, bytes: &[u8], sample: &Sample<'_>) -> Option<HostOffset> {
        let (rest, at) = match self {
            Start(at) => (sample.head.get(at..)?, at as u64),
            End(back) => {
                let at = sample.tail.len().checked_sub(back)?;
                (sample.tail.get(at..)?, sample.len.checked_sub(back as u64)?)
            }
        };
        rest.starts_with(bytes).then_some(HostOffset(at))
    }
}
