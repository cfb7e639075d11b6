//! Checks that read the data: what is found is what cannot be read.

use std::sync::Arc;

use crate::common::{create, disk, load, memory, try_open, write_packed};
use anydisk_core::{
    Access, CheckReport, CheckRequest, Disk, Error, Finding, Format, GuestOffset, GuestRange,
    HostOffset, Limits, Location, OpenRequest, Repair, Result, Severity, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_testkit::double::{Call, Kind, Ruling, Tap, Tapped};
use anydisk_testkit::golden::cases;

type Checked = Result<(CheckReport, Vec<Finding>)>;

fn check(store: &Arc<dyn Storage>, threads: usize, table_cache: usize) -> Checked {
    let (location, mut limits) = (Location::Other("test".into()), Limits::default());
    limits.table_cache = table_cache.min(limits.table_cache);
    let open = OpenRequest::new(Arc::clone(store), &location, &limits);
    let mut request = CheckRequest::new(open).reading_data();
    request.threads = threads;
    let mut found = Vec::new();
    let report = QCOW2.check(&request, &mut |finding| found.push(finding))?;
    Ok((report, found))
}

const ALL: usize = usize::MAX;

fn lost(found: &[Finding]) -> Vec<GuestRange> {
    let kinds = ["compressed-data-broken", "data-unreadable"];
    let lost = found.iter().filter(|one| kinds.contains(&one.kind));
    let mut lost: Vec<_> = lost.filter_map(|one| one.guest).collect();
    lost.sort_by_key(|range| range.start());
    lost
}

/// Clusters of the disk that cannot be unpacked.
fn broken(store: &Arc<dyn Storage>, cluster: u64) -> Vec<GuestRange> {
    let Ok(image) = try_open(store, Access::Read) else { return Vec::new() };
    let (size, disk) = (image.size(), Disk::new(image));
    let whole = |at: u64| GuestRange::new(GuestOffset(at), cluster).expect("small numbers");
    let is_broken = |at: &u64| {
        let mut bytes = vec![0; usize::try_from(cluster.min(size - at)).expect("small")];
        let read = disk.read(GuestOffset(*at), &mut bytes);
        read.is_err_and(|error| matches!(error.kind(), Error::Decode { .. }))
    };
    let step = usize::try_from(cluster).expect("small");
    (0..size).step_by(step).filter(is_broken).map(whole).collect()
}

#[test]
fn streams_that_cannot_be_unpacked_are_those_that_cannot_be_read() {
    let (mut good, mut bad) = (0, 0);
    for case in cases("qcow2").iter().filter(|case| case.files[0].size <= 1 << 20) {
        let store = load(&case.unpack().path);
        let Ok((report, found)) = check(&store, 1, ALL) else { continue };
        let mut bits = [0; 4];
        store.read_at(HostOffset(20), &mut bits).expect("a read of memory");
        // What lies past the end of the file is told without reading.
        let told = |range: &GuestRange| {
            found.iter().any(|one| one.kind == "past-end-of-file" && one.guest == Some(*range))
        };
        let mut expected = broken(&store, 1 << u32::from_be_bytes(bits));
        expected.retain(|range| !told(range));
        assert_eq!(lost(&found), expected, "{case}: {found:?}");
        assert_eq!(check(&store, 3, ALL).expect("as before"), (report, found), "{case}");
        *(if expected.is_empty() { &mut good } else { &mut bad }) += 1;
    }
    assert!(good > 100 && bad >= 5, "{good} whole, {bad} broken");
}

/// A medium with sectors that cannot be read.
#[derive(Debug)]
struct BadSectors(Vec<u64>);

impl Tap for BadSectors {
    fn rule(&self, call: &Call) -> Ruling {
        let inside = |at: &u64| (call.at.get()..call.at.get() + call.len).contains(at);
        match call.kind == Kind::Read && self.0.iter().any(inside) {
            true => Ruling::Fail { after: 0, errno: 5 },
            false => Ruling::Pass,
        }
    }
}

#[test]
fn clusters_that_the_medium_does_not_give_back_are_told_with_what_they_cost() {
    let store = memory();
    let image = create(&store, 8 << 20, &[("cluster_size", "4096")]);
    let disk = disk(&image, None);
    disk.write(GuestOffset(0), &[7; 2 << 20]).expect("a write to memory");
    let packed = 4 << 20;
    assert!(write_packed(&*image, packed, &[3; 4096]));
    disk.flush().expect("a flush of memory");
    let place = |at: u64| {
        let range = GuestRange::new(GuestOffset(at), 1).expect("small numbers");
        let extent = image.map(range).expect("it can be mapped");
        match extent.source {
            anydisk_core::Source::Data { at, .. } => at.get(),
            anydisk_core::Source::Encoded(encoded) => encoded.at.get(),
            other => panic!("{other:?}"),
        }
    };
    let bad = [place(0x5000) + 512, place(0x1f_f000), place(packed)];
    let tapped: Arc<dyn Storage> = Arc::new(Tapped::with_tap(store, BadSectors(bad.to_vec())));
    let (report, found) = check(&tapped, 2, ALL).expect("tables can be read");
    let starts: Vec<u64> = lost(&found).iter().map(|range| range.start().get()).collect();
    assert_eq!(starts, [0x5000, 0x1f_f000, packed], "{found:?}");
    assert!(found.iter().all(|one| one.severity == Severity::Unreadable), "{found:?}");
    assert_eq!((report.check_errors, report.corruptions), (3, 0));
    // The smallest windows there are find the same.
    let small = check(&tapped, 1, 1).expect("tables can be read");
    assert_eq!((small.0, lost(&small.1)), (report, lost(&found)));
}

#[test]
fn a_stream_that_is_lost_keeps_no_repair_from_giving_space_back() {
    let store = memory();
    let image = create(&store, 1 << 20, &[]);
    assert!(write_packed(&*image, 0, &[3; 65536]));
    disk(&image, None).write(GuestOffset(1 << 19), &[1; 65536]).expect("a write to memory");
    disk(&image, None).flush().expect("a flush of memory");
    let len = store.len().expect("a length");
    let range = GuestRange::new(GuestOffset(0), 1).expect("small numbers");
    let extent = image.map(range).expect("it can be mapped");
    let anydisk_core::Source::Encoded(encoded) = extent.source else { panic!("{extent:?}") };
    store.write_at(encoded.at, &[0xff; 8]).expect("a write to memory");
    // A leak: a refcount of one for a cluster that nothing names.
    let header = anydisk_qcow2::Header::read(&*store, &Limits::default()).expect("a header");
    let block = crate::common::Dump::of(&*store).word(header.refcount_table_offset.get());
    store.write_at(HostOffset(block + (len >> 16) * 2), &[0, 1]).expect("a write to memory");
    let (location, limits) = (Location::Other("test".into()), Limits::default());
    let mut open = OpenRequest::new(Arc::clone(&store), &location, &limits);
    open.access = Access::ReadWrite;
    let request = CheckRequest::new(open).repairing(Repair::Leaks).reading_data();
    let mut found = Vec::new();
    let report = QCOW2.check(&request, &mut |finding| found.push(finding)).expect("checked");
    assert_eq!((report.leaks_fixed, report.leaks, report.corruptions), (1, 0, 1), "{found:?}");
    assert_eq!(lost(&found).len(), 1);
}
