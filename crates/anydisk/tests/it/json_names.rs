//! Names of the form `json:{...}` inside images: opened where all is trusted, and then no more than the
//! plain name of a file could open; refused everywhere else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anydisk::convert::{NewImage, Settings, Sources, Unwatched, copy_to_file};
use anydisk::luks::LUKS;
use anydisk::qcow2::QCOW2;
use anydisk::storage::{FileStorage, OpenOptions};
use anydisk::{
    CreateRequest, Disk, Error, Format, GuestOffset, LikeQemu, Limits, Listed, Location, OneSecret,
    OpenDisk, Options, Policy, Reference, Resolver, Role, SameFolder, Secret, SecretRequest,
    Secrets,
};

/// A folder with a raw disk of two halves, `1`s and `2`s of 64 KiB.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let halves = [vec![1; 64 << 10], vec![2; 64 << 10]].concat();
    std::fs::write(folder.path().join("base"), halves).expect("written");
    folder
}

/// A name for the file `base` in the folder: the options, with its whole path for FILE.
fn named(folder: &Path, options: &str) -> String {
    let base = folder.join("base");
    format!("json:{}", options.replace("FILE", base.to_str().expect("text")))
}

/// An image of 64 KiB over what `name` names.
fn overlay(folder: &Path, name: &str, format: Option<&str>) -> PathBuf {
    let path = folder.join("top.qcow2");
    let options = OpenOptions::new().write(true).create(true);
    let store = Arc::new(FileStorage::open(&path, &options).expect("a new file"));
    let (location, limits) = (Location::Path(path.clone()), Limits::default());
    let options = Options::of(&QCOW2);
    let mut reference = Reference::new(Role::Backing, name);
    reference.format = format.map(String::from);
    let mut request = CreateRequest::new(store, &location, 64 << 10, &options, &limits);
    request.backing = Some(&reference);
    let image = QCOW2.create(request).expect("it can be made");
    image.writer().expect("it is new").flush().expect("a flush");
    path
}

fn first_byte(disk: &Disk) -> u8 {
    let mut byte = [0];
    disk.read(GuestOffset::ZERO, &mut byte).expect("read");
    byte[0]
}

