//! Fills `fuzz/corpus/TARGET` with what the golden images hold: `cargo run --bin seed`.

use std::fs;
use std::io;
use std::path::Path;

use anydisk_testkit::Random;
use anydisk_testkit::golden::cases;

/// Larger files teach a fuzzer nothing that smaller ones do not, and slow it down.
const LARGEST: usize = 512 << 10;

/// A target, the format whose images it is fed with, and what of a file it takes.
type Feed = (&'static str, &'static str, fn(&[u8]) -> Option<Vec<u8>>);

const FEEDS: &[Feed] = &[
    ("qcow2_image", "qcow2", whole),
    ("qcow2_header", "qcow2", first_4k),
    ("qcow2_check", "qcow2", whole),
    ("qcow2_snapshots", "qcow2", snapshot_table),
    ("qcow2_bitmaps", "qcow2", bitmap_directory),
    ("qcow_header", "qcow", whole),
    ("qed_image", "qed", whole),
    ("cloop_image", "cloop", whole),
    ("bochs_image", "bochs", whole),
    ("simg_image", "simg", whole),
    ("asif_image", "asif", first_64k),
    ("dmg_image", "dmg", whole),
    ("dmg_tables", "dmg", tables_of_dmg),
    ("codec", "dmg", packed_chunk),
    ("parallels_image", "parallels", |file| whole(file).or_else(|| first_64k(file))),
    ("parallels_descriptor", "parallels", parallels_xml),
    ("probe", "parallels", first_4k),
    ("vdi_image", "vdi", parts_of_vdi),
    ("vdi_header", "vdi", first_4k),
    ("vhd_image", "vhd", first_64k),
    ("vhd_header", "vhd", footer_and_header),
    ("vhdx_image", "vhdx", tables_of_vhdx),
    ("vmdk_image", "vmdk", whole),
    ("vmdk_check", "vmdk", whole),
    ("vmdk_header", "vmdk", sparse_header),
    ("vmdk_descriptor", "vmdk", descriptor),
    ("luks1_header", "luks", without_payload),
    ("luks2_header", "luks", json_of_luks2),
    ("resize_image", "qcow2", |file| resized(0, file)),
    ("resize_image", "vmdk", |file| resized(1, file)),
    ("resize_image", "vdi", |file| resized(2, file)),
    ("probe", "luks", first_4k),
    ("ovf_archive", "ova", whole),
    ("ovf_descriptor", "ova", ovf),
    ("probe", "qcow2", first_4k),
    ("probe", "vmdk", first_4k),
    ("probe", "qcow", first_4k),
    ("probe", "vdi", first_4k),
    ("probe", "vhd", first_4k),
    ("probe", "vhdx", first_4k),
    ("codec", "vmdk", zlib_stream),
    ("inspect", "qcow2", first_64k),
    ("inspect", "vmdk", first_64k),
    ("inspect", "vdi", first_64k),
    ("inspect", "vhd", first_64k),
    ("inspect", "luks", without_payload),
];

/// What is inside the root of a bundle's descriptor.
fn parallels_xml(file: &[u8]) -> Option<Vec<u8>> {
    let root = b"<Parallels_disk_image";
    let at = file.windows(root.len()).position(|window| window == root)?;
    let inside = file.get(at..)?;
    inside.get(inside.iter().position(|byte| *byte == b'>')? + 1..).map(<[u8]>::to_vec)
}

fn whole(file: &[u8]) -> Option<Vec<u8>> {
    (file.len() <= LARGEST).then(|| file.to_vec())
}

/// The number of a format and three sizes: 16, 2 and 64 MiB.
fn resized(format: u8, file: &[u8]) -> Option<Vec<u8>> {
    Some([&[format, 0, 32, 0, 4, 0, 128], &*whole(file)?].concat())
}

fn first_4k(file: &[u8]) -> Option<Vec<u8>> {
    Some(file[..file.len().min(4 << 10)].to_vec())
}

