use proptest::prelude::*;

use super::*;

/// A valid header of version 3 with 64 KiB clusters and a disk of 1 GiB.
pub(crate) fn header() -> Header {
    Header {
        version: 3,
        cluster_bits: 16,
        size: 1 << 30,
        crypt_method: 0,
        l1_size: 2,
        l1_table_offset: HostOffset(0x3_0000),
        refcount_table_offset: HostOffset(0x1_0000),
        refcount_table_clusters: 1,
        nb_snapshots: 0,
        snapshots_offset: HostOffset::ZERO,
        incompatible_features: 0,
        compatible_features: 0,
        autoclear_features: 0,
        refcount_order: 4,
        compression: Compression::Deflate,
        unknown_fields: Vec::new(),
        extensions: Vec::new(),
        backing_file: None,
    }
}

fn parse(bytes: &[u8]) -> Result<Header> {
    Header::parse(bytes, bytes.len() as u64)
}

/// The error after one change to the fields of the valid header.
fn error_of(change: impl FnOnce(&mut RawHeader)) -> String {
    let mut bytes = header().to_bytes().expect("fits");
    let (raw, _) = RawHeader::mut_from_prefix(&mut bytes).expect("long enough");
    change(raw);
    parse(&bytes).unwrap_err().to_string()
}

fn with_extension(kind: u32, data: &[u8]) -> Header {
    Header { extensions: vec![Extension { kind, data: data.to_vec() }], ..header() }
}

