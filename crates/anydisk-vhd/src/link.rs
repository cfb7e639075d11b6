//! What a child says of its parent, and changing that.
//!
//! ```text
//!   new header and locator, elsewhere -> flush -> footer -> flush -> its copy -> flush
//!   the same once more, before the table, where the old ones were
//! ```
//!
//! A header has two sectors, so it is not written over the one that counts. It must not stay behind
//! the blocks of a dynamic disk: qemu puts its next block there.

use std::mem::offset_of;
use std::sync::{MutexGuard, PoisonError};

use anydisk_core::{
    BackingLink, GuestRange, HostOffset, Image, ImageWrite, Reference, Result, Storage, Uuid,
    WantedRun,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::NAME;
use crate::blocks::{Blocks, Look};
use crate::footer::{checksum, unsupported};
use crate::guard::Piece;
use crate::header::HEADER_LEN;
use crate::image::{Parts, VhdImage};
use crate::layout::{RawHeader, SECTOR, code, kind};
use crate::table::Shape;
use crate::write::Writer;

/// A parent, as the child's header and its one locator name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    /// Nil if it is not known.
    pub(crate) uuid: Uuid,
    /// The name of the file, UTF-16, big-endian.
    pub(crate) name: [u8; 512],
    pub(crate) code: [u8; 4],
    /// The path, UTF-16, little-endian.
    pub(crate) text: Vec<u8>,
}

impl Parent {
    /// # Errors
    /// `Unsupported` for a parent of another format, or a name that cannot be told.
    pub(crate) fn of(reference: &Reference) -> Result<Self> {
        if reference.format.as_deref().is_some_and(|format| !matches!(format, NAME | "vhd")) {
            return Err(unsupported("a parent of another format"));
        }
        let Ok(path) = std::str::from_utf8(&reference.name) else {
            return Err(unsupported("a parent whose name is no text"));
        };
        let last = path.rsplit('/').next().unwrap_or_default();
        // 255 units and the NUL behind them.
        if last.is_empty() || path.contains(['\\', '\0']) || last.encode_utf16().count() > 255 {
            return Err(unsupported("a parent of this name"));
        }
        let (code, text) = match path.starts_with('/') {
            true => (code::ABSOLUTE, path.to_owned()),
            false => (code::RELATIVE, format!(".\\{}", path.replace('/', "\\"))),
        };
        let mut name = [0; 512];
        let bytes = last.encode_utf16().flat_map(u16::to_be_bytes);
        name.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        let uuid = reference.id.and_then(anydisk_core::Id::uuid).unwrap_or(Uuid::NIL);
        let text = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        Ok(Self { uuid, name, code, text })
    }

    /// Bytes of the file that are kept for the text.
    pub(crate) fn room(&self) -> u64 {
        (self.text.len() as u64).next_multiple_of(SECTOR)
    }

    /// Names it in a header; the text is to be at `at`.
    pub(crate) fn put(&self, raw: &mut RawHeader, at: u64) {
        raw.parent_unique_id = self.uuid.to_bytes();
        raw.parent_time_stamp = 0.into();
        raw.parent_unicode_name = self.name;
        raw.parent_locators = FromZeros::new_zeroed();
        let [first, ..] = &mut raw.parent_locators;
        first.code = self.code;
        first.data_space = u32::try_from(self.room()).unwrap_or(u32::MAX).into();
        first.data_length = u32::try_from(self.text.len()).unwrap_or(u32::MAX).into();
        first.data_offset = at.into();
    }
}

