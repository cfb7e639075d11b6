//! What the fuzz targets share: opening bytes from strangers and looking at all they say, with
//! bounded work.
//!
//! Any error is a good answer. A panic, an endless loop, too much memory, or two answers that
//! contradict each other are findings.

pub mod story;

use std::sync::Arc;

use anydisk_core::{
    Access, CheckRequest, Container, ContainerRequest, Disk, DiskExtent, Format, GuestOffset,
    GuestRange, HostOffset, Limits, Located, Location, NoReferences, NoSecrets, OpenRequest,
    Registry, Repair, Resolver, Result, Source, Storage,
};
use anydisk_crypto::luks::{Luks, Payload};
use anydisk_crypto::{KdfLimits, Key};
use anydisk_storage::MemoryStorage;

/// Runs of the map that one input is asked for.
const RUNS: usize = 256;
/// Members that are opened of one container.
const MEMBERS: usize = 64;
/// Bytes that are read at the start of a run.
const PIECE: u64 = 8 << 10;

/// All formats.
#[must_use]
pub fn formats() -> Registry {
    Registry::new(&[
        &anydisk_qcow2::QCOW2,
        &anydisk_vmdk::VMDK,
        &anydisk_vdi::VDI,
        &anydisk_vhd::VHD,
        &anydisk_vhdx::VHDX,
        &anydisk_qcow::QCOW,
        &anydisk_cow::COW,
        &anydisk_qed::QED,
        &anydisk_parallels::PARALLELS,
        &anydisk_luks::LUKS,
        &anydisk_dmg::DMG,
        &anydisk_cloop::CLOOP,
        &anydisk_bochs::BOCHS,
        &anydisk_simg::SIMG,
        &anydisk_asif::ASIF,
        &anydisk_raw::RAW,
    ])
}

/// Opens `bytes` as a stranger's image of `format` that needs no other file, and looks at it.
pub fn explore(format: &dyn Format, bytes: Vec<u8>) {
    explore_with(format, bytes, &NoReferences);
}

/// Opens `bytes` for writing as well: what is written is read back, whatever the tables say.
///
/// # Panics
/// If it is not: that is a finding.
pub fn write_and_read(format: &dyn Format, bytes: Vec<u8>) {
    let (location, limits) = (Location::Other("input".into()), Limits::strict());
    let store = Arc::new(MemoryStorage::new(bytes));
    let mut request = OpenRequest::new(store, &location, &limits);
    request.access = Access::ReadWrite;
    let Ok(opened) = format.open(request) else { return };
    let disk = Disk::new(opened.image);
    for at in [0, 1 << 20, disk.size().saturating_sub(3)] {
        let at = GuestOffset(at.min(disk.size().saturating_sub(3)));
        if disk.size() < 3 || disk.write(at, b"abc").is_err() {
            return;
        }
        let mut back = [0; 3];
        disk.read(at, &mut back).expect("it was written");
        assert_eq!(&back, b"abc");
    }
    let _ = disk.flush();
}

/// Checks `bytes`, which changes nothing.
pub fn check(format: &dyn Format, bytes: Vec<u8>) {
    let (location, limits) = (Location::Other("input".into()), Limits::strict());
    let request = OpenRequest::new(Arc::new(MemoryStorage::new(bytes)), &location, &limits);
    let _ = format.check(&CheckRequest::new(request), &mut |_| {});
}

/// Repairs `bytes`, as [`repair`] does: what can be read of the disk before is read after it as well.
///
/// # Panics
/// If it is not so: that is a finding.
pub fn check_and_repair(format: &dyn Format, bytes: Vec<u8>) {
    let before = pieces(format, Arc::new(MemoryStorage::new(bytes.clone())));
    let Some(store) = repair(format, bytes) else { return };
    // It may have become long, with a hole.
    for (before, after) in before.iter().zip(pieces(format, store)) {
        assert!(before.is_none() || *before == after, "a repair changed what could be read");
    }
}

/// Repairs `bytes`: the same check finds no more than the repair said that it left. The image then, if
/// it could be checked.
///
/// # Panics
/// If it is not so: that is a finding.
pub fn repair(format: &dyn Format, bytes: Vec<u8>) -> Option<Arc<dyn Storage>> {
    let (location, limits) = (Location::Other("input".into()), Limits::strict());
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(bytes));
    let mut open = OpenRequest::new(Arc::clone(&store), &location, &limits);
    open.access = Access::ReadWrite;
    let request = CheckRequest::new(open).repairing(Repair::All);
    let report = format.check(&request, &mut |_| {}).ok()?;
    let again = format.check(&CheckRequest::new(request.open.clone()), &mut |_| {});
    let again = again.expect("what was repaired can be checked");
    // What was met before something else was mended may be gone with that.
    assert!(again.corruptions <= report.corruptions);
    Some(store)
}

