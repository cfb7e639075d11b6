//! qemu-img and cryptsetup as judges, both ways.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use crate::common::{Named, PASSPHRASE};
use anydisk_core::{Access, Disk, GuestOffset, Storage};
use anydisk_storage::{FileStorage, OpenOptions};
use anydisk_testkit::oracle::Qemu;

const SIZE: u64 = 48 << 10;

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder for the test") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"))
}

#[track_caller]
fn succeed(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// cryptsetup, or `None`, said aloud. What is asked of it here needs no devices; other ciphers than
/// AES would.
fn cryptsetup() -> Option<&'static str> {
    let found = ["cryptsetup", "/usr/sbin/cryptsetup"]
        .into_iter()
        .find(|program| Command::new(program).arg("--version").output().is_ok());
    if found.is_none() {
        eprintln!("skipped: cryptsetup is not installed");
    }
    found
}

fn secret(id: &str, text: &str) -> String {
    format!("secret,id={id},data={text}")
}

/// The content of a container, as qemu-img reads it.
fn content_by_qemu(path: &Path, passphrase: &str, raw: &Path) -> Vec<u8> {
    let (object, raw) = (secret("s", passphrase), raw.display().to_string());
    let image = format!("driver=luks,key-secret=s,file.filename={}", path.display());
    succeed(
        "qemu-img",
        &["convert", "--object", &object, "--image-opts", &image, "-O", "raw", &raw],
    );
    std::fs::read(&raw).expect("qemu-img wrote it")
}

fn store(path: &Path) -> Arc<dyn Storage> {
    Arc::new(FileStorage::open(path, &OpenOptions::new().write(true)).expect("a file"))
}

fn new_file(path: &Path) -> Arc<dyn Storage> {
    File::create_new(path).expect("a new file");
    store(path)
}

fn pattern() -> Vec<u8> {
    (0..SIZE).map(|at| (at.wrapping_mul(0x9E37_79B9) >> 13).to_le_bytes()[0]).collect()
}

/// A container with the pattern.
fn ours(path: &Path, given: &[(&str, &str)]) {
    let image =
        crate::common::create(new_file(path), SIZE, &crate::common::options(given)).unwrap();
    let disk = Disk::new(image);
    // In pieces that are no whole sectors.
    for (at, part) in (0..).step_by(777).zip(pattern().chunks(777)) {
        disk.write(GuestOffset(at), part).unwrap();
    }
    disk.flush().unwrap();
}

fn read_ours(path: &Path, passphrase: &str) -> Vec<u8> {
    let disk = Disk::new(crate::common::open(store(path), Access::Read, passphrase).unwrap());
    let mut bytes = vec![0; usize::try_from(disk.size()).unwrap()];
    disk.read(GuestOffset(0), &mut bytes).unwrap();
    bytes
}

const ENCRYPTIONS: &[&[(&str, &str)]] = &[
    &[],
    &[("cipher-alg", "aes-128"), ("hash-alg", "sha1")],
    &[("cipher-alg", "aes-192"), ("hash-alg", "sha512")],
    &[("cipher-mode", "cbc"), ("ivgen-alg", "essiv"), ("hash-alg", "ripemd160")],
    &[("cipher-alg", "serpent-256"), ("ivgen-alg", "plain")],
    &[("cipher-alg", "twofish-128"), ("cipher-mode", "cbc")],
    &[("cipher-alg", "cast5-128"), ("cipher-mode", "cbc"), ("hash-alg", "md5")],
    &[("cipher-mode", "ctr"), ("hash-alg", "sm3")],
    &[("cipher-mode", "ecb")],
];

#[test]
fn what_is_made_here_is_read_by_qemu_img() {
    let Some(_) = Qemu::find() else { return };
    let files = Files::new();
    for (number, given) in ENCRYPTIONS.iter().enumerate() {
        let (path, raw) = (files.path(&format!("{number}.luks")), files.path("raw"));
        ours(&path, given);
        assert!(content_by_qemu(&path, PASSPHRASE, &raw) == pattern(), "{given:?}");
    }
}

#[test]
fn what_qemu_img_makes_is_read_and_told_the_same_here() {
    let Some(_) = Qemu::find() else { return };
    let files = Files::new();
    let raw = files.path("raw");
    std::fs::write(&raw, pattern()).unwrap();
    // qemu-img takes its time to make one.
    for (number, given) in ENCRYPTIONS.iter().step_by(3).take(2).enumerate() {
        let path = files.path(&format!("{number}.luks"));
        let mut options = "key-secret=s,iter-time=10".to_owned();
        for (name, value) in *given {
            options.push_str(&format!(",{name}={value}"));
        }
        let object = secret("s", PASSPHRASE);
        let (from, to) = (raw.display().to_string(), path.display().to_string());
        succeed(
            "qemu-img",
            &[
                "convert", "--object", &object, "-f", "raw", "-O", "luks", "-o", &options, &from,
                &to,
            ],
        );
        assert!(read_ours(&path, PASSPHRASE) == pattern(), "{given:?}");
        let told = succeed("qemu-img", &["info", "--output=json", &to]);
        let image = crate::common::open(store(&path), Access::Read, PASSPHRASE).unwrap();
        for detail in image.info().details {
            assert!(told.contains(&format!("\"{}\":", detail.name)), "{}: {told}", detail.name);
        }
    }
}

