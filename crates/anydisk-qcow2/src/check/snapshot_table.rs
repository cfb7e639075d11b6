//! The snapshot table written anew: entries of version 3 have at least 16 bytes of extra data, and
//! no entry more than anybody accepts.

use anydisk_core::{Error, HostOffset, Result, Storage};
use zerocopy::IntoBytes;

use super::counts::{Blocks, Reader};
use super::stream::Stream;
use super::subject::Subject;
use super::trouble::Teller;
use crate::guard::Clusters;
use crate::layout::RawSnapshot;
use crate::live::LiveHeader;
use crate::{NAME, limits};

/// Least extra data of a version 3 entry: size of the machine's state, size of the disk.
const EXTRA: usize = 16;

/// Shows all entries with their places to `visit`; the end of the table.
pub(super) fn walk(
    subject: &Subject,
    mut visit: impl FnMut(HostOffset, &RawSnapshot),
) -> Result<u64> {
    let mut stream = Stream::new(subject, subject.header.snapshots_offset.get());
    for _ in 0..subject.header.nb_snapshots {
        stream.skip(stream.at().next_multiple_of(8) - stream.at());
        let at = HostOffset(stream.at());
        let entry: RawSnapshot = stream.take_struct()?;
        visit(at, &entry);
        let strings = u64::from(entry.id_str_size.get()) + u64::from(entry.name_size.get());
        stream.skip(u64::from(entry.extra_data_size.get()) + strings);
    }
    Ok(stream.at())
}

/// Whether entries lack what version 3 demands.
pub(super) fn has_short_entries(subject: &Subject) -> Result<bool> {
    let mut short = false;
    walk(subject, |_, entry| {
        let extra = usize::try_from(entry.extra_data_size.get());
        short |= extra.is_ok_and(|extra| extra < EXTRA);
    })?;
    Ok(short)
}

/// Writes the table anew, in clusters that are free, and names it. All refcounts are right. Where no
/// free clusters are counted by a block that exists, nothing is changed, and the answer is no.
pub(super) fn write_anew(subject: &Subject) -> Result<bool> {
    let (table, old) = rewritten(subject)?;
    let blocks = Blocks::read(subject, &mut Teller::quiet())?;
    let count = (table.len() as u64).div_ceil(subject.cluster_size());
    let Some(new) = find_free(subject, &blocks, count)? else { return Ok(false) };
    let at = subject.offset(new.first);
    subject.store.write_at(at, &table)?;
    let end = subject.offset(new.end()).get();
    if subject.store.len()? < end {
        subject.store.set_len(end)?;
    }
    blocks.set(subject, &counts(new, 1))?;
    let header = LiveHeader::to_repair(&subject.store, subject.header.clone());
    header.set_snapshots(at, subject.header.nb_snapshots)?;
    blocks.set(subject, &counts(old, 0))?;
    subject.store.flush()?;
    Ok(true)
}

/// The same refcount for each of the clusters.
fn counts(run: Clusters, count: u64) -> Vec<(u64, u64)> {
    (run.first..run.end()).map(|cluster| (cluster, count)).collect()
}

/// The new table, and the clusters of the old one.
fn rewritten(subject: &Subject) -> Result<(Vec<u8>, Clusters)> {
    let start = subject.header.snapshots_offset.get();
    let mut stream = Stream::new(subject, start);
    let (mut table, mut end) = (Vec::new(), start);
    for _ in 0..subject.header.nb_snapshots {
        stream.skip(end.next_multiple_of(8) - end);
        table.resize(table.len().next_multiple_of(8), 0);
        push_entry(subject, &mut stream, &mut table)?;
        end = stream.at();
        if table.len() as u64 > limits::SNAPSHOT_TABLE {
            let (what, found) = ("snapshot table, in bytes".into(), table.len() as u64);
            return Err(Error::Limit { format: NAME, what, found, limit: limits::SNAPSHOT_TABLE });
        }
    }
    Ok((table, Clusters::touched(start, end - start, subject.bits())))
}

fn push_entry(subject: &Subject, stream: &mut Stream<'_>, table: &mut Vec<u8>) -> Result<()> {
    let mut entry: RawSnapshot = stream.take_struct()?;
    let given = entry.extra_data_size.get();
    let kept = given.min(limits::SNAPSHOT_EXTRA);
    let mut extra = stream.take(kept.into())?.to_vec();
    stream.skip(u64::from(given - kept));
    if extra.len() < 8 {
        extra = u64::from(entry.vm_state_size.get()).to_be_bytes().to_vec();
    }
    if extra.len() < EXTRA {
        extra.truncate(8);
        extra.extend(subject.header.disk_size().to_be_bytes());
    }
    entry.extra_data_size = u32::try_from(extra.len()).expect("at most 1024 bytes").into();
    table.extend_from_slice(entry.as_bytes());
    table.extend_from_slice(&extra);
    for len in [entry.id_str_size.get(), entry.name_size.get()] {
        table.extend_from_slice(stream.take(len.into())?);
    }
    Ok(())
}

/// The first free clusters in one piece that lie in one block.
fn find_free(subject: &Subject, blocks: &Blocks, count: u64) -> Result<Option<Clusters>> {
    let mut reader = Reader::new(subject, blocks);
    let (mut first, mut len) = (0, 0);
    for unit in blocks.all_good_units(subject) {
        let Some(counts) = reader.read_or_zero(unit)? else { continue };
        for (cluster, used) in (unit.first..).zip(counts) {
            if *used != 0 || cluster != first + len {
                (first, len) = (cluster + u64::from(*used != 0), u64::from(*used == 0));
            } else {
                len += 1;
            }
            if len == count {
                return Ok(Some(Clusters::new(first, count)));
            }
        }
    }
    Ok(None)
}
