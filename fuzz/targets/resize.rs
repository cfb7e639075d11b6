//! New images of all formats that can be resized, made longer and shorter among other operations,
//! against a vector of bytes.
#![no_main]

use anydisk_core::{Format, Options};
use anydisk_fuzz::story::{Step, Subject};
use anydisk_qcow2::QCOW2;
use anydisk_raw::RAW;
use anydisk_testkit::vmdk::ByHand;
use anydisk_vdi::VDI;
use anydisk_vhd::VHD;
use anydisk_vhdx::VHDX;
use anydisk_vmdk::VMDK;
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

/// Sectors of a disk at most: 2 MiB, in which all of the images below have many units.
const MOST: u64 = 4 << 10;

#[derive(Arbitrary, Debug)]
struct Story {
    kind: Kind,
    sectors: u16,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    Raw,
    Qcow2,
    Qcow2Version2,
    Qcow2Subclusters,
    Vmdk,
    VmdkZeroedGrains,
    VmdkSmallTables,
    VmdkSplit,
    VmdkSplitFlat,
    VmdkFlat,
    VmdkRedoLog,
    Vdi,
    VdiFixed,
    Vhd,
    VhdFixed,
    Vhdx,
    VhdxFixed,
}

impl Kind {
    fn options(self) -> (&'static dyn Format, &'static [(&'static str, &'static str)]) {
        match self {
            Self::Raw => (&RAW, &[]),
            Self::Qcow2 => (&QCOW2, &[("cluster_size", "512")]),
            Self::Qcow2Version2 => (&QCOW2, &[("cluster_size", "4k"), ("compat", "v2")]),
            Self::Qcow2Subclusters => (&QCOW2, &[("cluster_size", "16k"), ("extended_l2", "on")]),
            Self::Vmdk | Self::VmdkSmallTables => (&VMDK, &[]),
            Self::VmdkZeroedGrains => (&VMDK, &[("zeroed_grain", "on")]),
            Self::VmdkSplit => {
                (&VMDK, &[("subformat", "twoGbMaxExtentSparse"), ("split_size", "512k")])
            }
            Self::VmdkSplitFlat => {
                (&VMDK, &[("subformat", "twoGbMaxExtentFlat"), ("split_size", "512k")])
            }
            Self::VmdkFlat => (&VMDK, &[("subformat", "monolithicFlat")]),
            Self::VmdkRedoLog => (&VMDK, &[("subformat", "vmfsSparse")]),
            Self::Vdi => (&VDI, &[("block_size", "128k")]),
            Self::Vhd => (&VHD, &[("block_size", "16k"), ("force_size", "on")]),
            Self::VhdFixed => (&VHD, &[("subformat", "fixed"), ("force_size", "on")]),
            Self::Vhdx => (&VHDX, &[("block_size", "1M")]),
            Self::VhdxFixed => (&VHDX, &[("block_size", "1M"), ("subformat", "fixed")]),
            Self::VdiFixed => (&VDI, &[("block_size", "128k"), ("static", "on")]),
        }
    }

    fn create(self, sectors: u64) -> Subject {
        let (format, given) = self.options();
        if let Self::VmdkSmallTables = self {
            // Tables of four grains: many of them in a small disk.
            let sectors = sectors % 1000 + 1;
            let image = ByHand { sectors, grain: 2, zeroed_grain: false, parent: None };
            return Subject::of(format, image.bytes_with_tables_of(4), sectors * 512, MOST);
        }
        let mut options = Options::of(format);
        for (name, value) in given {
            options.set(name, value).expect("an option of the format");
        }
        Subject::create(format, &options, (sectors % MOST + 1) * 512, MOST)
    }
}

fuzz_target!(|story: Story| story.kind.create(story.sectors.into()).play(&story.steps));
