use anydisk_core::{HostOffset, Limits, Storage, StorageExt};
use anydisk_testkit::double::CrashStorage;
use proptest::prelude::*;

use super::*;
use crate::extensions::Extension;
use crate::features::name_table;
use crate::header::Compression;
use crate::layout::extension;

fn header(cluster_bits: u32) -> Header {
    let names = Extension { kind: extension::FEATURE_NAMES, data: name_table() };
    Header {
        version: 3,
        cluster_bits,
        size: 1 << 20,
        crypt_method: 0,
        l1_size: 64,
        l1_table_offset: HostOffset(3 << cluster_bits),
        refcount_table_offset: HostOffset(1 << cluster_bits),
        refcount_table_clusters: 1,
        nb_snapshots: 0,
        snapshots_offset: HostOffset::ZERO,
        incompatible_features: 0,
        compatible_features: 1 << 17,
        autoclear_features: 0,
        refcount_order: 4,
        compression: Compression::Deflate,
        unknown_fields: b"whatever".to_vec(),
        extensions: if cluster_bits > 12 { vec![names] } else { Vec::new() },
        backing_file: None,
    }
}

/// A store that holds `header` durably, and the header as it lives there.
fn live(header: Header) -> (CrashStorage, LiveHeader) {
    let crash = CrashStorage::over(header.to_bytes().expect("it fits"));
    let store: Arc<dyn Storage> = Arc::new(crash.clone());
    (crash, LiveHeader::open(&store, header).expect("memory does not fail"))
}

fn read(store: &dyn Storage) -> Header {
    Header::read(store, &Limits::default()).expect("a header")
}

fn named(name: &[u8]) -> impl FnOnce(&mut Header) -> Result<()> + '_ {
    move |header| {
        let format = Extension { kind: extension::BACKING_FORMAT, data: b"raw".to_vec() };
        header.extensions.insert(0, format);
        header.backing_file = Some(name.to_vec());
        Ok(())
    }
}

fn with_bitmaps(header: &mut Header) -> Result<()> {
    header.extensions.push(Extension { kind: extension::BITMAPS, data: vec![7; 24] });
    Ok(())
}

#[test]
fn each_group_of_fields_is_changed_by_one_write_and_read_again() {
    let (store, live) = live(header(16));
    live.set_l1(HostOffset(0x70000), 65).expect("written");
    live.set_refcount_table(HostOffset(0x80000), 2).expect("written");
    live.set_snapshots(HostOffset(0x90000), 3).expect("written");
    live.set_size(2 << 20).expect("written");
    live.set_features(|bits| bits.incompatible |= 1).expect("written");
    let mut expected = header(16);
    (expected.l1_table_offset, expected.l1_size) = (HostOffset(0x70000), 65);
    (expected.refcount_table_offset, expected.refcount_table_clusters) = (HostOffset(0x80000), 2);
    (expected.snapshots_offset, expected.nb_snapshots) = (HostOffset(0x90000), 3);
    (expected.size, expected.incompatible_features) = (2 << 20, 1);
    assert_eq!(read(&store), expected);
    live.with(|now| assert_eq!(*now, expected));
}

#[test]
fn promises_that_nobody_keeps_end_when_the_image_is_opened_for_writing() {
    let (store, live) = live(Header { autoclear_features: 1 << 63 | 1 << 5, ..header(16) });
    assert_eq!(read(&store).autoclear_features, 0);
    live.with(|now| assert_eq!(now.autoclear_features, 0));
}

#[test]
fn bits_that_stay_as_they_are_cost_no_write_and_version_2_has_none() {
    for header in [header(16), Header { version: 2, ..header(16) }] {
        let v2 = header.version == 2;
        let (store, live) = live(header);
        let before = store.unflushed();
        live.set_features(|bits| bits.compatible |= if v2 { 2 } else { 0 }).expect("nothing to do");
        assert_eq!(store.unflushed(), before);
    }
}

#[test]
fn a_header_that_does_not_fit_changes_nothing() {
    let (store, live) = live(header(9));
    let error = live.rewrite(named(&[b'x'; 400])).unwrap_err();
    assert!(error.to_string().contains("header with extensions"), "{error}");
    assert_eq!(read(&store), header(9));
    live.with(|now| assert_eq!(*now, header(9)));
    assert!(!live.has_backing());
}

#[test]
fn a_name_that_is_gone_leaves_no_trace() {
    let (store, live) = live(header(16));
    live.rewrite(named(b"secret.img")).expect("written");
    assert!(live.has_backing());
    live.rewrite(|header| {
        header.backing_file = None;
        Ok(())
    })
    .expect("written");
    assert!(!live.has_backing());
    let mut bytes = vec![0; usize::try_from(store.len().expect("a length")).expect("small")];
    store.read_padded_at(HostOffset::ZERO, &mut bytes).expect("read");
    assert!(!bytes.windows(6).any(|bytes| bytes == b"secret"));
}

/// Changes the header and looks at every state that a power failure may leave.
fn survives(start: Header, change: impl FnOnce(&mut Header) -> Result<()>) {
    let (store, live) = live(start.clone());
    store.flush().expect("flushed");
    live.rewrite(change).expect("it fits");
    let new = live.with(Header::clone);
    assert_eq!(read(&store), new);
    for state in store.torn_states(64, 1) {
        let found = read(&*state.storage());
        assert!(found == start || found == new, "{state}: {found:?}");
    }
}

#[test]
fn a_power_failure_leaves_the_old_header_or_the_new_one() {
    for bits in [9, 12, 16] {
        let with_name = || {
            let mut header = header(bits);
            named(b"below.img")(&mut header).expect("a name");
            header
        };
        survives(header(bits), named(b"below.img"));
        survives(header(bits), with_bitmaps);
        survives(with_name(), with_bitmaps);
        survives(with_name(), |header| {
            header.backing_file = None;
            header.extensions.remove(0);
            Ok(())
        });
        survives(with_name(), |header| {
            header.backing_file = Some(b"another/and/longer/name.qcow2".to_vec());
            Ok(())
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn extensions_of_any_length_come_and_go_and_a_torn_write_harms_none(
        lengths in proptest::collection::vec(0_usize..200, 0..6),
        name in proptest::option::of(1_usize..300),
        gone in any::<prop::sample::Index>(),
        new in 0_usize..300,
    ) {
        let mut start = header(14);
        for (number, len) in lengths.iter().enumerate() {
            let kind = 0x100 + u32::try_from(number).expect("few");
            start.extensions.push(Extension { kind, data: vec![1; *len] });
        }
        start.backing_file = name.map(|len| vec![b'n'; len]);
        let gone = gone.index(start.extensions.len());
        let (store, live) = live(start.clone());
        live.rewrite(|header| {
            header.extensions.remove(gone);
            header.extensions.push(Extension { kind: 0x999, data: vec![2; new] });
            Ok(())
        }).expect("it fits");
        let mut expected = start;
        expected.extensions.remove(gone);
        expected.extensions.push(Extension { kind: 0x999, data: vec![2; new] });
        prop_assert_eq!(read(&store), expected);
    }
}
