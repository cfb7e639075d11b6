//! Common errors end with what to do next, and that helps.

use crate::common::Bench;

/// Lines that fail in the folder that [`folder`] makes, and what they advise.
const ERRORS: &[(&str, &str)] = &[
    ("create -f qcow2 new", "anydisk create -f FORMAT FILE 10G"),
    ("create -f qcow2 -b disk new", "Name it with -F"),
    ("create -f nothing new 1M", "Formats: qcow2, "),
    ("create -f qcow2 -o nothing=1 new 1M", "qcow2 takes one of the options "),
    ("create -f raw new 1X", "a suffix k, M, G, T, P or E"),
    ("info nbd://host/disk", "nbd-client"),
    ("info https://host/disk", "curl URL | anydisk"),
    ("info -f qcow2 disk", "magic at 0x0 is"),
    ("info .", "It is a directory, expected a regular file or a block device."),
    ("info --member gone disk", "anydisk members FILE..."),
    ("info --untrusted disk", "If it is a raw disk, say so: -f raw"),
    ("info", "Try 'anydisk info --help' for more info"),
    ("convert lost copy", "anydisk rebase -u -b NAME -F FORMAT FILE"),
    ("convert --untrusted over copy", "If you trust the image, leave out --untrusted."),
    ("convert locked copy", "--object secret,id=NAME,file=FILE"),
    ("convert -c -O vdi image copy", "-o subformat=streamOptimized"),
    ("convert -l gone image copy", "anydisk snapshot -l FILE"),
    ("convert -n -f raw -O raw disk small", "anydisk resize FILE SIZE"),
    ("convert --bitmaps -f raw -O qcow2 disk copy", "leave out --bitmaps"),
    ("convert -O qcow2 cut copy", "anydisk salvage"),
    ("convert -f raw disk rbd:pool/copy", "A file of this name is ./rbd:pool/copy"),
    ("bitmap --add -f raw disk monday", "qcow2 images of version 3"),
    ("snapshot -c monday -f raw disk", "anydisk create -f qcow2 -b FILE -F FORMAT NEW"),
    ("snapshot -d 1 image", "its name is 'monday'"),
    ("resize image 512k", "there is no important data there"),
    ("map packed", "--output=json"),
    ("check --dry-run image", "say which with --repair"),
    ("amend -o compat=0.10 -f raw disk", "does not support option amendment"),
    ("rebase -u -b image -F nothing over", "Formats: qcow2, "),
];

fn folder() -> Bench {
    let bench = Bench::new();
    bench.raw("disk", 1 << 20, &[(0, &[7; 4096]), (900_000, &[7; 4096])]);
    bench.raw("small", 4096, &[]);
    for line in [
        "convert -f raw -O qcow2 disk image",
        "convert -c -f raw -O qcow2 disk packed",
        "convert -f raw -O qcow2 disk cut",
        "snapshot -c monday image",
        "create -q -f qcow2 -u -b gone -F raw lost 1M",
        "create -q -f qcow2 -b image -F qcow2 over",
        "create -q --object secret,id=s,data=a -f luks -o key-secret=s,iter-time=10 locked 1M",
    ] {
        bench.prints(&line.split(' ').collect::<Vec<_>>());
    }
    let cut = std::fs::File::options().write(true).open(bench.path("cut")).expect("the image");
    cut.set_len(6 << 16).expect("a shorter one");
    bench
}

#[test]
fn a_common_error_says_what_to_do_next() {
    let bench = folder();
    let mut wrong = Vec::new();
    for (line, hint) in ERRORS {
        let error = bench.fails(&line.split(' ').collect::<Vec<_>>(), 1);
        if !error.contains(hint) {
            wrong.push(format!("{line}\n    should say: {hint}\n    says: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_advised_helps() {
    let bench = folder();
    bench.prints(&["salvage", "--help"]);
    bench.prints(&["rebase", "-u", "-b", "disk", "-F", "raw", "lost"]);
    bench.prints(&["convert", "lost", "copy"]);
    std::fs::write(bench.path("passphrase"), "a").expect("a file");
    let secret = ["--object", "secret,id=s,file=passphrase", "--image-opts"];
    let named = ["driver=luks,key-secret=s,file.filename=locked", "plain"];
    bench.prints(&[&["convert"], &secret[..], &named[..]].concat());
    bench.prints(&["resize", "-q", "-f", "raw", "small", "1M"]);
    bench.prints(&["convert", "-n", "-f", "raw", "-O", "raw", "disk", "small"]);
    bench.prints(&["snapshot", "-d", "monday", "image"]);
    bench.prints(&["create", "-q", "-f", "qcow2", "-b", "disk", "-F", "raw", "new"]);
    bench.prints(&["snapshot", "-c", "monday", "new"]);
    bench.prints(&["map", "--output=json", "packed"]);
    let salvaged = bench.anydisk(&["salvage", "-O", "qcow2", "cut", "saved"]);
    assert_eq!(salvaged.status.code(), Some(3));
}
