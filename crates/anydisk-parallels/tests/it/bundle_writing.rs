//! Bundles that are written: the present state of each part, over those before.

use std::sync::Arc;

use anydisk_core::{
    Access, Below, Disk, Error, Format, GuestOffset, GuestRange, HostOffset, Image, Limits,
    Located, Location, OpenRequest, Resolver, Result, SnapshotRef, Storage, StorageExt,
};
use anydisk_parallels::PARALLELS;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::oracle::{Checked, Qemu};
use anydisk_testkit::suite::Fixture;
use anydisk_testkit::{ByteModel, MemoryFolder, contents, play_bytes};

use crate::bundles::{FIRST, MIDDLE, TOP, XML, descriptor, firsts, open, put, three_states};
use crate::common::{ByHand, damage};

/// A bundle of one part, of which the tests give the file of the present state; the states before, if there
/// are some, hold nothing.
#[derive(Clone, Copy, Debug)]
struct OnePart {
    states: &'static [&'static str],
}

/// Hands out the file of the present state, and others.
#[derive(Debug)]
struct Files {
    present: Arc<dyn Storage>,
    others: MemoryFolder,
}

impl Resolver for Files {
    fn resolve(
        &self,
        reference: &anydisk_core::Reference,
        from: &Location,
        access: Access,
    ) -> Result<Located> {
        match reference.name == format!("0.{TOP}").as_bytes() {
            true => {
                let location = Location::Other("present".to_owned());
                Ok(Located { store: Arc::clone(&self.present), location })
            }
            false => self.others.resolve(reference, from, access),
        }
    }
}

impl Fixture for OnePart {
    fn create(&self, store: Arc<dyn Storage>, size: u64, _: Below) -> Result<Arc<dyn Image>> {
        let sectors = u32::try_from(size / 512).expect("a small disk");
        store.write_at(HostOffset::ZERO, &ByHand { sectors, ..ByHand::NEW }.bytes())?;
        store.flush()?;
        self.open(store, Access::ReadWrite)
    }

