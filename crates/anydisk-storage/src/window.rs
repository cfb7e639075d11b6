//! A part of another store as a store of its own.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

#[cfg(unix)]
use crate::RawFile;
use crate::{Copied, CopyFrom, Error, Holes, HostOffset, Identity, Result, Run, Space, Storage};

/// Bytes `start..start + len` of another store, or everything from `start` on.
///
/// ```text
/// store   |.......|################|........|
///                 ^ start          ^ start + len
/// window          |################|
///                 ^ 0              ^ len
/// ```
///
/// All that the store can do the window can do, inside its bounds.
#[derive(Clone, Debug)]
pub struct Window {
    store: Arc<dyn Storage>,
    start: HostOffset,
    /// `None`: up to the end of the store, wherever that is.
    len: Option<u64>,
}

impl Window {
    /// The `len` bytes of `store` at `start`. Such a window does not grow.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the store ends before that.
    pub fn new(store: Arc<dyn Storage>, start: HostOffset, len: u64) -> Result<Self> {
        let end = store.len()?;
        match start.checked_add(len) {
            Some(last) if last.get() <= end => Ok(Self { store, start, len: Some(len) }),
            _ => Err(Error::OutOfRange { store: store.name().into(), at: start, len, end }),
        }
    }

    /// All bytes of `store` from `start` on; grows and shrinks with the store, and the store
    /// with it. Empty while the store ends before `start`.
    #[must_use]
    pub fn growing(store: Arc<dyn Storage>, start: HostOffset) -> Self {
        Self { store, start, len: None }
    }

    /// Where the window begins in its store.
    #[must_use]
    pub const fn start(&self) -> HostOffset {
        self.start
    }

