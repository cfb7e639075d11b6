//! Logical volumes in disks of any format, from the files to the bytes: what a kernel wrote and
//! hashed, in raw, in qcow2 and in VMDK, whole and without a disk.

use std::path::{Path, PathBuf};

use anydisk::convert::{NewImage, Settings, Sources, Unwatched, copy_to_file};
use anydisk::{Inside, Member, Members, OpenDisk, Options, Result};
use anydisk_testkit::Unpacked;
use anydisk_testkit::corpus::{Content, Row, rows};
use anydisk_testkit::lvm;
use anydisk_testkit::volumes::{Fixture, GROUPS, is_disk, sha256};

/// Converts a raw disk into an image beside it.
fn converted(disk: &Path, format: &str) -> PathBuf {
    let target = disk.with_extension(format);
    let format = anydisk::formats().by_name(format).expect("a format");
    let source = OpenDisk::new().format("raw").path(disk).expect("it opens");
    let options = Options::of(format);
    let image = NewImage::new(format, &options, source.size());
    let mut settings = Settings::default();
    settings.durable = false;
    copy_to_file(&Sources::one(&source), &target, &image, &settings, &Unwatched).expect("copied");
    target
}

fn inside(disks: &[PathBuf], without: Option<&str>) -> Result<Inside> {
    let others: Vec<_> =
        disks.iter().filter(|path| without.is_none_or(|name| !is_disk(path, name))).collect();
    let is_raw = disks.iter().all(|path| path.extension().is_some_and(|ext| ext == "raw"));
    let options = if is_raw { OpenDisk::new().format("raw") } else { OpenDisk::new() };
    options.inside(&others, true)
}

/// How many readings of volumes of a group were the same as the kernel's, and how many were refused
/// where the kernel refused, too.
fn judge(fixture: &Fixture, disks: &[PathBuf]) -> (usize, usize) {
    let mut sum = (0, 0);
    for row in &fixture.rows {
        let (same, refused) = row.assert_as_the_kernel(|without| {
            inside(disks, without).and_then(|inside| Members::open(&inside, &row.volume))
        });
        sum = (sum.0 + same, sum.1 + refused);
    }
    sum
}

/// The same of all groups, converted to `format`.
fn judge_all(format: &str) {
    let (mut volumes, mut same, mut refused) = (0, 0, 0);
    for (group, count) in GROUPS {
        let Some(fixture) = Fixture::open(group) else { return };
        assert_eq!(fixture.rows.len(), count, "volumes of {group}");
        let disks: Vec<_> = fixture.files.iter().map(|disk| converted(disk, format)).collect();
        let judged = judge(&fixture, &disks);
        (volumes, same, refused) = (volumes + count, same + judged.0, refused + judged.1);
    }
    eprintln!("{volumes} volumes in {format}: {same} readings the same, {refused} refused");
    // Refused: raid0 without an image, and a mirror without its first leg that has no log. The other
    // mirrors that the kernel would not activate read here.
    assert_eq!((volumes, same, refused), (53, 88, 6));
}

#[test]
fn every_volume_of_disks_in_qcow2_reads_as_the_kernel_read_it_whole_and_degraded() {
    judge_all("qcow2");
}

#[test]
fn every_volume_of_disks_in_vmdk_reads_as_the_kernel_read_it_whole_and_degraded() {
    judge_all("vmdk");
}

#[test]
fn volumes_on_a_partition_read_as_the_kernel_read_them() {
    let Some(fixture) = Fixture::open("partition") else { return };
    assert_eq!(judge(&fixture, &fixture.files), (2, 0));
    let inside = inside(&fixture.files, None).unwrap();
    let member = inside.members().iter().find(|member| member.path.ends_with("/2")).unwrap();
    assert_eq!(member.size, Some(161_000 * 512));
}

/// What a row of the corpus names, with the other disk of its group if there is one.
fn hash_of(row: &Row, unpacked: &Unpacked) -> Result<(u64, String)> {
    let other = row.open.strip_prefix("pv=").map(|name| unpacked.file(name));
    let disks: Vec<_> = std::iter::once(unpacked.path.clone()).chain(other).collect();
    let inside = OpenDisk::new().format("raw").inside(&disks, true)?;
    let name = row.part.as_deref().and_then(|part| part.strip_prefix("lv=")).expect("a volume");
    let is_it = |member: &&Member| member.path.ends_with(&format!("/{name}"));
    let member = inside.members().iter().find(is_it).expect("the volume of the row");
    sha256(&*Members::open(&inside, &member.path)?)
}

#[test]
fn volumes_of_the_corpus_hold_what_other_programs_read() {
    let rows = rows("lvm");
    assert!(rows.len() >= 15);
    let mut last = None;
    for row in rows {
        let archive = row.name.split('#').next().map(str::to_owned);
        // One archive has many volumes, in rows that follow each other.
        let (_, unpacked) = match last.take() {
            Some((name, unpacked)) if name == archive => last.insert((name, unpacked)),
            _ => last.insert((archive, row.unpack())),
        };
        let outcome = hash_of(&row, unpacked);
        let (size, hash) = outcome.unwrap_or_else(|error| panic!("{}: {error}", row.name));
        let expected = Some(Content::Sha256(hash));
        assert_eq!((Some(size), &expected), (row.virtual_size, &row.content), "{}", row.name);
    }
}

