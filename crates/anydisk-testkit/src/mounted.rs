//! Devices and file systems of a test's own, on loop devices. They need root; where they cannot be
//! had, the constructors say so aloud and answer `None`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Output of a command, or `None`, said aloud, if it cannot be run or fails.
fn try_run(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).ok(),
        other => {
            eprintln!("skipped: {program} {arguments:?}: {other:?}");
            None
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

/// A loop device over a file, given back when dropped.
#[derive(Debug)]
pub struct Loop {
    device: PathBuf,
}

impl Loop {
    /// A device over an existing file.
    #[must_use]
    pub fn new(file: &Path) -> Option<Self> {
        let device = try_run("losetup", &["--find", "--show", text(file)])?;
        Some(Self { device: device.trim().into() })
    }

    /// A device of `len` bytes over a sparse file in `dir`.
    ///
    /// # Panics
    /// If the file cannot be made.
    #[must_use]
    pub fn sparse(dir: &Path, len: u64) -> Option<Self> {
        let file = dir.join("backing");
        File::create(&file).and_then(|file| file.set_len(len)).expect("a file in the folder");
        Self::new(&file)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.device
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        try_run("losetup", &["--detach", text(&self.device)]);
    }
}

/// A mounted file system, unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
    /// Dropped when the file system is unmounted.
    _device: Option<Loop>,
}

impl Mount {
    /// What `mount` makes of the arguments, at a folder that is made for it.
    ///
    /// # Panics
    /// If the folder is there already.
    #[must_use]
    pub fn new(arguments: &[&str], at: PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).expect("a new folder");
        try_run("mount", &[arguments, &[text(&at)]].concat())?;
        Some(Self { at, _device: None })
    }

    /// An XFS of 512 MiB in `dir`, whose files can share blocks.
    #[must_use]
    pub fn sharing(dir: &Path) -> Option<Self> {
        let device = Loop::sparse(dir, 512 << 20)?;
        try_run("mkfs.xfs", &["-q", "-m", "reflink=1", text(device.path())])?;
        let mut mount = Self::new(&["-t", "xfs", text(device.path())], dir.join("mounted"))?;
        mount._device = Some(device);
        Some(mount)
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        try_run("umount", &[text(&self.at)]);
    }
}
