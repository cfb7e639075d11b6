//! Space for clusters before anything is written there.

use anydisk_core::{
    Attempt, Error, GuestRange, HostOffset, Image, Placement, Preallocation, Reservation, Result,
    Storage, StorageExt,
};

use crate::NAME;
use crate::reserve::Purpose;
use crate::write::WritableImage;

/// Maps every cluster of `range` that has no place of its own, and gives it space as `how` says.
/// What is new there reads as zero, or with extended L2 entries as before.
pub(crate) fn preallocate(
    image: &WritableImage,
    range: GuestRange,
    how: Preallocation,
) -> Result<()> {
    let mut rest = if how == Preallocation::Off { GuestRange::whole(0) } else { range };
    while !rest.is_empty() {
        let len = match reserve(image, rest)? {
            Placement::Fresh(reservation) => fill(image, reservation, how)?,
            Placement::InPlace { len, .. } => len,
        };
        rest = rest.skip(len);
    }
    Ok(())
}

/// Space without content for the start of `range`, or its own.
fn reserve(image: &WritableImage, range: GuestRange) -> Result<Placement<'_>> {
    loop {
        match image.reserve(range, Purpose::Space)? {
            Attempt::Placed(placement) => return Ok(placement),
            Attempt::Need(need) => image.satisfy(&need)?,
            Attempt::Full => image.relieve()?,
            Attempt::Busy => image.claims.wait(range),
        }
    }
}

/// Makes new space zero, and commits it; how many bytes of the disk that was.
fn fill(image: &WritableImage, reservation: Reservation<'_>, how: Preallocation) -> Result<u64> {
    let (range, at) = (reservation.range(), reservation.at());
    let len = range.grown_to(image.shared.geometry.cluster_size()).len();
    let store = &**reservation.store();
    if how == Preallocation::Full || image.is_encrypted() {
        store.write_zeroes_at(at, len)?;
    } else if !reservation.is_zeroed() {
        make_zero(store, at, len, how == Preallocation::Metadata)?;
    }
    if !image.is_encrypted() {
        give_space(store, at, len, how)?;
    }
    reservation.commit()?;
    Ok(range.len())
}

fn give_space(store: &dyn Storage, at: HostOffset, len: u64, how: Preallocation) -> Result<()> {
    let end = at.saturating_add(len).get();
    match (how, store.space()) {
        (Preallocation::Falloc, Some(space)) => Ok(space.allocate(at, len)?),
        (Preallocation::Falloc, None) => Err(Error::Unsupported {
            format: NAME,
            feature: "preallocation=falloc on this store".into(),
        }),
        _ if store.len()? < end => Ok(store.set_len(end)?),
        _ => Ok(()),
    }
}

/// Makes space that was used before zero.
fn make_zero(store: &dyn Storage, at: HostOffset, len: u64, unmap: bool) -> Result<()> {
    match store.space().map(|space| space.zero(at, len, unmap)) {
        Some(Ok(())) => Ok(()),
        _ => Ok(store.write_zeroes_at(at, len)?),
    }
}