    fn open(&self, store: Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>> {
        let mut sectors = [0; 4];
        store.read_padded_at(HostOffset(36), &mut sectors)?;
        let sectors = u32::from_le_bytes(sectors);
        let others = MemoryFolder::default();
        for guid in &self.states[1..] {
            put(&others, 0, guid, sectors, &[]);
        }
        let text = descriptor(&[sectors.into()], self.states, |_, _| "Compressed");
        let (here, limits) = (Location::Other(XML.to_owned()), Limits::default());
        let files = Files { present: store, others };
        let xml = Arc::new(MemoryStorage::new(text.into_bytes()));
        let request = OpenRequest::new(xml, &here, &limits);
        Ok(PARALLELS.open(OpenRequest { access, resolver: &files, ..request })?.image)
    }

    fn unit(&self) -> u64 {
        1024
    }

    fn granularity(&self) -> u64 {
        512
    }

    fn check(&self, store: Arc<dyn Storage>) -> Result<(), String> {
        damage(&*store)
    }
}

mod alone {
    anydisk_testkit::behaviour_suite!(super::OnePart { states: &[crate::bundles::TOP] });
}

mod over_a_state_before {
    anydisk_testkit::behaviour_tests! {
        super::OnePart { states: &[crate::bundles::TOP, crate::bundles::FIRST] };
        contents::a_zeroed_range_reads_zero_and_nothing_else_does,
        contents::a_discard_never_shows_old_bytes_of_the_host,
        history::random_histories_equal_a_byte_vector,
        crash::after_any_crash_of_a_random_history_what_was_flushed_is_there,
        threads::threads_in_parts_of_their_own_do_not_disturb_each_other,
        threads::readers_see_sectors_of_before_or_after_a_write,
    }
}

/// The bytes of all files but those of the present state.
fn bytes_before(folder: &MemoryFolder) -> Vec<Vec<u8>> {
    let names = folder.names().into_iter().filter(|name| !name.ends_with(TOP));
    names.map(|name| folder.file(&name).expect("it is there").to_vec()).collect()
}

#[test]
fn a_write_goes_to_the_present_state_of_each_part_and_keeps_the_rest_of_the_cluster() {
    let folder = three_states();
    let before = bytes_before(&folder);
    let disk = open(&folder, Access::ReadWrite).expect("it opens");
    assert_eq!(firsts(&disk), [1, 4, 5, 0, 6, 8, 7]);
    // From the middle of a cluster of the first part over its end into the second one.
    disk.write(GuestOffset(1024 + 512), &[9; 3 * 1024]).expect("a write");
    disk.flush().expect("a flush");
    let expected = |disk: &Disk| {
        let bytes = contents(disk);
        assert_eq!(firsts(disk), [1, 4, 9, 9, 9, 8, 7]);
        assert!(bytes[1024..1536] == [4; 512] && bytes[1536..4608] == [9; 3072]);
        assert!(bytes[4608..5120] == [6; 512]);
    };
    expected(&disk);
    drop(disk);
    expected(&open(&folder, Access::Read).expect("it opens"));
    assert!(bytes_before(&folder) == before, "a state before has changed");
    for part in 0..2 {
        let file = folder.file(&format!("{part}.{TOP}")).expect("it is there");
        assert_eq!(damage(&*file), Ok(()));
    }
}

#[test]
fn states_before_stay_as_they_are_and_can_be_read_while_the_present_one_is_written() {
    let disk = open(&three_states(), Access::ReadWrite).expect("it opens");
    let which = SnapshotRef::IdOrName(MIDDLE.trim_matches(['{', '}']).to_owned());
    let snapshot = disk.at_snapshot(&which).expect("it opens");
    disk.write(GuestOffset::ZERO, &[9; 7 * 1024]).expect("a write");
    disk.flush().expect("a flush");
    assert_eq!(firsts(&disk), [9; 7]);
    assert_eq!(firsts(&snapshot), [1, 4, 3, 0, 6, 0, 7]);
    assert!(snapshot.top().writer().is_none());
}

#[test]
fn what_is_zeroed_or_discarded_never_shows_a_state_before() {
    for discards in [false, true] {
        let disk = open(&three_states(), Access::ReadWrite).expect("it opens");
        disk.write(GuestOffset::ZERO, &[9; 2048]).expect("a write");
        let range = GuestRange::new(GuestOffset::ZERO, 7 * 1024).expect("on it");
        match discards {
            true => disk.discard(range).expect("it can"),
            false => disk.zero(range, true).expect("it can"),
        }
        let found = firsts(&disk);
        // What a discard cannot free stays.
        let kept = if discards { [0, 0, 0, 0, 6, 0, 7] } else { [0; 7] };
        assert_eq!(found, kept, "{discards}");
    }
}

#[test]
fn a_plain_file_is_written_in_place() {
    let folder = MemoryFolder::default();
    let kind = |_, guid: &str| if guid == TOP { "Plain" } else { "Compressed" };
    folder.put(XML, descriptor(&[8], &[TOP], kind).into_bytes());
    folder.put(&format!("0.{TOP}"), vec![1; 3700]);
    let disk = open(&folder, Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(100), &[2; 100]).expect("a write");
    disk.write(GuestOffset(4000), &[3; 96]).expect("a write behind its last byte");
    disk.zero(GuestRange::new(GuestOffset(1024), 1024).expect("on it"), true).expect("it can");
    disk.flush().expect("a flush");
    let mut expected = vec![1; 3700];
    expected.resize(4096, 0);
    expected[100..200].fill(2);
    expected[1024..2048].fill(0);
    expected[4000..].fill(3);
    assert!(contents(&disk) == expected);
    assert!(folder.file(&format!("0.{TOP}")).expect("it is there").to_vec() == expected);
}

/// Clusters of different sizes, ends that no cluster ends at, three states.
#[test]
fn random_histories_of_a_split_disk_equal_a_byte_vector() {
    for seed in 0..12 {
        let folder = MemoryFolder::default();
        let states = [TOP, MIDDLE, FIRST];
        folder.put(XML, descriptor(&[9, 20, 31], &states, |_, _| "Compressed").into_bytes());
        for (part, sectors) in [9, 11, 11].into_iter().enumerate() {
            put(&folder, part, FIRST, sectors, &[Some(1), None, Some(3)]);
            put(&folder, part, MIDDLE, sectors, &[None, Some(4)]);
            let tracks = [2, 3, 8][part];
            let present = ByHand { sectors, tracks, data_off: tracks, ..ByHand::NEW };
            folder.put(&format!("{part}.{TOP}"), present.bytes());
        }
        let mut model =
            ByteModel::of(&contents(&open(&folder, Access::Read).expect("it")), 31 * 512);
        for round in 0..3 {
            let disk = open(&folder, Access::ReadWrite).expect("it opens");
            play_bytes(&disk, &mut model, 10 * seed + round, 30);
            disk.flush().expect("a flush");
            assert!(contents(&disk) == model.contents(), "{seed}");
        }
        let disk = open(&folder, Access::Read).expect("it opens");
        assert!(contents(&disk) == model.contents(), "{seed}");
    }
}

#[test]
fn a_bundle_that_could_be_spoilt_is_read_and_not_written() {
    let folder = three_states();
    put(&folder, 1, TOP, 8, &[None, Some(8), None]);
    assert_eq!(firsts(&open(&folder, Access::Read).expect("it opens")), [1, 4, 5, 0, 6, 8, 7]);
    let error = open(&folder, Access::ReadWrite).expect_err("it is refused");
    assert!(matches!(error.kind(), Error::ReadOnly { .. }), "{error}");
    assert!(error.to_string().starts_with(&format!("1.{TOP}: ")), "{error}");
}

#[test]
fn states_are_called_as_snapshots_xml_calls_them() {
    for place in ["Snapshots.xml", "../Snapshots.xml"] {
        let folder = three_states();
        let text = format!(
            "<ParallelsSavedStates><SavedStateItem guid=''><SavedStateItem guid='{MIDDLE}'>\
             <Name>before the update</Name></SavedStateItem></SavedStateItem></ParallelsSavedStates>"
        );
        folder.put(place, text.into_bytes());
        let disk = open(&folder, Access::Read).expect("it opens");
        let list = disk.top().snapshots().expect("it has some").list().expect("they are listed");
        let id = |guid: &str| guid.trim_matches(['{', '}']).to_owned();
        let told: Vec<_> = list.into_iter().map(|info| (info.id, info.name)).collect();
        let name = "before the update".to_owned();
        assert_eq!(told, [(id(MIDDLE), name.clone()), (id(FIRST), id(FIRST))], "{place}");
        let named = disk.at_snapshot(&SnapshotRef::Name(name)).expect("it opens");
        assert_eq!(firsts(&named), [1, 4, 3, 0, 6, 0, 7]);
    }
}

#[test]
fn qemu_reads_each_file_that_was_written() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = MemoryFolder::default();
    folder.put(XML, descriptor(&[16, 40], &[TOP], |_, _| "Compressed").into_bytes());
    put(&folder, 0, TOP, 16, &[None, Some(1)]);
    put(&folder, 1, TOP, 24, &[Some(2)]);
    let disk = open(&folder, Access::ReadWrite).expect("it opens");
    let mut model = ByteModel::of(&contents(&disk), 40 * 512);
    play_bytes(&disk, &mut model, 7, 60);
    disk.flush().expect("a flush");
    let place = anydisk_testkit::ImageFolder::new(&PARALLELS);
    for (part, range) in [(0, 0..8192), (1, 8192..20480)] {
        let (path, raw) = (place.path("part.hds"), place.path("part.raw"));
        let file = folder.file(&format!("{part}.{TOP}")).expect("it is there");
        std::fs::write(&path, file.to_vec()).expect("a file");
        std::fs::write(&raw, &model.contents()[range]).expect("a file");
        let clean = Ok(Checked { leaks: 0, corruptions: 0 });
        assert_eq!(qemu.check(&path, "parallels"), clean);
        qemu.assert_same((&path, "parallels"), (&raw, "raw"));
    }
}
