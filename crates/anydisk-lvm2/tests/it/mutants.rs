//! Labels, metadata areas, text and stores with damage at random: whatever comes out, it comes without
//! a panic and soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anydisk_core::{HostOffset, Limits, Members, Storage};
use anydisk_lvm2::VolumeGroups;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::lvm::{device, linear, reseal, text, volume};

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const MUTANTS: u32 = 1500;
const PATIENCE: Duration = Duration::from_secs(1);

/// Values that overflow, point nowhere, or name something else.
const NASTY: [&str; 9] = [
    "0 ",
    "1 ",
    "-1 ",
    "9223372036854775807 ",
    "\"pv0\" ",
    "\"lower\" ",
    "\"raid5_ls\" ",
    "\"mirror\" ",
    "\"striped\" ",
];

/// Words that change what belongs to what.
const STRUCTURE: [&str; 5] = ["{ ", "} ", "[] ", "= ", " "];

/// A group with all types of volume.
fn volumes() -> String {
    let mut volumes = linear("lower", 4, "pv0", 3) + &linear("upper", 2, "lower", 1);
    for (number, (name, images)) in
        [("raid1", 2), ("raid5_ls", 3), ("raid6_zr", 5), ("raid10", 4)].into_iter().enumerate()
    {
        let mut raids = Vec::new();
        for image in 0..images {
            let (meta, data) = (format!("m{number}_{image}"), format!("i{number}_{image}"));
            volumes += &linear(&meta, 1, "pv0", image);
            volumes += &linear(&data, 2, "pv0", image + 2);
            raids.push(format!("\"{meta}\", \"{data}\""));
        }
        let extents = if name == "raid6_zr" { 6 } else { 2 * (images - 1).min(2) };
        let items = format!(
            "type = \"{name}\" device_count = {images} stripe_size = 16 raids = [{}]",
            raids.join(", ")
        );
        volumes += &volume(&format!("r{number}"), extents, &items);
    }
    let legs = "mirrors = [\"lower\", 0, \"upper\", 0]";
    let log = "mirror_log = \"m0_0\" region_size = 8";
    volumes += &volume("old", 2, &format!("type = \"mirror\" mirror_count = 2 {log} {legs}"));
    let tie = "type = \"snapshot\" chunk_size = 8 origin = \"upper\" cow_store = \"cow\"";
    volumes += &(linear("cow", 1, "pv0", 15) + &volume("snapshot0", 2, tie));
    let pool = "type = \"thin-pool\" metadata = \"m0_0\" pool = \"lower\" chunk_size = 128";
    let thin = "type = \"thin\" thin_pool = \"pool\" device_id = 1 external_origin = \"upper\"";
    volumes += &(volume("pool", 4, pool) + &volume("thin", 4, thin));
    let cache = "type = \"writecache\" origin = \"upper\" writecache = \"cow\"";
    volumes + &volume("cached", 2, cache)
}

/// Changes up to three words of the text: values most of the time.
fn damage(text: &str, random: &mut Random) -> String {
    let mut words: Vec<&str> = text.split_inclusive([' ', '\n']).collect();
    let is_value = |word: &str| word.starts_with(|c: char| c.is_ascii_digit() || c == '"');
    let values: Vec<usize> = (0..words.len()).filter(|at| is_value(words[*at])).collect();
    if random.chance(1, 8) {
        let at = random.index(words.len());
        words[at] = STRUCTURE[random.index(STRUCTURE.len())];
    }
    for _ in 0..=random.below(2) {
        let at = values[random.index(values.len())];
        let other = words[values[random.index(values.len())]];
        words[at] = if random.chance(1, 2) { NASTY[random.index(NASTY.len())] } else { other };
    }
    words.concat()
}

/// Opens every volume and reads at both ends of it. How many opened.
fn use_all(groups: &VolumeGroups) -> usize {
    let opens = |path: &str| Members::open(groups, path).ok();
    let volumes = groups.members().iter().filter(|member| member.kind != "physical volume");
    let stores = volumes.filter_map(|member| opens(&member.path));
    stores
        .map(|store| {
            let len = store.len().expect("a volume has a length");
            let mut buffer = [0; 5000];
            for at in [0, len / 2, len.saturating_sub(5000)] {
                let _ = store.read_at(HostOffset(at), &mut buffer);
                let run = store.holes().expect("a volume knows holes").run_at(HostOffset(at), len);
                assert!(run.is_err() || run.is_ok_and(|run| run.len > 0));
            }
        })
        .count()
}

