//! Writing in one pass: what is handed in is read back, by qemu-img and dmg2img too.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use anydisk_core::{
    CheckRequest, Codec, Disk, Format, GuestOffset, GuestRange, Limits, Location, MeasureRequest,
    OpenRequest, Options, Piece, Result, Sink, SinkRequest,
};
use anydisk_dmg::DMG;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::oracle::{Qemu, is_installed};
use anydisk_testkit::{Random, contents};

/// Bytes that stay when their writer is gone.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Kept {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("nobody panics").clone()
    }
}

fn sink(size: u64, kept: &Kept) -> Result<Box<dyn Sink>> {
    let (options, location) = (Options::of(&DMG), Location::Other("new".into()));
    let request = SinkRequest { size, options: &options, location: &location };
    let sink = DMG.sink(&request, Box::new(kept.clone()))?;
    Ok(sink.expect("it is written in one pass"))
}

const UNIT: usize = 256 << 10;

/// A disk of text, noise and zeroes.
fn disk(len: usize) -> Vec<u8> {
    let mut random = Random::new(3);
    let mut disk = vec![0; len];
    for (number, unit) in disk.chunks_mut(UNIT).enumerate() {
        match number % 4 {
            0 => unit
                .iter_mut()
                .zip(0_usize..)
                .for_each(|(byte, n)| *byte = (n / 9).to_le_bytes()[0]),
            1 => unit.fill_with(|| u8::try_from(random.below(256)).expect("a byte")),
            _ => {}
        }
    }
    disk
}

/// The image of a disk: of each unit the data, or the packed data.
fn image(disk: &[u8], packs: bool) -> Vec<u8> {
    let kept = Kept::default();
    let mut sink = sink(disk.len() as u64, &kept).expect("a sink");
    let packing = sink.packing().expect("it packs");
    for (number, unit) in disk.chunks(UNIT).enumerate() {
        let at = GuestOffset((number * UNIT) as u64);
        let range = GuestRange::new(at, unit.len() as u64).expect("small");
        if number % 4 == 3 {
            continue; // Never handed in: zeroes.
        }
        if packs {
            let mut packed = Vec::new();
            assert!(packing.encoder.encode(unit, usize::MAX, &mut packed).expect("it packs"));
            let piece = Piece::Encoded { bytes: &packed, codec: Codec::Zlib, unit: range };
            sink.put(at, piece).expect("memory");
        } else {
            sink.put(at, Piece::Data(unit)).expect("memory");
        }
    }
    sink.finish().expect("memory");
    kept.bytes()
}

fn open(bytes: &[u8]) -> Disk {
    let (location, limits) = (Location::Other("new".into()), Limits::strict());
    let store = Arc::new(MemoryStorage::new(bytes.to_vec()));
    let request = OpenRequest::new(store, &location, &limits);
    let checked = DMG.check(&CheckRequest::new(request.clone()), &mut |found| panic!("{found:?}"));
    assert!(checked.expect("it is checked").is_clean());
    Disk::new(DMG.open(request).expect("it opens").image)
}

#[test]
fn what_is_handed_in_is_read_back_and_every_checksum_holds() {
    for len in [UNIT * 9 + 1536, UNIT * 4, 512, 0] {
        let disk = disk(len);
        let bytes = image(&disk, false);
        assert!(contents(&open(&bytes)) == disk, "{len}");
        assert!(bytes == image(&disk, true), "{len}: packed by others it is the same");
    }
}

#[test]
fn units_of_zeroes_are_no_data_and_those_that_do_not_shrink_are_stored() {
    let bytes = image(&disk(UNIT * 8), false);
    // Two units of text, two of noise.
    assert!((2 * UNIT..2 * UNIT + 20_000).contains(&bytes.len()), "{}", bytes.len());
}

#[test]
fn what_the_disk_begins_with_is_not_what_the_file_begins_with() {
    let mut random = Random::new(8);
    let mut disk = vec![0; UNIT];
    disk.fill_with(|| u8::try_from(random.below(256)).expect("a byte"));
    disk[..4].copy_from_slice(b"QFI\xfb");
    let bytes = image(&disk, false);
    assert!(!bytes.starts_with(b"QFI\xfb") && bytes.len() > UNIT);
    assert!(contents(&open(&bytes)) == disk);
}

