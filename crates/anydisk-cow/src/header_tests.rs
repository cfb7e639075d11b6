use proptest::prelude::*;
use zerocopy::FromZeros;

use super::*;

const NAME_BYTES: &[u8] = b"base.raw";

/// A header of a kind, as its program would write it, with what the file needs behind it.
fn file(kind: Kind, long: bool, size: u64) -> Vec<u8> {
    let mut bytes = match (kind, long) {
        (Kind::Qemu64, _) => raw(size, NAME_BYTES).as_bytes().to_vec(),
        (Kind::Qemu32, _) => with(Qemu32::new_zeroed(), |raw| {
            (raw.magic, raw.version) = (MAGIC.into(), 2.into());
            raw.backing_file[..8].copy_from_slice(NAME_BYTES);
            (raw.size, raw.sectorsize) = (size.into(), 512.into());
        }),
        (Kind::Uml(1), false) => with(Uml1::<LittleEndian>::new_zeroed(), |raw| {
            (raw.magic, raw.version) = (MAGIC.into(), 1.into());
            raw.backing_file[..8].copy_from_slice(NAME_BYTES);
            (raw.size, raw.sectorsize) = (size.into(), 512.into());
        }),
        (Kind::Uml(1), true) => with(Uml1Long::<BigEndian>::new_zeroed(), |raw| {
            (raw.magic, raw.version) = (MAGIC.into(), 1.into());
            raw.backing_file[..8].copy_from_slice(NAME_BYTES);
            (raw.mtime, raw.size, raw.sectorsize) = (1_100_000_000.into(), size.into(), 512.into());
        }),
        (Kind::Uml(2), _) => with(Uml2::new_zeroed(), |raw| {
            (raw.magic, raw.version) = (MAGIC.into(), 2.into());
            raw.backing_file[..8].copy_from_slice(NAME_BYTES);
            (raw.size, raw.sectorsize) = (size.into(), 512.into());
        }),
        (Kind::Uml(_), false) => with(Uml3::new_zeroed(), |raw| {
            (raw.magic, raw.version) = (MAGIC.into(), 3.into());
            raw.backing_file[..8].copy_from_slice(NAME_BYTES);
            (raw.size, raw.sectorsize, raw.alignment) = (size.into(), 512.into(), 4096.into());
        }),
        (Kind::Uml(_), true) => with(Uml3Long::new_zeroed(), |raw| {
            (raw.magic, raw.version) = (MAGIC.into(), 3.into());
            raw.backing_file[..8].copy_from_slice(NAME_BYTES);
            (raw.mtime, raw.size) = (1_100_000_000.into(), size.into());
            (raw.sectorsize, raw.alignment) = (512.into(), 4096.into());
        }),
    };
    bytes.resize(bytes.len().max(LONGEST_HERE), 0);
    bytes
}

const LONGEST_HERE: usize = crate::layout::LONGEST;

fn with<T: IntoBytes + zerocopy::Immutable>(mut raw: T, fill: impl FnOnce(&mut T)) -> Vec<u8> {
    fill(&mut raw);
    raw.as_bytes().to_vec()
}

const KINDS: [(Kind, bool, u64); 7] = [
    (Kind::Qemu64, false, 1056),
    (Kind::Qemu32, false, 1048),
    (Kind::Uml(1), false, 280),
    (Kind::Uml(1), true, 288),
    (Kind::Uml(2), false, 4120),
    (Kind::Uml(3), false, 8192),
    (Kind::Uml(3), true, 8192),
];

#[test]
fn each_kind_is_told_from_the_others_for_sizes_that_look_like_another() {
    const MIB: u64 = 1 << 20;
    let sizes = [512, 1024, 8704, 9216, MIB, 4 << 30, (4 << 30) + 512, 1 << 40, (2 << 40) + 512];
    for (kind, long, bitmap) in KINDS {
        for size in sizes {
            let bitmap = HostOffset(if kind == Kind::Uml(3) { 8192 } else { bitmap });
            // What else it may look like would need a longer bitmap than any file has.
            let header = Header::parse(&file(kind, long, size), 4 << 40).expect("it is good");
            assert_eq!((header.kind, header.size, header.bitmap), (kind, size, bitmap), "{long}");
            assert_eq!(header.backing_file.as_deref(), Some(NAME_BYTES));
            assert_eq!(header.mtime, if long { 1_100_000_000 } else { 0 });
        }
    }
}

