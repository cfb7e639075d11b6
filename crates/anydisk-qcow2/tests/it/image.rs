//! What an open image promises, beside its content.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anydisk_core::{
    Access, Detail, DetailValue, Format, GuestOffset, GuestRange, HostOffset, Image, Limits,
    Location, Lookup, Need, NoReferences, NoSecrets, OpenRequest, Sample, Source, Storage,
    Supplied, Verdict,
};
use anydisk_qcow2::features::incompatible;
use anydisk_qcow2::{Compression, Header, QCOW2, Qcow2Image, layout};
use anydisk_storage::{FileStorage, MemoryStorage, OpenOptions};
use anydisk_testkit::golden::{OpenVerdict, cases};
use serde_json::{Map, Value};

const CLUSTER: u64 = 0x1_0000;
const L1: u64 = 0x3_0000;

/// An image of version 3 with 64 KiB clusters and no L2 table.
fn empty(size: u64) -> Header {
    Header {
        version: 3,
        cluster_bits: 16,
        size,
        crypt_method: 0,
        l1_size: u32::try_from(size.div_ceil(1 << 29)).expect("small enough"),
        l1_table_offset: HostOffset(L1),
        refcount_table_offset: HostOffset(CLUSTER),
        refcount_table_clusters: 1,
        nb_snapshots: 0,
        snapshots_offset: HostOffset::ZERO,
        incompatible_features: 0,
        compatible_features: 0,
        autoclear_features: 0,
        refcount_order: 4,
        compression: Compression::Deflate,
        unknown_fields: Vec::new(),
        extensions: Vec::new(),
        backing_file: None,
    }
}

/// The header and, at the given places, big-endian words.
fn store(header: &Header, words: &[(u64, u64)]) -> Arc<dyn Storage> {
    let store = MemoryStorage::new(header.to_bytes().expect("fits"));
    for (at, word) in words {
        store.write_at(HostOffset(*at), &word.to_be_bytes()).expect("memory grows");
    }
    Arc::new(store)
}

fn open(header: &Header, words: &[(u64, u64)]) -> Qcow2Image {
    Qcow2Image::open(store(header, words), &Limits::default()).expect("valid")
}

fn range(start: u64, len: u64) -> GuestRange {
    GuestRange::new(GuestOffset(start), len).expect("small numbers")
}

fn need(image: &Qcow2Image, range: GuestRange) -> Need<'_> {
    match image.map_cached(range).expect("valid tables") {
        Lookup::Need(need) => need,
        Lookup::Found(extent) => panic!("{extent:?} was not to be known yet"),
    }
}

const COPIED: u64 = layout::entry::COPIED;
/// L2 table at 0x4_0000, data of guest cluster 1 at 0x5_0000.
const MAPPED: [(u64, u64); 2] = [(L1, 0x4_0000 | COPIED), (0x4_0008, 0x5_0000 | COPIED)];

#[test]
fn a_caller_that_does_the_reading_itself_is_asked_for_one_slice_of_each_table() {
    let image = open(&empty(1 << 30), &MAPPED);
    let wanted = range(CLUSTER + 512, 4096);
    for at in [L1, 0x4_0000] {
        let need = need(&image, wanted);
        assert_eq!((need.at, need.len), (HostOffset(at), 4096));
        assert_eq!(
            image.supply(&need, &need.read().expect("memory")).expect("no I/O"),
            Supplied::Taken
        );
    }
    let Lookup::Found(extent) = image.map_cached(wanted).expect("valid") else {
        panic!("all is there")
    };
    assert_eq!(extent.len, 4096);
    let Source::Data { at, shared, .. } = extent.source else { panic!("{:?}", extent.source) };
    assert_eq!((at, shared), (HostOffset(0x5_0200), false));
}

#[test]
fn bytes_that_nobody_asked_for_are_ignored() {
    let image = open(&empty(1 << 30), &MAPPED);
    let asked = need(&image, range(0, 1));
    let strange = Need { ticket: asked.ticket | 3, ..asked };
    assert_eq!(image.supply(&strange, &[0xFF; 4096]).expect("no I/O"), Supplied::Taken);
    let late = Need { ticket: asked.ticket.wrapping_add(1 << 20), ..asked };
    assert_eq!(image.supply(&late, &[0xFF; 4096]).expect("no I/O"), Supplied::Taken);
    assert_eq!(need(&image, range(0, 1)).at, HostOffset(L1));
}

#[test]
fn data_under_a_table_or_an_entry_that_others_share_is_shared() {
    for words in [
        [(L1, 0x4_0000), (0x4_0008, 0x5_0000 | COPIED)],
        [(L1, 0x4_0000 | COPIED), (0x4_0008, 0x5_0000)],
    ] {
        let image = open(&empty(1 << 30), &words);
        let extent = image.map(range(CLUSTER, 512)).expect("valid");
        assert!(matches!(extent.source, Source::Data { shared: true, .. }), "{:?}", extent.source);
    }
}

#[test]
fn an_image_of_64_tebibytes_opens_and_is_walked_at_once() {
    let start = Instant::now();
    let size = 64 << 40;
    let image = open(&empty(size), &[]);
    let (mut at, mut extents) = (0, 0);
    while at < size {
        let extent = image.map(range(at, size - at)).expect("valid");
        assert!(matches!(extent.source, Source::Absent { reserved: None }));
        at += extent.len;
        extents += 1;
    }
    assert_eq!(extents, 256, "a slice of the L1 table at a time");
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
}

