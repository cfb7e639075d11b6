//! Passphrases of images encrypted with LUKS: added and removed in place, whatever the power does,
//! and as qemu-img does it.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use anydisk_core::{
    Access, AmendRequest, CreateRequest, Disk, Error, Format, GuestOffset, HostOffset, Limits,
    Location, OpenRequest, Options, PassphraseChange, Result, Secret, SecretRequest, Secrets,
    Storage, StorageExt,
};
use anydisk_qcow2::{Header, QCOW2};
use anydisk_storage::{FileStorage, OpenOptions};
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::oracle::Qemu;
use anydisk_testkit::secrets;

use crate::common::memory;

const FIRST: &str = "correct horse";
const SIZE: u64 = 1 << 20;
const LUKS: &[(&str, &str)] = &[("encrypt.format", "luks"), ("encrypt.iter-time", "0")];

fn location() -> Location {
    Location::Other("disk".into())
}

/// A small image that holds a pattern, opened by [`FIRST`].
fn image_in(store: Arc<dyn Storage>, given: &[(&str, &str)]) {
    let mut options = Options::of(&QCOW2);
    given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
    let (location, limits) = (location(), Limits::default());
    let request = CreateRequest::new(store, &location, SIZE, &options, &limits);
    let image = QCOW2.create(CreateRequest { secrets: &*secrets(Some(FIRST)), ..request });
    let disk = Disk::new(image.expect("an image can be made"));
    disk.write(GuestOffset(70_000), &[7; 5000]).expect("written");
    disk.flush().expect("flushed");
}

fn image(given: &[(&str, &str)]) -> Arc<dyn Storage> {
    let store = memory();
    image_in(Arc::clone(&store), given);
    store
}

fn contents(store: &Arc<dyn Storage>, passphrase: &str) -> Result<Vec<u8>> {
    let (location, limits) = (location(), Limits::default());
    let request = OpenRequest::new(Arc::clone(store), &location, &limits);
    let opened = QCOW2.open(OpenRequest { secrets: &*secrets(Some(passphrase)), ..request })?;
    let disk = Disk::new(opened.image);
    let mut bytes = vec![0; 80_000];
    disk.read(GuestOffset(0), &mut bytes)?;
    Ok(bytes)
}

