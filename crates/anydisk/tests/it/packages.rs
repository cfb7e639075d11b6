//! Packages: what other programs say of ours, and disks over other disks.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anydisk::convert::{NewImage, Settings, Sources, Unwatched, copy_to_file};
use anydisk::{Disk, GuestOffset, Limits, OpenDisk, Options, copy_to_ova};
use anydisk_testkit::oracle::{Qemu, is_installed};
use flate2::Compression;
use flate2::write::GzEncoder;

const MIB: u64 = 1 << 20;

/// A raw disk of 4 MiB with `byte` in these mebibytes.
fn raw(path: &Path, byte: u8, mebibytes: &[usize]) -> Disk {
    let mut bytes = vec![0; 4 << 20];
    for number in mebibytes {
        bytes[number << 20..(number + 1) << 20].fill(byte);
    }
    fs::write(path, bytes).expect("written");
    OpenDisk::new().format("raw").path(path).expect("it opens")
}

/// The same as a streamOptimized VMDK.
fn stream(disk: &Disk, path: &Path) {
    let format = anydisk::formats().by_name("vmdk").expect("a format");
    let mut options = Options::of(format);
    options.set("subformat", "streamOptimized").expect("an option");
    let image = NewImage::new(format, &options, disk.size());
    let settings = Settings::default();
    copy_to_file(&Sources::one(disk), path, &image, &settings, &Unwatched).expect("copied");
}

fn gzip(path: &Path) {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&fs::read(path).expect("the file")).expect("it packs");
    fs::write(path, encoder.finish().expect("it packs")).expect("written");
}

/// The first byte of each mebibyte.
fn bytes_of(disk: &Disk) -> Vec<u8> {
    let byte = |number: u64| {
        let mut byte = [0];
        disk.read(GuestOffset(number * MIB), &mut byte).expect("it reads");
        byte[0]
    };
    (0..disk.size() / MIB).map(byte).collect()
}

/// A descriptor of these files and disks, in `folder`.
fn descriptor(folder: &Path, references: &str, disks: &str) -> PathBuf {
    let path = folder.join("box.ovf");
    let text = format!(
        "<?xml version=\"1.0\"?>\n<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\">\
         <References>{references}</References><DiskSection>{disks}</DiskSection></Envelope>"
    );
    fs::write(&path, text).expect("written");
    path
}

#[test]
fn a_disk_that_changes_another_is_read_over_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    stream(&raw(&path("base.raw"), 1, &[0, 1]), &path("base.vmdk"));
    stream(&raw(&path("delta.raw"), 2, &[1, 3]), &path("delta.vmdk"));
    let files = "<File id=\"b\" href=\"base.vmdk\"/><File id=\"d\" href=\"delta.vmdk\"/>";
    let disks = "<Disk diskId=\"base\" fileRef=\"b\" capacity=\"4194304\"/>\
                 <Disk diskId=\"delta\" fileRef=\"d\" parentRef=\"base\" capacity=\"4194304\"/>\
                 <Disk diskId=\"same\" parentRef=\"delta\" capacity=\"4194304\"/>\
                 <Disk diskId=\"empty\" capacity=\"4194304\"/>";
    let inside = OpenDisk::new().inside(&[descriptor(folder.path(), files, disks)], true).unwrap();
    for (name, expected) in [
        ("base.vmdk", [1, 1, 0, 0]),
        ("delta.vmdk", [1, 2, 0, 2]),
        ("same", [1, 2, 0, 2]),
        ("empty", [0; 4]),
    ] {
        assert_eq!(bytes_of(&inside.disk(name, None).unwrap()), expected, "{name}");
    }
    let notes: Vec<_> = inside.members().iter().map(|member| member.note.clone()).collect();
    assert_eq!(notes[0].as_deref(), Some("no manifest: nothing is verified"));
    assert!(notes.contains(&Some("changes disk delta".to_owned())), "{notes:?}");
}

#[test]
fn a_descriptor_is_known_by_its_content_whatever_its_file_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    stream(&raw(&path("disk.raw"), 5, &[1]), &path("disk.vmdk"));
    let files = "<File id=\"f\" href=\"disk.vmdk\"/>";
    let disks = "<Disk diskId=\"d\" fileRef=\"f\" capacity=\"4194304\"/>";
    fs::rename(descriptor(folder.path(), files, disks), path("box.xml")).unwrap();
    let inside = OpenDisk::new().inside(&[path("box.xml")], true).unwrap();
    assert_eq!(bytes_of(&inside.disk("disk.vmdk", None).unwrap()), [0, 5, 0, 0]);
}

