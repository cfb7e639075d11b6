//! What lines leave behind: the same files, and images that hold the same to both programs.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anydisk::convert::{Comparison, Settings, Strictness, Unwatched, compare};
use anydisk::{Disk, OpenDisk, Policy};

/// What differs between two folders.
pub(super) fn files(mine: &Path, qemus: &Path) -> Vec<String> {
    let names = |folder: &Path| -> BTreeSet<OsString> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        entries.map(|entry| entry.expect("a file").file_name()).collect()
    };
    let (my_names, qemus_names) = (names(mine), names(qemus));
    let mut told: Vec<String> = my_names
        .symmetric_difference(&qemus_names)
        .map(|name| format!("only one has {name:?}"))
        .collect();
    for name in my_names.intersection(&qemus_names) {
        let (mine, qemus) = (mine.join(name), qemus.join(name));
        if std::fs::read(&mine).ok() != std::fs::read(&qemus).ok() {
            told.extend(images(&mine, &qemus).err().map(|why| format!("{name:?}: {why}")));
        }
    }
    told
}

fn open(path: &Path) -> Result<Disk, String> {
    let options = OpenDisk::new().guess_raw(true).policy(Policy::LikeQemu);
    options.path(path).map_err(|error| format!("anydisk cannot open it: {error}"))
}

/// Whether two images are of one format, hold the same, and are in order.
fn images(mine: &Path, qemus: &Path) -> Result<(), String> {
    let disks = [open(mine)?, open(qemus)?];
    let [my_format, qemus_format] = disks.each_ref().map(|disk| disk.top().info().format);
    if my_format != qemus_format {
        return Err(format!("is {my_format} and {qemus_format}"));
    }
    let [one, other] = &disks;
    let settings = Settings::default();
    let found = compare(one, other, Strictness::Content, &settings, &Unwatched);
    match found.map_err(|error| error.to_string())? {
        Comparison::Identical { sizes_differ: false } => {}
        other => return Err(format!("anydisk: {other:?}")),
    }
    drop(disks);
    let (mine, qemus) = (mine.as_os_str(), qemus.as_os_str());
    let formats = ["-U", "-f", my_format, "-F", my_format].map(OsString::from);
    qemu_img("compare", formats.into_iter().chain([mine.into(), qemus.into()]), &[0])?;
    let format = ["-U", "-f", my_format].map(OsString::from);
    qemu_img("check", format.into_iter().chain([mine.into()]), &[0, 3, 63])
}

fn qemu_img(
    command: &str,
    arguments: impl Iterator<Item = OsString>,
    good: &[i32],
) -> Result<(), String> {
    let output = Command::new("qemu-img").arg(command).args(arguments).output();
    let output = output.expect("qemu-img runs");
    let told =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat();
    match output.status.code() {
        Some(code) if good.contains(&code) => Ok(()),
        code => Err(format!("qemu-img {command}: {code:?}: {told}")),
    }
}
