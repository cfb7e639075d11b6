//! The kinds of images.

use crate::common::Given;

/// A kind of image.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) given: Given<'static>,
    /// Bytes of a cluster.
    pub(super) cluster: u64,
    /// Over a layer of noise, shorter or longer than the disk.
    pub(super) overlay: bool,
}

const fn kind(name: &'static str, cluster: u64, given: Given<'static>) -> Kind {
    Kind { name, given, cluster, overlay: false }
}

const fn overlay(name: &'static str, cluster: u64, given: Given<'static>) -> Kind {
    Kind { name, given, cluster, overlay: true }
}

const LUKS: [(&str, &str); 3] =
    [("encrypt.format", "luks"), ("encrypt.iter-time", "0"), ("encrypt.cipher-alg", "aes-128")];

pub(super) const KINDS: &[Kind] = &[
    kind("64 KiB", 64 << 10, &[]),
    kind("512 bytes", 512, &[("cluster_size", "512")]),
    kind("subclusters", 16 << 10, &[("cluster_size", "16k"), ("extended_l2", "on")]),
    kind("version 2", 4096, &[("cluster_size", "4k"), ("compat", "0.10")]),
    kind("lazy refcounts", 1024, &[("cluster_size", "1k"), ("lazy_refcounts", "on")]),
    kind("refcounts of 1 bit", 4096, &[("cluster_size", "4k"), ("refcount_bits", "1")]),
    kind("LUKS", 4096, &[("cluster_size", "4k"), LUKS[0], LUKS[1], LUKS[2]]),
    kind("AES", 2048, &[("cluster_size", "2k"), ("encrypt.format", "aes")]),
    kind("data file", 4096, &[("cluster_size", "4k"), ("data_file", "data")]),
    kind(
        "raw data file",
        16 << 10,
        &[("cluster_size", "16k"), ("data_file", "data"), ("data_file_raw", "on")],
    ),
    kind(
        "encrypted data file",
        4096,
        &[("cluster_size", "4k"), ("data_file", "data"), LUKS[0], LUKS[1], LUKS[2]],
    ),
    overlay("overlay", 4096, &[("cluster_size", "4k"), BELOW[0], BELOW[1]]),
    overlay(
        "overlay, subclusters",
        16 << 10,
        &[("cluster_size", "16k"), ("extended_l2", "on"), BELOW[0], BELOW[1]],
    ),
    overlay(
        "overlay, version 2",
        1024,
        &[("cluster_size", "1k"), ("compat", "0.10"), BELOW[0], BELOW[1]],
    ),
];

const BELOW: [(&str, &str); 2] = [("backing_file", "below.raw"), ("backing_fmt", "raw")];

impl Kind {
    pub(super) fn has(&self, option: &str) -> bool {
        self.given.iter().any(|(name, _)| *name == option)
    }

    pub(super) fn is_version_2(&self) -> bool {
        self.has("compat")
    }

    pub(super) fn passphrase(&self) -> Option<&'static str> {
        self.has("encrypt.format").then_some("correct horse")
    }

    /// Whether snapshots can be made, if there is data to be shared.
    pub(super) fn shares(&self) -> bool {
        !self.has("data_file") && !self.has("refcount_bits")
    }

    pub(super) fn packs(&self) -> bool {
        !self.has("data_file") && !self.has("encrypt.format")
    }

    /// Bytes of the largest disk.
    pub(super) fn most(&self) -> u64 {
        (self.cluster * 40).clamp(100 << 10, 2 << 20)
    }
}
