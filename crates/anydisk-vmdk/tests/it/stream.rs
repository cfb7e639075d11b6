//! Streams: written in one pass, read by this crate and by qemu.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anydisk_core::{
    Access, BearingLoss, CheckRequest, Codec, Disk, Error, Format, GuestOffset, GuestRange, Limits,
    Location, MeasureRequest, NoReferences, NoSecrets, OpenRequest, Options, Piece, Repair, Result,
    Sink, SinkRequest, Source, Storage,
};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::oracle::Qemu;
use anydisk_vmdk::VMDK;

const GRAIN: u64 = 65536;

/// A pipe into memory.
#[derive(Clone, Debug, Default)]
struct Pipe(Arc<Mutex<Vec<u8>>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Pipe {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("no panic").clone()
    }
}

fn options() -> Options {
    let mut options = Options::of(&VMDK);
    options.set("subformat", "streamOptimized").expect("an option");
    // The same request gives the same stream.
    options.set("cid", "0badcafe").expect("an option");
    options
}

fn sink(size: u64, out: &Pipe) -> Box<dyn Sink> {
    let location = Location::Path("out.vmdk".into());
    let options = options();
    let request = SinkRequest { size, options: &options, location: &location };
    let sink = VMDK.sink(&request, Box::new(out.clone())).expect("a sink");
    sink.expect("streams are written in one pass")
}

/// A disk of 70 MiB and a bit: three tables, the second without data, and a short last grain.
fn sample() -> Vec<u8> {
    let mut disk = vec![0; (70 << 20) + 5 * 512];
    let len = disk.len();
    let mut random = Random::new(1);
    random.fill(&mut disk[..200_000]);
    disk[1 << 20..(1 << 20) + 500_000].fill(0xAB);
    disk[(64 << 20) + 100..(64 << 20) + 200].fill(1);
    random.fill(&mut disk[len - 600..]);
    disk
}

/// Hands a disk over, grain by grain or in one piece, as data.
fn write(disk: &[u8], piece: usize) -> Vec<u8> {
    let pipe = Pipe::default();
    let mut sink = sink(disk.len() as u64, &pipe);
    for (number, data) in disk.chunks(piece).enumerate() {
        let at = GuestOffset((number * piece) as u64);
        sink.put(at, Piece::Data(data)).expect("a piece");
    }
    sink.finish().expect("an end");
    pipe.bytes()
}

fn open(bytes: Vec<u8>) -> Result<Disk> {
    let request = OpenRequest {
        store: Arc::new(MemoryStorage::new(bytes)),
        location: &Location::Other("stream".to_owned()),
        access: Access::Read,
        resolver: &NoReferences,
        limits: &Limits::default(),
        secrets: &NoSecrets,
    };
    Ok(Disk::new(VMDK.open(request)?.image))
}

fn contents(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset::ZERO, &mut bytes).expect("a read");
    bytes
}

#[test]
fn a_stream_holds_the_disk_and_no_zeroes() {
    let disk = sample();
    let stream = write(&disk, 1 << 20);
    let opened = open(stream).expect("it opens");
    assert!(contents(&opened) == disk);
    let info = opened.top().info();
    assert!(info.compressed && !info.dirty);
    // The second table covers 32 MiB to 64 MiB: nothing was written for it.
    let second = GuestRange::new(GuestOffset(32 << 20), 32 << 20).expect("small");
    let found = opened.map(second).expect("it can be mapped").extent;
    assert!(matches!(found.source, Source::Absent { .. }) && found.len == 32 << 20);
}

#[test]
fn the_stream_is_the_same_however_its_pieces_come() {
    let disk = sample();
    let whole = write(&disk, 4 << 20);
    assert!(write(&disk, 65536) == whole);
    // Packed by others, with the sink's own encoder, zeroes left out or told.
    let pipe = Pipe::default();
    let mut sink = sink(disk.len() as u64, &pipe);
    let packing = sink.packing().expect("grains are packed");
    assert!(packing.unit == GRAIN && !packing.short_tail);
    for (number, data) in disk.chunks(65536).enumerate() {
        let at = GuestOffset(number as u64 * GRAIN);
        if data.iter().all(|byte| *byte == 0) {
            sink.put(at, Piece::Zero(data.len() as u64)).expect("a piece");
            continue;
        }
        let mut grain = data.to_vec();
        grain.resize(65536, 0);
        let mut bytes = Vec::new();
        assert!(packing.encoder.encode(&grain, usize::MAX, &mut bytes).expect("it packs"));
        let unit = GuestRange::new(at, data.len() as u64).expect("small");
        sink.put(at, Piece::Encoded { bytes: &bytes, codec: Codec::Zlib, unit }).expect("a piece");
    }
    sink.finish().expect("an end");
    assert!(pipe.bytes() == whole);
}

