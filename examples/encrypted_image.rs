//! An encrypted image: made, written, opened again, and given a second passphrase.
//!
//! `cargo run -p anydisk-examples --example encrypted_image`

use std::error::Error;
use std::sync::Arc;

use anydisk::convert::{NewImage, create_file};
use anydisk::storage::{FileStorage, OpenOptions};
use anydisk::{
    Access, AmendRequest, GuestOffset, Limits, Location, OneSecret, OpenDisk, OpenRequest, Options,
    Result, Secret, SecretRequest, Secrets, formats,
};

/// Gives passphrases by the option that asks for them: here a program would look them up.
#[derive(Debug)]
struct Keys;

impl Secrets for Keys {
    fn secret(&self, request: &SecretRequest<'_>) -> Result<Option<Secret>> {
        Ok(match request.option {
            "key-secret" => Some(Secret::new(b"correct horse".to_vec())),
            "new-secret" => Some(Secret::new(b"battery staple".to_vec())),
            _ => None,
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("disk.luks");
    let format = formats().by_name("luks")?;

    // A LUKS1 container, which qemu and cryptsetup open too.
    let mut options = Options::of(format);
    options.set("iter-time", "100")?; // milliseconds that trying a passphrase takes
    let image = NewImage { secrets: &Keys, ..NewImage::new(format, &options, 1 << 20) };
    create_file(&path, &image)?;

    let disk = OpenDisk::new().write(true).secrets(Arc::new(Keys)).path(&path)?;
    disk.write(GuestOffset(4096), b"nobody else's business")?;
    disk.flush()?;
    drop(disk);

    // A second passphrase, in a slot of its own.
    let mut changes = Options::to_amend(format);
    changes.set("state", "active")?;
    changes.set("iter-time", "100")?;
    let location = Location::Path(path.clone());
    let limits = Limits::default();
    let store = Arc::new(FileStorage::open(&path, &OpenOptions::new().write(true))?);
    let open = OpenRequest {
        access: Access::ReadWrite,
        secrets: &Keys,
        ..OpenRequest::new(store, &location, &limits)
    };
    format.amend(AmendRequest { open, options: &changes, force: false })?;

    let open = |text: &[u8]| {
        let secrets = Arc::new(OneSecret(Secret::new(text.to_vec())));
        OpenDisk::new().secrets(secrets).path(&path)
    };
    let mut bytes = [0; 22];
    open(b"battery staple")?.read(GuestOffset(4096), &mut bytes)?;
    println!("{}", String::from_utf8_lossy(&bytes));
    println!("{}", open(b"wrong").expect_err("refused"));
    Ok(())
}
