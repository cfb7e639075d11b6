//! QEMU's programs and libnbd's as clients.

use std::process::Command;
use std::sync::Arc;

use anydisk_core::{Disk, GuestOffset, NewBitmap, Reference, Role};
use anydisk_nbd::{Export, Server};
use anydisk_testkit::contents as bytes_of;
use anydisk_testkit::oracle::{Qemu, is_installed};

use crate::common::{BYTES, Running, SIZE, contents, folder, image};

#[test]
fn qemu_reads_what_is_served_and_sees_where_it_is_zero() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = folder();
    let export = Export::new(image(&folder), "disk").described("a disk").read_only();
    let running = Running::new(Server::new(vec![export]), &folder.path("socket"));
    let copy = folder.path("copy.raw");
    for name in ["disk", ""] {
        qemu.convert((&running.uri(name), "raw"), (&copy, "raw"), &[]);
        assert!(std::fs::read(&copy).expect("a copy") == contents());
    }
    let map = qemu.map(&running.uri("disk"), "raw");
    let zero: Vec<_> = map.iter().map(|run| (run.start, run.length, run.zero)).collect();
    let end = 8 << 20;
    let expected = [(0, 1 << 20, true), (1 << 20, 1 << 20, false), (2 << 20, 6 << 20, true)];
    assert_eq!(zero, [&expected[..], &[(end, 512, false)]].concat());
}

#[test]
fn what_qemu_writes_is_in_the_disk_when_it_went() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = folder();
    let disk = image(&folder);
    let server = Server::new(vec![Export::new(Arc::clone(&disk), "disk")]);
    let running = Running::new(server, &folder.path("socket"));
    let commands = [
        "write -P 5 1536k 64k",
        "write -f -P 6 100 3",
        "write -z -u 1M 64k",
        "write -z 1100k 5k",
        "write -z -n 1216k 64k",
        "discard 1792k 64k",
        "flush",
        "read -P 5 1536k 64k",
        "read -P 0 1M 64k",
        "read -P 1 1088k 12k",
        "aio_write -P 7 4M 1M",
        "aio_write -P 8 5M 1M",
        "aio_flush",
        "read -P 7 4M 1M",
    ];
    qemu.io(&running.uri("disk"), "raw", &commands);
    drop(running);
    let mut expected = contents();
    expected[1536 << 10..1600 << 10].fill(5);
    expected[100..103].fill(6);
    expected[1 << 20..1088 << 10].fill(0);
    expected[1100 << 10..1105 << 10].fill(0);
    expected[1216 << 10..1280 << 10].fill(0);
    expected[1792 << 10..1856 << 10].fill(0);
    expected[4 << 20..5 << 20].fill(7);
    expected[5 << 20..6 << 20].fill(8);
    assert!(bytes_of(&disk) == expected);
    drop(disk);
    qemu.assert_undamaged(&folder.path("disk.qcow2"), "qcow2");
}

fn runs_of(qemu: &Qemu, running: &Running, context: &str) -> Vec<(u64, u64, bool)> {
    // qemu-img shows what another context says as if it were allocation: 1 is no data.
    let socket = running.socket().display();
    let options = format!(
        "driver=nbd,export=disk,server.type=unix,server.path={socket},x-dirty-bitmap={context}"
    );
    let arguments = ["map", "--output=json", "--image-opts", &options];
    let output = Command::new("qemu-img").args(arguments).output().expect("qemu-img runs");
    assert!(output.status.success(), "{output:?} {}", qemu.version());
    let text = String::from_utf8(output.stdout).expect("text");
    let number = |line: &str, name: &str| {
        let (_, rest) = line.split_once(name).expect("it has one");
        rest.split([',', ' ']).find(|word| !word.is_empty()).and_then(|word| word.parse().ok())
    };
    let run = |line: &str| {
        let [start, length] = ["\"start\":", "\"length\":"].map(|name| number(line, name));
        (start.expect("a number"), length.expect("a number"), line.contains("\"data\": false"))
    };
    text.lines().map(run).collect()
}

