//! Encrypted images: LUKS and the legacy AES, and qemu-img as judge both ways.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, DetailValue, Disk, Error, Format, GuestOffset, GuestRange, Image,
    ImageWrite, Limits, Location, MeasureRequest, NewSnapshot, OpenRequest, Options, Result,
    SnapshotRef, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_storage::{FileStorage, MemoryStorage, OpenOptions, StorageExt};
use anydisk_testkit::oracle::Qemu;
use anydisk_testkit::secrets;
use anydisk_testkit::suite::FormatFixture;

const PASSPHRASE: &str = "correct horse";
const SIZE: u64 = 1 << 20;

fn images(cluster: u64) -> FormatFixture {
    FormatFixture::new(&QCOW2, cluster)
        .option("cluster_size", &cluster.to_string())
        .granularity(512)
        .over("qcow2")
        .passphrase(PASSPHRASE)
}

/// Not all of the suite: what has to do with tables alone is the same for all images.
mod luks {
    use super::*;

    fn encrypted() -> FormatFixture {
        images(4096)
            .option("encrypt.format", "luks")
            .option("encrypt.iter-time", "0")
            .option("encrypt.cipher-alg", "aes-128")
    }

    anydisk_testkit::behaviour_tests! { encrypted();
        contents::a_new_image_reads_as_zero_and_says_so,
        contents::map_and_read_agree,
        contents::a_discard_never_shows_old_bytes_of_the_host,
        contents::what_was_flushed_is_there_when_the_image_is_opened_again,
        contents::a_grown_disk_reads_zero_behind_its_old_end,
        refusals::an_image_opened_for_reading_refuses_to_change_and_writes_nothing,
        chain::a_write_of_a_part_keeps_the_rest_from_below,
        history::random_histories_equal_a_byte_vector,
        crash::after_any_crash_of_a_random_history_what_was_flushed_is_there,
        threads::readers_see_sectors_of_before_or_after_a_write,
        threads::writers_of_the_same_range_leave_sectors_whole,
        space::space_that_was_given_back_is_used_again,
        faults::an_error_of_any_call_surfaces_and_leaves_the_image_usable,
    }
}

mod aes {
    use super::*;

    fn encrypted() -> FormatFixture {
        images(512).option("encrypt.format", "aes")
    }

    anydisk_testkit::behaviour_tests! { encrypted();
        contents::a_new_image_reads_as_zero_and_says_so,
        contents::map_and_read_agree,
        contents::what_was_flushed_is_there_when_the_image_is_opened_again,
        chain::a_write_of_a_part_keeps_the_rest_from_below,
        history::random_histories_equal_a_byte_vector,
        threads::writers_of_the_same_range_leave_sectors_whole,
        space::space_that_was_given_back_is_used_again,
    }
}

fn options(given: &[(&str, &str)]) -> Options {
    let mut options = Options::of(&QCOW2);
    for (name, value) in given {
        options.set(name, value).expect("an option");
    }
    options
}

const LUKS: &[(&str, &str)] = &[("encrypt.format", "luks"), ("encrypt.iter-time", "0")];

fn create(store: Arc<dyn Storage>, given: &[(&str, &str)]) -> Result<Arc<dyn Image>> {
    let (location, limits, options) =
        (Location::Other("disk".into()), Limits::default(), options(given));
    let request = CreateRequest::new(store, &location, SIZE, &options, &limits);
    QCOW2.create(CreateRequest { secrets: &*secrets(Some(PASSPHRASE)), ..request })
}

fn open(
    store: &Arc<dyn Storage>,
    access: Access,
    passphrase: Option<&str>,
) -> Result<Arc<dyn Image>> {
    let (location, limits) = (Location::Other("disk".into()), Limits::default());
    let request = OpenRequest::new(Arc::clone(store), &location, &limits);
    let request = OpenRequest { access, secrets: &*secrets(passphrase), ..request };
    Ok(QCOW2.open(request)?.image)
}

fn memory() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::default())
}

#[test]
fn no_byte_of_the_data_is_in_the_file() {
    for given in [LUKS, &[("encrypt.format", "aes")]] {
        let store = memory();
        let disk = Disk::new(create(Arc::clone(&store), given).unwrap());
        disk.write(GuestOffset(70_000), &b"a secret that nobody may see".repeat(40)).unwrap();
        disk.flush().unwrap();
        let mut file = vec![0; usize::try_from(store.len().unwrap()).unwrap()];
        store.read_exact_at(anydisk_core::HostOffset(0), &mut file).unwrap();
        assert!(!file.windows(6).any(|bytes| bytes == b"secret"));
    }
}

