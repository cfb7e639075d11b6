//! Naming another image below: what of the descriptor changes, and what a crash may leave of it.

use std::sync::Arc;

use anydisk_core::{
    Access, Format, HostOffset, Image, Limits, Location, OpenRequest, Opened, Reference, Role,
    Storage,
};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::vmdk::ByHand;
use anydisk_vmdk::VMDK;

const IMAGE: ByHand = ByHand { sectors: 128, grain: 8, zeroed_grain: false, parent: Some(0xAB) };

fn open(store: Arc<dyn Storage>, access: Access) -> Opened {
    let (location, limits) = (Location::Other("a".to_owned()), Limits::default());
    let request = OpenRequest { access, ..OpenRequest::new(store, &location, &limits) };
    VMDK.open(request).expect("it opens")
}

fn parent(name: &str, id: u32) -> Reference {
    let mut reference = Reference::new(Role::Backing, name);
    reference.content_id = Some(id.into());
    reference
}

fn set(image: &Arc<dyn Image>, backing: Option<&Reference>) {
    let link = image.backing_link().expect("it can be linked");
    link.set_backing(backing).expect("another parent");
}

/// Name and content ID of the parent.
fn named(opened: &Opened) -> Option<(String, Option<u32>)> {
    let backing = opened.backing.as_ref()?;
    Some((backing.display_name(), backing.content_id.and_then(anydisk_core::Id::number)))
}

/// The image, with so many bytes of lines in its descriptor that nobody knows.
fn with_lines(bytes: usize) -> (Vec<u8>, String) {
    let mut image = IMAGE.bytes();
    let text = image[512..5 * 512].split(|byte| *byte == 0).next().expect("a text").to_vec();
    let line = b"somebody.else = \"\xE4\xF6\"\n";
    let more = line.repeat(bytes / line.len());
    image[512 + text.len()..][..more.len()].copy_from_slice(&more);
    (image, String::from_utf8_lossy(&[text, more].concat()).into_owned())
}

fn text_of(store: &MemoryStorage) -> String {
    let bytes = store.to_vec();
    let text = bytes[512..5 * 512].split(|byte| *byte == 0).next().expect("a text");
    String::from_utf8_lossy(text).into_owned()
}

#[test]
fn another_parent_changes_its_two_lines_and_no_other() {
    for lines in [0, 500] {
        let (bytes, before) = with_lines(lines);
        let store = Arc::new(MemoryStorage::new(bytes));
        let image = open(store.clone(), Access::ReadWrite).image;
        let long = "a-much-longer-name-for-the-image-below-than-there-was.vmdk";
        set(&image, Some(&parent(long, 0x1234_5678)));
        let expected =
            before.replace("parentCID=000000ab", "parentCID=12345678").replace("below.vmdk", long);
        assert_eq!(text_of(&store), expected);
        let opened = open(store.clone(), Access::Read);
        assert_eq!(named(&opened), Some((long.to_owned(), Some(0x1234_5678))));
        set(&image, None);
        let expected: String = before
            .replace("parentCID=000000ab", "parentCID=ffffffff")
            .lines()
            .filter(|line| !line.starts_with("parentFileNameHint"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(text_of(&store), expected);
        assert_eq!(named(&open(store.clone(), Access::Read)), None);
        let parent_id = image.info().details.into_iter().find(|found| found.name == "parent-cid");
        assert_eq!(format!("{:?}", parent_id.expect("it is told").value), "Number(4294967295)");
        set(&image, Some(&parent("x", 1)));
        assert_eq!(named(&open(store, Access::Read)), Some(("x".to_owned(), Some(1))));
    }
}

#[test]
fn a_parent_with_a_name_that_no_text_can_hold_is_refused_and_one_without_a_content_id_is_not_compared()
 {
    let store = Arc::new(MemoryStorage::new(IMAGE.bytes()));
    let image = open(store.clone(), Access::ReadWrite).image;
    let link = image.backing_link().expect("it can be linked");
    for refused in [parent("a\"b", 1), parent("", 1)] {
        link.set_backing(Some(&refused)).expect_err("refused");
    }
    link.set_backing(Some(&Reference::new(Role::Backing, "x"))).expect("a name");
    assert_eq!(named(&open(store.clone(), Access::Read)), Some(("x".to_owned(), None)));
    assert!(text_of(&store).contains("parentCID=fffffffe\n"));
    assert!(
        open(Arc::new(MemoryStorage::new(IMAGE.bytes())), Access::Read)
            .image
            .backing_link()
            .is_none()
    );
}

#[test]
fn after_any_crash_while_the_parent_changes_it_is_the_old_or_the_new_one() {
    for (lines, name) in
        [(0, "b"), (0, "a-name-that-is-longer"), (500, "b"), (500, "a-longer-name")]
    {
        let crash = CrashStorage::over(with_lines(lines).0);
        let image = open(Arc::new(crash.clone()), Access::ReadWrite).image;
        set(&image, Some(&parent(name, 7)));
        crash.mark();
        let (old, new) = (("below.vmdk".to_owned(), Some(0xAB)), (name.to_owned(), Some(7)));
        let mut seen = [0, 0];
        for state in crash.torn_states(1 << 10, 1) {
            let found = named(&open(state.storage(), Access::ReadWrite)).expect("a parent");
            assert!(found == new || (found == old && state.marks() == 0), "{found:?}\n{state}");
            seen[usize::from(found == new)] += 1;
            // And it can be changed again.
            let store = state.storage();
            set(&open(store.clone(), Access::ReadWrite).image, Some(&parent("other", 9)));
            assert_eq!(named(&open(store, Access::Read)).expect("a parent").0, "other");
        }
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    }
}

/// A descriptor in a file of its own has no header that could name another copy.
#[test]
fn a_short_descriptor_file_is_changed_in_one_sector() {
    let text = "version=1\r\nCID=00000001\r\nparentCID=ffffffff\r\ncreateType=\"custom\"\r\nRW 8 ZERO\r\n\
        RW 8 FLAT \"f\" 0\r\n# end\r\n";
    let crash = CrashStorage::over(text.as_bytes().to_vec());
    let (location, limits) = (Location::Other("a".to_owned()), Limits::default());
    let flat = Arc::new(MemoryStorage::new(vec![0; 4096]));
    let files = crate::common::OneFile(flat);
    let open = |store: Arc<dyn Storage>| {
        let request = OpenRequest::new(store, &location, &limits);
        let access = Access::ReadWrite;
        VMDK.open(OpenRequest { access, resolver: &files, ..request }).expect("it opens")
    };
    let opened = open(Arc::new(crash.clone()));
    set(&opened.image, Some(&parent("base.vmdk", 7)));
    for state in crash.torn_states(1 << 10, 1) {
        let found = named(&open(state.storage()));
        assert!(found.is_none() || found == Some(("base.vmdk".to_owned(), Some(7))), "{found:?}");
    }
    let mut bytes = vec![0; 200];
    let len = crash.read_at(HostOffset::ZERO, &mut bytes).expect("memory");
    let expected = text
        .replace("parentCID=ffffffff", "parentCID=00000007")
        .replace("\"custom\"\r\n", "\"custom\"\r\nparentFileNameHint=\"base.vmdk\"\r\n");
    assert_eq!(String::from_utf8_lossy(&bytes[..len]), expected);
}
