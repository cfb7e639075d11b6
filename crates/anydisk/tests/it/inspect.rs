//! What is told of strangers' images, and whether they are taken.

use std::sync::Arc;
use std::time::Duration;

use anydisk::convert::NewImage;
use anydisk::inspect::{Certainty, Inspection, Judgement, MarkKind, Rules};
use anydisk::qcow2::QCOW2;
use anydisk::storage::{MemoryStorage, Storage};
use anydisk::{
    Access, Disk, GuestOffset, HostOffset, Located, Location, OpenDisk, Options, Policy, Reference,
    Resolver, Result, Role,
};
use anydisk_testkit::Random;
use anydisk_testkit::golden::{OpenVerdict, ReadVerdict, cases};
use anydisk_testkit::mutant::{Damage, Nasty};

/// The built-in formats that there are golden images of.
const FORMATS: [&str; 11] =
    ["asif", "bochs", "cloop", "dmg", "luks", "qcow", "qcow2", "qed", "simg", "vdi", "vmdk"];

/// Opens nothing, and does not even want to be asked.
#[derive(Debug)]
struct Untouchable;

impl Resolver for Untouchable {
    fn resolve(&self, reference: &Reference, _: &Location, _: Access) -> Result<Located> {
        panic!("{reference:?} was to be opened")
    }
}

fn inspect_with(open: OpenDisk, bytes: Vec<u8>, rules: &Rules) -> Inspection {
    let store = Arc::new(MemoryStorage::new(bytes));
    let file = Located { store, location: Location::Other("upload".into()) };
    let open = open.policy(Policy::Custom(Arc::new(Untouchable)));
    open.inspect_located(&file, rules).expect("memory can be read")
}

/// The usual rules, changed.
fn rules(change: impl FnOnce(&mut Rules)) -> Rules {
    let mut rules = Rules::default();
    change(&mut rules);
    rules
}

fn inspect(bytes: Vec<u8>, rules: &Rules) -> Inspection {
    inspect_with(OpenDisk::untrusted(), bytes, rules)
}

/// A qcow2 image of `size` bytes, with what `write` puts into it.
fn qcow2(size: u64, backing: Option<&Reference>, write: impl FnOnce(&Disk)) -> Vec<u8> {
    let store = Arc::new(MemoryStorage::default());
    let options = Options::of(&QCOW2);
    let image = NewImage { backing, ..NewImage::new(&QCOW2, &options, size) };
    let location = Location::Other("new".into());
    let disk = image.create(Arc::clone(&store) as Arc<dyn Storage>, &location).expect("an image");
    write(&disk);
    disk.flush().expect("memory");
    store.to_vec()
}

fn kinds(inspection: &Inspection) -> Vec<&'static str> {
    inspection.remarks.iter().map(|remark| remark.kind).collect()
}

#[test]
fn an_image_in_order_that_needs_nothing_else_is_accepted_with_its_sizes() {
    let bytes = qcow2(1 << 30, None, |disk| {
        disk.write(GuestOffset(5 << 20), b"data").expect("memory");
    });
    let inspection = inspect(bytes.clone(), &Rules::default().taking(["qcow2"]).up_to(1 << 30));
    assert_eq!(inspection.verdict(), Judgement::Accept, "{inspection:?}");
    assert_eq!((inspection.format, inspection.certainty), ("qcow2", Certainty::Magic));
    assert_eq!((inspection.size, inspection.data), (Some(1 << 30), Some(64 << 10)));
    assert_eq!(inspection.len, bytes.len() as u64);
    assert!(inspection.check.expect("it was checked").is_clean());
    assert!(inspection.remarks.is_empty() && inspection.marks.is_empty());
}

#[test]
fn no_golden_image_that_must_be_refused_is_accepted_and_none_in_order_is_refused() {
    for case in FORMATS.into_iter().flat_map(cases) {
        let unpacked = case.unpack();
        let open = OpenDisk::untrusted().policy(Policy::Custom(Arc::new(Untouchable)));
        let inspection = open.inspect(&unpacked.path, &Rules::default()).expect("it can be read");
        let verdict = inspection.verdict();
        let accepted = verdict == Judgement::Accept;
        match case.expect.open {
            // What is wrong with a key cannot be seen without it.
            OpenVerdict::Refuse | OpenVerdict::Error if case.format != "luks" => {
                assert!(!accepted, "{case}: {inspection:?}");
            }
            // A packed unit that cannot be unpacked is seen only where it reaches behind the end.
            OpenVerdict::Ok if case.expect.read == ReadVerdict::Error => {}
            OpenVerdict::Ok if case.expect.check == "clean" && case.files.len() == 1 => {
                assert!(accepted == inspection.references.is_empty(), "{case}: {inspection:?}");
                if let Some(size) = case.virtual_size {
                    assert!(inspection.size.is_none_or(|seen| seen == size), "{case}");
                }
            }
            _ => {}
        }
        if let Some(parent) = &case.parent {
            assert!(!accepted, "{case} needs {parent}");
        }
    }
}

