//! What qemu gets wrong, one by one; `docs/qemu-defects.md` lists all of it with the tests that show
//! that it is otherwise here. What qemu does is recorded with the golden images.

use std::sync::Arc;

use crate::common::{Dump, create, disk, load, memory, save, try_open};
use anydisk_core::{
    Access, AmendRequest, CheckReport, CheckRequest, CreateRequest, Disk, Error, Finding, Format,
    GuestOffset, HostOffset, Limits, Location, NewBitmap, OneSecret, OpenRequest, Options, Repair,
    Secret, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_testkit::golden::{Case, cases};
use anydisk_testkit::oracle::Qemu;

fn golden(name: &str) -> Case {
    cases("qcow2").into_iter().find(|case| case.name == name).expect("it is there")
}

fn check(store: &Arc<dyn Storage>, repair: Repair, data: bool) -> (CheckReport, Vec<Finding>) {
    let (location, limits) = (Location::Other("test".into()), Limits::default());
    let mut open = OpenRequest::new(Arc::clone(store), &location, &limits);
    if repair != Repair::Nothing {
        open.access = Access::ReadWrite;
    }
    let mut request = CheckRequest::new(open).repairing(repair);
    request.data = data;
    let mut found = Vec::new();
    let report = QCOW2.check(&request, &mut |one| found.push(one)).expect("it can be checked");
    (report, found)
}

fn contents(store: &Arc<dyn Storage>) -> Vec<u8> {
    let disk = Disk::new(try_open(store, Access::Read).expect("it opens"));
    let mut bytes = vec![0; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset(0), &mut bytes).expect("it reads");
    bytes
}

fn bytes_of(store: &Arc<dyn Storage>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(store.len().expect("a length")).expect("small")];
    store.read_at(HostOffset::ZERO, &mut bytes).expect("a read of memory");
    bytes
}

/// Damage that qemu-img check calls clean, and what it is called here.
const MISSED: &[(&str, &str)] = &[
    ("v2-zero-flag", "zero-flag-in-version-2"),
    ("v2-zero-flag-alloc", "zero-flag-in-version-2"),
    ("datafile-mismatch", "data-file-mismatch"),
    ("extl2-bit0", "reserved-bits"),
    ("refcount-past-eof", "leak"),
    ("dirty-clean", "marked-dirty"),
    ("compressed-garbage", "compressed-data-broken"),
    ("stream-zlib-short", "compressed-data-broken"),
];

#[test]
fn damage_that_qemus_check_calls_clean_is_found() {
    for (name, kind) in MISSED {
        let case = golden(name);
        assert_eq!(case.json["qemu"]["check"]["exit"], 0, "{name}: qemu found it");
        let (_, found) = check(&load(&case.unpack().path), Repair::Nothing, true);
        assert!(found.iter().any(|one| one.kind == *kind), "{name}: {found:?}");
    }
}

/// qemu tells of a cluster that is named twice that its refcount is 1; what lies there and is
/// endangered it does not tell.
#[test]
fn metadata_that_overlaps_or_names_itself_is_told_as_such() {
    for name in ["l2-is-l1-loop", "data-is-l2-loop", "l1-is-reftable", "l2-is-refblock"] {
        let (_, found) = check(&load(&golden(name).unpack().path), Repair::Nothing, false);
        assert!(found.iter().any(|one| one.kind == "metadata-overlap"), "{name}: {found:?}");
    }
}

/// A snapshot whose entry is damaged: qemu's repair of leaks frees what it holds.
#[test]
fn a_repair_of_leaks_keeps_the_clusters_of_a_snapshot_whose_entry_is_damaged() {
    let case = golden("snap-l1-too-large");
    assert_eq!(case.json["qemu"]["repair_leaks"]["recheck"]["result"]["corruptions"], 8);
    let store = load(&case.unpack().path);
    let before = bytes_of(&store);
    let (report, _) = check(&store, Repair::Leaks, false);
    assert!(bytes_of(&store) == before && report.leaks_fixed == 0, "{report:?}");
}

