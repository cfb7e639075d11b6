//! `anydisk members`, and `--member` of the commands that read.

use crate::common::Bench;
use anydisk_testkit::golden::cases;
use anydisk_testkit::lvm::{device, linear, text, volume};

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const EXTENT: usize = 64 << 10;

/// Extents that are each filled with their own number, from `first` on.
fn extents(first: u8, count: u8) -> Vec<u8> {
    (first..first + count).flat_map(|number| [number; EXTENT]).collect()
}

/// A disk with an MBR whose first partition, from 1 MiB on, holds `content`.
fn partitioned(content: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    let sectors = u32::try_from(content.len().div_ceil(512)).unwrap();
    disk[450] = 0x8E;
    disk[454..458].copy_from_slice(&2048_u32.to_le_bytes());
    disk[458..462].copy_from_slice(&sectors.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    disk.extend_from_slice(content);
    disk
}

/// A group over two disks: `a.raw` is a partition's, `b.raw` is whole.
fn group(bench: &Bench) {
    let stripes = "type = \"striped\" stripe_count = 2 stripe_size = 128 \
                   stripes = [\"pv0\", 1, \"pv1\", 1]";
    let volumes = linear("root", 2, "pv0", 3) + &volume("wide", 4, stripes);
    let text = text(&[A, B], 3, &volumes);
    let first = partitioned(&device(A, &text, &extents(0, 8)));
    std::fs::write(bench.path("a.raw"), first).unwrap();
    std::fs::write(bench.path("b.raw"), device(B, &text, &extents(100, 8))).unwrap();
}

#[test]
fn members_are_a_tree_of_disks_partitions_and_volumes() {
    let bench = Bench::new();
    group(&bench);
    let tree = bench.prints(&["members", "-f", "raw", "a.raw", "b.raw"]);
    let lines: Vec<Vec<&str>> = tree.lines().map(|l| l.split_whitespace().collect()).collect();
    let names: Vec<&str> = lines.iter().map(|words| words[0]).collect();
    assert_eq!(names[..4], ["a.raw", "a.raw/1", "b.raw", "vg"], "{tree}");
    assert!(tree.contains("  a.raw/1") && tree.contains("partition (Linux LVM)"), "{tree}");
    assert!(tree.contains("  vg/root") && tree.contains("logical volume (linear)"), "{tree}");
    let volumes = |place: &str| {
        let is_there = |line: &&str| line.contains("physical volume") && line.ends_with(place);
        tree.lines().filter(is_there).count()
    };
    assert_eq!([volumes("in a.raw/1"), volumes("in b.raw")], [1, 1], "{tree}");
    let json = bench.prints(&["members", "-f", "raw", "--output=json", "a.raw", "b.raw"]);
    assert!(json.contains("\"path\": \"vg/wide\"") && json.contains("\"size\": 262144"), "{json}");
    assert!(json.contains("\"parent\": \"vg\""), "{json}");
}

#[test]
fn a_volume_is_converted_shown_mapped_and_compared_by_its_name() {
    let bench = Bench::new();
    group(&bench);
    let member = ["--member", "vg/wide", "-f", "raw"];
    let run = |command: &str, rest: &[&str]| {
        bench.prints(&[&[command], &member[..], &["a.raw", "b.raw"], rest].concat())
    };
    run("convert", &["-O", "raw", "wide.raw"]);
    let expected = [1_u8, 101, 2, 102].map(|number| [number; EXTENT]).concat();
    assert_eq!(std::fs::read(bench.path("wide.raw")).unwrap(), expected);
    let info = run("info", &[]);
    assert!(info.contains("image: vg/wide\nfile format: raw\n"), "{info}");
    assert!(info.contains("virtual size: 256 KiB (262144 bytes)"), "{info}");
    assert!(run("map", &["--output=json"]).contains("\"length\": 262144"));
    assert_eq!(run("compare", &["wide.raw"]), "Images are identical.\n");
    assert!(run("measure", &["-O", "qcow2"]).contains("required size:"));
    assert_eq!(run("snapshot", &["-l"]), "");
}

#[test]
fn dd_takes_the_disks_of_a_machine_by_an_operand_each() {
    let bench = Bench::new();
    group(&bench);
    let how = ["dd", "-f", "raw", "--member", "vg/wide", "bs=64k", "skip=1", "count=2"];
    bench.prints(&[&how[..], &["if=a.raw", "if=b.raw", "of=part.raw"]].concat());
    let expected = [101_u8, 2].map(|number| [number; EXTENT]).concat();
    assert_eq!(std::fs::read(bench.path("part.raw")).unwrap(), expected);
    // Without a member the last one counts.
    bench.prints(&["dd", "-f", "raw", "bs=1", "count=1", "if=b.raw", "if=a.raw", "of=one.raw"]);
    assert_eq!(std::fs::read(bench.path("one.raw")).unwrap(), [0]);
}

#[test]
fn a_partition_of_the_only_disk_is_asked_for_by_its_number() {
    let bench = Bench::new();
    std::fs::write(bench.path("disk.raw"), partitioned(&[7; 4096])).unwrap();
    for member in ["1", "disk.raw/1"] {
        bench.prints(&["convert", "-f", "raw", "--member", member, "disk.raw", "part.raw"]);
        assert_eq!(std::fs::read(bench.path("part.raw")).unwrap(), [7; 4096]);
    }
    let error = bench.fails(&["info", "-f", "raw", "--member", "2", "disk.raw"], 1);
    assert!(error.contains("there is no member \"2\""), "{error}");
}

#[test]
fn a_strangers_disk_is_looked_into_no_further_than_its_own_table() {
    let bench = Bench::new();
    group(&bench);
    let files = ["-f", "raw", "a.raw", "b.raw"];
    let tree = bench.prints(&[&["members", "--untrusted"], &files[..]].concat());
    assert!(tree.contains("a.raw/1") && tree.contains("1 of 2 physical volumes missing"), "{tree}");
    let nothing = ["convert", "--untrusted", "-f", "raw", "--member", "vg/root"];
    let error = bench.fails(&[&nothing[..], &["a.raw", "b.raw", "x.raw"]].concat(), 1);
    assert!(error.contains("is not among the disks given"), "{error}");
}

#[test]
fn the_disks_of_a_package_are_members_and_their_digests_are_verified() {
    let bench = Bench::new();
    let all = cases("ova");
    for (name, good) in [("sha256-mf-front", true), ("hostile-digest-mismatch", false)] {
        let case = all.iter().find(|case| case.name == name).expect("the case");
        std::fs::copy(case.unpack().path, bench.path("box.ova")).unwrap();
        let tree = bench.prints(&["members", "box.ova"]);
        assert!(tree.contains("golden-disk1.vmdk") && tree.contains("(vmdk)"), "{tree}");
        let convert =
            ["convert", "--member", "golden-disk1.vmdk", "-O", "raw", "box.ova", "out.raw"];
        if good {
            bench.prints(&convert);
            assert_eq!(std::fs::metadata(bench.path("out.raw")).unwrap().len(), 2_117_632);
            std::fs::remove_file(bench.path("out.raw")).unwrap();
        } else {
            let error = bench.fails(&convert, 1);
            assert!(error.contains("digest of golden-disk1.vmdk"), "{error}");
            assert!(!bench.path("out.raw").exists());
        }
    }
}

#[test]
fn two_files_without_a_member_are_refused() {
    let bench = Bench::new();
    group(&bench);
    let error = bench.fails(&["info", "-f", "raw", "a.raw", "b.raw"], 1);
    assert!(error.contains("Expecting one image file name"), "{error}");
}

#[test]
fn disks_become_a_package_that_holds_the_same() {
    let bench = Bench::new();
    bench.raw("a.raw", 1 << 20, &[(70_000, b"one")]);
    bench.raw("b.raw", 100 << 10, &[(0, b"two")]);
    let convert = ["convert", "-f", "raw", "-O", "ova", "a.raw", "b.raw", "box.ova"];
    bench.prints(&convert);
    let first = std::fs::read(bench.path("box.ova")).unwrap();
    bench.prints(&convert);
    // But for the content IDs of its disks it is the same.
    let second = std::fs::read(bench.path("box.ova")).unwrap();
    assert_eq!(first.len(), second.len());
    for (number, name) in [(1, "a.raw"), (2, "b.raw")] {
        let member = format!("box-disk{number}.vmdk");
        let out = format!("{number}.raw");
        bench.prints(&["convert", "--member", &member, "-O", "raw", "box.ova", &out]);
        let same =
            std::fs::read(bench.path(&out)).unwrap() == std::fs::read(bench.path(name)).unwrap();
        assert!(same, "{member} holds something else");
    }
    // A tar of another author finds the same members, the descriptor first.
    let Ok(tar) = bench.command("tar").args(["tf", "box.ova"]).output() else {
        eprintln!("skipped: tar is not installed");
        return;
    };
    let expected = "box.ovf\nbox-disk1.vmdk\nbox-disk2.vmdk\nbox.mf\n";
    assert_eq!(String::from_utf8_lossy(&tar.stdout), expected, "{}", crate::common::said(&tar));
}

#[test]
fn a_disk_of_a_package_is_checked_and_asked_for_its_snapshots_where_it_lies() {
    let bench = Bench::new();
    bench.raw("disk.raw", 1 << 20, &[(0, b"data")]);
    bench.prints(&["convert", "-q", "-f", "raw", "-O", "ova", "disk.raw", "box.ova"]);
    let members = bench.prints(&["members", "box.ova"]);
    let disk = members.split_whitespace().find(|word| word.ends_with(".vmdk")).expect("a disk");
    let text = bench.prints(&["check", "--member", disk, "box.ova"]);
    assert!(text.starts_with("No errors were found on the image.\n"), "{text}");
    let json = bench.prints(&["check", "--output=json", "--member", disk, "box.ova"]);
    assert!(json.contains(&format!("\"filename\": \"{disk}\"")), "{json}");
    let list = bench.prints(&["snapshot", "--output=json", "--member", disk, "box.ova"]);
    assert_eq!(list, "[\n]\n");
    let error = bench.fails(&["snapshot", "-c", "now", "--member", disk, "box.ova"], 1);
    assert!(error.contains("only read"), "{error}");
    bench.fails(&["check", "-r", "all", "--member", disk, "box.ova"], 1);
    let error = bench.fails(&["check", "--member", "nothing", "box.ova"], 1);
    let expected =
        "anydisk: there is no member \"nothing\"\nWhat there is, tells: anydisk members FILE...\n";
    assert_eq!(error.replace("nothing: ", ""), expected);
}

#[test]
fn a_volume_is_read_by_bench_and_not_written() {
    let bench = Bench::new();
    group(&bench);
    let line = ["bench", "-c", "4", "--member", "vg/root", "a.raw", "b.raw"];
    assert!(bench.prints(&line).contains("Run completed"));
    let error = bench.fails(&[&line[..], &["-w"]].concat(), 1);
    assert!(error.contains("is only read"), "{error}");
}
