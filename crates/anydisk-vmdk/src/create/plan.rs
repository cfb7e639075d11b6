//! What a new image is to be.

use anydisk_core::{Error, Expected, Options, Result};

use super::options::Subformat;
use super::{DESCRIPTOR_SECTOR, DESCRIPTOR_SECTORS, GRAIN_SECTORS, TABLE_ENTRIES};
use crate::NAME;
use crate::header::{limit, unsupported};
use crate::layout::{LINE_CHARS, MAGIC, SECTOR, SparseHeader, flags};
use crate::limits;
use crate::table::ENTRY;

/// Bytes of the extents of a split disk, as qemu has them.
const SPLIT: u64 = 2 << 30;

/// The content ID that the options ask for.
fn content_id(options: &Options) -> Result<Option<u32>> {
    let Some(text) = options.text("cid") else { return Ok(None) };
    let is_hex = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = u32::from_str_radix(text, 16).ok();
    // The two largest numbers have meanings of their own.
    match id.filter(|id| is_hex && *id < 0xFFFF_FFFE) {
        Some(id) => Ok(Some(id)),
        None => Err(options.refuse("cid", "8 hexadecimal digits, less than fffffffe")),
    }
}

/// What the options ask for, checked against each other.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) subformat: Subformat,
    pub(super) sectors: u64,
    /// Sectors of each extent but the last.
    split: u64,
    pub(super) adapter: &'a str,
    pub(super) hardware: &'a str,
    pub(super) tools: &'a str,
    pub(super) zeroed_grain: bool,
    /// The content ID that was asked for.
    pub(super) content_id: Option<u32>,
}

impl<'a> Plan<'a> {
    /// What the options ask for, for a disk of `size` bytes, which is rounded up to whole sectors.
    ///
    /// # Errors
    /// `Option` and `Unsupported` for what cannot be, `Limit` for a disk that is too large.
    pub(crate) fn of(options: &'a Options, size: u64) -> Result<Self> {
        let subformat = Subformat::of(options);
        let sectors = size.div_ceil(SECTOR);
        let plan = Self {
            subformat,
            sectors,
            split: split(options, subformat)?.unwrap_or(sectors),
            adapter: options.text("adapter_type").unwrap_or("ide"),
            hardware: hardware(options)?,
            tools: options.text("toolsversion").unwrap_or("2147483647"),
            zeroed_grain: options.flag("zeroed_grain"),
            content_id: content_id(options)?,
        };
        let has_entry = matches!(subformat, Subformat::MonolithicSparse | Subformat::SplitSparse);
        if plan.zeroed_grain && !has_entry {
            let expected = format!("off for {}", subformat.word());
            return Err(options.refuse("zeroed_grain", expected));
        }
        plan.check_size()?;
        Ok(plan)
    }

    fn check_size(&self) -> Result<()> {
        if self.sectors == 0 {
            // Capacity 0 marks a file that only holds a descriptor.
            return Err(unsupported("a disk of 0 bytes"));
        }
        let in_one_file = limits::FILE / SECTOR;
        let most = match self.subformat {
            // Where data goes, sector numbers of 32 bits must reach.
            Subformat::MonolithicSparse if self.sectors > in_one_file => {
                let expected = "twoGbMaxExtentSparse, a flat one or streamOptimized \
                                for more than 2 TiB";
                return Err(self.refuse_subformat(expected));
            }
            // The header counts the sectors with 32 bits.
            Subformat::VmfsSparse if self.sectors >= in_one_file => {
                return Err(self.refuse_subformat("another one than vmfsSparse for 2 TiB or more"));
            }
            Subformat::Stream => {
                limits::DIRECTORY / ENTRY * u64::from(TABLE_ENTRIES) * GRAIN_SECTORS
            }
            _ => limits::DISK / SECTOR,
        };
        limit("size of the disk in sectors", self.sectors, most)
    }

    fn refuse_subformat(&self, expected: &'static str) -> Error {
        Error::Option {
            format: NAME,
            option: "subformat".to_owned(),
            value: self.subformat.word().to_owned(),
            expected: Expected::Value(expected.into()),
        }
    }

