//! Changing which image lies below.

use crate::{Reference, Result};

/// Changes what an image says of the image below it, and nothing else: no data is moved.
pub trait BackingLink {
    /// Names another image below, or none. Durable when it returns.
    ///
    /// The caller guarantees that what the disk shows stays right, or that it knows what it does.
    fn set_backing(&self, backing: Option<&Reference>) -> Result<()>;
}
