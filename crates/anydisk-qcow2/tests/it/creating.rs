//! New images: laid out as qemu lays them out, as large as qemu measures them.
//!
//! Where qemu is not installed the comparisons say so and pass.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{Dump, create, disk, memory, range, save, try_create};
use anydisk_core::{Disk, Error, Format, GuestOffset, MeasureRequest, Options, Storage};
use anydisk_qcow2::QCOW2;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::oracle::{Checked, Qemu};
use serde_json::Value;

const SIZES: [u64; 5] = [0, 512, 1 << 20, (5 << 30) + 512, 3 << 40];

const KINDS: [&[(&str, &str)]; 10] = [
    &[],
    &[("compat", "0.10")],
    &[("cluster_size", "512")],
    &[("cluster_size", "4k"), ("refcount_bits", "1")],
    &[("cluster_size", "2M"), ("lazy_refcounts", "on")],
    &[("refcount_bits", "64")],
    &[("compression_type", "zstd")],
    &[("extended_l2", "on")],
    &[("cluster_size", "16k"), ("extended_l2", "on")],
    &[("backing_file", "below"), ("backing_fmt", "raw")],
];

fn joined(given: crate::common::Given<'_>) -> String {
    let parts: Vec<String> = given.iter().map(|(name, value)| format!("{name}={value}")).collect();
    parts.join(",")
}

/// 512 byte clusters cannot map a disk of terabytes.
fn is_possible(given: crate::common::Given<'_>, size: u64) -> bool {
    size <= 128 << 30 || !given.contains(&("cluster_size", "512"))
}

#[test]
fn a_new_image_has_the_header_and_the_length_that_qemu_gives_it() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    std::fs::write(folder.path().join("below"), [7; 512]).expect("there is room");
    for given in KINDS {
        for size in SIZES.into_iter().filter(|size| *size < 1 << 40 && is_possible(given, *size)) {
            let case = format!("{given:?}, {size}");
            let store = memory();
            drop(create(&store, size, given));
            save(&*store, &ours);
            create_by_qemu(given, &theirs, size);
            let (ours_bytes, theirs_bytes) = (std::fs::read(&ours), std::fs::read(&theirs));
            let (found, expected) = (ours_bytes.expect("read"), theirs_bytes.expect("read"));
            assert_eq!(qemu.check(&ours, "qcow2"), Ok(CLEAN), "{case}");
            // Where tables need more than a cluster, qemu puts refcount blocks elsewhere.
            if found.len() == expected.len() {
                let other = found.iter().zip(&expected).position(|(a, b)| a != b);
                assert_eq!(other, None, "{case}: the first byte that differs");
            }
            let length = |bytes: &[u8]| bytes.len() as u64;
            assert!(length(&found) <= length(&expected) + (1 << 21), "{case}");
            if size <= 1 << 20 {
                assert_eq!(found.len(), expected.len(), "{case}");
            }
        }
    }
}

const CLEAN: Checked = Checked { leaks: 0, corruptions: 0 };

