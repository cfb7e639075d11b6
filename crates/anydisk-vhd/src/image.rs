//! The image: one footer, and the disk's bytes in one piece or in blocks.

use std::sync::atomic::{AtomicU64, Ordering::Acquire};
use std::sync::{Arc, Mutex};

use anydisk_core::{
    BackingLink, Doubt, Extent, GuestRange, HostOffset, Image, ImageInfo, ImageWrite, Lease,
    Lookup, Need, OpenRequest, Reference, Resize, Result, Source, Storage, StorageExt, Supplied,
};

use zerocopy::IntoBytes;

use crate::blocks::Blocks;
use crate::footer::{FOOTER_LEN, Footer, Found, Kind, limit};
use crate::guard::survey;
use crate::header::{HEADER_LEN, Header, LocatorAt};
use crate::info;
use crate::layout::{RawFooter, RawHeader};
use crate::table::Shape;
use crate::write::Writer;

/// A VHD: one image of a chain.
#[derive(Debug)]
pub struct VhdImage {
    pub(crate) footer: Footer,
    pub(crate) found: Found,
    /// As it was when the image was opened.
    pub(crate) header: Option<RawHeader>,
    pub(crate) body: Body,
    pub(crate) writable: bool,
}

/// Where the bytes of the disk are.
#[derive(Debug)]
pub(crate) enum Body {
    /// At the start of the file.
    Fixed(Box<Fixed>),
    /// In blocks.
    Blocks(Box<Blocks>),
}

/// A fixed disk.
#[derive(Debug)]
pub(crate) struct Fixed {
    pub(crate) store: Arc<dyn Storage>,
    /// Bytes of the disk.
    pub(crate) size: AtomicU64,
    /// The footer, and where it is.
    pub(crate) end: Mutex<(RawFooter, HostOffset)>,
    /// Whether it is that.
    pub(crate) doubt: Doubt,
}

impl Fixed {
    fn new(store: Arc<dyn Storage>, parts: &Parts) -> Self {
        let end = Mutex::new((parts.footer.raw, HostOffset(parts.room_end())));
        let size = AtomicU64::new(parts.footer.size);
        Self { store, size, end, doubt: Doubt::default() }
    }
}

/// What a file says of itself before any of its tables.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) footer: Footer,
    pub(crate) found: Found,
    /// The copy at the start of the file is as the footer that counts.
    pub(crate) has_copy: bool,
    /// Of a disk in blocks.
    pub(crate) header: Option<Header>,
    /// Of a differencing disk.
    pub(crate) locators: Vec<LocatorAt>,
    pub(crate) backing: Option<Reference>,
    /// Bytes of the file.
    pub(crate) len: u64,
}

impl Parts {
    /// Reads footer, header and the parent's name.
    ///
    /// # Errors
    /// What is wrong with them, and those of the store.
    pub(crate) fn read(store: &dyn Storage) -> Result<Self> {
        let len = store.len()?;
        let piece = FOOTER_LEN as u64;
        let mut head = vec![0; usize::try_from(len.min(piece)).unwrap_or(FOOTER_LEN)];
        let mut tail = head.clone();
        store.read_exact_at(HostOffset::ZERO, &mut head)?;
        store.read_exact_at(HostOffset(len.saturating_sub(piece)), &mut tail)?;
        let (footer, found) = Footer::of_file(&head, &tail, len)?;
        if footer.kind == Kind::Fixed {
            check_fixed(&footer, found)?;
            return Ok(Self {
                footer,
                found,
                has_copy: false,
                header: None,
                locators: Vec::new(),
                backing: None,
                len,
            });
        }
        let at = footer.header_at();
        if at.get() < piece || at.checked_add(HEADER_LEN as u64).is_none_or(|end| end.get() > len) {
            let base = match found {
                Found::End(at) => at,
                Found::Start => HostOffset::ZERO,
            };
            let expected = "a place behind the footer's copy and in the file";
            return Err(invalid!(base, RawFooter, data_offset, at, "{expected}"));
        }
        let mut bytes = [0; HEADER_LEN];
        store.read_exact_at(at, &mut bytes)?;
        let header = Header::parse(&bytes, at, footer.size, len)?;
        let mut parts = Self {
            has_copy: head == footer.raw.as_bytes(),
            footer,
            found,
            header: None,
            locators: Vec::new(),
            backing: None,
            len,
        };
        if parts.footer.kind == Kind::Differencing {
            parts.locators = header.locators(at, len)?;
            parts.backing = Some(header.backing(&parts.texts(store)?));
        }
        parts.header = Some(header);
        Ok(parts)
    }

