//! What several tests use.
pub(crate) mod drawers;

/// A sparse image made by hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByHand {
    /// Sectors of the disk.
    pub(crate) sectors: u64,
    /// Sectors of a grain.
    pub(crate) grain: u64,
    /// Entry 1 of a table is a grain of zeroes.
    pub(crate) zeroed_grain: bool,
    /// The content ID of the image below.
    pub(crate) parent: Option<u32>,
}

impl ByHand {
    /// The file: header, descriptor, two directories with a table each, no grain.
    pub(crate) fn bytes(self) -> Vec<u8> {
        assert!(self.sectors <= 512 * self.grain, "one table is enough");
        let (version, flags) = if self.zeroed_grain { (2, 7) } else { (1, 3) };
        let mut file = Vec::new();
        file.extend(b"KDMV");
        file.extend([version, flags].map(u32::to_le_bytes).concat());
        file.extend([self.sectors, self.grain, 1, 4].map(u64::to_le_bytes).concat());
        file.extend(512_u32.to_le_bytes());
        file.extend([5, 10, 16_u64].map(u64::to_le_bytes).concat());
        file.extend(b"\0\n \r\n\0\0");
        file.resize(512, 0);
        file.extend(self.descriptor().bytes());
        for (directory, table) in [(5, 6_u32), (10, 11)] {
            file.resize(directory * 512, 0);
            file.extend(table.to_le_bytes());
        }
        file.resize(16 * 512, 0);
        file
    }

    fn descriptor(self) -> String {
        let hint = match self.parent {
            Some(id) => format!("parentCID={id:08x}\nparentFileNameHint=\"below.vmdk\""),
            None => "parentCID=ffffffff".to_owned(),
        };
        format!(
            "# Disk DescriptorFile\nversion=1\nCID=0badcafe\n{hint}\n\
             createType=\"monolithicSparse\"\nRW {} SPARSE \"x.vmdk\"\n\
             ddb.longContentID = \"00112233445566778899aabb0badcafe\"\n",
            self.sectors
        )
    }
}

/// Gives the same file for every name.
#[derive(Debug)]
pub(crate) struct OneFile(pub(crate) std::sync::Arc<anydisk_storage::MemoryStorage>);

impl anydisk_core::Resolver for OneFile {
    fn resolve(
        &self,
        _: &anydisk_core::Reference,
        from: &anydisk_core::Location,
        _: anydisk_core::Access,
    ) -> anydisk_core::Result<anydisk_core::Located> {
        Ok(anydisk_core::Located { store: self.0.clone(), location: from.clone() })
    }
}