/// The backing file need not be there.
fn create_by_qemu(given: crate::common::Given<'_>, path: &std::path::Path, size: u64) {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-u", "-f", "qcow2"]);
    if !given.is_empty() {
        command.args(["-o", &joined(given)]);
    }
    let output = command.arg(path).arg(size.to_string()).output().expect("it was found");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_measure_is_qemus_to_the_byte() {
    let Some(_) = Qemu::find() else { return };
    // qemu-img derives keys even to measure, which takes seconds.
    const QUICK: (&str, &str) = ("encrypt.iter-time", "10");
    let encrypted: [&[(&str, &str)]; 3] = [
        &[("encrypt.format", "luks"), QUICK],
        &[("encrypt.format", "luks"), QUICK, ("cluster_size", "4k")],
        &[("data_file", "elsewhere"), ("data_file_raw", "on")],
    ];
    let all = KINDS.into_iter().chain(encrypted);
    for given in all.filter(|given| !given.contains(&("backing_file", "below"))) {
        let sizes = if given.contains(&QUICK) { &SIZES[2..3] } else { &SIZES[..] };
        for size in sizes.iter().copied().filter(|size| is_possible(given, *size)) {
            let mut command = Command::new("qemu-img");
            command.args(["measure", "--output=json", "-O", "qcow2", "--size", &size.to_string()]);
            if given.iter().any(|(name, _)| *name == "encrypt.format") {
                command.args(["--object", "secret,id=s,data=x"]);
                command.args(["-o", &format!("{},encrypt.key-secret=s", joined(given))]);
            } else if !given.is_empty() {
                command.args(["-o", &joined(given)]);
            }
            let output = command.output().expect("it was found");
            assert!(output.status.success(), "{output:?}");
            let expected: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let mut options = Options::of(&QCOW2);
            given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
            let request = MeasureRequest { size, options: &options, data: &[] };
            let measure = QCOW2.measure(&request).expect("measured");
            let case = format!("{given:?}, {size}");
            assert_eq!(Some(measure.required), expected["required"].as_u64(), "{case}");
            let full = expected["fully-allocated"].as_u64();
            assert_eq!(Some(measure.fully_allocated), full, "{case}");
        }
    }
}

#[test]
fn a_measure_counts_each_cluster_of_data_once() {
    let options = Options::of(&QCOW2);
    let data = [range(0, 1), range(100, 10), range(65535, 2), range(1 << 20, 65536)];
    let measure = |data| {
        QCOW2.measure(&MeasureRequest { size: 1 << 30, options: &options, data }).expect("measured")
    };
    let (empty, some) = (measure(&[]), measure(&data));
    assert_eq!(some.required - empty.required, 3 * 65536);
    assert_eq!(some.fully_allocated, empty.fully_allocated);
}

#[test]
fn an_image_with_space_for_everything_is_clean_and_as_long_as_measured() {
    let qemu = Qemu::find();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.qcow2");
    let kinds: [crate::common::Given<'_>; 4] = [
        &[],
        &[("compat", "0.10"), ("cluster_size", "4k")],
        &[("cluster_size", "512"), ("refcount_bits", "64")],
        &[("cluster_size", "16k"), ("extended_l2", "on")],
    ];
    for kind in kinds {
        for how in ["metadata", "falloc", "full"] {
            let given = [kind, &[("preallocation", how)]].concat();
            let size = 3 << 20;
            let store = memory();
            let image = create(&store, size, &given);
            assert_reads_zero(&disk(&image, None));
            drop(image);
            let mut options = Options::of(&QCOW2);
            given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
            let request = MeasureRequest { size, options: &options, data: &[] };
            let measure = QCOW2.measure(&request).expect("measured");
            let len = store.len().expect("a length");
            assert!(len <= measure.fully_allocated + (16 << 10), "{given:?}: {len}, {measure:?}");
            if let Some(qemu) = &qemu {
                save(&*store, &path);
                assert_eq!(qemu.check(&path, "qcow2"), Ok(CLEAN), "{given:?}");
            }
            // Space that is kept is used, not taken again.
            let image = crate::common::open(&store);
            disk(&image, None).write(GuestOffset(1000), &[1; 100_000]).expect("written");
            image.writer().expect("open for writing").flush().expect("flushed");
            assert_eq!(store.len().expect("a length"), len, "{given:?}");
        }
    }
}

fn assert_reads_zero(disk: &Disk) {
    let mut bytes = vec![1; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset(0), &mut bytes).expect("read");
    assert!(bytes.iter().all(|byte| *byte == 0));
}

#[test]
fn space_with_subclusters_is_kept_without_content() {
    let store = memory();
    let given = [("extended_l2", "on"), ("preallocation", "metadata")];
    drop(create(&store, 1 << 20, &given));
    let entry = Dump::of(&*store).entry(0);
    assert!(entry.host().is_some() && entry.is_copied() && entry.bitmap == 0, "{entry:x?}");
}

#[test]
fn sixty_four_tebibytes_are_made_and_opened_in_a_moment() {
    let store = Arc::new(MemoryStorage::default());
    let begin = Instant::now();
    let dynamic: Arc<dyn Storage> = Arc::clone(&store) as _;
    drop(create(&dynamic, 64 << 40, &[]));
    let image = crate::common::open(&dynamic);
    let disk = disk(&image, None);
    disk.write(GuestOffset((64 << 40) - 512), &[1; 512]).expect("written");
    disk.flush().expect("flushed");
    // Milliseconds; a busy machine gets a second.
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    use anydisk_storage::Holes;
    assert!(store.allocated().expect("counted") < 1 << 20);
}

#[test]
fn what_cannot_be_made_is_refused_by_the_name_of_its_option() {
    let refused: [(crate::common::Given<'_>, &str); 9] = [
        (&[("cluster_size", "256")], "cluster_size"),
        (&[("cluster_size", "4M")], "cluster_size"),
        (&[("cluster_size", "5000")], "cluster_size"),
        (&[("refcount_bits", "3")], "refcount_bits"),
        (&[("refcount_bits", "8"), ("compat", "0.10")], "refcount_bits"),
        (&[("lazy_refcounts", "on"), ("compat", "0.10")], "lazy_refcounts"),
        (&[("extended_l2", "on"), ("cluster_size", "8k")], "extended_l2"),
        (&[("compression_type", "zstd"), ("compat", "0.10")], "compression_type"),
        (&[("preallocation", "full"), ("backing_file", "below")], "preallocation"),
    ];
    for (given, name) in refused {
        let error = try_create(memory(), 1 << 20, given).unwrap_err();
        let Error::Option { option, .. } = error.kind() else { panic!("{given:?}: {error}") };
        assert_eq!(option, name, "{given:?}: {error}");
    }
    let too_large = try_create(memory(), 1 << 40, &[("cluster_size", "512")]).unwrap_err();
    assert!(matches!(too_large.kind(), Error::Limit { .. }), "{too_large}");
}
