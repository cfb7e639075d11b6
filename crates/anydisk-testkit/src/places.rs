//! Where things are in the workspace.

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub(crate) fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate is two folders below the root")
}

/// The golden images.
pub(crate) fn golden() -> PathBuf {
    workspace().join("tests/golden")
}
