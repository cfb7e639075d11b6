use super::*;
use proptest::prelude::*;

const SPARSE: &str = "# Disk DescriptorFile\nversion=1\nCID=1a2b3c4d\nparentCID=ffffffff\n\
    createType=\"monolithicSparse\"\n\n# Extent description\nRW 10288 SPARSE \"disk.vmdk\"\n\n\
    # The Disk Data Base\n#DDB\n\nddb.adapterType = \"ide\"\n";

fn parse(text: &str) -> Result<Descriptor> {
    Descriptor::parse(text.as_bytes(), HostOffset::ZERO, &Limits::default())
}

fn refusal(from: &str, to: &str) -> String {
    assert!(SPARSE.contains(from));
    parse(&SPARSE.replace(from, to)).unwrap_err().to_string()
}

#[test]
fn the_descriptor_of_a_sparse_image_is_understood() {
    let descriptor = parse(SPARSE).expect("valid");
    assert_eq!(descriptor.content_id, Some(0x1a2b_3c4d));
    assert_eq!(descriptor.parent, None);
    assert_eq!(descriptor.create_type, "monolithicSparse");
    assert_eq!(descriptor.value("ddb.adapterType"), Some(&b"ide"[..]));
    let [extent] = descriptor.extents.as_slice() else { panic!("one extent") };
    assert_eq!(extent.kind, ExtentKind::Sparse);
    assert_eq!(extent.access, ExtentAccess::ReadWrite);
    assert_eq!(extent.len, 10288 * 512);
    assert_eq!(extent.name, b"disk.vmdk");
}

#[test]
fn crlf_blanks_and_upper_case_are_understood_as_vmware_does() {
    let text = "# comment\r\n  \r\n version = 1\r\nCID = 1A2B3C4D \r\nPARENTCID=FFFFFFFF\r\n\
        CreateType = \"custom\"\r\n\t rw   63  flat  \"a b.bin\"   7\r\nNOACCESS 5 ZERO\r\n";
    let descriptor = parse(text).expect("valid");
    assert_eq!(descriptor.content_id, Some(0x1a2b_3c4d));
    assert_eq!(descriptor.create_type, "custom");
    assert_eq!(descriptor.extents[0].name, b"a b.bin");
    assert_eq!(descriptor.extents[0].start, HostOffset(7 * 512));
    assert_eq!(descriptor.extents[1].access, ExtentAccess::None);
    assert_eq!(descriptor.extents[1].kind, ExtentKind::Zero);
}

#[test]
fn a_byte_order_mark_before_the_text_is_passed_over_and_kept() {
    let marked = format!("\u{feff}{SPARSE}");
    assert!(is_descriptor(marked.as_bytes()));
    let descriptor = parse(&marked).expect("valid");
    assert_eq!(descriptor.content_id, Some(0x1a2b_3c4d));
    assert_eq!(descriptor.to_bytes(), marked.as_bytes());
    // The first line that says something may be the first of all.
    let marked = marked.replace("# Disk DescriptorFile\n", "");
    assert!(is_descriptor(marked.as_bytes()));
}

/// qemu looks for the letters "CID" and takes the parent's number for both.
#[test]
fn keys_are_whole_words_at_the_start_of_a_line() {
    let text = "# the CID=1 of old\nversion=1\nparentCID=11111111\nCID=22222222\n\
        parentFileNameHint=\"base.vmdk\"\nRW 1 ZERO\n";
    let descriptor = parse(text).expect("valid");
    assert_eq!(descriptor.content_id, Some(0x2222_2222));
    let parent = descriptor.parent.expect("a parent");
    assert_eq!((parent.content_id, &parent.name[..]), (Some(0x1111_1111), &b"base.vmdk"[..]));
}

#[test]
fn every_broken_line_is_refused_with_its_place_and_text() {
    for (from, to, expected) in [
        (
            "1a2b3c4d",
            "1a2b3c4dff",
            "vmdk: CID at 0x20 is \"1a2b3c4dff\", expected 1 to 8 hexadecimal digits",
        ),
        (
            "parentCID=ffffffff",
            "parentCID=0000000a",
            "vmdk: parentFileNameHint at 0x0 is missing, expected the name of the parent, as \
             parentCID says that there is one",
        ),
        (
            "disk.vmdk\"\n",
            "disk.vmdk\n",
            "vmdk: extent name at 0x74 is \"RW 10288 SPARSE \\\"disk.vmdk\\n\", expected a closing \
             quote",
        ),
        (
            "SPARSE \"disk.vmdk\"",
            "SPARSE",
            "vmdk: extent name at 0x74 is \"RW 10288 SPARSE\\n\", expected the name of a file in \
             quotes",
        ),
        (
            "10288",
            "-5",
            "vmdk: extent size at 0x74 is \"-5\", expected a number of sectors, at least 1",
        ),
        (
            "10288",
            "99999999999999999999",
            "vmdk: size of an extent in sectors is 18446744073709551615, more than the limit of \
             18014398509481983",
        ),
        (
            "disk.vmdk\"",
            "disk.vmdk\" 18014398509481983",
            "vmdk: start and size of an extent in sectors is 18014398509481983, more than the \
             limit of 18014398509471695",
        ),
        (
            "SPARSE",
            "SPRSE",
            "vmdk: extent type at 0x74 is \"SPRSE\", expected FLAT, VMFS, SPARSE, VMFSSPARSE, \
             SESPARSE, VMFSRDM, VMFSRAW or ZERO",
        ),
        ("version=1", "version=4", "vmdk: descriptor version 4 is not supported"),
        (
            "disk.vmdk",
            "disk\0.vmdk",
            "vmdk: text at 0x89 is \"RW 10288 SPARSE \\\"disk\\x00.vmdk\\\"\", expected no NUL \
             inside a line",
        ),
    ] {
        assert_eq!(refusal(from, to), expected);
    }
}