impl BackingLink for VhdImage {
    fn set_backing(&self, backing: Option<&Reference>) -> Result<()> {
        let Some((blocks, writer)) = self.blocks() else {
            return match backing {
                None => Ok(()),
                Some(_) => Err(unsupported("a fixed disk over another one")),
            };
        };
        if !blocks.has_bitmaps() {
            return match backing {
                None => Ok(()),
                Some(_) => Err(unsupported("a dynamic disk over another one")),
            };
        }
        let parent = backing.map(Parent::of).transpose()?;
        let _claim = writer.claims.hold_before_others(GuestRange::whole(u64::MAX));
        self.flush()?;
        match parent {
            Some(parent) => self.name_parent(blocks, writer, &parent),
            None => {
                if !writer.lock_place().can_lose_parent() {
                    return Err(unsupported("no parent, in a file without room before its table"));
                }
                self.fill_blocks(blocks)?;
                self.name_none(blocks, writer)?;
                blocks.ignore_bitmaps();
                Ok(())
            }
        }
    }

    fn check_emptying(&self) -> Result<()> {
        match self.blocks().is_some_and(|(blocks, _)| blocks.has_bitmaps()) {
            true => Ok(()),
            false => Err(unsupported("emptying an image without a parent")),
        }
    }

    fn forget_everything(&self) -> Result<()> {
        let Some((blocks, writer)) = self.blocks().filter(|(blocks, _)| blocks.has_bitmaps())
        else {
            return Err(unsupported("emptying an image without a parent"));
        };
        let _claim = writer.claims.hold_before_others(GuestRange::whole(u64::MAX));
        let mut rest = GuestRange::whole(self.size());
        while !rest.is_empty() {
            rest = match self.look_now(blocks, rest)? {
                Look::NoBlock { len } => rest.skip(len),
                _ => rest.skip(blocks.free_claimed(writer, self, rest.start())?),
            };
        }
        self.flush()
    }
}

impl VhdImage {
    /// Makes zeroes of the sectors of blocks that show the parent: without one, all of a block is
    /// here.
    fn fill_blocks(&self, blocks: &Blocks) -> Result<()> {
        const AT_ONCE: u64 = 1 << 20;
        let zeroes = vec![0; 1 << 20];
        let mut rest = GuestRange::whole(self.size());
        while !rest.is_empty() {
            let len = match self.look_now(blocks, rest)? {
                Look::Unset { at, len } => {
                    let len = len.min(AT_ONCE);
                    let count = usize::try_from(len).unwrap_or_default();
                    blocks.store.write_at(at, zeroes.get(..count).unwrap_or_default())?;
                    len
                }
                Look::Here { len, .. } | Look::NoBlock { len } => len,
                Look::Need(_) => 0,
            };
            rest = rest.skip(len);
        }
        // Readers that ask the bits of a dynamic disk, too, find all of them set.
        for block in 0..blocks.shape().size.div_ceil(blocks.shape().block) {
            blocks.set_bits_on_medium(block)?;
        }
        Ok(blocks.store.flush()?)
    }

    /// Names the parent in a header before the table, if there is room for it, else behind the blocks.
    /// There qemu would write over it, but qemu spoils a child in any case: it knows no parents.
    fn name_parent(&self, blocks: &Blocks, writer: &Writer, parent: &Parent) -> Result<()> {
        let place = writer.lock_place().clone();
        let fits = place.holds(HEADER_LEN as u64 + parent.room());
        if !fits || !place.is_home_free() {
            self.name_behind_blocks(blocks, writer, parent)?;
        }
        if fits {
            self.move_header(blocks, writer, HostOffset(place.home.0), Some(parent))?;
        }
        writer.shorten(&*blocks.store)
    }

    fn name_behind_blocks(&self, blocks: &Blocks, writer: &Writer, parent: &Parent) -> Result<()> {
        let len = (HEADER_LEN as u64 + parent.room()).next_multiple_of(writer.align);
        let taken = writer.space.take(WantedRun { len, most: 1, align: writer.align });
        // Where it fails the space stays taken: a footer may name it.
        self.move_header(blocks, writer, taken.at, Some(parent))
    }

