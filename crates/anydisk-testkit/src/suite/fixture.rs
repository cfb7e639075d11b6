//! How the suite gets images of a format.

use std::fmt::Debug;
use std::sync::Arc;

use anydisk_core::{
    Access, Below, CreateRequest, Format, Image, Limits, Location, NoReferences, OpenRequest,
    Options, Reference, Result, Role, Storage,
};

use crate::secret::secrets;

/// Makes and opens images of one format with one set of options, each in one store.
pub trait Fixture: Debug + Send + Sync {
    /// Makes an empty image of `size` bytes in an empty store, open for writing. With
    /// [`Below::Image`], which is asked for only if the format [can](Self::has_backing), it is to
    /// lie over another image; the suite does the layering.
    ///
    /// # Errors
    /// What the format or the store says.
    fn create(&self, store: Arc<dyn Storage>, size: u64, below: Below) -> Result<Arc<dyn Image>>;

    /// Opens the image in `store`.
    ///
    /// # Errors
    /// What the format or the store says.
    fn open(&self, store: Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>>;

    /// Bytes in a unit of allocation (cluster, grain): tests aim at its boundaries.
    fn unit(&self) -> u64;

    /// Sizes of disks are multiples of so many bytes.
    fn granularity(&self) -> u64 {
        1
    }

    /// Whether an image can lie over another one.
    fn has_backing(&self) -> bool {
        false
    }

    /// Whether the map of an image can tell that a part of it was never written. Not in an encrypted
    /// container, where it may be noise.
    fn maps_zeroes(&self) -> bool {
        true
    }

    /// Bytes of each of the files that the store stands for, if it stands for several: they are
    /// flushed, and lose power, each by itself. See
    /// [`with_media`](crate::double::CrashStorage::with_media).
    fn medium(&self) -> Option<u64> {
        None
    }

    /// Looks for damage in an image that is not open. Lost space is no damage.
    ///
    /// # Errors
    /// What is damaged.
    fn check(&self, store: Arc<dyn Storage>) -> Result<(), String> {
        let _ = store;
        Ok(())
    }
}

/// Looks for damage in an image that is not open.
pub type Check = fn(Arc<dyn Storage>) -> Result<(), String>;

/// The usual fixture: a format and its creation options.
#[derive(Clone, Debug)]
pub struct FormatFixture {
    format: &'static dyn Format,
    unit: u64,
    granularity: u64,
    options: Options,
    backing_format: Option<&'static str>,
    check: Option<Check>,
    passphrase: Option<&'static str>,
}

impl FormatFixture {
    /// `format` with its default options, the units of which have `unit` bytes.
    #[must_use]
    pub fn new(format: &'static dyn Format, unit: u64) -> Self {
        let options = Options::of(format);
        let (granularity, backing_format, check, passphrase) = (1, None, None, None);
        Self { format, unit, granularity, options, backing_format, check, passphrase }
    }

    /// Images are encrypted with this passphrase.
    #[must_use]
    pub fn passphrase(mut self, text: &'static str) -> Self {
        self.passphrase = Some(text);
        self
    }

    /// With a creation option.
    ///
    /// # Panics
    /// If the format does not take it.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.set(name, value).expect("an option of the format");
        self
    }

    /// Disks have sizes that are multiples of `bytes`.
    #[must_use]
    pub fn granularity(mut self, bytes: u64) -> Self {
        self.granularity = bytes;
        self
    }

    /// Tests aim at boundaries of so many bytes, instead of those of a unit.
    #[must_use]
    pub fn unit(self, unit: u64) -> Self {
        Self { unit, ..self }
    }

    /// Images can lie over images of the format of this name.
    #[must_use]
    pub fn over(mut self, format: &'static str) -> Self {
        self.backing_format = Some(format);
        self
    }

    /// With a function that looks for damage in an image that is not open.
    #[must_use]
    pub fn checked_by(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    fn reference(&self) -> Option<Reference> {
        let mut reference = Reference::new(Role::Backing, "below");
        reference.format = Some(self.backing_format?.to_owned());
        Some(reference)
    }
}

impl Fixture for FormatFixture {
    fn create(&self, store: Arc<dyn Storage>, size: u64, below: Below) -> Result<Arc<dyn Image>> {
        let backing = if below == Below::Image { self.reference() } else { None };
        let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
        let request = CreateRequest::new(store, &location, size, &self.options, &limits);
        let secrets = secrets(self.passphrase);
        let (backing, secrets) = (backing.as_ref(), &*secrets);
        self.format.create(CreateRequest { backing, secrets, ..request })
    }

    fn open(&self, store: Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>> {
        let request = OpenRequest {
            store,
            location: &Location::Other("image".to_owned()),
            access,
            resolver: &NoReferences,
            limits: &Limits::default(),
            secrets: &*secrets(self.passphrase),
        };
        Ok(self.format.open(request)?.image)
    }

    fn unit(&self) -> u64 {
        self.unit
    }

    fn granularity(&self) -> u64 {
        self.granularity
    }

    fn has_backing(&self) -> bool {
        self.backing_format.is_some()
    }

    fn check(&self, store: Arc<dyn Storage>) -> Result<(), String> {
        self.check.map_or(Ok(()), |check| check(store))
    }
}
