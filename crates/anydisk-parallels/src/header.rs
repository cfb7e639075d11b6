//! Bytes to a checked header. Pure.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use anydisk_core::{Error, Feature, HostOffset, Invalid, Result, Value, invalid_field};
use zerocopy::FromBytes;

use crate::layout::{
    EMPTY, ENTRY, MAGIC, OLD_MAGIC, RawHeader, SECTOR, VERSION, in_use, is_older_closed,
};
use crate::{NAME, limits};

/// Bytes of the header.
pub(crate) const HEADER_LEN: usize = size_of::<RawHeader>();

/// An [`Invalid`] for a field of the header.
macro_rules! invalid {
    ($field:ident, $found:expr, $($expected:tt)+) => {
        Error::from(invalid_field!(NAME, RawHeader, $field, $found, $($expected)+))
    };
}

/// Which of the two kinds an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `WithoutFreeSpace`: places in sectors.
    Old,
    /// `WithouFreSpacExt`: places in clusters.
    Extended,
}

/// A header whose numbers can be trusted. Sizes and places in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Bytes of a cluster: whole sectors.
    pub(crate) cluster: u64,
    /// Entries of the block table, enough for the disk.
    pub(crate) entries: u64,
    /// Bytes of the disk.
    pub(crate) size: u64,
    /// Where the clusters begin.
    pub(crate) first: HostOffset,
    /// `data_off` says what cannot be; the clusters begin where they do in a new image.
    pub(crate) wrong_data_off: bool,
    /// As it stands there.
    pub(crate) in_use: u32,
    /// It is marked as one that nothing was written to.
    pub(crate) is_empty: bool,
    /// The cluster of the format extension.
    pub(crate) extension: Option<HostOffset>,
}

impl Header {
    /// Checks the header in the first [`HEADER_LEN`] bytes of a file, or in all there are. `len` is
    /// the length of the file.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`] for other versions, and [`Error::Limit`].
    pub(crate) fn parse(bytes: &[u8], len: u64) -> Result<Self> {
        let raw = raw(bytes)?;
        let kind = match raw.magic {
            OLD_MAGIC => Kind::Old,
            MAGIC => Kind::Extended,
            other => {
                let found = Value::from(&other[..]);
                return Err(invalid!(magic, found, "WithoutFreeSpace or WithouFreSpacExt"));
            }
        };
        if raw.version.get() != VERSION {
            return Err(unsupported(format!("version {}", raw.version.get())));
        }
        let cluster = cluster(&raw)?;
        let entries = u64::from(raw.nb_bat_entries.get());
        limit("number of entries of the block table", entries, limits::ENTRIES)?;
        let size = disk_size(&raw, kind)?;
        check_table(entries, size.div_ceil(cluster), len)?;
        let (first, wrong_data_off) = data(&raw, kind, cluster, len);
        Ok(Self {
            kind,
            cluster,
            entries,
            size,
            first,
            wrong_data_off,
            in_use: known_in_use(raw.in_use.get())?,
            is_empty: raw.flags.get() & EMPTY != 0,
            extension: extension(&raw)?,
        })
    }

    /// Whether somebody writes to it, or did not get to the end.
    pub(crate) fn is_open(&self) -> bool {
        self.in_use == in_use::OPEN
    }

    /// Bytes that a number in the block table counts.
    pub(crate) fn multiplier(&self) -> u64 {
        if self.kind == Kind::Old { SECTOR } else { self.cluster }
    }

    /// Where the cluster of this number, counted from the first one, begins.
    pub(crate) fn cluster_at(&self, number: u64) -> HostOffset {
        self.first.saturating_add(number.saturating_mul(self.cluster))
    }

    /// How many clusters begin in a file of `len` bytes.
    pub(crate) fn clusters_in(&self, len: u64) -> u64 {
        len.saturating_sub(self.first.get()).div_ceil(self.cluster)
    }

    /// The number of the cluster at `at`; `None` where none begins.
    pub(crate) fn number_of(&self, at: HostOffset) -> Option<u64> {
        let from_first = at.get().checked_sub(self.first.get())?;
        from_first.is_multiple_of(self.cluster).then(|| from_first / self.cluster)
    }

    /// The first byte behind the block table.
    pub(crate) fn table_end(&self) -> HostOffset {
        table_end(self.entries)
    }
}

