//! Images that qemu made at random: qemu-img must see the same map and the same bytes.
//!
//! Where qemu is not installed these tests say so and pass; the golden images stand for them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anydisk_core::{
    Access, Disk, GuestOffset, GuestRange, HostOffset, Located, Location, Opener, Registry, Source,
    StorageExt,
};
use anydisk_qcow2::QCOW2;
use anydisk_raw::RAW;
use anydisk_storage::{FileStorage, OpenOptions};
use anydisk_testkit::{FolderResolver, Random};
use serde_json::Value;

/// One kind of image: its clusters, the other options of `qemu-img create`, and its size.
struct Kind(u64, &'static str, u64);

const KINDS: [Kind; 9] = [
    Kind(512, "refcount_bits=8", 300 << 10),
    Kind(4 << 10, "refcount_bits=64", 3 << 20),
    Kind(64 << 10, "compat=0.10", 5 << 20),
    Kind(64 << 10, "lazy_refcounts=on", (5 << 20) + 512),
    Kind(64 << 10, "compression_type=zstd", 5 << 20),
    Kind(2 << 20, "compression_type=zstd", 33 << 20),
    Kind(16 << 10, "extended_l2=on", 2 << 20),
    Kind(64 << 10, "extended_l2=on,compression_type=zstd", 5 << 20),
    Kind(2 << 20, "extended_l2=on", 17 << 20),
];

fn is_there(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success());
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).current_dir(folder).args(arguments).output().expect("runs");
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    output.stdout
}

/// An image and one below it, both written at random by qemu-io.
fn make(folder: &Path, kind: &Kind, random: &mut Random) -> PathBuf {
    let Kind(cluster, options, size) = *kind;
    let options = format!("cluster_size={cluster},{options}");
    let shorter = size - 100 * 512;
    let (top, below) = (size.to_string(), shorter.to_string());
    run(folder, "qemu-img", &["create", "-q", "-f", "qcow2", "below.qcow2", &below]);
    change(folder, "below.qcow2", shorter, random, None);
    let backing = ["create", "-q", "-f", "qcow2", "-b", "below.qcow2", "-F", "qcow2"];
    run(folder, "qemu-img", &[&backing[..], &["-o", &options, "top.qcow2", &top]].concat());
    change(folder, "top.qcow2", size, random, Some(cluster));
    folder.join("top.qcow2")
}

fn change(folder: &Path, image: &str, size: u64, random: &mut Random, compress: Option<u64>) {
    let mut commands =
        compress.map_or_else(Vec::new, |cluster| compress_some(cluster, size, random));
    for _ in 0..40 {
        let at = random.below(size) & !511;
        let most = if random.chance(1, 8) { size / 4 } else { 40 << 10 };
        let len = ((random.below(most) & !511) + 512).min(size - at);
        let pattern = 1 + random.below(255);
        commands.push(match random.below(8) {
            0 => format!("write -z {at} {len}"),
            1 => format!("write -z -u {at} {len}"),
            2 => format!("discard {at} {len}"),
            _ => format!("write -P {pattern} {at} {len}"),
        });
    }
    let arguments: Vec<&str> =
        commands.iter().flat_map(|command| ["-c", command]).chain(["-f", "qcow2", image]).collect();
    run(folder, "qemu-io", &arguments);
}

/// Compressed writes of whole clusters: first, as qemu compresses nothing that has a place already.
fn compress_some(cluster: u64, size: u64, random: &mut Random) -> Vec<String> {
    let chosen = (0..size / cluster).filter(|_| random.chance(1, 3)).collect::<Vec<_>>();
    let write =
        |number: u64| format!("write -c -P {} {} {cluster}", number % 256, number * cluster);
    chosen.into_iter().map(write).collect()
}

fn open(path: &Path) -> Disk {
    let folder = path.parent().expect("a file has a folder");
    let (registry, resolver) = (Registry::new(&[&QCOW2, &RAW]), FolderResolver::new(folder));
    let file = FileStorage::open(path, &OpenOptions::new()).expect("it is there");
    let file = Located { store: Arc::new(file), location: Location::Path(path.to_owned()) };
    Opener::new(&registry, &resolver).open(file, None, Access::Read).expect("qemu made it")
}

/// Whether qemu's answer for a piece of the disk fits ours. Where a host file has a hole qemu says
/// zero for what the tables call data.
fn fits(qemu: &Value, at: u64, layer: usize, source: &Source<'_>) -> bool {
    let flag = |name: &str| qemu[name].as_bool().expect("a flag");
    let offset = qemu["offset"]
        .as_u64()
        .map(|offset| HostOffset(offset + at - qemu["start"].as_u64().expect("a start")));
    let depth = qemu["depth"].as_u64() == Some(layer as u64);
    match source {
        Source::Data { at, .. } => depth && !flag("compressed") && offset == Some(*at),
        Source::Encoded(_) => depth && flag("compressed") && flag("data"),
        Source::Zero { reserved } => depth && flag("zero") && !flag("data") && offset == *reserved,
        _ => flag("zero") && !flag("data"),
    }
}

fn compare_map(disk: &Disk, folder: &Path) {
    let output = run(folder, "qemu-img", &["map", "--output=json", "top.qcow2"]);
    let qemu: Value = serde_json::from_slice(&output).expect("JSON");
    let mut end = 0;
    for piece in qemu.as_array().expect("a list") {
        let mut at = piece["start"].as_u64().expect("a start");
        assert_eq!(at, end);
        end = at + piece["length"].as_u64().expect("a length");
        while at < end {
            let rest = GuestRange::between(GuestOffset(at), GuestOffset(end));
            let found = disk.map(rest).expect("sound tables");
            let source = &found.extent.source;
            assert!(fits(piece, at, found.layer, source), "{at:#x}: {source:?} and {piece}");
            at += found.extent.len;
        }
    }
    assert_eq!(end, disk.size());
}

fn compare_content(disk: &Disk, folder: &Path) {
    run(folder, "qemu-img", &["convert", "-O", "raw", "top.qcow2", "top.raw"]);
    let raw = FileStorage::open(folder.join("top.raw"), &OpenOptions::new()).expect("it is there");
    let (mut ours, mut theirs) = (vec![0; 100_000], vec![0; 100_000]);
    let mut at = 0;
    while at < disk.size() {
        let len = usize::try_from((disk.size() - at).min(100_000)).expect("small");
        disk.read(GuestOffset(at), &mut ours[..len]).expect("readable");
        raw.read_exact_at(HostOffset(at), &mut theirs[..len]).expect("readable");
        assert!(ours[..len] == theirs[..len], "the bytes from {at:#x} on differ");
        at += len as u64;
    }
}

#[test]
fn qemu_sees_the_same_map_and_the_same_bytes_in_images_of_every_kind() {
    if !is_there("qemu-img") || !is_there("qemu-io") {
        return;
    }
    for (number, kind) in KINDS.iter().enumerate() {
        println!("{} bytes, {}", kind.0, kind.1);
        let folder = tempfile::tempdir().expect("a folder");
        let mut random = Random::new(number as u64);
        let disk = open(&make(folder.path(), kind, &mut random));
        compare_map(&disk, folder.path());
        compare_content(&disk, folder.path());
    }
}