#[test]
fn where_all_is_trusted_the_file_or_the_part_of_it_is_opened() {
    for (options, format, first) in [
        (r#"{"driver": "raw", "file": {"driver": "file", "filename": "FILE"}}"#, Some("raw"), 1),
        (r#"{"file.filename": "FILE"}"#, Some("raw"), 1),
        (r#"{'driver': 'file', 'filename': 'FILE'}"#, None, 1),
        (r#"{"driver": "raw", "offset": 65536, "file.filename": "FILE"}"#, Some("raw"), 2),
        (
            r#"{"driver": "raw", "offset": 512, "file": {"driver": "raw", "offset": 65024, "filename": "FILE"}}"#,
            None,
            2,
        ),
    ] {
        let folder = folder();
        let top = overlay(folder.path(), &named(folder.path(), options), format);
        let disk = OpenDisk::new().policy(Policy::LikeQemu).path(top);
        let disk = disk.unwrap_or_else(|error| panic!("{options}: {error}"));
        assert_eq!(first_byte(&disk), first, "{options}");
        assert_eq!(disk.layers()[1].location, Location::Path(folder.path().join("base")));
    }
}

#[test]
fn the_driver_in_the_name_is_the_format_unless_the_image_says_another() {
    let folder = folder();
    let name = named(folder.path(), r#"{"driver": "raw", "file.filename": "FILE"}"#);
    // The guest of the disk below wrote the header of an image into it.
    std::fs::rename(overlay(folder.path(), "gone", Some("raw")), folder.path().join("base"))
        .expect("renamed");
    let top = overlay(folder.path(), &name, None);
    let open = || OpenDisk::new().policy(Policy::LikeQemu).path(folder.path().join("top.qcow2"));
    assert_eq!(open().expect("it is raw").layers()[1].image.info().format, "raw");
    std::fs::remove_file(top).expect("removed");
    overlay(folder.path(), &name, Some("qcow2"));
    assert!(open().expect_err("it is an image").to_string().contains("gone"));
}

#[test]
fn no_other_policy_follows_such_a_name() {
    let folder = folder();
    let name = named(folder.path(), r#"{"driver": "raw", "file.filename": "FILE"}"#);
    let top = overlay(folder.path(), &name, Some("raw"));
    let listed = Listed::new([folder.path().join("base")], OpenOptions::new());
    for options in [
        OpenDisk::untrusted(),
        OpenDisk::new(),
        OpenDisk::new().policy(Policy::Custom(Arc::new(SameFolder::default()))),
        OpenDisk::new().policy(Policy::Custom(Arc::new(listed))),
    ] {
        let error = options.path(&top).expect_err("it is refused");
        assert!(matches!(error.kind(), Error::Denied { .. }), "{options:?}: {error}");
    }
}

#[test]
fn only_an_image_below_is_named_so() {
    let folder = folder();
    let name = named(folder.path(), r#"{"driver": "raw", "file.filename": "FILE"}"#);
    let from = Location::Path(folder.path().join("top"));
    for role in [Role::DataFile, Role::Extent, Role::Device] {
        let reference = Reference::new(role, name.as_bytes());
        let error = LikeQemu::default().resolve(&reference, &from, anydisk::Access::Read);
        let error = error.expect_err("it is refused").to_string();
        assert!(error.contains("json") || error.contains("only if they are in a list"), "{error}");
    }
}

#[test]
fn a_name_that_asks_for_more_than_a_file_is_refused_with_the_reason() {
    for (options, why) in [
        (r#"{"driver": "nbd", "host": "x"}"#, "Unknown driver 'nbd'"),
        (
            r#"{"driver": "raw", "file": {"driver": "qcow2", "file.filename": "FILE"}}"#,
            "in an image",
        ),
        (
            r#"{"file": {"driver": "raw", "file.filename": "FILE", "backing": null}}"#,
            "no image below",
        ),
        (r#"{"driver": "raw", "offset": 1048576, "file.filename": "FILE"}"#, "cannot be greater"),
        (r#"{"driver": "raw""#, "Could not parse"),
    ] {
        let folder = folder();
        let top = overlay(folder.path(), &named(folder.path(), options), None);
        let error = OpenDisk::new().policy(Policy::LikeQemu).path(top).expect_err(options);
        assert!(matches!(error.kind(), Error::Denied { .. }), "{options}: {error:?}");
        assert!(error.to_string().contains(why), "{options}: {error}");
    }
}

/// Knows one secret, by its name alone.
#[derive(Debug)]
struct Named(&'static str);

impl Secrets for Named {
    fn secret(&self, request: &SecretRequest<'_>) -> anydisk::Result<Option<Secret>> {
        let is_it = request.id == Some(self.0) && request.option == "key-secret";
        Ok(is_it.then(|| Secret::new(b"swordfish".to_vec())))
    }
}

/// Makes `base` a LUKS container of the two halves.
fn encrypt_base(folder: &Path) {
    let path = folder.join("base");
    let disk = OpenDisk::new().format("raw").path(&path).expect("the disk");
    let mut options = Options::of(&LUKS);
    options.set("iter-time", "10").expect("an option");
    let secrets = OneSecret(Secret::new(b"swordfish".to_vec()));
    let image = NewImage { secrets: &secrets, ..NewImage::new(&LUKS, &options, disk.size()) };
    let (sources, settings) = (Sources::one(&disk), Settings::default());
    let encrypted = folder.join("encrypted");
    copy_to_file(&sources, &encrypted, &image, &settings, &Unwatched).expect("a copy");
    std::fs::rename(encrypted, path).expect("renamed");
}

#[test]
fn a_passphrase_is_asked_for_by_the_name_that_the_image_has_for_it() {
    let folder = folder();
    encrypt_base(folder.path());
    let name = r#"{"driver": "luks", "key-secret": "s", "file.filename": "FILE"}"#;
    let top = overlay(folder.path(), &named(folder.path(), name), Some("luks"));
    let open = |id| {
        let options = OpenDisk::new().policy(Policy::LikeQemu).secrets(Arc::new(Named(id)));
        options.path(&top).expect("it opens")
    };
    assert_eq!(first_byte(&open("s")), 1);
    assert!(open("t").read(GuestOffset::ZERO, &mut [0]).is_err(), "locked");
}

#[test]
fn a_name_says_which_image_is_below_the_one_that_it_names() {
    let folder = folder();
    let middle = overlay(folder.path(), "gone", Some("raw"));
    std::fs::rename(middle, folder.path().join("middle")).expect("renamed");
    let middle = folder.path().join("middle");
    for (backing, first) in
        [("null", 0), (r#"{"driver": "raw", "offset": 65536, "file.filename": "FILE"}"#, 2)]
    {
        let name =
            format!(r#"{{"driver": "qcow2", "file.filename": {middle:?}, "backing": {backing}}}"#);
        let top = overlay(folder.path(), &named(folder.path(), &name), Some("qcow2"));
        let disk = OpenDisk::new().policy(Policy::LikeQemu).path(&top);
        assert_eq!(first_byte(&disk.expect("it opens")), first, "{backing}");
        std::fs::remove_file(top).expect("removed");
    }
}

#[test]
fn a_chain_that_comes_back_to_itself_by_such_a_name_is_a_loop() {
    let folder = folder();
    let top = folder.path().join("top.qcow2");
    let name = format!(
        r#"json:{{"driver": "qcow2", "file": {{"driver": "raw", "offset": 0, "filename": {top:?}}}}}"#
    );
    overlay(folder.path(), &name, Some("qcow2"));
    let error = OpenDisk::new().policy(Policy::LikeQemu).path(top).expect_err("it is refused");
    assert!(matches!(error.kind(), Error::Loop(_)), "{error:?}");
}
