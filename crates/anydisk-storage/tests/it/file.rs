//! What files do beyond holding bytes: kinds, holes, space, copies, names, failures.

use std::fs::File;
use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use anydisk_storage::{
    AlignedBuffer, Copied, Error, FileStorage, HostOffset, LockMode, OpenOptions, Run, Storage,
    StorageExt, Window,
};

const MIB: u64 = 1 << 20;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn create(&self, name: &str) -> FileStorage {
        self.open(name, OpenOptions::new().write(true).create(true)).unwrap()
    }

    fn open(&self, name: &str, options: OpenOptions) -> anydisk_storage::Result<FileStorage> {
        FileStorage::open(self.path(name), &options)
    }
}

fn run_at(store: &FileStorage, at: u64, limit: u64) -> Run {
    store.holes().unwrap().run_at(HostOffset(at), limit).unwrap()
}

const fn hole(len: u64) -> Run {
    Run { len, hole: true }
}

const fn data(len: u64) -> Run {
    Run { len, hole: false }
}

#[test]
fn a_fifo_is_refused_at_once_whatever_the_access() {
    let dir = Dir::new();
    let fifo = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, dir.path("fifo"), fifo, mode, 0).unwrap();
    for write in [false, true] {
        let options = OpenOptions::new().write(write).block_devices(true);
        let error = dir.open("fifo", options).unwrap_err();
        let expected = "is a FIFO, expected a regular file or a block device";
        assert!(error.to_string().ends_with(expected), "{error}");
    }
}

#[test]
fn directories_devices_and_sockets_are_refused_by_their_kind() {
    let dir = Dir::new();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path("socket")).unwrap();
    let cases = [
        (dir.path("."), "a directory"),
        (dir.path("socket"), "a socket"),
        (PathBuf::from("/dev/zero"), "a character device"),
    ];
    for (path, found) in cases {
        for write in [false, true] {
            let error = FileStorage::open(&path, &OpenOptions::new().write(write)).unwrap_err();
            let expected = format!("{}: is {found}, expected a regular file", path.display());
            assert_eq!(error.to_string(), expected);
        }
    }
}

#[test]
fn a_symbolic_link_is_followed_unless_that_is_forbidden() {
    let dir = Dir::new();
    drop(dir.create("disk"));
    symlink("disk", dir.path("link")).unwrap();
    dir.open("link", OpenOptions::new()).unwrap();
    let error = dir.open("link", OpenOptions::new().follow(false)).unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
}

#[test]
fn a_new_file_is_made_only_where_none_is() {
    let dir = Dir::new();
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600);
    let disk = dir.open("disk", options.clone()).unwrap();
    assert_eq!(std::fs::metadata(dir.path("disk")).unwrap().mode() & 0o777, 0o600);
    drop(disk);
    let error = dir.open("disk", options).unwrap_err();
    assert_eq!(error.io_kind(), Some(ErrorKind::AlreadyExists));
    let error = dir.open("none", OpenOptions::new().write(true)).unwrap_err();
    assert_eq!(error.io_kind(), Some(ErrorKind::NotFound));
    assert_eq!(
        error.to_string(),
        format!(
            "{}: cannot open: No such file or directory (os error 2)",
            dir.path("none").display()
        )
    );
}

#[test]
fn creating_without_writing_is_refused_and_makes_nothing() {
    let dir = Dir::new();
    let error = dir.open("disk", OpenOptions::new().create(true)).unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    assert!(!dir.path("disk").exists());
}

#[test]
fn truncate_empties_the_file() {
    let dir = Dir::new();
    std::fs::write(dir.path("disk"), b"old").unwrap();
    let disk = dir.open("disk", OpenOptions::new().write(true).truncate(true)).unwrap();
    assert!(disk.is_empty().unwrap());
}

#[test]
fn every_change_of_a_read_only_file_says_that_it_is_read_only() {
    let dir = Dir::new();
    std::fs::write(dir.path("disk"), [1; 10]).unwrap();
    for direct in [false, true] {
        let disk = dir.open("disk", OpenOptions::new().direct(direct)).unwrap();
        assert!(!disk.is_writable());
        assert!(disk.space().is_none() && disk.copier().is_none());
        let vectored = [IoSlice::new(b"x"), IoSlice::new(b"y")];
        for result in [
            disk.write_at(HostOffset::ZERO, b"x"),
            disk.write_vectored_at(HostOffset::ZERO, &vectored),
            disk.set_len(0),
        ] {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
        }
    }
    assert_eq!(std::fs::read(dir.path("disk")).unwrap(), [1; 10]);
}