#[test]
fn qemu_accepts_the_stream() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let check = |disk: &[u8]| {
        std::fs::write(at("disk.raw"), disk).expect("room");
        std::fs::write(at("disk.vmdk"), write(disk, 65536)).expect("room");
        qemu.assert_undamaged(&at("disk.vmdk"), "vmdk");
        qemu.assert_same((&at("disk.vmdk"), "vmdk"), (&at("disk.raw"), "raw"));
        qemu.convert((&at("disk.vmdk"), "vmdk"), (&at("back.raw"), "raw"), &[]);
        same_files(&at("back.raw"), &at("disk.raw"));
    };
    check(&sample());
    check(&[0; 512]);
    check(&[7; 512]);
    let mut noise = vec![0; 3 * 65536 - 512];
    Random::new(2).fill(&mut noise);
    check(&noise);
}

fn same_files(a: &Path, b: &Path) {
    assert!(std::fs::read(a).expect("a file") == std::fs::read(b).expect("a file"));
}

/// The whole file of one grain, field by field as the specification has it.
#[test]
fn each_block_of_the_stream_stands_behind_its_marker() {
    let stream = write(&[7; 65536], 65536);
    let number = |at: usize, len: usize| {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&stream[at..at + len]);
        u64::from_le_bytes(bytes)
    };
    assert_eq!((number(4, 4), number(8, 4)), (3, 0x3_0001));
    assert_eq!(number(56, 8), u64::MAX);
    let grain = 128 * 512;
    assert_eq!(number(grain, 8), 0);
    let size = usize::try_from(number(grain + 8, 4)).expect("small");
    assert_eq!(stream[grain + 12], 0x78);
    let table = grain + (12 + size).next_multiple_of(512);
    assert_eq!((number(table, 8), number(table + 8, 4), number(table + 12, 4)), (4, 0, 1));
    assert_eq!(number(table + 512, 4), 128);
    let directory = table + 5 * 512;
    assert_eq!((number(directory, 8), number(directory + 8, 4)), (1, 0));
    assert_eq!(number(directory + 12, 4), 2);
    assert_eq!(number(directory + 512, 4) * 512, table as u64 + 512);
    let footer = directory + 2 * 512;
    assert_eq!((number(footer, 8), number(footer + 12, 4)), (1, 3));
    assert_eq!(&stream[footer + 512..footer + 516], b"KDMV");
    assert_eq!(number(footer + 512 + 56, 8) * 512, directory as u64 + 512);
    assert_eq!(stream.len(), footer + 3 * 512);
    assert!(stream[footer + 1024..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_sink_refuses_what_it_cannot_write() {
    let pipe = Pipe::default();
    let mut sink = sink(GRAIN * 2 + 512, &pipe);
    let mut refusal = |at: u64, piece: Piece<'_>| sink.put(GuestOffset(at), piece).err();
    let text = |error: Option<Error>| error.expect("refused").to_string();
    let grain = vec![1; 65536];
    assert!(refusal(GRAIN, Piece::Data(&grain)).is_none());
    let again = text(refusal(0, Piece::Data(&grain)));
    assert_eq!(again, "vmdk: a piece at 0x0 behind one up to 0x20000 is not supported");
    let part = text(refusal(2 * GRAIN, Piece::Data(&grain[..100])));
    assert!(part.contains("not of whole grains"), "{part}");
    let past = refusal(2 * GRAIN, Piece::Zero(513)).expect("refused");
    assert!(matches!(past, Error::OutOfRange { .. }), "{past}");
    let unit = GuestRange::new(GuestOffset(2 * GRAIN), 512).expect("small");
    let zstd = Piece::Encoded { bytes: &[1], codec: Codec::Zstd, unit };
    let codec = text(refusal(2 * GRAIN, zstd));
    assert_eq!(codec, "vmdk: grains packed as zstd is not supported");
}

/// A pipe that is closed.
#[derive(Debug)]
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_pipe_that_closes_is_told_as_such() {
    let location = Location::Path("out.vmdk".into());
    let options = options();
    let request = SinkRequest { size: 512, options: &options, location: &location };
    let error = VMDK.sink(&request, Box::new(Closed)).expect_err("it is closed");
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::BrokenPipe), "{error}");
}

