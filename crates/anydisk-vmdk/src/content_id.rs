//! The content ID (CID): another number as soon as the content may be another.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anydisk_core::Result;

use crate::descriptor::Descriptor;
use crate::extent::File;
use crate::header::limit;

/// The descriptor of an image that is written, and whether its content ID is still to be replaced.
#[derive(Debug)]
pub(crate) struct ContentId {
    /// The number is that of this session's content.
    is_renewed: AtomicBool,
    descriptor: Mutex<Descriptor>,
    /// Bytes there are for the descriptor where it is embedded.
    room: Option<u64>,
}

impl ContentId {
    /// `is_new`: the image was just made, so nothing can have been made for its content yet.
    pub(crate) fn new(descriptor: Descriptor, room: Option<u64>, is_new: bool) -> Self {
        Self { is_renewed: AtomicBool::new(is_new), descriptor: Mutex::new(descriptor), room }
    }

    /// The number now.
    pub(crate) fn now(&self) -> Option<u32> {
        self.lock().content_id
    }

    /// Replaces the number by a random one, the first time. Every overlay that was made for the
    /// old content is thereby told apart.
    ///
    /// # Errors
    /// Those of the store; then it is tried again the next time.
    pub(crate) fn renew(&self, file: &File) -> Result<()> {
        if self.is_renewed.load(Acquire) {
            return Ok(());
        }
        let mut descriptor = self.lock();
        if self.is_renewed.load(Relaxed) {
            return Ok(());
        }
        let mut changed = descriptor.clone();
        if changed.set_content_id(random(), [random(), random(), random()]) {
            self.write(&descriptor, &changed, file)?;
        }
        *descriptor = changed;
        self.is_renewed.store(true, Release);
        Ok(())
    }

    /// Writes what differs.
    fn write(&self, old: &Descriptor, new: &Descriptor, file: &File) -> Result<()> {
        let (old, mut bytes) = (old.to_bytes(), new.to_bytes());
        if let Some(room) = self.room {
            limit("size of the changed descriptor in bytes", bytes.len() as u64, room)?;
        }
        let first = old.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
        if old.len() == bytes.len() {
            let same_end = old.iter().rev().zip(bytes.iter().rev()).take_while(|(a, b)| a == b);
            bytes.truncate(bytes.len() - same_end.count().min(bytes.len() - first));
        }
        let at = new.at().saturating_add(first as u64);
        file.used.store(true, Relaxed);
        Ok(file.store.write_at(at, &bytes[first..])?)
    }

    fn lock(&self) -> MutexGuard<'_, Descriptor> {
        self.descriptor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number that nobody can foresee and that stands for a content: the standard library's seeds
/// for hash tables are random, and those of two calls differ.
fn random() -> u32 {
    let bits = RandomState::new().build_hasher().finish();
    // The two largest numbers have meanings of their own.
    u32::try_from(bits % 0xFFFF_FFFE).unwrap_or_default()
}

/// A number made of what an image is made of, for new images: the same request gives the same
/// file.
pub(crate) fn derived(parts: &[&[u8]]) -> u32 {
    // FNV-1a, which is the same on every machine.
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.iter().chain(&[0])) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
    }
    u32::try_from((hash ^ hash >> 32) % 0xFFFF_FFFE).unwrap_or_default()
}
