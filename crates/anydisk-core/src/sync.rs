//! What the parts without locks are built of: the standard library, or `loom` when it tries every
//! interleaving of them (see `interleavings.rs`).

#[cfg(anydisk_loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(anydisk_loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};

/// What `SeqCst` says of the change before it and the look behind it. Nothing to be done, but loom
/// takes `SeqCst` for `AcqRel` except in fences.
#[inline]
pub(crate) fn change_before_look() {
    #[cfg(anydisk_loom)]
    atomic::fence(atomic::Ordering::SeqCst);
}

/// Lets others go on, for longer after some times in vain.
pub(crate) fn pause(times: u32) {
    #[cfg(anydisk_loom)]
    {
        let _ = times;
        loom::thread::yield_now();
    }
    #[cfg(not(anydisk_loom))]
    if times < 64 {
        std::thread::yield_now();
    } else {
        std::thread::sleep(std::time::Duration::from_micros(50));
    }
}