#[test]
fn a_disk_that_its_group_went_on_without_is_told_and_not_read_where_it_may_be_old() {
    let rows = rows("lvm");
    let row = rows.iter().find(|row| row.name == "lvm2-layers#lv=away").expect("the row");
    let unpacked = row.unpack();
    let disks = ["layers-pv2.raw", "layers-pv0.raw", "layers-pv1.raw"].map(|n| unpacked.file(n));
    let note = |inside: &Inside, path: &str| {
        let member = inside.members().iter().find(|member| member.path == path);
        member.and_then(|member| member.note.clone()).unwrap_or_default()
    };
    let two = OpenDisk::new().format("raw").inside(&disks[1..], true).unwrap();
    assert_eq!(note(&two, "vglayers"), "1 of 3 physical volumes missing or ambiguous");
    for path in ["vglayers/away", "vglayers/stale", "vglayers/lost"] {
        assert_eq!(note(&two, path), "partial");
    }
    assert!(Members::open(&two, "vglayers/lost").is_err());
    assert_eq!(note(&two, "vglayers/t"), "reads as s, which takes its place");
    let all = OpenDisk::new().format("raw").inside(&disks, true).unwrap();
    let third = all.members().iter().filter_map(|member| member.note.as_deref());
    let third = third.filter(|note| note.contains("the group went on without it")).count();
    assert_eq!(third, 1);
    let (size, hash) = sha256(&*Members::open(&all, "vglayers/away").unwrap()).unwrap();
    assert_eq!((Some(size), Some(Content::Sha256(hash))), (row.virtual_size, row.content.clone()));
    assert!(Members::open(&all, "vglayers/lost").is_ok());
}

#[test]
fn a_damaged_label_is_told_and_hides_no_other_group() {
    let folder = tempfile::tempdir().expect("a folder");
    let id = "abcdefghijklmnopqrstuvwxyz012345";
    let volume = lvm::linear("lv", 4, "pv0", 0);
    let whole = lvm::device(id, &lvm::text(&[id], 1, &volume), &[7; 4 << 16]);
    let mut damaged = whole.clone();
    damaged[512 + 21] = 0xFF; // Where its contents begin: behind its sector.
    lvm::reseal(&mut damaged);
    let disks = [("damaged.raw", damaged), ("whole.raw", whole)].map(|(name, bytes)| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    });
    let inside = inside(&disks, None).expect("listed");
    assert_eq!(sha256(&*Members::open(&inside, "vg/lv").expect("it opens")).unwrap().0, 4 << 16);
    let damaged = inside.members().iter().find(|member| member.path == "damaged.raw").unwrap();
    let note = damaged.note.as_deref().unwrap_or_default();
    assert!(note.contains("physical volume header"), "{note}");
}

#[test]
fn files_and_groups_of_one_name_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let id = "abcdef-ghij-klmn-opqr-stuv-wxyz-012345".replace('-', "");
    let volume = lvm::linear("1", 4, "pv0", 0);
    let bytes = lvm::device(&id, &lvm::text(&[&id], 1, &volume), &[7; 4 << 16]);
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("other")).expect("a folder");
    std::fs::write(path("vg"), bytes).expect("written");
    std::fs::write(path("other/vg"), [0; 4096]).expect("written");
    let one = OpenDisk::new().format("raw").inside(&[path("vg")], true).expect("listed");
    assert!(Members::open(&one, "vg/1").is_err());
    let volume = Members::open(&one, "lvm2/vg/1").expect("it opens");
    assert_eq!(sha256(&*volume).unwrap().0, 4 << 16);
    let both = [path("vg"), path("other/vg")];
    let both_inside = OpenDisk::new().format("raw").inside(&both, true).expect("listed");
    for (path, size) in both.iter().zip([(1 << 20) + (4 << 16), 4096]) {
        let disk = both_inside.disk(&path.display().to_string(), None).expect("it opens");
        assert_eq!(disk.size(), size);
    }
    // Nothing else has that name any more.
    assert!(Members::open(&both_inside, "vg/1").is_ok());
}

#[test]
fn of_a_single_disk_the_name_may_be_left_out_whatever_lies_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk.raw");
    // One partition, with the label of a physical volume that no group names.
    let id = "abcdefghijklmnopqrstuvwxyz012345";
    let mut bytes = vec![0; 1 << 20];
    bytes[450] = 0x8E;
    bytes[454..462].copy_from_slice(&[0, 8, 0, 0, 0, 8, 0, 0]);
    bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
    bytes.extend(lvm::device(id, "", &[]));
    std::fs::write(&path, bytes).expect("written");
    let inside = OpenDisk::new().format("raw").inside(&[path], true).expect("listed");
    let kinds: Vec<_> = inside.members().iter().map(|member| &*member.kind).collect();
    assert!(kinds.iter().any(|kind| kind.contains("physical volume")), "{kinds:?}");
    assert_eq!(inside.disk("1", None).expect("it opens").size(), 1 << 20);
}
