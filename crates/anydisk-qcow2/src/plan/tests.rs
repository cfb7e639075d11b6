//! Plans and changes of entries, looked at one subcluster at a time.

use proptest::prelude::*;

use super::*;
use crate::layout::entry::COMPRESSED;
use crate::{Compression, Header};

const CLUSTER: u64 = 16 << 10;
const SUBCLUSTER: u64 = CLUSTER / 32;

fn geometry(extended: bool) -> Geometry {
    Geometry::new(&Header {
        version: 3,
        cluster_bits: 14,
        size: 1 << 20,
        crypt_method: 0,
        l1_size: 1,
        l1_table_offset: HostOffset::ZERO,
        refcount_table_offset: HostOffset::ZERO,
        refcount_table_clusters: 1,
        nb_snapshots: 0,
        snapshots_offset: HostOffset::ZERO,
        incompatible_features: if extended { 1 << 4 } else { 0 },
        compatible_features: 0,
        autoclear_features: 0,
        refcount_order: 4,
        compression: Compression::Deflate,
        unknown_fields: Vec::new(),
        extensions: Vec::new(),
        backing_file: None,
    })
}

fn range(start: u64, len: u64) -> GuestRange {
    GuestRange::new(GuestOffset(start), len).expect("small numbers")
}

/// Any valid entry: packed, or with or without a host cluster, and bits that agree with that.
fn entry(extended: bool) -> impl Strategy<Value = L2Entry> {
    let packed = (1_u64..1 << 40).prop_map(|at| L2Entry { word: COMPRESSED | at, bitmap: 0 });
    let standard = (any::<bool>(), any::<bool>(), 0_u64..4, any::<u32>(), any::<u32>()).prop_map(
        move |(copied, zero, host, allocated, other)| {
            let host = host * CLUSTER;
            let flags = if copied && host != 0 { COPIED } else { 0 };
            if !extended {
                return L2Entry { word: host | flags | u64::from(zero), bitmap: 0 };
            }
            let allocated = if host == 0 { 0 } else { allocated };
            let zero = other & !allocated;
            let bitmap = u64::from(allocated) | u64::from(zero) << 32;
            L2Entry { word: host | flags, bitmap }
        },
    );
    prop_oneof![1 => packed, 6 => standard]
}

fn entries() -> impl Strategy<Value = (bool, Vec<L2Entry>)> {
    any::<bool>().prop_flat_map(|extended| {
        (Just(extended), proptest::collection::vec(entry(extended), 1..6))
    })
}

fn words(extended: bool, entries: &[L2Entry]) -> Vec<u64> {
    let words = |entry: &L2Entry| {
        if extended { vec![entry.word, entry.bitmap] } else { vec![entry.word] }
    };
    entries.iter().flat_map(words).collect()
}

/// What each subcluster of the first clusters is; with standard entries all of a cluster are alike.
fn subclusters(geometry: &Geometry, entries: &[L2Entry]) -> Vec<Cluster> {
    let parts = |entry: &L2Entry| -> Vec<Cluster> {
        let answer = |part| geometry.decode(*entry, part * SUBCLUSTER).expect("valid").0;
        (0..32).map(answer).collect()
    };
    entries.iter().flat_map(parts).collect()
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("small")
}

