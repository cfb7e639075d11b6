//! The descriptor of an image that is written: changed in memory and in its file.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anydisk_core::{HostOffset, Result};

use crate::descriptor::Descriptor;
use crate::extent::File;
use crate::header::limit;
use crate::layout::{SECTOR, SparseHeader};

/// The text and the room it has.
#[derive(Debug)]
pub(crate) struct DescriptorFile {
    descriptor: Mutex<Descriptor>,
    /// Bytes there are for the text where it is embedded.
    room: Option<u64>,
}

impl DescriptorFile {
    pub(crate) fn new(descriptor: Descriptor, room: Option<u64>) -> Self {
        Self { descriptor: Mutex::new(descriptor), room }
    }

    /// What `look` makes of the descriptor.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&Descriptor) -> R) -> R {
        look(&self.lock())
    }

    /// Changes the descriptor and writes what differs. Not flushed.
    ///
    /// # Errors
    /// Those of `how`, of the store, and `Limit` for a text that has no room; then nothing is
    /// changed in memory.
    pub(crate) fn change(
        &self,
        file: &File,
        how: impl FnOnce(&mut Descriptor) -> Result<()>,
    ) -> Result<()> {
        let mut descriptor = self.lock();
        let mut changed = descriptor.clone();
        how(&mut changed)?;
        self.write(&descriptor, &changed, file)?;
        *descriptor = changed;
        Ok(())
    }

    fn write(&self, old: &Descriptor, new: &Descriptor, file: &File) -> Result<()> {
        let (old_text, mut text) = (old.to_bytes(), new.to_bytes());
        if let Some(room) = self.room {
            limit("size of the changed descriptor in bytes", text.len() as u64, room)?;
        }
        // The file does not get shorter: a crash could leave the old length. Blank lines mean
        // nothing, and neither do zeroes behind an embedded text.
        let padding = if self.room.is_some() { 0 } else { b'\n' };
        text.resize(text.len().max(old_text.len()), padding);
        let Some(change) = Change::between(&old_text, &text, new.at()) else { return Ok(()) };
        file.used.store(true, Relaxed);
        match self.spare(&old_text, &text, new.at()) {
            Some(spare) if !change.is_in_one_sector() => {
                self.write_beside(&old_text, &change, new.at(), spare, file)
            }
            _ => Ok(file.store.write_at(change.at, &change.bytes)?),
        }
    }

    /// As [`change`](Self::change), of a text that lies in the extent that it describes, together
    /// with the capacity in the header: both at once, if there is room for a second text. Else the
    /// header promises more than the text for a moment, never less. Durable.
    ///
    /// `grain`: bytes of a grain of the extent.
    ///
    /// # Errors
    /// As [`change`](Self::change).
    pub(crate) fn change_with_capacity(
        &self,
        file: &File,
        grain: u64,
        (capacity, grows): (u64, bool),
        how: impl FnOnce(&mut Descriptor) -> Result<()>,
    ) -> Result<()> {
        let mut descriptor = self.lock();
        let mut changed = descriptor.clone();
        how(&mut changed)?;
        let (old, new) = (descriptor.to_bytes(), changed.to_bytes());
        let room = self.room.unwrap_or(0);
        limit("size of the changed descriptor in bytes", new.len() as u64, room)?;
        file.used.store(true, Relaxed);
        let head = |at, room| [capacity, grain, HostOffset::get(at), room].map(|len| len / SECTOR);
        let at = changed.at();
        if let Some(spare) = self.spare(&old, &new, at) {
            let half = spare.checked_since(at).unwrap_or(0);
            write_padded(file, spare, &new, room - half)?;
            name_capacity(file, head(spare, room - half))?;
            write_padded(file, at, &new, half)?;
            name_text(file, at, room)?;
            file.store.flush()?;
            write_padded(file, spare, &[], room - half)?;
        } else {
            if grows {
                name_capacity(file, head(at, room))?;
            }
            self.write(&descriptor, &changed, file)?;
            file.store.flush()?;
            if !grows {
                name_capacity(file, head(at, room))?;
            }
        }
        *descriptor = changed;
        Ok(())
    }

    /// Room for a second copy of the text: the second half of an embedded one's. A text that is read
    /// with the copy behind it ends before that, in a whole line and a NUL.
    fn spare(&self, old: &[u8], new: &[u8], at: HostOffset) -> Option<HostOffset> {
        let half = self.room? / SECTOR / 2 * SECTOR;
        let ends = |text: &[u8]| (text.len() as u64) < half && text.ends_with(b"\n");
        (ends(old) && ends(new)).then(|| at.saturating_add(half))
    }

    /// Changes a text of several sectors, of which a crash may keep any: the header names a copy
    /// of the old one meanwhile.
    fn write_beside(
        &self,
        old: &[u8],
        change: &Change,
        at: HostOffset,
        spare: HostOffset,
        file: &File,
    ) -> Result<()> {
        let store = &file.store;
        let half = spare.checked_since(at).unwrap_or(0);
        let room = self.room.unwrap_or(0);
        let mut copy = old.to_vec();
        copy.resize(usize::try_from(room - half).expect("the limit of a descriptor"), 0);
        store.write_at(spare, &copy)?;
        store.flush()?;
        name_text(file, spare, room - half)?;
        store.flush()?;
        store.write_at(change.at, &change.bytes)?;
        store.flush()?;
        name_text(file, at, room)?;
        store.flush()?;
        copy.fill(0);
        Ok(store.write_at(spare, &copy)?)
    }

    fn lock(&self) -> MutexGuard<'_, Descriptor> {
        self.descriptor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes capacity, grain size, place and room of the text to the header, in sectors: four fields side
