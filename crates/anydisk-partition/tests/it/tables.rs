//! Tables made by hand, and by sfdisk where it is installed.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anydisk_core::{
    Container, HostOffset, Limits, Members, Result, Sample, Storage, StorageExt, Verdict,
};
use anydisk_partition::{PARTITIONS, Partitions, Scheme};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::digest::crc32;
use anydisk_testkit::double::FaultStorage;
use anydisk_testkit::oracle::is_installed;

const MIB: u64 = 1 << 20;

/// A disk whose sectors hold their own number in their first bytes.
fn disk(len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    for (number, sector) in (0_u32..).zip(bytes.chunks_mut(512)) {
        sector[..4].copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// Puts an entry into the MBR, or the link of a chain, at this sector.
fn entry(disk: &mut [u8], sector: usize, index: usize, (kind, start, count): (u8, u32, u32)) {
    let at = sector * 512;
    let place = at + 446 + 16 * index;
    disk[place..place + 16].fill(0);
    disk[place + 4] = kind;
    disk[place + 8..place + 12].copy_from_slice(&start.to_le_bytes());
    disk[place + 12..place + 16].copy_from_slice(&count.to_le_bytes());
    disk[at + 510..at + 512].copy_from_slice(&[0x55, 0xAA]);
}

fn open(disk: Vec<u8>) -> Result<Partitions> {
    Partitions::open(Arc::new(MemoryStorage::new(disk)), &Limits::default())
}

/// Numbers, starts and lengths in sectors.
fn list(partitions: &Partitions) -> Vec<(u32, u64, u64)> {
    let all = partitions.partitions().iter();
    all.map(|partition| (partition.number, partition.start / 512, partition.len / 512)).collect()
}

/// A disk with an MBR of two primary partitions and a chain of two logical ones.
fn mbr() -> Vec<u8> {
    let mut disk = disk(4 * MIB);
    disk[..446].fill(0x90);
    entry(&mut disk, 0, 0, (0x83, 100, 50));
    entry(&mut disk, 0, 2, (0x8E, 200, 60));
    entry(&mut disk, 0, 3, (0x0F, 1000, 500));
    entry(&mut disk, 1000, 0, (0x83, 10, 20));
    entry(&mut disk, 1000, 1, (0x05, 100, 100));
    entry(&mut disk, 1100, 0, (0x82, 5, 30));
    disk
}

#[test]
fn primary_and_logical_partitions_have_the_numbers_that_linux_gives_them() {
    let table = open(mbr()).unwrap();
    assert_eq!(table.scheme(), Scheme::Mbr);
    let expected = [(1, 100, 50), (3, 200, 60), (4, 1000, 500), (5, 1010, 20), (6, 1105, 30)];
    assert_eq!(list(&table), expected);
    let logical = Members::open(&table, "6").unwrap();
    let mut number = [0; 4];
    logical.read_exact_at(HostOffset(512), &mut number).unwrap();
    assert_eq!((u32::from_le_bytes(number), logical.len().unwrap()), (1106, 30 * 512));
    assert_eq!(table.members()[1].kind, "partition (Linux LVM)");
    assert!(Members::open(&table, "2").unwrap_err().to_string().contains("no partition \"2\""));
}

#[test]
fn of_a_chain_that_comes_back_or_leads_nowhere_what_was_found_is_listed_and_that_is_told() {
    for (next, complaint) in [
        (0, "is 1000, expected a chain"),
        (50, "is \"\\x00\\x00\", expected 55 aa at the end"),
        (1 << 30, "is missing, expected a sector of the disk"),
        (u32::MAX, "is missing"),
    ] {
        let mut disk = mbr();
        entry(&mut disk, 1000, 1, (0x05, next, 100));
        let table = open(disk).unwrap();
        let expected = [(1, 100, 50), (3, 200, 60), (4, 1000, 500), (5, 1010, 20)];
        assert_eq!(list(&table), expected);
        let note = table.members()[3].note.clone().unwrap();
        assert!(note.contains(complaint), "{note}");
    }
}

#[test]
fn a_partition_past_the_end_is_listed_without_a_size_and_does_not_open() {
    let mut disk = mbr();
    entry(&mut disk, 0, 0, (0x83, u32::MAX, u32::MAX));
    let table = open(disk).unwrap();
    let first = &table.members()[0];
    assert_eq!(
        (first.size, first.note.as_deref()),
        (None, Some("reaches past the end of the disk"))
    );
    assert!(Members::open(&table, "1").is_err());
    assert!(Members::open(&table, "3").is_ok());
}

// One bad entry hid all partitions of the disk.
#[test]
fn an_entry_of_a_gpt_that_ends_before_it_begins_is_told_and_the_others_open() {
    for bad in [(800, 799), (1 << 55, u64::MAX >> 1), (0, u64::MAX)] {
        let table = open(gpt(512, &[(100, 199), bad, (1000, 1999)])).unwrap();
        let members = table.members();
        assert_eq!(
            members.iter().map(|one| one.size.is_some()).collect::<Vec<_>>(),
            [true, false, true]
        );
        let note = members[1].note.as_deref().unwrap();
        let expected = format!("its sectors are {} to {}", bad.0, bad.1);
        assert!(note.contains(&expected), "{note}");
        assert!(Members::open(&table, "3").unwrap_err().to_string().contains(&expected));
        assert_eq!(Members::open(&table, "5").unwrap().len().unwrap(), 1000 * 512);
    }
}

#[test]
fn the_boot_sector_of_a_file_system_is_no_table() {
    let mut disk = mbr();
    disk[446..510].fill(0x90);
    let sample = Sample { head: &disk[..4096], tail: &[], len: disk.len() as u64 };
    assert_eq!(PARTITIONS.probe(&sample), Verdict::No);
    assert!(open(disk).unwrap_err().to_string().contains("partition table at 0x1fe"));
    assert!(open(Vec::new()).is_err());
}

/// A GPT of these partitions (first and last sector) in both copies, with a protective MBR.
fn gpt(sector: usize, partitions: &[(u64, u64)]) -> Vec<u8> {
    let mut disk = disk(4 * MIB);
    disk[446..510].fill(0);
    entry(&mut disk, 0, 0, (0xEE, 1, u32::MAX));
    let mut entries = vec![0; 128 * 128];
    for (index, (first, last)) in partitions.iter().enumerate() {
        let at = 128 * (index * 2);
        entries[at..at + 16].copy_from_slice(&[7; 16]);
        entries[at + 32..at + 40].copy_from_slice(&first.to_le_bytes());
        entries[at + 40..at + 48].copy_from_slice(&last.to_le_bytes());
        let name: Vec<u8> = "r\u{f6}\u{f6}t".encode_utf16().flat_map(u16::to_le_bytes).collect();
        entries[at + 56..at + 56 + name.len()].copy_from_slice(&name);
    }
    let sectors = disk.len() / sector;
    let table = entries.len() / sector;
    for (own, other, place) in [(1, sectors - 1, 2), (sectors - 1, 1, sectors - 1 - table)] {
        let numbers = [own, other, 40, sectors - 40].map(|number| (number as u64).to_le_bytes());
        let mut header = vec![0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
        header[24..56].copy_from_slice(&numbers.concat());
        header[72..80].copy_from_slice(&(place as u64).to_le_bytes());
        header[80..88].copy_from_slice(&[128, 0, 0, 0, 128, 0, 0, 0]);
        header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        seal(&mut header);
        disk[own * sector..own * sector + 92].copy_from_slice(&header);
        disk[place * sector..place * sector + entries.len()].copy_from_slice(&entries);
    }
    disk
}

fn seal(header: &mut [u8]) {
    header[16..20].fill(0);
    let crc = crc32(&header[..92]);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn copies_that_differ_and_a_disk_that_was_cut_are_told() {
    let note = |disk: Vec<u8>| open(disk).unwrap().members()[0].note.clone().unwrap();
    let (mut mixed, other) = (gpt(512, &[(64, 95)]), gpt(512, &[(64, 96)]));
    let half = mixed.len() / 2;
    mixed[half..].copy_from_slice(&other[half..]);
    assert!(note(mixed.clone()).ends_with("the copy of the table is not good: it differs"));
    mixed.truncate(half);
    assert!(note(mixed).ends_with("it is not where the first says"));
    for (alternate, told) in
        [(u64::MAX, "it is not where the first says"), (1, "it is the first itself")]
    {
        let mut elsewhere = gpt(512, &[(64, 95)]);
        elsewhere[512 + 32..512 + 40].copy_from_slice(&alternate.to_le_bytes());
        seal(&mut elsewhere[512..1024]);
        assert!(note(elsewhere).ends_with(told));
    }
}

#[test]
fn a_copy_that_cannot_be_read_is_told_and_the_first_serves() {
    let store = FaultStorage::new(Arc::new(MemoryStorage::new(gpt(512, &[(64, 95)]))));
    let open = || Partitions::open(Arc::new(store.clone()), &Limits::default());
    open().unwrap();
    let mut told = 0;
    for number in 0..store.calls() {
        store.fail_call(number);
        let Ok(table) = open() else { continue };
        assert_eq!(list(&table), [(1, 64, 32)]);
        let note = table.members()[0].note.clone().unwrap();
        told += u64::from(note.contains("the copy of the table is not good: memory: cannot read"));
    }
    assert!(told >= 2, "header and entries: {told}");
}

#[test]
fn partitions_that_an_mbr_lists_beside_a_gpt_are_told_and_the_gpt_counts() {
    let mut disk = gpt(512, &[(64, 95)]);
    entry(&mut disk, 0, 1, (0x83, 64, 32));
    let table = open(disk).unwrap();
    assert_eq!((table.scheme(), list(&table)), (Scheme::Gpt, vec![(1, 64, 32)]));
    let note = table.members()[0].note.clone().unwrap();
    assert!(note.ends_with("the MBR lists partitions as well"), "{note}");
}

#[test]
fn a_protective_entry_of_any_size_in_any_place_means_a_gpt() {
    for (index, start, count) in [(0, 1, 1), (3, 0, u32::MAX), (2, 77, 5)] {
        let mut disk = gpt(512, &[(64, 95)]);
        disk[446..510].fill(0);
        entry(&mut disk, 0, index, (0xEE, start, count));
        let table = open(disk).unwrap();
        assert_eq!((table.scheme(), table.members()[0].size), (Scheme::Gpt, Some(32 * 512)));
    }
    // One without a GPT behind it is a partition of an MBR.
    let mut disk = disk(4 * MIB);
    disk[446..510].fill(0);
    entry(&mut disk, 0, 0, (0xEE, 1, 100));
    let table = open(disk).unwrap();
    assert_eq!((table.scheme(), list(&table)), (Scheme::Mbr, vec![(1, 1, 100)]));
}

#[test]
fn a_gpt_is_read_with_sectors_of_both_sizes() {
    for sector in [512, 4096] {
        let table = open(gpt(sector, &[(64, 95), (100, 100)])).unwrap();
        assert_eq!(table.scheme(), Scheme::Gpt);
        let unit = sector as u64 / 512;
        assert_eq!(list(&table), [(1, 64 * unit, 32 * unit), (3, 100 * unit, unit)]);
        assert_eq!(table.members()[0].note.as_deref(), Some("name: r\u{f6}\u{f6}t"));
    }
}

#[test]
fn when_one_copy_is_broken_the_other_serves_and_that_is_told() {
    let whole = gpt(512, &[(64, 95)]);
    let sectors = whole.len() / 512;
    for (at, told) in
        [(512, "it is not there"), (512 + 60, "GPT header_crc"), (1030, "entries_crc")]
    {
        let mut first = whole.clone();
        first[at] ^= 1;
        let table = open(first).unwrap();
        assert_eq!(list(&table), [(1, 64, 32)]);
        let note = table.members()[0].note.clone().unwrap();
        assert!(
            note.contains("the table at the start was not used") && note.contains(told),
            "{note}"
        );
        let mut last = whole.clone();
        last[(sectors - 1) * 512 + at % 512] ^= 1;
        let table = open(last).unwrap();
        assert_eq!(list(&table), [(1, 64, 32)]);
        let note = table.members()[0].note.clone().unwrap();
        assert!(note.contains("the copy of the table is not good"), "{note}");
    }
    let mut both = whole;
    both[512 + 60] ^= 1;
    both[(sectors - 1) * 512 + 60] ^= 1;
    assert!(open(both).unwrap_err().to_string().contains("GPT header_crc at 0x200"));
}

#[test]
fn numbers_of_a_gpt_that_overflow_are_refused() {
    for (at, number, complaint) in [
        (72, u64::MAX, "entries_lba"),
        (72, 1 << 55, "entries_lba"),
        (80, u64::from(u32::MAX) | 128 << 32, "more than the limit"),
        (80, 128 | 100 << 32, "entry_size"),
        (24, 9, "my_lba"),
        (8, 1 << 16 | 4 << 32, "header_size"),
    ] {
        let mut disk = gpt(512, &[(64, 95)]);
        let len = disk.len();
        disk[len - 512..len - 504].fill(0);
        disk[512 + at..512 + at + 8].copy_from_slice(&number.to_le_bytes());
        seal(&mut disk[512..1024]);
        let error = open(disk).unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
    }
}

#[test]
fn a_gpt_that_an_mbr_has_replaced_is_not_read() {
    let mut disk = gpt(512, &[(64, 95)]);
    entry(&mut disk, 0, 0, (0x83, 100, 50));
    assert_eq!(open(disk.clone()).unwrap().scheme(), Scheme::Mbr);
    // But where nothing claims the disk, it is.
    disk[446..512].fill(0);
    assert_eq!(open(disk).unwrap().scheme(), Scheme::Gpt);
}

#[test]
fn no_damage_to_a_table_makes_a_reader_panic() {
    let mut random = Random::new(9);
    let (mut good, mut told, mut refused) = (0, 0, 0);
    for number in 0..1000 {
        let mut disk = match number % 2 {
            0 => mbr(),
            _ => gpt(512, &[(64, 95), (100, 100)]),
        };
        for _ in 0..=random.below(3) {
            let area = [446, 512, 1024, 1000 * 512 + 446][random.index(4)];
            disk[area + random.index(66)] = [0, 1, 0x80, 0xFF][random.index(4)];
        }
        let Ok(table) = open(disk) else {
            refused += 1;
            continue;
        };
        match table.members().first().and_then(|member| member.note.as_ref()) {
            Some(_) => told += 1,
            None => good += 1,
        }
        for member in table.members() {
            if let Ok(store) = Members::open(&table, &member.path) {
                let _ = store.read_at(HostOffset(0), &mut [0; 512]);
            }
        }
    }
    assert!(good > 200 && told > 200 && refused > 5, "{good} good, {told} told, {refused} refused");
}

/// What sfdisk makes of a script, on a disk of 64 MiB; `None` (and a word aloud) without it.
fn sfdisk(script: &str) -> Option<Vec<u8>> {
    if !is_installed("sfdisk") {
        return None;
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(64 * MIB).expect("its length");
    let mut command = Command::new("sfdisk");
    command.arg("--quiet").arg(file.path()).stdin(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("its input").write_all(script.as_bytes()).expect("it takes it");
    assert!(child.wait().expect("it ends").success(), "sfdisk refused {script}");
    Some(std::fs::read(file.path()).expect("the file"))
}

#[test]
fn what_sfdisk_writes_is_read() {
    let lvm = "E6D6D379-F507-44C2-A23C-238F2A3DF928";
    let script = format!(
        "label: gpt\nstart=2048,size=4096,type=L,name=one\nstart=8192,size=100,type={lvm}\n"
    );
    let Some(gpt) = sfdisk(&script) else { return };
    let table = open(gpt).unwrap();
    assert_eq!(list(&table), [(1, 2048, 4096), (2, 8192, 100)]);
    assert_eq!(table.members()[1].kind, "partition (Linux LVM)");
    let script = "label: dos\n2048,4096,83\n8192,40000,5\n10240,100,8e\n14336,200,82\n";
    let Some(dos) = sfdisk(script) else { return };
    let expected = [(1, 2048, 4096), (2, 8192, 40000), (5, 10240, 100), (6, 14336, 200)];
    assert_eq!(list(&open(dos).unwrap()), expected);
}

/// Runs sgdisk on a disk; `None` (and a word aloud) without it.
fn sgdisk(arguments: &[&str], disk: &[u8]) -> Option<Vec<u8>> {
    if !is_installed("sgdisk") {
        return None;
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), disk).expect("written");
    let output = Command::new("sgdisk").args(arguments).arg(file.path()).output();
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "sgdisk {arguments:?}: {said}");
    Some(std::fs::read(file.path()).expect("the file"))
}

#[test]
fn what_sgdisk_writes_is_read_whole_from_the_copy_and_as_a_hybrid() {
    let new = ["-n", "1:2048:4095", "-t", "1:8e00", "-c", "1:data", "-n", "5:8192:8291"];
    let Some(whole) = sgdisk(&new, &vec![0; 16 << 20]) else { return };
    let expected = [(1, 2048, 2048), (5, 8192, 100)];
    let table = open(whole.clone()).unwrap();
    assert_eq!(list(&table), expected);
    assert_eq!(table.members()[0].kind, "partition (Linux LVM)");
    assert_eq!(table.members()[0].note.as_deref(), Some("name: data"));
    let mut damaged = whole.clone();
    damaged[512..1024].fill(0);
    assert_eq!(list(&open(damaged).unwrap()), expected);
    let Some(hybrid) = sgdisk(&["-h", "1"], &whole) else { return };
    let table = open(hybrid).unwrap();
    assert_eq!((table.scheme(), list(&table)), (Scheme::Gpt, expected.to_vec()));
    assert!(table.members()[0].note.clone().unwrap().contains("the MBR lists"));
    // And what sgdisk says of a table that was made here.
    let made = gpt(512, &[(64, 95)]);
    assert!(sgdisk(&["-v"], &made).is_some());
}
