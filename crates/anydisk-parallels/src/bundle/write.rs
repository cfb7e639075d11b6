//! Writing the present state of a bundle, each part to its own file.
//!
//! What is absent in that file shows the state before, and no entry hides it. So where that has something,
//! zeroes are written, and what has a cluster keeps it: its part becomes a hole.

use std::sync::Arc;

use anydisk_core::{
    Attempt, Below, Claims, Committed, Error, GuestRange, Handled, HostOffset, Image, ImageWrite,
    Placement, Reservation, Reserved, Result, Source, Storage, WriteLease, Zeroing,
};

use super::image::{Body, ParallelsBundle, Part, State};
use crate::guard::read_only;
use crate::image::ParallelsImage;

impl ParallelsBundle {
    /// The part that the start of a range lies in, and the file that it is written to.
    fn present(&self, range: GuestRange) -> Result<(&Part, &State)> {
        if !self.is_written() {
            return Err(read_only("it was opened for reading"));
        }
        let part = self.files.part_at(range)?;
        Ok((part, part.present()?))
    }

    /// The image and the reservation there, of one that was made here.
    fn own(&self, reserved: &Reserved) -> Result<(&ParallelsImage, Reserved)> {
        let (part, state) = self.present(reserved.range)?;
        match &state.body {
            Body::Expandable(image) => {
                Ok((image, Reserved { range: part.inside(reserved.range), ..*reserved }))
            }
            Body::Plain(_) => Err(read_only("nothing is reserved in a plain file")),
        }
    }

    /// A reservation in the image of a part as one of the disk. It is claimed here as well, for those who
    /// wait.
    fn reserve<'a>(
        &'a self,
        part: &Part,
        image: &'a ParallelsImage,
        reservation: Reservation<'a>,
    ) -> Attempt<'a> {
        let (_, own) = reservation.into_parts();
        let reserved = Reserved { range: part.outside(own.range), ..own };
        let Some(claim) = self.files.claims.try_hold(reserved.range) else {
            image.abandon(&own);
            return Attempt::Busy;
        };
        claim.keep();
        let store = image.table.store();
        Attempt::Placed(Placement::Fresh(Reservation::new(self, store, reserved)))
    }

    fn clear(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        let found = self.map(range)?;
        let (len, is_zero) = (found.len, !matches!(found.source, Source::Data { .. }));
        drop(found);
        if is_zero && how.below == Below::Nothing {
            return Ok(Handled::Done(len));
        }
        let (part, state) = self.present(range)?;
        let inside = part.inside(range).first(len);
        let below = if part.has_states_before() { Below::Image } else { how.below };
        match &state.body {
            Body::Expandable(image) => image.zero(inside, Zeroing { below, ..how }),
            Body::Plain(store) => clear_plain(store, inside, how.unmap),
        }
        .map_err(|error| error.within(&state.name))
    }
}

/// Makes a part of a plain file zero, or says that zeroes must be written.
fn clear_plain(store: &Arc<dyn Storage>, range: GuestRange, unmap: bool) -> Result<Handled> {
    let by_data = Ok(Handled::ByData(range.len()));
    let Some(space) = store.space().filter(|_| unmap) else { return by_data };
    if range.end().get() > store.len()? {
        return by_data;
    }
    match space.zero(HostOffset(range.start().get()), range.len(), unmap) {
        Ok(()) => Ok(Handled::Done(range.len())),
        Err(anydisk_storage::Error::Unsupported { .. }) => by_data,
        Err(error) => Err(error.into()),
    }
}

impl ImageWrite for ParallelsBundle {
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        let (part, state) = self.present(range)?;
        let inside = part.inside(range);
        match &state.body {
            Body::Plain(store) => {
                let (at, len) = (HostOffset(inside.start().get()), inside.len());
                let lease = WriteLease::eternal();
                Ok(Attempt::Placed(Placement::InPlace { store, at, len, lease }))
            }
            Body::Expandable(image) => {
                match image.try_place(inside).map_err(|error| error.within(&state.name))? {
                    Attempt::Placed(Placement::Fresh(reservation)) => {
                        Ok(self.reserve(part, image, reservation))
                    }
                    attempt => Ok(attempt),
                }
            }
        }
    }

    fn claims(&self) -> Option<&Claims> {
        Some(&self.files.claims)
    }

    fn try_commit(&self, reserved: &Reserved) -> Result<Committed<'_>> {
        let (image, own) = self.own(reserved)?;
        let committed = image.try_commit(&own)?;
        if matches!(committed, Committed::Done) {
            self.files.claims.release(reserved.range);
        }
        Ok(committed)
    }

    fn abandon(&self, reserved: &Reserved) {
        if let Ok((image, own)) = self.own(reserved) {
            image.abandon(&own);
            self.files.claims.release(reserved.range);
        }
    }

    fn zero(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        self.clear(range, how)
    }

    fn discard(&self, range: GuestRange, below: Below) -> Result<Handled> {
        self.clear(range, Zeroing { unmap: true, below })
    }

    fn flush(&self) -> Result<()> {
        for part in &self.files.parts {
            let state = part.present()?;
            match &state.body {
                Body::Expandable(image) => image.flush(),
                Body::Plain(store) => store.flush().map_err(Error::from),
            }
            .map_err(|error| error.within(&state.name))?;
        }
        Ok(())
    }

    fn data_store(&self) -> Option<&Arc<dyn Storage>> {
        match &*self.files.parts {
            [part] => Some(part.present().ok()?.body.store()),
            _ => None,
        }
    }

    fn unit(&self) -> u64 {
        let unit = |part: &Part| match &part.present().ok()?.body {
            Body::Expandable(image) => Some(image.unit()),
            Body::Plain(_) => None,
        };
        self.files.parts.iter().filter_map(unit).max().unwrap_or(1)
    }
}
