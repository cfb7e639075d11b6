//! What a check finds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anydisk_core::{
    CheckReport, CheckRequest, Error, Finding, Format, Limits, Location, OpenRequest, Repair,
    Result,
};
use anydisk_dmg::DMG;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::golden::cases;

fn golden(name: &str) -> Vec<u8> {
    let case = cases("dmg").into_iter().find(|case| case.name == name).expect("is there");
    std::fs::read(case.unpack().path).expect("a file")
}

type Progress<'a> = &'a (dyn Fn(u64, u64) -> bool + Sync);

fn check_with(
    bytes: Vec<u8>,
    change: impl FnOnce(&mut CheckRequest<'_>),
) -> Result<(CheckReport, Vec<Finding>)> {
    check_watched(bytes, None, change)
}

fn check_watched(
    bytes: Vec<u8>,
    progress: Option<Progress<'_>>,
    change: impl FnOnce(&mut CheckRequest<'_>),
) -> Result<(CheckReport, Vec<Finding>)> {
    let (location, limits) = (Location::Other("disk.dmg".into()), Limits::default());
    let open = OpenRequest::new(Arc::new(MemoryStorage::new(bytes)), &location, &limits);
    let mut request = CheckRequest::new(open);
    request.progress = progress;
    change(&mut request);
    let mut findings = Vec::new();
    let report = DMG.check(&request, &mut |finding| findings.push(finding))?;
    Ok((report, findings))
}

fn findings(bytes: Vec<u8>) -> Vec<String> {
    let (report, findings) = check_with(bytes, |_| ()).expect("it can be checked");
    assert_eq!(report.corruptions, findings.len() as u64);
    findings.iter().map(|finding| format!("{}: {}", finding.kind, finding.text)).collect()
}

#[test]
fn a_wrong_byte_of_the_data_is_told_with_what_it_costs() {
    let mut bytes = golden("udzo-zlib");
    bytes[150] ^= 1;
    let (report, found) = check_with(bytes, |request| request.threads = 3).expect("it is checked");
    assert_eq!(report.corruptions, 2);
    assert_eq!([found[0].kind, found[1].kind], ["data-checksum", "chunk-broken"]);
    assert_eq!(found[1].guest.map(|range| range.to_string()).as_deref(), Some("0x0..0x8000"));
}

#[test]
fn a_wrong_byte_of_plain_sectors_shows_in_the_checksums_of_data_and_table() {
    let mut bytes = golden("udzo-zlib");
    // The plain chunk lies behind the first packed one.
    bytes[0xC8 + 7] ^= 0x40;
    let found = findings(bytes);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("data-checksum: the CRC-32 of the data fork is 0x"), "{found:?}");
    assert!(found[1].starts_with("table-checksum: the CRC-32 of the sectors of a table is 0x"));
}

#[test]
fn a_wrong_master_checksum_is_told() {
    let found = findings(golden("hostile-master-checksum"));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("master-checksum: "), "{found:?}");
}

#[test]
fn a_check_tells_how_far_it_is_and_can_be_stopped() {
    let most = AtomicU64::new(0);
    let watch = |done: u64, all: u64| {
        most.fetch_max(done, Ordering::Relaxed);
        done <= all
    };
    check_watched(golden("udzo-zlib"), Some(&watch), |_| ()).expect("it is good");
    assert!(most.into_inner() > 5620, "the data fork and the chunks");
    let stop = |_, _| false;
    let stopped = check_watched(golden("udzo-zlib"), Some(&stop), |_| ());
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
}

#[test]
fn nothing_is_repaired() {
    let refused = check_with(golden("udzo-zlib"), |request| request.repair = Repair::All);
    let expected = "dmg: repairing an image is not supported";
    assert_eq!(refused.unwrap_err().to_string(), expected);
}

#[test]
fn sectors_of_a_table_that_no_chunk_has_are_noted() {
    // The table counts no chunks, and has no checksum.
    let mut bytes = golden("rsrc-fork");
    let table = bytes.windows(4).position(|four| four == b"mish").expect("is there");
    bytes[table + 67] = 0;
    let (_, good) = check_with(bytes.clone(), |_| ()).expect("it is checked");
    assert!(good.iter().all(|finding| finding.kind == "master-checksum"), "{good:?}");
    bytes[table + 203] = 0;
    let (_, found) = check_with(bytes, |_| ()).expect("it is checked");
    let noted = found.iter().find(|finding| finding.kind == "sectors-without-chunk");
    let expected = "1 sectors of the table have no chunk, and read as zero";
    assert_eq!(noted.expect("it is noted").text, expected);
}
