//! Bundles: parts and states of a disk in files that a descriptor names.

use std::sync::Arc;

use anydisk_core::{
    Access, BearingLoss, Disk, Error, Format, GuestOffset, Limits, Located, Location, OpenRequest,
    Opener, Registry, Result, SnapshotRef, Storage,
};
use anydisk_parallels::PARALLELS;
use anydisk_testkit::digest::{Reading, content_sha256};
use anydisk_testkit::golden::cases;
use anydisk_testkit::{MemoryFolder, contents};

use crate::common::ByHand;

const NIL: &str = "{00000000-0000-0000-0000-000000000000}";
pub(crate) const TOP: &str = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
pub(crate) const MIDDLE: &str = "{22222222-2222-3333-4444-555555555555}";
pub(crate) const FIRST: &str = "{11111111-2222-3333-4444-555555555555}";
pub(crate) const XML: &str = "DiskDescriptor.xml";

/// A descriptor of parts that each end at a sector, with states from the present one down.
pub(crate) fn descriptor(
    ends: &[u64],
    states: &[&str],
    kind: impl Fn(usize, &str) -> &'static str,
) -> String {
    let (mut start, mut storages) = (0, String::new());
    for (part, end) in ends.iter().enumerate() {
        let image = |guid: &&str| {
            let kind = kind(part, guid);
            format!(
                "<Image><GUID>{guid}</GUID><Type>{kind}</Type><File>{part}.{guid}</File></Image>"
            )
        };
        let images: String = states.iter().map(image).collect();
        storages += &format!("<Storage><Start>{start}</Start><End>{end}</End>{images}</Storage>");
        start = *end;
    }
    let parents = states.iter().skip(1).copied().chain([NIL]);
    let shot = |(guid, parent): (&&str, &str)| {
        format!("<Shot><GUID>{guid}</GUID><ParentGUID>{parent}</ParentGUID></Shot>")
    };
    let shots: String = states.iter().zip(parents).map(shot).collect();
    format!(
        "<?xml version='1.0'?><Parallels_disk_image Version=\"1.0\"><Disk_Parameters><Disk_size>{start}\
         </Disk_size></Disk_Parameters><StorageData>{storages}</StorageData><Snapshots>{shots}\
         </Snapshots></Parallels_disk_image>"
    )
}

/// Puts a part in one state into a folder: clusters of 2 sectors, each of the byte it is said to hold.
pub(crate) fn put(
    folder: &MemoryFolder,
    part: usize,
    guid: &str,
    sectors: u32,
    clusters: &[Option<u8>],
) {
    let mut bytes = ByHand { sectors, ..ByHand::NEW }.bytes();
    let mut entry = 1_u32;
    for (number, byte) in clusters.iter().enumerate() {
        let Some(byte) = byte else { continue };
        bytes[64 + 4 * number..][..4].copy_from_slice(&entry.to_le_bytes());
        bytes.resize(bytes.len() + 1024, *byte);
        entry += 1;
    }
    folder.put(&format!("{part}.{guid}"), bytes);
}

pub(crate) fn open(folder: &MemoryFolder, access: Access) -> Result<Disk> {
    let registry = Registry::new(&[&PARALLELS]);
    let store = folder.file(XML).expect("it is there");
    let file = Located { store, location: Location::Other(XML.to_owned()) };
    Opener::new(&registry, folder).open(file, None, access)
}

/// The bytes that clusters of 1 KiB begin with.
pub(crate) fn firsts(disk: &Disk) -> Vec<u8> {
    contents(disk).chunks(1024).map(|cluster| cluster[0]).collect()
}

/// Two parts in three states.
pub(crate) fn three_states() -> MemoryFolder {
    let folder = MemoryFolder::default();
    folder.put(XML, descriptor(&[8, 14], &[TOP, MIDDLE, FIRST], |_, _| "Compressed").into_bytes());
    put(&folder, 0, FIRST, 8, &[Some(1), Some(2), Some(3), None]);
    put(&folder, 0, MIDDLE, 8, &[None, Some(4), None, None]);
    put(&folder, 0, TOP, 8, &[None, None, Some(5), None]);
    put(&folder, 1, FIRST, 6, &[Some(6), None, None]);
    put(&folder, 1, MIDDLE, 6, &[None, None, Some(7)]);
    put(&folder, 1, TOP, 6, &[None, Some(8), None]);
    folder
}

#[test]
fn what_is_absent_in_a_state_is_that_of_the_state_before_in_every_part() {
    let disk = open(&three_states(), Access::Read).expect("it opens");
    assert_eq!(firsts(&disk), [1, 4, 5, 0, 6, 8, 7]);
    let mut across = [0; 2048];
    disk.read(GuestOffset(3 * 1024), &mut across).expect("a read");
    assert!(across[..1024] == [0; 1024] && across[1024..] == [6; 1024]);
    assert!(disk.top().writer().is_none());
}

#[test]
fn states_before_the_present_one_are_read_as_snapshots() {
    let disk = open(&three_states(), Access::Read).expect("it opens");
    let list = disk.top().snapshots().expect("it has some").list().expect("they are listed");
    let ids: Vec<_> = list.iter().map(|info| format!("{{{}}}", info.id)).collect();
    assert_eq!(ids, [MIDDLE, FIRST]);
    for (guid, expected) in [(MIDDLE, [1, 4, 3, 0, 6, 0, 7]), (FIRST, [1, 2, 3, 0, 6, 0, 0])] {
        let which = SnapshotRef::IdOrName(guid.trim_matches(['{', '}']).to_owned());
        let snapshot = disk.at_snapshot(&which).expect("it opens");
        assert_eq!(firsts(&snapshot), expected, "{guid}");
    }
    let which = SnapshotRef::IdOrName(TOP.trim_matches(['{', '}']).to_owned());
    assert!(matches!(
        disk.at_snapshot(&which).expect_err("it is the disk").kind(),
        Error::NotFound { .. }
    ));
}