/// Header, map and the beginning of the blocks of a VDI, which its target puts where the header says;
/// all there is of one whose map follows the header.
fn parts_of_vdi(file: &[u8]) -> Option<Vec<u8>> {
    let number = |at: usize| {
        let bytes = file.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    };
    let part = |at: usize, most: usize| {
        let rest = file.get(at..).unwrap_or_default();
        &rest[..rest.len().min(most)]
    };
    match number(68)? >> 16 {
        1 => {
            let map = part(number(340)?, number(384)?.saturating_mul(4).min(16 << 10));
            Some([part(0, 512), map, part(number(344)?, 4 << 10)].concat())
        }
        _ => first_64k(file),
    }
}

/// A file without most of its data, which is all alike.
fn first_64k(file: &[u8]) -> Option<Vec<u8>> {
    Some(file[..file.len().min(64 << 10)].to_vec())
}

/// The copy of a VHD's footer, its header, and the table behind them.
fn footer_and_header(file: &[u8]) -> Option<Vec<u8>> {
    file.starts_with(b"conectix").then(|| file[..file.len().min(2 << 10)].to_vec())
}

/// What the target for VHDX puts into its places: header, region table, and the beginnings of log,
/// metadata and table, where they lie as qemu puts them.
fn tables_of_vhdx(file: &[u8]) -> Option<Vec<u8>> {
    let part = |at: usize, len: usize| Some(file.get(at..)?.get(..len)?.to_vec());
    let parts = [part(64 << 10, 80)?, part(192 << 10, 112)?, part(1 << 20, 4096)?];
    Some(parts.concat())
}

/// The property list or the resource fork, whichever there is, in the form that the target takes.
fn tables_of_dmg(file: &[u8]) -> Option<Vec<u8>> {
    let trailer = file.len().checked_sub(512).filter(|at| file[*at..].starts_with(b"koly"))?;
    [(0, 216), (1, 40)].into_iter().find_map(|(kind, field)| {
        let (at, len) = (number_at(file, trailer + field)?, number_at(file, trailer + field + 8)?);
        let tables = file.get(at..)?.get(..len).filter(|tables| !tables.is_empty())?;
        Some([&[kind], tables].concat())
    })
}

/// The first chunk, in the form that the target `codec` takes: a unit of 32 KiB.
fn packed_chunk(file: &[u8]) -> Option<Vec<u8>> {
    let kind = match file {
        [b'B', b'Z', b'h', ..] => 3,
        [0xFD, b'7', b'z', b'X', b'Z', ..] => 4,
        [b'b', b'v', b'x', ..] => 5,
        _ => 6,
    };
    Some([&[kind, 0xFF, 0x7F], &file[..file.len().min(2 << 10)]].concat())
}

fn number_at(file: &[u8], at: usize) -> Option<usize> {
    let bytes = file.get(at..at.checked_add(8)?)?;
    usize::try_from(u64::from_be_bytes(bytes.try_into().ok()?)).ok()
}

/// A count, and a table: what the targets for tables take.
fn counted(count: u8, file: &[u8], at: usize, len: usize) -> Option<Vec<u8>> {
    let table = file.get(at..)?;
    (count > 0).then(|| [&[count], &table[..table.len().min(len)]].concat())
}

/// How many snapshots there are, and the beginning of their table.
fn snapshot_table(file: &[u8]) -> Option<Vec<u8>> {
    counted(*file.get(63)?, file, number_at(file, 64)?, 4 << 10)
}

/// How many bitmaps there are, and their directory.
fn bitmap_directory(file: &[u8]) -> Option<Vec<u8>> {
    let head = &file[..file.len().min(4 << 10)];
    let extension =
        8 * head.chunks(8).position(|words| words.starts_with(&[0x23, 0x85, 0x28, 0x75]))?;
    let (len, at) = (number_at(file, extension + 16)?, number_at(file, extension + 24)?);
    counted(*file.get(extension + 11)?, file, at, len.min(4 << 10))
}