#[test]
fn no_damage_to_a_text_makes_a_reader_panic_or_wait() {
    let mut random = Random::new(11);
    let mut extents: Vec<u8> = (0..16_u8).flat_map(|number| [number; 64 << 10]).collect();
    // A store without exceptions.
    extents[15 << 16..].fill(0);
    let whole = text(&[ID], 1, &volumes());
    let (mut opened, mut refused) = (0, 0);
    for number in 0..MUTANTS {
        let text = if number == 0 { whole.clone() } else { damage(&whole, &mut random) };
        let disk: Arc<dyn Storage> = Arc::new(MemoryStorage::new(device(ID, &text, &extents)));
        let start = Instant::now();
        let groups = VolumeGroups::open(&[disk], &Limits::default()).expect("a store in memory");
        let count = use_all(&groups);
        assert!(number > 0 || count == 36, "{count} volumes of the whole group opened");
        if count > 0 {
            opened += 1
        } else {
            refused += 1
        }
        assert!(start.elapsed() < PATIENCE, "took {:?}: {text}", start.elapsed());
    }
    assert!(opened > 300 && refused > 300, "{opened} opened, {refused} refused");
}

/// Numbers that overflow, point nowhere, or are not what they count.
const NUMBERS: [u64; 8] = [0, 1, 511, 4096, 1 << 31, 1 << 47, 1 << 63, u64::MAX];

/// Damages bytes from `at` on, a whole number or one bit.
fn damage_at(bytes: &mut [u8], at: usize, len: usize, random: &mut Random) {
    let place = at + random.index(len);
    match random.chance(1, 2) {
        true => bytes[place] ^= 1 << random.below(8),
        false => {
            let place = place / 8 * 8;
            let number = NUMBERS[random.index(NUMBERS.len())];
            bytes[place..place + 8].copy_from_slice(&number.to_le_bytes());
        }
    }
}

#[test]
fn no_damage_to_a_label_or_to_a_metadata_area_makes_a_reader_panic_or_wait() {
    let mut random = Random::new(21);
    let whole = device(ID, &text(&[ID], 1, &linear("a", 2, "pv0", 1)), &[7; 1 << 18]);
    let (mut listed, mut empty) = (0, 0);
    for _ in 0..1000 {
        let mut disk = whole.clone();
        for _ in 0..=random.below(2) {
            // The label with its lists, the header of the area, the text.
            let (at, len) = [(512, 256), (4096, 128), (4608, 400)][random.index(3)];
            damage_at(&mut disk, at, len, &mut random);
        }
        if random.chance(3, 4) {
            reseal(&mut disk);
        }
        let disk: Arc<dyn Storage> = Arc::new(MemoryStorage::new(disk));
        let start = Instant::now();
        match VolumeGroups::open(&[disk], &Limits::strict()) {
            Ok(groups) if use_all(&groups) > 0 => listed += 1,
            _ => empty += 1,
        }
        assert!(start.elapsed() < PATIENCE, "took {:?}", start.elapsed());
    }
    assert!(listed > 100 && empty > 100, "{listed} listed, {empty} empty");
}

#[test]
fn no_damage_to_a_store_of_a_snapshot_or_of_a_write_cache_makes_a_reader_panic_or_wait() {
    let mut random = Random::new(22);
    let mut store = vec![0; 2 << 16];
    store[..16].copy_from_slice(b"SnAp\x01\0\0\0\x01\0\0\0\x08\0\0\0");
    for (number, chunk) in [3_u64, 9, 4].into_iter().enumerate() {
        let entry = [chunk, 2 + number as u64].map(u64::to_le_bytes).concat();
        store[4096 + 16 * number..][..16].copy_from_slice(&entry);
    }
    let mut cache = vec![0; 2 << 16];
    let head = [0x1_2348_9321_u64, 4096, 3, 9, 0, 0, 0, 0, 8, 1, 16, 2, u64::MAX, u64::MAX];
    cache[..112].copy_from_slice(&head.map(u64::to_le_bytes).concat());
    let tie = "type = \"snapshot\" chunk_size = 8 origin = \"o\" cow_store = \"s\"";
    let over = "type = \"writecache\" origin = \"o\" writecache = \"c\"";
    let volumes = linear("s", 2, "pv0", 0)
        + &linear("c", 2, "pv0", 2)
        + &linear("o", 2, "pv0", 4)
        + &volume("snapshot0", 2, tie)
        + &volume("w", 2, over);
    let text = text(&[ID], 1, &volumes);
    let (mut opened, mut refused) = (0, 0);
    for number in 0..1000 {
        let (mut store, mut cache) = (store.clone(), cache.clone());
        if number > 0 {
            damage_at(&mut store, [0, 4096][random.index(2)], 64, &mut random);
            damage_at(&mut cache, 0, 112, &mut random);
        }
        let extents = [store, cache, vec![5; 2 << 16]].concat();
        let disk: Arc<dyn Storage> = Arc::new(MemoryStorage::new(device(ID, &text, &extents)));
        let start = Instant::now();
        let groups = VolumeGroups::open(&[disk], &Limits::default()).expect("the text is good");
        // The origin and the two volumes below always open.
        let count = use_all(&groups);
        assert!(number > 0 || count == 4, "{count} volumes opened");
        opened += count;
        refused += 4 - count;
        assert!(start.elapsed() < PATIENCE, "took {:?}", start.elapsed());
    }
    assert!(opened > 2500 && refused > 300, "{opened} opened, {refused} refused");
}
