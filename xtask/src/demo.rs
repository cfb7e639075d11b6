//! The main job on a real image: vmdk -> qcow2 -> raw.

use std::path::Path;

use anydisk_testkit::corpus::{self, Content};
use anydisk_testkit::digest;

use crate::run::{anydisk, run};

/// A disk that VirtualBox wrote; its content is known.
const IMAGE: &str = "vmdk-vbox-sparse";

fn run_demo(row: &corpus::Row) -> Result<(), String> {
    let unpacked = row.unpack();
    let vmdk = unpacked.path.display().to_string();
    let folder = unpacked.path.parent().unwrap_or(Path::new("."));
    let qcow2 = folder.join("disk.qcow2").display().to_string();
    let raw = folder.join("disk.raw").display().to_string();
    let tool = anydisk()?;
    run(&tool, &["info", &vmdk])?;
    run(&tool, &["convert", "-f", "vmdk", "-O", "qcow2", &vmdk, &qcow2])?;
    run(&tool, &["map", "--picture", &qcow2])?;
    run(&tool, &["convert", "-f", "qcow2", "-O", "raw", &qcow2, &raw])?;
    run(&tool, &["compare", "-f", "vmdk", "-F", "raw", &vmdk, &raw])?;
    let found = digest::of_file(Path::new(&raw)).map_err(|error| error.to_string())?;
    let Some(Content::Sha256(wanted)) = &row.content else {
        return Err(format!("{IMAGE}: the manifest has no hash"));
    };
    println!("sha256 of the raw disk  {found}\nas its writer left it   {wanted}");
    if found == *wanted { Ok(()) } else { Err("the bytes differ".into()) }
}

pub(crate) fn task() -> Result<(), String> {
    run_demo(&corpus::own(IMAGE))
}
