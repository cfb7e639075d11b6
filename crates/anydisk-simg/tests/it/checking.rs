//! What a check finds.

use std::sync::Arc;

use anydisk_core::{CheckRequest, Format, Limits, Location, OpenRequest, Repair, Result};
use anydisk_simg::SIMG;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::golden::cases;

fn golden(name: &str) -> Vec<u8> {
    let case = cases("simg").into_iter().find(|case| case.name == name).expect("is there");
    std::fs::read(case.unpack().path).expect("a file")
}

fn check(bytes: Vec<u8>, repair: Repair) -> Result<Vec<String>> {
    let (location, limits) = (Location::Other("disk.simg".into()), Limits::default());
    let open = OpenRequest::new(Arc::new(MemoryStorage::new(bytes)), &location, &limits);
    let mut findings = Vec::new();
    let request = CheckRequest::new(open).repairing(repair);
    let report = SIMG.check(&request, &mut |finding| findings.push(finding.text))?;
    assert_eq!(report.corruptions, findings.len() as u64);
    Ok(findings)
}

#[test]
fn a_chunk_with_a_wrong_checksum_is_told_and_one_with_a_right_one_is_not() {
    assert_eq!(check(golden("crc32-chunk"), Repair::Nothing).expect("it is checked"), [""; 0]);
    let found = check(golden("hostile-crc-wrong"), Repair::Nothing).expect("it is checked");
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("the CRC-32 of what comes before is 0x"), "{found:?}");
}

#[test]
fn a_wrong_byte_shows_in_the_checksum_of_the_header() {
    // The header has the checksum that the chunk says, which is that of all of the disk.
    let mut good = golden("crc32-chunk");
    let said: [u8; 4] = good[good.len() - 4..].try_into().expect("four bytes");
    good[24..28].copy_from_slice(&said);
    assert_eq!(check(good.clone(), Repair::Nothing).expect("it is checked"), [""; 0]);
    good[1000] ^= 1;
    assert_eq!(check(good, Repair::Nothing).expect("it is checked").len(), 2);
}

#[test]
fn nothing_is_repaired() {
    let refused = check(golden("crc32-chunk"), Repair::All).unwrap_err().to_string();
    assert_eq!(refused, "simg: repairing an image is not supported");
}