/// An L1 entry names the L1 table: qemu's repair of all frees the data that lost its table, then
/// fails.
#[test]
fn a_repair_of_all_frees_no_data_below_a_damaged_table() {
    let case = golden("l2-is-l1-loop");
    let store = load(&case.unpack().path);
    let counts = |store: &Arc<dyn Storage>| -> Vec<u64> {
        (4..9).map(|cluster| Dump::of(&**store).refcount(cluster << 12)).collect()
    };
    assert_eq!(counts(&store), [1; 5]);
    let (report, _) = check(&store, Repair::All, false);
    assert_eq!(counts(&store), [1; 5], "{report:?}");
    assert_eq!(report.leaks_fixed, 0);
}

/// An entry names its own table as its data: qemu's repair ends clean, and the guest reads other
/// bytes than before.
#[test]
fn a_repair_of_all_never_changes_what_the_guest_reads() {
    let case = golden("data-is-l2-loop");
    let qemu = &case.json["qemu"];
    assert_eq!(qemu["repair_all"]["recheck"]["exit"], 0);
    assert_ne!(qemu["repair_all"]["content_sha256"], qemu["content_sha256"]);
    let store = load(&case.unpack().path);
    let before = contents(&store);
    let (report, _) = check(&store, Repair::All, false);
    assert!(contents(&store) == before && report.corruptions > 0, "{report:?}");
}

/// The header names a snapshot table far behind the end of the file: qemu's repair makes up a
/// snapshot, and a file of a tebibyte.
#[test]
fn a_repair_makes_up_no_snapshot_for_a_table_that_is_not_there() {
    let case = golden("hdr-snap-offset-eof");
    assert_eq!(case.json["qemu"]["repair_all"]["recheck"]["exit"], 0);
    let store = load(&case.unpack().path);
    let (len, header) = (store.len().expect("a length"), Dump::of(&*store).header);
    let (report, _) = check(&store, Repair::All, false);
    let after = Dump::of(&*store).header;
    let place = |header: &anydisk_qcow2::Header| (header.snapshots_offset, header.nb_snapshots);
    assert_eq!(place(&after), place(&header));
    assert!(report.corruptions > 0 && store.len().expect("a length") < len + (1 << 16));
}

/// qemu's own repair cannot place new refcounts in these and gives up.
#[test]
fn refcounts_are_built_anew_where_qemus_repair_gives_up() {
    for name in ["reftable-reserved", "refblock-unaligned"] {
        let case = golden(name);
        assert_eq!(case.json["qemu"]["repair_all"]["run"]["exit"], 1, "{name}");
        let store = load(&case.unpack().path);
        let before = contents(&store);
        let (report, _) = check(&store, Repair::All, false);
        assert!(report.is_clean() && contents(&store) == before, "{name}: {report:?}");
        if let Some(qemu) = Qemu::find() {
            let file = tempfile::NamedTempFile::new().expect("a file");
            save(&*store, file.path());
            let checked = qemu.check(file.path(), "qcow2").expect("it can be checked");
            assert_eq!((checked.corruptions, checked.leaks), (0, 0), "{name}");
        }
    }
}

/// qemu turns the order of unknown extensions round each time it writes a header.
#[test]
fn unknown_header_extensions_keep_their_order_when_the_header_is_written() {
    let store = memory();
    create(&store, 1 << 20, &[("cluster_size", "4096")]);
    let kinds = [0x1234_5678_u32, 0x0bad_cafe, 0x7777_0001];
    let extension = |kind: u32| [kind.to_be_bytes(), 8_u32.to_be_bytes(), *b"some", *b"data"];
    let bytes: Vec<u8> = kinds.into_iter().flat_map(extension).flatten().collect();
    store.write_at(HostOffset(112), &[bytes, vec![0; 8]].concat()).expect("a write to memory");
    for lazy in ["on", "off"] {
        let (location, limits) = (Location::Other("test".into()), Limits::default());
        let mut open = OpenRequest::new(Arc::clone(&store), &location, &limits);
        open.access = Access::ReadWrite;
        let mut options = Options::to_amend(&QCOW2);
        options.set("lazy_refcounts", lazy).expect("an option");
        let request = AmendRequest { open, options: &options, force: false };
        QCOW2.amend(request).expect("it is amended");
        let header = Dump::of(&*store).header;
        let found: Vec<u32> = header.extensions.iter().map(|one| one.kind).collect();
        assert_eq!(found.iter().filter(|kind| kinds.contains(kind)).count(), 3);
        let unknown: Vec<_> = found.into_iter().filter(|kind| kinds.contains(kind)).collect();
        assert_eq!(unknown, kinds, "lazy_refcounts={lazy}");
    }
}

