//! Encrypted images: made, written, opened with a second passphrase, and the first one taken away.
//!
//! `cargo run -p anydisk-examples --example encrypted_image`

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anydisk::convert::{NewImage, create_file};
use anydisk::{
    GuestOffset, OneSecret, OpenDisk, Options, PassphraseChange, Result, Secret, formats,
};

/// A LUKS1 container, and qcow2 with LUKS inside; qemu opens both. A format, and its options.
const KINDS: [(&str, &[(&str, &str)]); 2] = [
    ("luks", &[("iter-time", "100")]), // milliseconds that trying a passphrase takes
    ("qcow2", &[("encrypt.format", "luks"), ("encrypt.iter-time", "100")]),
];

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

fn opener(passphrase: &str) -> OpenDisk {
    OpenDisk::new().secrets(Arc::new(OneSecret(secret(passphrase))))
}

fn read(path: &Path, passphrase: &str) -> Result<String> {
    let mut bytes = [0; 22];
    opener(passphrase).path(path)?.read(GuestOffset(4096), &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    for (name, given) in KINDS {
        let path = folder.path().join(name);
        let format = formats().by_name(name)?;
        let mut options = Options::of(format);
        given.iter().try_for_each(|(option, value)| options.set(option, value))?;
        let first = OneSecret(secret("correct horse"));
        let image = NewImage { secrets: &first, ..NewImage::new(format, &options, 1 << 20) };
        create_file(&path, &image)?;

        let disk = opener("correct horse").write(true).path(&path)?;
        disk.write(GuestOffset(4096), b"nobody else's business")?;
        disk.flush()?;
        drop(disk);

        // A second passphrase, in a slot of its own. The data is not touched.
        let add = PassphraseChange::Add {
            current: secret("correct horse"),
            new: secret("battery staple"),
            slot: None,
            time: Duration::from_millis(100),
        };
        OpenDisk::new().change_passphrases(&path, &add, false)?;
        for passphrase in ["correct horse", "battery staple"] {
            println!("{name}: {passphrase}: {}", read(&path, passphrase)?);
        }
        // The last one would go only by force.
        let remove = PassphraseChange::Remove { passphrase: secret("correct horse") };
        OpenDisk::new().change_passphrases(&path, &remove, false)?;
        let refused = read(&path, "correct horse").expect_err("it was taken away");
        println!("{name}: correct horse: {refused}");
    }
    Ok(())
}