/// Whether the passphrase opens the image, which then must hold the pattern.
fn opens(store: &Arc<dyn Storage>, passphrase: &str) -> bool {
    match contents(store, passphrase) {
        Ok(bytes) => {
            assert!(bytes[70_000..75_000] == [7; 5000] && bytes[..70_000].iter().all(|b| *b == 0));
            true
        }
        Err(Error::Secret { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

fn change(store: &Arc<dyn Storage>, change: &PassphraseChange, force: bool) -> Result<()> {
    let (location, limits) = (location(), Limits::default());
    let request = OpenRequest::new(Arc::clone(store), &location, &limits);
    QCOW2.change_passphrases(&OpenRequest { access: Access::ReadWrite, ..request }, change, force)
}

fn add(current: &str, new: &str) -> PassphraseChange {
    let (current, new) = (secret(current), secret(new));
    let mut change = PassphraseChange::add(current, new);
    if let PassphraseChange::Add { time, .. } = &mut change {
        *time = Duration::ZERO;
    }
    change
}

fn remove(passphrase: &str) -> PassphraseChange {
    PassphraseChange::Remove { passphrase: secret(passphrase) }
}

/// Gives secrets by their options.
#[derive(Debug)]
struct Named(&'static [(&'static str, &'static str)]);

impl Secrets for Named {
    fn secret(&self, request: &SecretRequest<'_>) -> Result<Option<Secret>> {
        let found = self.0.iter().find(|(option, _)| *option == request.option);
        Ok(found.map(|(_, text)| secret(text)))
    }
}

fn amend(store: &Arc<dyn Storage>, secrets: &Named, given: &[(&str, &str)]) -> Result<()> {
    let mut options = Options::to_amend(&QCOW2);
    for (name, value) in given {
        options.set(name, value)?;
    }
    let (location, limits) = (location(), Limits::default());
    let request = OpenRequest::new(Arc::clone(store), &location, &limits);
    let open = OpenRequest { access: Access::ReadWrite, secrets, ..request };
    QCOW2.amend(AmendRequest { open, options: &options, force: false })
}

#[test]
fn a_passphrase_is_added_opens_the_image_and_is_removed_again() {
    for cluster in ["512", "65536"] {
        let store = image(&[LUKS, &[("cluster_size", cluster)]].concat());
        change(&store, &add(FIRST, "second"), false).unwrap();
        assert!(opens(&store, FIRST) && opens(&store, "second"));
        change(&store, &add("second", "third"), false).unwrap();
        change(&store, &remove(FIRST), false).unwrap();
        assert!(!opens(&store, FIRST) && opens(&store, "second") && opens(&store, "third"));
        let error = change(&store, &remove(FIRST), false).unwrap_err();
        assert!(matches!(error, Error::Secret { .. }), "{error}");
    }
}

#[test]
fn the_last_passphrase_is_removed_only_by_force() {
    let store = image(LUKS);
    change(&store, &add(FIRST, FIRST), false).unwrap();
    let error = change(&store, &remove(FIRST), false).unwrap_err();
    assert!(error.to_string().contains("all data is lost"), "{error}");
    let first = PassphraseChange::RemoveSlot { slot: 0, passphrase: None };
    change(&store, &first, false).unwrap();
    let last = PassphraseChange::RemoveSlot { slot: 1, passphrase: Some(secret(FIRST)) };
    let error = change(&store, &last, false).unwrap_err();
    assert!(error.to_string().contains("only by force"), "{error}");
    assert!(opens(&store, FIRST));
    change(&store, &last, true).unwrap();
    assert!(!opens(&store, FIRST));
}

#[test]
fn amending_takes_the_options_of_qemu_img_and_says_what_it_misses() {
    let store = image(LUKS);
    let all = Named(&[
        ("encrypt.key-secret", FIRST),
        ("encrypt.new-secret", "second"),
        ("encrypt.old-secret", "second"),
    ]);
    let active = [("encrypt.state", "active"), ("encrypt.iter-time", "0")];
    let inactive = [("encrypt.state", "inactive")];
    let slot = [("encrypt.keyslot", "5")];
    amend(&store, &all, &[&active[..], &slot].concat()).unwrap();
    assert!(opens(&store, FIRST) && opens(&store, "second"));
    let refused =
        |secrets, given: &[(&str, &str)]| amend(&store, secrets, given).unwrap_err().to_string();
    let told = refused(&all, &[&active[..], &slot].concat());
    assert!(told.contains("key slot 5 is in use"), "{told}");
    assert_eq!(refused(&Named(&[]), &active), "encrypt.key-secret: a passphrase is needed");
    let wrong = Named(&[("encrypt.key-secret", "x"), ("encrypt.new-secret", "y")]);
    let told = "encrypt.key-secret: invalid password, cannot unlock any key slot";
    assert_eq!(refused(&wrong, &active), told);
    let told = "qcow2: option encrypt.keyslot=: expected a key slot or encrypt.old-secret";
    assert_eq!(refused(&Named(&[]), &inactive), told);
    let told = "qcow2: option encrypt.state=: expected active or inactive";
    assert_eq!(refused(&all, &slot), told);
    let given = [inactive[0], ("encrypt.iter-time", "7")];
    assert!(refused(&all, &given).contains("nothing where a passphrase is removed"));
    let given = [active[0], ("encrypt.old-secret", "x")];
    assert!(refused(&all, &given).contains("nothing where a passphrase is added"));
    let given = [inactive[0], ("refcount_bits", "3")];
    assert!(refused(&all, &given).contains("a power of two"));
    assert!(opens(&store, "second"));
    amend(&store, &all, &[inactive[0], ("lazy_refcounts", "on")]).unwrap();
    assert!(opens(&store, FIRST) && !opens(&store, "second"));
    assert!(Header::read(&*store, &Limits::default()).unwrap().has_lazy_refcounts());
}

#[test]
fn an_image_without_key_slots_is_refused_by_name() {
    for (given, expected) in [
        (&[][..], "qcow2: changing passphrases of an image that is not encrypted is not supported"),
        (
            &[("encrypt.format", "aes")],
            "qcow2: changing the passphrase of the legacy AES encryption is not supported",
        ),
    ] {
        let error = change(&image(given), &add(FIRST, "second"), false).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

/// Whose data is worth protecting must be able to take a passphrase away, whatever state the tables
/// are in.
#[test]
fn passphrases_change_also_where_clusters_are_lost() {
    let store = image(LUKS);
    let header = Header::read(&*store, &Limits::default()).unwrap();
    let mut word = [0; 8];
    store.read_exact_at(header.refcount_table_offset, &mut word).unwrap();
    // The count of a cluster that nothing names.
    store.write_at(HostOffset(u64::from_be_bytes(word) + 2 * 1000), &[0, 1]).unwrap();
    change(&store, &add(FIRST, "second"), false).unwrap();
    assert!(opens(&store, "second"));
}

#[test]
fn a_luks_header_that_shares_clusters_with_a_table_is_not_written() {
    let store = image(LUKS);
    let header = Header::read(&*store, &Limits::default()).unwrap();
    let (at, len) = header.crypto_header().unwrap();
    // The same bytes over the L1 table: the image says so, and they make a LUKS header.
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    store.read_exact_at(at, &mut bytes).unwrap();
    store.write_at(header.l1_table_offset, &bytes).unwrap();
    let mut moved = header.clone();
    let pointer = [header.l1_table_offset.get(), len].map(u64::to_be_bytes).concat();
    moved.extensions.iter_mut().filter(|one| one.data.len() == 16).for_each(|one| {
        one.data.clone_from(&pointer);
    });
    store.write_at(HostOffset(0), &moved.to_bytes().unwrap()).unwrap();
    let error = change(&store, &add(FIRST, "second"), false).unwrap_err();
    assert!(matches!(error, Error::NeedsRepair { .. }), "{error}");
}

/// The place of the key material of a slot: LUKS1, keys of 64 bytes.
fn material(store: &Arc<dyn Storage>, slot: u64) -> Vec<u8> {
    let header = Header::read(&**store, &Limits::default()).unwrap();
    let (at, _) = header.crypto_header().unwrap();
    let mut bytes = vec![0; 64 * 4000];
    let inside = (8 + slot * 504) * 512;
    store.read_exact_at(at.saturating_add(inside), &mut bytes).unwrap();
    bytes
}

#[test]
fn of_a_removed_passphrase_nothing_is_left_in_the_file() {
    let store = image(LUKS);
    change(&store, &add(FIRST, "second"), false).unwrap();
    let before = material(&store, 1);
    change(&store, &remove("second"), false).unwrap();
    let after = material(&store, 1);
    let same = before.chunks(64).zip(after.chunks(64)).filter(|(old, new)| old == new).count();
    assert_eq!(same, 0, "stripes that are still there");
}

#[test]
fn after_any_power_failure_each_passphrase_opens_the_image_or_does_not() {
    let changes = [add(FIRST, "second"), remove("other")];
    for (number, change_made) in changes.iter().enumerate() {
        let original = image(&[LUKS, &[("encrypt.cipher-alg", "aes-128")]].concat());
        change(&original, &add(FIRST, "other"), false).unwrap();
        let mut bytes = vec![0; usize::try_from(original.len().unwrap()).unwrap()];
        original.read_exact_at(HostOffset(0), &mut bytes).unwrap();
        let crash = CrashStorage::over(bytes);
        let store: Arc<dyn Storage> = Arc::new(crash.clone());
        change(&store, change_made, false).unwrap();
        crash.mark();
        let mut seen = [false; 2];
        for state in crash.torn_states(40, 7) {
            let store: Arc<dyn Storage> = state.storage();
            assert!(opens(&store, FIRST), "{change_made:?}\n{state}");
            let is_open = opens(&store, if number == 0 { "second" } else { "other" });
            seen[usize::from(is_open)] = true;
            let wanted = number == 0;
            assert!(state.marks() == 0 || is_open == wanted, "{change_made:?}\n{state}");
            change(&store, &add(FIRST, "later"), false).unwrap();
            assert!(opens(&store, "later"));
        }
        assert_eq!(seen, [true, true], "{change_made:?}");
    }
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"))
}

fn secret_object(id: &str, text: &str) -> String {
    format!("secret,id={id},data={text}")
}

fn opts(path: &Path) -> String {
    format!("driver=qcow2,encrypt.key-secret=s,file.filename={}", path.display())
}

/// Whether qemu-img reads the image with this passphrase, and the same as we do.
fn qemu_opens(path: &Path, raw: &Path, passphrase: &str) -> bool {
    let (object, to) = (secret_object("s", passphrase), raw.display().to_string());
    let image = opts(path);
    let output = run(
        "qemu-img",
        &["convert", "--object", &object, "--image-opts", &image, "-O", "raw", &to],
    );
    if !output.status.success() {
        return false;
    }
    let bytes = std::fs::read(raw).unwrap();
    assert!(bytes[70_000..75_000] == [7; 5000]);
    true
}

#[test]
fn passphrases_of_one_program_open_for_the_other_and_are_removed_by_it() {
    let Some(_) = Qemu::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, raw) = (folder.path().join("image.qcow2"), folder.path().join("raw"));
    std::fs::File::create_new(&path).unwrap();
    let file = || -> Arc<dyn Storage> {
        Arc::new(FileStorage::open(&path, &OpenOptions::new().write(true)).unwrap())
    };
    image_in(file(), LUKS);
    let by_qemu = |current: &str, given: &str| {
        let (old, new) = (secret_object("s", current), secret_object("n", "third"));
        let image = opts(&path);
        let arguments =
            ["amend", "--object", &old, "--object", &new, "-o", given, "--image-opts", &image];
        let output = run("qemu-img", &arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    change(&file(), &add(FIRST, "second"), false).unwrap();
    assert!(qemu_opens(&path, &raw, "second") && qemu_opens(&path, &raw, FIRST));
    let add_third = "encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10";
    by_qemu("second", add_third);
    assert!(opens(&file(), "third"));
    by_qemu("third", "encrypt.state=inactive,encrypt.keyslot=0");
    assert!(!opens(&file(), FIRST) && opens(&file(), "second"));
    change(&file(), &remove("second"), false).unwrap();
    assert!(!qemu_opens(&path, &raw, "second") && qemu_opens(&path, &raw, "third"));
    let image = opts(&path);
    let object = secret_object("s", "third");
    let checked = run("qemu-img", &["check", "--object", &object, "--image-opts", &image]);
    assert!(checked.status.success(), "{checked:?}");
}