/// A small part: the key slots are noise to a fuzzer.
fn without_payload(file: &[u8]) -> Option<Vec<u8>> {
    Some(file[..file.len().min(36 << 10)].to_vec())
}

fn json_of_luks2(file: &[u8]) -> Option<Vec<u8>> {
    let text = file.get(4096..16 << 10)?;
    let end = text.iter().position(|&byte| byte == 0)?;
    (file.get(7) == Some(&2) && end > 0).then(|| text[..end].to_vec())
}

fn sparse_header(file: &[u8]) -> Option<Vec<u8>> {
    file.starts_with(b"KDMV").then(|| file[..file.len().min(512)].to_vec())
}

/// A descriptor that is the whole file, or lies where sparse extents keep theirs.
fn descriptor(file: &[u8]) -> Option<Vec<u8>> {
    let embedded = file.starts_with(b"KDMV").then(|| file.get(512..)).flatten();
    let text = embedded.unwrap_or(file);
    let text = &text[..text.len().min(20 << 9)];
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    text.starts_with(b"#").then(|| text[..end].to_vec())
}

/// The descriptor of a package, its first member.
fn ovf(file: &[u8]) -> Option<Vec<u8>> {
    let text = file.get(512..)?;
    let end = text.iter().position(|&byte| byte == 0)?;
    text.starts_with(b"<?xml").then(|| text[..end].to_vec())
}

/// The first grain of a streamOptimized disk, in the form that the target `codec` takes.
fn zlib_stream(file: &[u8]) -> Option<Vec<u8>> {
    let at = file.windows(2).step_by(4).skip(128).position(|pair| pair == [0x78, 0x9C])?;
    let stream = &file[512 + 4 * at..];
    // 1: zlib; a unit of 65536 bytes.
    Some([&[1, 0xFF, 0xFF], &stream[..stream.len().min(4 << 10)]].concat())
}

/// What a machine calls its snapshots, two that are made one over the other.
const STATES: &str = "<ParallelsSavedStates><SavedStateItem guid=\"\"><Name/>\
     <SavedStateItem guid=\"{11111111-2222-3333-4444-555555555555}\"><Name>a &amp; b</Name>\
     <Description><![CDATA[c]]></Description>\
     <SavedStateItem guid=\"{22222222-2222-3333-4444-555555555555}\" current=\"yes\"><Name>d</Name>\
     </SavedStateItem></SavedStateItem></SavedStateItem></ParallelsSavedStates>";

/// What no golden image holds.
fn made(corpus: &Path) -> io::Result<()> {
    use anydisk_testkit::lvm::{device, linear, text};
    const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let group = text(&[ID], 1, &(linear("a", 2, "pv0", 1) + &linear("b", 1, "a", 1)));
    let seeds = [
        ("lvm2_device", device(ID, &group, &[7; 4096])),
        ("lvm2_text", group.into_bytes()),
        ("lvm2_pool", pool()),
        ("lvm2_snapshot", snapshot()),
        ("lvm2_snapshot", write_cache()),
        ("partition_table", mbr()),
        ("partition_table", gpt()),
        ("parallels_names", STATES.into()),
    ];
    let seeds = seeds.into_iter().chain(cow_images()).chain(qcow_tables());
    let stories = (0..13).map(|kind| ("resize", story(kind)));
    for (number, (target, seed)) in seeds.chain(stories).enumerate() {
        fs::create_dir_all(corpus.join(target))?;
        fs::write(corpus.join(target).join(format!("made-{number}")), seed)?;
        let count = fs::read_dir(corpus.join(target))?.count();
        println!("{target}: {count} seeds");
    }
    Ok(())
}

