//! What the tests of anydisk share.
//!
//! - [`double`]: stores that fail, forget what was not flushed, remember what was asked of them.

pub mod double;
pub mod random;

pub use random::Random;