#[test]
fn qemu_img_and_dmg2img_read_what_is_written() {
    let disk = disk(UNIT * 9 + 1536);
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("disk.raw"), &disk).expect("a file");
    std::fs::write(path("disk.dmg"), image(&disk, false)).expect("a file");
    if let Some(qemu) = Qemu::find() {
        qemu.assert_same((&path("disk.dmg"), "dmg"), (&path("disk.raw"), "raw"));
    }
    if is_installed("dmg2img") {
        let mut command = Command::new("dmg2img");
        command.arg("-s").args([path("disk.dmg"), path("theirs.raw")]).stdout(Stdio::null());
        assert!(command.status().expect("it starts").success());
        let theirs = std::fs::read(path("theirs.raw")).expect("it was written");
        assert!(theirs == disk);
    }
}

#[test]
fn damage_to_a_packed_piece_is_told_and_not_written() {
    let kept = Kept::default();
    let mut sink = sink(UNIT as u64, &kept).expect("a sink");
    let piece = Piece::Encoded {
        bytes: &[0x78, 0x9C, 1, 2, 3],
        codec: Codec::Zlib,
        unit: GuestRange::whole(UNIT as u64),
    };
    assert!(sink.put(GuestOffset(0), piece).is_err());
    assert!(kept.bytes().is_empty());
}

#[test]
fn larger_disks_have_larger_chunks_and_empty_ones_are_small() {
    let kept = Kept::default();
    let large = sink(1 << 40, &kept).expect("a sink");
    assert_eq!(large.unit(), 4 << 20);
    large.finish().expect("memory");
    assert!(kept.bytes().len() < 4096);
    assert_eq!(open(&kept.bytes()).size(), 1 << 40);
}

#[test]
fn a_disk_of_no_whole_sectors_is_filled_up() {
    let kept = Kept::default();
    let mut sink = sink(1000, &kept).expect("a sink");
    sink.put(GuestOffset(0), Piece::Data(&[7; 1000])).expect("memory");
    sink.finish().expect("memory");
    let read = contents(&open(&kept.bytes()));
    assert!(read[..1000] == [7; 1000] && read[1000..] == [0; 24]);
}

#[test]
fn no_image_is_larger_than_what_is_measured() {
    let range = |start, len| GuestRange::new(GuestOffset(start), len).expect("small");
    let cases: [(u64, &[GuestRange]); 4] = [
        (1 << 20, &[]),
        (1 << 20, &[range(0, 1 << 20)]),
        (1000, &[range(0, 1000)]),
        (5 << 20, &[range(70_000, 1), range(1 << 20, 512), range(4 << 20, 300_000)]),
    ];
    for (size, data) in cases {
        let mut disk = vec![0; usize::try_from(size).expect("small")];
        let mut random = Random::new(9);
        for range in data {
            let [start, end] =
                [range.start(), range.end()].map(|at| usize::try_from(at.get()).expect("small"));
            disk[start..end].fill_with(|| u8::try_from(random.below(255)).expect("a byte") + 1);
        }
        let kept = Kept::default();
        let mut sink = sink(size, &kept).expect("a sink");
        let unit = usize::try_from(sink.unit()).expect("small");
        for (number, piece) in disk.chunks(unit).enumerate() {
            if piece.iter().any(|byte| *byte != 0) {
                sink.put(GuestOffset((number * unit) as u64), Piece::Data(piece)).expect("memory");
            }
        }
        sink.finish().expect("memory");
        let options = Options::of(&DMG);
        let measured = DMG.measure(&MeasureRequest { size, options: &options, data });
        let measured = measured.expect("it is measured");
        let len = kept.bytes().len() as u64;
        assert!(len <= measured.required, "{size}: {len}, {measured:?}");
        assert!(measured.required <= measured.fully_allocated);
    }
}