/// A cow image of each version, with the choice that its target begins with: the sectors 0, 3 and 9
/// of 16 are there.
fn cow_images() -> Vec<(&'static str, Vec<u8>)> {
    let size = 8_u64 << 10;
    // The choice, and where size, sector size and bitmap are.
    let kinds =
        [(3_u8, 1040, 1048, 1056), (3, 1036, 1044, 1048), (1, 268, 276, 280), (4, 12, 20, 8 << 10)];
    let image = |(choice, size_at, sector_at, bitmap_at): (u8, usize, usize, usize)| {
        let mut file = vec![0; bitmap_at];
        file[size_at..size_at + 8].copy_from_slice(&size.to_be_bytes());
        file[sector_at..sector_at + 4].copy_from_slice(&512_u32.to_be_bytes());
        if choice == 4 {
            file[24..28].copy_from_slice(&4096_u32.to_be_bytes());
        }
        file.extend([0b1001, 0b10]);
        let align = if choice == 4 { 4096 } else { 512 };
        file.resize(file.len().next_multiple_of(align) + 10 * 512, 7);
        // The target puts the magic before it.
        [&[choice], &file[8..]].concat()
    };
    kinds.into_iter().map(|kind| ("cow_image", image(kind))).collect()
}

/// What `arbitrary` makes tables of: geometry, then entries, with a byte before each that says there is one.
fn qcow_tables() -> Vec<(&'static str, Vec<u8>)> {
    let words = |words: &[u64]| -> Vec<u8> {
        let each = words.iter().flat_map(|word| std::iter::once(1).chain(word.to_le_bytes()));
        each.chain([0]).collect()
    };
    let payload: Vec<u8> = (0..8 << 10).flat_map(|_| [1, 7]).collect();
    let tables = |bits: [u8; 2], size: u32, l1: &[u64], l2: &[u64]| {
        let head = [&bits[..], &size.to_le_bytes()].concat();
        ("qcow_tables", [head, words(l1), words(l2), payload.clone()].concat())
    };
    let packed = 1 << 63 | 40 << 51 | 0x1_1000;
    vec![
        tables([3, 3], 4 << 20, &[0], &[0x1_1000, 0, 0x1_2000]),
        tables([3, 3], 4 << 20, &[0x1_1000], &[0x1_2000, packed]),
        tables([0, 0], 64 << 10, &[], &[0x1_0200, 0x1_0400, 0x1_0200, 0x9_0000]),
        tables([0, 0], 0x7fff_fe00, &[0, 0, 0x30], &[0x1_0200]),
    ]
}

/// Operations at random on an image of the kind, of which there are 13.
fn story(kind: u64) -> Vec<u8> {
    let mut random = Random::new(kind);
    let choice = u32::try_from(((kind << 32) + (1 << 31)) / 13).expect("less than all of them");
    let noise = (0..400).flat_map(|_| random.below(1 << 32).to_le_bytes());
    choice.to_le_bytes().into_iter().chain(noise.step_by(2)).collect()
}

