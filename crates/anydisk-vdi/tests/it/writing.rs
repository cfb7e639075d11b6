//! What writing does to a VDI beside the data, what is refused, and how images know each other.

use std::sync::Arc;

use anydisk_core::{
    Access, CheckRequest, CreateRequest, Disk, Error, Format, GuestOffset, GuestRange, HostOffset,
    Id, Layer, Limits, Location, OpenRequest, Options, Reference, Result, Role, Source, Storage,
    StorageExt, Uuid,
};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::kill_first_write;
use anydisk_vdi::VDI;

use crate::common::{ByHand, PARENT, PARENT_MODIFY, number_at};

const MODIFY_AT: u64 = 0x198;
const ALLOCATED_AT: u64 = 0x184;

fn here() -> Location {
    Location::Other("image".to_owned())
}

fn open(store: &Arc<MemoryStorage>, access: Access) -> Result<Disk> {
    let (here, limits) = (here(), Limits::default());
    let mut request = OpenRequest::new(store.clone(), &here, &limits);
    request.access = access;
    let opened = VDI.open(request)?;
    let mut layer = Layer::new(opened.image, "image");
    layer.backing = opened.backing;
    Ok(Disk::from_layers(vec![layer], &limits))
}

fn create(
    size: u64,
    given: &[(&str, &str)],
    parent: Option<&Reference>,
) -> Result<Arc<MemoryStorage>> {
    let store = Arc::new(MemoryStorage::default());
    let mut options = Options::of(&VDI);
    given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
    let (here, limits) = (here(), Limits::default());
    let mut request = CreateRequest::new(store.clone(), &here, size, &options, &limits);
    request.backing = parent;
    Disk::new(VDI.create(request)?).flush()?;
    Ok(store)
}

fn by_hand(image: ByHand) -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::new(image.bytes()))
}

fn uuid_at(store: &MemoryStorage, at: u64) -> Uuid {
    let mut bytes = [0; 16];
    store.read_exact_at(HostOffset(at), &mut bytes).expect("it is in the file");
    Uuid::from_mixed_endian(bytes)
}

#[test]
fn the_first_change_of_a_session_renews_the_content_uuid_and_no_other() {
    let store = by_hand(ByHand::SMALL);
    let before = uuid_at(&store, MODIFY_AT);
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    assert!(store.to_vec() == ByHand::SMALL.bytes(), "opening wrote something");
    disk.write(GuestOffset(0), &[1]).expect("a write");
    let first = uuid_at(&store, MODIFY_AT);
    assert_ne!(first, before);
    disk.write(GuestOffset(9999), &[1]).expect("a write");
    disk.flush().expect("a flush");
    assert_eq!(uuid_at(&store, MODIFY_AT), first);
    assert_eq!(disk.top().info().content_id, Some(Id::Uuid(first)));
    drop(disk);
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    disk.zero(GuestRange::whole(1024), true).expect("a zeroing");
    assert_ne!(uuid_at(&store, MODIFY_AT), first);
}

#[test]
fn blocks_are_counted_before_the_map_names_them() {
    let store = by_hand(ByHand::SMALL);
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(5 * 1024), &[1; 2048]).expect("a write");
    assert_eq!(number_at(&*store, ALLOCATED_AT), 0);
    disk.flush().expect("a flush");
    assert_eq!(number_at(&*store, ALLOCATED_AT), 2);
    let entries = [4, 5, 6, 7].map(|block| number_at(&*store, 512 + 4 * block));
    assert_eq!(entries, [u32::MAX, 0, 1, u32::MAX]);
}