/// The guest of a raw disk writes its end, and does not name its file.
#[test]
fn a_disk_whose_guest_wrote_a_trailer_or_a_header_to_its_end_is_refused_unless_it_is_said_what_it_is()
 {
    for (format, name) in [("dmg", "udzo-zlib"), ("cloop", "v4-header-last")] {
        let case = cases(format).into_iter().find(|case| case.name == name).expect("is there");
        let bytes = std::fs::read(case.unpack().path).expect("a file");
        let found = inspect(bytes.clone(), &Rules::default());
        assert_eq!((found.verdict(), found.format), (Judgement::Refuse, "raw"), "{found:?}");
        assert_eq!(kinds(&found), ["two-formats"]);
        let named = OpenDisk::untrusted().format(format);
        assert_eq!(
            inspect_with(named, bytes.clone(), &Rules::default()).verdict(),
            Judgement::Accept
        );
        let folder = tempfile::tempdir().expect("a folder");
        let [disk, image] = [format!("disk.{format}.raw"), format!("disk.{format}")];
        for name in [&disk, &image] {
            std::fs::write(folder.path().join(name), &bytes).expect("a file");
        }
        let open = |name: &str| OpenDisk::new().guess_raw(true).path(folder.path().join(name));
        assert_eq!(open(&disk).expect("it opens").top().info().format, "raw");
        assert_eq!(open(&image).expect("it opens").top().info().format, format);
    }
}

