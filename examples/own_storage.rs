//! A `Storage` of one's own: an object behind a network, read block by block, with a cache.
//!
//! ```text
//!   Disk -> raw image -> RemoteStorage -> cache of blocks -> GET 64 KiB, a round trip each
//! ```
//!
//! Any format works on it, since a format sees nothing but a [`Storage`].
//!
//! `cargo run -p anydisk-examples --example own_storage`

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anydisk_core::{
    Access, GuestOffset, HostOffset, Located, Location, NoReferences, Opener, Registry, Storage,
};
use anydisk_raw::RAW;
use anydisk_storage::{Error, Result};

/// Bytes fetched at once.
const BLOCK: u64 = 64 << 10;
/// Most blocks that are kept.
const CACHED: usize = 256;

/// A read-only object. The network is a sleep, and the object is made of its block numbers.
#[derive(Debug)]
struct RemoteStorage {
    len: u64,
    round_trip: Duration,
    requests: AtomicU64,
    cache: Mutex<HashMap<u64, Arc<[u8]>>>,
}

impl RemoteStorage {
    fn new(len: u64, round_trip: Duration) -> Self {
        Self { len, round_trip, requests: AtomicU64::new(0), cache: Mutex::default() }
    }

    /// One request. A real one may fail, and would answer [`Error::io`].
    fn get(&self, block: u64) -> Arc<[u8]> {
        self.requests.fetch_add(1, Relaxed);
        thread::sleep(self.round_trip);
        let words = std::iter::repeat_n(block.to_le_bytes(), 64 << 7);
        words.flatten().collect()
    }

    fn block(&self, block: u64) -> Arc<[u8]> {
        if let Some(bytes) = self.cache().get(&block) {
            return Arc::clone(bytes);
        }
        // Not under the lock: other threads read other blocks meanwhile.
        let bytes = self.get(block);
        let mut cache = self.cache();
        if cache.len() >= CACHED {
            cache.clear(); // Bounded is what matters here; a better cache evicts one by one.
        }
        cache.insert(block, Arc::clone(&bytes));
        bytes
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<[u8]>>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_only(&self) -> Error {
        Error::ReadOnly { store: self.name().into() }
    }
}

/// What every store must answer. What this one cannot do better than others (holes, space, copying
/// in the kernel, a file descriptor) is left at the default, which says so.
impl Storage for RemoteStorage {
    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    /// Fills `buf`; short only at the end of the store.
    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<usize> {
        let inside = self.len.saturating_sub(at.get()).min(buf.len() as u64);
        let count = usize::try_from(inside).unwrap_or(buf.len());
        let mut done = 0;
        while done < count {
            let place = at.get() + done as u64;
            let bytes = self.block(place / BLOCK);
            let within = usize::try_from(place % BLOCK).expect("less than a block");
            let part = (count - done).min(bytes.len() - within);
            buf[done..done + part].copy_from_slice(&bytes[within..within + part]);
            done += part;
        }
        Ok(count)
    }

    fn write_at(&self, _: HostOffset, _: &[u8]) -> Result<()> {
        Err(self.read_only())
    }

    fn set_len(&self, _: u64) -> Result<()> {
        Err(self.read_only())
    }

    fn flush(&self) -> Result<()> {
        Ok(()) // Nothing is ever written.
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn name(&self) -> &str {
        "object://bucket/disk.raw"
    }
}

fn main() -> anydisk_core::Result<()> {
    let remote = Arc::new(RemoteStorage::new(1 << 40, Duration::from_millis(5)));
    let registry = Registry::new(&[&RAW]);
    let opener = Opener::new(&registry, &NoReferences);
    let store: Arc<dyn Storage> = Arc::clone(&remote) as _;
    let file = || Located { store: Arc::clone(&store), location: location(&store) };

    // Opening a tebibyte of raw costs no request.
    let disk = opener.open(file(), Some("raw"), Access::Read)?;
    assert_eq!(remote.requests.load(Relaxed), 0);

    // A read over a boundary costs two, and the same again costs none.
    for (time, requests) in [("first", 2), ("second", 2)] {
        let begin = Instant::now();
        let mut bytes = [0; 4096];
        disk.read(GuestOffset(7 * BLOCK - 2048), &mut bytes)?;
        assert_eq!((bytes[0], bytes[4088]), (6, 7));
        assert_eq!(remote.requests.load(Relaxed), requests);
        println!("{time} read: {:?}", begin.elapsed());
    }

    // Four readers wait for their round trips side by side: a disk is read through `&self`.
    let begin = Instant::now();
    thread::scope(|scope| {
        let readers: Vec<_> = (100..104)
            .map(|block| {
                let disk = &disk;
                scope.spawn(move || disk.read(GuestOffset(block * BLOCK), &mut [0; 512]))
            })
            .collect();
        readers.into_iter().try_for_each(|reader| reader.join().expect("a reader"))
    })?;
    println!("four readers: {:?}", begin.elapsed());
    assert_eq!(remote.requests.load(Relaxed), 6);

    // It is not writable, so it is not opened for writing.
    let error = opener.open(file(), Some("raw"), Access::ReadWrite).unwrap_err();
    println!("as it should be: {error}");
    Ok(())
}

fn location(store: &Arc<dyn Storage>) -> Location {
    Location::Other(store.name().to_owned())
}