/// Makes an L2 entry name `place`, with the flag that allows writing there, and writes there.
fn write_onto(store: &Arc<dyn Storage>, place: u64, secrets: &OneSecret) -> Error {
    let dump = Dump::of(&**store);
    let table = dump.word(dump.header.l1_table_offset.get()) & !(1 << 63);
    let entry = 1_u64 << 63 | place;
    store.write_at(HostOffset(table + 8), &entry.to_be_bytes()).expect("a write to memory");
    let (location, limits) = (Location::Other("test".into()), Limits::default());
    let mut request = OpenRequest::new(Arc::clone(store), &location, &limits);
    (request.access, request.secrets) = (Access::ReadWrite, secrets);
    let disk = Disk::new(QCOW2.open(request).expect("it opens").image);
    let cluster = dump.header.cluster_size();
    disk.write(GuestOffset(cluster), &[2; 512]).expect_err("metadata lies there")
}

/// qemu's overlap checks know neither the clusters of bitmaps nor the crypto header.
#[test]
fn a_write_in_place_lands_neither_in_bitmaps_nor_in_the_crypto_header() {
    let key = OneSecret(Secret::new(b"secret".to_vec()));
    let store = memory();
    let image = create(&store, 1 << 20, &[]);
    let new = NewBitmap { name: "one".into(), granularity: None, enabled: true };
    image.bitmaps().expect("qcow2 has bitmaps").add(&new).expect("a bitmap");
    let top = disk(&image, None);
    top.write(GuestOffset(0), &[1; 512]).expect("a write to memory");
    top.flush().expect("a flush of memory");
    drop((top, image));
    let header = Dump::of(&*store).header;
    let data = header.extension(0x2385_2875).expect("the bitmaps extension").to_vec();
    let directory = u64::from_be_bytes(data[16..24].try_into().expect("eight bytes"));
    let table = Dump::of(&*store).word(directory);
    let bits = Dump::of(&*store).word(table);
    let original = bytes_of(&store);
    for place in [directory, table, bits] {
        let store: Arc<dyn Storage> =
            Arc::new(anydisk_storage::MemoryStorage::new(original.clone()));
        let error = write_onto(&store, place, &key);
        assert!(error.to_string().contains("a bitmap"), "{place:#x}: {error}");
    }

    let store = memory();
    let mut options = Options::of(&QCOW2);
    for (name, value) in [("encrypt.format", "luks"), ("encrypt.iter-time", "0")] {
        options.set(name, value).expect("an option");
    }
    let (location, limits) = (Location::Other("test".into()), Limits::default());
    let mut request = CreateRequest::new(Arc::clone(&store), &location, 1 << 20, &options, &limits);
    request.secrets = &key;
    let top = Disk::new(QCOW2.create(request).expect("it is made"));
    top.write(GuestOffset(0), &[1; 512]).expect("a write to memory");
    top.flush().expect("a flush of memory");
    drop(top);
    let (at, _) = Dump::of(&*store).header.crypto_header().expect("it has one");
    let error = write_onto(&store, at.get(), &key);
    assert!(error.to_string().contains("the crypto header"), "{error}");
}

/// After a shrink into the middle of a cluster qemu shows the old bytes when the disk grows again.
#[test]
fn a_disk_that_shrank_into_a_cluster_and_grows_again_shows_no_old_bytes() {
    let store = memory();
    let image = create(&store, 128 << 10, &[]);
    let top = disk(&image, None);
    top.write(GuestOffset(0), &vec![7; 128 << 10]).expect("a write to memory");
    for size in [32 << 10, 128 << 10] {
        top.resize(size, anydisk_core::Preallocation::Off).expect("it is resized");
    }
    top.flush().expect("a flush of memory");
    drop((top, image));
    let bytes = contents(&store);
    assert!(bytes[..32 << 10].iter().all(|byte| *byte == 7));
    assert!(bytes[32 << 10..].iter().all(|byte| *byte == 0));
}
