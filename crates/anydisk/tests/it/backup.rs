//! Incremental backups as files.

use std::path::Path;

use anydisk::convert::{NewImage, Settings, Sources, Unwatched, copy_to_file};
use anydisk::{Changes, Disk, GuestOffset, GuestRange, OpenDisk, Options, Result, back_up_changes};

/// One range has changed.
#[derive(Debug)]
struct One(u64, GuestRange);

impl Changes for One {
    fn size(&self) -> u64 {
        self.0
    }

    fn next(&mut self, from: GuestOffset) -> Result<Option<GuestRange>> {
        let rest = GuestRange::between(self.1.start().max(from), self.1.end());
        Ok((!rest.is_empty() && from < self.1.end()).then_some(rest))
    }
}

fn raw(path: &Path, bytes: &[u8]) -> Disk {
    std::fs::write(path, bytes).expect("written");
    OpenDisk::new().format("raw").path(path).expect("it opens")
}

#[test]
fn a_backup_lies_over_the_last_one_in_the_same_folder_and_in_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("other")).expect("a folder");
    let format = anydisk::formats().by_name("qcow2").expect("a format");
    let options = Options::of(format);
    let mut bytes = vec![1; 1 << 20];
    let then = raw(&path("then.raw"), &bytes);
    let image = NewImage::new(format, &options, then.size());
    let settings = Settings::default();
    copy_to_file(&Sources::one(&then), &path("one"), &image, &settings, &Unwatched)
        .expect("copied");
    bytes[70_000..80_000].fill(2);
    let now = raw(&path("now.raw"), &bytes);
    let range = GuestRange::new(GuestOffset(70_000), 10_000).expect("small");
    let back_up = |next: &Path| {
        let mut changes = One(now.size(), range);
        back_up_changes(&now, &mut changes, &path("one"), next, &Unwatched)
    };
    let error = back_up(&path("other/two")).unwrap_err().to_string();
    assert!(error.contains("another folder"), "{error}");
    assert!(!path("other/two").exists());
    // The same folder by another way.
    back_up(&path("other/../two")).expect("backed up");
    let backup = OpenDisk::new().path(path("two")).expect("it opens");
    let mut found = vec![0; bytes.len()];
    backup.read(GuestOffset(0), &mut found).expect("it reads");
    assert!(found == bytes);
}
