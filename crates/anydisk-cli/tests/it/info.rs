//! `anydisk info`.

use crate::common::{Bench, Qemu};

#[test]
fn info_is_qemus_byte_for_byte() {
    let Some(_) = Qemu::find() else { return };
    let bench = Bench::new();
    for disk in bench.disks() {
        for options in ["", " --output=json", " --backing-chain", " --backing-chain --output=json"]
        {
            bench.assert_same(&format!("info{options} {disk}"));
        }
    }
}

#[test]
fn info_of_a_raw_disk_tells_its_size_and_warns_that_raw_was_guessed() {
    let bench = Bench::new();
    bench.raw("disk.raw", 1 << 20, &[]);
    let output = bench.anydisk(&["info", "disk.raw"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with(
        "image: disk.raw\nfile format: raw\nvirtual size: 1 MiB (1048576 bytes)\ndisk size: 0 B\n"
    ));
    assert!(text.ends_with("    file length: 1 MiB (1048576 bytes)\n    disk size: 0 B\n"));
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(warning.contains("taken for raw") && warning.lines().count() == 1, "{warning}");
    assert!(bench.anydisk(&["info", "-f", "raw", "disk.raw"]).stderr.is_empty());
}

#[test]
fn an_untrusted_file_is_not_guessed_to_be_raw() {
    let bench = Bench::new();
    bench.raw("disk.raw", 1 << 20, &[]);
    let error = bench.fails(&["info", "--untrusted", "disk.raw"], 1);
    assert!(error.contains("no format recognises disk.raw"), "{error}");
    bench.prints(&["info", "--untrusted", "-f", "raw", "disk.raw"]);
}

#[test]
fn the_image_below_is_opened_only_if_the_chain_is_wanted() {
    let Some(_) = Qemu::find() else { return };
    let bench = Bench::new();
    bench.qemu("create -q -u -f qcow2 -b missing.raw -F raw top.qcow2 1M");
    assert!(bench.prints(&["info", "top.qcow2"]).contains("backing file: missing.raw\n"));
    assert!(bench.prints(&["info", "--untrusted", "top.qcow2"]).contains("backing file: missing"));
    let error = bench.fails(&["info", "--backing-chain", "top.qcow2"], 1);
    assert!(error.contains("missing.raw"), "{error}");
}

/// An image may name any file of the host as its data file (a hole in several clouds): what it says
/// of itself is shown without touching that file.
#[test]
fn a_data_file_is_named_and_not_opened() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "qcow2", "-o", "data_file=data", "a.qcow2", "1M"]);
    std::fs::remove_file(bench.path("data")).expect("it was made");
    for options in [&["info"][..], &["info", "--untrusted"]] {
        let told = bench.prints(&[options, &["a.qcow2"]].concat());
        assert!(told.contains("data file: data\n"), "{told}");
    }
    let error = bench.fails(&["map", "a.qcow2"], 1);
    assert!(error.contains("data"), "{error}");
}

#[test]
fn a_name_that_is_not_utf8_is_opened() {
    use std::os::unix::ffi::OsStrExt;
    let bench = Bench::new();
    let name = std::ffi::OsStr::from_bytes(b"disk\xff.raw");
    std::fs::write(bench.path(name), [0; 512]).unwrap();
    let mut command = bench.command(env!("CARGO_BIN_EXE_anydisk"));
    let output = command.args(["info", "--output=json"]).arg(name).output().unwrap();
    assert!(output.status.success(), "{}", crate::common::said(&output));
}

#[test]
fn commands_that_make_or_change_an_image_tell_what_it_is_afterwards_if_asked_to() {
    let bench = Bench::new();
    bench.raw("base", 1 << 20, &[(0, b"base")]);
    bench.raw("other", 1 << 20, &[]);
    for line in [
        "create -f qcow2 -b base -F raw disk 1M",
        "bitmap --add disk monday",
        "bitmap --remove disk monday",
        "amend -o lazy_refcounts=on disk",
        "resize disk 2M",
        "commit disk",
        "rebase -b other -F raw disk",
        "rebase -u -b base -F raw disk",
        "convert -f raw -O qcow2 base disk",
        "convert -n -f raw -O qcow2 base disk",
    ] {
        let words: Vec<&str> = line.split(' ').chain(["--output=json"]).collect();
        let told = bench.prints(&words);
        let info = bench.prints(&["info", "--output=json", "disk"]);
        assert_eq!(told, info, "{line}");
    }
}