    /// Behind all that is not a footer.
    pub(crate) fn room_end(&self) -> u64 {
        match self.found {
            Found::End(at) => at.get(),
            Found::Start => self.len,
        }
    }

    /// What the locators say.
    fn texts(&self, store: &dyn Storage) -> Result<Vec<(LocatorAt, Vec<u8>)>> {
        let read = |locator: &LocatorAt| {
            let mut bytes = vec![0; usize::try_from(locator.length).unwrap_or_default()];
            store.read_exact_at(locator.place, &mut bytes)?;
            Ok((*locator, bytes))
        };
        self.locators.iter().map(read).collect()
    }
}

/// A fixed disk ends before its footer.
fn check_fixed(footer: &Footer, found: Found) -> Result<()> {
    match found {
        Found::End(end) if footer.size > end.get() => {
            let size = footer.size;
            let most = end.get();
            Err(invalid!(end, RawFooter, current_size, size, "{most} at most, where the footer is"))
        }
        _ => Ok(()),
    }
}

impl VhdImage {
    /// Opens the image that the request names, and tells what lies below it. The parent is not
    /// opened.
    ///
    /// # Errors
    /// [`Error::Invalid`](anydisk_core::Error::Invalid), `Unsupported` and `Limit` for what footer
    /// and header say; opened for writing also `NeedsRepair` for a table that must not be written
    /// by, and `ReadOnly`.
    pub fn open(request: &OpenRequest<'_>) -> Result<(Self, Option<Reference>)> {
        Self::build(request, false)
    }

    /// Opens an image that was just made.
    pub(crate) fn open_new(request: &OpenRequest<'_>) -> Result<Self> {
        Ok(Self::build(request, true)?.0)
    }

    fn build(request: &OpenRequest<'_>, is_new: bool) -> Result<(Self, Option<Reference>)> {
        let writable = request.is_writable()?;
        let parts = Parts::read(&*request.store)?;
        let body = match &parts.header {
            None => Body::Fixed(Box::new(Fixed::new(Arc::clone(&request.store), &parts))),
            Some(header) => {
                let shape = Shape::of(header, parts.footer.size);
                let has_bitmaps = parts.footer.kind == Kind::Differencing;
                let (store, end) = (Arc::clone(&request.store), HostOffset(parts.room_end()));
                let memory = request.limits.table_cache;
                let mut blocks = Blocks::new(store, shape, has_bitmaps, end, memory);
                if writable {
                    let what = "size of a block to be written, in bytes";
                    limit(what, shape.block, request.limits.unit)?;
                    let room = survey(&parts, &shape, &*request.store, is_new)?;
                    blocks.writer = Some(Writer::new(&room, &shape, &parts, is_new));
                }
                Body::Blocks(Box::new(blocks))
            }
        };
        let Parts { footer, found, header, backing, .. } = parts;
        let header = header.map(|header| header.raw);
        Ok((Self { footer, found, header, body, writable }, backing))
    }

    /// What a person should know of the image, though it opened.
    pub(crate) fn warnings(&self) -> Vec<String> {
        match self.found {
            Found::End(_) => Vec::new(),
            Found::Start => {
                vec!["the footer at the end of the file is missing: its copy is used".to_owned()]
            }
        }
    }
}

impl Image for VhdImage {
    fn size(&self) -> u64 {
        match &self.body {
            Body::Fixed(fixed) => fixed.size.load(Acquire),
            Body::Blocks(blocks) => blocks.shape().size,
        }
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        match &self.body {
            Body::Fixed(fixed) => {
                let at = HostOffset(range.start().get());
                let source = Source::Data { store: &fixed.store, at, shared: false };
                let lease = Lease::eternal();
                Ok(Lookup::Found(Extent { len: range.len(), source, lease }))
            }
            Body::Blocks(blocks) => blocks.map_cached(range),
        }
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        Ok(match &self.body {
            Body::Fixed(_) => Supplied::Taken,
            Body::Blocks(blocks) => blocks.supply(need, bytes),
        })
    }

    fn info(&self) -> ImageInfo {
        info::of(self)
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        self.writable.then_some(self)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        self.writable.then_some(self)
    }

    fn backing_link(&self) -> Option<&dyn BackingLink> {
        self.writable.then_some(self)
    }
}
