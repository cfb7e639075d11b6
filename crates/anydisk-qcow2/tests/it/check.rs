//! Checking images: counts as qemu counts them, images that others made, damage of every kind.

use std::sync::Arc;

use crate::common::{Dump, create, disk, load, memory};
use anydisk_core::{
    Access, CheckReport, CheckRequest, Error, Finding, Format, GuestOffset, HostOffset, Limits,
    Location, OpenRequest, Result, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_testkit::golden::{Case, cases};
use anydisk_testkit::oracle::Qemu;
use serde_json::Value;

type Checked = Result<(CheckReport, Vec<Finding>)>;

fn check(store: &Arc<dyn Storage>, threads: usize) -> Checked {
    check_within(store, threads, &Limits::default())
}

fn check_within(store: &Arc<dyn Storage>, threads: usize, limits: &Limits) -> Checked {
    let location = Location::Other("test".into());
    let mut request = CheckRequest::new(OpenRequest::new(Arc::clone(store), &location, limits));
    request.threads = threads;
    assert_eq!(request.open.access, Access::Read);
    let mut found = Vec::new();
    let report = QCOW2.check(&request, &mut |finding| found.push(finding))?;
    Ok((report, found))
}

fn small(table_cache: usize) -> Limits {
    let mut limits = Limits::default();
    limits.table_cache = table_cache;
    limits
}

/// Where our counts are not qemu's, and why.
const OTHERWISE: &[(&str, &str)] = &[
    ("datafile-mismatch", "places that are not the guest's are not looked for by qemu"),
    ("extl2-bit0", "bit 0 of an extended entry is not looked at by qemu"),
    ("hdr-rt-offset-0", "refcounts behind the end of the file are not looked at by qemu"),
    ("l2-table-unaligned", "a table that is none is walked by qemu"),
    ("refcount-past-eof", "refcounts behind the end of the file are not looked at by qemu"),
    ("v2-zero-flag", "zero flags of version 2 are not looked at by qemu"),
    ("v2-zero-flag-alloc", "zero flags of version 2 are not looked at by qemu"),
];

/// The difference to what qemu-img counted, if there is one.
fn difference(qemu: &Value, report: &CheckReport) -> Option<String> {
    let count = |name: &str| qemu[name].as_u64().unwrap_or(0);
    let ours = [
        ("corruptions", report.corruptions),
        ("leaks", report.leaks),
        ("check-errors", report.check_errors),
        ("total-clusters", report.total_clusters.unwrap_or(0)),
        ("allocated-clusters", report.allocated_clusters.unwrap_or(0)),
        ("fragmented-clusters", report.fragmented_clusters.unwrap_or(0)),
        ("compressed-clusters", report.compressed_clusters.unwrap_or(0)),
        ("image-end-offset", report.image_end.map_or(0, |end| end.get())),
    ];
    let differ = ours.iter().filter(|(name, ours)| count(name) != *ours);
    let told: Vec<String> =
        differ.map(|(name, ours)| format!("{name} {ours}, qemu {}", count(name))).collect();
    (!told.is_empty()).then(|| told.join("; "))
}

fn compare_counts(case: &Case) -> Option<String> {
    let qemu = &case.json["qemu"]["check"]["result"];
    if !qemu.is_object() || case.json["qemu"]["check"]["exit"] == 1 {
        return None;
    }
    let unpacked = case.unpack();
    let store = load(&unpacked.path);
    let (report, found) = check(&store, 1).ok()?;
    let told = difference(qemu, &report)?;
    let found: Vec<String> =
        found.iter().map(|one| format!("    {}: {}", one.kind, one.text)).collect();
    Some(format!("{told}\n{}", found.join("\n")))
}

#[test]
fn what_is_counted_is_what_qemu_counts() {
    let mut wrong = Vec::new();
    for case in cases("qcow2") {
        let reason = OTHERWISE.iter().any(|(name, _)| *name == case.name);
        match (compare_counts(&case), reason) {
            (Some(told), false) => wrong.push(format!("{case}: {told}")),
            (None, true) => {
                wrong.push(format!("{case}: counted as qemu does, take it off the list"))
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn any_number_of_threads_and_any_window_find_the_same() {
    for case in cases("qcow2").iter().filter(|case| case.files[0].size <= 1 << 20) {
        let store = load(&case.unpack().path);
        let Ok(alone) = check(&store, 1) else { continue };
        assert_eq!(check(&store, 3).expect("as before"), alone, "{case}");
        // The smallest windows there are: 4096 clusters each.
        let limits = small(1);
        let (report, mut found) = check_within(&store, 1, &limits).expect("as before");
        let mut expected = alone.1;
        expected.sort_by_key(|one| (one.kind, one.at, one.text.clone()));
        found.sort_by_key(|one| (one.kind, one.at, one.text.clone()));
        assert_eq!((report, found), (alone.0, expected), "{case}");
    }
}

/// A file whose tables and clusters lie in several windows.
#[test]
fn damage_far_out_in_a_sparse_file_is_found_within_bounds() {
    let (store, far) = (memory(), 200_000 * 512);
    create(&store, 1 << 20, &[("cluster_size", "512")]);
    let header = Dump::of(&*store).header;
    // An L2 table and a cluster far out; the table names the cluster, and itself.
    let write = |at: u64, word: u64| {
        store.write_at(HostOffset(at), &word.to_be_bytes()).expect("a write to memory");
    };
    write(far + 512, 0);
    write(header.l1_table_offset.get(), (1 << 63) | far);
    write(far, (1 << 63) | (far + 512));
    write(far + 8, (1 << 63) | far);
    store.set_len(1 << 62).expect("memory is sparse");
    let limits = small(1 << 16);
    let (report, found) = check_within(&store, 2, &limits).expect("it can be checked");
    let kinds: Vec<&str> = found.iter().map(|one| one.kind).collect();
    let wrong = "copied-flag-wrong";
    assert_eq!(kinds, [wrong, wrong, wrong, "refcount-missing", "metadata-overlap"], "{found:?}");
    assert_eq!(report.image_end, Some(HostOffset(far + 1024)));
}

#[test]
fn tables_without_number_are_refused_within_the_limit() {
    let store = memory();
    create(&store, 2 << 40, &[]);
    let header = Dump::of(&*store).header;
    let words: Vec<u8> =
        (0..u64::from(header.l1_size)).flat_map(|n| ((n + 9) << 16).to_be_bytes()).collect();
    store.write_at(header.l1_table_offset, &words).expect("a write to memory");
    store.set_len(1 << 40).expect("memory is sparse");
    let limits = small(1 << 15);
    let error = check_within(&store, 1, &limits).expect_err("too many");
    assert!(error.to_string().contains("number of L2 tables is"), "{error}");
    assert!(check(&store, 1).expect("not too many here").0.corruptions > 4000);
}

#[test]
fn a_check_that_is_told_to_stop_stops() {
    let store = memory();
    let image = create(&store, 1 << 20, &[]);
    disk(&image, None).write(GuestOffset(0), &[1]).expect("a write to memory");
    image.writer().expect("it is open for writing").flush().expect("a flush of memory");
    let (location, limits) = (Location::Other("test".into()), Limits::default());
    let mut request = CheckRequest::new(OpenRequest::new(store, &location, &limits));
    request.progress = Some(&|_, _| false);
    let error = QCOW2.check(&request, &mut |_| {}).expect_err("it was told to");
    assert!(matches!(error, Error::Cancelled), "{error}");
}

/// Images of every kind that qemu writes are in order for both.
#[test]
fn what_qemu_writes_is_clean() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.qcow2");
    let options: &[&[&str]] = &[
        &[],
        &["cluster_size=512", "refcount_bits=1"],
        &["cluster_size=4096", "refcount_bits=2"],
        &["extended_l2=on", "refcount_bits=64"],
        &["compat=0.10"],
        &["cluster_size=512"],
        &["lazy_refcounts=on", "cluster_size=2M"],
    ];
    for options in options {
        qemu.create("qcow2", options, &path, "8M");
        let commands = [
            "write -P 1 0 100k",
            "write -P 2 3M 1M",
            "write -z 64k 128k",
            "discard 0 64k",
            "write -c 4M 2M",
        ];
        qemu.io(&path, "qcow2", &commands);
        let (report, found) = check(&load(&path), 2).expect("it can be checked");
        assert!(found.is_empty(), "{options:?}: {found:?}");
        assert!(report.is_clean() && report.allocated_clusters > Some(0), "{options:?}");
    }
}