proptest! {
    #[test]
    fn a_plan_takes_only_space_that_is_its_own_and_leaves_no_data_behind(
        (extended, entries) in entries(), own_table in any::<bool>(),
        start in any::<prop::sample::Index>(), len in 1_u64..60_000,
    ) {
        let geometry = geometry(extended);
        let disk = entries.len() as u64 * CLUSTER;
        let start = start.index(index(disk)) as u64;
        let asked = range(start, len).before(GuestOffset(disk));
        let words = words(extended, &entries);
        let word = index(start / CLUSTER) * geometry.entry_words();
        let plan = geometry.plan(words.as_slice(), word, asked, own_table).expect("valid");
        let parts = subclusters(&geometry, &entries);
        let is_own = |part: usize| own_table && {
            let entry = entries[part / 32];
            entry.is_copied() && entry.host().is_some()
        };
        let first = index(start / SUBCLUSTER);
        let is_data = |part: usize| matches!(parts[part], Cluster::Data { .. });
        prop_assert_eq!(plan == Plan::InPlace, is_own(first) && is_data(first));
        let Some(units) = plan.units() else { return Ok(()) };
        prop_assert!(units.start() <= asked.start() && units.end() > asked.start());
        prop_assert!(units.contains(asked) || units.end() < asked.end());
        prop_assert_eq!(units.grown_to(geometry.subcluster_size()), units);
        let covered = index(units.start().get() / SUBCLUSTER)..index(units.end().get() / SUBCLUSTER);
        if let Plan::Reuse { at, .. } = plan {
            for (number, part) in covered.clone().enumerate() {
                let reserved = Some(HostOffset(at.get() + number as u64 * SUBCLUSTER));
                let kept = [Cluster::Zero { reserved }, Cluster::Absent { reserved }];
                prop_assert!(is_own(part) && kept.contains(&parts[part]), "{part}: {:?}", parts[part]);
            }
        } else {
            let clusters = covered.start / 32..covered.end.div_ceil(32);
            let touched = parts.iter().enumerate().take(clusters.end * 32).skip(clusters.start * 32);
            for (part, holds) in touched {
                prop_assert!(!is_own(part), "{part}");
                let moves = matches!(holds, Cluster::Data { .. } | Cluster::Compressed(_));
                prop_assert!(!moves || covered.contains(&part), "{part}");
            }
        }
    }

    #[test]
    fn data_in_some_subclusters_changes_no_other(
        (extended, entries) in entries(), first in 0_u64..32, count in 1_u64..32,
        moved in any::<bool>(),
    ) {
        let geometry = geometry(extended);
        let old = entries[0];
        let host = match old.host() {
            Some(host) if !moved && !old.is_compressed() => host,
            _ => HostOffset(9 * CLUSTER),
        };
        let written = range(first * SUBCLUSTER, count * SUBCLUSTER).before(GuestOffset(CLUSTER));
        let units = geometry.subclusters_in(GuestOffset(0), written);
        let new = geometry.with_data(old, host, units);
        let before = subclusters(&geometry, &[old]);
        for (part, after) in subclusters(&geometry, &[new]).into_iter().enumerate() {
            let at = HostOffset(host.get() + part as u64 * SUBCLUSTER);
            let data = Cluster::Data { at, copied: true };
            let is_written = !extended || written.contains(range(part as u64 * SUBCLUSTER, 1));
            let expected = match before[part] {
                _ if is_written => data,
                Cluster::Data { .. } if old.host() == Some(host) => data,
                Cluster::Zero { .. } => Cluster::Zero { reserved: Some(at) },
                _ => Cluster::Absent { reserved: Some(at) },
            };
            prop_assert_eq!(after, expected, "{}", part);
        }
    }

    #[test]
    fn zeroes_in_some_subclusters_change_no_other(
        old in entry(true), first in 0_u64..32, count in 1_u64..32,
    ) {
        prop_assume!(!old.is_compressed());
        let geometry = geometry(true);
        let zeroed = range(first * SUBCLUSTER, count * SUBCLUSTER).before(GuestOffset(CLUSTER));
        let new = geometry.with_zero_units(old, geometry.subclusters_in(GuestOffset(0), zeroed));
        let (before, after) = (subclusters(&geometry, &[old]), subclusters(&geometry, &[new]));
        for part in 0..32 {
            if zeroed.contains(range(part * SUBCLUSTER, 1)) {
                let is_zero = matches!(after[index(part)], Cluster::Zero { .. });
                prop_assert!(is_zero, "{}", part);
            } else {
                prop_assert_eq!(after[index(part)], before[index(part)], "{}", part);
            }
        }
        prop_assert_eq!(geometry.references(new), geometry.references(old));
    }

    #[test]
    fn a_cluster_of_zeroes_is_zero_throughout(
        (extended, entries) in entries(), keep in any::<bool>(),
    ) {
        let geometry = geometry(extended);
        let new = geometry.with_zeroes(entries[0], keep);
        for part in subclusters(&geometry, &[new]) {
            let is_zero = matches!(part, Cluster::Zero { .. });
            prop_assert!(is_zero);
        }
        let kept = keep && !entries[0].is_compressed();
        let expected = if kept { geometry.references(entries[0]) } else { None };
        prop_assert_eq!(geometry.references(new), expected);
    }
}

#[test]
fn a_stream_refers_to_every_cluster_it_may_reach_into() {
    let geometry = geometry(false);
    let at = HostOffset(3 * CLUSTER - 10);
    let entry = geometry.compressed_entry(at, 20).expect("it can be said");
    assert_eq!(geometry.references(entry), Some(Clusters::new(2, 2)));
}

#[test]
fn a_long_range_is_planned_as_one_up_to_the_first_cluster_of_its_own() {
    let geometry = geometry(false);
    let own = L2Entry::data(HostOffset(5 * CLUSTER)).word;
    let l2 = [0, ZERO, 6 * CLUSTER, own, 0];
    let plan = geometry.plan(l2.as_slice(), 0, range(100, 5 * CLUSTER - 100), true);
    assert_eq!(plan, Ok(Plan::Fresh { range: range(0, 3 * CLUSTER) }));
}