fn headers() -> impl Strategy<Value = Header> {
    let extension = (0x1000_u32..0x2000, proptest::collection::vec(any::<u8>(), 0..20));
    (
        (2u32..=3, 9u32..=21, any::<u64>(), any::<u64>(), 0u32..=6),
        proptest::collection::vec(any::<u8>(), 0..3),
        proptest::collection::vec(extension, 0..4),
        proptest::option::of("[a-z]{1,30}"),
    )
        .prop_map(
            |((version, cluster_bits, compatible, autoclear, order), unknown, list, name)| {
                let v3 = |bits: u64| if version == 3 { bits } else { 0 };
                Header {
                    version,
                    cluster_bits,
                    size: 512,
                    compatible_features: v3(compatible),
                    autoclear_features: v3(autoclear & !2),
                    refcount_order: if version == 3 { order } else { 4 },
                    l1_table_offset: HostOffset(3 << cluster_bits),
                    refcount_table_offset: HostOffset(1 << cluster_bits),
                    unknown_fields: if version == 3 { unknown.repeat(8) } else { Vec::new() },
                    extensions: list
                        .into_iter()
                        .map(|(kind, data)| Extension { kind, data })
                        .collect(),
                    backing_file: name.map(String::into_bytes),
                    ..header()
                }
            },
        )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(header in headers()) {
        match header.to_bytes() {
            Ok(bytes) => prop_assert_eq!(parse(&bytes).expect("valid"), header),
            Err(error) => prop_assert!(matches!(error, Error::Limit { .. }), "{}", error),
        }
    }

    #[test]
    fn a_damaged_header_gives_an_error_or_a_header_that_can_be_written_again(
        header in headers(),
        edits in proptest::collection::vec((0usize..160, any::<u8>()), 0..4),
    ) {
        let Ok(mut bytes) = header.to_bytes() else { return Ok(()) };
        for (at, value) in edits {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if let Ok(header) = parse(&bytes)
            && let Ok(again) = header.to_bytes()
        {
            prop_assert_eq!(parse(&again).map(|again| again.extensions).ok(), Some(header.extensions));
        }
    }
}

#[test]
fn every_field_out_of_bounds_is_refused_with_its_place_its_value_and_what_is_expected() {
    type Change = fn(&mut RawHeader);
    let cases: [(Change, &str); 17] = [
        (|raw| raw.magic = 7.into(), "magic at 0x0 is 0x7, expected 0x514649fb"),
        (|raw| raw.version = 4.into(), "version 4 is not supported"),
        (|raw| raw.cluster_bits = 8.into(), "cluster_bits at 0x14 is 8, expected 9 to 21"),
        (|raw| raw.cluster_bits = 64.into(), "cluster_bits at 0x14 is 64, expected 9 to 21"),
        (
            |raw| raw.header_length = 103.into(),
            "header_length at 0x64 is 103, expected 104 to the cluster size (65536)",
        ),
        (
            |raw| raw.incompatible_features = (1 << 5).into(),
            "feature(s) Unknown incompatible feature: 20 is not supported",
        ),
        (
            |raw| raw.incompatible_features = 8.into(),
            "compression_type at 0x68 is 0, expected 1, as feature bit 3 is set",
        ),
        (
            |raw| raw.compression_type = 1,
            "compression_type at 0x68 is 1, expected 0, as feature bit 3 is clear",
        ),
        (
            |raw| raw.autoclear_features = 2.into(),
            "autoclear_features at 0x58 is 0x2, expected bit 1 only with an external data file",
        ),
        (|raw| raw.refcount_order = 7.into(), "refcount_order at 0x60 is 7, expected at most 6"),
        (
            |raw| raw.refcount_table_clusters = 129.into(),
            "refcount table, in bytes is 8454144, more than the limit of 8388608",
        ),
        (
            |raw| raw.size = (1 << 40).into(),
            "l1_size at 0x24 is 2, expected at least 2048 for a disk of 1099511627776 bytes",
        ),
        (
            |raw| raw.l1_table_offset = 0x3_0001.into(),
            "l1_table_offset at 0x28 is 0x30001, expected a multiple of the cluster size (0x10000)",
        ),
        (
            |raw| raw.l1_table_offset = ((1 << 63) - 0x1_0000).into(),
            "l1_table_offset at 0x28 is 0x7fffffffffff0000, expected a place whose clusters end below 2^63",
        ),
        (
            |raw| raw.nb_snapshots = 65537.into(),
            "number of snapshots is 65537, more than the limit of 65536",
        ),
        (
            |raw| raw.backing_file_offset = 0x1_0001.into(),
            "backing_file_offset at 0x8 is 0x10001, expected a place in the first cluster",
        ),
        (|raw| raw.crypt_method = 3.into(), "crypt_method at 0x20 is 3, expected 0, 1 or 2"),
    ];
    for (change, message) in cases {
        assert_eq!(error_of(change), format!("qcow2: {message}"));
    }
}

#[test]
fn a_backing_name_may_not_leave_the_first_cluster() {
    let error = error_of(|raw| {
        raw.backing_file_offset = 0xFFF0.into();
        raw.backing_file_size = 17.into();
    });
    assert_eq!(error, "qcow2: backing_file_size at 0x10 is 17, expected at most 16");
}

#[test]
fn a_file_that_ends_in_the_header_is_refused() {
    let bytes = header().to_bytes().expect("fits");
    for len in 0..V3_HEADER_MIN {
        assert!(parse(&bytes[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn a_header_of_104_bytes_has_no_compression_type_whatever_follows() {
    let bytes = with_extension(0x1234, b"abc").to_bytes().expect("fits");
    let mut short = bytes[..V3_HEADER_MIN].to_vec();
    short.extend_from_slice(&bytes[KNOWN_LEN..]);
    short[V3_HEADER_MIN - 1] = 104;
    short[V3_HEADER_MIN] = 0x99; // Now the type of the extension begins with it.
    let header = parse(&short).expect("valid");
    assert_eq!(header.compression, Compression::Deflate);
    assert_eq!(header.extensions[0].kind, 0x9900_1234);
}

#[test]
fn a_crypto_header_belongs_to_luks_and_to_nothing_else() {
    let pointer = [0, 0, 0, 0, 0, 2, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
    let with = |method, data: &[u8]| Header {
        crypt_method: method,
        ..with_extension(extension::CRYPTO_HEADER, data)
    };
    for (header, expected) in [
        (with(0, &pointer), "2, as an extension names a crypto header"),
        (with(2, &pointer), "a crypto header at a place whose clusters end below 2^63"),
        (with(2, &pointer[..8]), "a crypto header extension of 16 bytes"),
        (Header { crypt_method: 2, ..header() }, "0 or 1, as no extension names a crypto header"),
    ] {
        let error = parse(&header.to_bytes().expect("fits")).unwrap_err().to_string();
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn of_two_extensions_of_one_type_the_last_counts_and_both_are_kept() {
    let format = |data: &[u8]| Extension { kind: extension::BACKING_FORMAT, data: data.into() };
    let twice = Header { extensions: vec![format(b"raw"), format(b"qcow2")], ..header() };
    let read = parse(&twice.to_bytes().expect("fits")).expect("valid");
    assert_eq!(read.backing_format(), Some(&b"qcow2"[..]));
    assert_eq!(read, twice);
}

#[test]
fn a_header_that_outgrows_its_cluster_is_not_written() {
    let long = Header { cluster_bits: 9, backing_file: Some(vec![b'x'; 400]), ..header() };
    let error = long.to_bytes().unwrap_err().to_string();
    assert_eq!(
        error,
        "qcow2: header with extensions and backing file name, in bytes is 520, \
         more than the limit of 512"
    );
}
