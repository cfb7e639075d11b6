//! What a format is given for each of its works, and what it answers.

use std::sync::Arc;

use anydisk_storage::Storage;

use super::Options;
use crate::image::read_only;
use crate::{
    Access, Companions, GuestRange, Image, Limits, Location, NoCompanions, NoReferences, NoSecrets,
    Reference, Resolver, Result, Role, Secrets,
};

/// What [`Format::open`](super::Format::open) is given. Resolver and limits are always there.
#[derive(Clone, Debug)]
pub struct OpenRequest<'a> {
    /// The bytes of the image.
    pub store: Arc<dyn Storage>,
    /// Where they were found.
    pub location: &'a Location,
    /// Reading, or writing too.
    pub access: Access,
    /// Opens the other files the image is made of.
    pub resolver: &'a dyn Resolver,
    /// What it may cost.
    pub limits: &'a Limits,
    /// Gives passphrases.
    pub secrets: &'a dyn Secrets,
}

impl<'a> OpenRequest<'a> {
    /// Opens `store` for reading, by itself: no other files, no secrets.
    #[must_use]
    pub fn new(store: Arc<dyn Storage>, location: &'a Location, limits: &'a Limits) -> Self {
        let (resolver, secrets) = (&NoReferences, &NoSecrets);
        Self { store, location, access: Access::Read, resolver, limits, secrets }
    }
}

impl OpenRequest<'_> {
    /// Whether the image is to be written.
    ///
    /// # Errors
    /// [`Error::ReadOnly`](crate::Error::ReadOnly) if it is, and the store cannot be.
    pub fn is_writable(&self) -> Result<bool> {
        match self.access {
            Access::Read => Ok(false),
            Access::ReadWrite if self.store.is_writable() => Ok(true),
            Access::ReadWrite => Err(read_only("its file was opened for reading")),
        }
    }

    /// Refuses writing, for a format that is only read: `name` as people call it.
    ///
    /// # Errors
    /// [`Error::ReadOnly`](crate::Error::ReadOnly) if the image is to be written.
    pub fn only_read(&self, name: &str) -> Result<()> {
        match self.is_writable()? {
            true => Err(read_only(format!("{name} images are only read"))),
            false => Ok(()),
        }
    }
}

/// An open image and the reference to the one below.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened {
    /// The image.
    pub image: Arc<dyn Image>,
    /// What lies below, as the image names it. Whether to follow it is the caller's decision.
    pub backing: Option<Reference>,
    /// What a person should know of the image, though it opened (bitmaps that are not valid, a table
    /// that was read from its second copy): whole sentences without the name of the file.
    pub warnings: Vec<String>,
}

impl Opened {
    /// An image over what `backing` names, and nothing to say of it.
    #[must_use]
    pub fn new(image: Arc<dyn Image>, backing: Option<Reference>) -> Self {
        Self { image, backing, warnings: Vec::new() }
    }

    /// The same, and what a person should know of it.
    #[must_use]
    pub fn with_warnings(self, warnings: impl IntoIterator<Item = String>) -> Self {
        Self { warnings: warnings.into_iter().collect(), ..self }
    }
}

/// What a new image is to be.
#[derive(Clone, Debug)]
pub struct CreateRequest<'a> {
    /// An empty store, open for writing.
    pub store: Arc<dyn Storage>,
    /// Where it will be found.
    pub location: &'a Location,
    /// Virtual size in bytes.
    pub size: u64,
    /// Creation options, already checked against [`Format::create_options`](super::Format::create_options).
    pub options: &'a Options,
    /// The image below, written into the new image as it stands here.
    pub backing: Option<&'a Reference>,
    /// What the open image may cost.
    pub limits: &'a Limits,
    /// Gives passphrases.
    pub secrets: &'a dyn Secrets,
    /// Makes the other files of an image that is made of several.
    pub companions: &'a dyn Companions,
}

impl<'a> CreateRequest<'a> {
    /// A new image of `size` bytes in `store`, with nothing below, no other files and no secrets.
    #[must_use]
    pub fn new(
        store: Arc<dyn Storage>,
        location: &'a Location,
        size: u64,
        options: &'a Options,
        limits: &'a Limits,
    ) -> Self {
        let (secrets, companions) = (&NoSecrets, &NoCompanions);
        Self { store, location, size, options, backing: None, limits, secrets, companions }
    }

    /// The image below: that of the request, else what the options `backing_file` and
    /// `backing_fmt` name.
    #[must_use]
    pub fn below(&self) -> Option<Reference> {
        self.backing.cloned().or_else(|| {
            let name = self.options.text("backing_file").filter(|name| !name.is_empty())?;
            let mut reference = Reference::new(Role::Backing, name);
            reference.format = self.options.text("backing_fmt").map(str::to_owned);
            Some(reference)
        })
    }
}

/// What [`Format::amend`](super::Format::amend) is given.
#[derive(Clone, Debug)]
pub struct AmendRequest<'a> {
    /// The image, to be opened for writing.
    pub open: OpenRequest<'a>,
    /// What to change, checked against [`Format::amend_options`](super::Format::amend_options).
    pub options: &'a Options,
    /// Also what may make data unreadable for ever (the last key of an encrypted image).
    pub force: bool,
}

/// What a stream is to be.
#[derive(Clone, Debug)]
pub struct SinkRequest<'a> {
    /// Virtual size in bytes.
    pub size: u64,
    /// Creation options.
    pub options: &'a Options,
    /// Where it will be found; its name may be written into it.
    pub location: &'a Location,
}

/// What [`Format::measure`](super::Format::measure) is given.
#[derive(Debug)]
pub struct MeasureRequest<'a> {
    /// Virtual size in bytes.
    pub size: u64,
    /// Creation options.
    pub options: &'a Options,
    /// The ranges that hold data, rising and not overlapping.
    pub data: &'a [GuestRange],
}

/// Sizes in bytes of an image that does not exist yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// For the data there is now.
    pub required: u64,
    /// With every unit allocated.
    pub fully_allocated: u64,
}