#[test]
fn mutants_are_judged_without_a_panic_and_soon() {
    const DAMAGE: Damage = Damage {
        places: 3,
        areas: &[120, 512, 4096],
        nasty: Nasty::Big64(&[0, 1, u64::MAX, 1 << 63, 1 << 62, 0x1_0000, 0x30000, 1 << 40]),
        count: 6,
        largest: 1 << 20,
    };
    let rules = rules(|rules| rules.time = Duration::from_millis(300));
    let mut refused = 0;
    for format in FORMATS {
        DAMAGE.on_golden(format, &mut Random::new(11), |mutant, _| {
            let inspection = inspect(mutant.bytes, &rules);
            refused += u32::from(inspection.verdict() == Judgement::Refuse);
            Ok(())
        });
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn an_image_that_is_another_one_as_well_is_refused_with_the_place_of_the_mark() {
    let mut bytes = qcow2(1 << 20, None, |_| {});
    bytes.resize(bytes.len().next_multiple_of(512) + 512, 0);
    let footer = bytes.len() - 512;
    bytes[footer..][..8].copy_from_slice(b"conectix");
    let inspection = inspect(bytes, &Rules::default());
    assert_eq!(inspection.verdict(), Judgement::Refuse);
    let mark = &inspection.marks[0];
    assert!(mark.name == "vpc" && mark.kind == MarkKind::Image, "{mark:?}");
    assert_eq!(mark.at, Some(HostOffset(footer as u64)));
    let remark = inspection.remarks.iter().find(|one| one.kind == "two-formats").expect("told");
    assert!(remark.text.contains(&format!("{footer:#x}")), "{}", remark.text);
}

#[test]
fn a_disk_for_one_reader_hidden_in_the_header_of_another_format_is_doubted() {
    let mut bytes = qcow2(1 << 20, None, |_| {});
    bytes.resize(0x9000, 0);
    bytes[0x8001..][..5].copy_from_slice(b"CD001");
    let inspection = inspect(bytes, &rules(|rules| rules.check = false));
    assert!(inspection.verdict() >= Judgement::Doubt, "{inspection:?}");
    assert!(kinds(&inspection).contains(&"two-formats"), "{inspection:?}");
}

/// A disk with a partition table that is a CD as well, as installers are made.
fn hybrid() -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[446..][..16].copy_from_slice(&[0x80, 0, 0, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0]);
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    disk[0x8001..][..5].copy_from_slice(b"CD001");
    disk
}

#[test]
fn a_raw_disk_is_doubted_unless_it_is_said_or_allowed_to_be_raw() {
    let named = |name: &str| OpenDisk::untrusted().format(name);
    let inspection = inspect(hybrid(), &Rules::default());
    assert_eq!(inspection.verdict(), Judgement::Doubt);
    assert_eq!(inspection.certainty, Certainty::Nothing);
    let names: Vec<_> = inspection.marks.iter().map(|mark| mark.name).collect();
    assert_eq!(names, ["iso9660", "partitions"]);
    let raw = Rules::default().taking(["raw", "qcow2"]);
    assert_eq!(inspect(hybrid(), &raw).verdict(), Judgement::Accept);
    let said = inspect_with(named("raw"), hybrid(), &Rules::default());
    assert_eq!((said.verdict(), said.certainty), (Judgement::Accept, Certainty::Named));
    let refused = inspect(hybrid(), &Rules::default().taking(["qcow2"]));
    assert_eq!(kinds(&refused)[0], "format-not-taken");
}

#[test]
fn an_image_that_is_not_what_it_is_said_to_be_is_refused() {
    let open = OpenDisk::untrusted().format("raw");
    let inspection = inspect_with(open, qcow2(1 << 20, None, |_| {}), &Rules::default());
    assert_eq!(kinds(&inspection), ["format-mismatch"]);
    let open = OpenDisk::untrusted().format("qcow2");
    assert_eq!(inspect_with(open, hybrid(), &Rules::default()).verdict(), Judgement::Refuse);
}

#[test]
fn packed_files_and_images_of_formats_that_are_not_read_are_called_by_their_names() {
    let with = |mark: &[u8]| [mark, &[0; 2048]].concat();
    let package = inspect(with(&[0x1F, 0x8B, 8]), &Rules::default());
    assert_eq!((package.verdict(), kinds(&package)), (Judgement::Doubt, vec!["package"]));
    let other = inspect(with(b"Bochs Virtual HD Image"), &Rules::default());
    assert!(other.verdict() == Judgement::Refuse || other.format == "bochs", "{other:?}");
}

#[test]
fn the_files_that_an_image_names_are_listed_byte_for_byte_and_not_opened() {
    let mut backing = Reference::new(Role::Backing, "/etc/passwd");
    backing.format = Some("raw".into());
    let inspection = inspect(qcow2(1 << 20, Some(&backing), |_| {}), &Rules::default());
    assert_eq!(inspection.references, [backing]);
    assert_eq!(kinds(&inspection), ["reference"]);
    let allowed = rules(|rules| rules.references = true);
    let again = inspect(qcow2(1 << 20, Some(&inspection.references[0]), |_| {}), &allowed);
    assert_eq!(again.verdict(), Judgement::Accept);
}

#[test]
fn all_extents_of_a_vmdk_and_its_parent_are_listed_whatever_they_are() {
    let text = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=2\ncreateType=\"custom\"\n\
                parentFileNameHint=\"../base.vmdk\"\nRW 8 SPARSE \"a.vmdk\"\nRW 8 FLAT \"/etc/shadow\" 0\n\
                RW 8 ZERO\nRW 8 FLAT \"/etc/shadow\" 8\n";
    let inspection = inspect(text.into(), &Rules::default());
    let told: Vec<_> = inspection.references.iter().map(|one| (one.role, &one.name[..])).collect();
    assert_eq!(
        told,
        [
            (Role::Extent, &b"a.vmdk"[..]),
            (Role::Extent, b"/etc/shadow"),
            (Role::Backing, b"../base.vmdk")
        ]
    );
    assert_eq!(kinds(&inspection), ["reference"; 3]);
    let allowed = rules(|rules| rules.references = true);
    // What it is made of was not seen.
    assert_eq!(inspect(text.into(), &allowed).verdict(), Judgement::Doubt);
}

#[test]
fn absurd_sizes_are_doubted_and_those_over_a_rule_refused() {
    let huge = || qcow2(100 << 40, None, |_| {});
    assert_eq!(inspect(huge(), &Rules::default()).verdict(), Judgement::Doubt);
    let inspection = inspect(huge(), &Rules::default().up_to(1 << 40));
    assert_eq!((inspection.verdict(), kinds(&inspection)), (Judgement::Refuse, vec!["size"]));
    assert_eq!(inspect(huge(), &Rules::default().up_to(100 << 40)).verdict(), Judgement::Accept);
}

#[test]
fn data_that_is_packed_more_tightly_than_a_rule_allows_is_refused() {
    use anydisk::convert::{Settings, Sources, Unwatched, copy_to_file};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("packed.qcow2");
    let source = qcow2(16 << 20, None, |disk| {
        disk.write(GuestOffset::ZERO, &vec![b'x'; 16 << 20]).expect("memory");
    });
    let store = Arc::new(MemoryStorage::new(source));
    let file = Located { store, location: Location::Other("source".into()) };
    let disk = OpenDisk::untrusted().located(file).unwrap();
    let options = Options::of(&QCOW2);
    let image = NewImage::new(&QCOW2, &options, disk.size());
    let mut settings = Settings::default();
    settings.compress = true;
    copy_to_file(&Sources::one(&disk), &path, &image, &settings, &Unwatched).unwrap();
    let look = |inflation| {
        let rules = rules(|rules| rules.inflation = inflation);
        OpenDisk::untrusted().inspect(&path, &rules).unwrap()
    };
    assert_eq!(look(Some(10)).verdict(), Judgement::Refuse);
    assert_eq!(kinds(&look(Some(10))), ["inflation"]);
    assert_eq!(look(Some(1000)).verdict(), Judgement::Accept);
    assert_eq!(look(None).data, Some(16 << 20));
}

#[test]
fn damage_refuses_an_image_and_the_first_findings_are_kept() {
    let mut bytes = qcow2(64 << 20, None, |disk| {
        for at in 0..8 {
            disk.write(GuestOffset(at << 20), &[1]).expect("memory");
        }
    });
    // All refcounts but those of the first clusters are gone.
    let block = 0x20000;
    bytes[block + 8..][..64].fill(0);
    let rules = rules(|rules| rules.findings = 3);
    let inspection = inspect(bytes, &rules);
    assert_eq!(inspection.verdict(), Judgement::Refuse, "{inspection:?}");
    assert!(kinds(&inspection).contains(&"damage"));
    assert_eq!(inspection.findings.len(), 3);
    assert!(inspection.check.expect("it came to its end").corruptions > 3);
}

#[test]
fn a_look_that_takes_too_long_is_given_up_and_told() {
    // A map of many runs: every second cluster is there.
    let bytes = qcow2(1 << 30, None, |disk| {
        for at in (0..1_u64 << 30).step_by(2 << 16).take(600) {
            disk.write(GuestOffset(at), &[1]).expect("memory");
        }
    });
    let rules = rules(|rules| rules.time = Duration::ZERO);
    let inspection = inspect(bytes, &rules);
    assert_eq!(inspection.verdict(), Judgement::Doubt, "{inspection:?}");
    assert_eq!(kinds(&inspection), ["map", "check"]);
    assert_eq!((inspection.data, inspection.check), (None, None));
}

#[test]
fn a_store_that_cannot_be_read_is_an_error_and_no_verdict() {
    let error = OpenDisk::untrusted().inspect("no-such-file", &Rules::default()).unwrap_err();
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::NotFound));
}