#[test]
fn a_wrong_passphrase_is_refused_with_luks_and_gives_noise_with_aes() {
    let store = memory();
    drop(create(Arc::clone(&store), LUKS).unwrap());
    let error = open(&store, Access::Read, Some("wrong")).unwrap_err();
    let told = "encrypt.key-secret: invalid password, cannot unlock any key slot";
    assert_eq!(error.to_string(), told);

    let store = memory();
    let disk = Disk::new(create(Arc::clone(&store), &[("encrypt.format", "aes")]).unwrap());
    disk.write(GuestOffset(0), &[7; 512]).unwrap();
    disk.flush().unwrap();
    let mut bytes = [7; 512];
    Disk::new(open(&store, Access::Read, Some("wrong")).unwrap())
        .read(GuestOffset(0), &mut bytes)
        .unwrap();
    assert_ne!(bytes, [7; 512]);
}

#[test]
fn without_a_passphrase_all_but_the_data_is_told_and_nothing_is_written() {
    for given in [LUKS, &[("encrypt.format", "aes")]] {
        let store = memory();
        let disk = Disk::new(create(Arc::clone(&store), given).unwrap());
        disk.write(GuestOffset(0), &[7; 512]).unwrap();
        disk.flush().unwrap();
        let image = open(&store, Access::Read, None).unwrap();
        let info = image.info();
        assert!(info.encrypted);
        let encrypt = info.details.iter().find(|detail| detail.name == "encrypt").unwrap();
        let DetailValue::Map(fields) = &encrypt.value else { panic!("named values") };
        let format = fields.iter().find(|field| field.name == "format").unwrap();
        assert_eq!(format.value, DetailValue::Text(given[0].1.into()));
        let behind = GuestRange::between(GuestOffset(65536), GuestOffset(SIZE));
        let error = image.map(behind).unwrap_err();
        assert!(matches!(error, Error::Secret { .. }), "nothing is stored there: {error}");
        let error = Disk::new(image).read(GuestOffset(0), &mut [0]).unwrap_err();
        assert!(matches!(error, Error::Secret { .. }), "{error}");
        let error = open(&store, Access::ReadWrite, None).unwrap_err();
        assert!(matches!(error, Error::Secret { option: "encrypt.key-secret", .. }), "{error}");
    }
}

#[test]
fn what_does_not_go_with_encryption_is_refused() {
    let (location, limits, options) =
        (Location::Other("disk".into()), Limits::default(), options(LUKS));
    let request = CreateRequest::new(memory(), &location, SIZE, &options, &limits);
    let error = QCOW2.create(request).unwrap_err();
    assert!(matches!(error, Error::Secret { .. }), "{error}");
    let image = create(memory(), LUKS).unwrap();
    let writer: &dyn ImageWrite = image.writer().unwrap();
    assert!(writer.packing().is_none());
    let unit = GuestRange::whole(65536);
    assert!(matches!(writer.try_place_encoded(unit, 100), Err(Error::Unsupported { .. })));
}

#[test]
fn options_of_an_encryption_without_the_encryption_make_no_plain_image() {
    for option in [("encrypt.key-secret", "s"), ("encrypt.cipher-alg", "aes-128")] {
        let refused = create(memory(), &[option]).expect_err("which encryption?");
        assert!(refused.to_string().contains("encrypt.format"), "{refused}");
    }
    let twice = [("encryption", "on"), ("encrypt.format", "luks")];
    let refused = create(memory(), &twice).expect_err("aes or LUKS?");
    assert!(refused.to_string().contains("encryption=on"), "{refused}");
}

#[test]
fn preallocated_clusters_read_as_zero() {
    for how in ["metadata", "full"] {
        for given in [LUKS, &[("encrypt.format", "aes")]] {
            let given = [given, &[("preallocation", how)]].concat();
            let disk = Disk::new(create(memory(), &given).unwrap());
            let mut bytes = vec![1; usize::try_from(SIZE).unwrap()];
            disk.read(GuestOffset(0), &mut bytes).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0), "{given:?}");
        }
    }
}

