//! Comparing the map of an image with the map expected.

use std::path::Path;

use anydisk_core::{Encoded, Extent, GuestOffset, GuestRange, HostOffset, Image, Source, Storage};

use super::{Case, Kind, Mapped, ReadVerdict};

/// Whether the image says what the case says, everywhere. Where runs are cut does not matter.
pub(super) fn compare(case: &Case, image: &dyn Image) -> Result<(), String> {
    let Some(runs) = &case.map else { return Ok(()) };
    let end = runs.last().map_or(0, Mapped::end);
    if end != image.size() {
        return Err(format!("the map expected ends at {end:#x}, the disk at {:#x}", image.size()));
    }
    // Where reading must fail, the tables may be what is wrong.
    let may_fail = case.expect.read == ReadVerdict::Error;
    runs.iter().try_for_each(|run| compare_run(run, image, may_fail))
}

fn compare_run(run: &Mapped, image: &dyn Image, may_fail: bool) -> Result<(), String> {
    let mut at = run.start;
    while at < run.end() {
        let rest = GuestRange::between(GuestOffset(at), GuestOffset(image.size()));
        let extent = match image.map(rest) {
            Ok(extent) => extent,
            Err(_) if may_fail => return Ok(()),
            Err(error) => return Err(format!("mapping {at:#x}: {error}")),
        };
        if extent.len == 0 || extent.len > rest.len() {
            return Err(format!("mapping {rest} gives {} bytes", extent.len));
        }
        same_answer(run, at, &extent).map_err(|found| {
            format!("the map at {at:#x} is {found}, expected {}", expected(run, at))
        })?;
        at += extent.len.min(run.end() - at);
    }
    Ok(())
}

/// Whether the extent at `at` is what the run says of that place; else what it is.
fn same_answer(run: &Mapped, at: u64, extent: &Extent<'_>) -> Result<(), String> {
    let host = run.host_offset.map(|host| HostOffset(host + (at - run.start)));
    let same = match (&extent.source, run.kind) {
        (Source::Data { store, at, .. }, Kind::Data) => {
            same_place(run, &**store, *at, host.unwrap_or_default())
        }
        (Source::Zero { reserved: None }, Kind::Zero) => true,
        (Source::Absent { reserved: None }, Kind::Absent) => true,
        (Source::Zero { reserved: Some(at) }, Kind::ZeroAlloc)
        | (Source::Absent { reserved: Some(at) }, Kind::AbsentAlloc) => Some(*at) == host,
        (Source::Encoded(encoded), Kind::Compressed) => same_unit(run, encoded),
        (Source::Encoded(encoded), Kind::Fill) => encoded.codec.name() == "fill",
        _ => false,
    };
    if same { Ok(()) } else { Err(describe(&extent.source)) }
}

fn same_place(run: &Mapped, store: &dyn Storage, at: HostOffset, expected: HostOffset) -> bool {
    // A part of a file as a store of its own counts from the start of that part.
    let base = store.fd().map_or(HostOffset::ZERO, |file| file.start);
    let name = Path::new(store.name()).file_name().and_then(|name| name.to_str());
    let same_file = run.file.as_deref().is_none_or(|file| Some(file) == name);
    same_file && base.saturating_add(at.get()) == expected
}

fn same_unit(run: &Mapped, encoded: &Encoded<'_>) -> bool {
    let len = encoded.len as u64;
    encoded.unit.start().get() == run.start
        && Some(encoded.at.get()) == run.host_offset
        && run.compressed_length.is_none_or(|least| len >= least)
        && run.compressed_read_length.is_none_or(|most| len <= most)
        && run.codec.as_deref().is_none_or(|codec| codec == family(encoded.codec.name()))
}

/// A codec's name without the variant, which a format tells behind a comma.
fn family(codec: &str) -> &str {
    codec.split_once(',').map_or(codec, |(family, _)| family)
}

fn describe(source: &Source<'_>) -> String {
    match source {
        Source::Data { store, at, .. } => format!("data at {at} of {}", store.name()),
        Source::Zero { reserved } => format!("zero, reserved {reserved:x?}"),
        Source::Absent { reserved } => format!("absent, reserved {reserved:x?}"),
        Source::Encoded(Encoded { at, len, codec, unit, .. }) => {
            format!("{} of {unit} in {len} bytes at {at}", codec.name())
        }
        other => format!("{other:?}"),
    }
}

fn expected(run: &Mapped, at: u64) -> String {
    let Mapped {
        kind, file, host_offset, compressed_length, compressed_read_length, codec, ..
    } = run;
    let host = host_offset.map(|host| host + (at - run.start));
    let lens = (compressed_length, compressed_read_length);
    format!("{kind:?} at {host:x?} of {file:?} (packed lengths {lens:?}, codec {codec:?})")
}