/// by side, in one sector of the file. Durable.
fn name_capacity(file: &File, sectors: [u64; 4]) -> Result<()> {
    let field = HostOffset(std::mem::offset_of!(SparseHeader, capacity) as u64);
    file.store.write_at(field, sectors.map(u64::to_le_bytes).as_flattened())?;
    Ok(file.store.flush()?)
}

/// Writes a text and zeroes behind it, `len` bytes together; durable.
fn write_padded(file: &File, at: HostOffset, text: &[u8], len: u64) -> Result<()> {
    let mut bytes = text.to_vec();
    bytes.resize(usize::try_from(len).expect("the limit of a descriptor"), 0);
    file.store.write_at(at, &bytes)?;
    Ok(file.store.flush()?)
}

/// Writes to the header where the text is: two fields side by side, in one sector.
fn name_text(file: &File, at: HostOffset, room: u64) -> Result<()> {
    let field = HostOffset(std::mem::offset_of!(SparseHeader, descriptorOffset) as u64);
    let sectors = [at.get() / SECTOR, room / SECTOR].map(u64::to_le_bytes);
    Ok(file.store.write_at(field, sectors.as_flattened())?)
}

/// The bytes that differ, from the first to the last.
struct Change {
    at: HostOffset,
    bytes: Vec<u8>,
}

impl Change {
    /// What must be written to make `old`, which begins at `at`, `new`, which is no shorter.
    fn between(old: &[u8], new: &[u8], at: HostOffset) -> Option<Self> {
        let first = old.iter().zip(new).take_while(|(a, b)| a == b).count();
        if first == new.len() {
            return None;
        }
        let mut end = new.len();
        if old.len() == new.len() {
            let same = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b);
            end -= same.count();
        }
        let bytes = new[first..end.max(first)].to_vec();
        Some(Self { at: at.saturating_add(first as u64), bytes })
    }

    fn is_in_one_sector(&self) -> bool {
        let last = self.at.saturating_add(self.bytes.len().saturating_sub(1) as u64);
        self.at.get() / SECTOR == last.get() / SECTOR
    }
}