#[test]
fn passphrases_that_either_adds_and_removes_are_those_of_the_other() {
    let Some(_) = Qemu::find() else { return };
    let files = Files::new();
    let (path, raw) = (files.path("a.luks"), files.path("raw"));
    ours(&path, &[]);
    let image = format!("driver=luks,key-secret=s,file.filename={}", path.display());
    let by_qemu = |options: &str| {
        let (old, new) = (secret("s", PASSPHRASE), secret("n", "third"));
        succeed(
            "qemu-img",
            &["amend", "--object", &old, "--object", &new, "-o", options, "--image-opts", &image],
        );
    };
    let by_us = |given: &[(&str, &str)]| {
        let secrets = Named(&[("key-secret", PASSPHRASE), ("new-secret", "second")]);
        crate::common::amend(&store(&path), &secrets, given, false).unwrap();
    };
    by_us(&[("state", "active"), ("iter-time", "10"), ("keyslot", "7")]);
    assert!(content_by_qemu(&path, "second", &raw) == pattern());
    by_qemu("state=active,new-secret=n,iter-time=10");
    assert!(read_ours(&path, "third") == pattern());
    by_qemu("state=inactive,keyslot=7");
    assert!(crate::common::open(store(&path), Access::Read, "second").is_err());
    by_us(&[("state", "inactive"), ("keyslot", "1")]);
    let third = secret("s", "third");
    let refused = run("qemu-img", &["map", "--object", &third, "--image-opts", &image]);
    assert!(!refused.status.success());
    assert!(content_by_qemu(&path, PASSPHRASE, &raw) == pattern());
}

#[test]
fn what_is_made_here_is_opened_by_cryptsetup() {
    let Some(cryptsetup) = cryptsetup() else { return };
    let files = Files::new();
    let key = files.path("key");
    std::fs::write(&key, PASSPHRASE).unwrap();
    let key = key.display().to_string();
    for given in [
        &[][..],
        &[("luks-version", "2")],
        &[("luks-version", "2"), ("sector-size", "4096"), ("hash-alg", "sha512")],
        &[("cipher-mode", "cbc"), ("ivgen-alg", "essiv")],
    ] {
        let path = files.path("x.luks");
        ours(&path, given);
        let image = path.display().to_string();
        succeed(cryptsetup, &["open", "--test-passphrase", "--key-file", &key, &image]);
        let told = succeed(cryptsetup, &["luksDump", &image]);
        assert!(told.contains("Version:"), "{told}");
        let secrets = Named(&[("key-secret", PASSPHRASE), ("new-secret", "second")]);
        crate::common::amend(
            &store(&path),
            &secrets,
            &[("state", "active"), ("iter-time", "10")],
            false,
        )
        .unwrap();
        succeed(
            cryptsetup,
            &[
                "open",
                "--test-passphrase",
                "--key-slot",
                "1",
                "--key-file",
                &{
                    let second = files.path("second");
                    std::fs::write(&second, "second").unwrap();
                    second.display().to_string()
                },
                &image,
            ],
        );
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn what_cryptsetup_makes_is_opened_and_changed_here() {
    let Some(cryptsetup) = cryptsetup() else { return };
    let files = Files::new();
    let key = files.path("key");
    std::fs::write(&key, PASSPHRASE).unwrap();
    let key = key.display().to_string();
    for given in [
        &["--type", "luks1", "--pbkdf-force-iterations", "1000"][..],
        &["--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"],
        &[
            "--type",
            "luks2",
            "--pbkdf",
            "argon2id",
            "--pbkdf-force-iterations",
            "4",
            "--pbkdf-memory",
            "64",
            "--pbkdf-parallel",
            "2",
        ],
        &[
            "--type",
            "luks2",
            "--sector-size",
            "4096",
            "--cipher",
            "aes-cbc-essiv:sha256",
            "--pbkdf",
            "pbkdf2",
            "--pbkdf-force-iterations",
            "1000",
        ],
    ] {
        let path = files.path("x.luks");
        File::create_new(&path).unwrap().set_len(20 << 20).unwrap();
        let image = path.display().to_string();
        succeed(
            cryptsetup,
            &[&["luksFormat", "--batch-mode", "--key-file", &key][..], given, &[&image]].concat(),
        );
        let opened = crate::common::open(store(&path), Access::ReadWrite, PASSPHRASE).unwrap();
        let disk = Disk::new(opened);
        disk.write(GuestOffset(4000), b"hello").unwrap();
        disk.flush().unwrap();
        drop(disk);
        let secrets = Named(&[("key-secret", PASSPHRASE), ("new-secret", "second")]);
        crate::common::amend(
            &store(&path),
            &secrets,
            &[("state", "active"), ("iter-time", "10")],
            false,
        )
        .unwrap();
        let second = files.path("second");
        std::fs::write(&second, "second").unwrap();
        succeed(
            cryptsetup,
            &["open", "--test-passphrase", "--key-file", &second.display().to_string(), &image],
        );
        crate::common::amend(
            &store(&path),
            &secrets,
            &[("state", "inactive"), ("keyslot", "0")],
            false,
        )
        .unwrap();
        let refused = run(cryptsetup, &["open", "--test-passphrase", "--key-file", &key, &image]);
        assert!(!refused.status.success());
        std::fs::remove_file(&path).unwrap();
    }
}
