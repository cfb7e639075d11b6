//! The snapshot table as bytes: entries in, entries out (qcow2, "Snapshots"). Pure but for reading.

use anydisk_core::{Error, HostOffset, Result, SnapshotInfo, Storage, StorageExt, check_limit};
use anydisk_storage::name;
use zerocopy::{FromZeros, IntoBytes};

use crate::alloc::needs_repair;
use crate::layout::RawSnapshot;
use crate::{Header, NAME, limits};

/// Bytes of extra data that this crate writes: size of the machine's state, size of the disk,
/// instruction count.
const EXTRA: usize = 24;
const FIXED: usize = size_of::<RawSnapshot>();

/// An entry, with all that the file says of it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Where it stands.
    pub(crate) at: HostOffset,
    pub(crate) raw: RawSnapshot,
    /// Kept as it is, known or not.
    pub(crate) extra: Vec<u8>,
    pub(crate) id: Vec<u8>,
    pub(crate) name: Vec<u8>,
}

/// Shows each entry of the snapshot table to `visit`, and returns the bytes of the table.
///
/// Reads the fixed part of each entry and allocates nothing. Entries past the end of the file are
/// zeroes, and so is everything behind them.
///
/// # Errors
/// [`Error::Limit`] for extra data or a table that is too long; those of the store and of `visit`.
pub(crate) fn walk(
    store: &dyn Storage,
    header: &Header,
    mut visit: impl FnMut(HostOffset, &RawSnapshot) -> Result<()>,
) -> Result<u64> {
    let file_len = store.len()?;
    let mut walked = 0;
    for _ in 0..header.nb_snapshots {
        let at = header.snapshots_offset.saturating_add(walked);
        if at.get() >= file_len {
            break;
        }
        let mut raw = RawSnapshot::new_zeroed();
        store.read_padded_at(at, raw.as_mut_bytes())?;
        walked += entry_len(&raw)?;
        check_limit(NAME, "snapshot table, in bytes", walked, limits::SNAPSHOT_TABLE)?;
        visit(at, &raw)?;
    }
    Ok(walked)
}

/// All entries that the file has.
///
/// # Errors
/// As [`walk`].
pub(crate) fn read(store: &dyn Storage, header: &Header) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    walk(store, header, |at, raw| {
        let place = at.saturating_add(FIXED as u64);
        let mut strings = vec![0; usize::try_from(entry_len(raw)?).unwrap_or(0) - FIXED];
        store.read_padded_at(place, &mut strings)?;
        let mut next = |len: usize| {
            let rest = strings.split_off(len.min(strings.len()));
            std::mem::replace(&mut strings, rest)
        };
        let extra = next(usize::try_from(raw.extra_data_size.get()).unwrap_or(0));
        let id = next(raw.id_str_size.get().into());
        let name = next(raw.name_size.get().into());
        entries.push(Entry { at, raw: *raw, extra, id, name });
        Ok(())
    })?;
    Ok(entries)
}

/// As [`read`], for whoever writes the table anew.
///
/// # Errors
/// [`Error::NeedsRepair`] if the table does not end with the file.
pub(crate) fn read_whole(store: &dyn Storage, header: &Header) -> Result<Vec<Entry>> {
    let entries = read(store, header)?;
    if entries.len() as u64 != u64::from(header.nb_snapshots) {
        let found = entries.len();
        let why = format!("the file ends after {found} of {} snapshots", header.nb_snapshots);
        return Err(needs_repair(why));
    }
    Ok(entries)
}

/// The table of these entries.
///
/// # Errors
/// [`Error::Limit`] if there are too many, or they are too long.
pub(crate) fn to_bytes(entries: &[Entry]) -> Result<Vec<u8>> {
    check_limit(NAME, "number of snapshots", entries.len() as u64, limits::SNAPSHOTS.into())?;
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend_from_slice(entry.raw.as_bytes());
        bytes.extend([&entry.extra, &entry.id, &entry.name].into_iter().flatten());
    }
    check_limit(NAME, "snapshot table, in bytes", bytes.len() as u64, limits::SNAPSHOT_TABLE)?;
    Ok(bytes)
}

