//! The content ID (CID): another number as soon as the content may be another.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};

use anydisk_core::Result;

use crate::descriptor_file::DescriptorFile;
use crate::extent::File;

/// Whether the content ID of an image that is written is still to be replaced.
#[derive(Debug)]
pub(crate) struct ContentId {
    /// The number is that of this session's content.
    is_renewed: AtomicBool,
}

impl ContentId {
    /// `is_new`: the image was just made, so nothing can have been made for its content yet.
    pub(crate) fn new(is_new: bool) -> Self {
        Self { is_renewed: AtomicBool::new(is_new) }
    }

    /// Replaces the number by a random one, the first time. Every overlay that was made for the
    /// old content is thereby told apart.
    ///
    /// # Errors
    /// Those of the store; then it is tried again the next time.
    pub(crate) fn renew(&self, text: &DescriptorFile, file: &File) -> Result<()> {
        if self.is_renewed.load(Acquire) {
            return Ok(());
        }
        text.change(file, |descriptor| {
            // Whoever came first has done it.
            if !self.is_renewed.load(Acquire) {
                descriptor.set_content_id(random(), [random(), random(), random()]);
            }
            Ok(())
        })?;
        self.is_renewed.store(true, Release);
        Ok(())
    }
}

/// A number that nobody can foresee and that stands for a content: the standard library's seeds
/// for hash tables are random, and those of two calls differ.
pub(crate) fn random() -> u32 {
    let bits = RandomState::new().build_hasher().finish();
    // The two largest numbers have meanings of their own.
    u32::try_from(bits % 0xFFFF_FFFE).unwrap_or_default()
}