#[test]
fn extents_that_are_or_may_be_host_devices_are_told() {
    let is_device = |text: &str| parse(text).expect("valid").extents[0].is_device;
    assert!(!is_device(SPARSE));
    assert!(is_device(&SPARSE.replace("SPARSE \"", "VMFSRDM \"")));
    assert!(is_device(&SPARSE.replace("monolithicSparse", "FullDevice").replace("SPARSE", "FLAT")));
}

#[test]
fn a_new_content_id_changes_its_own_lines_only() {
    let long = "ddb.longContentID = \"00112233445566778899aabb1a2b3c4d\"\nunknown stays = so\n";
    let mut descriptor = parse(&format!("{SPARSE}{long}")).expect("valid");
    assert!(descriptor.set_content_id(0xab, [1, 2, 3]));
    let expected = format!("{SPARSE}{long}")
        .replace("CID=1a2b3c4d", "CID=000000ab")
        .replace("00112233445566778899aabb1a2b3c4d", "000000010000000200000003000000ab");
    assert_eq!(descriptor.to_bytes(), expected.as_bytes());
    let again = Descriptor::parse(&descriptor.to_bytes(), HostOffset::ZERO, &Limits::default());
    assert_eq!(again.expect("valid").content_id, Some(0xab));
}

/// qemu prints the number without leading zeroes.
#[test]
fn a_short_content_id_is_replaced_by_one_as_short() {
    let text = SPARSE.replace("1a2b3c4d", "a2b3c4d");
    let mut descriptor = parse(&text).expect("valid");
    assert!(descriptor.set_content_id(0x1234_5678, [0; 3]));
    assert_eq!(descriptor.to_bytes(), text.replace("a2b3c4d", "2345678").as_bytes());
    assert_eq!(descriptor.content_id, Some(0x0234_5678));
}

#[test]
fn the_padding_of_an_embedded_descriptor_is_no_text() {
    let padded = format!("{SPARSE}{}", "\0".repeat(100));
    assert_eq!(parse(&padded).expect("valid").to_bytes(), SPARSE.as_bytes());
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Descriptor::parse(&text, HostOffset::ZERO, &Limits::default());
    }

    #[test]
    fn no_line_makes_the_parser_panic_and_all_lines_come_back(
        lines in proptest::collection::vec("[ -~\t]{0,40}", 0..8),
        words in proptest::collection::vec("(RW|RDONLY|x)? ?[0-9]{0,22} (FLAT|ZERO|q)( \"[^\"\n]{0,6}\"?)?( [0-9]{1,22})?", 0..4),
        crlf in any::<bool>(),
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        let mut text = format!("version=1{end}");
        for line in lines.iter().chain(&words) {
            text += line;
            text += end;
        }
        if let Ok(descriptor) = parse(&text) {
            prop_assert_eq!(descriptor.to_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn a_changed_value_is_the_value_read_back(
        lines in proptest::collection::vec("[a-z]{1,8} ?= ?\"?[a-z0-9]{0,9}\"?", 1..8),
        pick in any::<prop::sample::Index>(),
        value in "[a-z0-9]{0,12}",
    ) {
        let text = format!("version=1\n{}\n", lines.join("\n"));
        let Ok(mut descriptor) = parse(&text) else { return Ok(()) };
        let line = pick.get(&lines);
        let key = line.split('=').next().expect("a key").trim();
        prop_assume!(key != "version");
        prop_assert!(descriptor.set(key, &value));
        prop_assert_eq!(descriptor.value(key), Some(value.as_bytes()));
        let again = Keys(&text::lines(&descriptor.to_bytes(), HostOffset::ZERO))
            .value(key)
            .map(<[u8]>::to_vec);
        prop_assert_eq!(again, Some(value.into_bytes()));
    }
}
