//! What a path can name, and which of it is a store.

use rustix::fs::FileType;

/// The kinds of files that hold positional bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A regular file: has a length that can change, may have holes.
    Regular,
    /// A block device: its length is given.
    Block,
}

/// The kind of store that a file type is, if it is one.
pub(crate) fn of(file_type: FileType) -> Option<FileKind> {
    match file_type {
        FileType::RegularFile => Some(FileKind::Regular),
        FileType::BlockDevice => Some(FileKind::Block),
        _ => None,
    }
}

/// The file type in words, with its article.
pub(crate) fn word(file_type: FileType) -> &'static str {
    match file_type {
        FileType::RegularFile => "a regular file",
        FileType::BlockDevice => "a block device",
        FileType::CharacterDevice => "a character device",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        _ => "a file of unknown type",
    }
}
