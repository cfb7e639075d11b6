//! Our locks and those of qemu stand against each other as qemu's do among themselves.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anydisk_storage::{Error, FileStorage, LockMode, OpenOptions};

const WRITE: &str = "Failed to get \"write\" lock";
const SHARED_WRITE: &str = "Failed to get shared \"write\" lock";

/// A 1 MiB file in a directory of its own.
struct Disk {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Disk {
    fn raw() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
        Self { _dir: dir, path }
    }

    fn qcow2() -> Self {
        let disk = Self::raw();
        let output = run("qemu-img", &["create", "-q", "-f", "qcow2"], &disk.path, &["1M"]);
        assert!(output.status.success(), "{output:?}");
        disk
    }

    fn open(&self, mode: LockMode) -> anydisk_storage::Result<FileStorage> {
        let write = mode == LockMode::Writer;
        FileStorage::open(&self.path, &OpenOptions::new().write(write).lock(mode))
    }

    fn refused(&self, mode: LockMode) -> String {
        match self.open(mode) {
            Err(Error::Locked { what, .. }) => what.into(),
            other => panic!("{mode:?} should be refused, got {other:?}"),
        }
    }
}

fn run(program: &str, before: &[&str], path: &Path, after: &[&str]) -> Output {
    Command::new(program).args(before).arg(path).args(after).output().unwrap()
}

/// Whether qemu is here; without it a test is skipped aloud, or fails where it must be run.
fn qemu() -> bool {
    let found = Command::new("qemu-io").arg("--version").output().is_ok();
    assert!(
        found || std::env::var_os("ANYDISK_REQUIRE_QEMU").is_none(),
        "ANYDISK_REQUIRE_QEMU is set, but there is no qemu-io"
    );
    if !found {
        eprintln!("skipped: there is no qemu-io");
    }
    found
}

/// qemu-io that has the file open until it is dropped.
struct Holder(Child);

impl Holder {
    fn new(arguments: &[&str], path: &Path) -> Self {
        let mut child = Command::new("qemu-io")
            .args(arguments)
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Its answer to a command shows that it has opened the file.
        writeln!(child.stdin.as_mut().unwrap(), "length").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("1 MiB"), "qemu-io did not open the file: {line}");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Its end of input makes qemu-io quit.
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// What a qemu program says; empty if it could do what it was asked to.
fn complaint(output: Output) -> String {
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.success(), words.is_empty(), "{words}");
    words
}

fn qemu_io(arguments: &[&str], path: &Path) -> String {
    complaint(run("qemu-io", &[arguments, &["-c", "quit"]].concat(), path, &[]))
}

#[test]
fn our_writer_stops_qemu_from_writing_and_from_reading_a_format() {
    if !qemu() {
        return;
    }
    let disk = Disk::qcow2();
    let ours = disk.open(LockMode::Writer).unwrap();
    assert!(qemu_io(&["-f", "raw"], &disk.path).contains(WRITE));
    assert!(qemu_io(&["-f", "qcow2"], &disk.path).contains(WRITE));
    let info = complaint(run("qemu-img", &["info"], &disk.path, &[]));
    assert!(info.contains(SHARED_WRITE), "{info}");
    assert!(info.contains("Is another process using the image ["), "{info}");
    assert_eq!(complaint(run("qemu-img", &["info", "-U"], &disk.path, &[])), "");
    drop(ours);
    assert_eq!(qemu_io(&["-f", "qcow2"], &disk.path), "");
}

#[test]
fn our_reader_lets_qemu_read_but_not_write() {
    if !qemu() {
        return;
    }
    let disk = Disk::qcow2();
    let _ours = disk.open(LockMode::Reader).unwrap();
    assert_eq!(complaint(run("qemu-img", &["info"], &disk.path, &[])), "");
    assert_eq!(complaint(run("qemu-img", &["check", "-q"], &disk.path, &[])), "");
    assert!(qemu_io(&["-f", "raw"], &disk.path).contains(WRITE));
}

#[test]
fn our_forced_sharing_lets_qemu_write() {
    if !qemu() {
        return;
    }
    let disk = Disk::qcow2();
    let _ours = disk.open(LockMode::ForceShare).unwrap();
    assert_eq!(qemu_io(&["-f", "qcow2"], &disk.path), "");
}