/// Where the block table begins.
pub(crate) const TABLE: HostOffset = HostOffset(HEADER_LEN as u64);

/// The first byte behind a block table.
pub(crate) fn table_end(entries: u64) -> HostOffset {
    TABLE.saturating_add(entries.saturating_mul(ENTRY))
}

/// Where the clusters of a new image begin, or of one that does not say it.
pub(crate) fn usual_first(kind: Kind, cluster: u64, entries: u64) -> HostOffset {
    let unit = if kind == Kind::Old { SECTOR } else { cluster };
    HostOffset(table_end(entries).get().next_multiple_of(unit))
}

/// Whether a file begins as an image does.
pub(crate) fn has_magic(bytes: &[u8]) -> bool {
    raw(bytes).is_ok_and(|raw| matches!(raw.magic, OLD_MAGIC | MAGIC))
}

fn raw(bytes: &[u8]) -> Result<RawHeader> {
    match RawHeader::read_from_prefix(bytes) {
        Ok((raw, _)) => Ok(raw),
        Err(_) => Err(Invalid {
            format: NAME,
            field: "header".into(),
            at: HostOffset::ZERO,
            found: Value::Number(bytes.len() as u64),
            expected: format!("{HEADER_LEN} bytes").into(),
        }
        .into()),
    }
}

fn cluster(raw: &RawHeader) -> Result<u64> {
    match u64::from(raw.tracks.get()) {
        0 => Err(invalid!(tracks, 0_u64, "1 or more")),
        tracks => {
            limit("sectors of a cluster", tracks, limits::TRACKS)?;
            Ok(tracks * SECTOR)
        }
    }
}

/// Of the older kind only the low half of the field counts: the other holds anything.
fn disk_size(raw: &RawHeader, kind: Kind) -> Result<u64> {
    let sectors = match kind {
        Kind::Old => raw.nb_sectors.get() & u64::from(u32::MAX),
        Kind::Extended => raw.nb_sectors.get(),
    };
    let size = sectors.saturating_mul(SECTOR);
    limit("size of the disk in bytes", size, limits::DISK)?;
    Ok(size)
}

/// The block table is long enough, and in the file.
fn check_table(entries: u64, needed: u64, len: u64) -> Result<()> {
    if entries < needed {
        return Err(invalid!(nb_bat_entries, entries, "{needed} or more, for the disk's clusters"));
    }
    let end = table_end(entries);
    if end.get() <= len {
        return Ok(());
    }
    Err(Invalid {
        format: NAME,
        field: "block table".into(),
        at: HostOffset(len),
        found: Value::Missing,
        expected: format!("the whole block table, which ends at {end}").into(),
    }
    .into())
}

/// Where the clusters begin, and whether the field says something else, which cannot be.
fn data(raw: &RawHeader, kind: Kind, cluster: u64, len: u64) -> (HostOffset, bool) {
    let usual = usual_first(kind, cluster, raw.nb_bat_entries.get().into());
    let said = HostOffset(u64::from(raw.data_off.get()) * SECTOR);
    let is_good = said >= usual
        && said.get() <= len.next_multiple_of(SECTOR)
        && (kind == Kind::Old || said.get().is_multiple_of(cluster));
    match said {
        HostOffset::ZERO if kind == Kind::Old => (usual, false),
        said if is_good => (said, false),
        _ => (usual, true),
    }
}

fn known_in_use(found: u32) -> Result<u32> {
    let known = [in_use::OPEN, in_use::CLOSED, in_use::UNKNOWING];
    if known.contains(&found) || is_older_closed(found) {
        return Ok(found);
    }
    let found = Value::Hex(found.into());
    Err(invalid!(in_use, found, "0x746f6e59 (open), 0x312e3276, 0 or pd17 (closed)"))
}

fn extension(raw: &RawHeader) -> Result<Option<HostOffset>> {
    match raw.ext_off.get() {
        0 => Ok(None),
        sectors => match sectors.checked_mul(SECTOR) {
            Some(at) => Ok(Some(HostOffset(at))),
            None => Err(invalid!(ext_off, Value::Hex(sectors), "a sector of the file")),
        },
    }
}

/// Refuses what is legal and too large.
pub(crate) fn limit(what: &'static str, found: u64, limit: u64) -> Result<()> {
    anydisk_core::check_limit(NAME, what, found, limit)
}