/// Bytes of an entry, with its padding.
fn entry_len(raw: &RawSnapshot) -> Result<u64> {
    let extra = u64::from(raw.extra_data_size.get());
    check_limit(NAME, "extra data of a snapshot, in bytes", extra, limits::SNAPSHOT_EXTRA.into())?;
    let strings = u64::from(raw.id_str_size.get()) + u64::from(raw.name_size.get());
    Ok((FIXED as u64 + extra + strings).next_multiple_of(8))
}

impl Entry {
    /// The entry of a new snapshot of a disk of `info.size` bytes.
    ///
    /// # Errors
    /// [`Error::Limit`] if its name is too long.
    pub(crate) fn new(info: &SnapshotInfo, l1_table: HostOffset, l1_size: u32) -> Result<Self> {
        let mut raw = RawSnapshot::new_zeroed();
        raw.l1_table_offset = l1_table.get().into();
        raw.l1_size = l1_size.into();
        // 32 bits of seconds: the format ends in the year 2106.
        raw.date_sec = u32::try_from(info.date.0).unwrap_or(u32::MAX).into();
        raw.date_nsec = info.date.1.into();
        raw.vm_clock_nsec = info.vm_clock.into();
        raw.extra_data_size = u32::try_from(EXTRA).unwrap_or(0).into();
        let extra = [info.vm_state_size, info.size, info.icount.unwrap_or(u64::MAX)];
        let id = info.id.clone().into_bytes();
        raw.id_str_size = u16::try_from(id.len()).unwrap_or(0).into();
        let extra = extra.map(u64::to_be_bytes).concat();
        let mut entry = Self { at: HostOffset::ZERO, raw, extra, id, name: Vec::new() };
        entry.rename(&info.name)?;
        Ok(entry)
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// [`Error::Limit`] if that is too long.
    pub(crate) fn rename(&mut self, name: &str) -> Result<()> {
        let name = name::bytes(name);
        let len = u16::try_from(name.len()).map_err(|_| Error::Limit {
            format: NAME,
            what: "name of a snapshot, in bytes".into(),
            found: name.len() as u64,
            limit: u16::MAX.into(),
        })?;
        self.raw.name_size = len.into();
        self.name = name.into_owned();
        Ok(())
    }

    fn extra_number(&self, index: usize) -> Option<u64> {
        let (numbers, _) = self.extra.as_chunks::<8>();
        numbers.get(index).map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// Virtual size of the disk, if it was recorded.
    pub(crate) fn size(&self) -> Option<u64> {
        self.extra_number(1)
    }

    /// Bytes of machine state.
    pub(crate) fn vm_state_size(&self) -> u64 {
        self.extra_number(0).unwrap_or_else(|| self.raw.vm_state_size.get().into())
    }

    /// What is known of it; `size` is that of the disk now.
    pub(crate) fn info(&self, size: u64) -> SnapshotInfo {
        let mut info = SnapshotInfo::default();
        info.id = name::shown(&self.id).into_owned();
        info.name = name::shown(&self.name).into_owned();
        info.size = self.size().map_or(size, |size| size & !511);
        info.vm_state_size = self.vm_state_size();
        info.date = (self.raw.date_sec.get().into(), self.raw.date_nsec.get());
        info.vm_clock = self.raw.vm_clock_nsec.get();
        info.icount = self.extra_number(2).filter(|count| *count != u64::MAX);
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_of_a_new_snapshot_is_what_qemu_writes() {
        let mut info = SnapshotInfo::default();
        info.id = "12".into();
        info.name = "before".into();
        (info.size, info.date, info.icount) = (0x20000, (0x6b03_a711, 7), Some(0));
        let entry = Entry::new(&info, HostOffset(0x22c00), 1).expect("a short name");
        assert_eq!(entry.info(0), info);
        let bytes = to_bytes(&[entry.clone(), entry]).expect("two are not many");
        // Fixed part, extra data, strings; the padding behind the last does not belong to the table.
        assert_eq!(bytes.len(), 72 + 72);
        assert_eq!(&bytes[64..72], b"12before");
        assert_eq!(&bytes[..8], &0x22c00_u64.to_be_bytes());
    }

    #[test]
    fn a_name_that_is_too_long_is_refused_with_both_numbers() {
        let mut info = SnapshotInfo::default();
        info.name = "x".repeat(70_000);
        let error = Entry::new(&info, HostOffset::ZERO, 0).unwrap_err();
        assert!(matches!(error, Error::Limit { found: 70_000, limit: 65_535, .. }), "{error}");
    }
}