#[test]
fn bitmaps_and_the_depth_of_the_chain_are_told() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = folder();
    let disk = image(&folder);
    let bitmap = NewBitmap { name: "monday".into(), granularity: None, enabled: true };
    disk.top().bitmaps().expect("it has them").add(&bitmap).expect("it can be added");
    disk.write(GuestOffset(2 << 20), &[3; 512]).expect("a write");
    let export = Export::new(disk, "disk").with_depth().with_bitmap("monday").expect("it is there");
    let running = Running::new(Server::new(vec![export]), &folder.path("socket"));
    let changed = runs_of(&qemu, &running, "qemu:dirty-bitmap:monday");
    let rest = SIZE - (2 << 20) - (64 << 10);
    let expected =
        [(0, 2 << 20, false), (2 << 20, 64 << 10, true), ((2 << 20) + (64 << 10), rest, false)];
    assert_eq!(changed, expected);
    let depth = runs_of(&qemu, &running, "qemu:allocation-depth");
    let expected = (1 << 20, (1 << 20) + (64 << 10), true);
    assert_eq!(depth.get(1), Some(&expected), "{depth:?}");
}

#[test]
fn a_bitmap_of_an_image_below_is_told_as_well() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = folder();
    let disk = image(&folder);
    let bitmap = NewBitmap { name: "monday".into(), granularity: None, enabled: true };
    disk.top().bitmaps().expect("it has them").add(&bitmap).expect("it can be added");
    disk.write(GuestOffset(2 << 20), &[3; 512]).expect("a write");
    disk.flush().expect("a flush");
    let base = Arc::into_inner(disk).expect("nobody else has it");
    let below = Reference::new(Role::Backing, "disk.qcow2");
    let top = folder.create("top.qcow2", 4 * SIZE, &[], Some(&below));
    let over = top.layers()[0].clone();
    let export = Export::new(Arc::new(base.overlaid(over)), "disk").with_bitmap("monday");
    let server = Server::new(vec![export.expect("it is there")]);
    let running = Running::new(server, &folder.path("socket"));
    let changed = runs_of(&qemu, &running, "qemu:dirty-bitmap:monday");
    let behind = (2 << 20) + (64 << 10);
    let expected =
        [(0, 2 << 20, false), (2 << 20, 64 << 10, true), (behind, 4 * SIZE - behind, false)];
    assert_eq!(changed, expected);
}

#[test]
fn a_bitmap_that_is_not_there_is_not_offered() {
    let folder = folder();
    let error = Export::new(image(&folder), "disk").with_bitmap("monday").map(drop);
    assert!(matches!(error.expect_err("none").kind(), anydisk_core::Error::NotFound { .. }));
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    text
}

#[test]
fn libnbd_lists_exports_and_copies_by_several_connections() {
    if !is_installed("nbdinfo") || !is_installed("nbdcopy") {
        return;
    }
    let folder = folder();
    let disk = image(&folder);
    let small = Arc::new(Disk::new(Arc::clone(&disk.layers()[0].image)));
    let exports = vec![
        Export::new(disk, "disk").described("the first"),
        Export::new(small, "other").read_only(),
    ];
    let running = Running::new(Server::new(exports), &folder.path("socket"));
    let uri = running.uri("disk").display().to_string();
    let told = run("nbdinfo", &["--list", &running.uri("").display().to_string()]);
    for line in
        ["export=\"disk\":", "description: the first", "export=\"other\":", "is_read_only: true"]
    {
        assert!(told.contains(line), "{line}: {told}");
    }
    let told = run("nbdinfo", &["--json", &uri]);
    for line in ["\"can_fast_zero\": true", "\"can_cache\": true", "\"can_zero\": true"] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert_eq!(run("nbdinfo", &["--size", &uri]).trim(), SIZE.to_string());
    let copy = folder.path("copy.raw");
    run("nbdcopy", &["--connections=4", &uri, &copy.display().to_string()]);
    assert!(std::fs::read(&copy).expect("a copy") == contents());
    std::fs::write(&copy, vec![7; BYTES]).expect("a file");
    run("nbdcopy", &["--flush", "--connections=4", &copy.display().to_string(), &uri]);
    run("nbdcopy", &[&uri, &copy.display().to_string()]);
    assert!(std::fs::read(&copy).expect("a copy") == vec![7; BYTES]);
}
