//! Encrypted images whose data lies in another file, and qemu as judge both ways.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anydisk_core::{
    Access, Companions, CreateRequest, Disk, Format, GuestOffset, HostOffset, Limits, Located,
    Location, OpenRequest, Options, Preallocation, Reference, Resolver, Result, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_storage::{FileStorage, OpenOptions, StorageExt};
use anydisk_testkit::contents;
use anydisk_testkit::oracle::Qemu;
use anydisk_testkit::secrets;

use crate::common::{Given, memory, range};

const PASSPHRASE: &str = "correct horse";
const SIZE: u64 = 1 << 20;

/// The data file, whoever asks for it.
#[derive(Clone, Debug)]
struct Beside(Arc<dyn Storage>);

impl Resolver for Beside {
    fn resolve(&self, _: &Reference, _: &Location, _: Access) -> Result<Located> {
        Ok(Located { store: Arc::clone(&self.0), location: Location::Other("data".into()) })
    }
}

impl Companions for Beside {
    fn make(&self, reference: &Reference) -> Result<Located> {
        self.resolve(reference, &Location::Other("image".into()), Access::ReadWrite)
    }
}

fn create(store: &Arc<dyn Storage>, data: &Beside, given: Given<'_>) -> Disk {
    let mut options = Options::of(&QCOW2);
    for (name, value) in given.iter().chain(&[("data_file", "data")]) {
        options.set(name, value).expect("an option");
    }
    let (location, limits) = (Location::Other("image".into()), Limits::default());
    let request = CreateRequest::new(Arc::clone(store), &location, SIZE, &options, &limits);
    let secrets = secrets(Some(PASSPHRASE));
    let request = CreateRequest { companions: data, secrets: &*secrets, ..request };
    let disk = Disk::new(QCOW2.create(request).expect("an image can be made"));
    disk.flush().expect("flushed");
    disk
}

fn open(store: &Arc<dyn Storage>, data: &Beside) -> Disk {
    let request = OpenRequest {
        store: Arc::clone(store),
        location: &Location::Other("image".into()),
        access: Access::ReadWrite,
        resolver: data,
        limits: &Limits::default(),
        secrets: &*secrets(Some(PASSPHRASE)),
    };
    Disk::new(QCOW2.open(request).expect("it opens").image)
}

const KINDS: [Given<'_>; 4] = [
    &[("encrypt.format", "luks"), ("encrypt.iter-time", "10")],
    &[("encrypt.format", "luks"), ("encrypt.iter-time", "10"), ("data_file_raw", "on")],
    &[("encrypt.format", "aes"), ("cluster_size", "4k")],
    &[("encrypt.format", "aes"), ("data_file_raw", "on"), ("cluster_size", "512")],
];

#[test]
fn all_data_lies_encrypted_where_the_guest_has_it_and_what_is_new_reads_as_zero() {
    for given in KINDS {
        let (store, data) = (memory(), Beside(memory()));
        let disk = create(&store, &data, given);
        assert!(contents(&disk).iter().all(|byte| *byte == 0), "{given:?}: a new disk");
        disk.write(GuestOffset(70_000), &b"a secret that nobody may see".repeat(40)).unwrap();
        disk.zero(range(71_000, 20), true).unwrap();
        disk.resize(3 << 20, Preallocation::Off).unwrap();
        disk.flush().unwrap();
        let expected = contents(&disk);
        assert!(expected[1 << 20..].iter().all(|byte| *byte == 0), "{given:?}: grown");
        assert_eq!(&expected[70_000..70_008], b"a secret");
        let mut bytes = vec![0; usize::try_from(data.0.len().unwrap()).unwrap()];
        data.0.read_exact_at(HostOffset(0), &mut bytes).unwrap();
        assert!(bytes[70_000..71_000].iter().any(|byte| *byte != 0), "{given:?}");
        assert!(!bytes.windows(6).any(|bytes| bytes == b"secret"), "{given:?}");
        assert!(contents(&open(&store, &data)) == expected, "{given:?}");
    }
}

/// What a discard leaves is old bytes or zeroes, whatever the power does; never noise.
#[test]
fn a_discard_leaves_no_noise_where_the_old_tables_come_back() {
    for given in KINDS {
        let (store, data) = (memory(), Beside(memory()));
        let disk = create(&store, &data, given);
        disk.write(GuestOffset(0), &[7; 128 << 10]).unwrap();
        disk.flush().unwrap();
        disk.discard(range(0, 64 << 10)).unwrap();
        // Nothing was flushed: the tables on the medium are the old ones.
        drop(disk);
        let after = contents(&open(&store, &data));
        assert!(after[..128 << 10].iter().all(|byte| matches!(*byte, 0 | 7)), "{given:?}");
    }
}

fn qemu(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it was found");
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
    told
}

const OBJECT: &str = "secret,id=s,data=correct horse";

fn opts(image: &Path, data: &Path) -> String {
    format!(
        "driver=qcow2,encrypt.key-secret=s,file.filename={},data-file.driver=file,\
         data-file.filename={}",
        image.display(),
        data.display()
    )
}

#[test]
fn qemu_reads_what_is_written_here_and_the_other_way_round() {
    let Some(_) = Qemu::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let file = |name: &str| -> Arc<dyn Storage> {
        Arc::new(FileStorage::open(path(name), &OpenOptions::new().write(true)).unwrap())
    };
    let image = opts(&path("image"), &path("data"));
    let judge = |expected: &[u8], given: Given<'_>| {
        let raw = path("raw").display().to_string();
        let from = ["convert", "--object", OBJECT, "--image-opts", &image, "-O", "raw", &raw];
        qemu("qemu-img", &from);
        assert!(std::fs::read(path("raw")).unwrap() == expected, "{given:?}");
        qemu("qemu-img", &["check", "--object", OBJECT, "--image-opts", &image]);
    };
    for (number, given) in KINDS.into_iter().enumerate() {
        for name in ["image", "data"] {
            std::fs::File::create(path(name)).unwrap();
        }
        let disk = create(&file("image"), &Beside(file("data")), given);
        disk.write(GuestOffset(3000), &[5; 200_000]).unwrap();
        disk.zero(range(70_000, 60_000), true).unwrap();
        disk.flush().unwrap();
        let expected = contents(&disk);
        drop(disk);
        judge(&expected, given);
        if matches!(number, 1 | 2) {
            continue; // It takes qemu-img seconds to make one.
        }
        let mut options = format!("encrypt.key-secret=s,data_file={}", path("data").display());
        given.iter().for_each(|(name, value)| options.push_str(&format!(",{name}={value}")));
        let to = path("image").display().to_string();
        let make = ["create", "-q", "-f", "qcow2", "--object", OBJECT, "-o", &options, &to, "1M"];
        qemu("qemu-img", &make);
        let written = ["-c", "write -P 9 0 1M", "-c", "write -z 100k 64k"];
        let io = [&["--object", OBJECT, "--image-opts", &image][..], &written].concat();
        qemu("qemu-io", &io);
        let disk = open(&file("image"), &Beside(file("data")));
        let found = contents(&disk);
        let is_zero = |at: usize| (100 << 10..164 << 10).contains(&at);
        let fits = |(at, byte): (usize, &u8)| *byte == if is_zero(at) { 0 } else { 9 };
        assert!(found.iter().enumerate().all(fits), "{given:?}: written by qemu");
        disk.write(GuestOffset(511), &[3; 150_000]).unwrap();
        disk.flush().unwrap();
        let expected = contents(&disk);
        drop(disk);
        judge(&expected, given);
    }
}
