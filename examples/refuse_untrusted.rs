//! Take an image from a stranger: say what it is, or refuse it with the reason.
//!
//! `cargo run -p anydisk-examples --example refuse_untrusted`

use std::error::Error;
use std::path::Path;

use anydisk::OpenDisk;
use anydisk::inspect::{Judgement, Rules};

/// What to tell the one who sent it. Nothing but the file itself is opened.
fn verdict(path: &Path) -> Result<String, String> {
    let rules = Rules::default().taking(["qcow2", "vmdk"]).up_to(100 << 30);
    let inspection = OpenDisk::untrusted().inspect(path, &rules).map_err(|e| e.to_string())?;
    match (inspection.verdict(), inspection.remarks.first()) {
        (Judgement::Accept, _) => {
            let size = inspection.size.unwrap_or_default();
            Ok(format!("accepted: {}, {size} bytes", inspection.format))
        }
        (_, Some(worst)) => Err(format!("refused ({}): {}", worst.kind, worst.text)),
        (_, None) => Err("refused".into()),
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
