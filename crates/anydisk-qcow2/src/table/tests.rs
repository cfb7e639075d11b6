//! The arithmetic against a slow model that looks at every subcluster by itself.

use anydisk_core::{GuestOffset, GuestRange, HostOffset};
use proptest::prelude::*;

use super::*;
use crate::layout::entry::{COMPRESSED, COPIED, ZERO};

fn geometry(version: u32, cluster_bits: u32, extended: bool) -> Geometry {
    Geometry {
        version,
        cluster_bits,
        data_file: false,
        l2_bits: cluster_bits - if extended { 4 } else { 3 },
        slice_bits: cluster_bits.min(SLICE_BITS),
    }
}

fn range(start: u64, len: u64) -> GuestRange {
    GuestRange::new(GuestOffset(start), len).expect("small numbers")
}

/// What the specification says about one byte, word for word; `None` where it says "invalid".
fn model(geometry: &Geometry, entry: L2Entry, within: u64) -> Option<Cluster> {
    let cluster_size = 1_u64 << geometry.cluster_bits;
    if entry.word >> 62 & 1 == 1 {
        let x = 62 - (geometry.cluster_bits - 8);
        let at = entry.word % (1 << x);
        let additional = entry.word % (1 << 62) / (1 << x);
        let end = (at / 512 + additional + 1) * 512;
        let in_reach = at < 1 << 56;
        return in_reach
            .then(|| Cluster::Compressed(Compressed { at: HostOffset(at), len: end - at }));
    }
    let host = entry.word % (1 << 56) / 512 * 512;
    if !host.is_multiple_of(cluster_size) {
        return None;
    }
    let place = (host != 0).then(|| HostOffset(host + within));
    let data = place.map(|at| Cluster::Data { at, copied: entry.word >> 63 == 1 });
    if !geometry.is_extended() {
        return match (entry.word % 2, geometry.version) {
            (1, 2) => None,
            (1, _) => Some(Cluster::Zero { reserved: place }),
            _ => data.or(Some(Cluster::Absent { reserved: None })),
        };
    }
    for i in 0..32 {
        let allocated = entry.bitmap >> i & 1 == 1;
        if allocated && (entry.bitmap >> (32 + i) & 1 == 1 || host == 0) {
            return None;
        }
    }
    let subcluster = within / (cluster_size / 32);
    match (entry.bitmap >> subcluster & 1, entry.bitmap >> (32 + subcluster) & 1) {
        (1, _) => data,
        (_, 1) => Some(Cluster::Zero { reserved: place }),
        _ => Some(Cluster::Absent { reserved: place }),
    }
}

/// Words that look like entries: neighbours often follow each other, and some are nonsense.
fn words(cluster_bits: u32) -> impl Strategy<Value = Vec<u64>> {
    let flags =
        prop_oneof![6 => Just(COPIED), 1 => Just(0), 1 => Just(ZERO), 1 => Just(ZERO | COPIED)];
    let standard = (0u64..6, flags).prop_map(move |(number, flags)| number << cluster_bits | flags);
    let compressed = any::<u64>().prop_map(|bits| bits >> 2 | COMPRESSED);
    let word = prop_oneof![20 => standard, 2 => compressed, 1 => any::<u64>(), 10 => Just(0)];
    proptest::collection::vec((word, any::<bool>()), 64).prop_map(move |list| {
        let mut words: Vec<u64> = Vec::new();
        for (word, follows) in list {
            let next = words.last().map(|last| last.wrapping_add(1 << cluster_bits));
            words.push(next.filter(|_| follows).unwrap_or(word));
        }
        words
    })
}

/// Bitmaps with long runs of equal bits.
fn bitmaps() -> impl Strategy<Value = u64> {
    let pieces = proptest::collection::vec((0u64..3, 1u32..12), 1..8);
    let valid = pieces.prop_map(|pieces| {
        let kinds = pieces.iter().flat_map(|(kind, len)| (0..*len).map(move |_| *kind)).take(32);
        kinds.enumerate().fold(0, |bits, (i, kind)| match kind {
            0 => bits,
            1 => bits | 1 << i,
            _ => bits | 1 << (32 + i),
        })
    });
    let without_data = valid.clone().prop_map(|bits| bits & !ALLOCATED);
    prop_oneof![6 => valid, 6 => without_data, 1 => any::<u64>(), 1 => Just(0)]
}