#[test]
fn reading_far_past_every_end_finds_nothing_and_writing_there_is_an_error() {
    let dir = Dir::new();
    for direct in [false, true] {
        let options = OpenOptions::new().write(true).create(true).direct(direct);
        let disk = dir.open("disk", options).unwrap();
        disk.write_at(HostOffset::ZERO, b"abc").unwrap();
        for at in [3, MIB, (1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX].map(HostOffset) {
            let mut buf = [7; 16];
            assert_eq!(disk.read_at(at, &mut buf).unwrap(), 0, "{at}");
            let mut parts = [IoSliceMut::new(&mut buf)];
            assert_eq!(disk.read_vectored_at(at, &mut parts).unwrap(), 0, "{at}");
            assert_eq!(disk.holes().unwrap().run_at(at, 100).unwrap(), hole(100));
            assert_eq!(buf, [7; 16]);
        }
        for at in [(1 << 63) - 1, 1 << 63, u64::MAX].map(HostOffset) {
            let error = disk.write_at(at, b"x").unwrap_err();
            assert_eq!(error.io_kind(), Some(ErrorKind::FileTooLarge), "{error}");
        }
        assert_eq!(disk.len().unwrap(), 3);
    }
}

#[test]
fn more_buffers_than_the_kernel_takes_at_once_are_all_filled() {
    let dir = Dir::new();
    let disk = dir.create("disk");
    let bytes: Vec<u8> = (0..5000_u32).flat_map(u32::to_le_bytes).collect();
    // Empty ones before them must not be taken for the end of the file.
    let empty = || (0..2000).map(|_| [].as_slice());
    let parts: Vec<_> = empty().chain(bytes.chunks(4)).map(IoSlice::new).collect();
    disk.write_vectored_at(HostOffset(1), &parts).unwrap();
    let mut read = vec![0; bytes.len() + 4];
    let empty = (0..2000).map(|_| [].as_mut_slice());
    let mut parts: Vec<_> = empty.chain(read.chunks_mut(4)).map(IoSliceMut::new).collect();
    assert_eq!(disk.read_vectored_at(HostOffset(1), &mut parts).unwrap(), bytes.len());
    assert_eq!(read[..bytes.len()], bytes);
}

#[test]
fn an_exact_read_past_the_end_names_both_and_a_padded_one_reads_zero() {
    let dir = Dir::new();
    let disk = dir.create("disk");
    disk.write_at(HostOffset::ZERO, b"abc").unwrap();
    let mut buf = [7; 5];
    let error = disk.read_exact_at(HostOffset(1), &mut buf).unwrap_err();
    let expected = "5 bytes at 0x1 reach past the end of the store at 0x3";
    assert!(error.to_string().ends_with(expected), "{error}");
    disk.read_padded_at(HostOffset(1), &mut buf).unwrap();
    assert_eq!(&buf, b"bc\0\0\0");
}

#[test]
fn an_open_file_is_taken_as_it_was_opened() {
    let dir = Dir::new();
    std::fs::write(dir.path("disk"), b"abc").unwrap();
    let disk = FileStorage::from_file(File::open(dir.path("disk")).unwrap(), "my disk").unwrap();
    assert_eq!((disk.len().unwrap(), disk.is_writable(), disk.name()), (3, false, "my disk"));
    let mut append = File::options();
    for options in [append.append(true), File::options().write(true)] {
        let file = options.open(dir.path("disk")).unwrap();
        let error = FileStorage::from_file(file, "my disk").unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
    let error = FileStorage::from_file(File::open("/dev/null").unwrap(), "nothing").unwrap_err();
    assert!(error.to_string().starts_with("nothing: is a character device"), "{error}");
}

#[test]
fn a_file_is_itself_by_every_name_and_no_other() {
    let dir = Dir::new();
    let disk = dir.create("disk");
    std::fs::hard_link(dir.path("disk"), dir.path("other name")).unwrap();
    let again = dir.open("other name", OpenOptions::new().lock(LockMode::Off)).unwrap();
    assert_eq!(disk.identity(), again.identity());
    assert_ne!(disk.identity(), dir.create("another").identity());
}

#[test]
fn holes_are_found_and_the_answer_follows_what_is_written() {
    let dir = Dir::new();
    for options in [OpenOptions::new(), OpenOptions::new().lock(LockMode::Off)] {
        let disk = dir.open("disk", options.write(true).create(true)).unwrap();
        disk.set_len(0).unwrap();
        disk.set_len(4 * MIB).unwrap();
        if run_at(&disk, 0, MIB) != hole(MIB) {
            eprintln!("skipped: this file system has no holes");
            return;
        }
        disk.write_at(HostOffset(2 * MIB), &vec![1; 1 << 20]).unwrap();
        assert_eq!(run_at(&disk, MIB / 2, 4 * MIB), hole(MIB * 3 / 2));
        assert_eq!(run_at(&disk, 2 * MIB, 4 * MIB), data(MIB));
        assert_eq!(run_at(&disk, 2 * MIB + 5, 10), data(10));
        assert_eq!(run_at(&disk, 3 * MIB, 4 * MIB), hole(4 * MIB), "to the end and on");
        disk.write_at(HostOffset(3 * MIB), &vec![1; 1 << 19]).unwrap();
        assert_eq!(run_at(&disk, 3 * MIB, 4 * MIB), data(MIB / 2), "written since");
        assert_eq!(run_at(&disk, 2 * MIB, MIB / 2), data(MIB / 2));
        disk.space().unwrap().zero(HostOffset(2 * MIB), MIB, true).unwrap();
        assert_eq!(run_at(&disk, 2 * MIB, 4 * MIB), hole(MIB), "punched since");
        disk.set_len(2 * MIB).unwrap();
        assert_eq!(run_at(&disk, MIB, 4 * MIB), hole(4 * MIB), "cut since");
        assert_eq!(disk.holes().unwrap().allocated().unwrap(), 0);
    }
}

#[test]
fn bytes_written_through_the_descriptor_are_not_hidden_by_a_remembered_hole() {
    let dir = Dir::new();
    let disk = dir.create("disk");
    disk.set_len(MIB).unwrap();
    run_at(&disk, 0, 4096);
    let raw = disk.fd().unwrap();
    let file = File::from(raw.fd.try_clone_to_owned().unwrap());
    file.write_all_at(&vec![1; 1 << 20], raw.start.get()).unwrap();
    assert_eq!(run_at(&disk, 0, 4096), data(4096));
}

#[test]
fn bytes_of_an_unlocked_second_writer_are_not_hidden_by_a_remembered_hole() {
    let dir = Dir::new();
    let writer = dir.open("disk", OpenOptions::new().write(true).create(true).lock(LockMode::Off));
    let writer = writer.unwrap();
    writer.set_len(MIB).unwrap();
    let reader = dir.open("disk", OpenOptions::new().lock(LockMode::ForceShare)).unwrap();
    run_at(&reader, 0, 4096);
    writer.write_at(HostOffset::ZERO, &vec![1; 1 << 20]).unwrap();
    assert_eq!(run_at(&reader, 0, 4096), data(4096));
}

/// A reader that asks while others write must never be told of a hole where a write has returned.
#[test]
fn no_finished_write_of_another_thread_is_hidden_by_a_remembered_hole() {
    const BLOCKS: u64 = 400;
    let dir = Dir::new();
    let disk = dir.create("disk");
    disk.set_len(BLOCKS * 4096).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20_000 {
                run_at(&disk, BLOCKS * 4096 - 1, 1);
            }
        });
        for block in 0..BLOCKS {
            disk.write_at(HostOffset(block * 4096), &[1; 4096]).unwrap();
            assert_eq!(run_at(&disk, block * 4096, 4096), data(4096));
        }
    });
}