#[test]
fn a_chain_of_disks_longer_than_the_limit_is_refused_and_the_others_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    stream(&raw(&path("base.raw"), 1, &[0]), &path("base.vmdk"));
    let files = "<File id=\"b\" href=\"base.vmdk\"/>";
    let base = "<Disk diskId=\"d0\" fileRef=\"b\" capacity=\"4194304\"/>".to_owned();
    let above = (1..4096).map(|number| {
        format!("<Disk diskId=\"d{number}\" parentRef=\"d{}\" capacity=\"4194304\"/>", number - 1)
    });
    let disks: String = std::iter::once(base).chain(above).collect();
    let inside = OpenDisk::new().inside(&[descriptor(folder.path(), files, &disks)], true).unwrap();
    assert_eq!(bytes_of(&inside.disk("d9", None).unwrap()), [1, 0, 0, 0]);
    let error = inside.disk("d4095", None).unwrap_err().to_string();
    assert!(error.contains("disks that change each other"), "{error}");
}

#[test]
fn members_of_one_name_have_paths_of_their_own_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let package = |name: &str, byte: u8| {
        let folder = folder.path().join(name);
        fs::create_dir(&folder).unwrap();
        stream(&raw(&folder.join("disk.raw"), byte, &[0]), &folder.join("disk.vmdk"));
        let files = "<File id=\"f\" href=\"disk.vmdk\"/>";
        let disks = "<Disk diskId=\"d\" fileRef=\"f\" capacity=\"4194304\"/>";
        descriptor(&folder, files, disks)
    };
    let (one, two) = (package("one", 1), package("two", 2));
    for order in [[&one, &two], [&two, &one]] {
        let inside = OpenDisk::new().inside(&order, true).unwrap();
        assert!(inside.disk("disk.vmdk", None).unwrap_err().to_string().contains("disk.vmdk"));
        for (package, byte) in [(&one, 1), (&two, 2)] {
            let disk = inside.disk(&format!("{}/disk.vmdk", package.display()), None).unwrap();
            assert_eq!(bytes_of(&disk), [byte, 0, 0, 0]);
        }
        let mut paths: Vec<_> = inside.members().iter().map(|member| &member.path).collect();
        let all = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), all);
    }
}

#[test]
fn what_is_packed_is_looked_into_as_far_as_memory_goes_and_for_a_member_further() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (mut files, mut disks) = (String::new(), String::new());
    for number in 0..4 {
        // An MBR with one partition of 1 MiB, in the middle of which a byte tells the disks apart.
        let disk = raw(&path("disk.raw"), number, &[2]);
        drop(disk);
        let mut bytes = fs::read(path("disk.raw")).unwrap();
        bytes[450] = 0x83;
        bytes[454..462].copy_from_slice(&[0, 16, 0, 0, 0, 8, 0, 0]);
        bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
        fs::write(path("disk.raw"), bytes).unwrap();
        let name = format!("{number}.qcow2");
        let format = anydisk::formats().by_name("qcow2").unwrap();
        let options = Options::of(format);
        let disk = OpenDisk::new().format("raw").path(path("disk.raw")).unwrap();
        let image = NewImage::new(format, &options, disk.size());
        let settings = Settings::default();
        copy_to_file(&Sources::one(&disk), &path(&name), &image, &settings, &Unwatched).unwrap();
        gzip(&path(&name));
        files += &format!("<File id=\"f{number}\" href=\"{name}\" compression=\"gzip\"/>");
        disks +=
            &format!("<Disk diskId=\"d{number}\" fileRef=\"f{number}\" capacity=\"4194304\"/>");
    }
    let package = descriptor(folder.path(), &files, &disks);
    let mut limits = Limits::default();
    // For two and a half of them.
    limits.unit = fs::metadata(path("0.qcow2")).map(|_| 3 << 20).unwrap();
    let options = OpenDisk::new().limits(limits);
    let inside = options.inside(&[&package], true).unwrap();
    let listed = |inside: &anydisk::Inside| {
        inside.members().iter().filter(|member| member.path.ends_with(".qcow2/1")).count()
    };
    assert!((1..4).contains(&listed(&inside)), "{}", listed(&inside));
    let notes = inside.members().iter().filter_map(|member| member.note.as_deref());
    let left_out = notes.filter(|note| note.contains("too large to be looked into")).count();
    assert_eq!(left_out, 4 - listed(&inside));
    let inside = options.inside_for(&[&package], "3.qcow2/1", true).unwrap();
    assert_eq!(listed(&inside), 4);
    assert_eq!(bytes_of(&inside.disk("3.qcow2/1", None).unwrap()), [3]);
    let inside = options.scratch(None).inside_for(&[&package], "3.qcow2/1", true).unwrap();
    assert!(inside.disk("3.qcow2/1", None).is_err());
}

