//! Convert a disk, watch the progress, and stop if somebody asks for it.
//!
//! `cargo run -p anydisk-examples --example convert_with_progress`

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anydisk::convert::{self, NewImage, Settings, Sources};
use anydisk::{OpenDisk, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (from, to) = (folder.path().join("disk.raw"), folder.path().join("disk.qcow2"));
    std::fs::write(&from, vec![7; 32 << 20])?;

    // A raw file must be called so: nothing in it says what it is.
    let source = OpenDisk::new().format("raw").path(&from)?;
    let format = anydisk::formats().by_name("qcow2")?;
    let mut options = Options::of(format);
    options.set("compression_type", "zstd")?;
    let image = NewImage::new(format, &options, source.size());

    let mut settings = Settings::default();
    settings.compress = true;

    // Called from the threads that copy. Breaking leaves what was at the target before.
    let stop = AtomicBool::new(false);
    let watch = |done: u64, total: u64| {
        eprint!("\r{:3} %", done * 100 / total.max(1));
        if stop.load(Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let report = convert::copy_to_file(&Sources::one(&source), &to, &image, &settings, &watch)?;
    eprintln!();
    println!("{} bytes of data, {} of them packed", report.data, report.packed);
    println!("the file has {} bytes", std::fs::metadata(&to)?.len());
    assert!(std::fs::metadata(&to)?.len() < 1 << 20);
    Ok(())
}