    /// The store that the window looks into.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Storage> {
        &self.store
    }

    /// The place in the store, for bytes that must lie in the window.
    fn inside(&self, at: HostOffset, len: u64) -> Result<HostOffset> {
        let fits = |end: HostOffset| self.len.is_none_or(|len| end.get() <= len);
        let place = self.start.checked_add(at.get());
        match (at.checked_add(len).filter(|&end| fits(end)), place) {
            (Some(_), Some(place)) if place.checked_add(len).is_some() => Ok(place),
            _ => Err(self.beyond(at, len)),
        }
    }

    /// The place in the store and how many of `len` bytes there lie in the window; `None` if the
    /// window does not reach that far.
    fn clamped(&self, at: HostOffset, len: u64) -> Option<(HostOffset, u64)> {
        let place = self.start.checked_add(at.get())?;
        let room = match self.len {
            Some(end) => end.checked_sub(at.get())?,
            None => u64::MAX - place.get(),
        };
        Some((place, len.min(room)))
    }

    #[cold]
    fn beyond(&self, at: HostOffset, len: u64) -> Error {
        let end = self.len().unwrap_or(0);
        Error::OutOfRange { store: self.name().into(), at, len, end }
    }

    fn lost(&self, what: &'static str) -> Error {
        Error::Unsupported { store: self.name().into(), what }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Storage for Window {
    fn len(&self) -> Result<u64> {
        match self.len {
            Some(len) => Ok(len),
            None => Ok(self.store.len()?.saturating_sub(self.start.get())),
        }
    }

    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<usize> {
        let Some((place, len)) = self.clamped(at, buf.len() as u64) else { return Ok(0) };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.store.read_at(place, &mut buf[..len])
    }

    fn read_vectored_at(&self, at: HostOffset, bufs: &mut [IoSliceMut<'_>]) -> Result<usize> {
        let total: u64 = bufs.iter().map(|buf| buf.len() as u64).sum();
        match self.clamped(at, total) {
            Some((place, len)) if len == total => self.store.read_vectored_at(place, bufs),
            Some(_) => self.read_in_turn(at, bufs),
            None => Ok(0),
        }
    }

    fn write_at(&self, at: HostOffset, data: &[u8]) -> Result<()> {
        self.store.write_at(self.inside(at, data.len() as u64)?, data)
    }

    fn write_vectored_at(&self, at: HostOffset, data: &[IoSlice<'_>]) -> Result<()> {
        let total: u64 = data.iter().map(|part| part.len() as u64).sum();
        self.store.write_vectored_at(self.inside(at, total)?, data)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        match self.len {
            Some(now) if now == len => Ok(()),
            Some(_) => Err(self.lost("changing the length of a window")),
            None => {
                let end = self.start.checked_add(len).ok_or_else(|| self.lost("this length"))?;
                self.store.set_len(end.get())
            }
        }
    }

    fn flush(&self) -> Result<()> {
        self.store.flush()
    }

    fn is_writable(&self) -> bool {
        self.store.is_writable()
    }

    fn name(&self) -> &str {
        self.store.name()
    }

    fn alignment(&self) -> usize {
        self.store.alignment()
    }

    fn holes(&self) -> Option<&dyn Holes> {
        self.store.holes().map(|_| self as &dyn Holes)
    }

    fn space(&self) -> Option<&dyn Space> {
        self.store.space().map(|_| self as &dyn Space)
    }

    fn copier(&self) -> Option<&dyn CopyFrom> {
        self.store.copier().map(|_| self as &dyn CopyFrom)
    }

    fn identity(&self) -> Option<Identity> {
        self.store.identity()
    }

    #[cfg(unix)]
    fn fd(&self) -> Option<RawFile<'_>> {
        self.store.fd()?.part(self.start.get(), self.len)
    }

    fn prefetch(&self, at: HostOffset, len: u64) {
        if let Some((place, len)) = self.clamped(at, len) {
            self.store.prefetch(place, len);
        }
    }
}

impl Window {
    /// Buffer by buffer, where the window ends inside the buffers.
    fn read_in_turn(&self, at: HostOffset, bufs: &mut [IoSliceMut<'_>]) -> Result<usize> {
        let mut done = 0;
        for buf in bufs {
            let count = self.read_at(at.saturating_add(done as u64), buf)?;
            done += count;
            if count < buf.len() {
                break;
            }
        }
        Ok(done)
    }
}

impl Holes for Window {
    fn run_at(&self, at: HostOffset, limit: u64) -> Result<Run> {
        let outside = Run { len: limit, hole: true };
        match (self.clamped(at, limit), self.store.holes()) {
            (Some((place, len)), Some(holes)) if len > 0 => {
                let run = holes.run_at(place, len)?;
                // A hole that reaches the end of the window goes on behind it.
                if run.hole && run.len == len { Ok(outside) } else { Ok(run) }
            }
            (_, None) => Err(self.lost("finding holes")),
            _ => Ok(outside),
        }
    }

    /// The data runs of the window, added up: the system tells it only of whole files.
    fn allocated(&self) -> Result<u64> {
        let holes = self.store.holes().ok_or_else(|| self.lost("finding holes"))?;
        let len = self.len()?;
        if self.start == HostOffset::ZERO && len == self.store.len()? {
            return holes.allocated();
        }
        let (mut at, mut allocated) = (0, 0);
        while at < len {
            let run = self.run_at(HostOffset(at), len - at)?;
            allocated += if run.hole { 0 } else { run.len };
            at += run.len;
        }
        Ok(allocated)
    }
}

impl Space for Window {
    fn zero(&self, at: HostOffset, len: u64, unmap: bool) -> Result<()> {
        let space = self.store.space().ok_or_else(|| self.lost("zero"))?;
        let Some((place, len)) = self.clamped(at, len) else { return Ok(()) };
        space.zero(place, len, unmap)
    }

    fn discard(&self, at: HostOffset, len: u64) -> Result<()> {
        let space = self.store.space().ok_or_else(|| self.lost("discard"))?;
        let Some((place, len)) = self.clamped(at, len) else { return Ok(()) };
        space.discard(place, len)
    }

    fn allocate(&self, at: HostOffset, len: u64) -> Result<()> {
        let space = self.store.space().ok_or_else(|| self.lost("allocate"))?;
        space.allocate(self.inside(at, len)?, len)
    }
}

impl CopyFrom for Window {
    fn copy_from(
        &self,
        source: &dyn Storage,
        from: HostOffset,
        to: HostOffset,
        len: u64,
    ) -> Result<Option<Copied>> {
        let place = self.inside(to, len)?;
        match self.store.copier() {
            Some(copier) => copier.copy_from(source, from, place, len),
            None => Ok(None),
        }
    }

    fn shares_with(&self, source: &dyn Storage) -> bool {
        self.store.copier().is_some_and(|copier| copier.shares_with(source))
    }

    fn share_from(
        &self,
        source: &dyn Storage,
        from: HostOffset,
        to: HostOffset,
        len: u64,
    ) -> Result<u64> {
        let place = self.inside(to, len)?;
        self.store.copier().map_or(Ok(0), |copier| copier.share_from(source, from, place, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStorage;

    fn window(start: u64, len: u64) -> Result<Window> {
        let memory = MemoryStorage::default();
        memory.set_len(1 << 20)?;
        Window::new(Arc::new(memory), HostOffset(start), len)
    }

    #[test]
    fn a_window_that_the_store_does_not_hold_is_out_of_range() {
        window(0, 1 << 20).unwrap();
        window(1 << 20, 0).unwrap();
        for (start, len) in [(0, (1 << 20) + 1), (1 << 20, 1), (1, u64::MAX), (u64::MAX, 1)] {
            let error = window(start, len).unwrap_err();
            assert!(matches!(error, Error::OutOfRange { end: 0x10_0000, .. }), "{error}");
        }
    }

    #[test]
    fn a_write_past_the_end_of_a_window_is_refused_whole() {
        let window = window(100, 1000).unwrap();
        for (at, len) in [(0, 1001), (999, 2), (1000, 1), (u64::MAX, 1)] {
            let error = window.write_at(HostOffset(at), &vec![1; len]).unwrap_err();
            assert!(matches!(error, Error::OutOfRange { end: 1000, .. }), "{error}");
        }
        assert_eq!(window.allocated().unwrap(), 0);
    }

    #[test]
    fn a_hole_that_reaches_the_end_of_a_window_goes_on_behind_it() {
        let window = window(100, 1000).unwrap();
        let run = window.run_at(HostOffset(10), 5000).unwrap();
        assert_eq!(run, Run { len: 5000, hole: true });
    }

    #[test]
    fn the_data_of_a_window_is_counted_in_its_bounds() {
        let window = window(100, 1 << 19).unwrap();
        window.store().write_at(HostOffset(0), &[1]).unwrap();
        // One chunk of 64 KiB, of which 100 bytes lie before the window.
        assert_eq!(window.allocated().unwrap(), (64 << 10) - 100);
    }

    #[test]
    fn a_window_of_a_window_adds_up_and_has_the_identity_of_the_store() {
        let outer = window(1000, 1000).unwrap();
        let identity = outer.identity();
        outer.store().write_at(HostOffset(1500), b"here").unwrap();
        let inner = Window::new(Arc::new(outer), HostOffset(500), 4).unwrap();
        let mut buf = [0; 10];
        assert_eq!(inner.read_at(HostOffset::ZERO, &mut buf).unwrap(), 4);
        assert_eq!(&buf[..4], b"here");
        assert_eq!(inner.identity(), identity);
    }
}
