//! How disks are opened.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anydisk::storage::LockMode;
use anydisk::{Checked, Checking, Chosen, Disk, Error, Finding, Inside, Layer, OpenDisk, Policy};

use crate::args::{Part, Reading, Writing};
use crate::failure::Failure;
use crate::output;

impl Reading {
    /// The way that was asked for.
    fn options(self, format: Option<&str>) -> OpenDisk {
        let mut options = if self.untrusted {
            OpenDisk::untrusted()
        } else {
            OpenDisk::new().guess_raw(true).policy(Policy::LikeQemu)
        };
        if let Some(format) = format {
            options = options.format(format);
        }
        if self.force_share { options.lock(LockMode::ForceShare) } else { options }
    }

    /// Opens a disk with the chain below it; `direct`: past the page cache.
    pub(crate) fn disk(
        self,
        path: &OsStr,
        format: Option<&str>,
        direct: bool,
    ) -> Result<Disk, Failure> {
        let disk = self.open(path, format, |options, path| options.direct(direct).path(path))?;
        warn_if_guessed(&disk.layers()[0]);
        Ok(disk)
    }

    /// Opens the disks of one machine, to see what lies in them.
    pub(crate) fn inside(
        self,
        paths: &[OsString],
        format: Option<&str>,
        direct: bool,
    ) -> Result<Inside, Failure> {
        let paths: Vec<OsString> = paths.iter().map(|path| without_protocol(path)).collect();
        let Some(first) = paths.first() else {
            return Err(Failure::new("Expecting one image file name"));
        };
        if let Some(format) = format {
            check_format(first, format)?;
        }
        // A stranger's disk is not looked into further than was asked for.
        let inside = self.options(format).direct(direct).inside(&paths, !self.untrusted);
        let inside = inside.map_err(|error| self.failure(first, error))?;
        inside.disks().for_each(|disk| warn_if_guessed(&disk.layers()[0]));
        Ok(inside)
    }

    /// Opens the disk that is the only file, or a part of what the files hold.
    pub(crate) fn part(
        self,
        part: &Part,
        files: &[OsString],
        format: Option<&str>,
        direct: bool,
    ) -> Result<Disk, Failure> {
        match (&part.member, files) {
            (None, [file]) => self.disk(file, format, direct),
            (None, _) => Err(Failure::new("Expecting one image file name")),
            (Some(member), files) => {
                let inside = self.inside(files, format, direct)?;
                let disk = inside.disk(member, part.member_format.as_deref());
                disk.map_err(|error| Failure::from(error).about(OsStr::new(member)))
            }
        }
    }

    /// Opens the top image alone, to see what it says of itself: a file that holds its data is not
    /// opened.
    pub(crate) fn top(self, path: &OsStr, format: Option<&str>) -> Result<Layer, Failure> {
        let open = |options: OpenDisk, path: &OsStr| options.without_data(true).top(path);
        let layer = self.open(path, format, open)?;
        warn_if_guessed(&layer);
        Ok(layer)
    }

    /// Changes options of an image.
    pub(crate) fn amend(
        self,
        path: &OsStr,
        format: Option<&str>,
        direct: bool,
        given: &[(String, String)],
        force: bool,
    ) -> Result<(), Failure> {
        self.open(path, format, |options, path| options.direct(direct).amend(path, given, force))
    }