#[test]
fn bitmap_and_data_are_where_their_kind_has_them() {
    let places = |kind, size| {
        let header = Header::parse(&file(kind, false, size), u64::MAX).expect("it is good");
        (header.bitmap.get(), header.bitmap_len, header.data.get())
    };
    assert_eq!(places(Kind::Qemu64, 1 << 20), (1056, 256, 1536));
    assert_eq!(places(Kind::Qemu32, 1 << 20), (1048, 256, 1536));
    assert_eq!(places(Kind::Qemu64, 512), (1056, 1, 1536));
    // Nine sectors: the older rounding has no byte for the ninth.
    assert_eq!(places(Kind::Qemu64, 9 * 512), (1056, 2, 1536));
    assert_eq!(places(Kind::Uml(2), 9 * 512), (4120, 1, 4608));
    assert_eq!(places(Kind::Uml(3), 16 << 20), (8192, 4096, 12288));
}

fn refusal(change: impl FnOnce(&mut Qemu64)) -> String {
    let mut bytes = file(Kind::Qemu64, false, 1 << 20);
    change(Qemu64::mut_from_prefix(&mut bytes).expect("long enough").0);
    Header::parse(&bytes, 1 << 20).unwrap_err().to_string()
}

#[test]
fn a_broken_field_is_refused_with_its_place_and_value() {
    for (error, expected) in [
        (refusal(|raw| raw.magic = 5.into()), "cow: magic at 0x0 is 0x5, expected 0x4f4f4f4d"),
        (refusal(|raw| raw.version = 4.into()), "cow: version 4 is not supported"),
        (
            refusal(|raw| raw.sectorsize = 2048.into()),
            "cow: sectorsize at 0x418 is 2048, expected the size of a sector, here or where another \
             kind of cow has it",
        ),
        (
            refusal(|raw| raw.size = 1000.into()),
            "cow: size at 0x410 is 1000, expected a multiple of 512",
        ),
        (
            refusal(|raw| raw.size = (1 << 63).into()),
            "cow: size at 0x410 is 9223372036854775808, expected a disk whose file ends below 2^63",
        ),
        (
            refusal(|raw| raw.size = (16 << 30).into()),
            "cow: bitmap at 0x100000 is missing, expected a bitmap that ends at 0x400420",
        ),
    ] {
        assert_eq!(error, expected);
    }
    let error = refusal(|raw| raw.backing_file = [b'n'; NAME_LEN]);
    assert!(error.ends_with("expected a name that ends with a NUL"), "{error}");
}

#[test]
fn a_version_3_without_alignment_or_bitmap_is_refused() {
    let refusal = |change: fn(&mut Uml3)| {
        let mut bytes = file(Kind::Uml(3), false, 1 << 20);
        change(Uml3::mut_from_prefix(&mut bytes).expect("long enough").0);
        Header::parse(&bytes, u64::MAX).unwrap_err().to_string()
    };
    assert_eq!(
        refusal(|raw| raw.alignment = 0.into()),
        "cow: alignment at 0x18 is 0, expected a power of two, 1 to 1 MiB"
    );
    assert_eq!(
        refusal(|raw| raw.cow_format = 1.into()),
        "cow: a cow_format other than a bitmap is not supported"
    );
}

#[test]
fn a_header_that_is_cut_off_is_refused() {
    for (kind, long, _) in KINDS {
        let bytes = file(kind, long, 512);
        for len in [0, 3, 7, 8, 100, 270] {
            assert!(Header::parse(&bytes[..len], len as u64).is_err(), "{kind} {len}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_parsing_panic(
        kind in any::<prop::sample::Index>(),
        size in any::<u64>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        file_len in any::<u64>(),
    ) {
        let (kind, long, _) = KINDS[kind.index(KINDS.len())];
        let mut bytes = file(kind, long, size);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(header) = Header::parse(&bytes, file_len) {
            prop_assert!(header.bitmap_end() <= header.data);
            prop_assert!(header.data.get() + header.size <= LONGEST_FILE);
        }
    }
}
