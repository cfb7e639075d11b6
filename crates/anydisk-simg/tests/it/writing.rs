//! Writing in one pass: what is handed in is read back, by simg2img too.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use anydisk_core::{
    Disk, Format, GuestOffset, GuestRange, Limits, Location, MeasureRequest, Options, Piece,
    Result, Sink, SinkRequest,
};
use anydisk_simg::{SIMG, SimgImage};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::oracle::is_installed;
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
    let (options, location) = (Options::of(&SIMG), Location::Other("new".into()));
    let request = SinkRequest { size, options: &options, location: &location };
    let sink = SIMG.sink(&request, Box::new(kept.clone()))?;
    Ok(sink.expect("it is written in one pass"))
}

/// A disk of noise, runs of one pattern, and zeroes, of this size.
fn written(size: u64) -> (Vec<u8>, Vec<u8>) {
    let kept = Kept::default();
    let mut sink = sink(size, &kept).expect("a sink");
    let unit = usize::try_from(sink.unit()).expect("small");
    let mut disk = vec![0; usize::try_from(size).expect("small")];
    let count = disk.chunks(unit).count();
    for (number, piece) in disk.chunks_mut(unit).enumerate() {
        let at = GuestOffset((number * unit) as u64);
        match number % 5 {
            0 | 1 => piece
                .iter_mut()
                .zip(number..)
                .for_each(|(byte, n)| *byte = (n / 7).to_le_bytes()[0]),
            2 => piece.fill(0xA5),
            3 => sink.put(at, Piece::Zero(piece.len() as u64)).expect("memory"),
            _ => {}
        }
        if number % 5 < 3 {
            sink.put(at, Piece::Data(piece)).expect("memory");
        }
    }
    assert!(count > 1);
    sink.finish().expect("memory");
    (disk, kept.bytes())
}

fn read(bytes: Vec<u8>) -> Vec<u8> {
    let store = Arc::new(MemoryStorage::new(bytes));
    contents(&Disk::new(Arc::new(SimgImage::open(store, &Limits::strict()).expect("it opens"))))
}

#[test]
fn what_is_handed_in_is_read_back_and_simg2img_reads_it_too() {
    for size in [100 << 10, (1 << 20) + 512, 4096 * 300] {
        let (disk, bytes) = written(size);
        assert!(read(bytes.clone()) == disk, "{size}");
        if is_installed("simg2img") {
            let folder = tempfile::tempdir().expect("a folder");
            let path = |name: &str| folder.path().join(name);
            std::fs::write(path("a.simg"), &bytes).expect("a file");
            run("simg2img", &[path("a.simg"), path("a.raw")]);
            assert!(std::fs::read(path("a.raw")).expect("it was written") == disk, "{size}");
        }
    }
}

#[test]
fn what_img2simg_writes_is_read() {
    if !is_installed("img2simg") {
        return;
    }
    let (disk, _) = written(4096 * 300);
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("a.raw"), &disk).expect("a file");
    run("img2simg", &[path("a.raw"), path("a.simg")]);
    assert!(read(std::fs::read(path("a.simg")).expect("it was written")) == disk);
}

fn run(program: &str, files: &[std::path::PathBuf]) {
    let status = Command::new(program).args(files).stdout(Stdio::null()).status();
    assert!(status.expect("it starts").success(), "{program}");
}

#[test]
fn a_large_disk_has_larger_units_and_nothing_handed_in_is_zero() {
    let kept = Kept::default();
    let large = sink(1 << 34, &kept).expect("a sink");
    assert_eq!((large.unit(), sink(1 << 20, &kept).expect("a sink").unit()), (256 << 10, 64 << 10));
    let kept = Kept::default();
    sink(1 << 26, &kept).expect("a sink").finish().expect("memory");
    assert!(kept.bytes().len() < 20_000);
    assert!(read(kept.bytes()).iter().all(|byte| *byte == 0));
}

#[test]
fn a_disk_of_no_whole_sectors_is_filled_up() {
    let kept = Kept::default();
    let mut sink = sink(1000, &kept).expect("a sink");
    sink.put(GuestOffset(0), Piece::Data(&[7; 1000])).expect("memory");
    sink.finish().expect("memory");
    let read = read(kept.bytes());
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
        let options = Options::of(&SIMG);
        let measured = SIMG.measure(&MeasureRequest { size, options: &options, data });
        let measured = measured.expect("it is measured");
        let len = kept.bytes().len() as u64;
        assert!(
            len <= measured.required && measured.required <= len + 2048,
            "{size}: {len}, {measured:?}"
        );
        assert!(measured.required <= measured.fully_allocated);
    }
}
