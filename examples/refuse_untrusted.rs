//! Take an image from a stranger: say what it is, or refuse it with the reason.
//!
//! `cargo run -p anydisk-examples --example refuse_untrusted`

use std::error::Error;
use std::path::Path;

use anydisk::{Error as DiskError, OpenDisk};

/// What to tell the one who sent it.
fn verdict(path: &Path) -> Result<String, String> {
    match OpenDisk::untrusted().path(path) {
        Ok(disk) => Ok(format!("accepted: {}, {} bytes", disk.top().info().format, disk.size())),
        Err(error) => Err(match error.kind() {
            DiskError::Denied { .. } => format!("refused, it wants another file: {error}"),
            DiskError::Limit { .. } => format!("refused, it asks too much: {error}"),
            DiskError::UnknownFormat(_) => format!("refused, it may be anything: {error}"),
            _ => format!("refused: {error}"),
        }),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let plain = folder.path().join("plain.qcow2");
    let thief = folder.path().join("thief.vmdk");
    let text = folder.path().join("notes.txt");

    let format = anydisk::formats().by_name("qcow2")?;
    let options = anydisk::Options::of(format);
    let image = anydisk::convert::NewImage::new(format, &options, 1 << 20);
    anydisk::convert::create_file(&plain, &image)?;
    // A disk whose only extent is a file of the host.
    std::fs::write(
        &thief,
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
         createType=\"monolithicFlat\"\nRW 2 FLAT \"/etc/passwd\" 0\n",
    )?;
    std::fs::write(&text, "no disk at all")?;

    println!("{}", verdict(&plain)?);
    for path in [&thief, &text] {
        let refusal = verdict(path).expect_err("this is not to be opened");
        println!("{refusal}");
    }
    assert!(verdict(&thief).is_err_and(|why| why.contains("/etc/passwd")));
    Ok(())
}