#[test]
fn a_snapshot_is_read_with_the_key_of_the_image_and_the_disk_goes_on_beside_it() {
    for given in [LUKS, &[("encrypt.format", "aes")]] {
        let store = memory();
        let image = create(Arc::clone(&store), given).unwrap();
        let disk = Disk::new(Arc::clone(&image));
        scribble(&disk);
        let before = content(&disk);
        let snapshots = image.snapshots().unwrap();
        let new = NewSnapshot { name: "before".into(), date: (0, 0) };
        let info = snapshots.create(&new).unwrap();
        disk.write(GuestOffset(100), &[9; 200_000]).unwrap();
        disk.flush().unwrap();
        let kept = Disk::new(snapshots.open(&SnapshotRef::Id(info.id.clone())).unwrap());
        assert!(content(&kept) == before, "{given:?}");
        drop(kept);
        snapshots.apply(&SnapshotRef::Id(info.id)).unwrap();
        assert!(content(&disk) == before, "{given:?}");
        disk.write(GuestOffset(65_536), &[5; 512]).unwrap();
        disk.flush().unwrap();
        let again = Disk::new(open(&store, Access::Read, Some(PASSPHRASE)).unwrap());
        assert!(content(&again) == content(&disk), "{given:?}");
    }
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"))
}

#[track_caller]
fn succeed(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const OBJECT: &str = "secret,id=s,data=correct horse";

fn opts(path: &Path, format: &str) -> String {
    format!(
        "driver=qcow2,encrypt.format={format},encrypt.key-secret=s,file.filename={}",
        path.display()
    )
}

fn file(path: &Path) -> Arc<dyn Storage> {
    Arc::new(FileStorage::open(path, &OpenOptions::new().write(true)).expect("a file"))
}

#[track_caller]
fn assert_undamaged(image: &str) {
    let output = run("qemu-img", &["check", "--object", OBJECT, "--image-opts", image]);
    // 3: leaks, and nothing worse.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{image}: {output:?}");
}

/// Data here and there, in pieces that are no whole sectors.
fn scribble(disk: &Disk) {
    for (at, len, byte) in
        [(0, 700, 1), (65_536, 65_536, 2), (300_001, 99_999, 3), (SIZE - 9, 9, 4)]
    {
        disk.write(GuestOffset(at), &vec![byte; len]).unwrap();
    }
    disk.zero(GuestRange::between(GuestOffset(66_000), GuestOffset(70_000)), true).unwrap();
    disk.flush().unwrap();
}

fn content(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.size()).unwrap()];
    disk.read(GuestOffset(0), &mut bytes).unwrap();
    bytes
}

const ENCRYPTIONS: &[(&str, &[(&str, &str)])] = &[
    ("luks", LUKS),
    (
        "luks",
        &[
            ("encrypt.format", "luks"),
            ("encrypt.iter-time", "0"),
            ("encrypt.cipher-mode", "cbc"),
            ("encrypt.ivgen-alg", "essiv"),
            ("cluster_size", "512"),
        ],
    ),
    ("luks", &[("encrypt.format", "luks"), ("encrypt.iter-time", "0"), ("compat", "v2")]),
    ("luks", &[("encrypt.format", "luks"), ("encrypt.iter-time", "0"), ("extended_l2", "on")]),
    ("aes", &[("encrypt.format", "aes"), ("cluster_size", "4096")]),
];

/// With LUKS a sector is encrypted by its place in the file, so what moves is encrypted anew.
#[test]
fn compacting_moves_encrypted_data_and_it_reads_the_same() {
    let aes: &[(&str, &str)] = &[("encrypt.format", "aes"), ("cluster_size", "4096")];
    for given in [&[LUKS, &[("cluster_size", "4096")]].concat()[..], aes] {
        let store = memory();
        let disk = Disk::new(create(Arc::clone(&store), given).unwrap());
        let data: Vec<u8> = (0..SIZE).map(|at| (at / 512 % 251) as u8 + 1).collect();
        disk.write(GuestOffset(0), &data).unwrap();
        disk.discard(GuestRange::new(GuestOffset(0), SIZE / 2).unwrap()).unwrap();
        disk.flush().unwrap();
        drop(disk);
        let read = |image: Arc<dyn Image>| {
            let mut bytes = vec![0; data.len()];
            Disk::new(image).read(GuestOffset(0), &mut bytes).unwrap();
            bytes
        };
        let before = read(open(&store, Access::Read, Some(PASSPHRASE)).unwrap());
        let len = store.len().unwrap();
        let image = open(&store, Access::ReadWrite, Some(PASSPHRASE)).unwrap();
        let gained = image.compactor().unwrap().compact(&|_, _| true).unwrap();
        assert!(gained >= SIZE / 2 && store.len().unwrap() == len - gained, "{given:?}: {gained}");
        assert!(read(Arc::clone(&image)) == before, "{given:?}");
        drop(image);
        assert!(read(open(&store, Access::Read, Some(PASSPHRASE)).unwrap()) == before, "{given:?}");
        let mut file = vec![0; usize::try_from(store.len().unwrap()).unwrap()];
        store.read_exact_at(anydisk_core::HostOffset(0), &mut file).unwrap();
        assert!(!file.windows(512).any(|bytes| bytes.iter().all(|byte| *byte == 200)));
        let error = open(&store, Access::ReadWrite, None).unwrap_err();
        assert!(matches!(error, Error::Secret { .. }), "{given:?}: {error}");
        if Qemu::find().is_some() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("image.qcow2");
            std::fs::write(&path, &file).unwrap();
            let raw = folder.path().join("raw").display().to_string();
            let image = opts(&path, if given.contains(&LUKS[0]) { "luks" } else { "aes" });
            succeed(
                "qemu-img",
                &["convert", "--object", OBJECT, "--image-opts", &image, "-O", "raw", &raw],
            );
            assert!(std::fs::read(&raw).unwrap() == before, "{given:?}");
            assert_undamaged(&image);
        }
    }
}