#[test]
fn blocks_that_nothing_names_are_used_again_if_they_hold_no_data() {
    let store = by_hand(ByHand::SMALL);
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(0), &[1; 4096]).expect("a write");
    disk.write(GuestOffset(1024), &[0; 1024]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    // The entries of blocks 1 and 2 are lost; so these blocks of the file are nobody's.
    store.write_at(HostOffset(512 + 4), &[0xFF; 8]).expect("a write to memory");
    let len = store.len().expect("memory has a length");
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(9 * 1024 + 1), &[7]).expect("a write");
    disk.flush().expect("a flush");
    assert_eq!(number_at(&*store, 512 + 4 * 9), 1);
    assert_eq!(store.len().expect("memory has a length"), len);
    let mut bytes = [9; 1024];
    disk.read(GuestOffset(9 * 1024), &mut bytes).expect("a read");
    assert_eq!((bytes[0], bytes[1], bytes[2]), (0, 7, 0), "old bytes of the host show");
}

#[test]
fn a_count_of_blocks_that_are_not_there_does_not_make_the_file_huge() {
    let mut bytes = ByHand::SMALL.bytes();
    bytes[0x184..0x188].copy_from_slice(&0x7FFF_FFFF_u32.to_le_bytes());
    let len = bytes.len() as u64;
    let store = Arc::new(MemoryStorage::new(bytes));
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(0), &[1; 1024]).expect("a write");
    disk.flush().expect("a flush");
    assert_eq!(store.len().expect("memory has a length"), len + 1024);
    assert_eq!(number_at(&*store, ALLOCATED_AT), 1);
}

#[test]
fn what_must_not_be_written_is_refused_with_the_reason() {
    let refusal = |entries: &[u32], allocated: u32, blocks: usize| {
        let mut bytes = ByHand::SMALL.bytes();
        bytes[0x184..0x188].copy_from_slice(&allocated.to_le_bytes());
        for (entry, place) in entries.iter().zip(bytes[512..].chunks_mut(4)) {
            place.copy_from_slice(&entry.to_le_bytes());
        }
        bytes.resize(bytes.len() + 1024 * blocks, 0);
        let store = Arc::new(MemoryStorage::new(bytes));
        open(&store, Access::Read).expect("it can be read");
        let error = open(&store, Access::ReadWrite).expect_err("it must not be written");
        assert!(matches!(error, Error::NeedsRepair { .. }), "{error:?}");
        error.to_string()
    };
    assert_eq!(
        refusal(&[0, 2], 2, 3),
        "vdi: the image needs repair: the block map entry at 0x204 is 2, and there are 2 blocks"
    );
    assert_eq!(
        refusal(&[0, 1], 2, 1),
        "vdi: the image needs repair: the block map entry at 0x204 is 1, and the file ends before \
         that block"
    );
    assert_eq!(
        refusal(&[0, 1, 0], 2, 2),
        "vdi: the image needs repair: the block map entry at 0x208 is 0, as another one"
    );
}

#[test]
fn an_undo_image_is_read_and_written_as_any_child_and_stays_one() {
    let mut bytes = ByHand { has_parent: true, ..ByHand::SMALL }.bytes();
    bytes[76] = 3;
    let store = Arc::new(MemoryStorage::new(bytes));
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(5 * 1024), &[7; 3072]).expect("a write");
    disk.zero(GuestRange::whole(1024), false).expect("a zeroing");
    disk.flush().expect("a flush");
    drop(disk);
    let disk = open(&store, Access::Read).expect("it opens");
    assert_eq!(disk.layers()[0].backing.as_ref().and_then(|r| r.id), Some(Id::Uuid(PARENT)));
    let mut bytes = [1; 3072];
    disk.read(GuestOffset(5 * 1024), &mut bytes).expect("a read");
    assert_eq!(bytes, [7; 3072]);
    assert_eq!((store.to_vec()[76], number_at(&*store, 512)), (3, 0xFFFF_FFFE));
    assert_eq!(uuid_at(&store, MODIFY_AT + 16), PARENT);
}