#[test]
fn a_stream_is_never_larger_than_measured() {
    let mut random = Random::new(4);
    let words = std::iter::repeat_with(|| random.next().to_le_bytes());
    let noise: Vec<u8> = words.take((40 * 65536 - 512) / 8).flatten().collect();
    let options = options();
    let data = [GuestRange::whole(noise.len() as u64)];
    let request = MeasureRequest { size: noise.len() as u64, options: &options, data: &data };
    let measure = VMDK.measure(&request).expect("a measure");
    let stream = write(&noise, 65536).len() as u64;
    assert!(stream <= measure.required, "{stream} of {}", measure.required);
    assert_eq!(measure.required, measure.fully_allocated);
    assert!(measure.required - stream < 40 * 1024);
}

#[test]
fn a_stream_is_not_opened_for_writing() {
    let request = OpenRequest {
        store: Arc::new(MemoryStorage::new(write(&[1; 512], 512))),
        location: &Location::Other("stream".to_owned()),
        access: Access::ReadWrite,
        resolver: &NoReferences,
        limits: &Limits::default(),
        secrets: &NoSecrets,
    };
    let error = VMDK.open(request).expect_err("it is a stream");
    assert_eq!(
        error.to_string(),
        "the image cannot be written: compressed grains are written in one pass only"
    );
}

/// Checks a stream: the kinds of what was found, and whether it is as it should be now.
fn check(store: Arc<dyn Storage>, repair: Repair) -> (Vec<&'static str>, bool) {
    let (location, limits) = (Location::Other("stream".to_owned()), Limits::default());
    let open = OpenRequest::new(store, &location, &limits);
    let open = OpenRequest { access: Access::ReadWrite, ..open };
    let mut kinds = Vec::new();
    let request = CheckRequest::new(open).repairing(repair);
    let report = VMDK.check(&request, &mut |finding| kinds.push(finding.kind));
    (kinds, report.expect("it can be checked").is_clean())
}

/// Who puts it into an archive, or on a tape, fills it up.
#[test]
fn zeroes_behind_a_stream_do_not_matter() {
    let disk = sample();
    let stream = write(&disk, 1 << 20);
    for padding in [1, 511, 512, 10 << 10, 60 << 10] {
        let mut padded = stream.clone();
        padded.resize(stream.len() + padding, 0);
        assert!(contents(&open(padded.clone()).expect("it opens")) == disk, "{padding}");
        let store = Arc::new(MemoryStorage::new(padded.clone()));
        assert_eq!(check(store, Repair::Nothing), (vec![], true), "{padding}");
        *padded.last_mut().expect("a byte") = 1;
        assert!(open(padded).is_err(), "{padding}");
    }
}

/// The footer has a copy of what the header says.
#[test]
fn a_wrong_bit_in_the_header_of_a_stream_is_mended_by_its_footer() {
    let disk = sample();
    let stream = write(&disk, 1 << 20);
    for (place, bit) in [(0x14, 2), (0x14, 7), (0x15, 3), (0x2c, 0), (0x2d, 1), (0x2f, 7)] {
        let mut wrong = stream.clone();
        wrong[place] ^= 1 << bit;
        let store = Arc::new(MemoryStorage::new(wrong));
        assert_eq!(check(store.clone(), Repair::Nothing), (vec!["header-field"], false));
        assert_eq!(check(store.clone(), Repair::All), (vec!["header-field"], true));
        assert!(store.to_vec() == stream, "{place:#x}, bit {bit}");
    }
}

/// Who salvages reads what a repair would make, and writes nothing.
#[test]
fn a_stream_without_its_end_is_salvaged_as_it_is() {
    let disk = sample();
    let stream = write(&disk, 1 << 20);
    for (len, is_whole) in [(stream.len() - 512, true), (150_001, false)] {
        let cut = stream[..len].to_vec();
        let (location, limits) = (Location::Other("stream".to_owned()), Limits::default());
        let store = Arc::new(MemoryStorage::new(cut.clone()));
        let request = OpenRequest::new(store.clone(), &location, &limits);
        let resolver = BearingLoss(&NoReferences);
        let opened = VMDK.open(OpenRequest { resolver: &resolver, ..request }).expect("it opens");
        assert!(opened.warnings[0].contains("footer"), "{:?}", opened.warnings);
        // What was cut off is lost, and not zero.
        let mended = Disk::new(opened.image);
        let mut lost = 0;
        for (number, grain) in disk.chunks(65536).enumerate() {
            let mut found = vec![0; grain.len()];
            match mended.read(GuestOffset(number as u64 * 65536), &mut found) {
                Ok(()) => assert!(found == grain, "grain {number}"),
                Err(_) => lost += 1,
            }
        }
        // Nobody knows which of those that would follow were zero.
        assert_eq!(lost, if is_whole { 0 } else { disk.len().div_ceil(65536) - 1 });
        assert!(store.to_vec() == cut);
    }
}

