//! Thin pools made by hand: trees that loop, point elsewhere or are very large.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::{bytes, ranges};
use anydisk_core::{GuestOffset, HostOffset, Limits, Members, Result, Storage, StorageExt};
use anydisk_lvm2::VolumeGroups;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::lvm::{EXTENTS, GROUP, block_checksum, dashed, device, linear, text, volume};

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const BLOCK: usize = 4096;

fn put(block: &mut [u8], at: usize, number: u64) {
    block[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

fn sealed(mut block: Vec<u8>, kind: u32) -> Vec<u8> {
    let sum = block_checksum(&block[4..], kind);
    block[..4].copy_from_slice(&sum.to_le_bytes());
    block
}

/// A superblock of a pool of 64 KiB chunks whose mappings are in the tree at block 1.
fn superblock() -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    put(&mut block, 32, 27_022_010);
    block[40] = 2;
    put(&mut block, 320, 1);
    block[336] = 128;
    sealed(block, 160_774)
}

/// A node at block `number` with these keys and values.
fn node(number: u64, leaf: bool, entries: &[(u64, u64)]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[4] = if leaf { 2 } else { 1 };
    put(&mut block, 8, number);
    put(&mut block, 16, entries.len() as u64 | 252 << 32);
    block[24] = 8;
    for (index, (key, value)) in entries.iter().enumerate() {
        put(&mut block, 32 + 8 * index, *key);
        put(&mut block, 32 + 8 * (252 + index), *value);
    }
    sealed(block, 121_107)
}

/// Chunk `data` at time 0.
fn chunk(data: u64) -> u64 {
    data << 24
}

/// A group whose pool has this metadata (from block 1 on) and ten chunks of data, numbered from 10;
/// the volume `t`, of device 1, has eight chunks.
fn group(nodes: &[Vec<u8>]) -> VolumeGroups {
    let mut extents = superblock();
    extents.extend(nodes.concat());
    extents.resize(2 << 16, 0);
    extents.extend((10..20_u8).flat_map(|number| [number; 1 << 16]));
    let pool = "type = \"thin-pool\" metadata = \"m\" pool = \"d\" chunk_size = 128 \
                message1 { create = \"late\" } message2 { create = \"snap\" }";
    let volumes = linear("m", 2, "pv0", 0)
        + &linear("d", 10, "pv0", 2)
        + &volume("p", 10, pool)
        + &volume("t", 8, "type = \"thin\" thin_pool = \"p\" device_id = 1")
        + &volume("late", 8, "type = \"thin\" thin_pool = \"p\" device_id = 9")
        + &volume("snap", 8, "type = \"thin\" thin_pool = \"p\" device_id = 9 origin = \"t\"")
        + &volume("lost", 8, "type = \"thin\" thin_pool = \"p\" device_id = 7");
    let disk: Arc<dyn Storage> =
        Arc::new(MemoryStorage::new(device(ID, &text(&[ID], 1, &volumes), &extents)));
    VolumeGroups::open(&[disk], &Limits::default()).expect("the group opens")
}

/// The first byte of each chunk of a volume.
fn chunks(nodes: &[Vec<u8>], name: &str) -> Result<Vec<u8>> {
    let store = Members::open(&group(nodes), &format!("vg/{name}"))?;
    let byte = |number: u64| {
        let mut byte = [0];
        store.read_exact_at(HostOffset(number << 16), &mut byte)?;
        Ok(byte[0])
    };
    (0..8).map(byte).collect()
}

fn refusal(nodes: &[Vec<u8>]) -> String {
    chunks(nodes, "t").expect_err("it is refused").to_string()
}

/// The tree of volumes with device 1 rooted at block 2.
fn top() -> Vec<u8> {
    node(1, true, &[(1, 2)])
}

#[test]
fn chunks_of_several_leaves_are_found_and_the_rest_is_zero() {
    let nodes = [
        top(),
        node(2, false, &[(1, 3), (4, 4)]),
        node(3, true, &[(1, chunk(9)), (2, chunk(0))]),
        node(4, true, &[(5, chunk(3)), (6, chunk(4))]),
    ];
    assert_eq!(chunks(&nodes, "t").unwrap(), [0, 19, 10, 0, 0, 13, 14, 0]);
    let store = Members::open(&group(&nodes), "vg/t").unwrap();
    let run = |at: u64| store.holes().unwrap().run_at(HostOffset(at << 16), 1 << 40).unwrap();
    let runs = [0, 3, 4, 5, 7].map(|at| (run(at).hole, run(at).len >> 16));
    assert_eq!(runs[..3], [(true, 1), (true, 2), (true, 1)]);
    assert_eq!(runs[3], (false, 2));
    assert!(runs[4].0);
}

// The kernel would not find a volume that the tree does not name. Read as zeroes, a damaged or
// restored pool gave an empty disk for a full one.
#[test]
fn a_volume_that_the_pool_does_not_know_is_refused_unless_the_pool_has_still_to_make_it() {
    let nodes = [top(), node(2, true, &[])];
    assert_eq!(chunks(&nodes, "late").unwrap(), [0; 8]);
    let error = chunks(&nodes, "snap").unwrap_err().to_string();
    assert!(error.contains("it was not made in its pool yet"), "{error}");
    let error = chunks(&nodes, "lost").unwrap_err().to_string();
    assert!(error.contains("its pool does not know its number, 7"), "{error}");
    let groups = group(&nodes);
    assert!(
        groups.changes("vg/t", "vg/lost").is_err() && groups.changes("vg/t", "vg/late").is_ok()
    );
    assert!(Members::open(&group(&nodes), "vg/p").is_err());
}

/// A group whose text says this of the pool, which knows the volume `t` and not `u`.
fn pool_with(items: &str) -> VolumeGroups {
    let pool = "type = \"thin-pool\" metadata = \"m\" pool = \"d\" chunk_size = 128";
    let volumes = linear("m", 2, "pv0", 0)
        + &linear("d", 10, "pv0", 2)
        + &volume("p", 10, &format!("{pool} {items}"))
        + &volume("t", 8, "type = \"thin\" thin_pool = \"p\" device_id = 1")
        + &volume("u", 8, "type = \"thin\" thin_pool = \"p\" device_id = 2");
    let mut extents = superblock();
    extents.extend(top());
    extents.extend(node(2, true, &[]));
    extents.resize(12 << 16, 0);
    let disk = MemoryStorage::new(device(ID, &text(&[ID], 1, &volumes), &extents));
    VolumeGroups::open(&[Arc::new(disk)], &Limits::default()).unwrap()
}

/// What is told of the pool and of its volume `t`, if the text says this of the pool.
fn told(items: &str) -> [Option<String>; 2] {
    let groups = pool_with(items);
    let note = |path: &str| groups.members().iter().find(|one| one.path == path)?.note.clone();
    [note("vg/p"), note("vg/t")]
}

#[test]
fn a_pool_whose_metadata_is_of_another_time_than_the_text_is_refused_as_lvm_does() {
    assert_eq!(told("transaction_id = 0"), [None, None]);
    assert_eq!(told(""), [None, None]);
    let other = "thin pool \"p\" cannot be used: its metadata is of transaction 0, its text of 3";
    for items in ["transaction_id = 3", "transaction_id = 3 message1 { create = \"u\" }"] {
        for note in told(items) {
            assert!(note.as_deref().unwrap_or_default().contains(other), "{note:?}");
        }
        let error = Members::open(&pool_with(items), "vg/t").unwrap_err().to_string();
        assert!(error.contains(other), "{error}");
    }
    let [under_way, _] = told("transaction_id = 1 message1 { create = \"t\" }");
    let expected = "its metadata is of transaction 0, its text of 1, a change was under way";
    assert_eq!(under_way.as_deref(), Some(expected));
}

#[test]
fn a_message_is_one_that_the_pool_was_not_told_of_only_if_the_text_is_one_transaction_ahead() {
    let opens = |transaction: u64, message: &str, name: &str| {
        let groups = pool_with(&format!("transaction_id = {transaction} {message}"));
        Members::open(&groups, &format!("vg/{name}")).is_ok()
    };
    let creates = "message1 { create = \"u\" }";
    assert_eq!([1, 0].map(|number| opens(number, creates, "u")), [true, false]);
    assert_eq!([1, 0].map(|number| opens(number, creates, "t")), [true, true]);
    assert!(!opens(1, "message1 { delete = 2 }", "u"));
}

/// A pool with the volume `t`, its thin snapshot `s`, and a classic snapshot of `t` whose store `c` has
/// chunk 3 (of 64 KiB); `tie` says what that is to `t`.
fn thin_and_classic(tie: &str) -> VolumeGroups {
    let thin = |device| format!("type = \"thin\" thin_pool = \"p\" device_id = {device}");
    let tie = format!("type = \"snapshot\" chunk_size = 128 origin = \"t\" {tie} = \"c\"");
    let volumes = linear("m", 2, "pv0", 0)
        + &linear("d", 10, "pv0", 2)
        + &linear("c", 4, "pv0", 12)
        + &volume("p", 10, "type = \"thin-pool\" metadata = \"m\" pool = \"d\" chunk_size = 128")
        + &volume("t", 8, &thin(1))
        + &volume("s", 8, &thin(2))
        + &volume("snapshot0", 8, &tie);
    let mut extents = superblock();
    extents.extend(node(1, true, &[(1, 2), (2, 3)]));
    extents.extend(node(2, true, &[(1, chunk(1)), (5, chunk(2))]));
    extents.extend(node(3, true, &[(1, chunk(1)), (5, chunk(4))]));
    extents.resize(2 << 16, 0);
    extents.extend((10..20_u8).flat_map(|number| [number; 1 << 16]));
    extents.resize(16 << 16, 0);
    let store = &mut extents[12 << 16..];
    store[..16].copy_from_slice(b"SnAp\x01\0\0\0\x01\0\0\0\x80\0\0\0");
    (store[1 << 16], store[(1 << 16) + 8]) = (3, 2);
    store[2 << 16..3 << 16].fill(0xCC);
    let disk = MemoryStorage::new(device(ID, &text(&[ID], 1, &volumes), &extents));
    VolumeGroups::open(&[Arc::new(disk)], &Limits::default()).expect("the group opens")
}

/// What differs, in chunks; all that does is known to be told.
fn differing(groups: &VolumeGroups, since: &str, now: &str) -> Vec<(u64, u64)> {
    let read = |name: &str| bytes(&*Members::open(groups, &format!("vg/{name}")).expect("opens"));
    let changes = groups.changes(&format!("vg/{since}"), &format!("vg/{now}")).expect("told");
    let told = ranges(changes);
    let (mut then, now) = (read(since), read(now));
    for (at, len) in &told {
        let range = usize::try_from(*at).unwrap()..usize::try_from(at + len).unwrap();
        then[range.clone()].copy_from_slice(&now[range]);
    }
    assert!(then == now, "a change was not told");
    told.into_iter().map(|(at, len)| (at >> 16, len >> 16)).collect()
}

// The pool's mappings alone were compared, while the volume reads as its classic snapshot leaves it.
#[test]
fn a_thin_volume_that_a_classic_snapshot_is_merged_into_is_compared_as_a_whole() {
    let merging = thin_and_classic("merging_store");
    assert_eq!(differing(&merging, "s", "t"), [(0, 8)]);
    assert_eq!(differing(&merging, "t", "s"), [(0, 8)]);
}

#[test]
fn a_classic_snapshot_of_a_thin_volume_differs_from_it_where_its_store_has_chunks() {
    let classic = thin_and_classic("cow_store");
    assert_eq!(differing(&classic, "c", "t"), [(3, 1)]);
    assert_eq!(differing(&classic, "t", "c"), [(3, 1)]);
    assert_eq!(differing(&classic, "s", "t"), [(5, 1)]);
    assert_eq!(differing(&classic, "s", "c"), [(0, 8)]);
}

#[test]
fn a_tree_that_loops_is_refused() {
    let loops = [top(), node(2, false, &[(0, 2)])];
    assert!(refusal(&loops).contains("metadata volume: tree"), "{}", refusal(&loops));
    let pair = [top(), node(2, false, &[(0, 3)]), node(3, false, &[(0, 2)])];
    assert!(refusal(&pair).contains("metadata volume: tree"));
}

#[test]
fn a_node_that_two_parents_share_is_refused_because_its_keys_fit_only_one() {
    let shared = [top(), node(2, false, &[(0, 3), (4, 3)]), node(3, true, &[(1, chunk(1))])];
    let error = refusal(&shared);
    assert!(error.contains("expected keys from 4 on, as the node above says"), "{error}");
}

#[test]
fn nodes_that_break_a_rule_are_refused_by_field_place_and_value() {
    let with = |at: usize, byte: u8| {
        let mut block = node(2, true, &[(1, chunk(1))]);
        block[at] = byte;
        block
    };
    for (block, complaint) in [
        (with(100, 1), "checksum of a block at 0x2000"),
        (node(3, true, &[]), "number of a block at 0x2000 is 3, expected 2"),
        (sealed(with(4, 3), 121_107), "flags of a node at 0x2000 is 3"),
        (sealed(with(17, 1), 121_107), "entries of a node at 0x2000 is 257"),
        (sealed(with(24, 4), 121_107), "value size of a node at 0x2000 is 4"),
        (node(2, true, &[(5, 0), (5, 1)]), "key of a node at 0x2000 is 5"),
        (node(2, false, &[]), "expected at least one child"),
        (node(2, false, &[(0, 1 << 60)]), "block number at 0x0 is 1152921504606846976"),
        (
            node(2, true, &[(1, chunk(10))]),
            "chunk of data at 0x0 is 10, expected a chunk of the 10",
        ),
        (node(2, true, &[(1, u64::MAX)]), "chunk of data"),
    ] {
        let error = refusal(&[top(), block]);
        assert!(error.contains(complaint), "{error}");
    }
}

#[test]
fn no_damage_to_the_tables_of_a_pool_makes_a_reader_panic_or_wait() {
    let mut random = Random::new(3);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..1500 {
        let mut nodes = [
            top(),
            node(2, false, &[(1, 3), (4, 4)]),
            node(3, true, &[(1, chunk(9)), (2, chunk(0))]),
            node(4, true, &[(5, chunk(3)), (6, chunk(4))]),
        ];
        for _ in 0..=random.below(3) {
            let block = &mut nodes[random.index(4)];
            // The header, the first keys, or the first values.
            let at = [0, 32, 2048][random.index(3)] + random.index(32);
            block[at] = [0, 1, 2, 0xFF, block[at] ^ 1][random.index(5)];
        }
        let nodes = nodes.map(|block| sealed(block, 121_107));
        let start = Instant::now();
        if chunks(&nodes, "t").is_ok() {
            read += 1
        } else {
            refused += 1
        }
        if let Ok(mut changes) = group(&nodes).changes("vg/late", "vg/t") {
            let mut at = GuestOffset::ZERO;
            while let Ok(Some(range)) = changes.next(at) {
                assert!(range.start() >= at && !range.is_empty());
                at = range.end();
            }
        }
        assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
    }
    assert!(read > 200 && refused > 200, "{read} read, {refused} refused");
}

// ------------------------------------------------------------------------------------------------
// A pool of 16 TiB, whose blocks are made as they are asked for.

/// Chunks of the volume: 16 TiB of 64 KiB.
const CHUNKS: u64 = 1 << 28;
const FAN: u64 = 252;
/// Bytes of an extent.
const LARGE: u64 = 512 << 20;
/// Extents of the metadata volume: 5 GiB.
const META: u64 = 10;

/// A device with the pool. Level `l` of the tree (0: leaves) begins at block `FIRST[l]`.
#[derive(Debug)]
struct Generated {
    head: Vec<u8>,
    len: u64,
    reads: AtomicU64,
    /// Blocks of the second volume's own nodes.
    own: HashMap<u64, Vec<u8>>,
}

const FIRST: [u64; 4] = [10_000, 5_000, 100, 2];

/// Nodes of a level.
fn nodes(level: u32) -> u64 {
    CHUNKS.div_ceil(FAN.pow(level + 1))
}

/// Where a chunk of the volume is in the pool: nowhere near its neighbour.
fn scattered(number: u64) -> u64 {
    number * 7919 % CHUNKS
}

fn tree_node(level: u32, index: u64) -> Vec<u8> {
    let level_index = usize::try_from(level).unwrap();
    let below = if level == 0 { CHUNKS } else { nodes(level - 1) };
    let children = (index * FAN..((index + 1) * FAN).min(below)).map(|child| match level {
        0 => (child, chunk(scattered(child))),
        _ => (child * FAN.pow(level), FIRST[level_index - 1] + child),
    });
    node(FIRST[level_index] + index, level == 0, &children.collect::<Vec<_>>())
}

impl Generated {
    fn block(&self, number: u64) -> Vec<u8> {
        match number {
            0 => superblock(),
            1 => node(1, true, &[(1, 2), (2, 50)]),
            _ if self.own.contains_key(&number) => self.own[&number].clone(),
            _ => {
                let level = (0..4).find(|level| number >= FIRST[*level]).unwrap();
                tree_node(u32::try_from(level).unwrap(), number - FIRST[level])
            }
        }
    }
}

impl Storage for Generated {
    fn len(&self) -> anydisk_storage::Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> anydisk_storage::Result<usize> {
        let Some(at) = at.get().checked_sub(EXTENTS as u64) else {
            let start = usize::try_from(at.get()).unwrap();
            buf.copy_from_slice(&self.head[start..start + buf.len()]);
            return Ok(buf.len());
        };
        if at < META * LARGE {
            assert!(at.is_multiple_of(BLOCK as u64) && buf.len() == BLOCK, "blocks are read whole");
            self.reads.fetch_add(1, Ordering::Relaxed);
            buf.copy_from_slice(&self.block(at / BLOCK as u64));
        } else {
            // Data is the number of its chunk.
            let number = (at - META * LARGE) >> 16;
            buf.fill(0);
            buf[..8].copy_from_slice(&number.to_le_bytes());
        }
        Ok(buf.len())
    }

    fn write_at(&self, _: HostOffset, _: &[u8]) -> anydisk_storage::Result<()> {
        unreachable!("nothing is written")
    }

    fn set_len(&self, _: u64) -> anydisk_storage::Result<()> {
        unreachable!("nothing is written")
    }

    fn flush(&self) -> anydisk_storage::Result<()> {
        Ok(())
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn name(&self) -> &'static str {
        "generated"
    }
}

/// The pool, with volume `t` (all of it mapped) and `u`, which differs in one chunk.
fn large() -> (Arc<Generated>, VolumeGroups) {
    let data = CHUNKS * (1 << 16) / LARGE;
    let pool = "type = \"thin-pool\" metadata = \"m\" pool = \"d\" chunk_size = 128";
    let thin = |device| format!("type = \"thin\" thin_pool = \"p\" device_id = {device}");
    let volumes = linear("m", META, "pv0", 0)
        + &linear("d", data, "pv0", META)
        + &volume("p", data, pool)
        + &volume("t", data, &thin(1))
        + &volume("u", data, &thin(2));
    let (id, extents, sectors) = (dashed(ID), META + data, LARGE / 512);
    let text = format!(
        "contents = \"Text Format Volume Group\" version = 1 vg {{ id = \"{GROUP}\" seqno = 1 \
         extent_size = {sectors} physical_volumes {{ pv0 {{ id = \"{id}\" pe_start = 2048 \
         pe_count = {extents} }} }} logical_volumes {{ {volumes} }} }}"
    );
    // The second volume has a root, and on the way to its first chunk nodes, of its own.
    let mut own = HashMap::new();
    for (level, number) in [(3_u32, 50_u64), (2, 51), (1, 52), (0, 53)] {
        let mut block = tree_node(level, 0);
        put(&mut block, 8, number);
        let first = 32 + 8 * 252;
        put(&mut block, first, if level == 0 { chunk(77) } else { number + 1 });
        own.insert(number, sealed(block, 121_107));
    }
    let len = EXTENTS as u64 + extents * LARGE;
    let head = device(ID, &text, &[]);
    let store = Arc::new(Generated { head, len, reads: AtomicU64::new(0), own });
    let disk: Arc<dyn Storage> = Arc::clone(&store) as Arc<dyn Storage>;
    (store, VolumeGroups::open(&[disk], &Limits::default()).expect("the group opens"))
}

/// Bytes of memory that this process occupies.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

#[test]
fn a_pool_of_sixteen_tebibytes_is_read_in_bounded_memory() {
    let (_, groups) = large();
    let store = Members::open(&groups, "vg/t").unwrap();
    assert_eq!(store.len().unwrap(), 16 << 40);
    let before = resident();
    let mut random = Random::new(5);
    for _ in 0..12_000 {
        let number = random.below(CHUNKS);
        let mut bytes = [0; 8];
        store.read_exact_at(HostOffset(number << 16), &mut bytes).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), scattered(number));
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes more than before");
}

#[test]
fn comparing_two_volumes_of_sixteen_tebibytes_costs_what_they_differ() {
    let (store, groups) = large();
    let mut changes = groups.changes("vg/t", "vg/u").unwrap();
    let before = store.reads.load(Ordering::Relaxed);
    let first = changes.next(GuestOffset::ZERO).unwrap().unwrap();
    assert_eq!((first.start().get(), first.len()), (0, 1 << 16));
    assert_eq!(changes.next(first.end()).unwrap(), None);
    let reads = store.reads.load(Ordering::Relaxed) - before;
    assert!(reads <= 8, "{reads} blocks were read");
}