#[test]
fn a_file_that_was_cut_off_is_refused_wherever_that_costs_a_whole_cluster() {
    let bytes = qcow2(1 << 20, None, |disk| {
        for at in [0, 500_000, 900_000] {
            disk.write(GuestOffset(at), &[7; 5000]).expect("memory");
        }
    });
    let last = bytes.len() - 1;
    let cluster = 65536;
    for cut in (512..=last / cluster * cluster).step_by(16384) {
        let found = inspect(bytes[..cut].to_vec(), &Rules::default());
        assert_eq!(found.verdict(), Judgement::Refuse, "cut to {cut} of {last}: {found:?}");
    }
    assert_eq!(inspect(bytes, &Rules::default()).verdict(), Judgement::Accept);
}

#[test]
fn a_qcow2_file_that_ends_inside_its_last_cluster_is_doubted_and_before_it_refused() {
    let bytes = qcow2(1 << 20, None, |disk| {
        for at in [0, 500_000, 900_000] {
            disk.write(GuestOffset(at), &[7; 5000]).expect("memory");
        }
    });
    for cut in [1, 512, 65_535] {
        let found = inspect(bytes[..bytes.len() - cut].to_vec(), &Rules::default());
        assert_eq!((found.verdict(), kinds(&found)), (Judgement::Doubt, vec!["cut-off"]), "{cut}");
    }
    for cut in [65_536, 65_537, 131_000] {
        let found = inspect(bytes[..bytes.len() - cut].to_vec(), &Rules::default());
        assert_eq!(found.verdict(), Judgement::Refuse, "{cut}");
    }
    assert_eq!(inspect(bytes, &Rules::default()).verdict(), Judgement::Accept);
}
