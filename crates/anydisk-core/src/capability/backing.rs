//! Changing which image lies below.

use crate::{Error, Reference, Result};

/// Changes what an image says of the image below it, and nothing else: no data is moved.
pub trait BackingLink {
    /// Names another image below, or none. Durable when it returns.
    ///
    /// The caller guarantees that what the disk shows stays right, or that it knows what it does.
    fn set_backing(&self, backing: Option<&Reference>) -> Result<()>;

    /// Whether this image can be [emptied](Self::make_empty): a commit asks before it writes anything.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it cannot; so answers the default.
    fn check_emptying(&self) -> Result<()> {
        Err(cannot_empty())
    }

    /// What emptying does, where [`check_emptying`](Self::check_emptying) says that it can be done: nobody
    /// else calls it.
    ///
    /// # Errors
    /// Those of the store.
    fn forget_everything(&self) -> Result<()> {
        Err(cannot_empty())
    }

    /// Forgets everything the image holds itself, so that it shows the image below everywhere.
    /// Durable when it returns; cut short, it may have forgotten a part. The caller guarantees that
    /// the image below holds the same, and that nobody writes meanwhile. No format makes its own of this.
    ///
    /// # Errors
    /// What [`check_emptying`](Self::check_emptying) says, and nothing changed; those of the store.
    fn make_empty(&self) -> Result<()> {
        self.check_emptying()?;
        self.forget_everything()
    }
}

fn cannot_empty() -> Error {
    Error::Unsupported { format: "its format", feature: "emptying an image".into() }
}
