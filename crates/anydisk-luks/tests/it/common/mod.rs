//! Containers for the tests: cheap to open, with a passphrase that is known.
use std::sync::Arc;

use anydisk_core::{
    Access, AmendRequest, CreateRequest, Disk, Format, GuestOffset, Image, Limits, Location,
    OneSecret, OpenRequest, Options, Result, Secret, SecretRequest, Secrets, Storage,
};
use anydisk_luks::LUKS;

pub(crate) const PASSPHRASE: &str = "correct horse";

pub(crate) fn location() -> Location {
    Location::Other("disk".to_owned())
}

pub(crate) fn secret(text: &str) -> OneSecret {
    OneSecret(Secret::new(text.as_bytes().to_vec()))
}

/// Creation options beside `iter-time`, which is as short as can be.
pub(crate) fn options(given: &[(&str, &str)]) -> Options {
    let mut options = Options::of(&LUKS);
    options.set("iter-time", "0").expect("an option");
    for (name, value) in given {
        options.set(name, value).expect("an option");
    }
    options
}

pub(crate) fn create(
    store: Arc<dyn Storage>,
    size: u64,
    options: &Options,
) -> Result<Arc<dyn Image>> {
    let (location, limits) = (location(), Limits::default());
    let request = CreateRequest::new(store, &location, size, options, &limits);
    LUKS.create(CreateRequest { secrets: &secret(PASSPHRASE), ..request })
}

pub(crate) fn open(
    store: Arc<dyn Storage>,
    access: Access,
    passphrase: &str,
) -> Result<Arc<dyn Image>> {
    let (location, limits) = (location(), Limits::default());
    let request = OpenRequest::new(store, &location, &limits);
    Ok(LUKS.open(OpenRequest { access, secrets: &secret(passphrase), ..request })?.image)
}

/// Gives secrets by their options.
#[derive(Debug)]
pub(crate) struct Named(pub(crate) &'static [(&'static str, &'static str)]);

impl Secrets for Named {
    fn secret(&self, request: &SecretRequest<'_>) -> Result<Option<Secret>> {
        let found = self.0.iter().find(|(option, _)| *option == request.option);
        Ok(found.map(|(_, text)| Secret::new(text.as_bytes().to_vec())))
    }
}

pub(crate) fn amend(
    store: &Arc<dyn Storage>,
    secrets: &Named,
    given: &[(&str, &str)],
    force: bool,
) -> Result<()> {
    let mut options = Options::to_amend(&LUKS);
    for (name, value) in given {
        options.set(name, value)?;
    }
    let (location, limits) = (location(), Limits::default());
    let request = OpenRequest::new(Arc::clone(store), &location, &limits);
    let open = OpenRequest { access: Access::ReadWrite, secrets, ..request };
    LUKS.amend(AmendRequest { open, options: &options, force })
}

/// Zeroes all of the disk, which is noise at first.
pub(crate) fn zero(image: Arc<dyn Image>) -> Arc<dyn Image> {
    let disk = Disk::new(Arc::clone(&image));
    let len = usize::try_from(disk.size()).expect("a small disk");
    disk.write(GuestOffset(0), &vec![0; len]).expect("it can be written");
    image
}