/// A download that broke off: the grains are there, nothing says where.
#[test]
fn a_stream_without_its_end_is_mended_from_the_markers_of_its_grains() {
    let disk = sample();
    let stream = write(&disk, 1 << 20);
    // In the end of the stream, in its last table, and in the second grain.
    for (len, most) in [(stream.len() - 512, 0), (stream.len() - 4000, 0), (150_001, 13)] {
        let cut = stream[..len].to_vec();
        assert!(open(cut.clone()).is_err());
        let store = Arc::new(MemoryStorage::new(cut.clone()));
        assert_eq!(check(store.clone(), Repair::Nothing), (vec!["footer-lost"], false));
        assert!(store.to_vec() == cut);
        check(store.clone(), Repair::All);
        assert_eq!(check(store.clone(), Repair::Nothing), (vec![], true), "{len} bytes");
        let mended = contents(&open(store.to_vec()).expect("it opens"));
        let mut lost = 0;
        for (number, grain) in disk.chunks(65536).enumerate() {
            let found = &mended[number * 65536..][..grain.len()];
            let is_there = found == grain;
            assert!(is_there || found.iter().all(|byte| *byte == 0), "grain {number}");
            lost += usize::from(!is_there);
        }
        // What is lost lay behind the cut, in the order of the grains.
        assert!(lost <= most, "{lost} grains lost of {len} bytes");
        if let Some(qemu) = Qemu::find() {
            let folder = tempfile::tempdir().expect("a folder");
            let (image, raw) = (folder.path().join("a.vmdk"), folder.path().join("a.raw"));
            std::fs::write(&image, store.to_vec()).expect("room for an image");
            std::fs::write(&raw, &mended).expect("room for a raw image");
            qemu.assert_same((&image, "vmdk"), (&raw, "raw"));
        }
    }
}

/// What follows it may be whole, and is not written over.
#[test]
fn what_a_damaged_block_hides_stays_in_the_file() {
    let disk = sample();
    let mut stream = write(&disk, 1 << 20);
    stream.truncate(stream.len() - 512);
    let first = usize::from(u16::from_le_bytes([stream[64], stream[65]])) * 512;
    let len = u32::from_le_bytes(stream[first + 8..first + 12].try_into().expect("four bytes"));
    let second = (first + 12 + usize::try_from(len).expect("small")).next_multiple_of(512);
    stream[second..second + 512].fill(0);
    let store = Arc::new(MemoryStorage::new(stream.clone()));
    check(store.clone(), Repair::All);
    assert!(store.to_vec().starts_with(&stream));
    let mended = contents(&open(store.to_vec()).expect("it opens"));
    assert!(mended[..65536] == disk[..65536]);
}

#[test]
fn power_may_fail_while_a_stream_gets_its_end_back() {
    let disk = sample();
    let stream = write(&disk, 1 << 20);
    let crash = CrashStorage::over(stream[..stream.len() - 4000].to_vec());
    check(Arc::new(crash.clone()), Repair::All);
    for state in crash.torn_states(16, 1) {
        let store = state.storage();
        check(store.clone(), Repair::All);
        let found =
            contents(&open(store.to_vec()).unwrap_or_else(|error| panic!("{error}\n{state}")));
        assert!(found == disk, "{state}");
    }
}

/// Who puts it on a tape fills it up.
#[test]
fn zeroes_of_64_kib_may_follow_a_stream_and_no_more() {
    let disk = sample();
    let stream = write(&disk, 1 << 20);
    for (len, is_read) in [(512, true), (65024, true), (65536, true), (66048, false)] {
        let mut bytes = stream.clone();
        bytes.resize(bytes.len() + len, 0);
        assert_eq!(open(bytes).is_ok_and(|opened| contents(&opened) == disk), is_read, "{len}");
    }
}