pub(crate) fn unsupported(feature: impl Into<Feature>) -> Error {
    Error::Unsupported { format: NAME, feature: feature.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromZeros, IntoBytes};

    const LEN: u64 = 16 << 20;

    /// 10 clusters of 63 sectors, without a word where they begin.
    fn good(magic: [u8; 16]) -> RawHeader {
        let mut header = RawHeader::new_zeroed();
        header.magic = magic;
        header.version = VERSION.into();
        header.tracks = 63.into();
        header.nb_bat_entries = 10.into();
        header.nb_sectors = 630.into();
        header.data_off = 63.into();
        header
    }

    fn parse(header: &RawHeader) -> Result<Header> {
        Header::parse(header.as_bytes(), LEN)
    }

    fn refusal(change: impl Fn(&mut RawHeader)) -> String {
        let mut header = good(MAGIC);
        change(&mut header);
        parse(&header).expect_err("it is refused").to_string()
    }

    #[test]
    fn both_kinds_are_read_with_clusters_of_any_size() {
        let header = parse(&good(MAGIC)).expect("it is good");
        assert_eq!((header.kind, header.cluster, header.entries), (Kind::Extended, 32256, 10));
        assert_eq!((header.size, header.first), (630 * 512, HostOffset(63 * 512)));
        let mut old = good(OLD_MAGIC);
        (old.nb_sectors, old.data_off) = (0xABCD_0000_0276.into(), 0.into());
        let header = parse(&old).expect("it is good");
        assert_eq!((header.kind, header.size), (Kind::Old, 630 * 512));
        assert_eq!((header.first, header.wrong_data_off), (HostOffset(512), false));
    }

    #[test]
    fn a_broken_field_is_refused_with_its_place_and_value() {
        for (found, expected) in [
            (
                refusal(|h| h.magic[0] = b'w'),
                "parallels: magic at 0x0 is \"withouFreSpacExt\", expected WithoutFreeSpace or WithouFreSpacExt",
            ),
            (refusal(|h| h.version = 3.into()), "parallels: version 3 is not supported"),
            (
                refusal(|h| h.tracks = 0.into()),
                "parallels: tracks at 0x1c is 0, expected 1 or more",
            ),
            (
                refusal(|h| h.tracks = u32::MAX.into()),
                "parallels: sectors of a cluster is 4294967295, more than the limit of 4186127",
            ),
            (
                refusal(|h| h.nb_bat_entries = 9.into()),
                "parallels: nb_bat_entries at 0x20 is 9, expected 10 or more, for the disk's clusters",
            ),
            (
                refusal(|h| h.nb_sectors = (1 << 54).into()),
                "parallels: size of the disk in bytes is 9223372036854775808, more than the limit of 9223372036854775807",
            ),
            (
                refusal(|h| h.in_use = 1.into()),
                "parallels: in_use at 0x2c is 0x1, expected 0x746f6e59 (open), 0x312e3276, 0 or \
                 pd17 (closed)",
            ),
            (
                refusal(|h| h.ext_off = u64::MAX.into()),
                "parallels: ext_off at 0x38 is 0xffffffffffffffff, expected a sector of the file",
            ),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_file_that_ends_inside_its_header_or_table_is_refused() {
        let header = good(MAGIC);
        let error = Header::parse(&header.as_bytes()[..63], 63).unwrap_err().to_string();
        assert_eq!(error, "parallels: header at 0x0 is 63, expected 64 bytes");
        let error = Header::parse(header.as_bytes(), 103).unwrap_err().to_string();
        assert_eq!(
            error,
            "parallels: block table at 0x67 is missing, expected the whole block table, which ends \
             at 0x68"
        );
    }

    #[test]
    fn where_the_data_begins_is_known_also_where_the_field_is_wrong() {
        for (magic, data_off, first, is_wrong) in [
            (MAGIC, 126, 126, false),
            (MAGIC, 0, 63, true),
            (MAGIC, 64, 63, true),
            (MAGIC, 63 * 5000, 63, true),
            (OLD_MAGIC, 1, 1, false),
            (OLD_MAGIC, 5, 5, false),
            (OLD_MAGIC, 40_000, 1, true),
        ] {
            let mut header = good(magic);
            header.data_off = data_off.into();
            let header = parse(&header).expect("it can be read");
            assert_eq!((header.first.get() / 512, header.wrong_data_off), (first, is_wrong));
        }
    }
}
