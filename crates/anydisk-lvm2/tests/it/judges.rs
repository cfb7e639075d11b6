//! Pools of random mappings, made by `thin_restore` and compared by `thin_delta`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anydisk_core::{Limits, Members};
use anydisk_lvm2::VolumeGroups;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::lvm::{device, linear, text, volume};
use anydisk_testkit::oracle::is_installed;

use crate::common::{bytes, delta, ranges};

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// Bytes of an extent, and of a chunk.
const CHUNK: usize = 64 << 10;
/// Chunks of the pool, and of each volume.
const CHUNKS: u64 = 250;
/// Extents of the metadata: 2 MiB.
const META: u64 = 32;

/// Chunk of the volume to chunk of the pool.
type Map = BTreeMap<u64, u64>;

/// Mappings in runs and alone.
fn random_map(random: &mut Random) -> Map {
    let mut map = Map::new();
    for _ in 0..random.below(60) {
        let (from, to, len) = (random.below(CHUNKS), random.below(CHUNKS), 1 + random.below(12));
        for step in (0..len).take_while(|step| from.max(to) + step < CHUNKS) {
            map.insert(from + step, to + step);
        }
    }
    map
}

/// A map that differs from another one here and there.
fn changed(map: &Map, random: &mut Random) -> Map {
    let mut other = map.clone();
    for _ in 0..random.below(20) {
        let at = random.below(CHUNKS);
        match random.below(3) {
            0 => drop(other.remove(&at)),
            _ => drop(other.insert(at, random.below(CHUNKS))),
        }
    }
    other
}

fn dump(maps: &[Map]) -> String {
    let mut xml = format!(
        "<superblock uuid=\"\" time=\"0\" transaction=\"0\" flags=\"0\" version=\"2\" \
         data_block_size=\"128\" nr_data_blocks=\"{CHUNKS}\">"
    );
    for (number, map) in (1..).zip(maps) {
        let count = map.len();
        let _ = write!(
            xml,
            "<device dev_id=\"{number}\" mapped_blocks=\"{count}\" transaction=\"0\" \
             creation_time=\"0\" snap_time=\"0\">"
        );
        for (from, to) in map {
            let _ = write!(
                xml,
                "<single_mapping origin_block=\"{from}\" data_block=\"{to}\" time=\"0\"/>"
            );
        }
        xml.push_str("</device>");
    }
    xml + "</superblock>"
}

/// The metadata of a pool with these volumes, numbered from 1, at `path`.
fn restore(maps: &[Map], path: &Path) -> Vec<u8> {
    let xml = path.with_extension("xml");
    fs::write(&xml, dump(maps)).expect("written");
    let file = fs::File::create(path).expect("a file");
    file.set_len(META * CHUNK as u64).expect("its length");
    let mut command = Command::new("thin_restore");
    let status = command.arg("-q").arg("-i").arg(&xml).arg("-o").arg(path).status();
    assert!(status.expect("it runs").success(), "thin_restore refused its input");
    fs::read(path).expect("the metadata")
}

/// What `thin_delta` says of volumes 1 and 2.
fn thin_delta(path: &Path) -> Vec<(u64, u64)> {
    let mut command = Command::new("thin_delta");
    let output = command.args(["--snap1", "1", "--snap2", "2"]).arg(path).output();
    delta(&String::from_utf8_lossy(&output.expect("it runs").stdout))
}

/// A group with a pool of volumes `t1`, `t2`; each chunk of the pool is filled with its number.
fn group(metadata: Vec<u8>) -> VolumeGroups {
    let pool = "type = \"thin-pool\" metadata = \"m\" pool = \"d\" chunk_size = 128";
    let thin = |device| format!("type = \"thin\" thin_pool = \"p\" device_id = {device}");
    let volumes = linear("m", META, "pv0", 0)
        + &linear("d", CHUNKS, "pv0", META)
        + &volume("p", CHUNKS, pool)
        + &volume("t1", CHUNKS, &thin(1))
        + &volume("t2", CHUNKS, &thin(2));
    let mut extents = metadata;
    extents.extend((0..250_u8).flat_map(|number| [number; CHUNK]));
    let disk = MemoryStorage::new(device(ID, &text(&[ID], 1, &volumes), &extents));
    VolumeGroups::open(&[Arc::new(disk)], &Limits::default()).expect("the group opens")
}

fn assert_holds(groups: &VolumeGroups, path: &str, map: &Map) {
    let found = bytes(&*Members::open(groups, path).expect("it opens"));
    for (number, chunk) in (0..CHUNKS).zip(found.chunks(CHUNK)) {
        let expected = map.get(&number).map_or(0, |to| u8::try_from(*to).expect("below 250"));
        assert!(chunk.iter().all(|byte| *byte == expected), "{path}, chunk {number}");
    }
}

#[test]
fn pools_of_random_mappings_read_and_differ_as_the_tools_for_them_say() {
    if !is_installed("thin_restore") || !is_installed("thin_delta") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("metadata");
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let first = random_map(&mut random);
        let maps = [first.clone(), changed(&first, &mut random)];
        let groups = group(restore(&maps, &path));
        for (name, map) in ["vg/t1", "vg/t2"].into_iter().zip(&maps) {
            assert_holds(&groups, name, map);
        }
        let chunk = CHUNK as u64;
        let expected = thin_delta(&path).into_iter().map(|(at, len)| (at * chunk, len * chunk));
        let changes = groups.changes("vg/t1", "vg/t2").expect("two volumes of one pool");
        assert_eq!(ranges(changes), expected.collect::<Vec<_>>(), "seed {seed}");
    }
}
