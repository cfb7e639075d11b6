//! Several files in one store, so that the doubles see the writes to all of them.

use std::sync::{Arc, Mutex, PoisonError};

use anydisk_core::{
    Access, Companions, Error, HostOffset, Located, Location, Reference, Resolver, Result, Storage,
    StorageExt,
};

type StorageResult<T> = anydisk_storage::Result<T>;

/// Bytes before the file in its drawer: they hold its length, in a sector of its own.
const HEAD: u64 = 512;

/// One of the files. Its length is a number in the store.
#[derive(Debug)]
pub struct Drawer {
    store: Arc<dyn Storage>,
    start: u64,
    room: u64,
    /// Held while the length changes.
    growing: Mutex<()>,
}

impl Drawer {
    /// File number `number` of the store; `room`: bytes that each of them may have, its length
    /// included.
    #[must_use]
    pub fn open(store: &Arc<dyn Storage>, room: u64, number: u64) -> Arc<dyn Storage> {
        Arc::new(Self {
            store: Arc::clone(store),
            start: number * room,
            room,
            growing: Mutex::default(),
        })
    }

    fn place(&self, at: HostOffset) -> HostOffset {
        HostOffset(self.start + HEAD).saturating_add(at.get())
    }
}

impl Drawer {
    /// What a file has behind its end is zero, whatever a crash left there.
    fn clear_to(&self, len: u64) -> StorageResult<()> {
        let old = self.len()?;
        let gap = usize::try_from(len.saturating_sub(old)).expect("small");
        match gap {
            0 => Ok(()),
            _ => self.store.write_at(self.place(HostOffset(old)), &vec![0; gap]),
        }
    }

    fn write_len(&self, len: u64) -> StorageResult<()> {
        assert!(len <= self.room - HEAD, "the drawer is too small");
        self.store.write_at(HostOffset(self.start), &len.to_le_bytes())
    }
}

impl Storage for Drawer {
    fn len(&self) -> StorageResult<u64> {
        let mut bytes = [0; 8];
        self.store.read_padded_at(HostOffset(self.start), &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> StorageResult<usize> {
        let rest = self.len()?.saturating_sub(at.get());
        let len = buf.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        self.store.read_padded_at(self.place(at), &mut buf[..len])?;
        Ok(len)
    }

    fn write_at(&self, at: HostOffset, data: &[u8]) -> StorageResult<()> {
        let end = at.get() + data.len() as u64;
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        self.clear_to(at.get())?;
        self.store.write_at(self.place(at), data)?;
        if end > self.len()? { self.write_len(end) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> StorageResult<()> {
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        self.clear_to(len)?;
        self.write_len(len)
    }

    /// An empty write: a [`CrashStorage`](crate::double::CrashStorage) with
    /// [media](crate::double::CrashStorage::with_media) as large as a drawer flushes the one that it
    /// is in, and other stores in memory have nothing to flush.
    fn flush(&self) -> StorageResult<()> {
        self.store.write_at(HostOffset(self.start), &[])
    }

    fn is_writable(&self) -> bool {
        self.store.is_writable()
    }

    fn name(&self) -> &str {
        self.store.name()
    }
}

/// Finds and makes the files of a store by the number that their names end with: `x-f001`, `x-flat`.
#[derive(Debug)]
pub struct Drawers {
    /// All of them.
    pub store: Arc<dyn Storage>,
    /// Bytes that each may have.
    pub room: u64,
}

impl Drawers {
    fn located(&self, reference: &Reference) -> Result<Located> {
        let name = reference.display_name();
        let digits: String = name.chars().filter(char::is_ascii_digit).collect();
        let number = digits.parse().unwrap_or(1);
        Ok(Located {
            store: Drawer::open(&self.store, self.room, number),
            location: Location::Other(name),
        })
    }
}

impl Resolver for Drawers {
    fn resolve(&self, reference: &Reference, _: &Location, _: Access) -> Result<Located> {
        self.located(reference)
    }
}

impl Companions for Drawers {
    fn make(&self, reference: &Reference) -> Result<Located> {
        let file = self.located(reference)?;
        match file.store.len()? {
            0 => Ok(file),
            _ => Err(Error::Exists { what: "file", name: reference.display_name() }),
        }
    }

    fn remove(&self, reference: &Reference) -> Result<()> {
        Ok(self.located(reference)?.store.set_len(0)?)
    }
}