#[test]
fn zeroing_keeps_or_gives_back_space_as_asked() {
    let dir = Dir::new();
    let disk = dir.create("disk");
    let allocated = || disk.holes().unwrap().allocated().unwrap();
    disk.write_at(HostOffset::ZERO, &vec![1; 1 << 20]).unwrap();
    disk.flush().unwrap();
    let full = allocated();
    disk.space().unwrap().zero(HostOffset(100), MIB / 2, false).unwrap();
    assert_eq!(allocated(), full);
    disk.space().unwrap().zero(HostOffset::ZERO, u64::MAX, true).unwrap();
    assert!(allocated() < full / 8, "{} of {full}", allocated());
    assert_eq!(disk.len().unwrap(), MIB);
}

#[test]
fn allocated_space_is_there_before_it_is_written() {
    let dir = Dir::new();
    let disk = dir.create("disk");
    disk.space().unwrap().allocate(HostOffset(MIB), MIB).unwrap();
    assert_eq!(disk.len().unwrap(), 2 * MIB);
    let allocated = disk.holes().unwrap().allocated().unwrap();
    assert!((MIB..2 * MIB).contains(&allocated), "{allocated}");
}

#[test]
fn a_copy_in_the_kernel_has_the_bytes_of_the_source_window() {
    let dir = Dir::new();
    let source = Arc::new(dir.create("source"));
    let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    source.write_at(HostOffset::ZERO, &bytes).unwrap();
    let window = Window::new(source, HostOffset(1000), 200_000).unwrap();
    let target = Arc::new(dir.create("target"));
    let into = Window::growing(target.clone(), HostOffset(500));
    let copier = into.copier().unwrap();
    let copied = copier.copy_from(&window, HostOffset(10), HostOffset(20), 150_000).unwrap();
    if copied.is_none() {
        eprintln!("skipped: no copying in the kernel here");
        return;
    }
    let mut read = vec![0; 150_000];
    target.read_exact_at(HostOffset(520), &mut read).unwrap();
    assert!(read == bytes[1010..][..150_000]);
    assert_eq!(target.len().unwrap(), 150_520);
}