    /// Sectors of the extents, in order.
    pub(crate) fn extents(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.extent_count()).map(|number| self.split.min(self.sectors - number * self.split))
    }

    /// Number of extents.
    pub(crate) fn extent_count(&self) -> u64 {
        self.sectors.div_ceil(self.split)
    }

    /// Sectors of the disk.
    pub(crate) fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Bytes of the disk.
    pub(crate) fn capacity(&self) -> u64 {
        self.sectors * SECTOR
    }

    /// The header of a sparse extent of `sectors`, without the places of the directories.
    pub(crate) fn header(&self, sectors: u64) -> SparseHeader {
        let stream = self.subformat == Subformat::Stream;
        let (version, own_flags) = match (stream, self.zeroed_grain) {
            (true, _) => (3, flags::COMPRESSED | flags::MARKERS),
            (false, true) => (2, flags::REDUNDANT | flags::ZEROED_GRAIN),
            (false, false) => (1, flags::REDUNDANT),
        };
        SparseHeader {
            magic: MAGIC,
            version: version.into(),
            flags: (flags::NEWLINE_DETECTOR | own_flags).into(),
            capacity: sectors.into(),
            grainSize: GRAIN_SECTORS.into(),
            descriptorOffset: DESCRIPTOR_SECTOR.into(),
            descriptorSize: DESCRIPTOR_SECTORS.into(),
            numGTEsPerGT: TABLE_ENTRIES.into(),
            rgdOffset: 0.into(),
            gdOffset: 0.into(),
            overHead: GRAIN_SECTORS.into(),
            uncleanShutdown: 0,
            lineChars: LINE_CHARS,
            compressAlgorithm: u16::from(stream).into(),
            pad: [0; 433],
        }
    }
}

/// Sectors of the extents of a split disk.
fn split(options: &Options, subformat: Subformat) -> Result<Option<u64>> {
    let given = options.number("split_size");
    if !subformat.is_split() {
        return match given {
            None => Ok(None),
            Some(_) => Err(options.refuse("split_size", "a subformat that is split")),
        };
    }
    let bytes = given.unwrap_or(SPLIT);
    // qemu reads and writes on in the wrong file where an extent ends inside a grain.
    let unit = if subformat.is_flat() { SECTOR } else { GRAIN_SECTORS * SECTOR };
    if bytes == 0 || !bytes.is_multiple_of(unit) || (!subformat.is_flat() && bytes > limits::FILE) {
        return Err(
            options.refuse("split_size", format!("a multiple of {unit} bytes, below 2 TiB"))
        );
    }
    Ok(Some(bytes / SECTOR))
}

fn hardware(options: &Options) -> Result<&str> {
    let given = options.text("hwversion").filter(|text| *text != "undefined");
    match (given, options.flag("compat6")) {
        (None, false) => Ok("4"),
        (None, true) => Ok("6"),
        (Some(_), true) => Err(options.refuse("hwversion", "no hwversion beside compat6")),
        (Some(text), false) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(text),
        (Some(_), false) => Err(options.refuse("hwversion", "a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VMDK;

    fn options(given: &[(&str, &str)]) -> Options {
        let mut options = Options::of(&VMDK);
        given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
        options
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_option() {
        for (given, size, expected) in [
            (&[("hwversion", "x\"y")][..], 512, "vmdk: option hwversion=x\"y: expected a number"),
            (
                &[("hwversion", "7"), ("compat6", "on")],
                512,
                "vmdk: option hwversion=7: expected no hwversion beside compat6",
            ),
            (
                &[("subformat", "streamOptimized"), ("zeroed_grain", "on")],
                512,
                "vmdk: option zeroed_grain=on: expected off for streamOptimized",
            ),
            (
                &[("subformat", "monolithicFlat"), ("zeroed_grain", "on")],
                512,
                "vmdk: option zeroed_grain=on: expected off for monolithicFlat",
            ),
            (
                &[("split_size", "1M")],
                512,
                "vmdk: option split_size=1M: expected a subformat that is split",
            ),
            (
                &[("split_size", "100k"), ("subformat", "twoGbMaxExtentSparse")],
                512,
                "vmdk: option split_size=100k: expected a multiple of 65536 bytes, below 2 TiB",
            ),
            (&[], 0, "vmdk: a disk of 0 bytes is not supported"),
            (
                &[],
                (2 << 40) + 1,
                "vmdk: option subformat=monolithicSparse: expected twoGbMaxExtentSparse, a flat one \
                 or streamOptimized for more than 2 TiB",
            ),
            (
                &[("subformat", "vmfsSparse")],
                2 << 40,
                "vmdk: option subformat=vmfsSparse: expected another one than vmfsSparse for 2 TiB \
                 or more",
            ),
        ] {
            let options = options(given);
            let error = Plan::of(&options, size).expect_err("refused").to_string();
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn a_content_id_is_eight_digits_and_none_of_those_with_a_meaning_of_their_own() {
        for (text, id) in [
            ("12345678", Some(0x1234_5678)),
            ("0000abCD", Some(0xABCD)),
            ("fffffffe", None),
            ("ffffffff", None),
            ("1234567", None),
            ("+1234567", None),
            ("12345678 ", None),
        ] {
            let given = [("cid", text)];
            let options = options(&given);
            let plan = Plan::of(&options, 1 << 20);
            assert_eq!(plan.ok().and_then(|plan| plan.content_id), id, "{text:?}");
        }
    }
}
