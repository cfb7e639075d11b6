//! Trying a case and comparing what comes out with what is expected.

use std::sync::Arc;

use anydisk_core::{Access, Disk, Error, Opener, Registry};

use super::{Case, OpenVerdict, ReadVerdict, cases, map};
use crate::corpus::EVERYTHING;
use crate::digest::{Reading, content_sha256};
use crate::folder::{FolderResolver, open_file};
use crate::secret::secrets;
use crate::trial::{guarded, prompt, settle};
use crate::unpack::Unpacked;

/// Disks larger than this are hashed only if [`EVERYTHING`] is set.
const LARGE: u64 = 4 << 30;

/// A case that is not supported yet, and why.
pub type NotYet<'a> = (&'a str, &'a str);

/// Judges all cases of a format; see [`golden_suite!`](crate::golden_suite).
///
/// # Panics
/// With a list of all that went wrong.
pub fn judge_all(format: &str, registry: &Registry, not_yet: &[NotYet<'_>]) {
    let cases = cases(format);
    for (listed, _) in not_yet {
        assert!(cases.iter().any(|case| case.name == *listed), "there is no case {listed}");
    }
    let verdicts: Vec<_> =
        cases.iter().map(|case| (case.name.clone(), judge(case, registry))).collect();
    settle(&format!("golden images of {format}"), &verdicts, not_yet);
}

/// Whether opening, mapping and reading the case gives what is expected, failing quickly where it
/// must fail, without a panic and without touching a file.
///
/// # Errors
/// The first thing that went wrong.
pub fn judge(case: &Case, registry: &Registry) -> Result<(), String> {
    let unpacked = Arc::new(case.unpack());
    let verdict = {
        let (case, registry, unpacked) = (case.clone(), registry.clone(), Arc::clone(&unpacked));
        guarded(move || examine(&case, &registry, &unpacked))
    };
    case.check_files(&unpacked).map_err(|change| format!("a file was touched: {change}"))?;
    verdict
}

fn examine(case: &Case, registry: &Registry, unpacked: &Unpacked) -> Result<(), String> {
    let opened = prompt(|| open(case, registry, unpacked))?;
    let why = || case.json["expect"]["why"].as_str().unwrap_or(&case.description).to_owned();
    match (case.expect.open, opened) {
        (OpenVerdict::Ok, Ok(disk)) => examine_good(case, &disk),
        // It may be told what it is; with its passphrase it is refused at once.
        (OpenVerdict::Ok, Err(error)) if is_locked(case, &error) => Ok(()),
        (OpenVerdict::Ok, Err(error)) => Err(format!("does not open: {error}")),
        (OpenVerdict::Refuse, Ok(disk)) if may_warn(case) && has_warned(&disk) => {
            prompt(|| read(&disk, Reading::Large))?.map(drop).map_err(|error| error.to_string())
        }
        (OpenVerdict::Refuse, Ok(_)) => Err(format!("opens, expected a refusal: {}", why())),
        (OpenVerdict::Error | OpenVerdict::InfoOnly, Ok(disk)) => must_not_read(&disk, &why()),
        (OpenVerdict::Findings, Ok(disk)) => prompt(|| read(&disk, Reading::Odd)).map(drop),
        (_, Err(_)) => Ok(()),
    }
}

/// Opens the case and what lies below it, from its own folder.
pub(super) fn open(
    case: &Case,
    registry: &Registry,
    unpacked: &Unpacked,
) -> anydisk_core::Result<Disk> {
    let resolver =
        FolderResolver::new(unpacked.folder.path()).with_nameless(case.parent.as_deref());
    let file = open_file(&unpacked.path, Access::Read)?;
    let secrets = secrets(case.secret.as_deref());
    let opener = Opener::new(registry, &resolver).with_secrets(&*secrets);
    opener.open(file, Some(&case.format), Access::Read)
}

/// Whether the case is one that no passphrase opens, and the error says so.
fn is_locked(case: &Case, error: &Error) -> bool {
    case.expect.read == ReadVerdict::Error && matches!(error.kind(), Error::Secret { .. })
}

fn read(disk: &Disk, how: Reading) -> anydisk_core::Result<String> {
    content_sha256(disk, how)
}

/// Whether the case may as well be opened for reading, if that is said to leave something out.
fn may_warn(case: &Case) -> bool {
    let note = case.json["expect"]["note"].as_str();
    note.is_some_and(|note| note.contains("with a warning is acceptable"))
}

fn has_warned(disk: &Disk) -> bool {
    disk.layers().iter().any(|layer| !layer.warnings.is_empty())
}

fn examine_good(case: &Case, disk: &Disk) -> Result<(), String> {
    if case.virtual_size.is_some_and(|size| size != disk.size()) {
        return Err(format!("the size is {}, expected {:?}", disk.size(), case.virtual_size));
    }
    map::compare(case, disk.top())?;
    match case.expect.read {
        ReadVerdict::Ok => must_read(case, disk),
        ReadVerdict::Error => must_not_read(disk, &case.description),
        ReadVerdict::NotApplicable => Ok(()),
    }
}

fn must_read(case: &Case, disk: &Disk) -> Result<(), String> {
    if disk.size() > LARGE && std::env::var_os(EVERYTHING).is_none() {
        eprintln!("skipped: hashing all of {case} ({EVERYTHING} is not set); its map was compared");
        return Ok(());
    }
    for how in [Reading::Large, Reading::Odd] {
        let found = read(disk, how).map_err(|error| format!("does not read: {error}"))?;
        if Some(&found) != case.expect.content_sha256.as_ref() {
            let expected = case.expect.content_sha256.as_deref().unwrap_or("none");
            return Err(format!("the content ({how:?} reads) is {found}, expected {expected}"));
        }
    }
    Ok(())
}

fn must_not_read(disk: &Disk, why: &str) -> Result<(), String> {
    match prompt(|| read(disk, Reading::Large))? {
        Ok(_) => Err(format!("opens and reads, expected an error: {why}")),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use anydisk_core::{Format, OpenRequest, Opened, Result, Sample, Verdict};

    use super::*;
    use crate::plain::PlainImage;

    /// Calls itself qcow2 and takes every file for a raw image.
    #[derive(Debug)]
    struct Gullible;

    /// Calls itself qcow2 and takes no file.
    #[derive(Debug)]
    struct Sceptical;

    impl Format for Gullible {
        fn name(&self) -> &'static str {
            "qcow2"
        }
        fn probe(&self, _: &Sample<'_>) -> Verdict {
            Verdict::Anything
        }
        fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
            let image = Arc::new(PlainImage::new(request.store)?);
            Ok(Opened::new(image, None))
        }
    }

    impl Format for Sceptical {
        fn name(&self) -> &'static str {
            "qcow2"
        }
        fn probe(&self, _: &Sample<'_>) -> Verdict {
            Verdict::No
        }
        fn open(&self, _: OpenRequest<'_>) -> Result<Opened> {
            Err(Error::UnknownFormat("anything".into()))
        }
    }

    fn verdict(name: &str, format: &'static dyn Format) -> Result<(), String> {
        let case = cases("qcow2").into_iter().find(|case| case.name == name).expect("is there");
        judge(&case, &Registry::new(&[format]))
    }

    #[test]
    fn a_reader_that_takes_everything_fails_the_hostile_and_the_good_cases() {
        let error = verdict("hdr-magic", &Gullible).unwrap_err();
        assert!(error.starts_with("opens, expected a refusal"), "{error}");
        let error = verdict("v2", &Gullible).unwrap_err();
        assert!(error.starts_with("the size is"), "{error}");
        let error = verdict("hdr-length-128", &Gullible).unwrap_err();
        assert!(error.starts_with("the content (Large reads) is"), "{error}");
    }

    #[test]
    fn a_reader_that_takes_nothing_passes_the_hostile_cases_only() {
        assert_eq!(verdict("hdr-magic", &Sceptical), Ok(()));
        assert!(verdict("v2", &Sceptical).unwrap_err().starts_with("does not open"));
    }
}