/// A geometry with a slice of its entries.
fn tables() -> impl Strategy<Value = (Geometry, Vec<u64>)> {
    (2u32..=3, 9u32..=21, any::<bool>()).prop_flat_map(|(version, bits, extended)| {
        let extended = extended && bits >= 14;
        let geometry = geometry(if extended { 3 } else { version }, bits, extended);
        (words(bits), proptest::collection::vec(bitmaps(), 64)).prop_map(move |(words, maps)| {
            let words = if extended {
                words.iter().zip(maps).flat_map(|(word, map)| [*word, map]).collect()
            } else {
                words
            };
            (geometry, words)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_byte_of_a_run_has_the_answer_of_the_run_and_the_byte_behind_has_not(
        (geometry, words) in tables(),
        first in 0u64..64,
        (skip, len) in (any::<u64>(), 1u64..1 << 28),
    ) {
        let (cluster, step) = (geometry.cluster_size(), geometry.subcluster_size().min(512));
        let range = range(first * cluster + skip % cluster, len);
        let answer = |at: u64| {
            let index = usize::try_from(at / cluster).expect("small");
            let entry = geometry.entry(&words[..], index * geometry.entry_words());
            model(&geometry, entry, at % cluster)
        };
        let start = range.start().get();
        let word = usize::try_from(first).expect("small") * geometry.entry_words();
        let Ok(run) = geometry.run(&words[..], word, range) else {
            prop_assert_eq!(answer(start), None);
            return Ok(());
        };
        prop_assert!(run.len >= 1 && run.len <= range.len());
        prop_assert_eq!(answer(start), Some(run.cluster));
        let follows = |at: u64| {
            let next = answer(at);
            match run.cluster {
                Cluster::Compressed(_) => at / cluster == first && next == Some(run.cluster),
                _ => next.is_some_and(|next| run.cluster.continues(at - start, next)),
            }
        };
        // One look at each subcluster is enough: inside, offsets grow with the bytes by definition.
        let borders = (start / step + 1..).map(|n| n * step).take_while(|at| *at < start + run.len);
        for at in borders.step_by(usize::try_from((run.len / step / 512).max(1)).expect("small")) {
            prop_assert!(follows(at), "{:#x} of {:?}", at, run);
        }
        let end = start + run.len;
        if run.len < range.len() && end < 64 * cluster {
            prop_assert!(!follows(end), "{:?} could go on", run);
        }
    }

    #[test]
    fn a_compressed_entry_says_what_it_was_made_of(bits in 9u32..=21, at in any::<u64>(), len in 1u64..1 << 22) {
        let geometry = geometry(3, bits, false);
        let at = at >> 8 & ((1 << geometry.stream_offset_bits()) - 1);
        let last_sector = (at + len - 1) / 512;
        match geometry.compressed_entry(HostOffset(at), len) {
            Some(entry) => {
                let Ok((Cluster::Compressed(read), _)) = geometry.decode(entry, 0) else {
                    panic!("not compressed: {entry:?}");
                };
                prop_assert_eq!(read.at, HostOffset(at));
                prop_assert!(read.len >= len && (at + read.len) / 512 == last_sector + 1);
            }
            None => prop_assert!(last_sector - at / 512 >= 1 << (bits - 8)),
        }
    }

    #[test]
    fn a_table_is_cut_into_slices_that_do_not_cross_clusters(
        bits in 9u32..=21,
        extended in any::<bool>(),
        table in 1u64..1 << 30,
        guest in 0u64..1 << 50,
    ) {
        let geometry = geometry(3, bits, extended && bits >= 14);
        let table = HostOffset(table << bits);
        let slot = geometry.l2_slot(table, GuestOffset(guest));
        let entry_len = 8 * geometry.entry_words() as u64;
        let index = (guest >> bits) % (geometry.cluster_size() / entry_len);
        let inside = slot.slice.get() - table.get();
        prop_assert_eq!(inside + slot.word as u64 * 8, index * entry_len);
        prop_assert_eq!(inside % geometry.slice_len() as u64, 0);
        prop_assert!(slot.word * 8 < geometry.slice_len());
        prop_assert!(inside < geometry.cluster_size());
    }

    #[test]
    fn l2_tables_that_are_not_there_are_counted_together(
        words in proptest::collection::vec(prop_oneof![3 => Just(0), 1 => Just(0x2_0000 | COPIED)], 512),
        first in 0u64..512,
        skip in 0u64..1 << 29,
        len in 1u64..1 << 40,
    ) {
        let geometry = geometry(3, 16, false);
        let range = range((first << 29) + skip, len);
        let word = usize::try_from(first).expect("small");
        match geometry.l1_run(&words[..], word, range).expect("aligned") {
            L1Run::Table { at, copied } => {
                prop_assert!(copied);
                prop_assert_eq!(words[word], at.get() | COPIED);
            }
            L1Run::Absent(len) => {
                let empty = words[word..].iter().take_while(|word| **word == 0).count() as u64;
                prop_assert_eq!(len, ((empty << 29) - skip).min(range.len()));
            }
        }
    }
}

#[test]
fn compressed_entries_of_qemu_are_read_as_qemu_wrote_them() {
    let cases = [
        (12, 0x4000_0000_0000_5000, 0x5000, 512),
        (12, 0x4800_0000_0000_5016, 0x5016, 1514),
        (12, 0x5c00_0000_0000_5e38, 0x5E38, 4040),
        (16, 0x49c0_0000_0005_004f, 0x5_004F, 20401),
    ];
    for (bits, word, at, len) in cases {
        let geometry = geometry(3, bits, false);
        let entry = L2Entry { word, bitmap: 0 };
        let expected = Compressed { at: HostOffset(at), len };
        assert_eq!(geometry.decode(entry, 0), Ok((Cluster::Compressed(expected), 1 << bits)));
        assert_eq!(geometry.compressed_entry(HostOffset(at), len), Some(entry));
    }
}

#[test]
fn a_broken_entry_is_named_with_its_place_its_value_and_the_rule() {
    let l2 = [0x2_0000, 0x2_0200 | COPIED];
    let fault = geometry(3, 16, false).run(&l2[..], 1, range(0x1_0000, 512)).unwrap_err();
    assert_eq!(
        fault.at(HostOffset(0x4_0000)).to_string(),
        "qcow2: L2 entry at 0x40008 is 0x8000000000020200, \
         expected a host offset that is a multiple of the cluster size"
    );
    let l2 = [0x2_0000 | COPIED, 0x3_0000_0003];
    let fault = geometry(3, 16, true).run(&l2[..], 0, range(0, 512)).unwrap_err();
    assert_eq!(
        fault.at(HostOffset(0x4_0000)).to_string(),
        "qcow2: L2 subcluster bitmap at 0x40008 is 0x300000003, \
         expected no subcluster both allocated and zero"
    );
    let l1 = [0x4_0200 | COPIED];
    let fault = geometry(3, 16, false).l1_run(&l1[..], 0, range(0, 512)).unwrap_err();
    assert_eq!(
        fault.at(HostOffset(0x3_0000)).to_string(),
        "qcow2: L1 entry at 0x30000 is 0x8000000000040200, \
         expected an L2 table at a multiple of the cluster size"
    );
}

#[test]
fn in_an_external_data_file_each_cluster_lies_where_the_guest_has_it() {
    let geometry = Geometry { data_file: true, ..geometry(3, 12, false) };
    let run = |words: &[u64], word: usize| {
        let start = word as u64 * 4096;
        geometry.run(words, word, range(start, 1 << 20)).map_err(|fault| fault.rule)
    };
    // The first cluster of the data file is named by the flag alone.
    let own = [COPIED, COPIED | 0x1000, COPIED | 0x2000, 0];
    let data = |at| Cluster::Data { at: HostOffset(at), copied: true };
    assert_eq!(run(&own, 0), Ok(Run { len: 0x3000, cluster: data(0) }));
    assert_eq!(run(&own, 2), Ok(Run { len: 0x1000, cluster: data(0x2000) }));
    assert_eq!(run(&[0], 0).map(|run| run.cluster), Ok(Cluster::Absent { reserved: None }));
    assert_eq!(
        run(&[COPIED | ZERO], 0).map(|run| run.cluster),
        Ok(Cluster::Zero { reserved: None })
    );
    assert_eq!(run(&[COPIED | 0x1000], 0), Err(Rule::HostIsGuest));
    assert_eq!(run(&[COMPRESSED | 0x1000], 0), Err(Rule::NoStream));
}