#[test]
fn with_little_memory_for_tables_everything_can_still_be_read() {
    let mut limits = Limits::default();
    limits.table_cache = 0;
    let size = 64 << 40;
    let image = Qcow2Image::open(store(&empty(size), &MAPPED), &limits).expect("valid");
    for number in 0..1000 {
        let at = number * 4_093 * CLUSTER % size;
        assert!(image.map(range(at, 512)).is_ok());
    }
    let extent = image.map(range(CLUSTER, 512)).expect("valid");
    assert!(matches!(extent.source, Source::Data { .. }));
}

#[test]
fn tables_that_name_each_other_are_read_as_what_they_say() {
    // The L1 table names itself as L2 table: guest cluster 0 is then the L1 table.
    let image = open(&empty(1 << 30), &[(L1, L1 | COPIED)]);
    let extent = image.map(range(0, 512)).expect("valid");
    let Source::Data { at, .. } = extent.source else { panic!("{:?}", extent.source) };
    assert_eq!(at, HostOffset(L1));
}

#[test]
fn a_tail_shorter_than_a_sector_does_not_belong_to_the_disk() {
    assert_eq!(open(&empty((1 << 30) + 511), &[]).size(), 1 << 30);
}

#[test]
fn the_magic_of_an_older_format_is_not_taken_for_qcow2() {
    let verdict = |head: &[u8]| QCOW2.probe(&Sample { head, tail: head, len: head.len() as u64 });
    assert_eq!(verdict(b"QFI\xfb\0\0\0\x02"), Verdict::Magic);
    assert_eq!(verdict(b"QFI\xfb\0\0\0\x03rest"), Verdict::Magic);
    assert_eq!(verdict(b"QFI\xfb\0\0\0\x01"), Verdict::No);
    assert_eq!(verdict(b"QFI\xfb\0\0"), Verdict::No);
    assert_eq!(verdict(b""), Verdict::No);
}

#[test]
fn an_image_that_needs_a_repair_that_does_not_help_is_read_and_not_written() {
    for (bit, why) in [
        (incompatible::CORRUPT, "it is marked corrupt (incompatible feature bit 1)"),
        (
            incompatible::DIRTY,
            "the L1 table, 0x10 bytes at 0x30000, reaches past the end of the file at 0x78",
        ),
    ] {
        let header = Header { incompatible_features: bit, ..empty(1 << 30) };
        let (location, limits) = (Location::Other("memory".into()), Limits::default());
        let request = |access| OpenRequest {
            store: store(&header, &[]),
            location: &location,
            access,
            resolver: &NoReferences,
            limits: &limits,
            secrets: &NoSecrets,
        };
        assert!(QCOW2.open(request(Access::Read)).is_ok());
        let error = QCOW2.open(request(Access::ReadWrite)).unwrap_err();
        assert_eq!(error.to_string(), format!("qcow2: the image needs repair: {why}"));
    }
}

#[test]
fn a_header_longer_than_the_limit_is_not_read() {
    let mut header = empty(1 << 30);
    header.extensions = vec![anydisk_qcow2::Extension { kind: 7, data: vec![0; 5000] }];
    let mut limits = Limits::default();
    limits.descriptor = 4096;
    let error = Qcow2Image::open(store(&header, &[]), &limits).unwrap_err().to_string();
    assert_eq!(
        error,
        "qcow2: header with its extensions, in bytes is 5120, more than the limit of 4096"
    );
}

fn json(value: &DetailValue) -> Value {
    match value {
        DetailValue::Flag(flag) => Value::from(*flag),
        DetailValue::Number(number) => Value::from(*number),
        DetailValue::Text(text) => Value::from(text.as_str()),
        DetailValue::List(list) => list.iter().map(json).collect(),
        DetailValue::Map(map) => object(map),
        _ => Value::Null,
    }
}

fn object(details: &[Detail]) -> Value {
    details
        .iter()
        .map(|detail| (detail.name.to_owned(), json(&detail.value)))
        .collect::<Map<_, _>>()
        .into()
}

#[test]
fn info_tells_what_qemu_img_tells_of_every_golden_image() {
    let mut compared = 0;
    for case in cases("qcow2").iter().filter(|case| case.expect.open == OpenVerdict::Ok) {
        let info = &case.json["qemu"]["info"];
        let expected = info["format-specific"]["data"].clone();
        if !expected.is_object() {
            continue;
        }
        let unpacked = case.unpack();
        let file = FileStorage::open(&unpacked.path, &OpenOptions::new()).expect("is there");
        let Ok(image) = Qcow2Image::open(Arc::new(file), &Limits::default()) else { continue };
        let ours = image.info();
        assert_eq!(object(&ours.details), expected, "{case}");
        assert_eq!(ours.cluster_size, info["cluster-size"].as_u64(), "{case}");
        assert_eq!(Some(ours.dirty), info["dirty-flag"].as_bool(), "{case}");
        compared += 1;
    }
    assert!(compared > 100, "{compared} images compared");
}

#[test]
fn a_store_that_ends_in_a_table_reads_as_if_zeroes_followed() {
    let header = empty(1 << 30);
    let image = open(&header, &[(L1, 0x4_0000 | COPIED)]);
    assert_eq!(image.header(), &header);
    let extent = image.map(range(0, 1 << 30)).expect("valid");
    assert!(matches!(extent.source, Source::Absent { .. }));
}