    /// Makes a dynamic disk of a child. The header that is before the table stays as it is: what it
    /// says of a parent counts no more.
    fn name_none(&self, blocks: &Blocks, writer: &Writer) -> Result<()> {
        let place = writer.lock_place().clone();
        if place.is_header_safe {
            writer
                .switch_footer(&*blocks.store, |footer| footer.disk_type = kind::DYNAMIC.into())?;
            writer.leave(Place { away: Vec::new(), ..place });
        } else {
            self.move_header(blocks, writer, HostOffset(place.home.0), None)?;
        }
        writer.shorten(&*blocks.store)
    }

    /// Writes a header to space that is free, then the footer that names it; and gives back what the
    /// old one had behind the table.
    fn move_header(
        &self,
        blocks: &Blocks,
        writer: &Writer,
        at: HostOffset,
        parent: Option<&Parent>,
    ) -> Result<()> {
        let Some(mut raw) = self.header else { return Ok(()) };
        writer.secure_copy(&*blocks.store)?;
        let text = at.saturating_add(HEADER_LEN as u64);
        raw.parent_unique_id = [0; 16];
        raw.parent_unicode_name = [0; 512];
        raw.parent_locators = FromZeros::new_zeroed();
        if let Some(parent) = parent {
            parent.put(&mut raw, text.get());
        }
        raw.checksum = checksum(raw.as_bytes(), offset_of!(RawHeader, checksum)).into();
        write_header(&*blocks.store, at, &raw, parent)?;
        writer.switch_footer(&*blocks.store, |footer| {
            footer.data_offset = at.get().into();
            if parent.is_none() {
                footer.disk_type = kind::DYNAMIC.into();
            }
        })?;
        let home = writer.lock_place().home;
        let room = parent.map_or(0, Parent::room);
        let piece = (at.get(), (text.get() + room).next_multiple_of(writer.align));
        let is_home = at.get() == home.0;
        let away = if is_home { Vec::new() } else { vec![piece] };
        writer.leave(Place { home, is_header_safe: is_home, at_home: is_home, away });
        Ok(())
    }
}

/// Where header and locators are: before the table, or where blocks are, and qemu would write over
/// them.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// What a header and its locator may take before the table.
    home: Piece,
    /// The header is before the table.
    is_header_safe: bool,
    /// Some of them are there.
    at_home: bool,
    /// Those behind the table.
    away: Vec<Piece>,
}

impl Place {
    pub(crate) fn of(parts: &Parts, home: Piece, shape: &Shape) -> Self {
        let header = parts.footer.header_at().get();
        let mut pieces = vec![(header, header + HEADER_LEN as u64)];
        pieces.extend(parts.locators.iter().map(|locator| {
            (locator.place.get(), locator.place.get().saturating_add(locator.length))
        }));
        pieces.retain(|piece| piece.0 < piece.1);
        let table = shape.table.get();
        let at_home = pieces.iter().any(|piece| piece.0 < home.1 && home.0 < piece.1);
        pieces.retain(|piece| piece.0 >= table);
        Self { home, is_header_safe: header < table, at_home, away: pieces }
    }

    fn is_home_free(&self) -> bool {
        !self.at_home
    }

    fn holds(&self, len: u64) -> bool {
        self.home.1.saturating_sub(self.home.0) >= len
    }

    /// Whether the image can be one without a parent: its header must not lie where blocks are.
    fn can_lose_parent(&self) -> bool {
        self.is_header_safe || self.is_home_free() && self.holds(HEADER_LEN as u64)
    }
}

impl Writer {
    fn lock_place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Header and locators are elsewhere now: durable.
    fn leave(&self, now: Place) {
        let before = std::mem::replace(&mut *self.lock_place(), now);
        for (at, end) in before.away {
            self.space.give_back(HostOffset(at), end - at);
        }
    }
}

/// Writes a header, and the text of its locator behind it; durable.
fn write_header(
    store: &dyn Storage,
    at: HostOffset,
    raw: &RawHeader,
    parent: Option<&Parent>,
) -> Result<()> {
    store.write_at(at, raw.as_bytes())?;
    if let Some(parent) = parent {
        store.write_at(at.saturating_add(HEADER_LEN as u64), &parent.text)?;
    }
    Ok(store.flush()?)
}
