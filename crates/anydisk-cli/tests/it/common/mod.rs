//! A folder with disks in it, where anydisk and qemu-img are run side by side.
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output};

pub(crate) use anydisk_testkit::oracle::Qemu;

/// A folder of its own for a test.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.folder.path().join(name.as_ref())
    }

    /// Makes a file of `size` zero bytes with `data` in it.
    pub(crate) fn raw(&self, name: &str, size: u64, data: &[(u64, &[u8])]) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::create(self.path(name)).expect("a file");
        file.set_len(size).expect("its length");
        for (at, bytes) in data {
            file.write_all_at(bytes, *at).expect("its data");
        }
    }

    /// Runs anydisk in the folder.
    pub(crate) fn anydisk(&self, arguments: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_anydisk")).args(arguments).output().expect("anydisk runs")
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path());
        command
    }

    /// Runs anydisk, which must succeed, and returns what it prints.
    pub(crate) fn prints(&self, arguments: &[&str]) -> String {
        let output = self.anydisk(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs anydisk, which must fail with `code`, and returns its complaint.
    pub(crate) fn fails(&self, arguments: &[&str], code: i32) -> String {
        let output = self.anydisk(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        said(&output)
    }

    /// Runs qemu-img, which must succeed.
    pub(crate) fn qemu(&self, line: &str) {
        let output = self.command("qemu-img").args(line.split(' ')).output().expect("qemu-img");
        assert!(output.status.success(), "qemu-img {line}: {}", said(&output));
    }

    /// Fails unless both programs, under one name, print the same and end with the same code.
    pub(crate) fn assert_same(&self, line: &str) {
        let place = tempfile::tempdir().expect("a folder");
        let mine = place.path().join("qemu-img");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_anydisk"), &mine).expect("a link");
        let [qemu, anydisk] = ["qemu-img", mine.to_str().expect("text")]
            .map(|program| self.command(program).args(line.split(' ')).output().expect(program));
        let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(text(&anydisk), text(&qemu), "{line}: {}", said(&anydisk));
        assert_eq!(anydisk.status.code(), qemu.status.code(), "{line}: {}", said(&anydisk));
    }

    /// Disks of many kinds, made by qemu: their names.
    pub(crate) fn disks(&self) -> Vec<&'static str> {
        self.raw("plain.raw", 1 << 20, &[(0, b"begin"), (70_000, b"middle")]);
        self.raw("empty.raw", 0, &[]);
        for line in [
            "convert -q -f raw -O qcow2 plain.raw base.qcow2",
            "convert -q -f raw -O qcow2 -c plain.raw packed.qcow2",
            "create -q -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2 3M",
            "create -q -f qcow2 -b plain.raw -F raw over-raw.qcow2",
            "create -q -f qcow2 -o compat=0.10,cluster_size=512 old.qcow2 1M",
            "create -q -f qcow2 -o preallocation=metadata,extended_l2=on reserved.qcow2 2M",
            "convert -q -f raw -O vmdk plain.raw sparse.vmdk",
            "convert -q -f raw -O vmdk -o subformat=monolithicFlat plain.raw flat.vmdk",
            "convert -q -f raw -O vmdk -o subformat=streamOptimized plain.raw stream.vmdk",
            "create -q -f vmdk -o subformat=twoGbMaxExtentSparse split.vmdk 5G",
            "convert -q -f raw -O vdi plain.raw dynamic.vdi",
            "convert -q -f raw -O vdi -o static=on plain.raw static.vdi",
            "create -q -f vdi empty.vdi 5M",
        ] {
            self.qemu(line);
        }
        vec![
            "plain.raw",
            "empty.raw",
            "base.qcow2",
            "./overlay.qcow2",
            "packed.qcow2",
            "overlay.qcow2",
            "over-raw.qcow2",
            "old.qcow2",
            "reserved.qcow2",
            "sparse.vmdk",
            "flat.vmdk",
            "stream.vmdk",
            "split.vmdk",
            "dynamic.vdi",
            "static.vdi",
            "empty.vdi",
        ]
    }
}

/// All that a program said.
pub(crate) fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}
