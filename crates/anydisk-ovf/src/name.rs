//! Names of files in a package: plain, and nothing else.

use anydisk_core::{Error, Result};

/// The name, if it is one of a plain file: no path, no drive, no URL, nothing that cannot be seen.
///
/// # Errors
/// [`Error::Denied`].
pub(crate) fn plain(name: &str) -> Result<&str> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let why = if name.is_empty() || matches!(name, "." | "..") {
        "it names no file"
    } else if name.contains(['/', '\\', ':']) {
        "names in a package are those of its own files, not paths or URLs"
    } else if name.chars().any(char::is_control) {
        "it has control characters"
    } else {
        return Ok(name);
    };
    Err(Error::Denied { role: "file of the package", name: name.to_owned(), why: why.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_taken_and_paths_are_not() {
        for name in ["disk1.vmdk", "./disk1.vmdk", "a b.ovf", "..x", "\u{e9}.mf"] {
            assert!(plain(name).is_ok(), "{name}");
        }
        for name in
            ["", ".", "..", "../x", "/etc/passwd", "a/b", "c:x", "a\\b", "file:x", "a\0b", "a\nb"]
        {
            assert!(plain(name).is_err(), "{name:?}");
        }
    }
}
