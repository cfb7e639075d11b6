//! Copying into a new file, which gets its name only when it is whole.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use anydisk_core::{
    Companions, CreateRequest, Disk, Format, HostOffset, Layer, Limits, Location, NoCompanions,
    NoSecrets, Options, Reference, Result as CoreResult, Secrets, SinkRequest, Storage,
};
use anydisk_storage::{FileStorage, Identity, OpenOptions};

use crate::pending::PendingImage;
use crate::{Report, Result, Settings, Sources, Watch, copy_to_disk, copy_to_sink};

/// What a new image is to be.
#[derive(Clone, Debug)]
pub struct NewImage<'a> {
    /// Its format.
    pub format: &'a dyn Format,
    /// Its creation options.
    pub options: &'a Options,
    /// Virtual size in bytes; at least that of what is copied into it.
    pub size: u64,
    /// The image below it, as it will stand in the new image.
    pub backing: Option<&'a Reference>,
    /// Gives its passphrases, if it is to be encrypted.
    pub secrets: &'a dyn Secrets,
}

impl<'a> NewImage<'a> {
    /// An image of `size` bytes with nothing below and no secrets.
    #[must_use]
    pub fn new(format: &'a dyn Format, options: &'a Options, size: u64) -> Self {
        Self { format, options, size, backing: None, secrets: &NoSecrets }
    }

    /// Makes the image, empty, in `store`, which is all of it. Nobody else may write the store
    /// meanwhile; of stores that are no files nothing sees to that.
    ///
    /// With a [`backing`](Self::backing) the disk is the new image alone: writes to a part of a unit
    /// are refused, because the rest lies below. [`Disk::overlaid`] puts the top layer over the disk
    /// that is below.
    ///
    /// # Errors
    /// What the format says.
    pub fn create(&self, store: Arc<dyn Storage>, location: &Location) -> CoreResult<Disk> {
        self.create_with(store, location, &NoCompanions)
    }

    /// As [`create`](Self::create), for images that may be made of several files, the other ones of
    /// which `companions` makes.
    ///
    /// # Errors
    /// What the format and the maker say.
    pub fn create_with(
        &self,
        store: Arc<dyn Storage>,
        location: &Location,
        companions: &dyn Companions,
    ) -> CoreResult<Disk> {
        let limits = Limits::default();
        let request = CreateRequest::new(store, location, self.size, self.options, &limits);
        let (backing, secrets) = (self.backing, self.secrets);
        let request = CreateRequest { backing, secrets, companions, ..request };
        let mut layer = Layer::new(self.format.create(request)?, self.format.name());
        layer.backing = backing.cloned();
        Ok(Disk::from_layers(vec![layer], &limits))
    }
}

/// Creates an empty image at `path`, or on the block device there.
///
/// # Errors
/// What the format and the file system say; then an existing file is as it was.
pub fn create_file(path: &Path, image: &NewImage<'_>) -> Result<()> {
    write_file(path, &Settings::default(), |new| {
        image.create_with(new.store, new.location, new.companions)?.flush()?;
        Ok(())
    })
}

/// Copies the source into a new image at `path`, or onto the block device there.
///
/// A file gets its name when it is whole: an error, a cancelled copy, a killed process leave what
/// was there before. Of an image that is made of several files all are whole before the first gets
/// its name, and the one at `path` is the last. A block device is written in place.
///
/// # Errors
/// As [`copy_to_disk`], and what the file system says.
pub fn copy_to_file(
    source: &Sources<'_>,
    path: &Path,
    image: &NewImage<'_>,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Report> {
    copy_to_overlay(source, path, image, &[], settings, watch)
}

/// As [`copy_to_file`], for an image over others: `below`, the next one first, is where the
/// `backing` of `image` leads. Zeroes of the source hide what they hold.
///
/// # Errors
/// As [`copy_to_file`].
pub fn copy_to_overlay(
    source: &Sources<'_>,
    path: &Path,
    image: &NewImage<'_>,
    below: &[Layer],
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Report> {
    write_file(path, settings, |new| {
        let New { store, location, companions } = new;
        let request = SinkRequest { size: image.size, options: image.options, location };
        let out = Box::new(Appender { store: Arc::clone(&store), at: HostOffset::ZERO });
        if let Some(sink) = image.format.sink(&request, out)? {
            if image.backing.is_some() {
                let feature = "a backing file below what is written in one pass,".into();
                let format = image.format.name();
                return Err(anydisk_core::Error::Unsupported { format, feature }.into());
            }
            return copy_to_sink(source, sink, settings, watch);
        }
        let is_empty = begins_as_zero(&*store, image.format);
        let disk = over(image.create_with(store, location, companions)?, below);
        let settings = Settings {
            target_is_zero: settings.zero_run > 0 && image.backing.is_none() && is_empty,
            durable: true, // The store decides what a flush is.
            ..settings.clone()
        };
        copy_to_disk(source, &disk, &settings, watch)
    })
}

/// Whether a new image in `store` reads as zero: a device keeps the bytes it had.
pub(crate) fn begins_as_zero(store: &dyn Storage, format: &dyn Format) -> bool {
    !matches!(store.identity(), Some(Identity::Device(_))) && format.starts_as_zero()
}

/// The disk with other images below it.
pub(crate) fn over(disk: Disk, below: &[Layer]) -> Disk {
    let layers = disk.layers().iter().chain(below).cloned().collect();
    Disk::from_layers(layers, &Limits::default())
}

/// Where a new image is written.
pub(crate) struct New<'a> {
    pub(crate) store: Arc<dyn Storage>,
    pub(crate) location: &'a Location,
    pub(crate) companions: &'a dyn Companions,
}

/// Runs `write` on a file that is not at `path` yet, or on the device that is.
pub(crate) fn write_file<R>(
    path: &Path,
    settings: &Settings,
    write: impl FnOnce(New<'_>) -> Result<R>,
) -> Result<R> {
    let location = &Location::Path(path.to_owned());
    let options = OpenOptions::new().direct(settings.direct);
    if is_device(path) {
        let options = options.write(true).block_devices(true);
        let store = Arc::new(FileStorage::open(path, &options)?);
        return write(New { store, location, companions: &NoCompanions });
    }
    let pending = PendingImage::create(path, &options, settings.durable)?;
    let answer = write(New { store: pending.store(), location, companions: &pending })?;
    pending.publish()?;
    Ok(answer)
}

fn is_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device())
}

/// A store as a stream.
#[derive(Debug)]
struct Appender {
    store: Arc<dyn Storage>,
    at: HostOffset,
}

impl Write for Appender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.store.write_at(self.at, bytes).map_err(io::Error::other)?;
        self.at = self.at.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.store.flush().map_err(io::Error::other)
    }
}