#[test]
fn a_raw_file_that_qemu_writes_to_can_be_neither_written_nor_read_but_shared() {
    if !qemu() {
        return;
    }
    let disk = Disk::raw();
    let _qemu = Holder::new(&["-f", "raw"], &disk.path);
    // qemu shares a raw file that it writes to; it is we who do not.
    assert_eq!(disk.refused(LockMode::Writer), SHARED_WRITE);
    assert_eq!(disk.refused(LockMode::Reader), SHARED_WRITE);
    disk.open(LockMode::ForceShare).unwrap();
    disk.open(LockMode::Off).unwrap();
}

#[test]
fn a_qcow2_file_that_qemu_writes_to_refuses_our_writing() {
    if !qemu() {
        return;
    }
    let disk = Disk::qcow2();
    let qemu = Holder::new(&["-f", "qcow2"], &disk.path);
    assert_eq!(disk.refused(LockMode::Writer), WRITE);
    assert_eq!(disk.refused(LockMode::Reader), SHARED_WRITE);
    disk.open(LockMode::ForceShare).unwrap();
    drop(qemu);
    disk.open(LockMode::Writer).unwrap();
}

#[test]
fn a_qcow2_file_that_qemu_reads_can_be_read_but_not_written() {
    if !qemu() {
        return;
    }
    let disk = Disk::qcow2();
    let _qemu = Holder::new(&["-r", "-f", "qcow2"], &disk.path);
    disk.open(LockMode::Reader).unwrap();
    assert_eq!(disk.refused(LockMode::Writer), WRITE);
}

#[test]
fn a_lock_that_was_lowered_is_not_raised_again_while_qemu_writes() {
    if !qemu() {
        return;
    }
    let disk = Disk::qcow2();
    let ours = disk.open(LockMode::Writer).unwrap();
    ours.lock(LockMode::ForceShare).unwrap();
    let qemu = Holder::new(&["-f", "qcow2"], &disk.path);
    let error = ours.lock(LockMode::Writer).unwrap_err();
    assert!(error.to_string().ends_with(WRITE), "{error}");
    assert_eq!(ours.lock_mode(), LockMode::ForceShare, "what was held stays held");
    drop(qemu);
    ours.lock(LockMode::Writer).unwrap();
}

#[test]
fn two_opens_of_one_process_stand_against_each_other_too() {
    let disk = Disk::raw();
    let writer = disk.open(LockMode::Writer).unwrap();
    assert_eq!(disk.refused(LockMode::Writer), WRITE);
    assert_eq!(disk.refused(LockMode::Reader), SHARED_WRITE);
    writer.lock(LockMode::Reader).unwrap();
    let reader = disk.open(LockMode::Reader).unwrap();
    let error = writer.lock(LockMode::Writer).unwrap_err();
    assert!(error.to_string().ends_with(WRITE), "{error}");
    drop(reader);
    writer.lock(LockMode::Writer).unwrap();
}

#[test]
fn a_refused_lock_leaves_no_byte_locked() {
    let disk = Disk::raw();
    let reader = disk.open(LockMode::Reader).unwrap();
    let shared = disk.open(LockMode::ForceShare).unwrap();
    shared.lock(LockMode::Writer).unwrap_err();
    // Had the writer's bytes stayed behind, the reader could not be opened again.
    drop(reader);
    disk.open(LockMode::Writer).unwrap();
}

#[test]
fn opening_locks_as_the_access_needs_when_nothing_is_said() {
    let disk = Disk::raw();
    let options = OpenOptions::new();
    assert_eq!(FileStorage::open(&disk.path, &options).unwrap().lock_mode(), LockMode::Reader);
    let writer = FileStorage::open(&disk.path, &options.clone().write(true)).unwrap();
    assert_eq!(writer.lock_mode(), LockMode::Writer);
}

#[test]
fn a_file_in_use_is_not_emptied_by_an_open_that_is_refused() {
    let disk = Disk::raw();
    let _reader = disk.open(LockMode::Reader).unwrap();
    let options = OpenOptions::new().write(true).truncate(true);
    FileStorage::open(&disk.path, &options).unwrap_err();
    assert_eq!(std::fs::metadata(&disk.path).unwrap().len(), 1 << 20);
}

/// A process that is started while a store lives holds its descriptor for a moment; a store that
/// was opened anew in that moment was refused.
#[test]
fn a_lock_ends_with_its_store_even_if_the_descriptor_lives_on() {
    let disk = Disk::raw();
    let writer = disk.open(LockMode::Writer).unwrap();
    let _lives_on = writer.as_fd().try_clone_to_owned().unwrap();
    drop(writer);
    disk.open(LockMode::Writer).unwrap();
}