    /// Checks an image, and repairs it if asked to.
    pub(crate) fn check(
        self,
        path: &OsStr,
        format: Option<&str>,
        direct: bool,
        how: &Checking<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<Checked, Failure> {
        let path = without_protocol(path);
        if let Some(format) = format {
            check_format(&path, format)?;
        }
        let checked = self.options(format).direct(direct).check(&path, how, found);
        checked.map_err(|error| Failure::from_check(error).about(&path))
    }

    fn open<T>(
        self,
        path: &OsStr,
        format: Option<&str>,
        open: impl FnOnce(OpenDisk, &OsStr) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        let path = without_protocol(path);
        if let Some(format) = format {
            check_format(&path, format)?;
        }
        open(self.options(format), &path).map_err(|error| self.failure(&path, error))
    }

    fn failure(self, path: &OsStr, error: Error) -> Failure {
        if error.io_kind() == Some(ErrorKind::NotFound)
            && let Some(protocol) = protocol(path)
        {
            return unknown_protocol(path, protocol);
        }
        let is_denied = matches!(error.kind(), Error::Denied { .. });
        let failure = Failure::from(error).about(path);
        if is_denied && self.untrusted {
            return failure.with_advice("If you trust the image, leave out --untrusted.");
        }
        failure
    }
}

impl Writing {
    /// How the images are opened that are not written.
    pub(crate) fn reading(self) -> Reading {
        Reading { force_share: false, untrusted: false }
    }

    /// Opens a disk for writing, and the chain below it for reading.
    pub(crate) fn disk(self, path: &OsStr, format: Option<&str>) -> Result<Disk, Failure> {
        let open = |options: OpenDisk, path: &OsStr| self.options(options).path(path);
        let disk = self.reading().open(path, format, open)?;
        warn_if_guessed(&disk.layers()[0]);
        Ok(disk)
    }

    /// Opens the top image alone, for writing.
    pub(crate) fn top(self, path: &OsStr, format: Option<&str>) -> Result<Layer, Failure> {
        let open = |options: OpenDisk, path: &OsStr| self.options(options).top(path);
        let layer = self.reading().open(path, format, open)?;
        warn_if_guessed(&layer);
        Ok(layer)
    }

    fn options(self, options: OpenDisk) -> OpenDisk {
        options.write(true).direct(self.direct)
    }
}

/// The name of a file without `file:`, which qemu allows before it, unless a file is called so.
fn without_protocol(path: &OsStr) -> OsString {
    match path.as_bytes().strip_prefix(b"file:") {
        Some(rest) if !Path::new(path).exists() => OsStr::from_bytes(rest).to_owned(),
        _ => path.to_owned(),
    }
}

/// What qemu would take for a protocol: a word before the first colon.
fn protocol(path: &OsStr) -> Option<&str> {
    let before = path.as_bytes().split(|byte| *byte == b':').next()?;
    let word = str::from_utf8(before).ok()?;
    let is_word = !word.is_empty()
        && word.len() < path.len()
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_word.then_some(word)
}

fn unknown_protocol(path: &OsStr, protocol: &str) -> Failure {
    let path = path.display();
    Failure::new(format!("Could not open '{path}': Unknown protocol '{protocol}'"))
        .with_advice("Only files and block devices are opened, by their names.")
}

/// Refuses a format that is not there, and tells those that are.
fn check_format(path: &OsStr, format: &str) -> Result<(), Failure> {
    if anydisk::formats().by_name(format).is_ok() {
        return Ok(());
    }
    let path = path.display();
    Err(Failure::new(format!("Could not open '{path}': Unknown driver '{format}'"))
        .with_advice(&known_formats()))
}

/// A line that lists the formats.
pub(crate) fn known_formats() -> String {
    let names: Vec<&str> = anydisk::formats().formats().map(|format| format.name()).collect();
    format!("Formats: {}", names.join(", "))
}

/// Whoever writes the first sector of a raw disk chooses what it is taken for next time.
fn warn_if_guessed(layer: &Layer) {
    if layer.chosen == Chosen::Guessed {
        output::warn(&format!(
            "{}: no format recognises it, so it is taken for raw; say so with -f raw",
            layer.location
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_a_word_before_a_colon() {
        let of = |path: &'static str| protocol(OsStr::new(path));
        assert_eq!(of("nbd://host/x"), Some("nbd"));
        assert_eq!(of("json:{}"), Some("json"));
        assert_eq!(of("./a:b"), None);
        assert_eq!(of("plain"), None);
        assert_eq!(of(":x"), None);
    }
}
