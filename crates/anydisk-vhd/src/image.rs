//! The image: one footer, and the disk's bytes in one piece or in blocks.

use std::sync::Arc;

use anydisk_core::{
    Error, Extent, GuestRange, HostOffset, Image, ImageInfo, Lease, Lookup, Need, OpenRequest,
    Reference, Result, Source, Storage, StorageExt, Supplied,
};

use crate::blocks::Blocks;
use crate::footer::{FOOTER_LEN, Footer, Found, Kind};
use crate::header::{HEADER_LEN, Header};
use crate::info;
use crate::layout::RawFooter;
use crate::table::Shape;

/// A VHD: one image of a chain.
#[derive(Debug)]
pub struct VhdImage {
    pub(crate) footer: Footer,
    pub(crate) found: Found,
    pub(crate) body: Body,
}

/// Where the bytes of the disk are.
#[derive(Debug)]
pub(crate) enum Body {
    /// At the start of the file.
    Fixed(Arc<dyn Storage>),
    /// In blocks.
    Blocks(Box<Blocks>),
}

/// What a file says of itself before any of its tables.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) footer: Footer,
    pub(crate) found: Found,
    /// Of a disk in blocks.
    pub(crate) header: Option<Header>,
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
            return Ok(Self { footer, found, header: None, backing: None, len });
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
        let backing = match footer.kind {
            Kind::Differencing => Some(backing(&header, at, store, len)?),
            _ => None,
        };
        Ok(Self { footer, found, header: Some(header), backing, len })
    }
}

/// The image below, by what the locators say.
fn backing(header: &Header, at: HostOffset, store: &dyn Storage, len: u64) -> Result<Reference> {
    let mut texts = Vec::new();
    for locator in header.locators(at, len)? {
        let mut bytes = vec![0; usize::try_from(locator.length).unwrap_or_default()];
        store.read_exact_at(locator.place, &mut bytes)?;
        texts.push((locator, bytes));
    }
    Ok(header.backing(&texts))
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
    /// Opens the image that the request names. The parent is not opened.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`] and [`Error::Limit`] for what footer and header
    /// say; [`Error::ReadOnly`].
    pub fn open(request: &OpenRequest<'_>) -> Result<(Self, Option<Reference>)> {
        if request.is_writable()? {
            return Err(Error::ReadOnly { why: "VHD images are only read".into() });
        }
        let Parts { footer, found, header, backing, len } = Parts::read(&*request.store)?;
        let store = Arc::clone(&request.store);
        let body = match &header {
            None => Body::Fixed(store),
            Some(header) => Body::Blocks(Box::new(Blocks::new(
                store,
                Shape::of(header, footer.size),
                footer.kind == Kind::Differencing,
                HostOffset(len),
                request.limits.table_cache,
            ))),
        };
        Ok((Self { footer, found, body }, backing))
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
        self.footer.size
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        match &self.body {
            Body::Fixed(store) => {
                let at = HostOffset(range.start().get());
                let source = Source::Data { store, at, shared: false };
                let lease = Lease::eternal();
                Ok(Lookup::Found(Extent { len: range.len(), source, lease }))
            }
            Body::Blocks(blocks) => blocks.map_cached(range, Lease::eternal()),
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
}