#[test]
fn what_is_written_here_is_read_and_found_undamaged_by_qemu_img() {
    let Some(_) = Qemu::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (number, (format, given)) in ENCRYPTIONS.iter().enumerate() {
        let (path, raw) =
            (folder.path().join(format!("{number}.qcow2")), folder.path().join("raw"));
        std::fs::File::create_new(&path).unwrap();
        let disk = Disk::new(create(file(&path), given).unwrap());
        scribble(&disk);
        let expected = content(&disk);
        drop(disk);
        let image = opts(&path, format);
        let to = raw.display().to_string();
        succeed(
            "qemu-img",
            &["convert", "--object", OBJECT, "--image-opts", &image, "-O", "raw", &to],
        );
        assert!(std::fs::read(&raw).unwrap() == expected, "{given:?}");
        assert_undamaged(&image);
    }
}

#[test]
fn what_qemu_img_writes_is_read_told_and_written_here() {
    let Some(_) = Qemu::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    // qemu-img takes its time to make one.
    for (number, (format, given)) in ENCRYPTIONS.iter().enumerate().skip(1).step_by(3) {
        let (path, raw) =
            (folder.path().join(format!("{number}.qcow2")), folder.path().join("raw"));
        let source = Disk::new(create(memory(), given).unwrap());
        scribble(&source);
        std::fs::write(&raw, content(&source)).unwrap();
        let mut options = "encrypt.key-secret=s".to_owned();
        for (name, value) in given.iter().filter(|(name, _)| *name != "encrypt.iter-time") {
            options.push_str(&format!(",{name}={value}"));
        }
        if *format == "luks" {
            options.push_str(",encrypt.iter-time=10");
        }
        let (from, to) = (raw.display().to_string(), path.display().to_string());
        succeed(
            "qemu-img",
            &[
                "convert", "--object", OBJECT, "-f", "raw", "-O", "qcow2", "-o", &options, &from,
                &to,
            ],
        );
        let image = open(&file(&path), Access::ReadWrite, Some(PASSPHRASE)).unwrap();
        let told = succeed("qemu-img", &["info", "--output=json", "-U", &to]);
        let encrypt =
            image.info().details.into_iter().find(|detail| detail.name == "encrypt").unwrap();
        let DetailValue::Map(fields) = encrypt.value else { panic!("named values") };
        for field in fields {
            assert!(told.contains(&format!("\"{}\":", field.name)), "{}: {told}", field.name);
        }
        let disk = Disk::new(image);
        assert!(content(&disk) == content(&source), "{given:?}");
        disk.write(GuestOffset(511), &[9; 70_000]).unwrap();
        disk.flush().unwrap();
        let expected = content(&disk);
        drop(disk);
        let image = opts(&path, format);
        succeed(
            "qemu-img",
            &["convert", "--object", OBJECT, "--image-opts", &image, "-O", "raw", &from],
        );
        assert!(std::fs::read(&raw).unwrap() == expected, "{given:?}");
        assert_undamaged(&image);
    }
}

#[test]
fn an_encrypted_image_is_measured_as_qemu_img_measures_it() {
    let options = options(&LUKS[..1]);
    let request = MeasureRequest { size: SIZE, options: &options, data: &[] };
    let measured = QCOW2.measure(&request).unwrap();
    // qemu-img measure -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s --size 1M
    assert_eq!((measured.required, measured.fully_allocated), (2_424_832, 3_473_408));
}
