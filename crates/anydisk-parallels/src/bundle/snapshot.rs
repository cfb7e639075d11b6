//! The states before the present one, as snapshots, called as `Snapshots.xml` calls them. They are read, and
//! neither made nor changed.

use std::sync::Arc;

use anydisk_core::{Error, Image, NewSnapshot, Result, SnapshotInfo, SnapshotRef, Snapshots};

use super::image::ParallelsBundle;
use crate::guard::read_only;

impl Snapshots for ParallelsBundle {
    fn list(&self) -> Result<Vec<SnapshotInfo>> {
        let before = self.files.chain.iter().skip(self.depth + 1);
        let info = |guid: &anydisk_core::Uuid| {
            let mut info = SnapshotInfo::default();
            info.id = guid.to_string();
            info.name = self.files.names.get(guid).unwrap_or(&info.id).clone();
            info.size = self.size();
            info
        };
        Ok(before.map(info).collect())
    }

    fn open(&self, which: &SnapshotRef) -> Result<Arc<dyn Image>> {
        let index = which.find(&self.list()?).ok_or_else(|| not_found(which))?;
        let depth = self.depth + 1 + index;
        Ok(Arc::new(Self { files: Arc::clone(&self.files), depth }))
    }

    fn vm_state(&self, which: &SnapshotRef) -> Result<Option<Arc<dyn Image>>> {
        which.find(&self.list()?).ok_or_else(|| not_found(which)).map(|_| None)
    }

    fn create(&self, _: &NewSnapshot) -> Result<SnapshotInfo> {
        Err(read_only("the states before the present one are only read"))
    }

    fn apply(&self, _: &SnapshotRef) -> Result<()> {
        Err(read_only("the states before the present one are only read"))
    }

    fn delete(&self, _: &SnapshotRef) -> Result<()> {
        Err(read_only("the states before the present one are only read"))
    }

    fn rename(&self, _: &SnapshotRef, _: &str) -> Result<()> {
        Err(read_only("the states before the present one are only read"))
    }
}

fn not_found(which: &SnapshotRef) -> Error {
    Error::NotFound { what: "snapshot", name: which.text().to_owned() }
}
