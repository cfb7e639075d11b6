//! Formats for carrying disks (DMG, Android sparse, cloop, Bochs), by the tool.

use std::fs;

use anydisk_testkit::golden::cases;
use anydisk_testkit::oracle::Qemu;

use crate::common::{Bench, said};

/// A disk of text and zeroes.
fn disk() -> Vec<u8> {
    let text = (0..).flat_map(|n| format!("line {n}\n").into_bytes());
    let text: Vec<u8> = text.take(300_000).collect();
    [&text[..], &vec![0; 600_000], &text, &[0; 640]].concat()
}

#[test]
fn a_disk_converted_to_them_and_back_is_the_same_whatever_the_threads() {
    let bench = Bench::new();
    fs::write(bench.path("a.raw"), disk()).unwrap();
    for format in ["dmg", "simg"] {
        let [one, five] = ["1", "5"].map(|threads| format!("{threads}.{format}"));
        for (threads, name) in [("1", &*one), ("5", &*five)] {
            let line = ["convert", "-m", threads, "-f", "raw", "-O", format, "a.raw", name];
            let output = bench.anydisk(&line);
            assert!(output.status.success(), "{}", said(&output));
        }
        assert!(fs::read(bench.path(&one)).unwrap() == fs::read(bench.path(&five)).unwrap());
        let output = bench.anydisk(&["compare", "-f", "raw", "-F", format, "a.raw", &five]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(bench.anydisk(&["check", &five]).status.success());
        let output = bench.anydisk(&["convert", "-f", format, "-O", "raw", &five, "b.raw"]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(fs::read(bench.path("b.raw")).unwrap() == disk(), "{format}");
    }
}

#[test]
fn what_is_measured_is_enough() {
    let bench = Bench::new();
    fs::write(bench.path("a.raw"), disk()).unwrap();
    for format in ["dmg", "simg"] {
        let output =
            bench.anydisk(&["measure", "-f", "raw", "-O", format, "--output=json", "a.raw"]);
        let told: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("it is measured");
        bench.anydisk(&["convert", "-f", "raw", "-O", format, "a.raw", "image"]);
        let len = fs::metadata(bench.path("image")).unwrap().len();
        assert!(told["required"].as_u64().is_some_and(|required| required >= len), "{told} {len}");
    }
}

#[test]
fn an_encrypted_dmg_is_opened_by_the_passphrase_that_is_named() {
    let bench = Bench::new();
    let encrypted = include_bytes!("../../../anydisk-dmg/tests/data/encrypted-aes128-raw.dmg");
    fs::write(bench.path("a.dmg"), encrypted).unwrap();
    let secret = ["--object", "secret,id=s,data=swordfish", "--image-opts"];
    let node = "driver=dmg,key-secret=s,file.filename=a.dmg";
    let output =
        bench.anydisk(&[&["convert"], &secret[..], &["-O", "raw", node, "a.raw"]].concat());
    assert!(output.status.success(), "{}", said(&output));
    assert!(fs::read(bench.path("a.raw")).unwrap().starts_with(b"sector 0 of a disk"));
    let output = bench.anydisk(&["info", "a.dmg"]);
    assert!(!output.status.success() && said(&output).contains("key-secret"), "{}", said(&output));
}

#[test]
fn golden_images_are_told_as_qemu_img_tells_them() {
    let Some(_) = Qemu::find() else { return };
    for (format, name) in [("dmg", "udzo-zlib"), ("cloop", "v2"), ("bochs", "growing-v2")] {
        let bench = Bench::new();
        let case = cases(format).into_iter().find(|case| case.name == name).expect("is there");
        fs::copy(case.unpack().path, bench.path("a")).unwrap();
        for line in
            [&["info", "-f", format, "a"][..], &["info", "--output=json", "-f", format, "a"]]
        {
            let theirs = bench.command("qemu-img").args(line).output().unwrap();
            let ours = bench.anydisk(line);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(text(&ours.stdout), text(&theirs.stdout), "{line:?}");
        }
    }
}

#[test]
fn a_file_that_is_no_dmg_is_refused_in_qemu_imgs_words() {
    let bench = Bench::new();
    fs::write(bench.path("a.raw"), disk()).unwrap();
    let output = bench.anydisk(&["info", "-f", "dmg", "a.raw"]);
    let expected = "Could not locate UDIF trailer in dmg file";
    assert!(!output.status.success() && said(&output).contains(expected), "{}", said(&output));
}

#[test]
fn they_are_not_created_empty_nor_written_in_place() {
    let bench = Bench::new();
    for format in ["dmg", "simg", "cloop", "bochs", "asif"] {
        let output = bench.anydisk(&["create", "-f", format, "a", "1M"]);
        assert!(!output.status.success() && !bench.path("a").exists(), "{format}");
    }
    fs::write(bench.path("a.raw"), disk()).unwrap();
    bench.anydisk(&["convert", "-f", "raw", "-O", "dmg", "a.raw", "a.dmg"]);
    let output = bench.anydisk(&["resize", "-f", "dmg", "a.dmg", "+1M"]);
    assert!(said(&output).contains("DMG images are only read"), "{}", said(&output));
}