/// What was lost is not zero to who asks.
#[test]
fn a_block_that_the_end_of_the_file_cuts_is_read_up_to_the_cut_and_known_to_end_there() {
    let store = by_hand(ByHand::SMALL);
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(0), &[5; 2048]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    store.set_len(store.len().expect("memory") - 24).expect("memory");
    let disk = open(&store, Access::Read).expect("it opens").unpadded();
    let mut bytes = [0; 1000];
    disk.read(GuestOffset(1024), &mut bytes).expect("what is before the cut");
    assert_eq!(bytes, [5; 1000]);
    disk.read(GuestOffset(2024), &mut [0; 1]).expect_err("it was lost");
}

/// 400 TiB: the map alone has 1.6 GiB. The check is stopped early.
#[test]
fn a_disk_of_hundreds_of_tebibytes_is_not_too_large_for_a_check() {
    let image = ByHand { size: 400 << 40, block: 1 << 20, ..ByHand::SMALL };
    let header = ByHand { size: 1 << 20, ..image }.bytes();
    let store = Arc::new(MemoryStorage::new(header));
    let blocks = 400_u32 << 20;
    let map_end = 512 + 4 * u64::from(blocks);
    let put = |at, value: u32| store.write_at(HostOffset(at), &value.to_le_bytes());
    put(0x158, u32::try_from(map_end.next_multiple_of(512)).expect("below 4 GiB")).expect("memory");
    put(0x180, blocks).expect("memory");
    put(0x184, 1).expect("memory");
    store.write_at(HostOffset(0x170), &image.size.to_le_bytes()).expect("memory");
    store.set_len(map_end.next_multiple_of(512) + (1 << 20)).expect("memory");
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let open = OpenRequest::new(store.clone(), &location, &limits);
    let stop = |done, _| done < 8 << 20;
    let mut request = CheckRequest::new(open);
    request.progress = Some(&stop);
    let checked = VDI.check(&request, &mut |_| {});
    assert!(matches!(checked, Err(Error::Cancelled)), "{checked:?}");
}

#[test]
fn a_child_says_which_parent_it_has_and_in_which_state() {
    let parent = create(1 << 20, &[], None).expect("an image");
    let info = open(&parent, Access::Read).expect("it opens").top().info();
    let mut reference = Reference::new(Role::Backing, "parent.vdi");
    (reference.id, reference.content_id) = (info.id, info.content_id);
    let child = create(1 << 20, &[], Some(&reference)).expect("an image");
    let found = open(&child, Access::Read).expect("it opens").layers()[0].backing.clone();
    let found = found.expect("it has a parent");
    assert_eq!((found.id, found.content_id), (info.id, info.content_id));
    assert_eq!(found.format.as_deref(), Some("vdi"));
    assert!(found.name.is_empty());
    assert_eq!(found.display_name(), format!("{{{}}}", info.id.expect("a UUID")));
}

#[test]
fn a_parent_that_was_not_looked_at_is_refused() {
    let error = create(512, &[], Some(&Reference::new(Role::Backing, "x"))).expect_err("refused");
    assert_eq!(error.to_string(), "vdi: a parent whose UUIDs are not known is not supported");
}

#[test]
fn uuids_are_those_asked_for_and_random_if_none_are() {
    let uuid = "00112233-4455-6677-8899-aabbccddeeff";
    let made = || create(1 << 20, &[("uuid", uuid)], None).expect("an image");
    assert!(made().to_vec() == made().to_vec(), "the same request gives the same file");
    assert_eq!(uuid_at(&made(), 0x188), uuid.parse().expect("a UUID"));
    let random = || uuid_at(&create(1 << 20, &[], None).expect("an image"), 0x188);
    assert_ne!(random(), random());
    let error = create(512, &[("uuid", "me")], None).expect_err("refused").to_string();
    assert_eq!(error, "vdi: option uuid=me: expected a UUID that is not nil");
}

#[test]
fn a_block_size_that_others_do_not_open_or_that_is_not_written_is_not_made() {
    create(512, &[("block_size", "64M")], None).expect("an image");
    for size in ["64k", "1000000", "128M"] {
        let error = create(512, &[("block_size", size)], None).expect_err("refused").to_string();
        let expected =
            format!("vdi: option block_size={size}: expected a power of two from 128k to 64M");
        assert_eq!(error, expected);
    }
}

