//! Stores that stand in for real ones and misbehave as real ones do.

mod call;
mod crash;
mod fault;
mod recording;
mod tap;
mod throttle;

pub use call::{Call, Kind};
pub use crash::{CrashState, CrashStates, CrashStorage};
pub use fault::{FaultStorage, Faults};
pub use recording::{Recorder, RecordingStorage};
pub use tap::{Ruling, Tap, Tapped};
pub use throttle::{Delay, ThrottledStorage};

/// What a vectored write writes, in one piece: the medium sees one write.
fn joined(parts: &[std::io::IoSlice<'_>]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.iter().copied()).collect()
}