/// Puts little-endian numbers of 8 bytes at places.
fn with(len: usize, numbers: &[(usize, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (at, number) in numbers {
        bytes[*at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// The blocks of a pool: two volumes that share a leaf. The target puts in magics and checksums.
fn pool() -> Vec<u8> {
    const LEAF: u64 = 2 << 32;
    const INNER: u64 = 1 << 32;
    let node = |kind: u64, entries: &[(u64, u64)]| {
        let mut block = with(4096, &[(0, kind), (16, entries.len() as u64 | 252 << 32), (24, 8)]);
        for (index, (key, value)) in entries.iter().enumerate() {
            block[32 + 8 * index..][..8].copy_from_slice(&key.to_le_bytes());
            block[32 + 8 * (252 + index)..][..8].copy_from_slice(&value.to_le_bytes());
        }
        block
    };
    let mapping = |chunk: u64| chunk << 24;
    [
        with(4096, &[(40, 2), (320, 1), (336, 128)]),
        node(LEAF, &[(1, 2), (2, 3)]),
        node(INNER, &[(0, 4), (8, 5)]),
        node(INNER, &[(0, 4), (8, 6)]),
        node(LEAF, &[(1, mapping(0)), (2, mapping(1))]),
        node(LEAF, &[(9, mapping(2)), (20, mapping(3))]),
        node(LEAF, &[(9, mapping(3)), (21, mapping(0) | 1)]),
    ]
    .concat()
}

/// The store of a snapshot with two chunks of 4 KiB.
fn snapshot() -> Vec<u8> {
    let mut store = with(16 << 10, &[(4096, 3), (4104, 2), (4112, 0), (4120, 3)]);
    store[..16].copy_from_slice(b"SnAp\x01\0\0\0\x01\0\0\0\x08\0\0\0");
    store
}

/// A write cache of three blocks, of which one was not committed and one is free.
fn write_cache() -> Vec<u8> {
    let entries = [(64, 8), (72, 1), (80, 16), (88, 5), (96, u64::MAX)];
    let head = [(0, 1 << 32 | 0x2348_9321), (8, 4096), (16, 3), (24, 4)];
    with(20 << 10, &[&head[..], &entries].concat())
}

/// Puts an entry into a master boot record, or into a link.
fn entry(disk: &mut [u8], link: usize, index: usize, kind: u8, place: [u32; 2]) {
    let at = 512 * link + 446 + 16 * index;
    disk[at + 4] = kind;
    disk[at + 8..at + 12].copy_from_slice(&place[0].to_le_bytes());
    disk[at + 12..at + 16].copy_from_slice(&place[1].to_le_bytes());
    disk[512 * link + 510..512 * link + 512].copy_from_slice(&[0x55, 0xAA]);
}

/// A disk with a primary partition and two logical ones.
fn mbr() -> Vec<u8> {
    let mut disk = vec![0; 64 << 9];
    entry(&mut disk, 0, 0, 0x83, [4, 8]);
    entry(&mut disk, 0, 1, 0x05, [16, 32]);
    entry(&mut disk, 16, 0, 0x8E, [2, 4]);
    entry(&mut disk, 16, 1, 0x05, [8, 8]);
    entry(&mut disk, 24, 0, 0x82, [2, 4]);
    disk
}

/// A disk with four entries of a GPT, of which two are used. The target puts in checksums.
fn gpt() -> Vec<u8> {
    let header =
        [(0, u64::from_le_bytes(*b"EFI PART")), (8, 92 << 32 | 0x1_0000), (24, 1), (32, 63)];
    let entries = [(40, 3), (48, 62), (72, 2), (80, 128 << 32 | 4)];
    let mut disk = vec![0; 512];
    disk.extend(with(512, &[&header[..], &entries].concat()));
    let first = [(0, 1), (16, 2), (32, 4), (40, 7), (56, u64::from(b'a'))];
    let third = [(256, 3), (272, 4), (288, 8), (296, 20)];
    disk.extend(with(512, &[&first[..], &third].concat()));
    disk.resize(64 << 9, 0);
    entry(&mut disk, 0, 0, 0xEE, [1, 63]);
    disk
}

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    const FED: [&str; 15] = [
        "asif",
        "bochs",
        "cloop",
        "dmg",
        "luks",
        "ova",
        "parallels",
        "qcow",
        "qcow2",
        "qed",
        "simg",
        "vdi",
        "vhd",
        "vhdx",
        "vmdk",
    ];
    for format in FED {
        for case in cases(format) {
            let unpacked = case.unpack();
            for part in &case.files {
                let size = usize::try_from(part.size).unwrap_or(usize::MAX);
                if size > 16 << 20 {
                    continue;
                }
                let file = fs::read(unpacked.file(&part.name))?;
                for (target, _, take) in FEEDS.iter().filter(|(_, fed, _)| *fed == format) {
                    let Some(seed) = take(&file) else { continue };
                    let folder = corpus.join(target);
                    fs::create_dir_all(&folder)?;
                    fs::write(folder.join(format!("{}-{}", case.name, part.name)), seed)?;
                }
            }
        }
    }
    made(&corpus)?;
    for (target, ..) in FEEDS {
        let count = fs::read_dir(corpus.join(target))?.count();
        println!("{target}: {count} seeds");
    }
    Ok(())
}
