//! Images whose refcounts are too low: what is named is not written over.

use anydisk_core::{GuestOffset, HostOffset, Preallocation, Storage};

use crate::common::{Dump, Given, create, disk, memory, open};
use std::sync::Arc;

const CLUSTER: u64 = 4 << 10;
const SIZE: u64 = 1 << 20;

/// Four clusters of data, each of its number; of those of `low` the refcount is 0.
fn image(given: Given<'_>, low: &[u64]) -> Arc<dyn Storage> {
    let store = memory();
    {
        let image = create(&store, SIZE, given);
        let disk = disk(&image, None);
        for number in 1..=4_u8 {
            let at = GuestOffset(u64::from(number) * CLUSTER);
            disk.write(at, &[number; 4 << 10]).expect("written");
        }
        disk.flush().expect("flushed");
    }
    let dump = Dump::of(&*store);
    for number in low {
        let host = dump.entry(number * CLUSTER).host().expect("data");
        let at = dump.place_of_count(host.get()).expect("a block");
        store.write_at(HostOffset(at), &[0, 0]).expect("written");
    }
    store
}

fn data_is_there(store: &Arc<dyn Storage>) {
    let disk = disk(&open(store), None);
    for number in 1..=4_u8 {
        let mut bytes = [0; 4 << 10];
        disk.read(GuestOffset(u64::from(number) * CLUSTER), &mut bytes).expect("it reads");
        assert!(bytes == [number; 4 << 10], "cluster {number}");
    }
}

const KINDS: [Given<'_>; 2] =
    [&[("cluster_size", "4k")], &[("cluster_size", "16k"), ("extended_l2", "on")]];

#[test]
fn growing_an_image_whose_refcounts_are_too_low_writes_over_nothing() {
    for given in KINDS {
        let store = image(given, &[1, 2, 3, 4]);
        {
            let disk = disk(&open(&store), None);
            disk.resize(40 << 30, Preallocation::Off).expect("it grows");
            disk.flush().expect("flushed");
        }
        data_is_there(&store);
        {
            let disk = disk(&open(&store), None);
            let size = (40 << 30) + (64 << 20);
            disk.resize(size, Preallocation::Metadata).expect("it grows");
            disk.flush().expect("flushed");
        }
        data_is_there(&store);
    }
}

#[test]
fn what_was_freed_and_is_named_no_more_is_handed_out_again() {
    let store = image(KINDS[0], &[]);
    let disk = disk(&open(&store), None);
    for round in 0..40_u8 {
        for number in 1..=4 {
            disk.discard(crate::common::range(number * CLUSTER, CLUSTER)).expect("discarded");
        }
        disk.flush().expect("flushed");
        for number in 1..=4_u64 {
            disk.write(GuestOffset(number * CLUSTER), &[round; 4 << 10]).expect("it is free");
        }
        disk.flush().expect("flushed");
    }
    assert!(store.len().expect("a length") < 40 * CLUSTER);
}