#[test]
fn a_packed_disk_larger_than_memory_is_read_through_a_file_without_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    raw(&path("disk.raw"), 7, &[0, 2]);
    gzip(&path("disk.raw"));
    let files = "<File id=\"f\" href=\"disk.raw\" compression=\"gzip\"/>";
    let disks = "<Disk diskId=\"d\" fileRef=\"f\" capacity=\"4194304\"/>";
    let package = descriptor(folder.path(), files, disks);
    let scratch = path("scratch");
    fs::create_dir(&scratch).unwrap();
    let mut limits = Limits::default();
    limits.unit = MIB;
    let options = OpenDisk::new().limits(limits);
    let roomy = options.clone().scratch(Some(scratch.clone())).inside(&[&package], true).unwrap();
    assert_eq!(bytes_of(&roomy.disk("disk.raw", Some("raw")).unwrap()), [7, 0, 7, 0]);
    drop(roomy);
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
    let narrow = options.scratch(None).inside(&[&package], true).unwrap();
    let error = narrow.disk("disk.raw", Some("raw")).unwrap_err().to_string();
    assert!(error.contains("more than the limit of 1048576"), "{error}");
}

/// A package of ours with two disks, the first of which is at `path("one.raw")`.
fn ours(folder: &Path) -> PathBuf {
    let disks = [raw(&folder.join("one.raw"), 5, &[0, 3]), raw(&folder.join("two.raw"), 6, &[2])];
    let package = folder.join("machine.ova");
    copy_to_ova(&disks, &package, &Settings::default(), &Unwatched).expect("written");
    package
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{program}: {text}{errors}");
    text
}

#[test]
fn other_readers_of_archives_list_the_members_of_a_package_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let package = ours(folder.path());
    let package = package.to_str().unwrap();
    let expected = ["machine.ovf", "machine-disk1.vmdk", "machine-disk2.vmdk", "machine.mf"];
    for program in ["tar", "bsdtar"] {
        if is_installed(program) {
            let listed = output(program, &["-tf", package]);
            assert_eq!(listed.lines().collect::<Vec<_>>(), expected, "{program}");
        }
    }
}

/// Verifies every line of the manifest with Python's own reader of archives and its own digests, and
/// prints the names.
const VERIFY: &str = "
import hashlib, re, sys, tarfile
archive = tarfile.open(sys.argv[1], 'r:')
members = {member.name: archive.extractfile(member).read() for member in archive}
assert all(member.isreg() for member in archive.getmembers())
manifest = next(data for name, data in members.items() if name.endswith('.mf')).decode()
for line in manifest.splitlines():
    algorithm, name, digest = re.fullmatch(r'(\\w+)\\((.*)\\)= ([0-9a-f]+)', line).groups()
    assert hashlib.new(algorithm, members[name]).hexdigest() == digest, name
    print(name)
";

#[test]
fn the_manifest_of_a_package_holds_for_another_implementation() {
    if !is_installed("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let package = ours(folder.path());
    let verified = output("python3", &["-c", VERIFY, package.to_str().unwrap()]);
    assert_eq!(verified, "machine.ovf\nmachine-disk1.vmdk\nmachine-disk2.vmdk\n");
}

#[test]
fn the_descriptor_of_a_package_is_well_formed_for_another_parser() {
    if !is_installed("xmllint") || !is_installed("tar") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let package = ours(folder.path());
    let text = output("tar", &["-xOf", package.to_str().unwrap(), "machine.ovf"]);
    let path = folder.path().join("machine.ovf");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    output("xmllint", &["--noout", path]);
    let count = |what: &str| {
        let xpath = format!("count(//*[local-name()='{what}'])");
        output("xmllint", &["--xpath", &xpath, path]).trim().to_owned()
    };
    assert_eq!([count("File"), count("Disk"), count("VirtualSystem")], ["2", "2", "1"]);
}

#[test]
fn qemu_reads_the_disk_of_a_package_where_it_lies() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let package = ours(folder.path());
    // The second header of the archive is that of the first disk.
    let bytes = fs::read(&package).unwrap();
    let number = |at: usize| {
        let digits = std::str::from_utf8(&bytes[at..at + 11]).unwrap();
        usize::from_str_radix(digits, 8).unwrap()
    };
    let header = 512 + number(124).next_multiple_of(512);
    assert!(bytes[header..].starts_with(b"machine-disk1.vmdk\0"));
    let (at, len) = (header + 512, number(header + 124));
    let name = format!(
        "json:{{\"driver\":\"vmdk\",\"file\":{{\"driver\":\"raw\",\"offset\":{at},\"size\":{len},\
         \"file\":{{\"driver\":\"file\",\"filename\":\"{}\"}}}}}}",
        package.display()
    );
    let expected = folder.path().join("one.raw");
    let arguments = ["compare", "-F", "raw", &name, expected.to_str().unwrap()];
    assert_eq!(output("qemu-img", &arguments), "Images are identical.\n", "{}", qemu.version());
}