#[test]
fn the_first_state_may_be_a_plain_file_and_shorter() {
    let folder = MemoryFolder::default();
    let kind = |_, guid: &str| if guid == FIRST { "Plain" } else { "Compressed" };
    folder.put(XML, descriptor(&[8], &[TOP, FIRST], kind).into_bytes());
    put(&folder, 0, TOP, 8, &[None, Some(5), None, None]);
    folder.put(&format!("0.{FIRST}"), [vec![1; 1024], vec![2; 1024], vec![3; 700]].concat());
    assert_eq!(firsts(&open(&folder, Access::Read).expect("it opens")), [1, 5, 3, 0]);
    put(&folder, 0, FIRST, 4, &[Some(9), Some(9)]);
    let text = descriptor(&[8], &[TOP, FIRST], |_, _| "Compressed");
    folder.put(XML, text.into_bytes());
    assert_eq!(firsts(&open(&folder, Access::Read).expect("it opens")), [9, 5, 0, 0]);
}

#[test]
fn a_bundle_that_cannot_be_is_refused_with_the_file_that_is_wrong() {
    let refusal = |change: &dyn Fn(&MemoryFolder)| {
        let folder = three_states();
        change(&folder);
        open(&folder, Access::Read).expect_err("it is refused").to_string()
    };
    let short = refusal(&|folder| put(folder, 1, TOP, 4, &[]));
    let expected = format!(
        "1.{TOP}: parallels: sectors of the file at 0x24 is 4, expected at least the 6 of its part"
    );
    assert_eq!(short, expected);
    let broken = refusal(&|folder| folder.put(&format!("0.{MIDDLE}"), vec![0; 100]));
    assert!(broken.starts_with(&format!("0.{MIDDLE}: parallels: magic at 0x0")), "{broken}");
    let itself = refusal(&|folder| {
        let text = descriptor(&[8], &[TOP], |_, _| "Plain").replace(&format!("0.{TOP}"), XML);
        folder.put(XML, text.into_bytes());
    });
    assert!(itself.contains("it is the descriptor itself"), "{itself}");
    let twice = refusal(&|folder| {
        let text =
            descriptor(&[8, 14], &[TOP], |_, _| "Compressed").replace("<File>1.", "<File>0.");
        folder.put(XML, text.into_bytes());
    });
    assert!(twice.contains("one file for two parts of a bundle"), "{twice}");
}

#[test]
fn nothing_is_opened_that_the_resolver_does_not_open_and_names_are_told_all_the_same() {
    let folder = three_states();
    let store: Arc<dyn Storage> = folder.file(XML).expect("it is there");
    let (location, limits) = (Location::Other(XML.to_owned()), Limits::default());
    let request = OpenRequest::new(store, &location, &limits);
    let error = PARALLELS.open(request.clone()).expect_err("it is refused");
    assert!(matches!(error.kind(), Error::Denied { .. }), "{error}");
    let names = PARALLELS.references(&request).expect("they are read");
    let names: Vec<_> = names.iter().map(|name| name.display_name()).collect();
    let state = |part: usize| [TOP, MIDDLE, FIRST].map(|guid| format!("{part}.{guid}"));
    assert_eq!(names, [state(0), state(1)].concat());
}

/// The map that is expected is that of the present state alone; here one image is the whole chain.
#[test]
fn the_golden_bundle_has_its_content() {
    let case = cases("parallels").into_iter().find(|case| case.name == "bundle-snapshot");
    let case = case.expect("it is there");
    let folder = case.in_memory();
    let registry = Registry::new(&[&PARALLELS]);
    let store = folder.file(XML).expect("it is there");
    let file = Located { store, location: Location::Other(XML.to_owned()) };
    let disk = Opener::new(&registry, &folder).open(file, None, Access::Read).expect("it opens");
    let found = content_sha256(&disk, Reading::Odd).expect("it reads");
    assert_eq!(Some(found), case.expect.content_sha256);
}

/// For salvage: a part of which nothing can be read costs what it holds and no more.
#[test]
fn a_part_that_is_missing_or_broken_costs_itself_alone_where_loss_is_borne() {
    let registry = Registry::new(&[&PARALLELS]);
    for broken in [None, Some(vec![0; 100])] {
        let folder = MemoryFolder::default();
        let text = descriptor(&[8, 14], &[TOP], |_, _| "Compressed");
        folder.put(XML, text.into_bytes());
        put(&folder, 0, TOP, 8, &[Some(1), None, Some(5), None]);
        if let Some(bytes) = broken {
            folder.put(&format!("1.{TOP}"), bytes);
        }
        let store = folder.file(XML).expect("it is there");
        let file = Located { store, location: Location::Other(XML.to_owned()) };
        assert!(Opener::new(&registry, &folder).open(file.clone(), None, Access::Read).is_err());
        let bearing = BearingLoss(&folder);
        let disk =
            Opener::new(&registry, &bearing).open(file, None, Access::Read).expect("it opens");
        let mut bytes = [9; 4096];
        disk.read(GuestOffset(0), &mut bytes).expect("the part that is there is read");
        assert_eq!([bytes[0], bytes[1024], bytes[2048]], [1, 0, 5]);
        assert!(disk.read(GuestOffset(4096), &mut [0; 512]).is_err());
    }
}
