//! Threads for work that can be shared.

/// The most threads for one job.
const MOST: usize = 1024;

/// Runs `work` on this thread and beside it on `threads - 1` others, at most 1023, and returns when
/// all are done. Where the system gives fewer, those that are there do the work: it must be such that
/// one thread alone would do all of it.
///
/// # Panics
/// If one of them does, when the others are done.
pub fn on_threads(threads: usize, work: &(impl Fn() + Sync)) {
    std::thread::scope(|scope| {
        for _ in 1..threads.min(MOST) {
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
}