#[test]
fn a_block_behind_the_end_of_the_file_is_an_error_that_names_its_entry() {
    let mut bytes = ByHand::SMALL.bytes();
    bytes[512 + 4..512 + 8].copy_from_slice(&7_u32.to_le_bytes());
    let store = Arc::new(MemoryStorage::new(bytes));
    let disk = open(&store, Access::Read).expect("it opens");
    let error = disk.read(GuestOffset(1024), &mut [0; 1]).expect_err("it is not there");
    assert_eq!(
        error.to_string(),
        "vdi: block map entry at 0x204 is 7, expected the number of a block in the file"
    );
}

#[test]
fn a_zeroed_block_over_a_parent_takes_no_space_and_hides_it() {
    let store = by_hand(ByHand { has_parent: true, ..ByHand::SMALL });
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    let len = store.len().expect("memory has a length");
    disk.zero(GuestRange::whole(2048), false).expect("a zeroing");
    disk.flush().expect("a flush");
    assert_eq!(number_at(&*store, 512 + 4), 0xFFFF_FFFE);
    assert_eq!(store.len().expect("memory has a length"), len);
    let found = disk.map(GuestRange::whole(disk.size())).expect("it can be mapped").extent;
    assert!(matches!(found.source, Source::Zero { .. }) && found.len == 2048, "{found:?}");
    let parent = open(&store, Access::Read).expect("it opens").layers()[0].backing.clone();
    assert_eq!(parent.and_then(|parent| parent.content_id), Some(Id::Uuid(PARENT_MODIFY)));
}

/// 100 TiB: qemu takes 417 MiB for the map.
#[test]
fn a_huge_disk_is_opened_and_read_in_little_memory() {
    let image = ByHand { size: 100 << 40, block: 1 << 20, ..ByHand::SMALL };
    let header = ByHand { size: 1 << 20, ..image }.bytes();
    let store = Arc::new(MemoryStorage::new(header));
    let blocks = 100_u32 << 20;
    let map_end = 512 + 4 * blocks;
    for (at, value) in [(0x158, map_end.next_multiple_of(512)), (0x180, blocks)] {
        store.write_at(HostOffset(at), &value.to_le_bytes()).expect("memory");
    }
    store.write_at(HostOffset(0x170), &(100_u64 << 40).to_le_bytes()).expect("memory");
    store.set_len(u64::from(map_end) + (2 << 20)).expect("memory");
    let far = 512 + 4 * u64::from(blocks - 1);
    store.write_at(HostOffset(far), &[0xFF; 4]).expect("memory");
    let disk = open(&store, Access::Read).expect("it opens");
    assert_eq!(disk.size(), 100 << 40);
    let mut bytes = [1; 512];
    disk.read(GuestOffset((100 << 40) - 512), &mut bytes).expect("a read");
    assert_eq!(bytes, [0; 512]);
}

/// Power, or the process, may go at any moment of a first long write that nobody flushes: what it leaves
/// was told as a lost map, which no repair could end.
#[test]
fn a_first_long_write_that_is_killed_leaves_no_lost_map() {
    let (here, limits) = (here(), Limits::default());
    let make = || -> Arc<dyn Storage> { create(128 << 20, &[], None).expect("it is made") };
    let open = |store| {
        let request = OpenRequest::new(store, &here, &limits);
        let request = OpenRequest { access: Access::ReadWrite, ..request };
        Disk::new(VDI.open(request).expect("it opens").image)
    };
    kill_first_write(make, open, 64 << 20, |store, when| {
        let request = CheckRequest::new(OpenRequest::new(store, &here, &limits));
        let report = VDI.check(&request, &mut |_| {}).expect("it can be checked");
        assert_eq!(report.corruptions, 0, "{when}");
    });
}