#[test]
fn a_copy_past_the_end_of_the_source_window_is_refused_before_anything_happens() {
    let dir = Dir::new();
    let source = Arc::new(dir.create("source"));
    source.set_len(MIB).unwrap();
    let window = Window::new(source, HostOffset::ZERO, 1000).unwrap();
    let target = dir.create("target");
    let copier = target.copier().unwrap();
    for (from, len) in [(0, 1001), (1000, 1), (u64::MAX, 1), (5, u64::MAX)] {
        let result = copier.copy_from(&window, HostOffset(from), HostOffset::ZERO, len);
        let error = result.unwrap_err();
        assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
    }
    assert_eq!(target.len().unwrap(), 0);
}

#[test]
fn memory_cannot_be_copied_from_in_the_kernel() {
    let dir = Dir::new();
    let target = dir.create("target");
    let memory = anydisk_storage::MemoryStorage::new(vec![1; 10]);
    let copied =
        target.copier().unwrap().copy_from(&memory, HostOffset::ZERO, HostOffset::ZERO, 10);
    assert_eq!(copied.unwrap(), None::<Copied>);
}

#[test]
fn direct_io_takes_any_request_and_keeps_the_length_in_bytes() {
    let dir = Dir::new();
    let options = OpenOptions::new().write(true).create(true).direct(true);
    let disk = match dir.open("disk", options) {
        Err(Error::Unsupported { .. }) => return eprintln!("skipped: no direct I/O here"),
        disk => disk.unwrap(),
    };
    assert!(disk.alignment() >= 512, "{}", disk.alignment());
    disk.write_at(HostOffset(1000), b"odd").unwrap();
    assert_eq!(disk.len().unwrap(), 1003);
    let mut aligned = AlignedBuffer::zeroed(8192, disk.alignment());
    assert_eq!(disk.read_at(HostOffset::ZERO, &mut aligned).unwrap(), 1003);
    assert_eq!(&aligned[998..1004], b"\0\0odd\0");
    let mut odd = [0; 7];
    assert_eq!(disk.read_at(HostOffset(999), &mut odd).unwrap(), 4);
    assert_eq!(&odd, b"\0odd\0\0\0");
}

/// Neighbouring bytes of one block, each written by its own thread: none may be lost to the
/// read-modify-write of another.
#[test]
fn direct_writes_to_different_bytes_of_a_block_do_not_disturb_each_other() {
    let dir = Dir::new();
    let options = OpenOptions::new().write(true).create(true).direct(true);
    let disk = match dir.open("disk", options) {
        Err(Error::Unsupported { .. }) => return eprintln!("skipped: no direct I/O here"),
        disk => disk.unwrap(),
    };
    disk.set_len(4096).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let disk = &disk;
            scope.spawn(move || {
                for place in (0..4096).filter(|place| place / 8 % 4 == thread).step_by(8) {
                    disk.write_at(HostOffset(place), &[1; 8]).unwrap();
                }
            });
        }
    });
    let mut bytes = vec![0; 4096];
    disk.read_exact_at(HostOffset::ZERO, &mut bytes).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 1), "a write was lost");
}
