//! The compression codecs of disk image formats, with their limits.
