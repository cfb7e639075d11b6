//! qemu-img and dmg2img as judges: what they read as it should be is read here as well.

use std::path::Path;
use std::process::Command;

use anydisk_core::{Access, Format, Sample, Verdict};
use anydisk_dmg::DMG;
use anydisk_testkit::golden::{Case, OpenVerdict, cases};
use anydisk_testkit::oracle::{Qemu, is_installed};
use anydisk_testkit::{ImageFolder, contents};

/// What qemu-img cannot read, or reads otherwise.
const NOT_QEMU: [&str; 7] = [
    "gap-no-chunk",    // fails there
    "tables-unsorted", // searches in the order of appearance
    "udco-adc",        // knows no ADC
    "ulfo-lzfse",      // needs a module
    "ulmo-lzma",       // knows no LZMA
    "rsrc-fork",       // needs a module, for bzip2
    "udbz-bzip2-tables",
];

/// What dmg2img cannot read, or reads otherwise.
const NOT_DMG2IMG: [&str; 5] = [
    "gap-no-chunk",    // closes the gap up
    "tables-unsorted", // writes in the order of appearance
    "rsrc-fork",       // reads property lists only
    "ulfo-lzfse",      // knows LZFSE only where it was built so
    "ulmo-lzma",       // knows no LZMA
];

fn good(except: &[&str]) -> Vec<Case> {
    let mut all = cases("dmg");
    all.retain(|case| case.expect.open == OpenVerdict::Ok && !except.contains(&&*case.name));
    assert!(all.len() >= 2);
    all
}

/// Puts the image into `folder` and what is read of it beside it; returns what is read.
fn ours(case: &Case, folder: &ImageFolder) -> Vec<u8> {
    std::fs::copy(case.unpack().path, folder.path("disk.dmg")).expect("a file");
    contents(&folder.open("disk.dmg", Access::Read))
}

#[test]
fn qemu_img_reads_the_same() {
    let Some(qemu) = Qemu::find() else { return };
    for case in good(&NOT_QEMU) {
        let folder = ImageFolder::new(&DMG);
        std::fs::write(folder.path("ours.raw"), ours(&case, &folder)).expect("a file");
        qemu.assert_same((&folder.path("disk.dmg"), "dmg"), (&folder.path("ours.raw"), "raw"));
    }
}

#[test]
fn dmg2img_reads_the_same() {
    if !is_installed("dmg2img") {
        return;
    }
    for case in good(&NOT_DMG2IMG) {
        let folder = ImageFolder::new(&DMG);
        let ours = ours(&case, &folder);
        let theirs = folder.path("theirs.raw");
        dmg2img(&folder.path("disk.dmg"), &theirs);
        let mut theirs = std::fs::read(theirs).expect("it was written");
        // It leaves out what is free at the end.
        theirs.resize(ours.len(), 0);
        assert!(theirs == ours, "{case}");
    }
}

fn dmg2img(from: &Path, to: &Path) {
    let output = Command::new("dmg2img").arg("-s").arg(from).arg(to).output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_dmg_is_recognised_by_its_end_if_its_file_is_named_so_and_an_encrypted_one_by_its_start() {
    for case in cases("dmg") {
        let bytes = std::fs::read(case.unpack().path).expect("a file");
        let tail = &bytes[bytes.len().saturating_sub(4096)..];
        let verdict = DMG.probe(&Sample { head: &bytes, tail, len: bytes.len() as u64 });
        let expected = match &*case.name {
            "hostile-no-koly" => Verdict::No,
            "hostile-encrypted" => Verdict::Magic,
            _ => Verdict::AtEnd,
        };
        assert_eq!(verdict, expected, "{case}");
    }
}