/// Some pieces of a disk, those that can be read.
fn pieces(format: &dyn Format, store: Arc<dyn Storage>) -> Vec<Option<Vec<u8>>> {
    let (location, limits) = (Location::Other("input".into()), Limits::strict());
    let request = OpenRequest::new(store, &location, &limits);
    let Ok(opened) = format.open(request) else { return Vec::new() };
    let disk = Disk::new(opened.image);
    let read = |at: u64| {
        let mut piece = vec![0; 512];
        disk.read(GuestOffset(at), &mut piece).ok().map(|()| piece)
    };
    (0..64).map(|number| read(number << 16)).collect()
}

/// As [`explore`], with files that the image may name.
pub fn explore_with(format: &dyn Format, bytes: Vec<u8>, resolver: &dyn Resolver) {
    let limits = Limits::strict();
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(bytes));
    let request = OpenRequest {
        store,
        location: &Location::Other("input".into()),
        access: Access::Read,
        resolver,
        limits: &limits,
        secrets: &NoSecrets,
    };
    if let Ok(opened) = format.open(request) {
        let _ = opened.image.info();
        walk(&Disk::new(opened.image));
    }
}

/// Reads `bytes` as a LUKS header with its payload and without, tries a passphrase that may cost
/// little, and reads what any key makes of the payload.
pub fn explore_luks(bytes: Vec<u8>) {
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(bytes));
    for payload in [Payload::Behind, Payload::Elsewhere] {
        let Ok(luks) = Luks::read(Arc::clone(&store), payload) else { continue };
        let _ = luks.unlock(b"hunter2", None, KdfLimits::new(2000, 64, 64));
        let key = Key::zeroed(luks.info().key_bytes);
        let mut buffer = [0; 700];
        for part in luks.parts(&key, &store).into_iter().flatten() {
            let _ = part.store.read_at(HostOffset(500), &mut buffer);
        }
    }
}

/// Opens `bytes` as a stranger's container, and reads at both ends of each of its members.
pub fn explore_container(container: &dyn Container, bytes: Vec<u8>) {
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(bytes));
    let stores = [Located { store, location: Location::Other("input".into()) }];
    let limits = Limits::strict();
    let request = ContainerRequest { stores: &stores, limits: &limits };
    let Ok(members) = container.open(request) else { return };
    for member in members.members().iter().take(MEMBERS) {
        let Ok(store) = members.open(&member.path) else { continue };
        let Ok(len) = store.len() else { continue };
        let mut buffer = vec![0; usize::try_from(len.min(PIECE)).expect("a small piece")];
        for at in [0, len - buffer.len() as u64] {
            let _ = store.read_at(HostOffset(at), &mut buffer);
            if let Some(holes) = store.holes() {
                let _ = holes.run_at(HostOffset(at), len - at);
            }
        }
    }
}

/// Walks the map from the start, as far as it goes without an error, and reads at each run.
fn walk(disk: &Disk) {
    let mut rest = GuestRange::whole(disk.size());
    for _ in 0..RUNS {
        if rest.is_empty() {
            return;
        }
        let Ok(len) = check_run(disk, rest) else { break };
        rest = rest.skip(len);
    }
    let last = disk.size().saturating_sub(512);
    let _ = read(disk, last, disk.size() - last);
}

/// The run at the start of `rest`: its length is sane, its middle has the answer of its start, and
/// reading agrees with it. Returns its length.
fn check_run(disk: &Disk, rest: GuestRange) -> Result<u64> {
    let found = disk.map(rest)?;
    let len = found.extent.len;
    assert!((1..=rest.len()).contains(&len), "{len} bytes of {rest:?}");
    let half = len / 2;
    let middle = disk.map(rest.first(len).skip(half))?;
    assert_eq!(
        answer(&found, half),
        answer(&middle, 0),
        "byte {half} of the run at {:?} of {len} bytes",
        rest.start()
    );
    let zero = matches!(found.extent.source, Source::Zero { .. } | Source::Absent { .. });
    // The lease of the run ends here: reading takes its own.
    drop((found, middle));
    if let Ok(bytes) = read(disk, rest.start().get(), len.min(PIECE)) {
        assert!(!zero || bytes.iter().all(|&byte| byte == 0), "{rest:?} is zero only in the map");
    }
    Ok(len)
}

/// What a run says, as seen `skipped` bytes further.
fn answer(found: &DiskExtent<'_>, skipped: u64) -> (&'static str, u64) {
    match &found.extent.source {
        Source::Data { at, .. } => ("data", at.get().saturating_add(skipped)),
        Source::Zero { .. } => ("zero", 0),
        Source::Absent { .. } => ("absent", 0),
        Source::Encoded(encoded) => ("encoded", encoded.at.get()),
        _ => ("other", 0),
    }
}

/// Reads in one piece and in two, which must agree.
fn read(disk: &Disk, at: u64, len: u64) -> Result<Vec<u8>> {
    let len = usize::try_from(len).expect("a small piece");
    let mut whole = vec![0; len];
    disk.read(GuestOffset(at), &mut whole)?;
    let mut parts = vec![0xFF; len];
    let (head, tail) = parts.split_at_mut(len / 3);
    disk.read(GuestOffset(at), head)?;
    disk.read(GuestOffset(at + head.len() as u64), tail)?;
    assert!(whole == parts, "{len} bytes at {at} read differently in two pieces");
    Ok(whole)
}
