//! How a copy is done, and who watches it.

use std::ops::ControlFlow;

/// How a copy is done. The output does not depend on the number of threads.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Threads that read, pack and write; 0: as many as the machine has.
    pub threads: usize,
    /// Store units packed, as the target packs them.
    pub compress: bool,
    /// Zeroes in the data are not written if there are at least so many bytes of them; 0: all data
    /// is written.
    pub zero_run: usize,
    /// The target reads as zero everywhere: zeroes need not be written to it.
    pub target_is_zero: bool,
    /// Make the target durable before reporting success.
    pub durable: bool,
    /// Write a new file past the page cache.
    pub direct: bool,
    /// Which dirty bitmaps of the source's top image go along.
    pub bitmaps: CopyBitmaps,
    /// Whether bytes may go from file to file without passing through this process.
    pub offload: Offload,
    /// Bytes of data that are written in a second at most, over the whole job; 0: as many as can
    /// be.
    pub rate: u64,
}

/// Whether bytes go from file to file without passing through this process. Zeroes among them are
/// then not found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Offload {
    /// Never.
    No,
    /// Where the file system lets both files share the blocks (reflink), which takes no space and no
    /// time.
    #[default]
    Share,
    /// Also where the kernel has to copy them (`copy_file_range`), which network file systems leave
    /// to the server.
    Kernel,
}

/// Which dirty bitmaps go along with a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyBitmaps {
    /// None.
    #[default]
    No,
    /// All; one that cannot be trusted is an error.
    All,
    /// Those that can be trusted; the others are left out.
    Trusted,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: 0,
            compress: false,
            zero_run: 4096,
            target_is_zero: false,
            durable: true,
            direct: false,
            bitmaps: CopyBitmaps::No,
            offload: Offload::Share,
            rate: 0,
        }
    }
}

impl Settings {
    pub(crate) fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
    }
}

/// Is told how far a job is, and may stop it.
///
/// Any function of two numbers that returns [`ControlFlow`] is one.
pub trait Watch: Sync {
    /// `done` of `total` bytes of the disk are dealt with. Called now and then, from any thread but
    /// one at a time, and `done` never falls. [`ControlFlow::Break`] stops the job with
    /// [`Cancelled`](crate::Error::Cancelled).
    fn progress(&self, done: u64, total: u64) -> ControlFlow<()>;
}

impl<F: Fn(u64, u64) -> ControlFlow<()> + Sync> Watch for F {
    fn progress(&self, done: u64, total: u64) -> ControlFlow<()> {
        self(done, total)
    }
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn progress(&self, _: u64, _: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// What a copy did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Virtual size in bytes.
    pub size: u64,
    /// Bytes written as data.
    pub data: u64,
    /// Of these, bytes that are packed now.
    pub packed: u64,
    /// Of these, bytes that the source had packed alike, so that they were passed on as they were.
    pub passed: u64,
    /// Of the data, bytes that did not pass through this process.
    pub offloaded: u64,
    /// Bytes that are zero and were not written.
    pub zero: u64,
    /// Bytes left to the target's backing file.
    pub left: u64,
}
