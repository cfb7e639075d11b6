//! Every store agrees with a byte vector.

use std::path::Path;
use std::sync::Arc;

use crate::common::{Length, agree_with_a_vector, contents, operations};
use anydisk_storage::{
    Error, FileStorage, HostOffset, LockMode, MemoryStorage, OpenOptions, Storage, Window,
};
use proptest::prelude::*;

fn new_file(dir: &Path, options: OpenOptions) -> anydisk_storage::Result<FileStorage> {
    FileStorage::open(dir.join("disk.raw"), &options.write(true).create(true))
}

/// Something to look at around a window: it must not change.
const MARGIN: usize = 5_000;

fn margins_and(len: usize) -> Vec<u8> {
    [vec![1; MARGIN], vec![2; len], vec![3; MARGIN]].concat()
}

fn assert_margins(store: &dyn Storage) {
    let bytes = contents(store);
    assert!(bytes[..MARGIN] == [1; MARGIN], "bytes before the window changed");
    assert!(bytes[bytes.len() - MARGIN..] == [3; MARGIN], "bytes behind the window changed");
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { cases: count, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn memory_agrees_with_a_vector(ops in operations()) {
        agree_with_a_vector(&MemoryStorage::default(), Length::Free, &ops);
    }

    #[test]
    fn a_window_of_memory_agrees_with_a_vector_and_touches_nothing_else(ops in operations()) {
        let memory = Arc::new(MemoryStorage::new(margins_and(200_000)));
        let window = Window::new(memory.clone(), HostOffset(MARGIN as u64), 200_000).unwrap();
        agree_with_a_vector(&window, Length::Fixed, &ops);
        assert_margins(&memory);
    }

    #[test]
    fn a_growing_window_agrees_with_a_vector(ops in operations()) {
        let memory = Arc::new(MemoryStorage::new(vec![1; MARGIN]));
        let window = Window::growing(memory.clone(), HostOffset(MARGIN as u64));
        agree_with_a_vector(&window, Length::Free, &ops);
        assert!(contents(&memory)[..MARGIN] == [1; MARGIN]);
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn a_file_agrees_with_a_vector(ops in operations()) {
        let dir = tempfile::tempdir().unwrap();
        let file = new_file(dir.path(), OpenOptions::new()).unwrap();
        agree_with_a_vector(&file, Length::Free, &ops);
    }

    #[test]
    fn a_file_without_locks_agrees_with_a_vector(ops in operations()) {
        let dir = tempfile::tempdir().unwrap();
        let file = new_file(dir.path(), OpenOptions::new().lock(LockMode::Off)).unwrap();
        agree_with_a_vector(&file, Length::Free, &ops);
    }

    #[test]
    fn a_file_with_direct_io_agrees_with_a_vector(ops in operations()) {
        let dir = tempfile::tempdir().unwrap();
        match new_file(dir.path(), OpenOptions::new().direct(true)) {
            Ok(file) => agree_with_a_vector(&file, Length::Free, &ops),
            Err(Error::Unsupported { .. }) => eprintln!("skipped: no direct I/O here"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_window_of_a_file_agrees_with_a_vector_and_touches_nothing_else(ops in operations()) {
        let dir = tempfile::tempdir().unwrap();
        let file = Arc::new(new_file(dir.path(), OpenOptions::new()).unwrap());
        file.write_at(HostOffset::ZERO, &margins_and(200_000)).unwrap();
        let window = Window::new(file.clone(), HostOffset(MARGIN as u64), 200_000).unwrap();
        agree_with_a_vector(&window, Length::Fixed, &ops);
        assert_margins(&file);
    }
}
